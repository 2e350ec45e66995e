"""Intel's X, Y and Yf tiles to rows of pixels.

A tile is 4096 bytes of memory, one page; tiles follow each other from left to right, then from top to bottom. Inside:

====  =============  ==================================================================
tile  bytes by rows  order of its bytes
====  =============  ==================================================================
X     512 x 8        row by row
Y     128 x 32       eight columns of 16 bytes, each row by row
Yf    128 x 32       units of 16 bytes by 8 rows, each row by row; the units in Morton
                     order, first to the right and then down
Yf    64 x 64        of pixels of one byte: the same with units of 16 bytes by 32 rows
====  =============  ==================================================================

Sources: the kernel's include/uapi/drm/drm_fourcc.h, and the swizzle masks of Intel's graphics memory library
(intel-gmmlib, CpuSwizzleBlt.c), against whose code the tests check every byte.

Swizzling: before gen 8 (Broadwell) memory controllers also mixed higher address bits into bit 6 of an X- or Y-tiled
address. No modifier says so: drm_fourcc.h has X_TILED and Y_TILED exact from gen 8 on, where i915 uses no swizzling.
GVT-g in the kernel knows nothing older either, so its planes are never swizzled.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import BadSurface, UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import X_TILED, Y_TILED, YF_TILED, Format, Tiling, modifier_name
from mdevdisplay.surface import SurfaceInfo

__all__ = ["can_straighten", "check_tiling", "is_tiled", "tile_of", "to_linear"]

Bytes = npt.NDArray[np.uint8]

_COLUMN = {X_TILED: 512, Y_TILED: 16}
_UNIT = 16
"""A Yf tile keeps 16 bytes of a row together."""


def is_tiled(modifier: int) -> bool:
    """Whether `to_linear` knows the layout: Intel's X, Y and Yf tiles without compression."""
    return modifier in (X_TILED, Y_TILED, YF_TILED)


def check_tiling(surface: SurfaceInfo, device: str = "") -> Format:
    """Return the format of a surface that `to_linear` can straighten, and refuse every other by name.

    Refused: pixels of a size that we do not know; formats with a chroma plane, since a plane query has one offset and
    does not say where the second tiled plane begins (the kernel has never reported such a surface); Yf tiles of pixels
    that are not 1, 2 or 4 bytes, for which there is no such tile.

    Raises:
        ValueError: the surface is not tiled, see `is_tiled`.
        UnsupportedFormat: the format is unknown.
        UnsupportedModifier: the format cannot be tiled so.
    """
    if not is_tiled(surface.modifier):
        raise ValueError(f"{modifier_name(surface.modifier)} is not a tiling that is straightened here")
    name = modifier_name(surface.modifier)
    layout = surface.format
    if layout is None:
        raise UnsupportedFormat(
            f"the plane is {surface.describe()}; tiles of a format of unknown size cannot be put in rows",
            device=device,
            hint="hand the dma-buf to a GPU (Display.dmabuf), or install a backend that decodes it",
        )
    pixel = layout.block_bytes // layout.block_width
    if layout.chroma or (surface.modifier == YF_TILED and pixel not in {1, 2, 4}):
        why = "does not say where the chroma plane begins" if layout.chroma else f"has no tile for {pixel}-byte pixels"
        raise UnsupportedModifier(
            f"the pixels are {layout.name} laid out as {name} (0x{surface.modifier:016x}), which {why}",
            device=device,
            hint="hand the dma-buf to a GPU (Display.dmabuf), or install a backend that decodes it",
        )
    return layout


def tile_of(surface: SurfaceInfo) -> Tiling:
    """Return the size of the surface's tiles: bytes by rows. Those of Yf depend on the size of a pixel.

    Raises:
        ValueError, UnsupportedFormat, UnsupportedModifier: see `check_tiling`.
    """
    layout = check_tiling(surface)
    if surface.modifier == X_TILED:
        return Tiling(512, 8)
    if surface.modifier == YF_TILED and layout.block_bytes == 1:
        return Tiling(64, 64)
    return Tiling(128, 32)


def can_straighten(surface: SurfaceInfo) -> bool:
    """Whether `to_linear` gives all rows of a surface out of a buffer of its size."""
    try:
        tile = tile_of(surface)
    except (ValueError, UnsupportedFormat, UnsupportedModifier):
        return False
    return surface.size >= surface.stride * tile.height * -(-surface.height // tile.height)


def to_linear(
    data: Bytes,
    surface: SurfaceInfo,
    *,
    first_row: int = 0,
    rows: int | None = None,
    out: Bytes | None = None,
    device: str = "",
) -> Bytes:
    """Return rows of pixels of a tiled surface, each byte read once.

    Args:
        data: (n,) uint8, read-only or not, from the first pixel's byte on, which is the corner of a tile.
        surface: geometry, format and modifier.
        first_row: the first pixel row that is wanted, a multiple of the tile's height; multiples of 64 always are.
        rows: how many; all that follow where it is None.
        out: (rows, bytes of a row) uint8 to write into, its rows contiguous.
        device: the locator for messages.

    Returns:
        (rows, ``Format.minimum_stride(width)``) uint8: ``out``, or a new array.

    Raises:
        ValueError: the surface is not tiled; the rows are not in the picture or do not begin at a tile; ``out`` has
            another shape.
        UnsupportedFormat, UnsupportedModifier: see `check_tiling`.
        BadSurface: the tiles do not fit into ``data``.
    """
    row_bytes = check_tiling(surface, device).minimum_stride(surface.width)
    tile = tile_of(surface)
    rows = surface.height - first_row if rows is None else rows
    if first_row < 0 or first_row % tile.height or not 1 <= rows <= surface.height - first_row:
        raise ValueError(
            f"rows {first_row} to {first_row + rows} of {surface.height} do not begin at a multiple of {tile.height}"
            " or are not in the picture"
        )
    band = surface.stride * tile.height
    begin, end = first_row // tile.height * band, -(-(first_row + rows) // tile.height) * band
    if data.size < end:
        raise BadSurface(
            f"reported {surface.describe()}: {first_row + rows} rows in tiles of {tile.width} bytes by {tile.height} "
            f"rows take {end} bytes, and there are {data.size}",
            device=device,
            hint="the driver or the guest is at fault; try again, and report the numbers if they stay",
        )
    if out is None:
        out = np.empty((rows, row_bytes), np.uint8)
    elif out.shape != (rows, row_bytes) or out.dtype != np.uint8 or out.strides[1] != 1:
        raise ValueError(f"out is {out.dtype} {out.shape}; {rows} contiguous rows of {row_bytes} bytes are needed")
    column = _COLUMN.get(surface.modifier)
    if column is None:
        _from_units(data[begin:end].reshape(-1, band), out, tile)
    else:
        _from_columns(data[begin:end].reshape(-1, surface.stride // column, tile.height, column), out)
    return out


def _from_columns(columns: Bytes, out: Bytes) -> None:
    """Copy X or Y tiles: (bands, columns, rows, bytes) uint8, since both are columns that follow each other."""
    height = columns.shape[2]
    bands, rest = divmod(len(out), height)
    _join_columns(columns[:bands], out[: bands * height].reshape(bands, height, out.shape[1]))
    if rest:
        _join_columns(columns[bands:, :, :rest], out[bands * height :].reshape(1, rest, out.shape[1]))


def _join_columns(columns: Bytes, rows: Bytes) -> None:
    """Copy (bands, columns, rows, bytes) into (bands, rows, bytes); the last column may be cut."""
    width = columns.shape[3]
    whole, rest = divmod(rows.shape[2], width)
    element = np.dtype(f"V{width}")  # moved as one, which takes half the time of moving bytes
    target = rows[..., : whole * width].reshape(*rows.shape[:2], whole, width)  # a view: it only splits an axis
    if whole:
        target.view(element)[..., 0] = columns[:, :whole].view(element)[..., 0].swapaxes(1, 2)
    if rest:
        rows[..., whole * width :] = columns[:, whole, :, :rest]


def _from_units(bands: Bytes, out: Bytes, tile: Tiling) -> None:
    """Copy Yf tiles, one row of tiles at a time: (bands, bytes of a row of tiles) uint8."""
    places = _places(-(-out.shape[1] // tile.width), tile.height)[:, : -(-out.shape[1] // _UNIT)]
    element = np.dtype("c16")  # 16 bytes that are moved and never counted with
    units = np.empty(places.shape, element)
    for number, band in enumerate(bands):
        rows = out[number * tile.height : (number + 1) * tile.height]
        whole = rows.size == units.nbytes
        # no place is out of range; only the default mode would keep numpy from writing where it is told at once
        np.take(band.view(element), places, out=rows.view(element) if whole else units, mode="clip")
        if not whole:
            rows[...] = units.view(np.uint8)[: len(rows), : out.shape[1]]


@lru_cache(maxsize=4)
def _places(tiles: int, height: int) -> npt.NDArray[np.intp]:
    """Return for every 16 bytes of a row of Yf tiles, (rows, 16 bytes), where in its memory they are.

    The bits of such a place within its tile, from the highest down, are x y x y x y y y, and in tiles of 64 rows
    x y x y y y y y.
    """
    x, y = np.meshgrid(np.arange(tiles * 256 // height), np.arange(height))
    if height == 64:
        within = (x & 2) << 6 | (y & 32) << 1 | (x & 1) << 5 | y & 31
        return (x >> 2) * 256 + within
    within = (x & 4) << 5 | (y & 16) << 2 | (x & 2) << 4 | (y & 8) << 1 | (x & 1) << 3 | y & 7
    return (x >> 3) * 256 + within
