"""A buffer that is displayed: it keeps a picture in its memory up to date, drawing again only what has moved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mdevdisplay_simulated.encode import encode
from mdevdisplay_simulated.layout import Layout
from mdevdisplay_simulated.memory import Memory
from mdevdisplay_simulated.picture import Area, Picture

__all__ = ["Scanout"]

Bytes = npt.NDArray[np.uint8]

# rows that are drawn at a time: whole tiles of every tiling, and small enough for a processor's cache
_BAND = 32


class Scanout:
    """One buffer and what it shows.

    Attributes:
        memory: its memory, which it owns.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._layout: Layout | None = None
        self._picture: Picture | None = None
        self._frame = -1
        self._moving: tuple[Area, ...] = ()

    def show(self, picture: Picture, layout: Layout, frame: int) -> None:
        """Make the memory hold a frame of a picture in a layout."""
        moving = picture.moving(frame)
        if picture is not self._picture or layout is not self._layout:
            self._paint_all(picture, layout, frame)
        elif frame != self._frame:
            for area in _merged(self._moving, moving):
                self._paint(picture, layout, frame, area)
        self._picture, self._layout, self._frame, self._moving = picture, layout, frame, moving

    def _paint_all(self, picture: Picture, layout: Layout, frame: int) -> None:
        if layout.tile is not None and layout.format.chroma:
            self._paint_tiled_planes(picture, layout, frame)
            return
        for top in range(0, layout.height, _BAND):
            self._paint_rows(picture, layout, frame, top, min(top + _BAND, layout.height))

    def _paint(self, picture: Picture, layout: Layout, frame: int, area: Area) -> None:
        """Paint an area again."""
        if layout.tile is None:
            self._paint_in_place(picture, layout, frame, area)
        elif layout.format.chroma:
            self._paint_tiled_planes(picture, layout, frame)
        else:
            top = area.top // _BAND * _BAND
            self._paint_rows(picture, layout, frame, top, min(-(-area.bottom // _BAND) * _BAND, layout.height))

    def _paint_rows(self, picture: Picture, layout: Layout, frame: int, top: int, bottom: int) -> None:
        """Paint whole rows from the first row of a band on: one run of bytes in memory, tiled or not."""
        main, chroma = encode(picture.render(Area(0, top, layout.width, bottom), frame), layout)
        tile = layout.tile
        height = 1 if tile is None else tile.height
        rows = _padded(main, -(-main.shape[0] // height) * height, layout.stride)
        self.memory.write(top * layout.stride, layout.tiled(rows))
        if chroma is not None:
            start = (layout.height + top // 2) * layout.stride
            self.memory.write(start, _padded(chroma, chroma.shape[0], layout.stride))

    def _paint_in_place(self, picture: Picture, layout: Layout, frame: int, area: Area) -> None:
        """Paint an area of linear memory, widened to pixels that share no chroma with others."""
        left, top = area.left // 2 * 2, area.top // 2 * 2
        right, bottom = min(-(-area.right // 2) * 2, layout.width), min(-(-area.bottom // 2) * 2, layout.height)
        main, chroma = encode(picture.render(Area(left, top, right, bottom), frame), layout)
        rows = self.memory.bytes[: layout.size].reshape(-1, layout.stride)
        start = left // layout.format.block_width * layout.format.block_bytes
        rows[top:bottom, start : start + main.shape[1]] = main
        if chroma is not None:
            first = layout.height + top // 2
            rows[first : first + chroma.shape[0], start : start + chroma.shape[1]] = chroma

    def _paint_tiled_planes(self, picture: Picture, layout: Layout, frame: int) -> None:
        """Paint luma and chroma that share a row of tiles, so only all of it can be written."""
        rows = np.zeros((layout.rows, layout.stride), np.uint8)
        for top in range(0, layout.height, _BAND):
            bottom = min(top + _BAND, layout.height)
            main, chroma = encode(picture.render(Area(0, top, layout.width, bottom), frame), layout)
            rows[top:bottom, : main.shape[1]] = main
            if chroma is not None:
                first = layout.height + top // 2
                rows[first : first + chroma.shape[0], : chroma.shape[1]] = chroma
        self.memory.write(0, layout.tiled(rows))


def _padded(rows: Bytes, height: int, stride: int) -> Bytes:
    """Return rows of a whole stride each, with zeros to the right and below."""
    if rows.shape == (height, stride):
        return rows
    padded = np.zeros((height, stride), np.uint8)
    padded[: rows.shape[0], : rows.shape[1]] = rows
    return padded


def _merged(old: tuple[Area, ...], new: tuple[Area, ...]) -> Iterator[Area]:
    """Yield areas that hold the old ones and the new ones, the same or overlapping ones as one."""
    for before, after in zip(old, new, strict=True):
        if before.overlap(after) is not None:
            yield before.around(after)
        else:
            yield before
            yield after
