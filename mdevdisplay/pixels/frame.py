"""A frame: one picture of a plane, copied, and nobody else's."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels import convert
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.surface import PlaneType, SurfaceInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Blank", "Frame", "FrameFlags"]

Pixels = npt.NDArray[np.uint8]

_FORMATS = ("bgra", "rgba", "rgb24", "bgr24")


class FrameFlags(enum.Flag):
    """What is not as it should be with a frame."""

    NONE = 0
    TORN = enum.auto()
    """The plane changed while it was copied, every time it was tried."""


@attrs.frozen(kw_only=True)
class Blank:
    """A moment at which the plane showed nothing. It is false, a `Frame` is true.

    Attributes:
        serial: counts frames and blanks of a display from 1.
        timestamp: seconds of time.monotonic().
        cause: "" where the plane shows nothing; of a display that reconnects also the stable id of the error that keeps
            it from being read, such as ``"vm-gone"``.
    """

    serial: int
    timestamp: float
    cause: str = ""

    def __bool__(self) -> bool:
        return False


class Frame:
    """One picture. It stays as it is, whatever becomes of the device; its memory is used again once it is dropped.

    Attributes:
        serial: counts frames and blanks of a display from 1.
        timestamp: seconds of time.monotonic() at which the copy was complete.
        surface: format, geometry and position as the driver reported them.
        raw: the driver's own layout without row padding, see `mdevdisplay.formats.Format.raw_shape`; for a tiled or
            unknown layout (n,) uint8 as it lies in memory.
        flags: what is wrong with it.
    """

    __slots__ = ("__weakref__", "_device", "_pixels", "flags", "raw", "serial", "surface", "timestamp")

    def __init__(
        self,
        raw: Raw,
        surface: SurfaceInfo,
        *,
        serial: int = 1,
        timestamp: float = 0.0,
        flags: FrameFlags = FrameFlags.NONE,
        device: str = "",
        pixels: Pixels | None = None,
    ) -> None:
        """Make a frame of packed pixels; `Display.capture` does it for you.

        ``pixels`` are the decoded ones of a format that only a backend knows.
        """
        self.raw = raw
        self.surface = surface
        self.serial = serial
        self.timestamp = timestamp
        self.flags = flags
        self._device = device
        self._pixels = pixels

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.surface.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.surface.height

    @property
    def pixels(self) -> Pixels:
        """(height, width, 4) uint8, always B, G, R, A; made at the first use. For AR24 it is `raw` itself.

        Raises:
            UnsupportedModifier, UnsupportedFormat: the pixels cannot be converted.
        """
        if self._pixels is None:
            self._pixels = convert.to_bgra(self.raw, self.surface, self._device)
        return self._pixels

    @property
    def decoded(self) -> Pixels | None:
        """`pixels` where they were made already, by the backend or at the first use; else None."""
        return self._pixels

    def to_ndarray(self, format: str = "rgb24") -> Pixels:  # noqa: A002 - PyAV's name
        """Return the pixels as a new array.

        Args:
            format: ``rgb24`` or ``bgr24`` for (height, width, 3), ``rgba`` or ``bgra`` for (height, width, 4).

        Raises:
            ValueError: another format.
            UnsupportedModifier, UnsupportedFormat: the pixels cannot be converted.
        """
        if format not in _FORMATS:
            raise ValueError(f"no format {format!r}; there are {', '.join(_FORMATS)}")
        if format == "rgb24":
            if self._pixels is None and convert.is_decodable(self.surface):
                return convert.to_rgb(self.raw, self.surface, self._device)
            return convert.bgra_to_rgb(self.pixels)
        if format == "rgba":
            return convert.bgra_to_rgba(self.pixels)
        return self.pixels[..., :3].copy() if format == "bgr24" else self.pixels.copy()

    def _picture(self) -> Pixels:
        """A screen without alpha, since nothing lies behind it; a cursor with it."""
        return self.to_ndarray("rgba" if self.surface.plane is PlaneType.CURSOR else "rgb24")

    def to_image(self) -> Image:
        """Return a Pillow image: RGB, or RGBA for a cursor."""
        import PIL.Image

        return PIL.Image.fromarray(self._picture())

    def to_png(self, level: int = 1) -> bytes:
        """Return a PNG file: RGB, or RGBA for a cursor.

        Args:
            level: 0 to 3, ISA-L's; even 0 compresses.
        """
        from mdevdisplay.pixels.png import encode_png

        return encode_png(self._picture(), level)

    def save(self, path: str | Path) -> None:
        """Write a picture file; the name's ending says which kind, PNG or any that Pillow writes."""
        target = Path(path)
        if target.suffix.lower() in ("", ".png"):
            target.write_bytes(self.to_png())
        else:
            self.to_image().save(target)

    def __repr__(self) -> str:
        return f"<Frame {self.serial} {self.surface.describe()} {self.flags}>"
