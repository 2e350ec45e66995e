"""Eight-bit channels in another order, with and without alpha: exact, and at the speed of memory with OpenCV."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels import opencv
from mdevdisplay.pixels.layout import Raw

__all__ = ["opaque", "picked", "rgb_to_bgra", "with_alpha"]

Pixels = npt.NDArray[np.uint8]

_ALPHA = 0xFF000000

# three channels of which two are a number, by the bytes of a pixel
_READ: dict[int, np.dtype[np.void]] = {
    size: np.dtype(
        {"names": ["first", "pair"], "formats": ["u1", ">u2"], "offsets": [0, 1], "itemsize": size},
    )
    for size in (3, 4)
}
_WRITTEN = np.dtype({"names": ["pair", "last"], "formats": ["<u2", "u1"], "offsets": [0, 2], "itemsize": 3})


def opaque(raw: Raw) -> Pixels:
    """Return (height, width, 4) with 255 for the undefined fourth byte, a new array."""
    words: npt.NDArray[np.uint32] = np.bitwise_or(raw.view("<u4")[..., 0], _ALPHA, dtype="<u4")
    return words.view(np.uint8).reshape(raw.shape)


def with_alpha(raw: Raw) -> Pixels:
    """Return (height, width, 4) from (height, width, 3), a new array with 255 as the fourth channel."""
    height, width, _ = raw.shape
    pixels = np.full((height, width), _ALPHA, "<u4").view(np.uint8).reshape(height, width, 4)
    for channel in range(3):
        pixels[..., channel] = raw[..., channel]
    return pixels


def rgb_to_bgra(raw: Raw, *, alpha: bool) -> Pixels:
    """Return B, G, R, A from R, G, B, A, or from R, G, B and an undefined byte; a new array."""
    if not alpha:
        pixels = opaque(raw)
        _exchange(raw, pixels)
        return pixels
    return picked(raw, (2, 1, 0, 3))


def picked(source: Raw, order: tuple[int, ...]) -> Pixels:
    """Return (height, width, len(order)) uint8, a new array.

    Args:
        source: (height, width, channels) uint8, whatever its strides.
        order: for each channel of the result the number of the source's.
    """
    pixels = opencv.picked(source, order)
    if pixels is not None:
        return pixels
    if order == (2, 1, 0) and source.strides[2] == 1:
        return _reversed(source)
    if order == (2, 1, 0, 3):
        pixels = source.copy(order="C")
        _exchange(source, pixels)
        return pixels
    # channel by channel: three times as fast as fancy indexing
    pixels = np.empty((*source.shape[:2], len(order)), np.uint8)
    for place, channel in enumerate(order):
        pixels[..., place] = source[..., channel]
    return pixels


def _exchange(source: Raw, pixels: Pixels) -> None:
    """Set the first channel from the source's third and the other way round."""
    pixels[..., 0] = source[..., 2]
    pixels[..., 2] = source[..., 0]


def _reversed(source: Raw) -> Pixels:
    """Return three channels from last to first, in two passes rather than three: a pair of bytes swaps as a number."""
    pixels = np.empty((*source.shape[:2], 3), np.uint8)
    read = source.view(_READ[source.shape[2]])[..., 0]
    written = pixels.view(_WRITTEN)[..., 0]
    written["pair"] = read["pair"]
    written["last"] = read["first"]
    return pixels
