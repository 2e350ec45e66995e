"""``mdevdisplay stream``: a display as video."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.film import Film, Picture, Timing, say, write_changes, write_steadily
from mdevdisplay.cli.options import (
    FiniteRange,
    backend_option,
    chosen_plane,
    cursor_option,
    isolated_option,
    locator_argument,
    plane_option,
    timeout_option,
    wait_option,
)
from mdevdisplay.cli.sink import ReaderGone, open_sink, refuse_terminal
from mdevdisplay.cli.video import FORMATS, Encoder, Size
from mdevdisplay.display import Display
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import NothingDisplayed
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.surface import PlaneType

_LARGEST = 16384


def _read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> Size | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value, re.ASCII)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= number <= _LARGEST for number in size):
        text = f"{value!r} is not a size as in 1920x1080, of at most {_LARGEST} each way."
        raise click.BadParameter(text, ctx, param)
    return size


@click.command("stream", cls=Command)
@locator_argument()
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="y4m",
    show_default=True,
    help="YUV4MPEG2, PPM files in a row, or bare B, G, R, A bytes.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, allow_dash=True),
    default="-",
    metavar="FILE|-",
    help="Where to write; - is standard output.  [default: -]",
)
@click.option(
    "--fps",
    type=FiniteRange(0.1, 240),
    default=30.0,
    show_default=True,
    help="Frames a second; with --changes at most.",
)
@click.option("--changes", is_flag=True, help="A frame only when something changed; ppm and raw.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many frames.")
@click.option(
    "--seconds",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop after so much time.",
)
@click.option(
    "--size", callback=_read_size, metavar="WxH", help="The size of every frame.  [default: the first picture's]"
)
@wait_option
@click.option("--reconnect", is_flag=True, help="Wait for a VM that ends to come back; black meanwhile.")
@plane_option
@cursor_option
@backend_option
@isolated_option
@timeout_option
def command(
    locator: str,
    kind: str,
    output: str,
    fps: float,
    changes: bool,
    frames: int | None,
    seconds: float | None,
    size: Size | None,
    wait: float,
    reconnect: bool,
    plane: str,
    cursor: bool,
    backend: str | None,
    isolated: bool | None,
    timeout: float,
) -> None:
    """Write a display as video, for FFmpeg, openQA and others; Ctrl-C ends it.

    \b
    mdevdisplay stream vm:win10 | ffmpeg -i - -pix_fmt yuv420p win10.mp4
    mdevdisplay stream vm:win10 --format ppm --changes | ffmpeg -f image2pipe -i - %04d.png
    mdevdisplay stream vm:win10 --format raw --size 1280x720 |
        ffmpeg -f rawvideo -pixel_format bgra -video_size 1280x720 -framerate 30 -i - win10.mkv

    The rate is constant: as many frames as the time that passed has, whatever happens. A picture that does not change,
    or that cannot be read in time, comes again. Up to 5 seconds are made up for where the reader does not keep up; the
    rest is left out, and said.

    y4m is 4:4:4, BT.601 in full range, and its header says XCOLORRANGE=FULL; FFmpeg reads it right. Programs that take
    BT.709 for a large picture want to be told. ppm is 8-bit R, G, B, each picture in its own size, or that of --size.
    raw is B, G, R, A, 4 bytes a pixel, nothing between rows and frames; standard error says its size.

    y4m and raw have one size, the first picture's or that of --size. Another picture goes to the top left, cropped or
    padded with black, and a line on standard error says so.

    A screen that shows nothing is black. Where it does so at first, --wait waits; then it is status 3, or with --size
    black until there is a picture.

    --frames, --seconds, Ctrl-C and a reader that ends are status 0; the first three after a whole frame. When the VM
    ends it is status 1, or with --reconnect black until it is back.
    """  # noqa: D301 - click's mark of lines to keep
    if changes and kind == "y4m":
        raise click.UsageError("y4m has a constant rate; --changes goes with --format ppm or raw.")
    chosen = chosen_plane(plane, cursor=cursor)
    refuse_terminal(output, what="video")
    opening = open_display(locator, backend=backend, isolated=isolated, reconnect=reconnect, timeout=timeout)
    with opening as display:
        first = _first(display, chosen, cursor=cursor, wait=wait, black=size is not None)
        if size is None and kind != "ppm" and isinstance(first, Frame):
            size = (first.width, first.height)
        rate = Fraction(str(fps)).limit_denominator(1001)
        with open_sink(output) as sink, _control_c() as interrupted:
            if kind == "raw" and size is not None:
                pace = "a frame for each change" if changes else f"{fps:g} frames a second"
                say(locator, f"raw video: bgra, {size[0]}x{size[1]}, {pace}")
            film = Film(locator, Encoder(kind, rate, size), sink, frames)
            ends = (interrupted, sink.fileno())
            with display.frames(plane=chosen, max_fps=fps, cursor=cursor, repeat=not changes) as stream:
                try:
                    if changes:
                        write_changes(stream, film, first, seconds, ends)
                    else:
                        write_steadily(stream, film, first, Timing(rate=rate, seconds=seconds), ends)
                except ReaderGone:
                    pass


def _first(display: Display, plane: PlaneType, *, cursor: bool, wait: float, black: bool) -> Picture:
    """Return the first picture; with ``black`` a blank where there is none."""
    try:
        return display.capture(plane, cursor=cursor, wait=wait)
    except NothingDisplayed:
        if not black:
            raise
        return Blank(serial=0, timestamp=time.monotonic())


@contextmanager
def _control_c() -> Generator[int]:
    """Yield a descriptor that is readable after Ctrl-C, so that no frame is cut short; the second one ends at once."""
    before = signal.getsignal(signal.SIGINT)
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        if before is not signal.SIG_IGN:  # as in the background of a shell script

            def first(*_: object) -> None:
                signal.signal(signal.SIGINT, before)
                os.eventfd_write(event, 1)

            signal.signal(signal.SIGINT, first)
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(event)
