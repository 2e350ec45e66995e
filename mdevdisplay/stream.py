"""A stream of frames: an iterator, and a descriptor for event loops."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Self

from mdevdisplay.errors import Closed, TimedOut
from mdevdisplay.pace import Follower, ModeChangePatience, StreamStatistics
from mdevdisplay.pixels.frame import Blank, Frame

__all__ = ["FrameStream"]

Picture = Frame | Blank
Look = Callable[["Picture | None"], Picture]
"""Returns what is shown: its argument where that is what is shown still."""
Wait = Callable[[int], int]
"""Waits a moment for the source to announce a change; takes and returns how many it has announced."""


class FrameStream(Iterator[Picture]):
    """Frames of one display, as long as it is open: the first at once, then one whenever something changed.

    Blank moments come as `Blank`. Iterate it, or for GLib, Qt and other loops watch `fileno` and call `latest` when it
    is readable. close() from any thread ends both: the iteration stops, the descriptor becomes readable for good and
    `latest` raises `Closed`. Use it as a context manager, or let the display's close() end it.
    """

    def __init__(self, look: Look, max_fps: float, *, repeat: bool = False, wait: Wait | None = None) -> None:
        """Take pictures with ``look``; `Display.frames` makes one for you."""
        self._look = look
        self._wait = None if repeat else wait
        self._follower = Follower(max_fps, repeat=repeat)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._event = -1
        self._newest: Picture | None = None
        self._late: TimedOut | None = None
        self._fatal: BaseException | None = None

    @property
    def statistics(self) -> StreamStatistics:
        """What the stream has seen lately."""
        return self._follower.statistics()

    def __next__(self) -> Picture:
        try:
            while _pause(self._ended, self._follower, self._wait):
                picture = self._take()
                if picture is not None:
                    return picture
        except Closed:  # the display, which ends its streams too
            pass
        raise StopIteration

    def _take(self) -> Picture | None:
        """Look once; return what is to be handed on."""
        begin = time.monotonic()
        try:
            picture = self._look(self._follower.last)
        except ModeChangePatience.BORNE as error:
            return self._follower.failed(error)
        return self._follower.took(picture, time.monotonic() - begin)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `latest` has something new; the first call starts a thread.

        It stays open until the stream is left as a context manager or forgotten, so that a loop that watches it is
        woken by close() and never watches another file of the same number.
        """
        with self._lock:
            if self._event < 0:
                if self._ended.is_set():
                    raise Closed("the stream of frames was closed before")
                self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                thread = threading.Thread(
                    target=_pump,
                    args=(weakref.ref(self), self._ended, self._follower, self._wait),
                    name="mdevdisplay frames",
                    daemon=True,
                )
                thread.start()
            return self._event

    def latest(self) -> Picture | None:
        """Return the newest picture that was not returned before, or None; for use with `fileno`.

        Raises:
            TimedOut: the driver did not answer in time; it is asked again.
            MdevDisplayError: what ended the stream, every time; `Closed` after close().
        """
        with self._lock:
            if self._ended.is_set():
                raise Closed("the stream of frames was closed before", hint="stop watching its descriptor")
            if self._fatal is not None:  # the descriptor stays readable
                raise self._fatal.with_traceback(None)
            if self._event >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._event)
            late, self._late = self._late, None
            if late is not None:
                if self._newest is not None and self._event >= 0:
                    os.eventfd_write(self._event, 1)  # it is to come yet
                raise late
            newest, self._newest = self._newest, None
        return newest

    def pump(self) -> bool:
        """Take one picture for `latest`; False when there will be no more. Called by the stream's own thread."""
        picture: Picture | TimedOut | None = None
        fatal: BaseException | None = None
        try:
            picture = self._take()
        except Closed:
            self.close()
            return False
        except TimedOut as error:
            picture = error
        except BaseException as error:  # noqa: BLE001 - latest() raises it in the consumer's thread
            fatal = error
        return self._deliver(picture, fatal)

    def _deliver(self, picture: Picture | TimedOut | None, fatal: BaseException | None) -> bool:
        with self._lock:
            if self._ended.is_set():
                return False
            self._fatal = fatal
            if isinstance(picture, TimedOut):
                self._late = picture
            elif picture is not None:
                self._newest = _joined(self._newest, picture)
            if picture is not None or fatal is not None:
                os.eventfd_write(self._event, 1)
        return fatal is None

    def fail(self, error: BaseException) -> None:
        """Let `latest` raise an error from now on."""
        self._deliver(None, error)

    def close(self) -> None:
        """End the stream, from any thread. Idempotent."""
        with self._lock:
            self._ended.set()
            self._newest = None
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def _release(self) -> None:
        with self._lock:
            event, self._event = self._event, -1
        if event >= 0:
            os.close(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._release()

    def __del__(self) -> None:
        if getattr(self, "_event", -1) >= 0:
            self.close()
            self._release()


def _joined(skipped: Picture | None, picture: Picture) -> Picture:
    """Return a picture with the damage of the one that nobody fetched before it came."""
    if (
        isinstance(skipped, Frame)
        and isinstance(picture, Frame)
        and skipped.changed_tiles.shape == picture.changed_tiles.shape
    ):
        return picture.evolve(changed=picture.changed_tiles | skipped.changed_tiles)
    return picture


def _pause(ended: threading.Event, follower: Follower, wait: Wait | None) -> bool:
    """Wait until it is time to look; False where the stream was closed meanwhile."""
    if ended.wait(follower.delay()):
        return False
    if wait is None or follower.unsure:
        return True
    while not ended.is_set():
        announced = wait(follower.announced)
        if announced != follower.announced:
            follower.announced = announced
            return True
    return False


def _pump(reference: weakref.ref[FrameStream], ended: threading.Event, follower: Follower, wait: Wait | None) -> None:
    """Take pictures as long as somebody has the stream; the thread itself must not be what keeps it alive."""
    while True:
        failure: BaseException | None = None
        try:
            if not _pause(ended, follower, wait):
                return
        except TimedOut:
            pass
        except BaseException as error:  # noqa: BLE001 - latest() raises it in the consumer's thread
            failure = error
        stream = reference()
        if stream is None:
            return
        if isinstance(failure, Closed):
            stream.close()
            return
        if failure is not None:
            stream.fail(failure)
            return
        if not stream.pump():
            return
        del stream
