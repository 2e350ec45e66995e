"""A frame: one picture of a plane, copied, and nobody else's."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.pixels import convert
from mdevdisplay.pixels.convert import Matrix
from mdevdisplay.pixels.damage import Mask, full_mask, grid, rectangles
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.pixels.yuv import FOURCCS, check_matrix
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Blank", "Frame", "FrameFlags", "Overlay"]

Pixels = npt.NDArray[np.uint8]

_FORMATS = ("bgra", "rgba", "rgb24", "bgr24")


class FrameFlags(enum.Flag):
    """What is not as it should be with a frame."""

    NONE = 0
    TORN = enum.auto()
    """The plane changed while it was copied, every time it was tried."""
    STALE = enum.auto()
    """The plane cannot be read for now, as while a guest sets a mode; this is the last picture again."""
    CURSOR_MISSING = enum.auto()
    """A cursor was to be drawn, and could not be read."""
    CURSOR_UNCERTAIN = enum.auto()
    """The cursor may be left of or above where it was drawn: the driver reports no sign."""


@attrs.frozen(kw_only=True)
class Blank:
    """A moment at which the plane showed nothing. It is false, a `Frame` is true.

    Attributes:
        serial: counts what the plane showed, see `Frame`.
        timestamp: seconds of time.monotonic() at which it was looked at.
        error: None where the plane shows nothing; of a display that reconnects what keeps it from being read.
    """

    serial: int
    timestamp: float
    error: MdevDisplayError | None = None

    @property
    def cause(self) -> str:
        """The stable id of the error, such as ``"vm-gone"``; "" where there is none."""
        return "" if self.error is None else self.error.cause

    def __bool__(self) -> bool:
        return False


class Overlay(Protocol):
    """Something that is drawn over a picture."""

    def over(self, pixels: Pixels) -> Pixels:
        """Return B, G, R, A pixels with it, a new array."""
        ...


class Frame:
    """One picture. It stays as it is, whatever becomes of the device; its memory is used again once it is dropped.

    Attributes:
        serial: counts what the plane showed, from 1: different pictures and moments without one. Equal pictures have
            equal serials.
        timestamp: seconds of time.monotonic() at which the copy was complete.
        surface: format, geometry and position as the driver reported them.
        raw: read-only: the driver's own layout without row padding, see `mdevdisplay.formats.Format.raw_shape`; for a
            tiled or unknown layout (n,) uint8 as it lies in memory; what a GPU read back is (height, width, 4) B, G, R,
            A.
        flags: what is wrong with it.
        device: the display's locator, for messages.
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_given",
        "_overlay",
        "_pixels",
        "device",
        "flags",
        "raw",
        "serial",
        "surface",
        "timestamp",
    )

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
        changed: Mask | None = None,
        overlay: Overlay | None = None,
    ) -> None:
        """Make a frame of packed pixels; `Display.capture` does it for you.

        Args:
            raw: the pixels.
            surface: what they show.
            serial: see the attribute.
            timestamp: see the attribute.
            flags: see the attribute.
            device: the locator for messages.
            pixels: decoded ones, by a backend or a GPU.
            changed: the tiles that changed since the frame before; None for all.
            overlay: what is drawn over the pixels: the cursor.
        """
        self.raw = raw
        self.surface = surface
        self.serial = serial
        self.timestamp = timestamp
        self.flags = flags
        self.device = device
        self._given = pixels
        self._pixels: Pixels | None = None
        self._changed = changed
        self._overlay = overlay

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.surface.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.surface.height

    @property
    def damage(self) -> tuple[Rect, ...]:
        """What changed since the stream's last frame, in pixels: rectangles of whole 64x64 tiles, none over another.

        All of it in a frame that is the first, or no stream's. `Display.damage_since` tells more.
        """
        return rectangles(self.changed_tiles, self.width, self.height)

    @property
    def changed_tiles(self) -> Mask:
        """`damage` as (rows of tiles, columns of tiles) bool."""
        return full_mask(self.width, self.height) if self._changed is None else self._changed

    @property
    def pixels(self) -> Pixels:
        """(height, width, 4) uint8, always B, G, R, A; made at the first use, and yours to draw on.

        Raises:
            UnsupportedModifier, UnsupportedFormat: the pixels cannot be converted.
        """
        if self._pixels is None:
            pixels = self._convert(None) if self._given is None else self._given
            # what is `raw` itself, or somebody else's too, is not to be drawn on
            self._pixels = pixels.copy() if pixels is self.raw or pixels is self._given else pixels
        return self._pixels

    def _convert(self, matrix: Matrix | None) -> Pixels:
        pixels = convert.to_bgra(self.raw, self.surface, self.device, matrix=matrix)
        return pixels if self._overlay is None else self._overlay.over(pixels)

    @property
    def decoded(self) -> Pixels | None:
        """The pixels as a backend or a GPU has decoded them, not to be drawn on; None where the framework converts."""
        return self._given

    def marked(self, flags: FrameFlags) -> Frame:
        """Return the same picture with more flags, and no damage."""
        return self.evolve(flags=self.flags | flags, changed=np.zeros(grid(self.width, self.height), np.bool_))

    def evolve(self, **changes: Any) -> Frame:
        """Return the same picture with other attributes, named as the arguments of the constructor."""
        own: dict[str, Any] = {
            "serial": self.serial,
            "timestamp": self.timestamp,
            "flags": self.flags,
            "device": self.device,
            "pixels": self._given,
            "changed": self._changed,
            "overlay": self._overlay,
        }
        return Frame(self.raw, self.surface, **(own | changes))

    def to_ndarray(self, format: str = "rgb24", *, matrix: Matrix | None = None) -> Pixels:  # noqa: A002 - PyAV's name
        """Return the pixels as a new array.

        Args:
            format: ``rgb24`` or ``bgr24`` for (height, width, 3), ``rgba`` or ``bgra`` for (height, width, 4).
            matrix: ``"bt601"`` or ``"bt709"``, where a YUV picture is known to be in one; None goes by its size.

        Raises:
            ValueError: another format or matrix.
            UnsupportedModifier, UnsupportedFormat: the pixels cannot be converted.
        """
        if format not in _FORMATS:
            raise ValueError(f"no format {format!r}; there are {', '.join(_FORMATS)}")
        check_matrix(matrix)
        if matrix is not None and self.surface.fourcc in FOURCCS and self.raw.shape[2:] != (4,):  # else no YUV any more
            return self.evolve(pixels=self._convert(matrix)).to_ndarray(format)
        if format == "rgb24":
            if (
                self._pixels is None
                and self._given is None
                and self._overlay is None
                and convert.is_decodable(self.surface)
            ):
                return convert.to_rgb(self.raw, self.surface, self.device)
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
