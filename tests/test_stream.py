from __future__ import annotations

import gc
import os
import select
import selectors
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels.holdings import eventually, holdings, nothing_new_since

import mdevdisplay
from mdevdisplay import Blank, Display, Frame
from mdevdisplay.errors import BadSurface, Closed, DeviceGone, GuestChangingMode, TimedOut
from mdevdisplay.pace import ModeChangePatience, Pace
from mdevdisplay.stream import FrameStream
from mdevdisplay.testing import FakeKernel, Nvidia
from mdevdisplay_simulated import read_counter

MODES = "modes=64x64/320x200/128x96/65x67,mode_every=1,step=2"


@pytest.fixture
def display() -> Iterator[Display]:
    """A still small display with a deadline."""
    with mdevdisplay.open("sim:64x64,step=2", timeout=60) as display:
        yield display


# iterating


def test_frames_are_those_of_the_guest(display: Display) -> None:
    """Each step of the iteration is a new look at the plane."""
    with display.frames(max_fps=1000) as stream:
        frames = [next(stream) for _ in range(5)]
    assert [read_counter(frame.pixels) for frame in frames if isinstance(frame, Frame)] == [0, 1, 2, 3, 4]
    assert [frame.serial for frame in frames] == [1, 2, 3, 4, 5]


def test_a_stream_follows_the_mode() -> None:
    """A change of mode is just another frame."""
    with mdevdisplay.open(f"sim:{MODES}") as display, display.frames(max_fps=1000) as stream:
        frames = [next(stream) for _ in range(8)]
    assert [frame.width for frame in frames if isinstance(frame, Frame)] == [64, 320, 128, 65] * 2


def test_leaving_the_block_ends_the_stream(display: Display) -> None:
    """The stream ends, the display stays open."""
    with display.frames() as stream:
        next(stream)
    assert list(stream) == []
    assert display.capture()


def test_several_streams_at_once(display: Display) -> None:
    """Each stream gets frames of its own; serials are the plane's."""
    with display.frames(max_fps=1000) as one, display.frames(max_fps=1000) as two:
        serials = [next(stream).serial for _ in range(5) for stream in (one, two)]
    assert serials == list(range(1, 11))


def test_several_streams_of_one_picture() -> None:
    """Each stream begins with what is shown: a frame of its own, and the same serial."""
    with mdevdisplay.open("sim:64x64,fps=0") as display:
        frames = [next(display.frames()) for _ in range(3)]
    assert [frame.serial for frame in frames] == [1, 1, 1]
    assert len({id(frame) for frame in frames}) == 3
    assert all(isinstance(frame, Frame) and frame.damage for frame in frames)


def test_a_cursor_can_be_streamed() -> None:
    """Any plane has its frames, and its blanks."""
    with mdevdisplay.open("sim:64x64,cursor=on") as display:
        frame = next(display.frames(plane=mdevdisplay.PlaneType.CURSOR))
        assert isinstance(frame, Frame)
        assert frame.surface.plane is mdevdisplay.PlaneType.CURSOR
        assert isinstance(next(display.frames(plane=mdevdisplay.PlaneType.OVERLAY)), Blank)


@pytest.mark.parametrize("max_fps", [0.001, 1000])
@pytest.mark.parametrize("timeout", [None, 60])
def test_close_in_another_thread_ends_the_iteration(max_fps: float, timeout: float | None) -> None:
    """A thread in the middle of a pause or of a frame comes out of its loop, without an error."""
    display = mdevdisplay.open("sim:64x64", timeout=timeout)
    counts: list[int] = []
    stream = display.frames(max_fps=max_fps)
    thread = threading.Thread(target=lambda: counts.append(sum(1 for _ in stream)), daemon=True)
    thread.start()
    assert eventually(lambda: display.capture().serial > 2)
    display.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(counts) == 1


def test_closing_the_display_never_shows_in_its_streams() -> None:
    """However close() meets a running iteration, the iteration ends and raises nothing."""
    errors: list[BaseException] = []

    def watch(stream: FrameStream) -> None:
        try:
            for _ in stream:
                pass
        except BaseException as error:
            errors.append(error)

    for number in range(40):
        display = mdevdisplay.open("sim:64x64", timeout=60 if number % 2 else None)
        threads = [
            threading.Thread(target=watch, args=(display.frames(max_fps=max_fps),), daemon=True)
            for max_fps in (1000, 1500, 2000)
        ]
        for thread in threads:
            thread.start()
        assert display.capture()
        display.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert errors == []


def test_frames_of_a_closed_display_are_refused(display: Display) -> None:
    """frames() says at once that there is no display any more."""
    display.close()
    with pytest.raises(Closed):
        display.frames()


@pytest.mark.parametrize("max_fps", [0, -1, float("nan")])
def test_a_pace_must_be_above_zero(display: Display, max_fps: float) -> None:
    """What is no pace is refused at once."""
    with pytest.raises(ValueError, match="max_fps"):
        display.frames(max_fps=max_fps)


def test_an_error_ends_no_more_than_one_step(kernel: FakeKernel) -> None:
    """A driver that failed is asked again with the next step: what to do is the consumer's choice."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    answered = threading.Event()
    with mdevdisplay.open(device.name) as display, display.frames(timeout=0.05, max_fps=1000) as stream:
        device.stall = lambda _: answered.wait(60)
        for _ in range(2):
            with pytest.raises(TimedOut):
                next(stream)
        answered.set()
        assert eventually(display.surface)
        assert isinstance(next(stream), Frame)


# a guest that sets its mode


def test_a_change_of_mode_is_borne() -> None:
    """A plane that cannot be decoded for a moment is waited for, and nothing of it shows."""
    with mdevdisplay.open("sim:modes=64x64/128x96,mode_every=4,step=1,fault=einval:12") as display:
        widths = set()
        for picture in display.frames(max_fps=1000):
            assert isinstance(picture, Frame)
            widths.add(picture.width)
            if len(widths) == 2:
                break


@pytest.mark.parametrize(("fault", "kind"), [("einval-forever", GuestChangingMode), ("short-size", BadSurface)])
def test_what_stays_wrong_ends_in_its_error(monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[Exception]) -> None:
    """After two seconds of nothing but failures it is no change of mode any more."""
    assert ModeChangePatience.SECONDS == 2.0
    monkeypatch.setattr(ModeChangePatience, "SECONDS", 0.2)
    with mdevdisplay.open(f"sim:64x64,fault={fault}") as display:
        begin = time.monotonic()
        with pytest.raises(kind):
            next(display.frames(max_fps=1000))
        assert time.monotonic() - begin >= 0.2


def test_patience_begins_anew_with_every_success() -> None:
    """Failures with frames between them are no failure."""
    bear = ModeChangePatience()
    error = BadSurface("numbers")
    bear.failed(error)
    bear._since = time.monotonic() - 60
    bear.succeeded()
    bear.failed(error)
    bear._since = time.monotonic() - 60
    with pytest.raises(BadSurface):
        bear.failed(error)


# the pace


class Clock:
    """time.monotonic, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 3), min_size=1, max_size=50), st.floats(0, 1e6), st.floats(0, 0.001))
def test_polls_come_at_most_so_often(max_fps: float, work: list[float], start: float, late: float) -> None:
    """However long each frame takes, n beats see at most n + 1 polls: never a burst, and no catching up."""
    clock = Clock()
    clock.now = start
    interval = 1 / max_fps
    polls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdevdisplay.pace.time.monotonic", clock)
        pace = Pace(max_fps)
        for beats in work:
            wait = pace.delay()
            assert 0 <= wait <= interval * (1 + 1e-9) + 1e-6
            clock.now += wait + late * interval
            polls.append(clock.now)
            clock.now += beats * interval
    # in any stretch of n beats there are at most n + 1 polls
    for first in range(len(polls)):
        for last in range(first + 1, len(polls)):
            assert polls[last] - polls[first] >= (last - first - 1) * interval * (1 - 1e-6) - 1e-6


def test_the_first_poll_is_at_once_and_the_second_a_beat_later() -> None:
    """There is no burst at the start, nor after a long pause of the consumer's."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdevdisplay.pace.time.monotonic", clock)
        pace = Pace(10)
        assert pace.delay() == 0
        assert pace.delay() == pytest.approx(0.1)
        clock.now += 60
        assert pace.delay() == 0
        assert pace.delay() == pytest.approx(0.1)


def test_a_steady_pace_does_not_drift() -> None:
    """Waking a little late each time does not make the stream slower than it was asked to be."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdevdisplay.pace.time.monotonic", clock)
        pace = Pace(100)
        begin = clock.now
        for _ in range(1001):
            clock.now += pace.delay() + 0.001
        assert clock.now - begin == pytest.approx(10, abs=0.02)


# event loops


def test_a_loop_is_woken_for_every_new_picture(display: Display) -> None:
    """fileno() in a selector: readable when there is something new, and latest() has it once."""
    with display.frames(max_fps=500) as stream, selectors.DefaultSelector() as loop:
        loop.register(stream, selectors.EVENT_READ)
        assert stream.fileno() == stream.fileno()
        seen: list[int] = []
        while len(seen) < 10:
            assert loop.select(30)
            picture = stream.latest()
            if picture is not None:
                assert isinstance(picture, Frame)
                seen.append(read_counter(picture.pixels))
        loop.unregister(stream)
    assert seen == sorted(set(seen))


def test_the_newest_picture_wins(display: Display) -> None:
    """A loop that was busy gets the newest picture, not a queue of old ones."""
    with display.frames(max_fps=1000) as stream:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
        assert poll.poll(30_000)
        assert eventually(lambda: display.capture().serial > 20)
        newest = stream.latest()
        assert newest is not None
        assert newest.serial > 5
        assert stream.latest() is None or stream.latest() is None


def test_latest_without_anything_new_is_none() -> None:
    """A loop that asks too often gets None and is not made to wait."""
    with mdevdisplay.open("sim:64x64") as display, display.frames(max_fps=0.001) as stream:
        assert stream.latest() is None
        select.select([stream], [], [], 30)
        assert isinstance(stream.latest(), Frame)
        assert stream.latest() is None
        assert select.select([stream], [], [], 0)[0] == []


def test_blanks_reach_a_loop() -> None:
    """A dark screen is something new too."""
    with mdevdisplay.open("sim:64x64,blank=on") as display, display.frames() as stream:
        select.select([stream], [], [], 30)
        assert isinstance(stream.latest(), Blank)


def test_an_error_reaches_a_loop() -> None:
    """What ended the stream is raised by latest(), in the loop's own thread, every time; the loop stays awake."""
    with mdevdisplay.open("sim:64x64,fault=gone:5") as display, display.frames(max_fps=1000) as stream:

        def follow() -> None:
            while select.select([stream], [], [], 30)[0]:
                stream.latest()

        with pytest.raises(DeviceGone):
            follow()
        for _ in range(2):
            assert select.select([stream], [], [], 30)[0]
            with pytest.raises(DeviceGone):
                stream.latest()


def test_a_driver_that_was_late_is_asked_again() -> None:
    """A TimedOut is raised by latest() once; the loop goes on, and the next picture comes."""
    with mdevdisplay.open("sim:64x64,fault=hang:0.2", timeout=30) as display:
        stream = display.frames(max_fps=1000, timeout=0.3)
        with stream:
            seen: list[object] = []
            while len(seen) < 3:
                assert select.select([stream], [], [], 30)[0]
                try:
                    seen.append(stream.latest())
                except TimedOut as error:
                    seen.append(error)
        assert all(isinstance(entry, TimedOut) for entry in seen)


def test_a_forgotten_stream_with_a_thread_lets_its_display_go() -> None:
    """The thread behind fileno() keeps neither the stream nor the display alive."""
    before = holdings()
    display = mdevdisplay.open("sim:64x64", timeout=60)
    stream = display.frames(max_fps=200)
    assert select.select([stream], [], [], 30)[0]
    with pytest.warns(ResourceWarning, match="not closed"):
        del stream, display
        gc.collect()
    assert eventually(lambda: nothing_new_since(before))


@pytest.mark.parametrize("what", ["display", "stream"])
def test_close_in_another_thread_wakes_a_loop(what: str) -> None:
    """A loop that waits for the next picture is woken by close(); latest() then says that it is over."""
    before = holdings()
    with mdevdisplay.open("sim:64x64", timeout=60) as display:
        stream = display.frames(max_fps=0.001)
        with selectors.DefaultSelector() as loop:
            loop.register(stream, selectors.EVENT_READ)
            assert loop.select(30)
            assert stream.latest()
            closing = threading.Timer(0.05, (display if what == "display" else stream).close)
            closing.start()
            assert loop.select(30)
            with pytest.raises(Closed):
                stream.latest()
            loop.unregister(stream)
        closing.join()
        del stream, closing
    gc.collect()
    assert eventually(lambda: nothing_new_since(before))


def test_a_watched_descriptor_is_never_another_files(display: Display) -> None:
    """As long as a loop may watch it, the number stays the stream's own, also after close()."""
    stream = display.frames()
    fd = stream.fileno()
    display.close()
    files = [os.memfd_create("others") for _ in range(10)]
    assert fd not in files
    assert "eventfd" in holdings().descriptors[fd]
    for other in files:
        os.close(other)


def test_leaving_the_block_closes_the_descriptor(display: Display) -> None:
    """Whoever leaves the stream's block has stopped watching; a closed stream gives no new descriptor."""
    before = holdings()
    with display.frames() as stream:
        stream.fileno()
    assert eventually(lambda: holdings().descriptors == before.descriptors)
    with pytest.raises(Closed):
        stream.fileno()
    other = display.frames()
    other.close()
    with pytest.raises(Closed):
        other.fileno()
    other.close()


def test_a_forgotten_stream_ends_with_its_display() -> None:
    """The display ends streams that nobody closed, their threads and their descriptors."""
    before = holdings()
    with mdevdisplay.open("sim:64x64") as display:
        for _ in range(5):
            display.frames(max_fps=100).fileno()
    assert eventually(lambda: nothing_new_since(before))


def test_a_loop_keeps_no_more_than_the_last_picture(display: Display) -> None:
    """The stream holds the picture that the next one is compared with, and none of those before that were dropped."""
    with display.frames(max_fps=500) as stream:
        references: list[weakref.ref[Frame | Blank]] = []
        while len(references) < 5:
            assert select.select([stream], [], [], 30)[0]
            picture = stream.latest()
            if picture is not None:
                references.append(weakref.ref(picture))
            del picture
        assert eventually(lambda: all(reference() is None for reference in references[:-1]))
