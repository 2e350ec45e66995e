"""mbochs' own backend: pixels from region 0, where its dma-bufs cannot be mapped."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdevdisplay_mbochs as backend
from mdevdisplay._manager import Backend, load
from mdevdisplay.errors import BadSurface, DriverError, GuestChangingMode, NotMappable, NotPermitted
from mdevdisplay.region import map_region
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy
from mdevdisplay.vfio import Device, uapi

PRIMARY = PlaneType.PRIMARY
Opener = Callable[..., Device]


def chosen(device: Source) -> Backend:
    return load().choose(device)


def shown(reader: Backend) -> SurfaceInfo:
    surface = reader.get_surface_info(PRIMARY, 0)
    assert surface is not None
    return surface


def test_it_wins_over_the_dmabuf_backend(opened: Opener) -> None:
    """A vendor's own backend: 100 before 50."""
    reader = chosen(opened(Mbochs()))
    assert (reader.name, reader.match) == ("mbochs", Match(100, "driver mbochs, PROBE+DMABUF answered 0"))
    assert reader.refusals["intel_gvt"] == "score 50: PROBE+DMABUF answered 0"


@pytest.mark.parametrize("driver", [Gvt, Mdpy])
def test_others_are_refused_without_a_question(kernel: FakeKernel, opened: Opener, driver: type[Driver]) -> None:
    """By their mdev type; nothing is asked of them."""
    device = opened(driver())
    assert backend.probe(device) == Refusal("not an mbochs device")
    with Source("rec:1") as source:
        assert backend.probe(source) == Refusal("not an mbochs device")
    assert kernel.calls == []


def test_a_driver_of_that_name_that_does_not_answer_is_refused(opened: Opener) -> None:
    """The name alone is not enough."""

    class Impostor(Mdpy):
        module, parent = "mbochs", "virtual/mbochs/mbochs"

        def __init__(self) -> None:
            super().__init__()
            self.mdev_type = "mbochs-small"

    assert backend.probe(opened(Impostor())) == Refusal("PROBE+DMABUF answered EINVAL: not this kind")


@pytest.mark.parametrize("borrowed", [False, True])
def test_pixels_start_where_the_registers_say(kernel: FakeKernel, opened: Opener, borrowed: bool) -> None:
    """Y_OFFSET rows and X_OFFSET pixels into region 0; reading the two registers is declared as harmless."""
    driver = Mbochs()
    device = opened(driver, borrowed=borrowed)
    reader = chosen(device)
    driver.set_mode(640, 480, x=16, y=100, virt_width=800)
    driver.paint(b"first pixel")
    surface = shown(reader)
    mappable = reader.query_region(surface)
    assert mappable is not None
    assert (mappable.offset, mappable.size, mappable.pixel_offset) == (3 * 4096, 4 << 20, 100 * 3200 + 16 * 4)
    with map_region(mappable, surface.needed) as region:
        start = mappable.pixel_offset
        assert bytes(region.data[start : start + 11]) == b"first pixel"
    reads = [(call.offset - 4096, call.size) for call in kernel.calls.of("pread")]
    assert reads == [(0x510, 2), (0x512, 2)] * 2
    assert kernel.violations == []


@pytest.mark.parametrize(("offset", "size"), [(0x500, 2), (0x50A, 2), (0x50E, 2), (0x50F, 1), (0x514, 1), (0x512, 4)])
def test_only_those_registers_are_declared(opened: Opener, offset: int, size: int) -> None:
    """On a borrowed device what lies beside the mode and the start stays out of reach."""
    device = opened(Mbochs(), borrowed=True)
    chosen(device)
    region = device.region(2)
    assert region is not None
    with pytest.raises(NotPermitted):
        device.pread(region, offset, size)


def test_a_flip_is_another_surface(opened: Opener) -> None:
    """Another start is another id: the reader sees the change, and flipping back gives the old numbers."""
    driver = Mbochs()
    reader = chosen(opened(driver))
    starts = []
    for y in (0, 480, 0):
        driver.set_mode(640, 480, y=y)
        surface = shown(reader)
        mappable = reader.query_region(surface)
        assert mappable is not None
        starts.append((surface.dmabuf_id, mappable.pixel_offset))
    assert starts == [(1, 0), (2, 480 * 2560), (1, 0)]


@pytest.mark.parametrize(("plane", "output"), [(PlaneType.CURSOR, 0), (PlaneType.OVERLAY, 0), (PRIMARY, 1)])
def test_it_has_one_plane_of_one_output(kernel: FakeKernel, opened: Opener, plane: PlaneType, output: int) -> None:
    """Others are None, without asking."""
    driver = Mbochs()
    reader = chosen(opened(driver))
    driver.set_mode(640, 480)
    before = len(kernel.calls)
    assert reader.get_surface_info(plane, output) is None
    assert len(kernel.calls) == before


def test_nothing_displayed_is_none(opened: Opener) -> None:
    """Before a mode is set, and after the screen went off."""
    driver = Mbochs()
    reader = chosen(opened(driver))
    assert reader.get_surface_info(PRIMARY, 0) is None
    driver.set_mode(640, 480)
    assert reader.get_surface_info(PRIMARY, 0) is not None
    driver.blank()
    assert reader.get_surface_info(PRIMARY, 0) is None


def test_its_dmabuf_is_handed_on_and_not_mapped(kernel: FakeKernel, opened: Opener) -> None:
    """EINVAL always, since the driver insists on VM_SHARED; the hint says where the pixels are."""
    driver = Mbochs()
    reader = chosen(opened(driver))
    driver.set_mode(640, 480)
    buffer = reader.create_dmabuf(shown(reader))
    assert buffer is not None
    with buffer, pytest.raises(NotMappable, match="EINVAL") as caught:
        buffer.map(hint=reader.map_hint)
    assert "region 0" in caught.value.hint
    assert len(kernel.calls.of("mmap")) == 1


def test_no_dmabuf_while_a_vm_uses_it(opened: Opener) -> None:
    """Gotcha 4; the pixels are still there."""
    driver = Mbochs()
    reader = chosen(opened(driver, borrowed=True))
    driver.set_mode(640, 480)
    surface = shown(reader)
    with pytest.raises(DriverError, match="not safe while a VM uses"):
        reader.create_dmabuf(surface)
    assert reader.query_region(surface) is not None


def test_a_device_without_its_registers_is_a_bad_surface(opened: Opener) -> None:
    """No region 2, no start of the picture."""

    class Headless(Mbochs):
        num_regions = 2

        def __init__(self) -> None:
            super().__init__()
            del self.own_regions[2]

    driver = Headless()
    reader = chosen(opened(driver))
    driver.set_mode(640, 480)
    with pytest.raises(BadSurface, match="no region 2"):
        reader.query_region(shown(reader))


@pytest.fixture
def running(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> tuple[Mbochs, Backend]:
    driver = Mbochs()
    reader = chosen(opened(driver))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return driver, reader


@given(x=st.integers(0, 0xFFFF), y=st.integers(0, 0xFFFF))
def test_registers_of_another_surface_are_never_believed(
    kernel: FakeKernel, running: tuple[Mbochs, Backend], x: int, y: int
) -> None:
    """The guest may write any offset between the query and the read: the start is this surface's or an error."""
    driver, reader = running
    driver.set_mode(640, 480)
    surface = shown(reader)
    driver.vbe.update(x=x, y=y)
    if x or y:
        with pytest.raises(GuestChangingMode, match="another framebuffer than XR24 640x480"):
            reader.query_region(surface)
    else:
        mappable = reader.query_region(surface)
        assert mappable is not None
        assert mappable.pixel_offset == 0
    assert kernel.violations == []


class Flipping(Mbochs):
    """A guest that moves its picture at chosen system calls: 640x480 at row 0 or, while ``away``, at row 480."""

    def __init__(self, flips: dict[int, bool]) -> None:
        super().__init__()
        self.flips = flips
        self.step = 0

    def show(self, away: bool) -> None:
        self.set_mode(640, 480, y=480 if away else 0)

    def _flip(self) -> None:
        if self.step in self.flips:
            self.show(self.flips[self.step])
        self.step += 1

    def query(self, plane: uapi.vfio_device_gfx_plane_info) -> None:
        self._flip()
        super().query(plane)

    def pread(self, size: int, offset: int) -> bytes:
        self._flip()
        return super().pread(size, offset)


def flipping(opened: Opener, flips: dict[int, bool]) -> tuple[Flipping, Backend, SurfaceInfo]:
    """A display whose surface is that at row 0; ``flips`` counts the calls from here on."""
    driver = Flipping({})
    reader = chosen(opened(driver))
    driver.show(away=True)
    shown(reader)
    driver.show(away=False)
    surface = shown(reader)
    driver.flips, driver.step = flips, 0
    return driver, reader, surface


@pytest.mark.parametrize(
    "flips",
    [
        {},
        {0: True, 2: False},  # while the registers are read first
        {1: True, 2: False},  # between X and Y
        {0: True, 3: False},  # during the query too
        {2: True, 3: False},  # during the query only
        {3: True, 5: False},  # while they are read again
        {0: True, 12: False},  # for some looks
    ],
)
def test_a_guest_that_flips_and_comes_back_is_waited_for(opened: Opener, flips: dict[int, bool]) -> None:
    """A, B, A around the read of the registers: B's start is never taken for A's."""
    _, reader, surface = flipping(opened, flips)
    mappable = reader.query_region(surface)
    assert mappable is not None
    assert mappable.pixel_offset == 0


@pytest.mark.parametrize("blank", [False, True])
def test_a_guest_that_stays_away_is_named(
    kernel: FakeKernel, opened: Opener, monkeypatch: pytest.MonkeyPatch, blank: bool
) -> None:
    """A bounded number of looks, some 80 ms; then an error, never the wrong start."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    driver, reader, surface = flipping(opened, {})
    if blank:
        driver.blank()
    else:
        driver.show(away=True)
    with pytest.raises(GuestChangingMode) as caught:
        reader.query_region(surface)
    assert caught.value.device == driver.name
    assert 0.05 < sum(slept) < 0.2
    assert len(kernel.calls.of("pread")) <= 4 * len(slept)


def test_registers_that_point_outside_are_refused_before_mapping(opened: Opener) -> None:
    """Whatever start a driver confirms, it is held against the region (gotcha 14)."""

    class Careless(Mbochs):
        def _mode(self) -> tuple[int, int, int, int] | None:
            return 640, 480, 2560, 0

    driver = Careless()
    reader = chosen(opened(driver))
    driver.set_mode(640, 480, y=0xFFFF)
    surface = shown(reader)
    mappable = reader.query_region(surface)
    assert mappable is not None
    with pytest.raises(BadSurface, match="the region has 4194304"):
        map_region(mappable, surface.needed)
