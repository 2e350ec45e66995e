"""What llvmpipe may be given: it maps what it imports, and a mapping that fails or shrinks would kill us."""

from __future__ import annotations

import mmap
import os

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import NotMappable, from_oserror
from mdevdisplay.region import can_shrink

__all__ = ["check_mappable"]


def check_mappable(dmabuf: DmaBuf, device: str) -> None:
    """Map every descriptor as a whole, for reading and writing, as llvmpipe will at the import, and unmap it again.

    Where that mapping fails, Mesa 25 maps for reading only at each draw and never unmaps, and where that fails too,
    drawing ends in SIGSEGV.

    Raises:
        NotMappable: the exporter refuses, cause ``import-refused``; or the buffer is a file that may be truncated.
    """
    for fd in dmabuf.fds:
        if can_shrink(fd):
            raise NotMappable(
                "what stands in for a dma-buf is a file that its owner can truncate, and reading it then would kill us",
                device=device,
                hint="its owner should seal it: F_ADD_SEALS with F_SEAL_SHRINK",
            )
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            os.lseek(fd, 0, os.SEEK_SET)
            mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
        except OSError as error:
            refused = from_oserror(
                error,
                device=device,
                doing=f"mapping a dma-buf of {dmabuf.exporter or 'a memfd'} for llvmpipe, for reading and writing,",
                hint="no GPU of this host has exported it: hand the dma-buf on to a program that takes it",
                kind=NotMappable,
            )
            refused.cause = "import-refused"
            raise refused from error
