"""Frozen values that travel from a backend to its reader: surfaces, planes, regions, rectangles, probe answers.

Whoever builds one from a driver's or a guest's report gets `BadSurface` where the numbers do not add up, so that
nothing later has to ask again. Only the size of the real buffer is checked where the buffer is at hand.
"""

from __future__ import annotations

import enum

import attrs

from mdevdisplay.errors import BadSurface
from mdevdisplay.formats import LINEAR, Format, fourcc_name, lookup, minimum_size, modifier_name, tiling

__all__ = ["MAX_DIMENSION", "Match", "PlaneType", "Rect", "Refusal", "RegionInfo", "SurfaceInfo", "same_pixels"]

MAX_DIMENSION = 32767
"""The largest width or height that is believed; DRM's own mode structures stop at 32767 too."""

_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFF_FFFFFFFF


class PlaneType(enum.IntEnum):
    """Which plane of a display; the numbers are the kernel's DRM_PLANE_TYPE_*."""

    OVERLAY = 0
    PRIMARY = 1
    CURSOR = 2


@attrs.frozen
class Rect:
    """A rectangle in pixels: left, top, width and height; width and height are at least 1."""

    x: int
    y: int
    width: int
    height: int

    def __attrs_post_init__(self) -> None:
        if self.x < 0 or self.y < 0 or self.width < 1 or self.height < 1:
            raise ValueError(f"not a rectangle: x {self.x}, y {self.y}, width {self.width}, height {self.height}")


@attrs.frozen(kw_only=True)
class SurfaceInfo:
    """What a plane scans out now. A plane that shows nothing has no SurfaceInfo but None.

    Attributes:
        plane: which plane.
        fourcc: the pixel format as the driver gave it, known to us or not.
        modifier: the 64-bit memory layout; 0 is linear.
        width: pixels in a row.
        height: rows.
        stride: bytes from one row to the next.
        size: bytes of the buffer as reported; some drivers round it up.
        offset: bytes from the start of the buffer to the first pixel.
        x: pixels from the left of the screen to the plane's left edge; meant for cursor planes. From 2**31 on it is
            negative, in two's complement: the kernel's fields are u32.
        y: the same from the top.
        x_hot: the cursor's hot spot in pixels from its left, or None where the driver does not know.
        y_hot: the same from its top.
        dmabuf_id: the kernel's token for GET_GFX_DMABUF, or None where the surface is no dma-buf.
        region_index: the VFIO region that holds it, or None where it is in no region.
        output: the number of the output (head) that shows it; VFIO has only 0.
    """

    plane: PlaneType = PlaneType.PRIMARY
    fourcc: int
    modifier: int = LINEAR
    width: int
    height: int
    stride: int
    size: int
    offset: int = 0
    x: int = 0
    y: int = 0
    x_hot: int | None = None
    y_hot: int | None = None
    dmabuf_id: int | None = None
    region_index: int | None = None
    output: int = 0

    def __attrs_post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise BadSurface(f"reported {self.describe()}: {problem}", hint=_BAD_SURFACE_HINT)

    @property
    def format(self) -> Format | None:
        """The format behind the fourcc, or None where we do not know it."""
        return lookup(self.fourcc)

    @property
    def needed(self) -> int:
        """Bytes from the start of the buffer to the last pixel, or the reported size for an unknown format."""
        layout = self.format
        if layout is None:
            return self.offset + self.size
        return self.offset + minimum_size(layout, self.width, self.height, self.stride, self.modifier)

    def planes(self) -> tuple[tuple[int, int], ...]:
        """Return (offset, stride) in bytes of every memory plane: one, or luma and chroma."""
        layout = self.format
        if layout is not None and layout.chroma:
            return ((self.offset, self.stride), (self.offset + self.stride * self.height, self.stride))
        return ((self.offset, self.stride),)

    def describe(self) -> str:
        """Return one line with format, size, stride and modifier."""
        return (
            f"{fourcc_name(self.fourcc)} {self.width}x{self.height} stride {self.stride} size {self.size} "
            f"offset {self.offset} modifier {modifier_name(self.modifier)}"
        )


def same_pixels(one: SurfaceInfo, other: SurfaceInfo) -> bool:
    """Whether two answers name the same pixels; a cursor that only moved does."""
    return one is other or one == attrs.evolve(other, x=one.x, y=one.y, x_hot=one.x_hot, y_hot=one.y_hot)


_BAD_SURFACE_HINT = "the driver or the guest is at fault; try again, and report the numbers if they stay"


def _problem(surface: SurfaceInfo) -> str:
    """Say what does not add up, or nothing."""
    return _range_problem(surface) or _row_problem(surface)


def _range_problem(surface: SurfaceInfo) -> str:
    for name in ("width", "height"):
        value = getattr(surface, name)
        if not 1 <= value <= MAX_DIMENSION:
            return f"{name} {value} is not between 1 and {MAX_DIMENSION}"
    for name in ("fourcc", "stride", "size", "x", "y"):
        if not 0 <= getattr(surface, name) <= _U32:
            return f"{name} {getattr(surface, name)} is not a 32-bit number"
    if not 0 <= surface.modifier <= _U64 or not 0 <= surface.offset <= _U64:
        return "modifier or offset is not a 64-bit number"
    return ""


def _row_problem(surface: SurfaceInfo) -> str:
    layout = lookup(surface.fourcc)
    if layout is None:
        return ""
    least = layout.minimum_stride(surface.width)
    if surface.stride < least:
        return f"a row of {surface.width} {layout.name} pixels takes {least} bytes, the stride is {surface.stride}"
    item = int(layout.dtype[1])
    if surface.stride % item or surface.offset % item:
        return f"stride {surface.stride} or offset {surface.offset} splits an element of {item} bytes"
    tile = tiling(surface.modifier)
    if tile is not None and surface.stride % tile.width:
        return f"the stride is no multiple of the {tile.width} bytes that a tile is wide"
    need = minimum_size(layout, surface.width, surface.height, surface.stride, surface.modifier)
    if surface.size < need:
        return f"the picture takes {need} bytes, the size is {surface.size}"
    return ""


@attrs.frozen(kw_only=True)
class RegionInfo:
    """One region of a VFIO device, from VFIO_DEVICE_GET_REGION_INFO.

    Attributes:
        index: the region's number; display regions may lie beyond the device's own count (mdpy, NVIDIA).
        size: bytes.
        offset: where it starts in the device's file descriptor.
        readable: VFIO_REGION_INFO_FLAG_READ.
        writable: VFIO_REGION_INFO_FLAG_WRITE.
        mappable: VFIO_REGION_INFO_FLAG_MMAP.
        type: the type of its VFIO_REGION_INFO_CAP_TYPE capability, or None.
        subtype: the subtype beside it.
        capabilities: the ids in its capability chain, in order.
    """

    index: int
    size: int
    offset: int
    readable: bool = False
    writable: bool = False
    mappable: bool = False
    type: int | None = None
    subtype: int | None = None
    capabilities: tuple[int, ...] = ()


@attrs.frozen
class Match:
    """A backend's answer to ``probe``: it can read the device.

    Attributes:
        score: 100 a vendor's own backend, 50 by dma-buf, 40 by region; 1 to 1000. The highest wins.
        reason: one line for people: what was asked and what the driver answered.
    """

    score: int
    reason: str

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.score <= 1000:
            raise ValueError(f"score {self.score} is not between 1 and 1000; return a Refusal instead")


@attrs.frozen
class Refusal:
    """A backend's answer to ``probe``: it cannot read the device, and why in one line."""

    reason: str
