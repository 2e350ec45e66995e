"""A program in a terminal: a pseudo-terminal and an emulator of what a person sees."""

from __future__ import annotations

import termios
import time
from collections.abc import Callable
from typing import Any

import pexpect
import pyte


class _Screen(pyte.Screen):
    """An emulator's screen that answers what it is asked, such as for its attributes."""

    answer: Callable[[str], object]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    """80 columns and 24 rows, or others, with a program in it.

    Attributes:
        screen: what is to be seen; ``screen.display`` has its lines.
        raw: every byte that the program wrote.
    """

    def __init__(self, command: list[str], env: dict[str, str], *, columns: int = 80, rows: int = 24) -> None:
        self.screen = _Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.child = pexpect.spawn(command[0], command[1:], env=env, dimensions=(rows, columns), timeout=30)
        self.screen.answer = self.child.send

    def settings(self) -> list[Any]:
        """Return the terminal's modes: echo, line editing and so on."""
        return termios.tcgetattr(self.child.child_fd)

    def read(self) -> bool:
        """Take in what the program writes for a moment; False where it has ended."""
        try:
            data = self.child.read_nonblocking(1 << 20, 0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def wait_for(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Read until a condition is true of what is to be seen."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.read(), f"the program ended: {self.screen.display}"
            assert time.monotonic() < end, f"not seen: {self.screen.display}"

    def end(self) -> int | None:
        """Read until the program has ended, and return its exit status."""
        while self.read():
            pass
        self.child.close()
        status: int | None = self.child.exitstatus
        return status

    @property
    def line(self) -> str:
        """The line that the cursor is in, without what is right of the cursor's last text."""
        return str(self.screen.display[self.screen.cursor.y])
