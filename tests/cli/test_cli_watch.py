from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest

import mdevdisplay
from cli.helpers import PROGRAM, environment, run
from cli.terminal import Terminal

RESTORED = b"\x1b[?25h\x1b[?1049l"
"""Cursor shown, back from the alternate screen."""


class Watch(Terminal):
    """`mdevdisplay watch` in a terminal."""

    def __init__(self, *arguments: str, colours: bool = True) -> None:
        env = environment(TERM="xterm-256color", **({"COLORTERM": "truecolor"} if colours else {}))
        super().__init__([PROGRAM, "watch", *arguments], env)

    @property
    def title(self) -> str:
        return str(self.screen.display[0]).rstrip()

    def cells(self) -> list[tuple[int, int]]:
        """Return (column, row) of every cell that shows picture."""
        return [
            (column, row)
            for row in range(1, 24)
            for column in range(80)
            if self.screen.buffer[row][column].data == "\u2580"
        ]


@pytest.fixture
def watches() -> Iterator[list[Watch]]:
    started: list[Watch] = []
    yield started
    for watch in started:
        watch.child.close(force=True)


def colour(name: str) -> list[int]:
    return list(bytes.fromhex(name))


def test_the_picture_is_in_the_cells(watches: list[Watch]) -> None:
    """Two pixels a cell, as large as the terminal allows, in the picture's own colours; a title above it."""
    watch = Watch("sim:320x200,fps=0")
    watches.append(watch)
    watch.wait_for(lambda: len(watch.cells()) > 1000 and watch.screen.buffer[23][10].data == "\u2580")
    assert re.fullmatch(r"sim:320x200,fps=0  \d\d:\d\d:\d\d  320x200 XR24", watch.title)
    cells = watch.cells()
    columns, rows = max(x for x, _ in cells) + 1, max(y for _, y in cells)
    assert len(cells) == columns * rows
    assert rows == 23
    assert columns / (2 * rows) == pytest.approx(320 / 200, rel=0.05)
    with mdevdisplay.open("sim:320x200,fps=0") as display:
        small = display.capture().to_image().resize((columns, 2 * rows), PIL.Image.Resampling.BOX)
    expected = np.asarray(small).astype(int)
    shown = np.empty_like(expected)
    for column, row in cells:
        cell = watch.screen.buffer[row][column]
        shown[2 * (row - 1), column] = colour(cell.fg)
        shown[2 * (row - 1) + 1, column] = colour(cell.bg)
    assert np.abs(shown - expected).mean() < 8
    assert len({tuple(value) for value in shown.reshape(-1, 3)}) > 50
    # the colour bars at the top are plain
    assert np.abs(shown[1] - expected[1]).mean() < 8
    assert shown[1, 1].tolist() == [0xBF, 0xBF, 0xBF]


def test_control_c_ends_it(watches: list[Watch]) -> None:
    """The normal way to leave: status 0, not a word, and the terminal as it was before."""
    watch = Watch("sim:320x200", "--fps", "20")
    watches.append(watch)
    before = watch.settings()
    watch.wait_for(lambda: len(watch.cells()) > 1000)
    watch.child.sendintr()
    assert watch.end() == 0
    assert watch.raw.endswith(RESTORED)
    assert watch.raw.count(b"\x1b[?1049h") == watch.raw.count(b"\x1b[?1049l") == 1
    assert b"Traceback" not in watch.raw
    assert b"Aborted" not in watch.raw
    assert before[3] & 0xA  # echo and line editing, at least before


def test_a_sigterm_leaves_the_terminal_as_it_was(watches: list[Watch]) -> None:
    """Whoever kills it politely gets the screen back."""
    watch = Watch("sim:320x200", "--fps", "20")
    watches.append(watch)
    watch.wait_for(lambda: len(watch.cells()) > 1000)
    watch.child.kill(signal.SIGTERM)
    watch.end()
    assert watch.child.signalstatus == signal.SIGTERM
    assert watch.raw.endswith(RESTORED)
    assert b"Traceback" not in watch.raw


def test_the_terminals_modes_are_as_before() -> None:
    """A shell that runs it gets its echo and its line editing back."""
    env = environment(TERM="xterm-256color")
    script = f"stty -g; {PROGRAM} watch sim:64x64 --frames 1; stty -g"
    shell = Terminal(["/bin/sh", "-c", script], env)
    assert shell.end() == 0
    before, after = re.findall(rb"(?m)^[0-9a-f:]{30,}", re.sub(rb"\x1b\[\?1049l", b"\n", shell.raw))
    assert before == after


def test_it_follows_the_display(watches: list[Watch]) -> None:
    """Each look is drawn: the clock in the title goes on, and so does the picture, over changes of mode."""
    watch = Watch("sim:modes=64x64/320x200,mode_every=1,step=2", "--fps", "10")
    watches.append(watch)
    watch.wait_for(lambda: watch.title.endswith("320x200 XR24"))
    watch.wait_for(lambda: watch.title.endswith("64x64 XR24"))
    watch.wait_for(lambda: watch.title.endswith("320x200 XR24"))


@pytest.mark.parametrize("locator", ["sim:64x64", "sim:64x64,fps=0", "sim:64x64,blank=2-99,step=2"])
def test_a_number_of_looks(locator: str) -> None:
    """--frames ends it by itself, also where nothing changes any more: each look counts."""
    watch = Watch(locator, "--frames", "5", "--fps", "60")
    assert watch.end() == 0
    assert watch.raw.endswith(RESTORED)
    assert bool(watch.cells()) is ("blank" not in locator)


def test_the_clock_goes_on_while_nothing_changes(watches: list[Watch]) -> None:
    """A picture that stands still is told from a program that hangs."""
    watch = Watch("sim:64x64,fps=0", "--fps", "20")
    watches.append(watch)
    watch.wait_for(watch.cells)
    before = watch.title
    watch.wait_for(lambda: watch.title != before and watch.title.endswith("64x64 XR24"))
    assert watch.cells()


def test_a_dark_screen_is_shown_as_one(watches: list[Watch]) -> None:
    """Blank moments are said in words, and the picture comes back by itself."""
    watch = Watch("sim:64x64,blank=3-5/10,step=2", "--fps", "10")
    watches.append(watch)
    watch.wait_for(lambda: "nothing displayed" in watch.title and not watch.cells())
    watch.wait_for(lambda: "64x64 XR24" in watch.title and watch.cells())


def test_a_cursor_can_be_watched() -> None:
    """--plane cursor shows the pointer's picture."""
    watch = Watch("sim:64x64,cursor=on", "--plane", "cursor", "--frames", "1")
    assert watch.end() == 0
    assert "AR24" in watch.title


def test_the_cursor_is_drawn_over_the_screen() -> None:
    """--cursor, for the primary plane alone."""
    pictures = []
    for extra in ([], ["--cursor"]):
        watch = Watch("sim:64x64,cursor=on,fps=0", "--frames", "1", *extra)
        assert watch.end() == 0
        pictures.append([(watch.screen.buffer[row][column].fg, row, column) for column, row in watch.cells()])
    assert len(pictures[0]) == len(pictures[1]) > 500
    assert pictures[0] != pictures[1]
    result = run("watch", "sim:64x64", "--cursor", "--plane", "cursor")
    assert result.returncode == 2
    assert b"--plane cursor" in result.stderr


@pytest.mark.parametrize(
    ("locator", "arguments", "cause"),
    [
        ("sim:64x64,fault=gone:4", ["--fps", "60"], "device-gone"),
        ("sim:64x64,format=C8", [], "unsupported-format"),
        ("sim:64x64,fault=hang:600", ["--timeout", "0.2"], "timed-out"),
    ],
)
def test_an_error_restores_the_terminal(locator: str, arguments: list[str], cause: str) -> None:
    """What ends it is said below, on the ordinary screen."""
    watch = Watch(locator, *arguments)
    assert watch.end() == 1
    _, after = watch.raw.split(RESTORED)
    assert f"[{cause}]".encode() in after
    assert b"Traceback" not in watch.raw
    assert b"\x1b" not in after


def test_a_locator_that_is_wrong_never_touches_the_screen() -> None:
    """Usage errors come before anything is drawn."""
    watch = Watch("nonsense")
    assert watch.end() == 2
    assert b"\x1b" not in watch.raw


def test_it_wants_a_terminal() -> None:
    """Without one, for what it draws and for what it asks, it is wrong usage."""
    result = run("watch", "sim:64x64")
    assert result.returncode == 2
    assert b"Standard output is not a terminal" in result.stderr
    shell = Terminal(["/bin/sh", "-c", f"{PROGRAM} watch sim:64x64 < /dev/null"], environment(TERM="xterm"))
    assert shell.end() == 2
    assert b"Standard input is not a terminal" in shell.raw
    assert b"Traceback" not in shell.raw


def test_a_terminal_of_few_colours_is_enough() -> None:
    """Without true colour the picture comes in the colours that there are."""
    watch = Watch("sim:320x200,fps=0", "--frames", "1", colours=False)
    assert watch.end() == 0
    assert len(watch.cells()) > 1000
    assert b"38;2;" not in watch.raw


def test_a_signal_to_end_is_obeyed(watches: list[Watch]) -> None:
    """SIGHUP and SIGTERM end it as any program."""
    watch = Watch("sim:64x64")
    watches.append(watch)
    watch.wait_for(watch.cells)
    watch.child.kill(signal.SIGTERM)
    watch.end()
    assert watch.child.signalstatus == signal.SIGTERM
