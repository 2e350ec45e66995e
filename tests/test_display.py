from __future__ import annotations

import errno
import fcntl
import gc
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np
import pytest
from gate import Gate
from pixels.holdings import eventually, holdings, nothing_new_since, shared_mappings
from pixels.vendor import installed

import mdevdisplay
from mdevdisplay import Blank, Display, Frame, FrameFlags, PlaneType
from mdevdisplay.errors import (
    BadSurface,
    Closed,
    DeviceGone,
    DeviceNotFound,
    DriverError,
    GuestChangingMode,
    LocatorError,
    NothingDisplayed,
    NotMappable,
    PluginError,
    TimedOut,
    UnknownBackend,
    UnsupportedFormat,
    UnsupportedModifier,
)
from mdevdisplay.formats import FORMATS, fourcc, modifier_name
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia
from mdevdisplay.vfio import uapi
from mdevdisplay_simulated import read_counter

CONVERTED = tuple(sorted(layout.code for layout in FORMATS.values() if layout.code != "C8"))
YUV = {"YUYV", "YVYU", "UYVY", "VYUY", "NV12", "P010"}
MODES = "modes=64x64/320x200/128x96/65x67,mode_every=1,step=2"
"""Another mode for every capture: two queries a frame, as many as a capture makes."""
SIZES = [(64, 64), (320, 200), (128, 96), (65, 67)]


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[ModuleType]:
    """A third party's backend, installed."""
    with installed(tmp_path) as module:
        yield module
        assert all(source.closed for source in module.opened)


# opening


def test_open_says_what_it_opened() -> None:
    """Locator, identity, backend and ownership are there at once."""
    with mdevdisplay.open("sim:64x64") as display:
        assert display.locator == "sim:64x64"
        assert display.identity.driver == "simulated"
        assert display.backend.name == "simulated"
        assert display.backend.match.score == 100
        assert set(display.backend.refusals) == {"intel_gvt", "mbochs", "region_cap"}
        assert (display.borrowed, display.closed) == (False, False)
        assert "sim:64x64" in repr(display)
        assert "simulated" in repr(display)
    assert display.closed
    assert "closed" in repr(display)


def test_a_backend_can_be_chosen() -> None:
    """backend= considers that one alone, and says so where it refuses or does not exist."""
    with mdevdisplay.open("sim:64x64", backend="simulated") as display:
        assert display.backend.refusals == {}
    before = holdings()
    with pytest.raises(UnknownBackend, match="no backend 'nobody'"):
        mdevdisplay.open("sim:64x64", backend="nobody")
    with pytest.raises(mdevdisplay.MdevDisplayError, match="not a VFIO device") as caught:
        mdevdisplay.open("sim:64x64", backend="region_cap")
    assert caught.value.cause == "not-a-display"
    assert nothing_new_since(before)


@pytest.mark.parametrize(
    ("locator", "kind"),
    [
        ("", LocatorError),
        ("nonsense", LocatorError),
        ("sim:nonsense", LocatorError),
        ("sim:64x64,colour=red", LocatorError),
        ("44cc0626-0000-4000-8000-000000000000", DeviceNotFound),
        ("0000:41:00.4", DeviceNotFound),
    ],
)
def test_what_cannot_be_opened_leaves_nothing(kernel: FakeKernel, locator: str, kind: type[Exception]) -> None:
    """An error names the locator and says what to do, and nothing stays open: no descriptor and no thread."""
    before = holdings()
    for timeout in (None, 10):
        with pytest.raises(kind) as caught:
            mdevdisplay.open(locator, timeout=timeout)
        assert isinstance(caught.value, mdevdisplay.MdevDisplayError)
        assert caught.value.device == locator
        assert caught.value.hint
    assert eventually(lambda: nothing_new_since(before))


@pytest.mark.parametrize("fault", ["enotty", "answers-all"])
def test_a_device_that_is_no_display_is_refused(fault: str) -> None:
    """A driver that answers no probe, or every question with 0, is not a display, and what opened it is closed."""
    before = holdings()
    with pytest.raises(mdevdisplay.MdevDisplayError) as caught:
        mdevdisplay.open(f"sim:64x64,fault={fault}")
    assert caught.value.cause == "not-a-display"
    assert nothing_new_since(before)


# capturing


def test_a_capture_is_what_the_guest_shows() -> None:
    """The picture is that frame's, whole, with when it was taken and its number."""
    with mdevdisplay.open("sim:320x200,frame=41,fps=0") as display:
        before = time.monotonic()
        frame = display.capture()
        after = time.monotonic()
    assert read_counter(frame.pixels) == 41
    assert frame.pixels.shape == (200, 320, 4)
    assert frame.pixels.dtype == np.uint8
    assert (frame.width, frame.height) == (320, 200)
    assert frame.serial == 1
    assert before <= frame.timestamp <= after
    assert frame.flags is FrameFlags.NONE
    assert frame.surface.fourcc == fourcc("XR24")


@pytest.mark.parametrize("way", ["region", "dmabuf", "both"])
@pytest.mark.parametrize("stride", [0, 1344])
def test_every_way_to_the_pixels_gives_the_same(way: str, stride: int) -> None:
    """Region or dma-buf, with padded rows or without: the picture is one."""
    with mdevdisplay.open("sim:320x200,fps=0,seed=7") as display:
        expected = display.capture().pixels
    padding = f",stride={stride}" if stride else ""
    with mdevdisplay.open(f"sim:320x200,fps=0,seed=7,via={way}{padding}") as display:
        np.testing.assert_array_equal(display.capture().pixels, expected)


def differences(frame: Frame, expected: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return how far every pixel is from what is expected, in its worst channel."""
    worst: np.ndarray[Any, Any] = np.abs(frame.pixels.astype(int) - expected.astype(int)).max(axis=2)
    return worst


@pytest.mark.parametrize("code", CONVERTED)
@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_every_converted_format_shows_the_same_picture(code: str, way: str) -> None:
    """Whatever the guest's format, pixels are the same B, G, R, A; RGB565 within what 5 and 6 bits can say.

    YUV is within rounding, but at the edges of colours, whose neighbours share their chroma.
    """
    with mdevdisplay.open("sim:130x70,fps=0,frame=5") as display:
        expected = display.capture().pixels
    with mdevdisplay.open(f"sim:130x70,fps=0,frame=5,format={code},via={way}") as display:
        frame = display.capture()
        assert display.readability().reason == ""
    off = differences(frame, expected)
    if code in YUV:
        assert np.mean(off <= 4) > 0.95
        assert off.max() < 64
    else:
        assert off.max() <= (4 if code == "RG16" else 0)
    assert read_counter(frame.pixels) == 5
    assert frame.to_ndarray("rgb24").tobytes() == frame.pixels[..., 2::-1].tobytes()


@pytest.mark.parametrize("code", sorted(entry.code for entry in FORMATS.values()))
def test_raw_is_the_guests_own_layout(code: str) -> None:
    """Every format that we know is captured with the shape it promises; a palette's numbers are refused by name."""
    layout = FORMATS[fourcc(code)]
    with mdevdisplay.open(f"sim:66x34,fps=0,format={code}") as display:
        frame = display.capture()
        readable = display.readability()
        with display.map() as view:
            np.testing.assert_array_equal(view, frame.raw)
    assert frame.raw.shape == layout.raw_shape(66, 34)
    assert frame.raw.dtype == np.dtype("<" + layout.dtype)
    assert frame.raw.flags.c_contiguous
    assert not frame.raw.flags.writeable
    if code not in CONVERTED:
        with pytest.raises(UnsupportedFormat, match=f"{code} .{layout.name}.") as caught:
            frame.to_png()
        assert caught.value.device == display.locator
        assert readable.way == ""
        assert code in readable.reason


@pytest.mark.parametrize("name", ["X_TILED", "Y_TILED", "Yf_TILED"])
@pytest.mark.parametrize("code", ["XR24", "RG16", "XB30", "UYVY"])
def test_a_tiled_surface_shows_the_same_picture(name: str, code: str) -> None:
    """Raw has its bytes as they lie in memory, pixels are those of the linear picture."""
    with mdevdisplay.open(f"sim:130x70,fps=0,frame=5,format={code}") as display:
        expected = display.capture().pixels
    with mdevdisplay.open(f"sim:130x70,fps=0,frame=5,format={code},modifier={name}") as display:
        frame = display.capture()
        with display.map() as view:
            np.testing.assert_array_equal(view[: frame.raw.size], frame.raw)
        assert display.readability().way == "region"
    assert frame.raw.shape == (frame.surface.size,)
    assert not frame.raw.flags.writeable
    np.testing.assert_array_equal(frame.pixels, expected)


# compressed, of no vendor, and one that does not say where its chroma is
@pytest.mark.parametrize(
    ("name", "code"), [("0x0100000000000004", "XR24"), ("0x00ffffffffffffff", "XR24"), ("Y_TILED", "NV12")]
)
def test_a_layout_that_is_not_known_is_captured_and_not_misread(name: str, code: str) -> None:
    """Its bytes come as they lie in memory; pixels are refused by the modifier's name, never shown as garbage."""
    with mdevdisplay.open(f"sim:128x64,fps=0,modifier={name},format={code}") as display:
        frame = display.capture()
        readable = display.readability()
    assert frame.raw.shape == (frame.surface.size,)
    with pytest.raises(UnsupportedModifier, match=modifier_name(frame.surface.modifier)):
        _ = frame.pixels
    assert readable.way == ""
    assert modifier_name(frame.surface.modifier) in readable.reason


def test_unknown_formats_and_modifiers_are_captured_raw() -> None:
    """What nobody knows is still bytes that somebody may know better."""
    for fault in ("unknown-fourcc", "unknown-modifier"):
        with mdevdisplay.open(f"sim:64x64,fps=0,fault={fault}") as display:
            frame = display.capture()
        assert frame.raw.shape == (frame.surface.size,)
        with pytest.raises((UnsupportedFormat, UnsupportedModifier)):
            _ = frame.pixels


def test_serials_count_what_a_plane_shows() -> None:
    """Each plane counts its own pictures, and equal ones have equal serials, however often they are captured."""
    with mdevdisplay.open("sim:64x64,cursor=on,step=4") as display:
        serials = [display.capture().serial for _ in range(8)]
        assert serials == [1, 1, 2, 2, 3, 3, 4, 4]
        # the cursor has moved between the first two, with the screen's fourth picture
        serials = [display.capture(PlaneType.CURSOR).serial for _ in range(4)]
        assert serials == [1, 1, 1, 1]
        assert display.capture().serial == 5


def test_a_cursor_that_moved_is_another_picture() -> None:
    """Its place belongs to what is shown, so its serial counts on; its pixels are the same."""
    with mdevdisplay.open("sim:640x480,cursor=on,step=2") as display:
        first = display.capture(PlaneType.CURSOR)
        display.capture()
        second = display.capture(PlaneType.CURSOR)
    assert (first.surface.x, first.surface.y) != (second.surface.x, second.surface.y)
    assert (first.serial, second.serial) == (1, 2)
    assert first.raw.tobytes() == second.raw.tobytes()


def test_the_cursor_is_a_plane_of_its_own() -> None:
    """A cursor comes with alpha, place and hot spot; without one there is nothing."""
    with mdevdisplay.open("sim:320x200,cursor=on") as display:
        frame = display.capture(PlaneType.CURSOR)
        assert frame.surface.plane is PlaneType.CURSOR
        assert frame.surface.x_hot is not None
        assert frame.to_image().mode == "RGBA"
        assert set(np.unique(frame.pixels[..., 3])) > {0}
    with mdevdisplay.open("sim:320x200") as display:
        assert display.surface(PlaneType.CURSOR) is None
        with pytest.raises(NothingDisplayed, match="cursor"):
            display.capture(PlaneType.CURSOR)
        with pytest.raises(NothingDisplayed, match="overlay"):
            display.capture(PlaneType.OVERLAY)


def test_another_output_shows_nothing() -> None:
    """A head that the device does not have is no error, it is dark."""
    with mdevdisplay.open("sim:64x64", output=1) as display:
        assert display.surface() is None


def test_the_surface_is_the_same_object_while_nothing_changes() -> None:
    """`is` is enough to see that a mode did not change, though the picture does."""
    with mdevdisplay.open("sim:64x64,step=1") as display:
        assert display.surface() is display.surface()
    with mdevdisplay.open("sim:modes=64x64/128x96,mode_every=1,step=1") as display:
        first, second = display.surface(), display.surface()
        assert first is not None
        assert second is not None
        assert (first.width, second.width) == (64, 128)


# nothing displayed


def test_nothing_displayed_is_a_value_of_surface_and_an_error_of_capture() -> None:
    """A dark screen is normal: None where one looks, and a clear error where one asked for a picture."""
    with mdevdisplay.open("sim:64x64,blank=on") as display:
        assert display.surface() is None
        for call in (display.capture, display.dmabuf, display.readability):
            with pytest.raises(NothingDisplayed, match="primary plane shows nothing") as caught:
                call()
            assert caught.value.cause == "nothing-displayed"
            assert caught.value.device == display.locator
            assert "wait" in caught.value.hint
        with pytest.raises(NothingDisplayed), display.map():
            pass


@pytest.mark.parametrize("fault", ["zero-format", "zero-width", "zero-height", "zero-size"])
def test_any_zero_means_nothing(fault: str) -> None:
    """Drivers say in four ways that nothing is displayed."""
    with mdevdisplay.open(f"sim:64x64,fault={fault}") as display:
        assert display.surface() is None


def test_capture_waits_for_a_picture() -> None:
    """wait= looks again until the guest shows something, here after five queries."""
    with mdevdisplay.open("sim:64x64,blank=0-4,step=1") as display:
        with pytest.raises(NothingDisplayed):
            display.capture()
        frame = display.capture(wait=60)
    assert read_counter(frame.pixels) >= 5
    assert not frame.flags


def test_waiting_ends() -> None:
    """After wait= seconds without a picture the answer is that nothing is displayed, and not before."""
    with mdevdisplay.open("sim:64x64,blank=on") as display:
        before = time.monotonic()
        with pytest.raises(NothingDisplayed):
            display.capture(wait=0.3)
        assert time.monotonic() - before >= 0.3


def test_waiting_is_for_a_picture_only() -> None:
    """Any other error comes at once, however long one would wait for a picture."""
    with mdevdisplay.open("sim:64x64,fault=eio") as display, pytest.raises(DriverError):
        display.capture(wait=3600)


def test_waiting_ends_with_the_display() -> None:
    """Whoever waits for a picture of a display that is closed meanwhile gets told."""
    display = mdevdisplay.open("sim:64x64,blank=on")
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            display.capture(wait=3600)
        except mdevdisplay.MdevDisplayError as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.05)
    display.close()
    thread.join(30)
    assert isinstance(errors[0], Closed)


# what drivers and guests do wrong


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("eio", DriverError),
        ("etimedout", TimedOut),
        ("gone:1", DeviceGone),
        ("einval-forever", GuestChangingMode),
        ("short-size", BadSurface),
        ("short-stride", BadSurface),
        ("huge", BadSurface),
        ("huge-stride", BadSurface),
        ("small-buffer", BadSurface),
        ("region-refused,via=region", NotMappable),
        ("dmabuf-enodev,via=dmabuf", NotMappable),
        ("get-einval,via=dmabuf", DriverError),
    ],
)
def test_faults_are_named_and_the_display_stays_usable(fault: str, kind: type[mdevdisplay.MdevDisplayError]) -> None:
    """Every fault of a driver is an error of its kind that names the device; nothing is left behind."""
    before = holdings()
    locator = f"sim:64x64,fault={fault}"
    with mdevdisplay.open(locator) as display:
        for _ in range(3):
            with pytest.raises(kind) as caught:
                display.capture()
            assert caught.value.device == locator
    assert nothing_new_since(before)


@pytest.mark.parametrize("fault", ["enomem-once", "einval:3", "efault:3", "size-pow2", "get-once", "recycled-ids"])
def test_faults_that_drivers_recover_from_are_not_seen(fault: str) -> None:
    """What a driver does wrong for a moment is borne: the next frames are right, over changes of mode."""
    with mdevdisplay.open(f"sim:{MODES},fault={fault},via=dmabuf,buffers=2") as display:
        for number in range(12):
            frame = display.capture()
            assert read_counter(frame.pixels) >= number
            assert (frame.width, frame.height) in SIZES


def test_a_torn_frame_says_so() -> None:
    """A plane that changes during every copy gives a frame all the same, flagged."""
    with mdevdisplay.open("sim:64x64,fault=torn") as display:
        assert display.capture().flags is FrameFlags.TORN


def test_a_copy_that_a_mode_change_met_is_made_anew() -> None:
    """One change during a copy is no tear: the second copy is whole, and of the new mode."""
    # the mode changes with the third query: after the first capture's first copy of frame 1
    with mdevdisplay.open("sim:modes=64x64/128x96,mode_every=1,step=3") as display:
        assert display.capture().width == 64
        frame = display.capture()
    assert frame.flags is FrameFlags.NONE
    assert frame.width == 128
    assert read_counter(frame.pixels) == 1


def test_a_plane_that_went_dark_during_the_copy_is_flagged() -> None:
    """The picture was there and nobody can say that it was whole."""
    with mdevdisplay.open("sim:64x64,blank=1-9,step=1") as display:
        frame = display.capture()
    assert frame.flags is FrameFlags.TORN
    assert frame.width == 64


# changes of mode


def test_captures_follow_the_mode() -> None:
    """Every capture has the size of that moment and the whole picture of it."""
    with mdevdisplay.open(f"sim:{MODES}") as display:
        for number in range(20):
            frame = display.capture()
            assert (frame.width, frame.height) == SIZES[number % 4]
            assert read_counter(frame.pixels) == number
            assert not frame.flags


@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_frames_stay_as_they_were(way: str) -> None:
    """Kept frames outlive changes of mode, hundreds of other captures, and the display itself."""
    with mdevdisplay.open(f"sim:{MODES},via={way}") as display:
        kept: list[tuple[Frame, bytes]] = []
        for number in range(60):
            frame = display.capture()
            if number % 3 == 0:
                kept.append((frame, frame.raw.tobytes()))
    gc.collect()
    for number, (frame, expected) in enumerate(kept):
        assert frame.raw.tobytes() == expected
        assert read_counter(frame.pixels) == 3 * number


def test_a_frame_is_ours() -> None:
    """A frame may be drawn on; neither the device nor another frame sees it."""
    with mdevdisplay.open("sim:64x64,fps=0,format=AR24") as display:
        first = display.capture()
        expected = first.pixels.copy()
        first.pixels[:] = 0
        np.testing.assert_array_equal(display.capture().pixels, expected)


def test_buffers_are_used_again() -> None:
    """A loop that drops its frames copies into the same memory again and again."""
    with mdevdisplay.open("sim:320x200") as display:
        places = set()
        for _ in range(10):
            frame = display.capture()
            places.add(frame.raw.__array_interface__["data"][0])
            del frame
    assert len(places) == 1


# mapping


@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_a_mapping_is_the_memory_itself(way: str) -> None:
    """map() copies nothing: the array lies in a mapping of the device, read-only, and follows the guest."""
    with mdevdisplay.open(f"sim:320x200,step=1,via={way}") as display, display.map() as view:
        where = view.__array_interface__["data"][0]
        lines = [line.split() for line in shared_mappings("mdevdisplay-simulated")]
        ranges = [[int(part, 16) for part in line[0].split("-")] for line in lines if line[1] == "r--s"]
        assert any(start <= where < end for start, end in ranges)
        assert not view.flags.writeable
        assert view.shape == (200, 320, 4)
        before = read_counter(view)
        display.surface()
        display.surface()
        assert read_counter(view) > before


@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_a_mapping_that_is_kept_turns_to_zeros(way: str) -> None:
    """Whoever keeps the array over close() reads zeros, and does not keep the device."""
    before = holdings()
    with mdevdisplay.open(f"sim:320x200,fps=0,via={way}") as display, display.map() as view:
        assert view.any()
    assert not view.any()
    assert view.shape == (200, 320, 4)
    assert nothing_new_since(before)


def test_a_mapping_outlives_a_close_inside_its_block() -> None:
    """close() inside the block, also from another thread, leaves zeros and no error."""
    display = mdevdisplay.open("sim:320x200,fps=0,via=dmabuf")
    with display.map() as view:
        display.close()
        assert not view.any()


def test_a_mapping_stays_while_other_planes_are_captured() -> None:
    """The memory is valid inside the block, whatever else the display is asked meanwhile."""
    with mdevdisplay.open("sim:320x200,fps=0,cursor=on,via=region") as display, display.map() as view:
        expected = view.copy()
        display.capture(PlaneType.CURSOR)
        np.testing.assert_array_equal(view, expected)


def test_a_mapping_stays_while_the_guest_changes_its_mode() -> None:
    """A capture of the next mode does not take the memory away from whoever looks at it."""
    locator = "sim:modes=64x64/320x200,mode_every=1,step=1,buffers=2,via=region"
    with mdevdisplay.open(locator) as display, display.map() as view:
        assert view.any()
        for _ in range(4):
            display.capture()
        assert view.any()


# dma-bufs


def test_a_dmabuf_is_the_callers() -> None:
    """It names its planes and stays open when the display is closed."""
    with mdevdisplay.open("sim:64x64,fps=0,format=AR24,stride=512") as display:
        buffer = display.dmabuf()
        frame = display.capture()
        assert buffer.surface == display.surface()
        again = display.dmabuf()
        assert again.key == buffer.key
        assert again.fileno() != buffer.fileno()
        again.close()
    with buffer:
        [plane] = buffer.planes
        assert (plane.fd, plane.offset, plane.stride) == (buffer.fileno(), 0, 512)
        assert (buffer.fourcc, buffer.modifier) == (fourcc("AR24"), 0)
        assert fcntl.fcntl(buffer.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with buffer.map() as region:
            buffer.begin_read()
            np.testing.assert_array_equal(region.data[: 64 * 512].reshape(64, 128, 4)[:, :64], frame.raw)
            buffer.end_read()
    with pytest.raises(Closed):
        buffer.fileno()


def test_a_device_without_dmabufs_says_so() -> None:
    """A region device has none to give; the error says how its pixels can be had."""
    with mdevdisplay.open("sim:64x64,via=region") as display, pytest.raises(UnsupportedFormat) as caught:
        display.dmabuf()
    assert caught.value.cause == "no-dmabuf"
    assert "capture()" in caught.value.hint


def test_readability_says_how_or_why_not() -> None:
    """One word for the way, or the reason with what to do."""
    for way, name in (("region", "region"), ("dmabuf", "dma-buf"), ("both", "region")):
        with mdevdisplay.open(f"sim:64x64,via={way}") as display:
            assert display.readability().way == name
            assert display.readability().reason == ""
    with mdevdisplay.open("sim:64x64,via=dmabuf,fault=dmabuf-enodev") as display:
        readable = display.readability()
        assert readable.way == ""
        assert "ENODEV" in readable.reason


def test_findings_come_from_the_backend() -> None:
    """What the backend itself knows about the device's state."""
    with mdevdisplay.open("sim:64x64,fault=torn") as display:
        assert [finding.cause for finding in display.findings()] == ["simulated-torn"]


# after the end


def test_a_closed_display_says_so() -> None:
    """Everything but close() raises Closed, and close() may be called again."""
    display = mdevdisplay.open("sim:64x64")
    stream = display.frames()
    display.close()
    display.close()
    calls: list[Callable[[], object]] = [
        display.surface,
        display.capture,
        partial(display.surface, timeout=10),
        partial(display.capture, timeout=10),
        display.dmabuf,
        display.edid,
        display.readability,
        display.findings,
        display.map().__enter__,
        display.frames,
    ]
    for call in calls:
        with pytest.raises(Closed, match="closed before"):
            call()
    assert list(stream) == []


def test_a_forgotten_display_warns_and_is_closed() -> None:
    """A display that nobody closed is a ResourceWarning that names it, and it holds nothing any more."""
    before = holdings()
    display = mdevdisplay.open("sim:64x64,seed=99", timeout=10)
    display.capture()
    with pytest.warns(ResourceWarning, match="sim:64x64,seed=99: a display was not closed"):
        del display
        gc.collect()
    assert eventually(lambda: nothing_new_since(before))


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_nothing_leaks(way: str, timeout: float | None) -> None:
    """Descriptors, mappings and threads are the same after 300 captures over changes of mode as before."""
    before = holdings()
    with mdevdisplay.open(f"sim:{MODES},buffers=3,cursor=on,via={way}", timeout=timeout) as display:
        display.capture()
        for _ in range(100):
            display.capture()
        during = holdings()
        for number in range(200):
            display.capture()
            if number % 10 == 0:
                display.capture(PlaneType.CURSOR)
                with display.map():
                    pass
                if way == "dmabuf":
                    display.dmabuf().close()
        after = holdings()
        assert len(after.mappings) <= len(during.mappings) + 2
        assert len(after.descriptors) <= len(during.descriptors) + 12
    assert eventually(lambda: nothing_new_since(before))


def test_displays_come_and_go_without_a_trace() -> None:
    """Fifty displays, opened, read and closed, leave nothing."""
    before = holdings()
    for number in range(50):
        with mdevdisplay.open("sim:64x64", timeout=30 if number % 2 else None) as display:
            display.capture()
    assert eventually(lambda: nothing_new_since(before))


# threads


@pytest.mark.parametrize("timeout", [None, 60])
def test_threads_may_share_a_display(timeout: float | None) -> None:
    """Eight threads capture at once: every frame is whole and has a number of its own."""
    before = holdings()
    frames: list[Frame] = []
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def capture() -> None:
        try:
            start.wait(30)
            for _ in range(25):
                frames.append(display.capture())  # noqa: PERF401 - each at once, an error comes in between
        except BaseException as error:
            errors.append(error)

    with mdevdisplay.open(f"sim:{MODES}", timeout=timeout) as display:
        threads = [threading.Thread(target=capture, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert sorted(frame.serial for frame in frames) == list(range(1, 201)), "each look meets another picture"
    for frame in frames:
        assert read_counter(frame.pixels) == frame.serial - 1
    assert eventually(lambda: nothing_new_since(before))


def test_closing_under_captures_ends_them_with_closed() -> None:
    """close() from another thread never makes a running capture crash, return rubbish or wait for its deadline."""

    def capture(display: Display, errors: list[BaseException]) -> None:
        try:
            while True:
                read_counter(display.capture().pixels)
        except BaseException as error:
            errors.append(error)

    for _ in range(20):
        display = mdevdisplay.open("sim:64x64", timeout=60)
        errors: list[BaseException] = []
        threads = [threading.Thread(target=capture, args=(display, errors), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        display.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert [type(error) for error in errors] == [Closed] * 4


@pytest.mark.parametrize("timeout", [None, 60])
def test_close_may_be_called_by_several_threads(timeout: float | None) -> None:
    """Whoever comes second has nothing to do, and gets no error."""
    before = holdings()
    errors: list[BaseException] = []

    def close(display: Display, start: threading.Barrier) -> None:
        try:
            start.wait(30)
            display.close()
        except BaseException as error:
            errors.append(error)

    for _ in range(50):
        display = mdevdisplay.open("sim:64x64", timeout=timeout)
        start = threading.Barrier(4)
        threads = [threading.Thread(target=close, args=(display, start), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert errors == []
    assert eventually(lambda: nothing_new_since(before))


class Interruption(BaseException):
    """What a signal handler raises, as Python's own does with KeyboardInterrupt."""


def test_an_interruption_leaves_the_display_usable() -> None:
    """Ctrl-C at any moment of a polling loop: the next call works, and close() comes back."""
    armed = [False]

    def interrupt(*_: object) -> None:
        if armed[0]:
            armed[0] = False
            raise Interruption

    def poll(display: Display) -> None:
        armed[0] = True
        with suppress(Interruption):
            for _ in range(100_000):
                display.surface()
        armed[0] = False

    old = signal.signal(signal.SIGVTALRM, interrupt)
    display = mdevdisplay.open("sim:64x64,fps=0")
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
        for _ in range(200):
            poll(display)
            assert display.surface(timeout=1) is not None
        display.close(timeout=1)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)
        with suppress(TimedOut):
            display.close(timeout=0.1)


def test_nobody_starves() -> None:
    """A thread that asks now and then gets its turn although another asks without a pause."""
    done = threading.Event()
    with mdevdisplay.open("sim:640x480,fps=0") as display:

        def hog() -> None:
            while not done.is_set():
                display.capture()

        threads = [threading.Thread(target=hog) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                assert display.surface(timeout=5) is not None
                assert display.surface() is not None
        finally:
            done.set()
            for thread in threads:
                thread.join(30)


def test_a_display_forgotten_in_a_late_call_closes_behind_it(kernel: FakeKernel, gate: Gate) -> None:
    """Whoever gave up waiting and dropped the display does not pull the descriptor away under the driver's call."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    display = mdevdisplay.open(device.name, timeout=60)
    device.stall = gate
    with pytest.raises(TimedOut):
        display.capture(timeout=0.05)
    with pytest.warns(ResourceWarning, match="not closed"):
        del display
        gc.collect()
    assert kernel.descriptors_of(device), "the driver is still in its call"
    gate.open()
    assert eventually(lambda: not kernel.leaks())


def test_a_mapping_stays_while_the_guest_flips_on() -> None:
    """Inside the block the buffer stays mapped, however many others are captured meanwhile; afterwards it may go."""
    before = holdings()
    with mdevdisplay.open("sim:64x64,via=dmabuf,buffers=16,step=2") as display:
        with display.map() as view:
            shown = view.copy()
            for _ in range(40):
                display.capture()
            assert view.any()
            assert view.shape == shown.shape
        for _ in range(40):
            display.capture()
        assert not view.any()
    assert eventually(lambda: nothing_new_since(before))


def test_waiting_bears_a_mode_change() -> None:
    """A plane that cannot be decoded yet is waited for like one that shows nothing."""
    with mdevdisplay.open("sim:64x64,fault=einval:15") as display:
        with pytest.raises(GuestChangingMode):
            display.capture()
        assert display.capture(wait=30).width == 64


def test_a_cursor_that_moves_is_not_torn() -> None:
    """Only its place changes between the two queries; its pixels are the same."""
    with mdevdisplay.open("sim:640x480,cursor=on,step=1") as display:
        for _ in range(5):
            display.surface()
            assert display.capture(PlaneType.CURSOR).flags is FrameFlags.NONE


def test_an_equal_surface_is_not_torn(acme: ModuleType) -> None:
    """A backend that makes its answer anew each time is read as well as one that keeps it."""
    with mdevdisplay.open("acme:XR24") as display:
        acme.behaviour["get_surface_info"] = lambda source, *_: attrs.evolve(source.surface)
        assert display.capture().flags is FrameFlags.NONE


def test_a_frame_keeps_no_device(acme: ModuleType) -> None:
    """A kept frame of a vendor's own format was decoded when it was taken; it holds neither backend nor source."""
    with mdevdisplay.open("acme:") as display:
        frame = display.capture()
        source = weakref.ref(display.source)
    acme.opened.clear()
    acme.behaviour["decode"] = AssertionError("too late")
    del display
    gc.collect()
    assert source() is None
    assert frame.pixels.shape == (8, 16, 4)


# deadlines


def test_a_call_comes_back_in_time(kernel: FakeKernel, gate: Gate) -> None:
    """A driver that hangs costs the caller its timeout and no more; the device works again once it answers."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    with mdevdisplay.open(device.name, timeout=60) as display:
        assert display.capture().width == 64
        device.stall = gate
        with pytest.raises(TimedOut, match=r"not answered within 0.05 s") as caught:
            display.capture(timeout=0.05)
        assert gate.waiting == 1  # still in there
        assert caught.value.device == device.name
        assert caught.value.cause == "timed-out"
        assert isinstance(caught.value, TimeoutError)
        gate.open()
        assert display.capture().serial == 1
        device.paint(bytes([3]) * 64 * 64 * 4)
        assert display.capture().serial == 2


def test_no_second_query_is_begun_while_one_hangs(kernel: FakeKernel, gate: Gate) -> None:
    """Calls that could not start in time never do: the driver is asked once, however often the caller tries."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    with mdevdisplay.open(device.name, timeout=0.02) as display:
        device.stall = gate
        for _ in range(10):
            with pytest.raises(TimedOut):
                display.surface()
        assert gate.waiting == 1
        gate.open()
        assert eventually(lambda: len(kernel.calls.requests()) and display.surface(timeout=60) is not None)
        assert gate.waiting == 2


def test_every_call_has_a_deadline(kernel: FakeKernel, gate: Gate) -> None:
    """Whatever asks the driver is bounded, by the display's timeout or its own."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    with mdevdisplay.open(device.name) as display:
        device.stall = gate
        calls: list[Callable[..., object]] = [
            display.capture,
            display.surface,
            display.dmabuf,
            display.readability,
            display.findings,
            display.edid,
        ]
        for call in calls:
            with pytest.raises(TimedOut):
                call(timeout=0.05)
        with pytest.raises(TimedOut), display.map(timeout=0.05):
            pass
        with pytest.raises(TimedOut):
            next(display.frames(timeout=0.05))
        gate.open()


def test_opening_has_a_deadline(kernel: FakeKernel, gate: Gate) -> None:
    """A driver that hangs in the probe does not hold open() back, and what it opens late is closed."""
    device = kernel.add(Nvidia())
    device.stall = gate
    with pytest.raises(TimedOut) as caught:
        mdevdisplay.open(device.name, timeout=0.05)
    assert caught.value.device == device.name
    gate.open()
    assert eventually(lambda: not kernel.leaks())


def test_a_late_dmabuf_is_closed(kernel: FakeKernel, gate: Gate) -> None:
    """A descriptor that comes after the deadline belongs to nobody and is closed."""
    device = kernel.add(Gvt(needs_vm=False))
    device.show(64, 64)
    with mdevdisplay.open(device.name) as display:
        device.stall = lambda request: gate() if request == uapi.VFIO_DEVICE_GET_GFX_DMABUF else None
        with pytest.raises(TimedOut):
            display.dmabuf(timeout=0.05)
        gate.open()
        display.surface(timeout=60)  # behind it
    assert eventually(lambda: not kernel.leaks())


def test_close_comes_back_in_time_and_closes_in_the_end(kernel: FakeKernel, gate: Gate) -> None:
    """close() of a display that hangs says so; the device is let go as soon as the driver answers."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    display = mdevdisplay.open(device.name, timeout=0.05)
    device.stall = gate
    with pytest.raises(TimedOut):
        display.capture()
    with pytest.raises(TimedOut):
        display.close()
    assert display.closed
    display.close()
    with pytest.raises(Closed):
        display.capture()
    assert kernel.leaks()
    gate.open()
    assert eventually(lambda: not kernel.leaks())


def test_the_error_of_the_block_comes_before_that_of_close(kernel: FakeKernel, gate: Gate) -> None:
    """Leaving a with block because of an error shows that error, also where closing hangs."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    def use(error: Exception | None) -> None:
        with mdevdisplay.open(device.name, timeout=0.05) as display:
            device.stall = gate
            with pytest.raises(TimedOut):
                display.capture()
            if error is not None:
                raise error

    with pytest.raises(KeyError):
        use(KeyError())
    device.stall = None
    gate.open()
    assert eventually(lambda: not kernel.leaks())
    gate.shut()
    with pytest.raises(TimedOut):
        use(None)
    gate.open()
    assert eventually(lambda: not kernel.leaks())


def test_a_hung_display_can_be_left(kernel: FakeKernel, gate: Gate) -> None:
    """Another display works while a driver hangs."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    hung = mdevdisplay.open(device.name, timeout=0.05)
    device.stall = gate
    with pytest.raises(TimedOut), hung:
        hung.capture()
    with mdevdisplay.open("sim:64x64", timeout=60) as display:
        assert display.capture()
    gate.open()
    assert eventually(lambda: not kernel.leaks())


def test_timeouts_of_the_driver_itself_come_through() -> None:
    """ETIMEDOUT from the driver is its own error, not that of the deadline."""
    with (
        mdevdisplay.open("sim:64x64,fault=etimedout", timeout=60) as display,
        pytest.raises(TimedOut, match="ETIMEDOUT") as caught,
    ):
        display.capture()
    assert caught.value.errno == errno.ETIMEDOUT


# real drivers' ways, by the fake kernel


def test_a_region_device_is_read(kernel: FakeKernel) -> None:
    """mdpy: a constant mode in a region that its own count does not have."""
    device = kernel.add(Mdpy("vga"))
    device.paint(bytes([1, 2, 3, 0]) * 640 * 480)
    with mdevdisplay.open(device.name) as display:
        frame = display.capture()
        assert display.surface(PlaneType.CURSOR) is None
        assert display.edid() is None
    assert (frame.pixels == [1, 2, 3, 255]).all()


def test_a_console_that_only_one_may_map(kernel: FakeKernel) -> None:
    """NVIDIA: the old mapping goes before the new one is made, over every change of size."""
    device = kernel.add(Nvidia())
    with mdevdisplay.open(device.name) as display:
        assert display.surface() is None
        for width in (64, 640, 320, 1024):
            device.show(width, 48)
            device.paint(bytes([width % 251]) * device.size)
            frame = display.capture()
            assert frame.width == width
            assert (frame.raw == width % 251).all()
            assert kernel.mappings_of(device) == 1


def test_a_console_that_moved_to_another_region(kernel: FakeKernel) -> None:
    """A driver that allows one mapping refuses the second; the first is let go and the new one made."""
    device = kernel.add(Nvidia())
    device.show(64, 48)
    with mdevdisplay.open(device.name) as display:
        display.capture()
        region = device.own_regions[device.console_region]
        device.console_region = 10
        device.own_regions[10] = attrs.evolve(region, offset=10 << 40)
        device.kernel.real.pwrite(device._memory, b"\x05" * device.size, 10 << 40)
        assert (display.capture().raw == 5).all()
        assert kernel.mappings_of(device) == 1


def test_a_buffer_that_nobody_here_can_read(kernel: FakeKernel) -> None:
    """GVT-g without its GPU: the dma-buf can be had, its pixels not, and the reason says why neither way works."""
    device = kernel.add(Gvt(needs_vm=False))
    device.show(128, 64)
    with mdevdisplay.open(device.name) as display:
        with display.dmabuf() as buffer:
            assert buffer.surface.width == 128
        with pytest.raises(NotMappable, match=r"exported by i915 failed: ENODEV.*nor can a GPU read it") as caught:
            display.capture()
        assert caught.value.cause == "no-render-node"
        assert caught.value.errno == errno.ENODEV
        assert "dma-buf" in caught.value.hint
        readable = display.readability()
        assert readable.way == ""
        assert "i915" in readable.reason
        assert readable.cause == "no-render-node"
        with pytest.raises(NotMappable), display.map():
            pass


def test_mbochs_is_read_from_its_memory(kernel: FakeKernel) -> None:
    """mbochs: dma-bufs that nobody can map, an EDID, and pixels that start where the VBE registers say."""
    device = kernel.add(Mbochs())
    blob = bytes.fromhex("00ffffffffffff00") + bytes(120)
    device.set_edid(blob[:-1] + bytes([-sum(blob) % 256]))
    with mdevdisplay.open(device.name) as display:
        assert display.surface() is None
        device.set_mode(64, 64, y=16)
        device.paint(bytes([9, 8, 7, 0]) * 64 * 64)
        assert (display.capture().pixels == [9, 8, 7, 255]).all()
        edid = display.edid()
        assert edid is not None
        assert edid.valid
        display.dmabuf().close()
        display.dmabuf().close()


def test_a_device_that_vanishes_is_gone(kernel: FakeKernel) -> None:
    """Once the device is removed every call says so, and closing works."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    with mdevdisplay.open(device.name) as display:
        frame = display.capture()
        device.vanish()
        for call in (display.surface, display.capture):
            with pytest.raises(DeviceGone):
                call()
    assert frame.width == 64


# a third party's backend


def test_a_vendors_own_format_is_decoded(acme: ModuleType) -> None:
    """A backend's decode hook makes pixels of what the framework does not know, for frames and for pictures."""
    with mdevdisplay.open("acme:") as display:
        frame = display.capture()
        assert display.readability().way == "region"
    expected = (np.frombuffer(bytes(range(256)) * 2, np.uint8).reshape(8, 16, 4) + 1).astype(np.uint8)
    np.testing.assert_array_equal(frame.pixels, expected)
    np.testing.assert_array_equal(np.asarray(frame.to_image()), expected[..., 2::-1])
    assert frame.to_png()
    assert display.backend.distribution == "mdevdisplay-acme"
    assert acme.opened[0].closings == 1


def test_what_a_vendor_does_not_decode_is_refused(acme: ModuleType) -> None:
    """A backend with a decode hook need not know every format."""
    with mdevdisplay.open("acme:SIM1") as display:
        frame = display.capture()
        with pytest.raises(UnsupportedFormat, match="SIM1"):
            _ = frame.pixels
        readable = display.readability()
    assert readable.way == "" and "SIM1" in readable.reason  # noqa: PT018


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("get_surface_info", "capture"),
        ("query_region", "capture"),
        ("diagnose", "findings"),
    ],
)
def test_a_backend_that_breaks_is_named(acme: ModuleType, hook: str, call: str) -> None:
    """An exception of a backend is a PluginError with its hook, its name, its distribution and what it raised."""
    acme.behaviour[hook] = ZeroDivisionError("the lamp is red")
    with mdevdisplay.open("acme:") as display:
        with pytest.raises(PluginError) as caught:
            getattr(display, call)()
        acme.behaviour.clear()
        assert display.capture().width == 16
    text = str(caught.value)
    for part in (hook, "acme", "mdevdisplay-acme 4.2", "ZeroDivisionError", "the lamp is red"):
        assert part in text
    assert caught.value.device == "acme:"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("hook", "call"), [("get_surface_info", "surface"), ("query_region", "capture"), ("diagnose", "findings")]
)
def test_a_backend_that_returns_the_wrong_thing_is_named(acme: ModuleType, hook: str, call: str) -> None:
    """What a hook may not return is a PluginError that says what came."""
    acme.behaviour[hook] = lambda *_: 42
    with mdevdisplay.open("acme:") as display, pytest.raises(PluginError, match="returned a int") as caught:
        getattr(display, call)()
    assert hook in str(caught.value)
    assert "acme" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 16, 3), np.uint8),
        np.zeros((16, 8, 4), np.uint8),
        np.zeros((8, 16, 4), np.uint16),
        "no array",
    ],
)
def test_a_decoder_that_returns_the_wrong_thing_is_named(acme: ModuleType, wrong: object) -> None:
    """Pixels of another shape or type never reach a program."""
    acme.behaviour["decode"] = lambda *_: wrong
    with mdevdisplay.open("acme:") as display, pytest.raises(PluginError, match="decode of backend acme"):
        display.capture()


def test_an_oserror_of_a_backend_is_translated(acme: ModuleType) -> None:
    """A system call that failed inside a backend is the error that its errno means."""
    acme.behaviour["get_surface_info"] = OSError(errno.ENODEV, "gone")
    with mdevdisplay.open("acme:") as display, pytest.raises(DeviceGone, match="acme") as caught:
        display.capture()
    assert caught.value.errno == errno.ENODEV


def test_a_backend_that_breaks_in_the_probe_hurts_nobody_else(acme: ModuleType) -> None:
    """Its displays cannot be opened, by its name; the others' can, and what was opened is closed."""
    acme.behaviour["probe"] = RuntimeError("no")
    with pytest.raises(mdevdisplay.MdevDisplayError, match="acme"):
        mdevdisplay.open("acme:")
    assert acme.opened[0].closed
    with mdevdisplay.open("sim:64x64") as display:
        assert display.capture()


def test_a_backend_that_breaks_in_open_locator_hurts_nobody_else(acme: ModuleType) -> None:
    """Locators of others still open."""
    acme.behaviour["open_locator"] = RuntimeError("no")
    with mdevdisplay.open("sim:64x64") as display:
        assert display.capture()
    with pytest.raises(PluginError, match="open_locator of backend acme"):
        mdevdisplay.open("acme:")


# listing


def test_devices_are_listed_without_touching_one(kernel: FakeKernel, acme: ModuleType) -> None:
    """Mediated devices from sysfs and what backends know of, and not one ioctl."""
    device = kernel.add(Mdpy("vga"))
    acme.listed.append(mdevdisplay.DeviceInfo(locator="acme:1", vm="win10", pid=7))
    mdpy, other = mdevdisplay.devices()
    assert mdpy.locator == device.name
    assert mdpy.vendor == "mdpy"
    assert mdpy.identity.mdev_type == "mdpy-vga"
    assert (other.locator, other.backend, other.vm, other.pid) == ("acme:1", "acme", "win10", 7)
    assert not kernel.calls


def test_a_backend_that_cannot_list_hides_nothing_else(kernel: FakeKernel, acme: ModuleType) -> None:
    """The host's own devices are listed all the same."""
    device = kernel.add(Mdpy("vga"))
    acme.behaviour["list_devices"] = RuntimeError("no")
    assert [found.locator for found in mdevdisplay.devices()] == [device.name]


# blanks


def test_blanks_come_between_frames() -> None:
    """A stream shows a screen that goes dark and comes back as it is: frames, one blank however long, frames."""
    with mdevdisplay.open("sim:64x64,blank=2-3/6,step=2") as display, display.frames(max_fps=1000) as stream:
        seen = [next(stream) for _ in range(12)]
    assert [bool(picture) for picture in seen] == [True] * 2 + [False] + [True] * 4 + [False] + [True] * 4
    assert [picture.serial for picture in seen] == list(range(1, 13))
    assert all(isinstance(picture, Frame if picture else Blank) for picture in seen)


def test_displays_can_be_used_after_fork_free_threads_only() -> None:
    """Nothing of ours keeps a program from ending: the worker threads are daemons."""
    with mdevdisplay.open("sim:64x64", timeout=30) as display:
        display.capture()
        display.frames().fileno()
        own = [thread for thread in threading.enumerate() if thread.name.startswith("mdevdisplay")]
        assert own
        assert all(thread.daemon for thread in own)


def test_descriptors_are_not_inherited() -> None:
    """A program that a front end starts gets none of the device's descriptors."""
    before = set(holdings().descriptors)
    with mdevdisplay.open("sim:64x64,via=dmabuf,fault=no-cloexec", timeout=30) as display:
        display.capture()
        buffer = display.dmabuf()
        stream = display.frames(max_fps=0.001)
        assert select.select([stream], [], [], 30)[0], "its thread has taken a picture, and opens nothing now"
        new = set(holdings().descriptors) - before
        assert len(new) >= 3
        assert not [fd for fd in new if os.get_inheritable(fd)]
        buffer.close()
