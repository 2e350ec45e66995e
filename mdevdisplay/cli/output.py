"""What commands print: tables, JSON, and names that cannot steer a terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from mdevdisplay._text import printable
from mdevdisplay.errors import MdevDisplayError

__all__ = [
    "JSON_VERSION",
    "NO_OUTPUT",
    "no_output",
    "print_json",
    "print_line",
    "print_table",
    "printable",
    "writing_stdout",
]

NO_OUTPUT = "no-output"
"""The cause of the error that standard output takes nothing."""

JSON_VERSION = 1
"""Raised when a field of the JSON output goes away or changes its meaning; new fields may come any time."""


@contextmanager
def writing_stdout() -> Generator[None]:
    """Turn a closed standard output, or one on a full disk, into an error of ours; a broken pipe is left to click.

    Raises:
        MdevDisplayError: nothing can be written.
    """
    try:
        if sys.stdout is None or sys.stdout.closed:
            raise OSError(errno.EBADF, "it is closed")
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise no_output(error) from error


def no_output(error: OSError) -> MdevDisplayError:
    """Return the error of ours that standard output takes nothing, after giving it up."""
    _discard_stdout()
    return MdevDisplayError(
        f"cannot write to standard output: {error.strerror or error}",
        hint="redirect it to where there is room, or write a picture with -o FILE",
        cause=NO_OUTPUT,
        errno=error.errno,
    )


def _discard_stdout() -> None:
    """Send what is still buffered nowhere, or Python would try again at its end and complain."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def print_line(text: str, **style: Any) -> None:
    """Print a line of what was asked for, styled on a terminal; see `writing_stdout` for errors."""
    with writing_stdout():
        click.secho(text, **style)


def print_json(**fields: Any) -> None:
    """Print one versioned JSON object; everything outside ASCII is escaped."""
    import json

    print_line(json.dumps({"version": JSON_VERSION, **fields}, indent=2))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; the titles are bold on a terminal."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [list(titles), *cells]) for place in range(len(titles))]
    print_line(_line(titles, widths), bold=True)
    for row in cells:
        print_line(_line(row, widths))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
