"""Pixels in a file that its owner can truncate: read, never mapped, since a mapping would raise SIGBUS."""

from __future__ import annotations

import os

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import BadSurface, NotMappable, translated
from mdevdisplay.pixels.layout import Raw, plain_layout, row_bytes
from mdevdisplay.surface import SurfaceInfo

__all__ = ["FileMemory"]


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

    @property
    def size(self) -> int:
        """Bytes of a copy; the file is asked for its size before they are allocated."""
        needed = self.surface.needed - self.surface.offset
        with translated(self.device, "asking for the size of the file"):
            room = os.fstat(self.fd).st_size - self.offset
        if room < needed:
            raise self._too_short(room)
        layout = plain_layout(self.surface)
        if layout is None:
            return needed
        return layout.rows(self.surface.height) * layout.minimum_stride(self.surface.width)

    def view(self) -> Raw:
        """Refuse: there is no mapping to look at."""
        raise NotMappable(
            "the pixels are in a file that its owner can truncate, and looking at a mapping of it would kill us then",
            device=self.device,
            hint="capture() reads it safely; a memfd sealed with F_SEAL_SHRINK can be mapped",
        )

    def copy_into(self, target: npt.NDArray[np.uint8]) -> None:
        """Read the pixels, rows packed, into (size,) uint8."""
        needed = self.surface.needed - self.surface.offset
        layout = plain_layout(self.surface)
        if needed == target.size:
            self._read(target)
            return
        padded = np.empty(
            needed if layout is None else self.surface.stride * layout.rows(self.surface.height), np.uint8
        )
        self._read(padded[:needed])
        rows = row_bytes(padded, 0, self.surface)
        np.copyto(target.reshape(rows.shape), rows)

    def _read(self, target: npt.NDArray[np.uint8]) -> None:
        done = 0
        while done < target.size:
            with translated(self.device, "reading the file"):
                count = os.preadv(self.fd, [target[done:].data], self.offset + done)
            if not count:
                raise self._too_short(done)
            done += count

    def _too_short(self, room: int) -> BadSurface:
        return BadSurface(
            f"reported {self.surface.describe()}: the picture takes {self.surface.needed} bytes, the file has {room}",
            device=self.device,
            hint="whoever made the file made it too small, or has truncated it",
        )
