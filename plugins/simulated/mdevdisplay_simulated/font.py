"""A small pixel font: 5 pixels wide, 7 high and one below the line; just the characters that the picture needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ADVANCE", "HEIGHT", "text_mask"]

Mask = npt.NDArray[np.bool_]

ADVANCE = 6
"""Pixels from one character to the next, before scaling."""
HEIGHT = 8
"""Pixels of a line, before scaling."""

# five columns a character, the least bit on top
_GLYPHS = {
    " ": "0000000000",
    "0": "3e4141413e",
    "1": "00427f4000",
    "2": "6251494946",
    "3": "2241494936",
    "4": "1814127f10",
    "5": "2745454539",
    "6": "3e49494932",
    "7": "0171090503",
    "8": "3649494936",
    "9": "264949493e",
    "a": "2054545478",
    "d": "384444447f",
    "e": "3854545458",
    "f": "00087e0902",
    "i": "00447d4000",
    "l": "00417f4000",
    "m": "7c04780478",
    "p": "fc24242418",
    "r": "007c080404",
    "s": "4854545424",
    "t": "00043f4424",
    "u": "3c4040407c",
    "v": "1c2040201c",
    "x": "4428102844",
    "y": "1ca0a0a07c",
}


def text_mask(text: str, scale: int) -> Mask:
    """Return (8 * scale, 6 * scale * characters) bool: where the text has ink.

    Each pixel of the font is a square; large ones stand apart, as on a dot-matrix display. Unknown
    characters are blank.
    """
    columns = bytes.fromhex("".join(_GLYPHS.get(character, _GLYPHS[" "]) + "00" for character in text))
    bits = np.unpackbits(np.frombuffer(columns, np.uint8)[:, None], axis=1, bitorder="little").T.astype(np.bool_)
    mask = np.zeros((bits.shape[0], scale, bits.shape[1], scale), np.bool_)
    dot = scale - scale // 6
    mask[:, :dot, :, :dot] = bits[:, None, :, None]
    return mask.reshape(bits.shape[0] * scale, -1)
