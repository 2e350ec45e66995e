"""Mapping a region: what fits is mapped, what does not is refused before anything is."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import BadSurface, Closed, DriverError, MdevDisplayError, NotMappable
from mdevdisplay.region import MAX_MAPPING, Mappable, MappedRegion, map_region
from mdevdisplay.testing import Driver, FakeKernel, Mdpy, Nvidia, Region, Scripted
from mdevdisplay.vfio import uapi

PAGE = mmap.PAGESIZE
FLAGS = uapi.VFIO_REGION_INFO_FLAG_READ | uapi.VFIO_REGION_INFO_FLAG_MMAP


Opener = Callable[[Driver], int]


def four_pages() -> Scripted:
    """A device with one mappable region."""
    return Scripted(regions={0: Region(0, 4 * PAGE, FLAGS)})


@pytest.fixture
def fd(descriptor: Opener) -> int:
    return descriptor(Mdpy("vga"))


def test_the_whole_region_is_mapped_from_its_start(kernel: FakeKernel, fd: int) -> None:
    """Shared, at exactly the offset that the region info says (gotcha 8), so that a mode change needs no new one."""
    with map_region(Mappable(fd=fd, offset=PAGE, size=2 << 20), 640 * 480 * 4) as region:
        assert region.size == 2 << 20
        assert region.data.shape == (2 << 20,)
        assert not region.data.flags.writeable
    (call,) = kernel.calls.of("mmap")
    assert (call.offset, call.size, call.errno) == (PAGE, 2 << 20, 0)


def test_a_view_outlives_its_mapping_as_zeros(kernel: FakeKernel) -> None:
    """After close() an old view is readable, shows zeros, and keeps neither mapping nor descriptor open."""
    driver = kernel.add(Mdpy("vga"))
    fd = kernel.open_descriptor(driver)
    driver.paint(b"\x11" * 100)
    region = map_region(Mappable(fd=fd, offset=PAGE, size=2 << 20), 100)
    view = region.data[:100]
    assert set(view.tolist()) == {0x11}
    region.close()
    os.close(fd)
    assert kernel.leaks() == []
    assert not view.any()
    with pytest.raises(Closed, match="closed before"):
        _ = region.data


def test_closing_twice_is_harmless(kernel: FakeKernel, fd: int) -> None:
    """close() is idempotent; the mapping is replaced once."""
    region = map_region(Mappable(fd=fd, offset=PAGE, size=2 << 20), 100)
    region.close()
    region.close()
    assert len(kernel.calls.of("unmap")) == 1


def test_a_forgotten_mapping_warns_and_goes(kernel: FakeKernel, fd: int) -> None:
    """A ResourceWarning, and the memory is let go."""
    held = [MappedRegion(fd, PAGE, PAGE)]
    with pytest.warns(ResourceWarning, match="a mapping of 4096 bytes was not closed"):
        held.clear()
    assert kernel.calls.of("unmap")


def test_nvidia_gets_the_pages_of_the_picture_only(kernel: FakeKernel, descriptor: Opener) -> None:
    """Its driver refuses more than the console surface: after the region's size the picture's is tried (gotcha 10)."""
    driver = Nvidia()
    fd = descriptor(driver)
    driver.show(1000, 100)
    mappable = Mappable(fd=fd, offset=9 << 40, size=driver.console_size)
    with map_region(mappable, driver.size) as region:
        assert region.size == -(-400000 // PAGE) * PAGE
    assert [(call.size, call.errno) for call in kernel.calls.of("mmap")] == [
        (16 << 20, errno.EINVAL),
        (region.size, 0),
    ]


def test_a_region_that_the_picture_fills_is_tried_once(kernel: FakeKernel, descriptor: Opener) -> None:
    """There is nothing shorter to try."""
    driver = Nvidia()
    fd = descriptor(driver)
    driver.show(2048, 2048)
    driver.mapped_elsewhere = True
    with pytest.raises(NotMappable):
        map_region(Mappable(fd=fd, offset=9 << 40, size=driver.console_size), driver.size)
    assert [call.size for call in kernel.calls.of("mmap")] == [16 << 20]


def test_a_second_mapping_of_nvidias_console_is_refused_with_the_reason(descriptor: Opener) -> None:
    """One mapping in the whole system (gotcha 10): the hint says who may have it."""
    driver = Nvidia()
    fd = descriptor(driver)
    driver.show(640, 480)
    mappable = Mappable(fd=fd, offset=9 << 40, size=driver.console_size)
    with map_region(mappable, driver.size), pytest.raises(NotMappable, match="QEMU has it") as caught:
        map_region(mappable, driver.size, device="vm:win10", hint="QEMU has it")
    assert caught.value.errno == errno.EINVAL
    assert caught.value.device == "vm:win10"
    map_region(mappable, driver.size).close()


@pytest.mark.parametrize(
    ("mappable", "needed"),
    [
        ({"size": 4096}, 4097),
        ({"size": 4096, "pixel_offset": 1}, 4096),
        ({"size": 4096, "pixel_offset": 1 << 63}, 1),
        ({"size": 4096, "pixel_offset": -1}, 1),
        ({"size": 4096}, 0),
        ({"size": 4096}, -5),
        ({"size": 1 << 63}, MAX_MAPPING + 1),
    ],
)
def test_a_picture_outside_its_region_is_refused_before_mapping(
    kernel: FakeKernel, fd: int, mappable: dict[str, int], needed: int
) -> None:
    """The numbers are in the message, and mmap was not called."""
    with pytest.raises(BadSurface, match="the region has"):
        map_region(Mappable(fd=fd, offset=0, **mappable), needed)
    assert kernel.calls.of("mmap") == []


def test_a_region_longer_than_its_file_is_refused() -> None:
    """A page behind the end of a memfd would be SIGBUS: only what is there is mapped."""
    fd = os.memfd_create("short")
    os.ftruncate(fd, 4 * PAGE)
    for offset, room in ((0, 4 * PAGE), (PAGE, 3 * PAGE)):
        mappable = Mappable(fd=fd, offset=offset, size=8 * PAGE)
        with map_region(mappable, room) as region:
            assert region.size == room
            assert not region.data.any()
        with pytest.raises(BadSurface, match=f"the file behind the region has {room}"):
            map_region(mappable, room + 1)
    with pytest.raises(BadSurface, match="the file behind the region has 0"):
        map_region(Mappable(fd=fd, offset=9 * PAGE, size=8 * PAGE), 1)
    os.close(fd)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, NotMappable),
        (errno.EINVAL, NotMappable),
        (errno.ENXIO, NotMappable),
        (errno.ENOMEM, DriverError),
        (errno.EIO, DriverError),
    ],
)
def test_a_refused_mapping_keeps_its_errno(
    kernel: FakeKernel, descriptor: Opener, number: int, kind: type[MdevDisplayError]
) -> None:
    """What the driver's mmap answers becomes the class that says what it means."""

    class Refusing(Scripted):
        def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
            raise OSError(number, "")

    fd = descriptor(Refusing(regions={0: Region(0, 4 * PAGE, FLAGS)}))
    with pytest.raises(kind) as caught:
        map_region(Mappable(fd=fd, offset=0, size=4 * PAGE), PAGE, device="d")
    assert caught.value.errno == number
    assert caught.value.message.startswith("mapping 16384 bytes at offset 0 failed")
    again = number in (errno.EINVAL, errno.ENOMEM)
    assert [call.size for call in kernel.calls.of("mmap")] == ([4 * PAGE, PAGE] if again else [4 * PAGE])


def test_a_descriptor_that_is_not_open_is_an_error_of_ours() -> None:
    """A backend that hands out a stale descriptor gets an MdevDisplayError, not an OSError."""
    with pytest.raises(DriverError, match="EBADF"):
        map_region(Mappable(fd=999_999, offset=0, size=PAGE), 1, device="d")


@pytest.fixture
def window(descriptor: Opener) -> int:
    return descriptor(four_pages())


@given(
    offset=st.one_of(st.integers(0, 6 * PAGE), st.integers(0, (1 << 64) - 1)),
    size=st.one_of(st.integers(0, 6 * PAGE), st.integers(0, (1 << 64) - 1)),
    pixel_offset=st.one_of(st.integers(-5, 5 * PAGE), st.integers(0, 1 << 64)),
    needed=st.one_of(st.integers(-5, 5 * PAGE), st.integers(0, 1 << 64)),
)
def test_whatever_a_driver_reports_only_what_exists_is_mapped(
    kernel: FakeKernel, window: int, offset: int, size: int, pixel_offset: int, needed: int
) -> None:
    """Any 64-bit numbers: an error of ours, or a mapping that has the whole picture and can be read to its end."""
    mappable = Mappable(fd=window, offset=offset, size=size, pixel_offset=pixel_offset)
    try:
        with map_region(mappable, needed) as region:
            assert 0 <= pixel_offset < pixel_offset + needed <= region.size <= 4 * PAGE
            assert int(np.sum(region.data)) >= 0
    except MdevDisplayError:
        pass
    assert not [entry for entry in kernel.leaks() if entry.startswith("mapping")]
