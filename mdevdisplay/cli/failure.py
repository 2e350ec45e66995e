"""From an error to a message, a JSON object and an exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from mdevdisplay.cli.output import NO_OUTPUT, no_output, print_json, printable
from mdevdisplay.errors import (
    Closed,
    LocatorError,
    MdevDisplayError,
    NothingDisplayed,
    NotPermitted,
    UnknownBackend,
)

__all__ = [
    "EXIT_ERROR",
    "EXIT_NOTHING",
    "Failure",
    "cleaned",
    "complain",
    "describe_error",
    "exit_status",
    "failing_cleanly",
]

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOTHING = 3
EXIT_NOT_PERMITTED = 4


class _WrongUsage(MdevDisplayError):
    """What click says about the words of a command line, for JSON."""

    cause = "usage"


_STATUS: tuple[tuple[type[MdevDisplayError], int], ...] = (
    (NothingDisplayed, EXIT_NOTHING),
    (NotPermitted, EXIT_NOT_PERMITTED),
    (LocatorError, EXIT_USAGE),
    (UnknownBackend, EXIT_USAGE),
    (_WrongUsage, EXIT_USAGE),
)


_NOT_FOR_THE_DOCTOR = (LocatorError, UnknownBackend, Closed)
"""Errors of the words of a command, or of a program."""


def exit_status(error: MdevDisplayError) -> int:
    """Return the exit status that an error means."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), EXIT_ERROR)


def describe_error(error: MdevDisplayError) -> dict[str, Any]:
    """Return an error as it stands in JSON."""
    from mdevdisplay.facts import error_facts

    return {**error_facts(error), "exit_status": exit_status(error)}


class Failure(click.ClickException):
    """One of our errors on its way to the terminal."""

    def __init__(self, error: MdevDisplayError, *, as_json: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.as_json = as_json
        self.exit_code = exit_status(error)  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error: for people to standard error, as JSON to standard output if that takes anything."""
        if self.as_json and self.error.cause != NO_OUTPUT:
            with suppress(MdevDisplayError):
                print_json(error=describe_error(self.error))
                return
        complain(self.error, file)


def complain(error: MdevDisplayError, file: IO[Any] | None = None) -> None:
    """Print an error for people, with every word in it made harmless."""
    stream = file or sys.stderr
    if stream is None:  # closed; click would take standard output
        return
    subject = f"{error.device}: " if error.device else ""
    click.echo(printable(f"mdevdisplay: {subject}{error.message} [{error.cause}]"), file=stream)
    if error.hint:
        click.echo(f"  what to do: {printable(error.hint)}", file=stream)
    if error.device and not isinstance(error, _NOT_FOR_THE_DOCTOR):
        click.echo(f"  more: mdevdisplay doctor {printable(shlex.quote(error.device))}", file=stream)


def cleaned(error: click.UsageError | OSError, *, as_json: bool) -> Failure | None:
    """Return what to raise for wrong usage, or for help that could not be printed; None for the error itself."""
    if isinstance(error, OSError):
        return None if isinstance(error, BrokenPipeError) else Failure(no_output(error), as_json=False)
    if not as_json:
        return None
    command = error.ctx.command_path if error.ctx is not None else "mdevdisplay"
    return Failure(_WrongUsage(error.format_message(), hint=f"see `{command} --help`"), as_json=True)


@contextmanager
def failing_cleanly(ctx: click.Context) -> Generator[None]:
    """Turn our errors, and wrong usage that only a command can tell, into a message and an exit status."""
    try:
        yield
    except MdevDisplayError as error:
        raise Failure(error, as_json=bool(ctx.meta.get("mdevdisplay.json"))) from error
    except click.UsageError as error:
        failure = cleaned(error, as_json=bool(ctx.meta.get("mdevdisplay.json")))
        if failure is None:
            raise
        raise failure from error
