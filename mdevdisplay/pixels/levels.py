"""RGB of 5, 6 and 10 bits a channel to 8 bits, each value to the nearest of 0 to 255."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels.layout import Raw

__all__ = ["bgr30", "rgb30", "rgb565"]

Pixels = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]

_ALPHA = 0xFF000000
_BAND = 1 << 16
"""Pixels that are converted at a time, so that what lies between stays in the CPU's cache."""


@cache
def _rgb565_table() -> Words:
    """All 65,536 RGB565 values as BGRA words."""
    value = np.arange(65536)
    blue = ((value & 31) * 255 + 15) // 31
    green = ((value >> 5 & 63) * 255 + 31) // 63
    red = ((value >> 11) * 255 + 15) // 31
    table = (_ALPHA | red << 16 | green << 8 | blue).astype("<u4")
    table.flags.writeable = False
    return table


def _bands(height: int, width: int) -> list[slice]:
    rows = max(1, _BAND // width)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _bytes(words: Words) -> Pixels:
    return words.view(np.uint8).reshape(*words.shape, 4)


def rgb565(raw: Raw) -> Pixels:
    """Return (height, width, 4) B, G, R, 255 from (height, width) uint16 of r5g6b5."""
    words = np.empty(raw.shape, "<u4")
    table = _rgb565_table()
    for band in _bands(*raw.shape):
        np.take(table, raw[band], out=words[band], mode="wrap")  # "wrap" writes in place; no number is out of range
    return _bytes(words)


def rgb30(raw: Raw) -> Pixels:
    """Return (height, width, 4) B, G, R, 255 from (height, width) uint32 of x2r10g10b10."""
    return _ten_bits(raw, red=20, blue=0)


def bgr30(raw: Raw) -> Pixels:
    """Return (height, width, 4) B, G, R, 255 from (height, width) uint32 of x2b10g10r10."""
    return _ten_bits(raw, red=0, blue=20)


def _ten_bits(raw: Raw, *, red: int, blue: int) -> Pixels:
    """Convert channels of 10 bits: (value * 1021 + 2048) >> 12 is value * 255 / 1023 rounded, for every value."""
    words = np.full(raw.shape, _ALPHA, "<u4")
    bands = _bands(*raw.shape)
    scratch = np.empty_like(words[bands[0]])
    for band in bands:
        pixels, source = words[band], raw[band]
        value = scratch[: len(pixels)]
        for place, shift in ((16, red), (8, 10), (0, blue)):
            np.right_shift(source, shift, out=value)
            value &= 1023
            value *= 1021
            value += 2048
            value >>= 12
            value <<= place
            pixels |= value
    return _bytes(words)
