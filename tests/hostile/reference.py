"""What one pixel of a picture is, worked out slowly and one pixel at a time, without any of the framework's code.

The formats are those of include/uapi/drm/drm_fourcc.h, the tiles those of Intel's programmer's reference manuals.
"""

from __future__ import annotations

from fractions import Fraction

from mdevdisplay.surface import SurfaceInfo

__all__ = ["Colour", "blended", "known", "pixel", "some_places"]

Colour = tuple[int, int, int, int]
"""Red, green, blue and alpha."""

_X, _Y, _YF = (0x0100_0000_0000_0000 | number for number in (1, 2, 3))
_BYTES = {"XR24": 4, "AR24": 4, "XB24": 4, "AB24": 4, "RG24": 3, "RG16": 2, "XR30": 4, "XB30": 4}
_PAIRS = {"YUYV": "YUYV", "YVYU": "YVYU", "UYVY": "UYVY", "VYUY": "VYUY"}


def _code(surface: SurfaceInfo) -> str:
    return surface.fourcc.to_bytes(4, "little").decode("latin-1")


def known(surface: SurfaceInfo) -> bool:
    """Whether `pixel` knows how the surface's pixels lie."""
    code = _code(surface)
    if surface.modifier == 0:
        return code in _BYTES or code in _PAIRS or code in ("NV12", "P010")
    if surface.modifier in (_X, _Y):
        return code in _BYTES or code in _PAIRS
    return surface.modifier == _YF and (code in _PAIRS or (code in _BYTES and code != "RG24"))


def _place(surface: SurfaceInfo, x: int, y: int) -> int:
    """Return where byte ``x`` of row ``y`` lies, from the first pixel on."""
    stride = surface.stride
    if surface.modifier == 0:
        return y * stride + x
    if surface.modifier == _X:
        return y // 8 * (8 * stride) + x // 512 * 4096 + y % 8 * 512 + x % 512
    start = y // 32 * (32 * stride) + x // 128 * 4096
    x, y = x % 128, y % 32
    if surface.modifier == _Y:
        return start + x // 16 * 512 + y * 16 + x % 16
    bits = [x >> 6, y >> 4, x >> 5, y >> 3, x >> 4, y >> 2, y >> 1, y]
    unit = 0
    for bit in bits:
        unit = unit << 1 | bit & 1
    return start + unit * 16 + x % 16


def _word(data: bytes, surface: SurfaceInfo, x: int, y: int, size: int) -> int:
    """Return the number that begins at byte ``x`` of row ``y``; an IndexError says that it leaves the data."""
    return sum(data[_place(surface, x + byte, y)] << 8 * byte for byte in range(size))


def _scaled(value: int, bits: int) -> int:
    most = (1 << bits) - 1
    return (value * 510 + most) // (2 * most)


def pixel(data: bytes, surface: SurfaceInfo, x: int, y: int) -> Colour:
    """Return red, green, blue and alpha of a pixel.

    Args:
        data: the memory, from the first pixel on.
        surface: format, modifier, stride and size.
        x: its column.
        y: its row.
    """
    code = _code(surface)
    if code in _PAIRS or code in ("NV12", "P010"):
        return _from_yuv(surface, *_samples(data, surface, code, x, y))
    size = _BYTES[code]
    word = _word(data, surface, x * size, y, size)
    if code == "RG16":
        return _scaled(word >> 11, 5), _scaled(word >> 5 & 63, 6), _scaled(word & 31, 5), 255
    if code in ("XR30", "XB30"):
        high, middle, low = (_scaled(word >> shift & 1023, 10) for shift in (20, 10, 0))
        return (high, middle, low, 255) if code == "XR30" else (low, middle, high, 255)
    high, middle, low = word >> 16 & 255, word >> 8 & 255, word & 255
    alpha = word >> 24 if code[0] == "A" else 255
    return (low, middle, high, alpha) if code[1] == "B" else (high, middle, low, alpha)


def _samples(data: bytes, surface: SurfaceInfo, code: str, x: int, y: int) -> tuple[int, int, int, int]:
    """Return Y, Cb, Cr and how many bits they have."""
    if code in _PAIRS:
        pair = [_word(data, surface, x // 2 * 4 + byte, y, 1) for byte in range(4)]
        luma = [value for value, kind in zip(pair, code, strict=True) if kind == "Y"][x % 2]
        return luma, pair[code.index("U")], pair[code.index("V")], 8
    size = 1 if code == "NV12" else 2
    row = surface.height + y // 2
    values = (
        _word(data, surface, x * size, y, size),
        _word(data, surface, x // 2 * 2 * size, row, size),
        _word(data, surface, (x // 2 * 2 + 1) * size, row, size),
    )
    luma, cb, cr = (value >> (6 if size == 2 else 0) for value in values)
    return luma, cb, cr, 8 if size == 1 else 10


def _from_yuv(surface: SurfaceInfo, luma: int, cb: int, cr: int, bits: int) -> Colour:
    high_definition = surface.width >= 1280 or surface.height > 576
    red, blue = (
        (Fraction(2126, 10000), Fraction(722, 10000)) if high_definition else (Fraction(299, 1000), Fraction(114, 1000))
    )
    green = 1 - red - blue
    step = 1 << bits - 8
    light = Fraction(luma - 16 * step, 219 * step)
    to_blue, to_red = (Fraction(value - 128 * step, 112 * step) for value in (cb, cr))
    levels = (
        light + (1 - red) * to_red,
        light - to_blue * (1 - blue) * blue / green - to_red * (1 - red) * red / green,
        light + (1 - blue) * to_blue,
    )
    shown = [min(255, max(0, (level * 255 + Fraction(1, 2)).__floor__())) for level in levels]
    return shown[0], shown[1], shown[2], 255


def blended(under: Colour, over: Colour) -> Colour:
    """Return a pixel with another of straight alpha over it."""
    alpha = over[3]
    red, green, blue = (
        (2 * (colour * alpha + below * (255 - alpha)) + 255) // 510
        for colour, below in zip(over[:3], under[:3], strict=True)
    )
    return red, green, blue, (2 * (alpha * 255 + under[3] * (255 - alpha)) + 255) // 510


def some_places(width: int, height: int) -> list[tuple[int, int]]:
    """Return all pixels of a small picture, of a larger one its corners and those where tiles meet."""
    if width * height <= 64:
        return [(x, y) for y in range(height) for x in range(width)]
    columns = sorted({x for x in (0, 1, 31, 63, 64, 127, 128, width // 2, width - 2, width - 1) if 0 <= x < width})
    rows = sorted({y for y in (0, 7, 8, 31, 32, 63, 64, height - 2, height - 1) if 0 <= y < height})
    return [(x, y) for y in rows for x in columns][:: max(1, len(columns) * len(rows) // 48)]
