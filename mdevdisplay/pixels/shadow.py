"""A copy of a picture in memory of our own, kept like it by copying only what changed.

What is mapped as ordinary, cached memory is compared in place. Memory that a CPU reads slowly (write-combined, as a
GPU's own) is read once, front to back, into a buffer beside the copy, and compared there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels.bands import Bands, Stretch
from mdevdisplay.pixels.compare import address, equal, move
from mdevdisplay.pixels.damage import Mask
from mdevdisplay.pixels.layout import plain_layout
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Mapped", "PixelSource", "Shadow", "is_cached"]

Bytes = npt.NDArray[np.uint8]

_ROUNDS = 3
"""How often a stretch that changes while it is copied is copied again."""
_SAMPLE = 1 << 17
_SLOW = 4.0
"""How many times slower than the copy of a copy the reading of cached memory may be."""
_MOST_PADDING = 4
"""From this many times a row's bytes on, rows are kept without the padding between them."""


class Mapped(Protocol):
    """Mapped memory."""

    cached: bool | None

    @property
    def data(self) -> Bytes:
        """All of it."""
        ...


class PixelSource(Protocol):
    """Where a picture's bytes come from."""

    @property
    def layout(self) -> SurfaceInfo:
        """How they lie."""
        ...

    @property
    def extent(self) -> int:
        """How many there are, from the first pixel on, padding included."""
        ...

    @property
    def mapping(self) -> Mapped | None:
        """The mapping that they are in, or None where they have to be fetched."""
        ...

    @property
    def start(self) -> int:
        """Bytes from the start of the mapping to the first pixel."""
        ...

    def reading(self) -> AbstractContextManager[object]:
        """Bracket the reading of the mapping."""
        ...

    def copy_into(self, target: Bytes) -> None:
        """Copy all of them into (extent,) uint8, each byte read once, front to back."""
        ...

    def copy_rows_into(self, target: Bytes) -> None:
        """Copy the rows without their padding into (rows, bytes of a row) uint8."""
        ...


class Shadow:
    """One picture's copy, with the padding that it has where it comes from.

    Attributes:
        bands: what of it belongs to which tile.
        data: (extent,) uint8: the copy, from the first pixel on.
        torn: whether the picture went on changing while all of it was copied at first.
    """

    def __init__(self, source: PixelSource) -> None:
        """Copy all of a picture."""
        self._layout = source.layout
        self._extent = source.extent
        self._packs = _is_wasteful(source.layout)
        layout = source.layout
        if self._packs and layout.format is not None:
            stride = layout.format.minimum_stride(layout.width)
            size = stride * layout.format.rows(layout.height)
        else:
            stride, size = layout.stride, source.extent
        self.bands = Bands(layout, stride, size)
        self.data: Bytes = np.empty(size, np.uint8)
        self._spare: Bytes | None = None
        self._difference: Bytes | None = None
        with source.reading():
            self._copy(source, self.data)
            live = self._in_place(source)
            self.torn = live is not None and self._follow(live)[1]

    def fits(self, source: PixelSource) -> bool:
        """Whether a source's bytes lie as this copy's do, so that both can be compared."""
        one, other = self._layout, source.layout
        return self._extent == source.extent and (
            one is other
            or (one.fourcc, one.modifier, one.width, one.height, one.stride)
            == (other.fourcc, other.modifier, other.width, other.height, other.stride)
        )

    def update(self, source: PixelSource) -> tuple[Mask, bool]:
        """Make the copy like its source, which `fits`.

        Returns:
            Which tiles changed, and whether they went on changing while they were copied. An exception leaves the copy
            in between: make a new one then.
        """
        with source.reading():
            live = self._in_place(source)
            return self._follow(live) if live is not None else (self._compare_staged(source), False)

    def _in_place(self, source: PixelSource) -> Bytes | None:
        """Return the source's own bytes where they can be compared without a copy; which it is, is measured once."""
        mapping = source.mapping
        if mapping is None or self._packs:
            return None
        live = mapping.data[source.start : source.start + source.extent]
        if mapping.cached is None:
            mapping.cached = is_cached(live)
        return live if mapping.cached else None

    def _follow(self, live: Bytes) -> tuple[Mask, bool]:
        """Copy what changed until nothing more does; see `update`."""
        mask = np.zeros(self.bands.shape, np.bool_)
        differ = self._differing(self.bands.stretches, live)
        for _ in range(_ROUNDS):
            if not differ:
                break
            for stretch in differ:
                self._mark(mask, stretch, self._take(stretch, live[stretch.start : stretch.stop]))
            differ = self._differing(differ, live)
        return mask, bool(differ)

    def _take(self, stretch: Stretch, live: Bytes) -> Mask:
        """Copy a stretch and return which of its tiles differ.

        Each byte is read once, so that nothing which a guest draws meanwhile is copied without being noticed.
        """
        here = self.data[stretch.start : stretch.stop]
        difference = np.bitwise_xor(here, live, out=self._scratch(stretch))
        columns = self.bands.changed(stretch, difference)
        self.bands.apply(stretch, columns, here, difference)
        return columns

    def _compare_staged(self, source: PixelSource) -> Mask:
        if self._spare is None:
            self._spare = np.empty_like(self.data)
        fresh = self._spare
        self._copy(source, fresh)
        mask = np.zeros(self.bands.shape, np.bool_)
        for stretch in self._differing(self.bands.stretches, fresh):
            part = slice(stretch.start, stretch.stop)
            difference = np.bitwise_xor(self.data[part], fresh[part], out=self._scratch(stretch))
            self._mark(mask, stretch, self.bands.changed(stretch, difference))
        self.data, self._spare = fresh, self.data
        return mask

    def _copy(self, source: PixelSource, target: Bytes) -> None:
        if self._packs:
            source.copy_rows_into(target.reshape(-1, self.bands.stride))
        else:
            source.copy_into(target)

    def _scratch(self, stretch: Stretch) -> Bytes:
        """Return memory for the difference of a stretch; the same every time, so that it stays in a core's cache."""
        if self._difference is None:
            self._difference = np.empty(max(entry.stop - entry.start for entry in self.bands.stretches), np.uint8)
        return self._difference[: stretch.stop - stretch.start]

    def _differing(self, stretches: tuple[Stretch, ...] | list[Stretch], other: Bytes) -> list[Stretch]:
        here, there = address(self.data), address(other)
        return [
            entry for entry in stretches if not equal(here + entry.start, there + entry.start, entry.stop - entry.start)
        ]

    def _mark(self, mask: Mask, stretch: Stretch, columns: Mask) -> None:
        if self.bands.closely:
            mask[stretch.band] |= columns
        else:
            mask[...] = True


def _is_wasteful(layout: SurfaceInfo) -> bool:
    """Whether the padding between rows is too large to be kept, as only a hostile stride's is."""
    plain = plain_layout(layout)
    return plain is not None and layout.stride > _MOST_PADDING * plain.minimum_stride(layout.width) + 4096


def is_cached(live: Bytes, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Whether a CPU reads a mapping about as fast as its own memory, measured on its first part.

    Reading write-combined or device memory takes tens of times as long: it must not be read for comparing.
    """
    size = min(live.size, _SAMPLE)
    sample, other = np.empty(size, np.uint8), np.zeros(size, np.uint8)

    def quickest(source: Bytes) -> float:
        times = []
        for _ in range(3):
            begin = clock()
            move(address(sample), address(source), size)
            times.append(clock() - begin)
        return min(times)

    own = quickest(other)
    return quickest(live) <= _SLOW * own + 1e-6
