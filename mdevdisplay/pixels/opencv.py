"""OpenCV where it is installed (extra ``fast``): eight times as fast as NumPy at putting bytes in another order.

Only conversions that move bytes are asked of it: its RGB565 and YUV are rounded otherwise than ours.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["picked"]

Pixels = npt.NDArray[np.uint8]
Order = tuple[int, ...]

# by channels of the source, and which of them the result has
_CONVERSIONS: dict[tuple[int, Order], str] = {
    (4, (2, 1, 0)): "COLOR_BGRA2RGB",
    (4, (0, 1, 2)): "COLOR_BGRA2BGR",
    (3, (2, 1, 0)): "COLOR_BGR2RGB",
    (4, (2, 1, 0, 3)): "COLOR_BGRA2RGBA",
}

_asked = itertools.count()


def picked(source: npt.NDArray[Any], order: Order) -> Pixels | None:
    """Return (height, width, len(order)) channels of the source, or None where OpenCV is not there or cannot.

    Args:
        source: (height, width, channels) uint8, whatever its strides; it may be read-only.
        order: for each channel of the result the number of the source's.
    """
    name = _CONVERSIONS.get((source.shape[2], order))
    if name is None or not _worth_an_import():
        return None
    convert = _converter()
    return None if convert is None else convert(source, name)


def _worth_an_import() -> bool:
    """Importing takes as long as some forty conversions: one screenshot does without, a second picture means more."""
    return next(_asked) > 0 or "cv2" in sys.modules


@cache
def _converter() -> Callable[[npt.NDArray[Any], str], Pixels | None] | None:
    """Return a function that converts, once it was seen to do so rightly; a broken OpenCV is as good as none."""
    try:
        cv2 = importlib.import_module("cv2")
        codes = {name: getattr(cv2, name) for name in _CONVERSIONS.values()}
        cvt_color = cv2.cvtColor
    except Exception:  # noqa: BLE001 - whatever keeps it from loading: a missing library, another NumPy, half a removal
        return None

    def convert(source: npt.NDArray[Any], name: str) -> Pixels | None:
        try:
            pixels: Pixels = cvt_color(source, codes[name])
        except Exception:  # noqa: BLE001 - its errors are no heirs of a common class with a meaning
            return None
        return pixels

    for (channels, order), name in _CONVERSIONS.items():
        sample = np.arange(35 * channels, dtype=np.uint8).reshape(5, 7, channels)
        sample.flags.writeable = False
        result = convert(sample, name)
        if not isinstance(result, np.ndarray) or not np.array_equal(result, sample[..., order]):
            return None
    return convert
