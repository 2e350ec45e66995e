"""How the bytes of a picture belong to its tiles: bands of 64 rows of pixels, each a stretch of memory.

A band is compared as a whole first; only one that differs is looked at closely.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.formats import LINEAR, Format, fourcc
from mdevdisplay.pixels.damage import TILE, Mask, grid, rectangles, runs
from mdevdisplay.pixels.tiling import can_straighten, is_tiled, to_linear
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Bands", "Stretch"]

Bytes = npt.NDArray[np.uint8]

# which bits of a pixel mean something, where not all do: its bytes in memory
_DEFINED = {
    fourcc("XR24"): b"\xff\xff\xff\x00",
    fourcc("XB24"): b"\xff\xff\xff\x00",
    fourcc("XR30"): b"\xff\xff\xff\x3f",
    fourcc("XB30"): b"\xff\xff\xff\x3f",
    fourcc("P010"): b"\xc0\xff",
}


@attrs.frozen
class Stretch:
    """Contiguous bytes of one band.

    Attributes:
        band: the number of the band, which is the row of tiles.
        start: bytes from the first pixel.
        stop: where it ends.
        rows: rows of ``stride`` bytes in it, the last one maybe not whole.
    """

    band: int
    start: int
    stop: int
    rows: int


class Bands:
    """The bands of one picture.

    Attributes:
        surface: the picture's geometry.
        stride: bytes from row to row, which a copy may have another of than the surface.
        shape: rows and columns of tiles.
        stretches: all bytes that belong to pixels, band by band. A picture of an unknown layout is one of them.
    """

    def __init__(self, surface: SurfaceInfo, stride: int, extent: int) -> None:
        """Cut a picture of ``extent`` bytes, from its first pixel on."""
        self.surface = surface
        self.stride = stride
        self.shape = grid(surface.width, surface.height)
        layout = surface.format
        self._layout: Format | None = layout
        self._tiled = is_tiled(surface.modifier) and can_straighten(attrs.evolve(surface, size=extent))
        self.closely = layout is not None and (surface.modifier == LINEAR or self._tiled)
        """Whether single tiles can be told apart."""
        if layout is None or not self.closely:
            self.stretches: tuple[Stretch, ...] = (Stretch(0, 0, extent, 1),)
            return
        self._row_bytes = layout.minimum_stride(surface.width)
        self._tile_bytes = TILE * layout.block_bytes // layout.block_width
        self._tile_starts = np.arange(0, self._row_bytes, self._tile_bytes)
        defined = _DEFINED.get(layout.fourcc)
        self._defined = None if defined is None else np.resize(np.frombuffer(defined, np.uint8), self._row_bytes)
        stretches = self._cut(0, surface.height, TILE, extent)
        if layout.chroma:
            start = stride * surface.height
            stretches += self._cut(start, layout.rows(surface.height) - surface.height, TILE // 2, extent)
        self.stretches = tuple(sorted(stretches, key=lambda stretch: (stretch.band, stretch.start)))

    def _cut(self, start: int, rows: int, step: int, extent: int) -> list[Stretch]:
        return [
            Stretch(
                band,
                start + first * self.stride,
                # whole tiles where it is tiled; else the last row may end with its last pixel
                min(start + (first + step) * self.stride, extent if self._tiled else start + self._end_of(rows)),
                min(step, rows - first),
            )
            for band, first in enumerate(range(0, rows, step))
        ]

    def _end_of(self, rows: int) -> int:
        return (rows - 1) * self.stride + self._row_bytes

    def changed(self, stretch: Stretch, difference: Bytes) -> Mask:
        """Return which tiles of a stretch differ, (columns,): its pixels count, not padding nor undefined bits.

        Args:
            stretch: the place.
            difference: its bytes: as they were XOR as they are.
        """
        if not self.closely:
            return np.ones(self.shape[1], np.bool_)
        if self._tiled:
            rows = to_linear(difference, self.surface, rows=stretch.rows)
        else:
            rows = self._rows(stretch, difference)
        differing = np.bitwise_or.reduce(rows, axis=0)
        if self._defined is not None:
            differing &= self._defined
        mask: Mask = np.bitwise_or.reduceat(differing, self._tile_starts) != 0
        return mask

    def apply(self, stretch: Stretch, mask: Mask, target: Bytes, difference: Bytes) -> None:
        """Make of a stretch as it was, ``target``, what it is: in its changed tiles, or as a whole where that is less.

        Where no tile changed, padding or undefined bits did: that is as a whole too.
        """
        changed = np.count_nonzero(mask)
        if self._tiled or not changed or changed > mask.size // 2:
            target ^= difference
            return
        here, there = self._rows(stretch, target), self._rows(stretch, difference)
        for first, behind in runs(mask[None])[0]:
            place = slice(first * self._tile_bytes, behind * self._tile_bytes)
            here[:, place] ^= there[:, place]

    def _rows(self, stretch: Stretch, part: Bytes) -> Bytes:
        """Return the pixels of a stretch that is not tiled as (rows, bytes of a row)."""
        return np.ndarray((stretch.rows, self._row_bytes), np.uint8, part, 0, (self.stride, 1))

    def copy_packed(self, target: Bytes, source: Bytes, mask: Mask | None) -> None:
        """Copy the tiles of a mask, None for all, into a picture without padding between its rows.

        Args:
            target: the packed picture; of a tiled or unknown one (n,) uint8 as ``source``.
            source: the picture with this object's stride.
            mask: which tiles.
        """
        layout = self._layout
        if layout is None or not self.closely or self._tiled:
            np.copyto(target, source)
            return
        rows = layout.rows(self.surface.height)
        there = target.reshape(rows, self._row_bytes)
        here = np.ndarray(there.shape, np.uint8, source, 0, (self.stride, 1))
        if mask is None or mask.sum() > mask.size // 2:
            np.copyto(there, here)
            return
        for rect in rectangles(mask, self.surface.width, self.surface.height):
            column = rect.x // TILE
            place = slice(column * self._tile_bytes, (column + -(-rect.width // TILE)) * self._tile_bytes)
            there[rect.y : rect.y + rect.height, place] = here[rect.y : rect.y + rect.height, place]
            if layout.chroma:
                chroma = slice(self.surface.height + rect.y // 2, self.surface.height + -(-(rect.y + rect.height) // 2))
                there[chroma, place] = here[chroma, place]
