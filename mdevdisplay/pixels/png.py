"""A PNG writer: every row filtered by the one above it, deflated by Intel's ISA-L.

On screens it is many times as fast as Pillow's at the same level for about the same size (bench/png.py).
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

__all__ = ["encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {3: 2, 4: 6}
_FILTER_UP = 2


def encode_png(pixels: npt.NDArray[np.uint8], level: int = 1) -> bytes:
    """Encode (height, width, 3) R, G, B or (height, width, 4) R, G, B, A.

    Args:
        pixels: uint8, packed.
        level: 0 to 3, ISA-L's; even 0 compresses.

    Raises:
        ValueError: another shape, type or level.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_TYPES or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"not an RGB or RGBA picture: {pixels.shape} {pixels.dtype}")
    if not 0 <= level <= 3:
        raise ValueError(f"level {level} is not between 0 and 3")
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty((height, width * channels + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    data = isal_zlib.compress(filtered, level)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)))
