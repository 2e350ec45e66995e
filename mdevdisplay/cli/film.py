"""Writing frames of video in time: at a constant rate, or whenever something changed."""

from __future__ import annotations

import math
import select
import time
from fractions import Fraction

import attrs
import click

from mdevdisplay.cli.beat import Beat
from mdevdisplay.cli.output import printable
from mdevdisplay.cli.sink import Sink
from mdevdisplay.cli.video import Encoder, Size
from mdevdisplay.errors import TimedOut
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.stream import FrameStream

__all__ = ["MOST_NOTES", "Film", "Picture", "Timing", "say", "write_changes", "write_steadily"]

Picture = Frame | Blank

MOST_NOTES = 100
"""Lines about changes of the picture's size: a guest may change it with every frame."""
_LONGEST = 3600.0
"""Seconds of one poll(2), which takes milliseconds as an int."""


def say(locator: str, text: str) -> None:
    """Print a line about a display to standard error."""
    click.echo(printable(f"mdevdisplay: {locator}: {text}"), err=True)


class Film:
    """What has been written.

    Attributes:
        serial: the number of the picture that was written last.
        done: whether there are as many frames as were asked for.
    """

    def __init__(self, locator: str, encoder: Encoder, sink: Sink, most: int | None) -> None:
        """Write what ``encoder`` makes to ``sink``, and be done after so many frames."""
        self.serial = -1
        self.done = False
        self._locator = locator
        self._encoder = encoder
        self._sink = sink
        self._most = most
        self._frames = self._notes = 0
        self._shown = encoder.size

    def write(self, picture: Picture) -> None:
        """Write a frame."""
        if isinstance(picture, Frame) and self._encoder.size is not None:
            self._note((picture.width, picture.height), self._encoder.size)
        data = self._encoder.encode(picture if isinstance(picture, Frame) else None, picture.serial)
        if not self._frames:
            self._sink.write(self._encoder.begin())
        self._sink.write(data)
        self.serial = picture.serial
        self._frames += 1
        self.done = self._frames == self._most

    def late(self, left_out: int) -> None:
        """Say that the reader is slow."""
        say(self._locator, f"the reader takes less than was asked for: {left_out} frames are left out, and maybe more")

    def _note(self, size: Size, whole: Size) -> None:
        """Say that the picture has another size than before."""
        if size == self._shown or self._notes == MOST_NOTES:
            return
        self._shown = size
        self._notes += 1
        larger = any(one > other for one, other in zip(size, whole, strict=True))
        smaller = any(one < other for one, other in zip(size, whole, strict=True))
        how = " and ".join(["cropped"] * larger + ["padded with black"] * smaller)
        text = f"the picture is {size[0]}x{size[1]} now" + (f", {how} to {whole[0]}x{whole[1]}" if how else "")
        say(self._locator, text + ("; no more is said of that" if self._notes == MOST_NOTES else ""))


@attrs.frozen(kw_only=True)
class Timing:
    """How many frames a second, and for how many seconds."""

    rate: Fraction
    seconds: float | None

    @property
    def count(self) -> float:
        """How many frames there are."""
        return math.inf if self.seconds is None else math.ceil(Fraction(str(self.seconds)) * self.rate)


def write_steadily(stream: FrameStream, film: Film, first: Picture, timing: Timing, ends: tuple[int, ...]) -> None:
    """Write frames at a constant rate."""
    current: Picture = first
    coming: Picture | None = None
    stream.fileno()  # looks from now on
    beat = Beat(timing.rate, time.monotonic())
    while True:
        film.write(current)
        said = beat.left_out
        beat.written(time.monotonic())
        if beat.left_out and not said:
            film.late(beat.left_out)
        if film.done or beat.count >= timing.count or not _wait(ends, beat.due):
            return
        while coming is not None or (coming := _latest(stream)) is not None:
            if coming.timestamp > beat.due:
                break  # a later frame's
            current, coming = coming, None


def write_changes(
    stream: FrameStream, film: Film, first: Picture, seconds: float | None, ends: tuple[int, ...]
) -> None:
    """Write a frame whenever something changed."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    film.write(first)
    while not film.done and _wait(ends, end, news=stream.fileno()):
        picture = _latest(stream)
        if picture is not None and picture.serial != film.serial:
            film.write(picture)


def _latest(stream: FrameStream) -> Picture | None:
    """Return what is new, or None; a driver that is late is no news."""
    try:
        return stream.latest()
    except TimedOut:
        return None


def _wait(ends: tuple[int, ...], until: float, news: int | None = None) -> bool:
    """Wait until a moment, or for news; whether to go on: False after Ctrl-C and where the reader has gone.

    Without news the moment is what is waited for, with news it is the end.
    """
    interrupted, sink = ends
    poll = select.poll()
    poll.register(interrupted, select.POLLIN)
    poll.register(sink, 0)  # errors and hang-ups alone
    if news is not None:
        poll.register(news, select.POLLIN)
    while True:
        left = max(0.0, until - time.monotonic())
        ready = [fd for fd, _ in poll.poll(min(left, _LONGEST) * 1000)]
        if ready or left <= _LONGEST:
            return ready == [news] if news is not None else not ready
