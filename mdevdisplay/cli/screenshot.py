"""``mdevdisplay screenshot``."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import EXIT_ERROR, EXIT_NOTHING, complain, describe_error
from mdevdisplay.cli.options import (
    backend_option,
    chosen_plane,
    cursor_option,
    isolated_option,
    json_option,
    locator_argument,
    plane_option,
    timeout_option,
    wait_option,
)
from mdevdisplay.cli.output import print_json, print_line, printable, writing_stdout
from mdevdisplay.cli.sink import cannot_write, refuse_terminal
from mdevdisplay.display import Display, list_devices
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.formats import fourcc_name
from mdevdisplay.pixels.frame import Frame, FrameFlags
from mdevdisplay.surface import PlaneType


@click.command("screenshot", cls=Command)
@locator_argument(required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, allow_dash=True),
    metavar="FILE|-|DIR",
    help="Where to write; - is standard output (PNG).",
)
@click.option("--all", "every", is_flag=True, help="Every display of this host, a PNG each, into the folder of -o.")
@wait_option
@plane_option
@cursor_option
@backend_option
@isolated_option
@timeout_option
@json_option
def command(
    locator: str | None,
    output: str | None,
    every: bool,
    wait: float,
    plane: str,
    cursor: bool,
    backend: str | None,
    isolated: bool | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Save what a display shows as a picture.

    The name's ending says which kind: PNG, or any other that Pillow writes. Without -o the file is named after the
    locator.
    """
    opening = partial(open_display, backend=backend, isolated=isolated, timeout=timeout)
    shot = _Shot(opening, plane=chosen_plane(plane, cursor=cursor), cursor=cursor, wait=wait)
    if every:
        _take_all(shot, locator, output, as_json=as_json)
        return
    if locator is None:
        raise click.UsageError("Give a LOCATOR, or --all. `mdevdisplay list` shows what there is.")
    if output == "-":
        if as_json:
            raise click.UsageError("--json and -o - both want standard output.")
        refuse_terminal("-", what="a PNG")
    frame = shot.take(locator)
    if output == "-":
        _to_stdout(frame)
        return
    target = Path(output) if output is not None else Path(file_name(locator))
    write_picture(target, frame)
    if as_json:
        print_json(screenshot=_entry(locator, target, frame))
    else:
        print_line(f"{printable(str(target))}: {_summary(frame)}")


class _Shot:
    """How to take a picture."""

    def __init__(self, opening: Callable[[str], Display], *, plane: PlaneType, cursor: bool, wait: float) -> None:
        self._open = opening
        self._plane = plane
        self._cursor = cursor
        self._wait = wait

    def take(self, locator: str) -> Frame:
        with self._open(locator) as display:
            return display.capture(self._plane, cursor=self._cursor, wait=self._wait)


def file_name(locator: str) -> str:
    """Return a file name for a locator: ``sim.png``, ``44cc0626-….png``."""
    return (re.sub(r"[^A-Za-z0-9.-]+", "-", locator).strip("-.") or "screenshot") + ".png"


def write_picture(target: Path, frame: Frame) -> None:
    """Write a picture file whole or not at all; where the name is a device or a pipe, write into it.

    Raises:
        MdevDisplayError: it cannot be written, or the pixels cannot be converted.
    """
    try:
        if target.exists() and not target.is_file():
            frame.save(target)
        else:
            _replace(Path(os.path.realpath(target)), frame)  # a link stays a link
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(target, error.strerror or str(error), errno=error.errno) from error
    except ValueError as error:  # Pillow knows no such ending
        raise cannot_write(target, str(error), hint="the name's ending says which kind; try .png") from error


def _replace(target: Path, frame: Frame) -> None:
    """Write beside the file, and put it in its place when it is complete."""
    handle, name = tempfile.mkstemp(prefix=".mdevdisplay-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        frame.save(scratch)
        scratch.chmod(_mode_of(target))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _mode_of(target: Path) -> int:
    """Return the mode of a file, or that of a new one."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask


def _to_stdout(frame: Frame) -> None:
    data = frame.to_png()
    with writing_stdout():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _summary(frame: Frame) -> str:
    return f"{frame.width}x{frame.height} {fourcc_name(frame.surface.fourcc)}{_said(_names(frame.flags))}"


def _names(flags: FrameFlags) -> list[str]:
    """Return what is wrong with a frame, as it stands in JSON."""
    return [flag.name.lower() for flag in flags if flag.name]


def _said(names: list[str]) -> str:
    """Return the same for people: ``", torn, cursor missing"``."""
    return "".join(f", {name.replace('_', ' ')}" for name in names)


def _entry(locator: str, target: Path, frame: Frame) -> dict[str, Any]:
    return {
        "locator": locator,
        "file": str(target),
        "width": frame.width,
        "height": frame.height,
        "format": fourcc_name(frame.surface.fourcc),
        "stride": frame.surface.stride,
        "modifier": frame.surface.modifier,
        "flags": _names(frame.flags),
    }


def _take_all(shot: _Shot, locator: str | None, output: str | None, *, as_json: bool) -> None:
    """Take one picture of each device; a device that fails does not keep the others from theirs."""
    if locator is not None:
        raise click.UsageError("Give a LOCATOR or --all, not both.")
    if output is None or output == "-":
        raise click.UsageError("--all needs a folder: -o DIR.")
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error.strerror or str(error), errno=error.errno) from error
    results: list[dict[str, Any]] = []
    found, errors = list_devices()
    for device in found:
        results.append(_try(shot, device.locator, folder / file_name(device.locator)))
        if not as_json:
            _report(results[-1])
    if as_json:
        print_json(screenshots=results, errors=[describe_error(error) for error in errors])
    else:
        for failed in errors:
            complain(failed)
        if not results and not errors:
            click.echo("No virtual GPU on this host.", err=True)
    sys.exit(EXIT_ERROR if errors else _status(results))


def _try(shot: _Shot, locator: str, target: Path) -> dict[str, Any]:
    try:
        frame = shot.take(locator)
        write_picture(target, frame)
    except MdevDisplayError as error:
        return {"locator": locator, "error": describe_error(error)}
    return _entry(locator, target, frame)


def _report(result: dict[str, Any]) -> None:
    if "error" in result:
        error = result["error"]
        text = f"mdevdisplay: {result['locator']}: {error['message']} [{error['cause']}]"
        click.echo(printable(text), err=True)
    else:
        shown = f"{result['width']}x{result['height']} {result['format']}{_said(result['flags'])}"
        print_line(f"{printable(result['file'])}: {shown}")


def _status(results: list[dict[str, Any]]) -> int:
    """Where every device failed alike the status says how; any other failure is an error."""
    if not results:
        return EXIT_NOTHING
    statuses = {result["error"]["exit_status"] if "error" in result else 0 for result in results}
    return int(statuses.pop()) if len(statuses) == 1 else EXIT_ERROR
