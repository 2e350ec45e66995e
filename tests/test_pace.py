from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import BadSurface, GuestChangingMode
from mdevdisplay.formats import fourcc
from mdevdisplay.pace import IDLE_INTERVAL, Follower, Pace
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.surface import SurfaceInfo


class Clock:
    """time.monotonic, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("mdevdisplay.pace.time.monotonic", clock)
    return clock


def frame_of(serial: int, share: float = 1.0) -> Frame:
    """Return a frame of ten tiles, of which a share has changed."""
    surface = SurfaceInfo(fourcc=fourcc("AR24"), width=640, height=1, stride=2560, size=2560)
    changed = np.zeros((1, 10), np.bool_)
    changed[0, : round(share * 10)] = True
    return Frame(np.zeros((1, 640, 4), np.uint8), surface, serial=serial, changed=changed)


def intervals(clock: Clock, pace: Pace, looks: int, *, changed: bool) -> list[float]:
    """Return the seconds before each of some looks."""
    waited = []
    for _ in range(looks):
        waited.append(pace.delay())
        clock.now += waited[-1]
        if changed:
            pace.changed()
        else:
            pace.unchanged()
    return waited


# back-off


@pytest.mark.parametrize("max_fps", [1000.0, 60.0, 30.0, 11.0])
def test_looks_become_rarer_while_nothing_changes(clock: Clock, max_fps: float) -> None:
    """At the full rate for a while, then step by step down to ten a second, and no slower."""
    pace = Pace(max_fps)
    waited = intervals(clock, pace, 60, changed=False)
    assert waited[0] == 0
    assert waited[1:8] == pytest.approx([1 / max_fps] * 7)
    assert waited[1:] == sorted(waited[1:])
    assert waited[-1] == pytest.approx(IDLE_INTERVAL) == pytest.approx(0.1)
    assert max(waited) <= 0.1 + 1e-9


@pytest.mark.parametrize("max_fps", [10.0, 5.0, 2.0, 0.1])
def test_a_slow_pace_stays_what_it_is(clock: Clock, max_fps: float) -> None:
    """Who asks for less than ten a second gets that, changed or not."""
    pace = Pace(max_fps)
    assert intervals(clock, pace, 40, changed=False)[1:] == pytest.approx([1 / max_fps] * 39)


@given(st.integers(0, 100), st.floats(10, 1000))
def test_a_change_brings_back_the_full_rate_within_one_frame(quiet: int, max_fps: float) -> None:
    """However long nothing happened: the look after the one that saw the change comes one frame later."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr("mdevdisplay.pace.time.monotonic", clock)
        pace = Pace(max_fps)
        intervals(clock, pace, quiet, changed=False)
        intervals(clock, pace, 1, changed=True)
        # and stays for a while, changed or not
        assert intervals(clock, pace, 9, changed=False) == pytest.approx([1 / max_fps] * 9)


def test_what_moves_is_looked_at_at_the_full_rate(clock: Clock) -> None:
    """A change now and then keeps the rate up."""
    pace = Pace(50)
    for _ in range(20):
        intervals(clock, pace, 5, changed=False)
        intervals(clock, pace, 1, changed=True)
    assert intervals(clock, pace, 5, changed=True) == pytest.approx([0.02] * 5)


def test_a_look_that_had_to_wait_begins_the_beat_anew(clock: Clock) -> None:
    """What an announcement held up is not caught up with: the next look comes a whole beat after it."""
    pace = Pace(10)
    assert pace.delay() == 0
    clock.now += 60
    pace.late()
    clock.now += 0.01
    assert pace.delay() == pytest.approx(0.09)


# what a stream hands on


def test_only_what_changed_is_handed_on(clock: Clock) -> None:
    """The same object is the same picture."""
    follower = Follower(30)
    one, two, blank = frame_of(1), frame_of(2), Blank(serial=3, timestamp=0)
    seen = [follower.took(picture, 0.0) for picture in (one, one, two, two, blank, blank, one)]
    assert seen == [one, None, two, None, blank, None, one]


def test_a_stream_that_repeats_hands_on_everything(clock: Clock) -> None:
    """At the full rate; what comes again has no damage, and its pixels, serial and flags."""
    follower = Follower(30, repeat=True)
    one = frame_of(1).evolve(flags=FrameFlags.TORN)
    assert follower.took(one, 0.0) is one
    for _ in range(30):
        again = follower.took(follower.last or one, 0.0)
        assert isinstance(again, Frame)
        assert again.damage == ()
        assert (again.serial, again.flags, again.raw is one.raw) == (1, FrameFlags.TORN, True)
        clock.now += follower.delay()
    assert follower.delay() == pytest.approx(1 / 30)
    blank = Blank(serial=2, timestamp=0)
    assert [follower.took(blank, 0.0), follower.took(blank, 0.0)] == [blank, blank]


@pytest.mark.parametrize("kind", [GuestChangingMode, BadSurface])
def test_a_plane_that_cannot_be_read_is_stale_once(clock: Clock, kind: type[Exception]) -> None:
    """Not at the first failure, but soon; then nothing, until there is a picture or too much time has passed."""
    follower = Follower(30)
    one = frame_of(1)
    follower.took(one, 0.0)
    assert follower.failed(kind("now")) is None
    clock.now += 0.1
    assert follower.failed(kind("now")) is None
    clock.now += 0.2
    stale = follower.failed(kind("now"))
    assert isinstance(stale, Frame)
    assert stale.flags is FrameFlags.STALE
    assert stale.damage == ()
    assert stale.raw is one.raw
    assert stale.serial == 1
    assert follower.last is stale
    clock.now += 1
    assert follower.failed(kind("now")) is None
    fresh = frame_of(1, 0.0)
    assert follower.took(fresh, 0.0) is fresh
    assert follower.failed(kind("now")) is None
    clock.now += 2.1
    with pytest.raises(kind):
        follower.failed(kind("now"))


def test_what_shows_nothing_does_not_grow_stale(clock: Clock) -> None:
    """There is no last picture to hand on, before the first and after a blank moment."""
    follower = Follower(30)
    follower.failed(BadSurface("now"))
    clock.now += 1
    assert follower.failed(BadSurface("now")) is None
    follower.took(Blank(serial=1, timestamp=0), 0.0)
    follower.failed(BadSurface("now"))
    clock.now += 1
    assert follower.failed(BadSurface("now")) is None


# announcements


def test_an_announcement_is_looked_at_until_a_look_succeeds(clock: Clock) -> None:
    """A look that fails, or that raises what the consumer sees, has not used the announcement up."""
    follower = Follower(30)
    unsure = [follower.unsure]
    follower.took(frame_of(1), 0.0)
    unsure.append(follower.unsure)
    follower.announced = 1
    unsure.append(follower.unsure)
    follower.failed(BadSurface("now"))
    unsure.append(follower.unsure)
    follower.took(frame_of(2), 0.0)
    unsure.append(follower.unsure)
    assert unsure == [True, False, True, True, False]
    assert follower.announced == 1


def test_looks_after_announcements_keep_the_pace(clock: Clock) -> None:
    """Two announcements in a row are not two looks at once, however long the first was waited for."""
    follower = Follower(10)
    clock.now += follower.delay()
    follower.took(frame_of(1), 0.0)
    clock.now += follower.delay() + 60
    follower.announced = 1
    follower.took(frame_of(2), 0.0)
    assert follower.delay() == pytest.approx(0.1)


# statistics


def test_statistics_tell_what_was_seen(clock: Clock) -> None:
    """Rate, cost, share and age, of the looks that are remembered."""
    follower = Follower(10)
    nothing = follower.statistics()
    assert (nothing.looks, nothing.pictures, nothing.fps, nothing.look_time, nothing.changed_share) == (0, 0, 0, 0, 0)
    pictures = [frame_of(1, 1.0), frame_of(2, 0.2), frame_of(3, 0.3)]
    for picture, seconds in zip(pictures, (0.5, 0.01, 0.02), strict=True):
        follower.took(picture, seconds)
        clock.now += 0.5
    follower.took(pictures[-1], 0.03)
    clock.now += 0.5
    seen = follower.statistics()
    assert (seen.looks, seen.pictures) == (4, 3)
    assert seen.fps == pytest.approx(2 / 2.0)
    assert seen.look_time == pytest.approx(0.025)
    assert seen.changed_share == pytest.approx((1.0 + 0.2 + 0.3) / 4)
    assert seen.unchanged_for == pytest.approx(1.0)


def test_a_blank_moment_is_a_change_of_everything(clock: Clock) -> None:
    """And counts as a picture."""
    follower = Follower(10)
    follower.took(Blank(serial=1, timestamp=0), 0.0)
    assert follower.statistics().changed_share == 1
    assert follower.statistics().pictures == 1


def test_statistics_are_of_the_last_looks(clock: Clock) -> None:
    """A stream of hours remembers 120 looks, and counts all."""
    follower = Follower(10)
    for number in range(1000):
        follower.took(frame_of(number, 1.0 if number < 800 else 0.0), 1.0 if number < 800 else 0.0)
        clock.now += 0.1
    seen = follower.statistics()
    assert len(follower._looks) == 120
    assert (seen.looks, seen.pictures) == (1000, 1000)
    assert seen.fps == pytest.approx(119 / 12.0)
    assert seen.look_time == seen.changed_share == 0
