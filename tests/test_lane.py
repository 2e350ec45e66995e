"""The lane: deadlines, late results, and never two calls at once."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from mdevdisplay._lane import Lane
from mdevdisplay.errors import Closed, DriverError, TimedOut

LONG = 20.0
"""Seconds that nothing takes unless something is broken."""


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane("0000:41:00.4")
    yield lane
    lane.stop()
    if lane._thread is not None:
        lane._thread.join(LONG)
        assert not lane._thread.is_alive()


class Hang:
    """A call that hangs inside the kernel until it is let go."""

    def __init__(self, result: object = "late") -> None:
        self.begun, self.release, self.done = threading.Event(), threading.Event(), threading.Event()
        self.result = result

    def __call__(self) -> object:
        self.begun.set()
        assert self.release.wait(LONG)
        self.done.set()
        return self.result


def test_without_a_deadline_a_call_runs_in_the_callers_thread(lane: Lane) -> None:
    """The direct path costs no thread."""
    assert lane.run(threading.current_thread) is threading.current_thread()
    assert lane._thread is None


def test_with_a_deadline_it_runs_in_the_lanes_own_thread(lane: Lane) -> None:
    """A daemon, named after the device, the same one for every call."""
    thread = lane.run(threading.current_thread, LONG)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "mdevdisplay 0000:41:00.4"
    assert lane.run(threading.current_thread, LONG) is thread


@pytest.mark.parametrize("timeout", [None, LONG])
def test_an_error_of_the_call_is_the_callers(lane: Lane, timeout: float | None) -> None:
    """What the call raises comes out as it is, on both paths."""
    error = DriverError("no")

    def fail() -> None:
        raise error

    with pytest.raises(DriverError) as caught:
        lane.run(fail, timeout)
    assert caught.value is error


@pytest.mark.parametrize("timeout", [None, LONG])
@pytest.mark.parametrize("kind", [TimedOut, TimeoutError])
def test_a_timeout_of_the_call_itself_is_not_the_lanes(
    lane: Lane, kind: type[Exception], timeout: float | None
) -> None:
    """The kernel's own ETIMEDOUT is a TimeoutError too: it is not reported as a deadline that never passed."""

    def fail() -> None:
        raise kind("the driver gave up")

    started = time.monotonic()
    with pytest.raises(kind, match="the driver gave up"):
        lane.run(fail, timeout)
    assert time.monotonic() - started < LONG / 2


def test_after_the_deadline_the_caller_goes_on(lane: Lane) -> None:
    """TimedOut names the device and the seconds; the caller has waited about that long and no longer."""
    hang = Hang()
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"0000:41:00.4: the driver has not answered within 0.05 s") as caught:
        lane.run(hang, 0.05)
    assert 0.04 < time.monotonic() - started < LONG / 2
    assert "25 s" in caught.value.hint
    hang.release.set()


def test_a_late_result_is_handed_to_late(lane: Lane) -> None:
    """What comes after the deadline is thrown away properly: closed, not leaked."""
    hang = Hang("a device")
    thrown: list[object] = []
    handed = threading.Event()

    def late(result: object) -> None:
        thrown.append(result)
        handed.set()

    with pytest.raises(TimedOut):
        lane.run(hang, 0.02, late=late)
    assert hang.begun.is_set()
    assert thrown == []
    hang.release.set()
    assert handed.wait(LONG)
    assert thrown == ["a device"]


def test_a_failing_late_disturbs_nobody(lane: Lane) -> None:
    """An error while throwing away stays where it is; the lane works on."""
    hang = Hang()

    def late(result: object) -> None:
        raise RuntimeError(result)

    with pytest.raises(TimedOut):
        lane.run(hang, 0.02, late=late)
    hang.release.set()
    assert lane.run(lambda: "next", LONG) == "next"


def test_a_late_error_is_nobodys(lane: Lane) -> None:
    """A call that fails after its deadline has no result to throw away."""
    hang = Hang()
    thrown: list[object] = []

    def fail() -> None:
        hang()
        raise DriverError("late")

    with pytest.raises(TimedOut):
        lane.run(fail, 0.02, late=thrown.append)
    hang.release.set()
    assert lane.run(lambda: "next", LONG) == "next"
    assert thrown == []


@pytest.mark.parametrize("waiting", [0.05, None])
def test_two_calls_are_never_in_flight(lane: Lane, waiting: float | None) -> None:
    """While one hangs another does not start, whichever path it takes (gotcha 11)."""
    hang = Hang()
    with pytest.raises(TimedOut):
        lane.run(hang, 0.02)
    seen: list[bool] = []
    if waiting is None:
        other = threading.Thread(target=lambda: lane.run(lambda: seen.append(hang.done.is_set())))
        other.start()
        time.sleep(0.03)
        assert seen == []
        hang.release.set()
        other.join(LONG)
    else:
        with pytest.raises(TimedOut):
            lane.run(lambda: seen.append(hang.done.is_set()), waiting)
        hang.release.set()
        lane.run(lambda: seen.append(hang.done.is_set()), LONG)
    assert seen == [True]


def test_a_call_that_could_not_begin_in_time_never_runs(lane: Lane) -> None:
    """Its caller has given up: asking the driver for nobody would only hold it up."""
    hang = Hang()
    ran: list[str] = []
    with pytest.raises(TimedOut):
        lane.run(hang, 0.02)
    with pytest.raises(TimedOut):
        lane.run(lambda: ran.append("abandoned"), 0.02)
    hang.release.set()
    lane.run(lambda: ran.append("next"), LONG)
    assert ran == ["next"]


def test_what_must_run_runs_late(lane: Lane) -> None:
    """Closing has to happen in the end, however long the call before it hangs."""
    hang = Hang()
    ran: list[str] = []
    with pytest.raises(TimedOut):
        lane.run(hang, 0.02)
    with pytest.raises(TimedOut):
        lane.run(lambda: ran.append("closed"), 0.02, must_run=True)
    assert ran == []
    hang.release.set()
    lane.run(lambda: None, LONG)
    assert ran == ["closed"]


def test_many_threads_share_one_lane(lane: Lane) -> None:
    """Calls from any thread go one at a time, with and without a deadline, and each caller gets its own result."""
    busy = [0]
    overlaps: list[int] = []
    results: list[int] = []

    def call(number: int) -> int:
        busy[0] += 1
        overlaps.append(busy[0])
        time.sleep(0.001)
        busy[0] -= 1
        return number

    def client(number: int) -> None:
        results.append(lane.run(lambda: call(number), LONG if number % 2 else None))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(results) == list(range(24))
    assert set(overlaps) == {1}
    assert sum(thread.name == "mdevdisplay 0000:41:00.4" for thread in threading.enumerate()) == 1


def test_an_idle_lane_keeps_no_result_alive(lane: Lane) -> None:
    """A frame that its caller dropped must not live on in the thread."""

    class Frame:
        pass

    frame = lane.run(Frame, LONG)
    alive = weakref.ref(frame)
    del frame
    deadline = time.monotonic() + LONG
    while alive() is not None and time.monotonic() < deadline:
        time.sleep(0.001)  # the thread drops its own reference a moment after the result is out
        gc.collect()
    assert alive() is None


def test_a_stopped_lane_takes_no_call_and_ends(lane: Lane) -> None:
    """A call after stop() would wait for ever on a thread that is gone: Closed, at once."""
    lane.run(lambda: None, LONG)
    thread = lane._thread
    assert thread is not None
    lane.stop()
    lane.stop()
    thread.join(LONG)
    assert not thread.is_alive()
    with pytest.raises(Closed, match=r"0000:41:00\.4: the display was closed"):
        lane.run(lambda: None, LONG)
    with pytest.raises(Closed):
        lane.submit(lambda: None)


def test_stopping_lets_a_call_finish(lane: Lane) -> None:
    """stop() does not wait and does not interrupt: what was asked before is done first."""
    hang = Hang()
    ran: list[str] = []
    with pytest.raises(TimedOut):
        lane.run(hang, 0.02)
    with pytest.raises(TimedOut):
        lane.run(lambda: ran.append("closed"), 0.01, must_run=True)
    lane.stop()
    hang.release.set()
    assert lane._thread is not None
    lane._thread.join(LONG)
    assert ran == ["closed"]
