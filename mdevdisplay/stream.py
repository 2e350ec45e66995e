"""A stream of frames: an iterator that polls, and a descriptor for event loops."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Self

from mdevdisplay.errors import BadSurface, Closed, GuestChangingMode, TimedOut
from mdevdisplay.pixels.frame import Blank, Frame

__all__ = ["FrameStream", "ModeChangePatience", "Pace"]

Picture = Frame | Blank


class Pace:
    """Says when the next poll is due: at most ``max_fps`` a second, and never to catch up."""

    def __init__(self, max_fps: float) -> None:
        if not max_fps > 0:
            raise ValueError(f"max_fps {max_fps} is not above 0")
        self._interval = 1.0 / max_fps
        self._due = 0.0

    def delay(self) -> float:
        """Return the seconds to wait now, and count the poll that follows as done."""
        now = time.monotonic()
        wait = max(0.0, self._due - now)
        # a whole interval late, as at first, the beat starts anew: it would be two polls at once otherwise
        self._due = (self._due if now - self._due < self._interval else now) + self._interval
        return wait


class ModeChangePatience:
    """Bears a plane that cannot be decoded for a while: guests change their modes."""

    BORNE = (GuestChangingMode, BadSurface)
    SECONDS = 2.0

    def __init__(self) -> None:
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        """Count a failure; raise it where there have been nothing but failures for `SECONDS`."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self.SECONDS:
            raise error

    def succeeded(self) -> None:
        """Start counting anew."""
        self._since = None


class FrameStream(Iterator[Picture]):
    """Frames of one display, as long as it is open. Blank moments come as `Blank`.

    Iterate it, or for GLib, Qt and other loops watch `fileno` and call `latest` when it is readable. close() from any
    thread ends both: the iteration stops, the descriptor becomes readable for good and `latest` raises `Closed`. Use it
    as a context manager, or let the display's close() end it.
    """

    def __init__(self, poll: Callable[[], Picture], max_fps: float) -> None:
        """Take pictures with ``poll``; `Display.frames` makes one for you."""
        self._poll = poll
        self._pace = Pace(max_fps)
        self._patience = ModeChangePatience()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._event = -1
        self._newest: Picture | TimedOut | None = None
        self._fatal: BaseException | None = None

    def __next__(self) -> Picture:
        while not self._ended.wait(self._pace.delay()):
            try:
                picture = self._look()
            except Closed:  # the display, which ends its streams too
                break
            if picture is not None:
                return picture
        raise StopIteration

    def _look(self) -> Picture | None:
        """Take one picture; None where the plane cannot be decoded for now."""
        try:
            picture = self._poll()
        except ModeChangePatience.BORNE as error:
            self._patience.failed(error)
            return None
        self._patience.succeeded()
        return picture

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
                    args=(weakref.ref(self), self._ended, self._pace),
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
                raise self._fatal
            if self._event >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._event)
            newest, self._newest = self._newest, None
        if isinstance(newest, TimedOut):
            raise newest
        return newest

    def pump(self) -> bool:
        """Take one picture for `latest`; False when there will be no more. Called by the stream's own thread."""
        picture: Picture | TimedOut | None = None
        fatal: BaseException | None = None
        try:
            picture = self._look()
        except Closed:
            self.close()
            return False
        except TimedOut as error:
            picture = error
        except BaseException as error:  # noqa: BLE001 - latest() raises it in the consumer's thread
            fatal = error
        with self._lock:
            if self._ended.is_set():
                return False
            self._fatal = fatal
            if picture is not None or fatal is not None:
                self._newest = picture
                os.eventfd_write(self._event, 1)
        return fatal is None

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


def _pump(reference: weakref.ref[FrameStream], ended: threading.Event, pace: Pace) -> None:
    """Take pictures as long as somebody has the stream; the thread itself must not be what keeps it alive."""
    while not ended.wait(pace.delay()):
        stream = reference()
        if stream is None or not stream.pump():
            return
        del stream
