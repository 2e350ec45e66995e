from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import BadSurface, NotMappable
from mdevdisplay.formats import X_TILED, fourcc
from mdevdisplay.pixels.memory import PixelMemory, SurfaceMemory
from mdevdisplay.region import Mappable
from mdevdisplay.surface import SurfaceInfo
from pixels.holdings import holdings, nothing_new_since, shared_mappings
from pixels.memfd import sealed_memfd

MEBI = 1 << 20


def surface_of(width: int = 64, height: int = 64, *, offset: int = 0, stride: int = 0) -> SurfaceInfo:
    pitch = stride or width * 4
    return SurfaceInfo(
        fourcc=fourcc("XR24"), width=width, height=height, stride=pitch, size=pitch * height, offset=offset
    )


def address(array: npt.NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


class Regions:
    """A backend whose pixels lie in memfds; each has its bytes numbered, so that a picture tells where it lies."""

    map_hint = "ask its vendor"
    region_hint = "ask who else has it"

    def __init__(self) -> None:
        self.asked = 0
        self.fds: list[int] = []
        self.shown: Mappable | None = None

    def add(self, size: int, fill: int) -> Mappable:
        fd = sealed_memfd("regions-of-a-test")
        os.ftruncate(fd, size)
        os.pwrite(fd, bytes([fill]) * size, 0)
        self.fds.append(fd)
        self.shown = Mappable(fd=fd, offset=0, size=size)
        return self.shown

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:
        self.asked += 1
        return self.shown

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        raise AssertionError(surface)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Buffers:
    """A backend that gives a dma-buf for each key away; a memfd maps as one does."""

    map_hint = "ask its vendor"
    region_hint = "ask who else has it"

    def __init__(self) -> None:
        self.kept: dict[int, DmaBuf] = {}
        self.shown: int | None = 1
        self.asked = 0

    def add(self, key: int, surface: SurfaceInfo, *, size: int = 0) -> None:
        fd = sealed_memfd("buffers-of-a-test")
        os.ftruncate(fd, size or surface.size)
        os.pwrite(fd, bytes([key % 256]) * (size or surface.size), 0)
        self.kept[key] = DmaBuf(fd, surface, key=key)

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:
        return None

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        self.asked += 1
        return self.kept[self.shown].dup(surface) if self.shown is not None else None

    def close(self) -> None:
        for buffer in self.kept.values():
            buffer.close()


@pytest.fixture
def regions() -> Iterator[Regions]:
    backend = Regions()
    yield backend
    backend.close()


@pytest.fixture
def buffers() -> Iterator[Buffers]:
    backend = Buffers()
    yield backend
    backend.close()


@pytest.fixture
def region_memory(regions: Regions) -> Iterator[SurfaceMemory]:
    memory = SurfaceMemory(regions, "sim:")
    yield memory
    memory.close()


@pytest.fixture
def buffer_memory(buffers: Buffers) -> Iterator[SurfaceMemory]:
    memory = SurfaceMemory(buffers, "sim:")
    yield memory
    memory.close()


def mapped(memory: SurfaceMemory, surface: SurfaceInfo) -> PixelMemory:
    """Find a surface that is in memory that can be mapped."""
    found = memory.find(surface)
    assert isinstance(found, PixelMemory)
    return found


# regions


def test_the_same_surface_is_found_without_asking(regions: Regions, region_memory: SurfaceMemory) -> None:
    """As long as nothing changed, a frame costs no question to the backend and no mapping."""
    regions.add(MEBI, 1)
    surface = surface_of()
    found = region_memory.find(surface)
    assert region_memory.find(surface) is found
    assert regions.asked == 1
    assert found.way == "region"


def test_a_change_of_geometry_inside_the_region_keeps_the_mapping(
    regions: Regions, region_memory: SurfaceMemory
) -> None:
    """The whole region is mapped once; another size, stride or start in it is only another view."""
    regions.add(MEBI, 7)
    first = mapped(region_memory, surface_of(64, 64))
    where = address(first.mapping.data)
    [mapping] = shared_mappings("regions-of-a-test")
    for surface in (surface_of(320, 200), surface_of(64, 64, offset=8192), surface_of(64, 64, stride=4096)):
        found = mapped(region_memory, surface)
        assert address(found.mapping.data) == where
        assert found.start == surface.offset
        assert found.view().shape == (surface.height, surface.width, 4)
        assert (found.view() == 7).all()
    assert shared_mappings("regions-of-a-test") == [mapping]


def test_a_picture_starts_where_backend_and_surface_say(regions: Regions, region_memory: SurfaceMemory) -> None:
    """The region's pixel offset and the surface's own add up."""
    mappable = regions.add(MEBI, 0)
    os.pwrite(mappable.fd, bytes(range(16)), 4096 + 256)
    regions.shown = Mappable(fd=mappable.fd, offset=0, size=MEBI, pixel_offset=4096)
    found = mapped(region_memory, surface_of(4, 1, offset=256))
    assert found.start == 4096 + 256
    assert found.extent == 16
    assert found.view().reshape(-1).tolist() == list(range(16))
    target = np.empty(16, np.uint8)
    found.copy_into(target)
    assert target.tolist() == list(range(16))


@pytest.mark.parametrize("stride", [64, 68, 256])
def test_a_copy_has_the_padding_or_leaves_it_out(regions: Regions, region_memory: SurfaceMemory, stride: int) -> None:
    """Copied as they lie, bytes come with what is between the rows; copied by rows without, both up to the last row."""
    mappable = regions.add(MEBI, 0)
    data = np.random.default_rng(4).integers(0, 256, MEBI, np.uint8)
    os.pwrite(mappable.fd, data.tobytes(), 0)
    found = mapped(region_memory, surface_of(16, 9, offset=512, stride=stride))
    assert found.extent == 8 * stride + 64
    verbatim = np.empty(found.extent, np.uint8)
    found.copy_into(verbatim)
    np.testing.assert_array_equal(verbatim, data[512:][: found.extent])
    rows = np.empty((9, 64), np.uint8)
    found.copy_rows_into(rows)
    np.testing.assert_array_equal(rows, [data[512 + row * stride :][:64] for row in range(9)])
    np.testing.assert_array_equal(rows, found.view().reshape(9, 64))


def test_what_is_tiled_is_copied_up_to_its_size(regions: Regions, region_memory: SurfaceMemory) -> None:
    """Without rows that we could name, all bytes that the driver counts to the picture belong to it."""
    regions.add(MEBI, 6)
    tiled = SurfaceInfo(fourcc=fourcc("XR24"), modifier=X_TILED, width=64, height=8, stride=512, size=4096)
    found = mapped(region_memory, tiled)
    assert found.extent == 4096
    target = np.empty(4096, np.uint8)
    found.copy_into(target)
    assert (target == 6).all()


def test_regions_stay_mapped_beside_each_other(regions: Regions, region_memory: SurfaceMemory) -> None:
    """A guest that flips between regions, or a cursor in one of its own, costs one mapping each, not one a frame."""
    one, two = regions.add(MEBI, 1), regions.add(2 * MEBI, 2)
    places = set()
    for number in range(10):
        regions.shown = (one, two)[number % 2]
        found = mapped(region_memory, surface_of())
        assert (found.view() == number % 2 + 1).all()
        places.add(address(found.mapping.data))
    assert len(places) == 2
    assert len(shared_mappings("regions-of-a-test")) == 2


def test_eight_regions_stay_mapped(regions: Regions, region_memory: SurfaceMemory) -> None:
    """The least recently used goes first, and turns to zeros for whoever still views it."""
    views = []
    for fill in range(1, 12):
        regions.add(MEBI, fill)
        views.append(region_memory.find(surface_of()).view())
    assert len(shared_mappings("regions-of-a-test")) == 8
    assert [bool(view.any()) for view in views] == [False] * 3 + [True] * 8


def test_a_region_that_grew_is_mapped_anew(regions: Regions, region_memory: SurfaceMemory) -> None:
    """A mapping that is too short is let go before it is made anew, as NVIDIA's driver wants; its views show zeros."""
    mappable = regions.add(64 * 4096, 1)
    old = region_memory.find(surface_of(64, 64)).view()
    os.ftruncate(mappable.fd, MEBI)
    regions.shown = Mappable(fd=mappable.fd, offset=0, size=MEBI)
    assert mapped(region_memory, surface_of(512, 512)).mapping.size == MEBI
    assert len(shared_mappings("regions-of-a-test")) == 1
    assert not old.any()


def test_a_picture_that_does_not_fit_is_refused_with_the_numbers(
    regions: Regions, region_memory: SurfaceMemory
) -> None:
    """Nothing is mapped or copied beyond the region, whatever the driver says of the surface."""
    regions.add(4096, 1)
    with pytest.raises(BadSurface, match=r"16384.*4096"):
        region_memory.find(surface_of(64, 64))
    assert not shared_mappings("regions-of-a-test")


def test_after_a_refusal_the_next_surface_is_found(regions: Regions, region_memory: SurfaceMemory) -> None:
    """A bad report does not spoil the display."""
    regions.add(64 * 4096, 3)
    good = surface_of(64, 64)
    region_memory.find(good)
    with pytest.raises(BadSurface):
        region_memory.find(surface_of(4096, 64))
    assert (region_memory.find(good).view() == 3).all()


def test_close_turns_views_to_zeros_and_holds_nothing(regions: Regions, region_memory: SurfaceMemory) -> None:
    """An array that somebody kept stays readable after close(), shows zeros and holds no device open."""
    before = holdings()
    regions.add(MEBI, 9)
    view = region_memory.find(surface_of(256, 256)).view()
    [mapping] = shared_mappings("regions-of-a-test")
    assert mapping.split()[1] == "r--s"
    assert (view == 9).all()
    region_memory.close()
    assert (view == 0).all()
    assert not shared_mappings("regions-of-a-test")
    regions.close()
    regions.fds.clear()
    assert nothing_new_since(before)
    assert (view == 0).all()
    region_memory.close()


def test_the_last_view_frees_the_address_space(regions: Regions, region_memory: SurfaceMemory) -> None:
    """Zero pages that nobody views any more are unmapped."""
    regions.add(64 * MEBI, 0)
    found = mapped(region_memory, surface_of())
    view, where = found.view(), address(found.mapping.data)
    region_memory.close()
    del found
    gc.collect()
    assert _is_mapped(where)
    del view
    gc.collect()
    assert not _is_mapped(where)


def _is_mapped(where: int) -> bool:
    ranges = (line.split()[0].split("-") for line in shared_mappings(""))
    return any(int(start, 16) <= where < int(end, 16) for start, end in ranges)


def test_views_cannot_be_written(regions: Regions, region_memory: SurfaceMemory) -> None:
    """Pixels of a device are read-only, for NumPy and for the processor."""
    regions.add(MEBI, 1)
    view = region_memory.find(surface_of()).view()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
    with pytest.raises(ValueError, match=r"writeable|WRITEABLE"):
        view.flags.writeable = True


# dma-bufs


def test_a_dmabuf_is_mapped_once(buffers: Buffers, buffer_memory: SurfaceMemory) -> None:
    """A guest that flips between two buffers costs two mappings, however often it flips."""
    surfaces = [surface_of(), surface_of()]
    for key, surface in enumerate(surfaces, start=1):
        buffers.add(key, surface)
    before = len(holdings().descriptors)
    for number in range(20):
        buffers.shown = number % 2 + 1
        found = buffer_memory.find(surfaces[number % 2])
        assert found.way == "dma-buf"
        assert (found.view() == buffers.shown).all()
    assert len(shared_mappings("buffers-of-a-test")) == 2
    assert len(holdings().descriptors) == before + 2


def test_eight_dmabufs_are_kept_and_the_least_used_go(buffers: Buffers, buffer_memory: SurfaceMemory) -> None:
    """A guest may flip through buffers without end: eight stay mapped, those seen last."""
    surface = surface_of()
    for key in range(1, 13):
        buffers.add(key, surface)
    before = len(holdings().descriptors)
    views: dict[int, npt.NDArray[np.uint8]] = {}
    for key in range(1, 9):
        buffers.shown = key
        views[key] = buffer_memory.find(surface_of()).view()
    buffers.shown = 1
    assert np.shares_memory(buffer_memory.find(surface_of()).view(), views[1])
    for key in range(9, 13):
        buffers.shown = key
        views[key] = buffer_memory.find(surface_of()).view()
    assert len(shared_mappings("buffers-of-a-test")) == 8
    assert len(holdings().descriptors) == before + 8
    assert {key for key, view in views.items() if (view == 0).all()} == {2, 3, 4, 5}
    assert all((view == key).all() for key, view in views.items() if key not in {2, 3, 4, 5})
    buffer_memory.close()
    assert not shared_mappings("buffers-of-a-test")
    assert len(holdings().descriptors) == before
    assert all((view == 0).all() for view in views.values())


def test_a_picture_that_outgrew_its_kept_mapping_is_refused_or_mapped(
    buffers: Buffers, buffer_memory: SurfaceMemory
) -> None:
    """The same buffer may show another geometry: every one is checked against what is really mapped."""
    small = surface_of(64, 16)
    buffers.add(1, small, size=2 * 4096 + 1024)
    assert buffer_memory.find(small).view().shape == (16, 64, 4)
    assert buffer_memory.find(surface_of(64, 32)).view().shape == (32, 64, 4)
    # 36 rows of 256 bytes end in the last part of a page, which the kernel does not map of a dma-buf
    with pytest.raises(NotMappable, match="whole pages"):
        buffer_memory.find(surface_of(64, 36))
    with pytest.raises(BadSurface):
        buffer_memory.find(surface_of(64, 64))
    assert buffer_memory.find(small).view().shape == (16, 64, 4)


def test_a_buffer_that_cannot_be_mapped_is_closed(buffers: Buffers, buffer_memory: SurfaceMemory) -> None:
    """A refused mapping leaves no descriptor behind."""
    surface = surface_of(64, 20)
    buffers.add(1, surface, size=surface.size)
    before = holdings()
    with pytest.raises(NotMappable, match="whole pages") as caught:
        buffer_memory.find(surface)
    assert caught.value.hint == "ask its vendor"
    assert nothing_new_since(before)


def test_neither_region_nor_dmabuf_is_refused(buffers: Buffers) -> None:
    """A backend that offers no memory for its own surface is named as the one to ask."""
    buffers.shown = None
    with pytest.raises(NotMappable, match="neither a region nor a dma-buf"):
        SurfaceMemory(buffers).find(surface_of())
