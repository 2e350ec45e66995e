"""A surface's memory as a NumPy array in the driver's own layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mdevdisplay.formats import LINEAR, Format
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Raw", "extent_of", "packed_size", "plain_layout", "raw_view"]

Raw = npt.NDArray[Any]


def plain_layout(surface: SurfaceInfo) -> Format | None:
    """Return the format of a surface that is rows of known pixels; None where it is tiled or unknown."""
    return surface.format if surface.modifier == LINEAR else None


def packed_size(surface: SurfaceInfo, available: int) -> int:
    """Return the bytes of a packed copy: rows without padding, or as it lies where the layout is not plain.

    Args:
        surface: what to copy.
        available: bytes in the buffer from the first pixel on.
    """
    layout = plain_layout(surface)
    if layout is None:
        return extent_of(surface, available)
    return layout.rows(surface.height) * layout.minimum_stride(surface.width)


def raw_view(data: npt.NDArray[np.uint8], start: int, surface: SurfaceInfo, stride: int) -> Raw:
    """Return the pixels as they lie in ``data``, without a copy.

    Args:
        data: (n,) uint8.
        start: bytes from the start of ``data`` to the first pixel.
        surface: the geometry; it was checked to fit.
        stride: bytes from row to row in ``data``.

    Returns:
        `Format.raw_shape` elements for rows of a known format, else (n - start,) uint8.
    """
    layout = plain_layout(surface)
    if layout is None:
        return data[start:]
    shape = layout.raw_shape(surface.width, surface.height)
    item = int(layout.dtype[1])
    strides = (stride, item) if len(shape) == 2 else (stride, item * layout.channels, item)
    # numpy checks that shape and strides stay inside the buffer
    return np.ndarray(shape, np.dtype("<" + layout.dtype), data, start, strides)


def extent_of(surface: SurfaceInfo, available: int) -> int:
    """Return the bytes of a picture as it lies, from its first pixel to its last, padding included.

    Args:
        surface: the geometry; it was checked to fit.
        available: bytes in the buffer from the first pixel on; all that belong to the picture count where it is tiled
            or unknown.
    """
    if plain_layout(surface) is not None:
        return surface.needed - surface.offset
    return min(available, surface.size)
