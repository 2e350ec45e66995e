"""The frame number as a row of light and dark cells that a program can read back from a captured picture.

Four marker cells (light, dark, light, dark), 32 cells of the number from its highest bit down, eight of a CRC and four
marker cells again. A cell is at least 4x4 pixels and begins on an even pixel, and differs in brightness alone, so it
survives RGB565, 10 bits, grey and 4:2:0.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["LEAST", "Strip", "cells_of", "read_counter"]

LEAST = 64
"""The least width and height of a picture with a counter."""

_MARKER = (1, 0, 1, 0)
_CELLS = 48
_COLUMNS_SMALL = 16


@attrs.frozen
class Strip:
    """Where the cells lie: left, top, pixels of a cell's side, and cells in a row."""

    x: int
    y: int
    cell: int
    columns: int

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return _CELLS // self.columns

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.columns * self.cell

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.rows * self.cell

    @classmethod
    def of(cls, width: int, height: int) -> Strip | None:
        """Return the strip of a picture, or None where it is too small for one."""
        if width < LEAST or height < LEAST:
            return None
        cell = max(4, min(width // 120, height // 60) // 2 * 2)
        columns = _CELLS if width >= _CELLS * cell else _COLUMNS_SMALL
        margin = 2 * cell if width >= (columns + 4) * cell else 0
        y = (height - margin - _CELLS // columns * cell) // 2 * 2
        return cls(margin, y, cell, columns)


def _crc8(number: int) -> int:
    """CRC-8 with the polynomial 0x07 over the number's four bytes, begun with 0xff so that 0 has one too."""
    crc = 0xFF
    for byte in number.to_bytes(4, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def cells_of(number: int) -> npt.NDArray[np.bool_]:
    """Return (48,) bool: which cells are light for a frame number, which is taken modulo 2**32."""
    number &= 0xFFFFFFFF
    word = number << 8 | _crc8(number)
    bits = [word >> place & 1 for place in range(39, -1, -1)]
    return np.array([*_MARKER, *bits, *_MARKER], np.bool_)


def read_counter(pixels: npt.NDArray[Any]) -> int:
    """Read the frame number from a captured picture.

    Args:
        pixels: (height, width), (height, width, 3) or (height, width, 4), in any order of colours: a whole screen of
            at least 64x64.

    Raises:
        ValueError: the picture is too small, or has no counter that its CRC confirms.
    """
    height, width = pixels.shape[:2]
    strip = Strip.of(width, height)
    if strip is None:
        raise ValueError(f"a picture of {width}x{height} has no frame counter; {LEAST}x{LEAST} is the least")
    area = pixels[strip.y : strip.y + strip.height, strip.x : strip.x + strip.width]
    grey = area[..., :3].mean(axis=2) if area.ndim == 3 else area.astype(float)
    cell = strip.cell
    inner = slice(cell // 4, cell - cell // 4)
    values = grey.reshape(strip.rows, cell, strip.columns, cell)[:, inner, :, inner].mean(axis=(1, 3)).ravel()
    marks = np.concatenate([values[:4], values[-4:]])
    light, dark = marks[0::2], marks[1::2]
    if light.min() - dark.max() < 0.25 * max(light.max(), 1):
        raise ValueError("the picture has no frame counter: its marker cells are not there")
    bits = (values > (light.mean() + dark.mean()) / 2).astype(int)[4:-4]
    word = int("".join(map(str, bits)), 2)
    number, crc = word >> 8, word & 0xFF
    if crc != _crc8(number):
        raise ValueError("the picture's frame counter is damaged: its CRC does not fit")
    return number
