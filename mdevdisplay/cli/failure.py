"""From an error to a message, a JSON object and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from mdevdisplay.cli.output import NO_OUTPUT, print_json, printable
from mdevdisplay.errors import (
    LocatorError,
    MdevDisplayError,
    NothingDisplayed,
    NotPermitted,
    UnknownBackend,
)

__all__ = ["EXIT_ERROR", "EXIT_NOTHING", "Failure", "describe_error", "exit_status", "failing_cleanly"]

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOTHING = 3
EXIT_NOT_PERMITTED = 4

_STATUS: tuple[tuple[type[MdevDisplayError], int], ...] = (
    (NothingDisplayed, EXIT_NOTHING),
    (NotPermitted, EXIT_NOT_PERMITTED),
    (LocatorError, EXIT_USAGE),
    (UnknownBackend, EXIT_USAGE),
)


def exit_status(error: MdevDisplayError) -> int:
    """Return the exit status that an error means."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), EXIT_ERROR)


def describe_error(error: MdevDisplayError) -> dict[str, Any]:
    """Return an error as it stands in JSON."""
    return {
        "cause": error.cause,
        "message": error.message,
        "device": error.device,
        "hint": error.hint,
        "errno": error.errno,
        "exit_status": exit_status(error),
    }


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
        error = self.error
        subject = f"{printable(error.device)}: " if error.device else ""
        click.echo(f"mdevdisplay: {subject}{printable(error.message)} [{error.cause}]", file=file or sys.stderr)
        if error.hint:
            click.echo(f"  what to do: {printable(error.hint)}", file=file or sys.stderr)


@contextmanager
def failing_cleanly(ctx: click.Context) -> Generator[None]:
    """Turn our errors into a message and an exit status; nothing else is caught."""
    try:
        yield
    except MdevDisplayError as error:
        raise Failure(error, as_json=bool(ctx.meta.get("mdevdisplay.json"))) from error
