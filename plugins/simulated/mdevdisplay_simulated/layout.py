"""Where each byte of a picture lies: rows, strides and Intel's tilings."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.formats import FORMATS, LINEAR, X_TILED, Y_TILED, YF_TILED, Format, Tiling, tiling

__all__ = ["Layout"]

Bytes = npt.NDArray[np.uint8]


@attrs.frozen(kw_only=True)
class Layout:
    """The geometry of a buffer.

    A format with a chroma plane has its chroma rows right below the luma rows, also where the whole is tiled.

    Attributes:
        format: the pixel format.
        width: pixels in a row.
        height: rows.
        stride: bytes from row to row.
        modifier: the memory layout; one that is not Intel's X, Y or Yf only names it, the memory is linear then.
    """

    format: Format
    width: int
    height: int
    stride: int
    modifier: int = LINEAR

    @classmethod
    def of(cls, fourcc: int, width: int, height: int, *, modifier: int = LINEAR, stride: int = 0) -> Layout:
        """Return the layout with the given stride, or the least one."""
        pixels = FORMATS[fourcc]
        if not stride:
            multiple = _stride_multiple(pixels, modifier)
            stride = -(-pixels.minimum_stride(width) // multiple) * multiple
        return cls(format=pixels, width=width, height=height, stride=stride, modifier=modifier)

    @property
    def tile(self) -> Tiling | None:
        """The size of a tile, or None where the memory is linear."""
        return tiling(self.modifier)

    @property
    def stride_multiple(self) -> int:
        """What the stride must be a multiple of, in bytes."""
        return _stride_multiple(self.format, self.modifier)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that hold pixels."""
        return self.format.minimum_stride(self.width)

    @property
    def rows(self) -> int:
        """Rows of one stride: luma, chroma, and what the last tiles have below the picture."""
        rows = self.format.rows(self.height)
        tile = self.tile
        return rows if tile is None else -(-rows // tile.height) * tile.height

    @property
    def size(self) -> int:
        """Bytes of the whole picture."""
        return self.rows * self.stride

    def tiled(self, rows: Bytes) -> Bytes:
        """Return linear (n, stride) bytes as they lie in memory; n is whole tiles."""
        tile = self.tile
        if tile is None:
            return rows
        count = self.stride // tile.width
        shape, order = _SWIZZLES[self.modifier]
        # (tile row, rows in it, tile, bytes in it), then the two inner parts in their bits
        parts = rows.reshape(-1, *shape[0], count, *shape[1])
        return np.ascontiguousarray(parts.transpose(order)).reshape(rows.shape)


def _stride_multiple(pixels: Format, modifier: int) -> int:
    tile = tiling(modifier)
    item = int(pixels.dtype[1])
    return tile.width if tile is not None else item


# How the bytes of a tile follow each other: the shape of its rows, the shape of its bytes, and the order in memory,
# with axis 0 the row of tiles. X is row by row. Y goes down columns of 16 bytes (include/uapi/drm/drm_fourcc.h,
# I915_FORMAT_MOD_Y_TILED). Yf nests 2x2 groups, column by column, of 64-byte blocks of 4 rows; from its highest address
# bit down the bits are x y x y x y y y x x x x (drm_fourcc.h, I915_FORMAT_MOD_Yf_TILED, and igt-gpu-tools,
# tests/i915/gem_render_copy.c, yf_ptr).
_SWIZZLES: dict[int, tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]] = {
    X_TILED: (((8,), (512,)), (0, 2, 1, 3)),
    Y_TILED: (((32,), (8, 16)), (0, 2, 3, 1, 4)),
    YF_TILED: (((2, 2, 8), (2, 2, 2, 16)), (0, 4, 5, 1, 6, 2, 7, 3, 8)),
}
