"""The dma-buf backend: GVT-g, and any driver that answers its probe."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

import mdevdisplay_intel_gvt as backend
from mdevdisplay._manager import Backend, load
from mdevdisplay.errors import GuestChangingMode, NotADisplay, NotMappable
from mdevdisplay.formats import X_TILED
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty, Nvidia, PreGfx, Scripted
from mdevdisplay.vfio import Device, uapi

QUERY = uapi.VFIO_DEVICE_QUERY_GFX_PLANE
PRIMARY, CURSOR, OVERLAY = PlaneType.PRIMARY, PlaneType.CURSOR, PlaneType.OVERLAY
Opener = Callable[..., Device]


def chosen(device: Source) -> Backend:
    return load().choose(device, "intel_gvt")


@pytest.mark.parametrize(
    ("driver", "answer"),
    [
        (Gvt, Match(50, "PROBE+DMABUF answered 0")),
        (Mbochs, Match(50, "PROBE+DMABUF answered 0")),
        (Mdpy, Refusal("PROBE+DMABUF answered EINVAL: not this kind")),
        (Nvidia, Refusal("PROBE+DMABUF answered EINVAL: not this kind")),
        (Mtty, Refusal("PROBE+DMABUF answered ENOTTY: it has no display")),
    ],
)
def test_the_probe_goes_by_the_drivers_answer(opened: Opener, driver: type[Driver], answer: Match | Refusal) -> None:
    """Whoever made the device: the dma-buf probe decides, at score 50."""
    assert backend.probe(opened(driver())) == answer


def test_a_driver_older_than_the_interface_is_refused(opened: Opener) -> None:
    """Kvmgt before Linux 4.16 says 0 to everything."""
    answer = backend.probe(opened(PreGfx()))
    assert isinstance(answer, Refusal)
    assert "older than the interface" in answer.reason


def test_another_kind_of_source_is_refused() -> None:
    """Not a VFIO device: nothing is asked."""
    with Source("rec:1") as source:
        assert backend.probe(source) == Refusal("not a VFIO device")


def test_gvt_is_read_by_it(opened: Opener) -> None:
    """It is the only one that matches."""
    device = opened(Gvt(), borrowed=True)
    found = load().choose(device)
    assert (found.name, found.match.score) == ("intel_gvt", 50)
    assert set(found.refusals) >= {"mbochs", "region_cap"}


def test_a_tiled_primary_plane(opened: Opener) -> None:
    """The normal case (gotcha 23): the same object as long as nothing changes, another one after."""
    driver = Gvt()
    reader = chosen(opened(driver))
    assert reader.get_surface_info(PRIMARY, 0) is None
    driver.show(1920, 1080, modifier=X_TILED)
    one, two = reader.get_surface_info(PRIMARY, 0), reader.get_surface_info(PRIMARY, 0)
    assert one is two
    assert one is not None
    assert (one.width, one.modifier, one.dmabuf_id) == (1920, X_TILED, 1)
    driver.show(1280, 720)
    assert reader.get_surface_info(PRIMARY, 0) is not one
    driver.blank()
    assert reader.get_surface_info(PRIMARY, 0) is None


@pytest.mark.parametrize(("plane", "output"), [(OVERLAY, 0), (PRIMARY, 1), (CURSOR, 7)])
def test_other_planes_and_outputs_do_not_exist(
    kernel: FakeKernel, opened: Opener, plane: PlaneType, output: int
) -> None:
    """None, and the driver is not asked: GVT-g would answer EINVAL, which means a mode change (gotcha 24)."""
    reader = chosen(opened(Gvt()))
    before = len(kernel.calls)
    assert reader.get_surface_info(plane, output) is None
    assert len(kernel.calls) == before


@pytest.mark.parametrize(
    ("hot", "expected"),
    [
        ((3, 4), (3, 4)),
        ((0, 0), (0, 0)),
        ((63, 63), (63, 63)),
        (None, (None, None)),
        ((64, 4), (None, None)),
        ((4, 64), (None, None)),
        ((0x7FFFFFFF, 0), (None, None)),
    ],
)
def test_a_hot_spot_outside_the_cursor_is_unknown(
    opened: Opener, hot: tuple[int, int] | None, expected: tuple[int | None, int | None]
) -> None:
    """The guest's driver writes it, or does not (gotcha 13)."""
    driver = Gvt()
    reader = chosen(opened(driver))
    driver.show_cursor(10, 20, hot=hot)
    cursor = reader.get_surface_info(CURSOR, 0)
    assert cursor is not None
    assert (cursor.x_hot, cursor.y_hot) == expected
    assert (cursor.x, cursor.y) == (10, 20)


@pytest.mark.parametrize("hot", [(3, 4), (64, 4)])
def test_a_cursor_that_does_not_change_is_the_same_object(opened: Opener, hot: tuple[int, int]) -> None:
    """Also one whose hot spot had to be corrected: a new object would look like a change in every frame."""
    driver = Gvt()
    reader = chosen(opened(driver))
    driver.show_cursor(10, 20, hot=hot)
    one, two = reader.get_surface_info(CURSOR, 0), reader.get_surface_info(CURSOR, 0)
    assert one is two
    driver.show_cursor(11, 20, hot=hot)
    three = reader.get_surface_info(CURSOR, 0)
    assert three is not None
    assert three.x == 11


def test_a_mode_change_is_waited_for_and_named_if_it_stays(opened: Opener) -> None:
    """EINVAL and EFAULT pass (gotcha 3); a framebuffer off its page stays undecodable."""
    driver = Gvt()
    reader = chosen(opened(driver))
    driver.show(640, 480)
    driver.answer_next(QUERY, -errno.EINVAL, -errno.EFAULT)
    assert reader.get_surface_info(PRIMARY, 0) is not None
    driver.show(640, 480, address=0x100010)
    with pytest.raises(GuestChangingMode):
        reader.get_surface_info(PRIMARY, 0)


def test_its_dmabuf_is_handed_on_and_not_mapped(kernel: FakeKernel, opened: Opener) -> None:
    """i915 refuses every CPU mapping with ENODEV (gotcha 6); the hint says what can be done."""
    driver = Gvt()
    device = opened(driver, borrowed=True)
    reader = chosen(device)
    driver.show(640, 480)
    driver.paint(b"\x55" * 16)
    surface = reader.get_surface_info(PRIMARY, 0)
    assert surface is not None
    assert reader.query_region(surface) is None
    buffer = reader.create_dmabuf(surface)
    assert buffer is not None
    with buffer, pytest.raises(NotMappable, match="ENODEV") as caught:
        buffer.map(hint=reader.map_hint)
    assert "same Intel GPU" in caught.value.hint
    assert kernel.violations == []


def test_a_driver_that_answers_to_nothing_is_nobodys(opened: Opener) -> None:
    """Every backend's reason is in the message."""
    with pytest.raises(NotADisplay, match="ENOTTY"):
        load().choose(opened(Scripted()))
