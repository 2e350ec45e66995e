"""Pixels in a file that its owner can truncate: read, never mapped, since a mapping would raise SIGBUS."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import BadSurface, NotMappable, translated
from mdevdisplay.pixels.layout import Raw, extent_of
from mdevdisplay.surface import SurfaceInfo

__all__ = ["FileMemory"]

Bytes = npt.NDArray[np.uint8]


@attrs.frozen(kw_only=True, eq=False)
class FileMemory:
    """One surface's pixels in a file.

    Attributes:
        surface: the geometry.
        fd: the file; it stays its owner's.
        offset: bytes from the file's start to the first pixel.
        device: the locator for messages.
    """

    surface: SurfaceInfo
    fd: int
    offset: int
    device: str

    way = "read"
    dmabuf = None
    mapping = None
    start = 0

    @property
    def layout(self) -> SurfaceInfo:
        """How the bytes lie: as the driver says."""
        return self.surface

    @property
    def extent(self) -> int:
        """Bytes of a copy with its padding; the file is asked for its size before they are allocated."""
        needed = self.surface.needed - self.surface.offset
        with translated(self.device, "asking for the size of the file"):
            room = os.fstat(self.fd).st_size - self.offset
        if room < needed:
            raise self._too_short(room)
        return extent_of(self.surface, room)

    def view(self) -> Raw:
        """Refuse: there is no mapping to look at."""
        raise NotMappable(
            "the pixels are in a file that its owner can truncate, and looking at a mapping of it would kill us then",
            device=self.device,
            hint="capture() reads it safely; a memfd sealed with F_SEAL_SHRINK can be mapped",
        )

    def reading(self) -> AbstractContextManager[None]:
        """There is nothing to bracket."""
        return nullcontext()

    def copy_into(self, target: Bytes) -> None:
        """Read the bytes as they lie, into (extent,) uint8."""
        self._read(target, self.offset)

    def copy_rows_into(self, target: Bytes) -> None:
        """Read the rows without the padding between them."""
        for number, row in enumerate(target):
            self._read(row, self.offset + number * self.surface.stride)

    def _read(self, target: Bytes, offset: int) -> None:
        done = 0
        while done < target.size:
            with translated(self.device, "reading the file"):
                count = os.preadv(self.fd, [target[done:].data], offset + done)
            if not count:
                raise self._too_short(offset - self.offset + done)
            done += count

    def _too_short(self, room: int) -> BadSurface:
        return BadSurface(
            f"reported {self.surface.describe()}: the picture takes {self.surface.needed} bytes, the file has {room}",
            device=self.device,
            hint="whoever made the file made it too small, or has truncated it",
        )
