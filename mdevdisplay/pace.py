"""When to look at a display again, what of it to hand on, and what a stream has seen: no threads and no driver here.

`mdevdisplay.stream` and `mdevdisplay.aio` put a loop around it.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque

import attrs

from mdevdisplay.errors import BadSurface, GuestChangingMode
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags

__all__ = ["Follower", "ModeChangePatience", "Pace", "StreamStatistics"]

Picture = Frame | Blank

IDLE_INTERVAL = 0.1
"""The longest seconds between two looks at a display where nothing changes, if ``max_fps`` allows for more."""
_QUIET = 8
"""Looks without a change before they become rarer."""
_SLOWER = 1.25
_STALE_AFTER = 0.2
"""Seconds for which a plane cannot be read before its last picture is handed on as stale."""
_REMEMBERED = 120


class Pace:
    """Says when the next look is due: at most ``max_fps`` a second, rarer while nothing changes, never to catch up."""

    def __init__(self, max_fps: float) -> None:
        if not 0 < max_fps < math.inf:
            raise ValueError(f"max_fps {max_fps} is not a number above 0")
        self._shortest = self._interval = 1.0 / max_fps
        self._due = 0.0
        self._quiet = 0

    def delay(self) -> float:
        """Return the seconds to wait now, and count the look that follows as done."""
        now = time.monotonic()
        wait = max(0.0, self._due - now)
        # a whole interval late, as at first, the beat starts anew: it would be two looks at once otherwise
        self._due = (self._due if now - self._due < self._interval else now) + self._interval
        return wait

    def late(self) -> None:
        """Count from now on: something else than the pace has held the look up that is due now."""
        self._due = time.monotonic() + self._interval

    def changed(self) -> None:
        """Go on at the full rate from the next look on."""
        self._quiet = 0
        if self._interval != self._shortest:
            self._interval = self._shortest
            self._due = time.monotonic() + self._shortest

    def unchanged(self) -> None:
        """Look less often after a while."""
        self._quiet += 1
        if self._quiet > _QUIET and self._interval < IDLE_INTERVAL:
            self._interval = min(self._interval * _SLOWER, IDLE_INTERVAL)


class ModeChangePatience:
    """Bears a plane that cannot be decoded for a while: guests change their modes."""

    BORNE = (GuestChangingMode, BadSurface)
    SECONDS = 2.0

    def __init__(self) -> None:
        self._since: float | None = None

    def failed(self, error: Exception) -> float:
        """Count a failure and return for how many seconds there have been nothing else.

        Raise it after `SECONDS`.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self.SECONDS:
            raise error
        return now - self._since

    def succeeded(self) -> None:
        """Start counting anew."""
        self._since = None


@attrs.frozen(kw_only=True)
class StreamStatistics:
    """What a stream has seen lately, at most 120 looks.

    Attributes:
        looks: how often the display was looked at, since the stream began.
        pictures: how many frames and blanks were handed on, since then.
        fps: pictures in a second.
        look_time: the median of the seconds that a look took: two queries, comparing, copying what changed.
        changed_share: the mean share of the picture's tiles that changed from look to look, 0 to 1.
        unchanged_for: seconds since the last change.
    """

    looks: int
    pictures: int
    fps: float
    look_time: float
    changed_share: float
    unchanged_for: float


@attrs.frozen
class _Look:
    at: float
    seconds: float
    share: float
    handed_on: bool


class Follower:
    """What one stream knows: its last picture, when to look again, and its statistics."""

    def __init__(self, max_fps: float, *, repeat: bool = False) -> None:
        """Follow a display. With ``repeat`` every look is handed on, at the full rate, changed or not."""
        self.last: Picture | None = None
        self._announced = 0
        self.unsure = True
        """Whether something is to be looked at, or the last look failed: the next waits for no announcement."""
        self._pace = Pace(max_fps)
        self._patience = ModeChangePatience()
        self._repeat = repeat
        self._looks: deque[_Look] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()
        self._count = self._handed_on = 0
        self._changed_at = time.monotonic()

    @property
    def announced(self) -> int:
        """How many announcements of the source have been seen; one more is to be looked at, until a look succeeds."""
        return self._announced

    @announced.setter
    def announced(self, count: int) -> None:
        self._announced = count
        self.unsure = True
        self._pace.late()

    def delay(self) -> float:
        """Return the seconds to wait until the next look."""
        return self._pace.delay()

    def took(self, picture: Picture, seconds: float) -> Picture | None:
        """Note what a look returned after so many seconds; return it where it is to be handed on."""
        self._patience.succeeded()
        self.unsure = False
        changed = picture is not self.last
        share = 0.0
        if changed:
            share = float(picture.changed_tiles.mean()) if isinstance(picture, Frame) else 1.0
            self._pace.changed()
        elif not self._repeat:
            self._pace.unchanged()
        elif isinstance(picture, Frame) and picture.changed_tiles.any():
            picture = picture.marked(FrameFlags.NONE)  # the same again, without damage
        self.last = picture
        self._note(seconds, share, handed_on=changed or self._repeat, changed=changed)
        return picture if changed or self._repeat else None

    def failed(self, error: Exception) -> Picture | None:
        """Bear a failure for a while, or raise it; return the last picture as a stale one, once."""
        self.unsure = True
        lasting = self._patience.failed(error)
        last = self.last
        if lasting < _STALE_AFTER or not isinstance(last, Frame) or FrameFlags.STALE in last.flags:
            return None
        self.last = last.marked(FrameFlags.STALE)
        self._note(0.0, 0.0, handed_on=True, changed=False)
        return self.last

    def _note(self, seconds: float, share: float, *, handed_on: bool, changed: bool) -> None:
        now = time.monotonic()
        with self._lock:
            self._count += 1
            self._handed_on += handed_on
            if changed:
                self._changed_at = now
            self._looks.append(_Look(now, seconds, share, handed_on))

    def statistics(self) -> StreamStatistics:
        """Return what the stream has seen; from any thread."""
        now = time.monotonic()
        with self._lock:
            looks = list(self._looks)
            count, handed_on, changed_at = self._count, self._handed_on, self._changed_at
        span = now - looks[0].at if len(looks) > 1 else 0.0
        return StreamStatistics(
            looks=count,
            pictures=handed_on,
            fps=sum(look.handed_on for look in looks[1:]) / span if span else 0.0,
            look_time=statistics.median(look.seconds for look in looks) if looks else 0.0,
            changed_share=sum(look.share for look in looks) / len(looks) if looks else 0.0,
            unchanged_for=now - changed_at,
        )
