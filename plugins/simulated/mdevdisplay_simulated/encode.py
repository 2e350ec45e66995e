"""From 0xAARRGGBB words to the bytes of every format that the framework knows.

Exact: each value is the nearest that the format has. X bits are 0, as a guest may leave them, so that a reader that
takes them for alpha is found out. YUV is in limited range, by BT.709 from 1280 columns or above 576 rows and by BT.601
below, as players take it; chroma is the mean of the pixels that share it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.formats import fourcc
from mdevdisplay_simulated.layout import Layout
from mdevdisplay_simulated.picture import Words

__all__ = ["encode"]

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int32]
Planes = tuple[Bytes, Bytes | None]


def encode(words: Words, layout: Layout) -> Planes:
    """Return the rows of bytes of the first plane, and of the chroma plane where the format has one.

    Args:
        words: (height, width) pixels, which may be overwritten. With a format that shares chroma they begin on an even
            pixel and row, and end on one or at the picture's edge.
        layout: the format, and the size of the whole picture, which decides how YUV is made.
    """
    code = layout.format.fourcc
    if code in _YUV:
        return _YUV[code](words, _BT709 if layout.width >= 1280 or layout.height > 576 else _BT601)
    return _ENCODERS[code](words)


def _bytes(values: npt.NDArray[np.generic]) -> Bytes:
    """Return (height, n) bytes of (height, …) numbers."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)


def _channels(words: Words) -> tuple[Numbers, Numbers, Numbers]:
    """Return red, green and blue."""
    pixels = words.astype(np.int32)
    return pixels >> 16 & 255, pixels >> 8 & 255, pixels & 255


def _swapped(words: Words) -> Words:
    """Exchange red and blue."""
    outer = words & np.uint32(0x00FF00FF)
    swapped: Words = words & np.uint32(0xFF00FF00) | outer >> np.uint32(16) | outer << np.uint32(16)
    return swapped


def _opaque(words: Words) -> Planes:
    words &= np.uint32(0x00FFFFFF)  # in place: memory for a copy would be faulted in anew for every band
    return _bytes(words), None


def _rg24(words: Words) -> Planes:
    return _bytes(np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)[..., :3]), None


@cache
def _scale(levels: int) -> Words:
    """Return, for 0 to 255, the nearest of 0 to ``levels``."""
    return ((np.arange(256) * levels + 127) // 255).astype(np.uint32)


def _rg16(words: Words) -> Planes:
    red, green, blue = _channels(words)
    packed = _scale(31)[red] << 11 | _scale(63)[green] << 5 | _scale(31)[blue]
    return _bytes(packed.astype("<u2")), None


def _rgb30(words: Words) -> Planes:
    red, green, blue = _channels(words)
    ten = _scale(1023)
    return _bytes(ten[red] << 20 | ten[green] << 10 | ten[blue]), None


def _grey(words: Words) -> Planes:
    """C8 without a palette of its own: a grey one is implied, as luma in full range."""
    red, green, blue = _channels(words)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(np.uint8), None


@attrs.frozen
class _Weights:
    """What red, green and blue weigh in limited range, in 1/65536 of an 8-bit level."""

    luma: tuple[int, int, int]
    cb: tuple[int, int, int]
    cr: tuple[int, int, int]


_BT601 = _Weights((16829, 33039, 6416), (-9714, -19070, 28784), (28784, -24103, -4681))
_BT709 = _Weights((11966, 40254, 4064), (-6596, -22188, 28784), (28784, -26145, -2639))


def _weighted(colours: tuple[Numbers, ...], weights: tuple[int, int, int], base: int, shift: int) -> Numbers:
    """Return base + the weighted sum, in units of 2**-16 of a level, rounded to 2**(shift - 16) of one."""
    red, green, blue = colours
    total = red * weights[0] + green * weights[1] + blue * weights[2]
    return (total + ((base << 16) + (1 << shift >> 1))) >> shift


def _paired(colours: tuple[Numbers, ...], rows: int) -> tuple[Numbers, ...]:
    """Return the sums over 2 pixels a row and ``rows`` rows; an odd edge counts twice."""
    sums: list[Numbers] = []
    for colour in colours:
        height, width = colour.shape
        if width % 2 or height % rows:
            colour = np.pad(colour, ((0, height % rows), (0, width % 2)), mode="edge")  # noqa: PLW2901
        total = colour[:, 0::2] + colour[:, 1::2]
        sums.append(total if rows == 1 else total[0::2] + total[1::2])
    return tuple(sums)


def _chroma(colours: tuple[Numbers, ...], weights: _Weights, rows: int, bits: int) -> tuple[Numbers, Numbers]:
    """Return Cb and Cr of every 2 by ``rows`` pixels."""
    sums = _paired(colours, rows)
    doublings = rows  # 2 pixels or 4: the sums are 2 or 4 times as large
    cb, cr = (_weighted(sums, each, 128 << doublings, 16 + doublings - bits + 8) for each in (weights.cb, weights.cr))
    return cb, cr


def _pairs(order: str) -> Callable[[Words, _Weights], Planes]:
    """Return the encoder of a packed 4:2:2 format, by the order of its bytes."""
    places = [order.index("Y"), order.rindex("Y"), order.index("U"), order.index("V")]

    def packed(words: Words, weights: _Weights) -> Planes:
        colours = _channels(words)
        luma = _weighted(colours, weights.luma, 16, 16)
        if luma.shape[1] % 2:
            luma = np.pad(luma, ((0, 0), (0, 1)), mode="edge")
        pairs = np.empty((luma.shape[0], luma.shape[1] // 2, 4), np.uint8)
        cb, cr = _chroma(colours, weights, 1, 8)
        for place, values in zip(places, (luma[:, 0::2], luma[:, 1::2], cb, cr), strict=True):
            pairs[..., place] = values
        return _bytes(pairs), None

    return packed


def _two_planes(bits: int) -> Callable[[Words, _Weights], Planes]:
    """Return the encoder of NV12 (8 bits) or P010 (10 bits, at the top of 16)."""

    def planes(words: Words, weights: _Weights) -> Planes:
        colours = _channels(words)
        luma = _weighted(colours, weights.luma, 16, 24 - bits)
        if luma.shape[1] % 2:
            luma = np.pad(luma, ((0, 0), (0, 1)), mode="edge")
        chroma = np.stack(_chroma(colours, weights, 2, bits), axis=-1)
        if bits == 8:
            return _bytes(luma.astype(np.uint8)), _bytes(chroma.astype(np.uint8))
        return _bytes((luma << 16 - bits).astype("<u2")), _bytes((chroma << 16 - bits).astype("<u2"))

    return planes


_ENCODERS: dict[int, Callable[[Words], Planes]] = {
    fourcc("XR24"): _opaque,
    fourcc("AR24"): lambda words: (_bytes(words), None),
    fourcc("XB24"): lambda words: _opaque(_swapped(words)),
    fourcc("AB24"): lambda words: (_bytes(_swapped(words)), None),
    fourcc("RG24"): _rg24,
    fourcc("RG16"): _rg16,
    fourcc("XR30"): _rgb30,
    fourcc("XB30"): lambda words: _rgb30(_swapped(words)),
    fourcc("C8"): _grey,
}
_YUV: dict[int, Callable[[Words, _Weights], Planes]] = {
    fourcc("YUYV"): _pairs("YUYV"),
    fourcc("YVYU"): _pairs("YVYU"),
    fourcc("UYVY"): _pairs("UYVY"),
    fourcc("VYUY"): _pairs("VYUY"),
    fourcc("NV12"): _two_planes(8),
    fourcc("P010"): _two_planes(10),
}
