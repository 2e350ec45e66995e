"""Plane info as a driver writes it, sound but for what is wrong with it on purpose."""

from __future__ import annotations

import struct

import attrs

from hostile.choices import Choices
from mdevdisplay.formats import X_TILED, Y_TILED, YF_TILED, fourcc, lookup, minimum_size, tiling

__all__ = ["CODES", "MODIFIERS", "NUMBERS", "Plane", "some_plane", "sound"]

CODES = (
    *("XR24", "RG16", "AR24", "XB24", "AB24", "RG24", "XR30", "XB30"),
    *("YUYV", "YVYU", "UYVY", "VYUY", "NV12", "P010", "C8", "ACME"),
)
MODIFIERS = (
    *(0, X_TILED, Y_TILED, YF_TILED),
    *(X_TILED + 3, X_TILED + 8, 0x00FF_FFFF_FFFF_FFFF, 0x0300_0000_0060_6014, 1 << 63),
)
NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 63, 64, 65, 127, 128, 129, 511, 512, 4095, 4096, 4097, 0x7FFE, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFF000, 0xFFFFFFFE, 0xFFFFFFFF),
)
_FIELDS = (
    *("fourcc", "modifier", "width", "height", "stride", "size"),
    *("x", "y", "x_hot", "y_hot", "number"),
)
_LARGEST = 1 << 18
"""The most bytes of memory that a sound plane takes."""


@attrs.frozen(kw_only=True)
class Plane:
    """The fields of struct vfio_device_gfx_plane_info that a driver writes; ``number`` is the dma-buf's or region's."""

    fourcc: int = fourcc("XR24")
    modifier: int = 0
    width: int = 8
    height: int = 8
    stride: int = 32
    size: int = 256
    x: int = 0
    y: int = 0
    x_hot: int = 0
    y_hot: int = 0
    number: int = 1

    def encoded(self) -> bytes:
        """Return the 64 bytes from argsz on; argsz, flags and plane type are the caller's and mean nothing."""
        numbers = [self.width, self.height, self.stride, self.size, self.x, self.y, self.x_hot, self.y_hot, self.number]
        shown = (number & 0xFFFFFFFF for number in numbers)
        return struct.pack("<4IQ10I", 64, 0, 0, self.fourcc, self.modifier & (1 << 64) - 1, *shown, 0)

    @property
    def needed(self) -> int:
        """Bytes of memory that hold it, as far as its format is known."""
        layout = lookup(self.fourcc)
        if layout is None or not (self.width and self.height):
            return self.size
        return minimum_size(layout, self.width, self.height, self.stride, self.modifier)


def sound(code: str, width: int, height: int, modifier: int = 0, padding: int = 0) -> Plane:
    """Return a plane whose numbers add up."""
    layout = lookup(fourcc(code))
    stride = (width * 4 if layout is None else layout.minimum_stride(width)) + padding
    tile = tiling(modifier)
    if tile is not None:
        stride = -(-stride // tile.width) * tile.width
    plane = Plane(fourcc=fourcc(code), modifier=modifier, width=width, height=height, stride=stride)
    return attrs.evolve(plane, size=stride * height if layout is None else plane.needed)


def some_plane(choices: Choices, *, cursor: bool = False) -> Plane:
    """Return a plane that is sound, or has up to three wrong fields."""
    code = "AR24" if cursor and not choices.rarely() else choices.of(CODES)
    modifier = choices.of(MODIFIERS) if choices.often() and not cursor else 0
    width, height = 1 + choices.number(70 if cursor else 200), 1 + choices.number(70 if cursor else 140)
    layout = lookup(fourcc(code))
    item = 1 if layout is None else int(layout.dtype[1])
    padding = item * choices.of((0, 0, 1, 3, 16, 1000)) if choices.often() else 0
    plane = sound(code, width, height, modifier, padding)
    while plane.needed > _LARGEST:
        height = max(1, height // 2)
        plane = sound(code, width, height, modifier, padding)
    more: dict[str, int] = {
        "number": choices.of((1, 1, 1, 1, 2, 2, 3)),
        "size": plane.size + choices.of((0, 0, 1, 4096, 100_000)),
    }
    if cursor:
        more |= {"x": choices.number(255), "y": choices.number(255), "number": 2}
        if choices.often():
            more |= {"x": -choices.number(70), "y": -choices.number(70)}
        more |= {"x_hot": choices.of((0, 5, 200, 0xFFFFFFFF)), "y_hot": choices.of((0, 5, 200, 0xFFFFFFFF))}
    plane = attrs.evolve(plane, **more)
    for _ in range(choices.of((0, 0, 0, 0, 1, 1, 2, 3))):
        field = choices.of(_FIELDS)
        value: int = choices.of(NUMBERS) if choices.often() else getattr(plane, field) + choices.of((-1, 1, -4, 4, 64))
        if field == "fourcc" and choices.often():
            value = fourcc(choices.of(CODES))
        if field == "modifier":
            value = choices.of(MODIFIERS)
        plane = attrs.evolve(plane, **{field: value & ((1 << 64) - 1 if field == "modifier" else 0xFFFFFFFF)})
    return plane
