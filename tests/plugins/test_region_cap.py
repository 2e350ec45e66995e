"""The region backend: mdpy, NVIDIA, and any driver that answers its probe."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from functools import partial

import pytest

import mdevdisplay_region_cap as backend
from mdevdisplay._lane import Lane
from mdevdisplay._manager import Backend, load
from mdevdisplay.errors import BadSurface, DriverError, NotMappable, TimedOut
from mdevdisplay.region import map_region
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty, Nvidia, PreGfx
from mdevdisplay.vfio import Device, uapi

QUERY = uapi.VFIO_DEVICE_QUERY_GFX_PLANE
PRIMARY, CURSOR, OVERLAY = PlaneType.PRIMARY, PlaneType.CURSOR, PlaneType.OVERLAY
Opener = Callable[..., Device]


def chosen(device: Source) -> Backend:
    return load().choose(device, "region_cap")


def shown(reader: Backend) -> SurfaceInfo:
    surface = reader.get_surface_info(PRIMARY, 0)
    assert surface is not None
    return surface


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        (Mdpy, Match(40, "PROBE+REGION answered 0")),
        (Nvidia, Match(40, "PROBE+REGION answered 0")),
        (Gvt, Refusal("PROBE+REGION answered EINVAL: not this kind")),
        (Mbochs, Refusal("PROBE+REGION answered EINVAL: not this kind")),
        (Mtty, Refusal("PROBE+REGION answered ENOTTY: it has no display")),
    ],
)
def test_the_probe_goes_by_the_drivers_answer(opened: Opener, driver: type[Driver], answer: Match | Refusal) -> None:
    """Whoever made the device: the region probe decides, at score 40."""
    assert backend.probe(opened(driver())) == answer


def test_others_are_refused(opened: Opener) -> None:
    """Not a VFIO device, or a driver that says yes to everything."""
    with Source("rec:1") as source:
        assert backend.probe(source) == Refusal("not a VFIO device")
    assert isinstance(backend.probe(opened(PreGfx())), Refusal)


def test_mdpy_from_probe_to_pixels(kernel: FakeKernel, opened: Opener) -> None:
    """Region 16 of 9, mapped shared at its own offset, never read (gotchas 7, 8, 9)."""
    driver = Mdpy("vga")
    device = opened(driver)
    reader = load().choose(device)
    assert reader.name == "region_cap"
    driver.paint(bytes(range(256)))
    surface = shown(reader)
    mappable = reader.query_region(surface)
    assert mappable is not None
    assert (mappable.fd, mappable.offset, mappable.size, mappable.pixel_offset) == (
        device.fileno(),
        4096,
        2 << 20,
        0,
    )
    with map_region(mappable, surface.needed) as region:
        assert bytes(region.data[:256]) == bytes(range(256))
    assert kernel.calls.of("pread") == []
    assert reader.create_dmabuf(surface) is None


def test_mdpys_size_is_its_memory(opened: Opener) -> None:
    """A power of two, not stride times height (gotcha 14)."""
    surface = shown(chosen(opened(Mdpy("hd"))))
    assert (surface.size, surface.needed) == (8 << 20, 1920 * 1080 * 4)


def test_the_same_answer_is_the_same_object(opened: Opener) -> None:
    """Frame for frame."""
    reader = chosen(opened(Mdpy()))
    assert shown(reader) is shown(reader)


@pytest.mark.parametrize("driver", [Mdpy, Nvidia])
def test_a_cursor_that_is_the_primary_plane_is_none(opened: Opener, driver: type[Mdpy | Nvidia]) -> None:
    """Both drivers ignore the plane's type (gotcha 12)."""
    plugged = driver()
    reader = chosen(opened(plugged))
    if isinstance(plugged, Nvidia):
        plugged.show(800, 600)
    assert reader.get_surface_info(CURSOR, 0) is None
    assert reader.get_surface_info(PRIMARY, 0) is not None


class TwoPlanes(Mdpy):
    """A driver that does look at the plane's type."""

    cursor_region = 16

    def query(self, plane: uapi.vfio_device_gfx_plane_info) -> None:
        """Answer the cursor plane with a small picture of its own."""
        asked = plane.drm_plane_type
        super().query(plane)
        if asked == CURSOR and plane.width:
            plane.width = plane.height = 64
            plane.stride, plane.x_pos, plane.region_index = 256, 5, self.cursor_region


def test_a_true_cursor_is_one(opened: Opener) -> None:
    """Another size, or another region, is another plane; the same object frame for frame."""
    reader = chosen(opened(TwoPlanes()))
    cursor = reader.get_surface_info(CURSOR, 0)
    assert cursor is not None
    assert (cursor.plane, cursor.width, cursor.x) == (CURSOR, 64, 5)
    assert reader.get_surface_info(CURSOR, 0) is cursor


@pytest.mark.parametrize(("plane", "output"), [(OVERLAY, 0), (PRIMARY, 1), (CURSOR, 2)])
def test_other_planes_and_outputs_do_not_exist(
    kernel: FakeKernel, opened: Opener, plane: PlaneType, output: int
) -> None:
    """None, without asking the driver."""
    reader = chosen(opened(Mdpy()))
    before = len(kernel.calls)
    assert reader.get_surface_info(plane, output) is None
    assert len(kernel.calls) == before


def test_an_nvidia_console(kernel: FakeKernel, opened: Opener) -> None:
    """Nothing at first, then a region of 16 MiB of which only the surface can be mapped (gotchas 1, 7, 10)."""
    driver = Nvidia()
    reader = chosen(opened(driver, borrowed=True))
    assert reader.get_surface_info(PRIMARY, 0) is None
    driver.show(1024, 768)
    driver.paint(b"console")
    surface = shown(reader)
    mappable = reader.query_region(surface)
    assert mappable is not None
    with map_region(mappable, surface.needed) as region:
        assert region.size == 1024 * 768 * 4
        assert bytes(region.data[:7]) == b"console"
    driver.mapped_elsewhere = True
    with pytest.raises(NotMappable):
        map_region(mappable, surface.needed)
    assert kernel.violations == []


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, DriverError), (errno.ETIMEDOUT, TimedOut)])
def test_nvidias_failures_are_errors(opened: Opener, number: int, kind: type[Exception]) -> None:
    """Its plugin process may fail or not answer (gotcha 11)."""
    driver = Nvidia()
    reader = chosen(opened(driver))
    driver.answer_next(QUERY, -number)
    with pytest.raises(kind):
        reader.get_surface_info(PRIMARY, 0)


def test_a_query_that_hangs_is_waited_for_no_longer_than_wanted(kernel: FakeKernel, opened: Opener) -> None:
    """NVIDIA's may take 25 s (gotcha 11): the caller goes on, and the driver is never asked twice at once."""
    driver = Nvidia()
    reader = chosen(opened(driver))
    driver.show(640, 480)
    release = threading.Event()
    driver.stall = lambda _: release.wait(20)
    lane = Lane(driver.name)
    for _ in range(2):
        with pytest.raises(TimedOut):
            lane.run(partial(reader.get_surface_info, PRIMARY, 0), 0.02)
    release.set()
    surface = lane.run(partial(reader.get_surface_info, PRIMARY, 0), 20)
    assert surface is not None
    assert kernel.violations == []
    assert kernel.calls.requests().count(QUERY) == 4  # two to probe, the late one, the last one
    lane.stop()


class Elsewhere(Mdpy):
    """A driver whose plane info names a region that it does not have, or that cannot be mapped."""

    display_region = 40

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def query(self, plane: uapi.vfio_device_gfx_plane_info) -> None:
        """Name the wrong region."""
        super().query(plane)
        plane.region_index = self.index


@pytest.mark.parametrize("index", [3, 41, 0xFFFFFFFF])
def test_a_region_that_is_not_there_is_the_drivers_contradiction(opened: Opener, index: int) -> None:
    """Any number may come: an error that names it."""
    reader = chosen(opened(Elsewhere(index)))
    with pytest.raises(DriverError, match=f"region {index}, where the display should be"):
        reader.query_region(shown(reader))


def test_a_picture_larger_than_its_region_is_refused(opened: Opener) -> None:
    """Plane info and region info are held against each other before anything is mapped (gotcha 14)."""
    driver = Nvidia()
    reader = chosen(opened(driver))
    driver.show(4096, 4096)
    surface = shown(reader)
    mappable = reader.query_region(surface)
    assert mappable is not None
    with pytest.raises(BadSurface, match="takes bytes 0 to 67108864, the region has 16777216"):
        map_region(mappable, surface.needed)


def test_a_surface_in_no_region_has_no_memory(opened: Opener) -> None:
    """A dma-buf's surface is not this backend's: None, not region 0."""
    surface = SurfaceInfo(fourcc=1, width=1, height=1, stride=4, size=4, dmabuf_id=1)
    assert chosen(opened(Mdpy())).query_region(surface) is None
