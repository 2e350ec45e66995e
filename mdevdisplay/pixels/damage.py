"""Which parts of a picture changed, in tiles of 64 by 64 pixels, and since when."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mdevdisplay.surface import Rect

__all__ = ["TILE", "Damage", "Mask", "full_mask", "grid", "rectangles", "runs", "tiles_touched"]

TILE = 64
"""Pixels along the side of a tile."""

Mask = npt.NDArray[np.bool_]
"""(rows of tiles, columns of tiles): which tiles changed."""


def grid(width: int, height: int) -> tuple[int, int]:
    """Return how many rows and columns of tiles a picture has."""
    return -(-height // TILE), -(-width // TILE)


def full_mask(width: int, height: int) -> Mask:
    """Return the mask of a picture that changed everywhere."""
    return np.ones(grid(width, height), np.bool_)


def tiles_touched(rects: Iterable[Rect], width: int, height: int) -> Mask:
    """Return the tiles of a picture that rectangles touch."""
    mask = np.zeros(grid(width, height), np.bool_)
    for rect in rects:
        rows = slice(rect.y // TILE, -(-(rect.y + rect.height) // TILE))
        columns = slice(rect.x // TILE, -(-(rect.x + rect.width) // TILE))
        mask[rows, columns] = True
    return mask


def rectangles(mask: Mask, width: int, height: int) -> tuple[Rect, ...]:
    """Return rectangles that cover exactly the tiles of a mask, clipped to the picture, no two of them overlapping.

    Neighbours in a row make one rectangle, and equal ones below each other do too.
    """
    done: list[Rect] = []
    growing: dict[tuple[int, int], int] = {}
    """The runs of columns that reach the row above, and the row that each began in."""
    for row, here in enumerate([*runs(mask), []]):
        ended = [run for run in growing if run not in here]
        done += [_rect(run, growing.pop(run), row, width, height) for run in ended]
        for run in here:
            growing.setdefault(run, row)
    return tuple(done)


def runs(mask: Mask) -> list[list[tuple[int, int]]]:
    """Return for each row of a mask the first column of every run of changed tiles and the one behind its last."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.bool_)
    padded[:, 1:-1] = mask
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    found: list[list[tuple[int, int]]] = [[] for _ in mask]
    edges = columns.tolist()
    for row, first, behind in zip(rows[::2].tolist(), edges[::2], edges[1::2], strict=True):
        found[row].append((first, behind))
    return found


def _rect(run: tuple[int, int], top: int, bottom: int, width: int, height: int) -> Rect:
    x, y = run[0] * TILE, top * TILE
    return Rect(x, y, min(run[1] * TILE, width) - x, min(bottom * TILE, height) - y)


class Damage:
    """Remembers for every tile of a picture at which serial it changed last; as large for one change as for millions.

    Attributes:
        width: the picture's, in pixels; 0 where there is none.
        height: the same.
    """

    def __init__(self) -> None:
        self.width = self.height = 0
        self._changed_at: npt.NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def begin(self, width: int, height: int, serial: int) -> None:
        """Count every tile of a picture of another size, or after a pause, as changed."""
        self.width, self.height = width, height
        self._changed_at = np.full(grid(width, height), serial, np.int64)

    def mark(self, mask: Mask, serial: int) -> None:
        """Count tiles as changed."""
        self._changed_at[mask] = serial

    def since(self, serial: int) -> Mask:
        """Return the tiles that changed after a serial."""
        return self._changed_at > serial

    def rects_since(self, serial: int) -> tuple[Rect, ...]:
        """Return the rectangles that changed after a serial; none where there is no picture."""
        return rectangles(self.since(serial), self.width, self.height)
