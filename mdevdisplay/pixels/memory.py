"""Where a surface's pixels can be read: its region first, its dma-buf second, or nowhere and why."""

from __future__ import annotations

import os
import stat
from collections import Counter, OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import NotMappable
from mdevdisplay.pixels.file_memory import FileMemory
from mdevdisplay.pixels.gpu_memory import GpuBuffers, GpuMemory
from mdevdisplay.pixels.layout import Raw, extent_of, raw_view
from mdevdisplay.region import Mappable, MappedRegion, can_shrink, check_fit, map_region
from mdevdisplay.surface import PlaneType, SurfaceInfo

__all__ = ["Buffers", "Memory", "PixelMemory", "SurfaceMemory"]

Bytes = npt.NDArray[np.uint8]

_RegionKey = tuple[int, int, int, int]
"""Descriptor, device and inode behind it, offset."""
_KEPT_DMABUFS = 8
_KEPT_REGIONS = 8


class Buffers(Protocol):
    """What is asked of a backend."""

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:
        """Return the surface's mappable memory, or None."""

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        """Return the surface's dma-buf, or None."""

    @property
    def map_hint(self) -> str:
        """What to do where the driver's dma-bufs cannot be mapped."""
        ...

    @property
    def region_hint(self) -> str:
        """What to do where the driver's region cannot be mapped."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class PixelMemory:
    """One surface's pixels in mapped memory. Valid until the next call of `SurfaceMemory.find`.

    Attributes:
        surface: the geometry.
        way: ``"region"`` or ``"dma-buf"``.
        mapping: the mapping that they are in.
        start: bytes from its start to the first pixel.
        dmabuf: the buffer to bracket CPU reads with, or None.
    """

    surface: SurfaceInfo
    way: str
    mapping: MappedRegion
    start: int
    dmabuf: DmaBuf | None = None

    @property
    def layout(self) -> SurfaceInfo:
        """How the bytes lie: as the driver says."""
        return self.surface

    @property
    def extent(self) -> int:
        """Bytes of a copy with its padding, see `mdevdisplay.pixels.layout.extent_of`."""
        return extent_of(self.surface, self.mapping.size - self.start)

    def view(self) -> Raw:
        """Return the pixels in the driver's own layout, read-only, without a copy."""
        return raw_view(self.mapping.data, self.start, self.surface, self.surface.stride)

    @contextmanager
    def reading(self) -> Generator[None]:
        """Bracket the reading with what makes a dma-buf's memory coherent."""
        if self.dmabuf is None:
            yield
            return
        self.dmabuf.begin_read()
        try:
            yield
        finally:
            self.dmabuf.end_read()

    def copy_into(self, target: Bytes) -> None:
        """Copy the bytes as they lie, into (extent,) uint8."""
        np.copyto(target, self.mapping.data[self.start : self.start + target.size])

    def copy_rows_into(self, target: Bytes) -> None:
        """Copy the rows without the padding between them."""
        np.copyto(target, np.ndarray(target.shape, np.uint8, self.mapping.data, self.start, (self.surface.stride, 1)))


Memory = PixelMemory | FileMemory | GpuMemory
"""Where pixels are: mapped, in a file, or in a GPU's reach."""


class SurfaceMemory:
    """Finds and keeps the mappings of one display. A mapping is made anew only when the geometry needs it."""

    def __init__(self, buffers: Buffers, device: str = "", gpu: GpuBuffers | None = None) -> None:
        """Ask ``buffers`` for memory; what cannot be mapped is imported by ``gpu``, or refused where that is None."""
        self._buffers = buffers
        self._device = device
        self._gpu = gpu
        self._current: dict[PlaneType, Memory] = {}
        self._drops = 0
        self._regions: OrderedDict[_RegionKey, tuple[Mappable, MappedRegion]] = OrderedDict()
        self._dmabufs: OrderedDict[int, tuple[DmaBuf, MappedRegion]] = OrderedDict()
        self._pins: Counter[int] = Counter()

    def find(self, surface: SurfaceInfo) -> Memory:
        """Return where the surface's pixels are.

        Raises:
            NotMappable: the CPU cannot map what the driver offers.
            BadSurface: the picture does not fit into the memory.
            MdevDisplayError: the backend failed.
        """
        current = self._current.get(surface.plane)
        if current is not None and current.surface is surface:
            return current
        before = self._dropped()
        try:
            found = self._find(surface)
        finally:
            if self._dropped() != before:  # the other plane's may be among them
                self._current.clear()
            self._current.pop(surface.plane, None)
        self._current[surface.plane] = found
        return found

    def _dropped(self) -> int:
        """Return how many mappings and buffers have been let go."""
        return self._drops + (0 if self._gpu is None else self._gpu.drops)

    def _find(self, surface: SurfaceInfo) -> Memory:
        mappable = self._buffers.query_region(surface)
        if mappable is not None:
            return self._in_region(surface, mappable)
        dmabuf = self._buffers.create_dmabuf(surface)
        if dmabuf is None:
            raise NotMappable(
                "the backend offers neither a region nor a dma-buf for this surface",
                device=self._device,
                hint="report it to the backend's authors",
            )
        return self._mapped_or_imported(surface, dmabuf)

    def _mapped_or_imported(self, surface: SurfaceInfo, dmabuf: DmaBuf) -> Memory:
        if self._gpu is None:
            return self._in_dmabuf(surface, dmabuf)
        spare = dmabuf.dup()
        try:
            memory = self._in_dmabuf(surface, dmabuf)
        except NotMappable as error:
            return self._gpu.find(surface, spare, error)
        except BaseException:
            spare.close()
            raise
        spare.close()
        return memory

    def pin(self, memory: Memory) -> None:
        """Begin a look at mapped memory: its dma-buf stays mapped until `unpin`, however many others come."""
        if memory.dmabuf is not None:
            memory.dmabuf.begin_read()
            self._pins[memory.dmabuf.key] += 1

    def unpin(self, memory: Memory) -> None:
        """End what `pin` began."""
        if memory.dmabuf is not None and self._pins[memory.dmabuf.key]:
            self._pins[memory.dmabuf.key] -= 1
            self._pins += Counter()  # forgets the zeros
            memory.dmabuf.end_read()

    def _in_region(self, surface: SurfaceInfo, mappable: Mappable) -> Memory:
        start = mappable.pixel_offset + surface.offset
        if can_shrink(mappable.fd):
            check_fit(mappable, start, surface.needed - surface.offset, device=self._device)
            return FileMemory(surface=surface, fd=mappable.fd, offset=mappable.offset + start, device=self._device)
        region = self._mapped(attrs.evolve(mappable, pixel_offset=start), surface.needed - surface.offset)
        return PixelMemory(surface=surface, way="region", mapping=region, start=start)

    def _mapped(self, mappable: Mappable, needed: int) -> MappedRegion:
        """Return the mapping that there is where it is of the same region and long enough, else a new one.

        Regions stay mapped beside each other: the cursor's, and those that a guest flips between.
        """
        status = os.fstat(mappable.fd)  # a number may be another file's by now
        key = (mappable.fd, status.st_dev, status.st_ino, mappable.offset)
        known = self._regions.get(key)
        if known is not None:
            if known[0].size == mappable.size and mappable.pixel_offset + needed <= known[1].size:
                self._regions.move_to_end(key)
                return known[1]
            self._drop_region(key)  # first: a driver may let a region be mapped only once at a time
        try:
            region = self._map(mappable, needed)
        except NotMappable:
            if not self._regions:
                raise
            for other in list(self._regions):
                self._drop_region(other)
            region = self._map(mappable, needed)
        self._regions[key] = (mappable, region)
        while len(self._regions) > _KEPT_REGIONS:
            self._drop_region(next(iter(self._regions)))
        return region

    def _map(self, mappable: Mappable, needed: int) -> MappedRegion:
        return map_region(
            mappable,
            needed,
            device=self._device,
            hint=self._buffers.region_hint,
        )

    def _drop_region(self, key: _RegionKey) -> None:
        self._drops += 1
        self._regions.pop(key)[1].close()

    def _in_dmabuf(self, surface: SurfaceInfo, dmabuf: DmaBuf) -> PixelMemory:
        kept = self._dmabufs.get(dmabuf.key)
        if kept is not None and surface.needed <= kept[1].size:
            dmabuf.close()
            self._dmabufs.move_to_end(dmabuf.key)
        else:  # new, or the picture goes on behind the whole pages that are mapped, which map() refuses
            try:
                self._refuse_what_may_shrink(dmabuf)
                kept = (dmabuf, dmabuf.map(hint=self._buffers.map_hint))
            except BaseException:
                dmabuf.close()
                raise
            if dmabuf.key in self._dmabufs:
                self._drops += 1
                _drop(self._dmabufs.pop(dmabuf.key))
            self._dmabufs[dmabuf.key] = kept
            for key in [key for key in self._dmabufs if key not in self._pins][:-_KEPT_DMABUFS]:
                self._drops += 1
                _drop(self._dmabufs.pop(key))
        buffer, region = kept
        return PixelMemory(surface=surface, way="dma-buf", mapping=region, start=surface.offset, dmabuf=buffer)

    def _refuse_what_may_shrink(self, dmabuf: DmaBuf) -> None:
        fd = dmabuf.fileno()
        # its size may be another since it was taken over, until the seal was found
        if can_shrink(fd) or (stat.S_ISREG(os.fstat(fd).st_mode) and os.fstat(fd).st_size < dmabuf.size):
            raise NotMappable(
                "what stands in for a dma-buf is a file that its owner can truncate, and reading it then would kill us",
                device=self._device,
                hint="its owner should seal it: F_ADD_SEALS with F_SEAL_SHRINK",
            )

    def close(self) -> None:
        """Drop every mapping, then every dma-buf. Views that somebody holds turn to zeros. Idempotent."""
        self._current.clear()
        if self._gpu is not None:
            self._gpu.close()
        while self._regions:
            self._drop_region(next(iter(self._regions)))
        self._pins.clear()
        while self._dmabufs:
            _drop(self._dmabufs.popitem()[1])


def _drop(kept: tuple[DmaBuf, MappedRegion]) -> None:
    dmabuf, region = kept
    region.close()
    dmabuf.close()
