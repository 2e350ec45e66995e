"""``mdevdisplay watch``: a display live in the terminal, drawn by textual-image."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.options import (
    FiniteRange,
    backend_option,
    chosen_plane,
    cursor_option,
    isolated_option,
    locator_argument,
    plane_option,
    timeout_option,
)
from mdevdisplay.cli.output import printable
from mdevdisplay.display import Display
from mdevdisplay.display import open as open_display
from mdevdisplay.formats import fourcc_name
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.surface import PlaneType

if TYPE_CHECKING:
    from rich.layout import Layout


@click.command("watch", cls=Command)
@locator_argument()
@click.option("--fps", type=FiniteRange(0.1, 60), default=5.0, show_default=True, help="How often to look.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many looks.")
@click.option("--reconnect", is_flag=True, help="Wait for a VM that ends to come back.")
@plane_option
@cursor_option
@backend_option
@isolated_option
@timeout_option
def command(
    locator: str,
    fps: float,
    frames: int | None,
    reconnect: bool,
    plane: str,
    cursor: bool,
    backend: str | None,
    isolated: bool | None,
    timeout: float,
) -> None:
    """Show a display live in the terminal; Ctrl-C ends it.

    In kitty and in terminals with Sixel as a picture, elsewhere in half characters.
    """
    chosen = chosen_plane(plane, cursor=cursor)
    for stream, name in ((sys.stdout, "output"), (sys.stdin, "input")):  # the terminal is asked what it can draw
        if stream is None or not stream.isatty():
            raise click.UsageError(f"Standard {name} is not a terminal; see `mdevdisplay screenshot`.")
    # a warning of textual-image's would be drawn in the middle of drawing, without end
    logging.getLogger("textual_image").addHandler(logging.NullHandler())
    signal.signal(signal.SIGTERM, _end)
    opening = open_display(locator, backend=backend, isolated=isolated, reconnect=reconnect, timeout=timeout)
    try:
        with opening as display, suppress(KeyboardInterrupt):
            _show(display, chosen, fps, frames, cursor=cursor)
    except _Terminated:  # the terminal is as it was found; now the signal has its way
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


class _Terminated(BaseException):
    """SIGTERM came."""


def _end(_number: int, _frame: object) -> None:
    raise _Terminated


def _show(display: Display, plane: PlaneType, fps: float, most: int | None, *, cursor: bool) -> None:
    from rich.live import Live

    with (
        display.frames(plane=plane, max_fps=fps, cursor=cursor, repeat=True) as stream,  # the clock goes on
        Live(screen=True, auto_refresh=False) as live,
    ):
        for count, picture in enumerate(stream, start=1):
            live.update(_page(display, picture), refresh=True)
            if most is not None and count >= most:
                break


def _page(display: Display, picture: Frame | Blank) -> Layout:
    """Return one screenful: a line of text, and the picture as large as the rest allows."""
    from rich.layout import Layout
    from rich.text import Text
    from textual_image.renderable import Image

    if isinstance(picture, Blank):
        shown = "waiting for the VM to come back" if picture.cause else "nothing displayed"
    else:
        shown = f"{picture.width}x{picture.height} {fourcc_name(picture.surface.fourcc)}"
    title = Text(f"{printable(display.locator)}  {time.strftime('%H:%M:%S')}  {shown}", style="bold", no_wrap=True)
    page = Layout()
    below = Image(picture.to_image(), width="auto", height="auto") if isinstance(picture, Frame) else Text("")
    page.split_column(Layout(title, size=1), Layout(below))
    return page
