"""Where a stream of bytes goes: standard output, a file or a named pipe, written in whole pieces."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mdevdisplay.cli.output import no_output, writing_stdout
from mdevdisplay.errors import MdevDisplayError

__all__ = ["ReaderGone", "Sink", "cannot_write", "open_sink", "refuse_terminal"]


class ReaderGone(Exception):
    """Whoever read what is written has ended."""


class Sink:
    """Takes bytes for a descriptor, and returns when it has all of them."""

    def __init__(self, fd: int, path: Path | None = None) -> None:
        """Write to a descriptor; ``path`` is its file's, None for standard output."""
        self._fd = fd
        self._path = path

    def fileno(self) -> int:
        """Return the descriptor. Its poll(2) reports POLLERR or POLLHUP when the reader has gone."""
        return self._fd

    def write(self, data: bytes) -> None:
        """Write everything.

        Raises:
            ReaderGone: nobody reads it any more.
            MdevDisplayError: it cannot be written, as on a full disk.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody who has this pipe too made it so
                self._wait()
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ReaderGone from error
            except OSError as error:
                raise self._failure(error) from error

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()

    def _failure(self, error: OSError) -> MdevDisplayError:
        if self._path is None:
            return no_output(error)
        return cannot_write(self._path, error.strerror or str(error), errno=error.errno)

    def close(self) -> None:
        """Close a file; it may only now be known that it had no room."""
        if self._path is None:
            return
        try:
            os.close(self._fd)
        except OSError as error:
            raise self._failure(error) from error


def cannot_write(target: Path, why: str, **details: Any) -> MdevDisplayError:
    """Return the error for a file that cannot be written."""
    return MdevDisplayError(f"cannot write {str(target)!r}: {why}", cause="cannot-write", **details)


def refuse_terminal(output: str, *, what: str) -> None:
    """Raise wrong usage where the output, a file's name or ``-``, is a terminal.

    Raises:
        click.UsageError: it is one.
        MdevDisplayError: standard output is closed.
    """
    if output == "-":
        with writing_stdout():
            shown = sys.stdout.isatty()
    else:
        shown = _is_terminal(output)
    if shown:
        raise click.UsageError(f"A terminal cannot show {what}; redirect the output, or see `mdevdisplay watch`.")


def _is_terminal(path: str) -> bool:
    try:
        if not Path(path).is_char_device():
            return False
        fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False  # opening it will say why
    try:
        return os.isatty(fd)
    finally:
        os.close(fd)


@contextmanager
def open_sink(output: str) -> Generator[Sink]:
    """Open a file for writing, from its beginning, or standard output for ``-``.

    A named pipe is waited for until somebody reads it.

    Raises:
        MdevDisplayError: it cannot be opened, or at the end not be closed.
    """
    if output == "-":
        with writing_stdout():
            fd = sys.stdout.fileno()
        yield Sink(fd)
        return
    path = Path(output)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error), errno=error.errno) from error
    sink = Sink(fd, path)
    try:
        yield sink
    except BaseException:
        os.close(fd)
        raise
    sink.close()
