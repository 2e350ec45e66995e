"""What commands print: tables, JSON, and names that cannot steer a terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["JSON_VERSION", "print_json", "print_table", "printable"]

JSON_VERSION = 1
"""Raised when a field of the JSON output goes away or changes its meaning; new fields may come any time."""


def printable(text: str) -> str:
    """Return text with every control, format and invisible character written out as an escape.

    Names come from VMs and drivers; an escape sequence in one must not reach the terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if unicodedata.category(char)[0] not in "CZ" or char == " "
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def print_json(**fields: Any) -> None:
    """Print one versioned JSON object; everything outside ASCII is escaped."""
    click.echo(json.dumps({"version": JSON_VERSION, **fields}, indent=2))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; the titles are bold on a terminal."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [list(titles), *cells]) for place in range(len(titles))]
    click.secho(_line(titles, widths), bold=True)
    for row in cells:
        click.echo(_line(row, widths))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
