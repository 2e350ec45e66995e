"""When a frame of video is due, and which picture it shows: arithmetic on moments, no clock of its own."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["MOST_LATE", "Beat"]

MOST_LATE = 5.0
"""Seconds of video that are made up for after a delay; what is later still is left out."""
_LAG = 0.02
"""Seconds by which a frame is written after its picture was to be looked at, half a frame at most: looks jitter."""


class Beat:
    """Counts frames of a constant rate from a first moment on.

    Attributes:
        count: the number of the next frame, which is how many are over, those left out too.
        left_out: how many frames were never written since they were too late.
    """

    def __init__(self, rate: Fraction, first: float) -> None:
        """Begin with frame 0, which is written at the moment ``first``, in seconds."""
        self.count = 0
        self.left_out = 0
        self._rate = rate
        self._begin = first + min(_LAG, float(1 / rate / 2))

    @property
    def due(self) -> float:
        """The moment at which the next frame is due; it shows the newest picture of up to then."""
        return self._begin + float(self.count / self._rate)

    def written(self, now: float) -> None:
        """Go on to the next frame; leave out those that are more than `MOST_LATE` late."""
        self.count += 1
        late = now - self.due - MOST_LATE
        if late > 0:
            skipped = int(late * self._rate) + 1
            self.count += skipped
            self.left_out += skipped
