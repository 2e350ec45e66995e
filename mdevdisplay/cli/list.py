"""``mdevdisplay list``."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import complain, describe_error
from mdevdisplay.cli.options import json_option, timeout_option
from mdevdisplay.cli.output import JSON_VERSION, print_json, print_line, print_table, printable
from mdevdisplay.display import list_devices
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError, NothingDisplayed
from mdevdisplay.formats import fourcc_name
from mdevdisplay.source import DeviceInfo

if TYPE_CHECKING:
    from rich.console import RenderableType

_TITLES = ("LOCATOR", "PARENT", "TYPE", "BACKEND", "VM", "PID", "STATE")
_NOTHING = "No virtual GPU on this host. Try the simulated one: mdevdisplay screenshot sim:"
_INTERVAL = 1.0
"""Seconds between two looks of --watch."""


@click.command("list", cls=Command)
@click.option("--probe", is_flag=True, help="Open each device and ask what it shows.")
@click.option("--watch", is_flag=True, help="Keep looking, and show what changes; Ctrl-C ends it.")
@timeout_option
@json_option
def command(probe: bool, watch: bool, timeout: float, as_json: bool) -> None:
    r"""List every display of this host, and the VM that uses it.

    From sysfs and /proc alone, without touching a device; --probe opens each one. A backend that cannot list its own is
    said on standard error, and does not keep the others from it.

    \b
    STATE is "in use", "free", "not bound" (no VFIO driver has it) or "unknown":
    no process that may be looked at has it, and there are others; ask as root.

    --watch draws the table anew on a terminal; elsewhere it prints the table, or with --json one line, at each change.
    """
    if watch and probe:
        raise click.UsageError("--watch touches no device, so it goes without --probe.")
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(as_json=as_json)
        return
    found, errors = list_devices()
    answers = [_probe(device.locator, timeout) for device in found] if probe else None
    if as_json:
        rows = [_entry(device) for device in found]
        if answers is not None:
            rows = [{**row, "probe": answer} for row, answer in zip(rows, answers, strict=True)]
        print_json(devices=rows, errors=[describe_error(error) for error in errors])
    else:
        _print(found, errors, answers)


def _print(
    found: Sequence[DeviceInfo], errors: Sequence[MdevDisplayError], answers: list[dict[str, Any]] | None = None
) -> None:
    for error in errors:
        complain(error)
    if not found:
        print_line(_NOTHING)
        return
    if answers is None:
        print_table(_TITLES, [_columns(device) for device in found])
        return
    titles = [*_TITLES, "MODE", "FORMAT"]
    lines = [
        [*_columns(device, answer["backend"]), *_shown(answer)] for device, answer in zip(found, answers, strict=True)
    ]
    if any("error" in answer for answer in answers):
        titles.append("ERROR")
        lines = [[*line, _failure(answer)] for line, answer in zip(lines, answers, strict=True)]
    print_table(titles, lines)


def _entry(device: DeviceInfo) -> dict[str, Any]:
    identity = device.identity
    return {
        "locator": device.locator,
        "parent": identity.parent,
        "mdev_type": identity.mdev_type,
        "type_name": device.type_name,
        "driver": identity.driver,
        "vendor": identity.vendor,
        "vm": device.vm,
        "vm_uuid": device.vm_uuid,
        "pid": device.pid,
        "state": device.state,
        "listed_by": device.backend,
    }


def _columns(device: DeviceInfo, backend: str = "") -> list[str]:
    identity = device.identity
    pid = "" if device.pid is None else str(device.pid)
    return [
        device.locator,
        identity.parent,
        identity.mdev_type,
        backend or device.backend,
        device.vm,
        pid,
        device.state,
    ]


# --- what each device shows ---


def _probe(locator: str, timeout: float) -> dict[str, Any]:
    """Return what one device shows, or why it cannot be asked; no device stops the list."""
    try:
        with open_display(locator, isolated=None, timeout=timeout) as display:
            answer: dict[str, Any] = {"backend": display.backend.name}
            try:
                surface = display.surface()
                if surface is None:
                    raise NothingDisplayed("the primary plane shows nothing", device=locator)
            except MdevDisplayError as error:
                return {**answer, "error": describe_error(error)}
            return {
                **answer,
                "width": surface.width,
                "height": surface.height,
                "format": fourcc_name(surface.fourcc),
            }
    except MdevDisplayError as error:
        return {"backend": "", "error": describe_error(error)}


def _shown(answer: dict[str, Any]) -> tuple[str, str]:
    return ("", "") if "error" in answer else (f"{answer['width']}x{answer['height']}", answer["format"])


def _failure(answer: dict[str, Any]) -> str:
    return f"{answer['error']['cause']}: {answer['error']['message']}" if "error" in answer else ""


# --- watching ---


@attrs.frozen
class _Look:
    """What one look at the host found, comparable with the next one."""

    devices: tuple[DeviceInfo, ...]
    errors: tuple[str, ...]

    @classmethod
    def now(cls) -> tuple[_Look, list[MdevDisplayError]]:
        devices, errors = list_devices()
        return cls(tuple(devices), tuple(map(str, errors))), errors


def _watch(*, as_json: bool) -> None:
    if not as_json and sys.stdout is not None and sys.stdout.isatty():
        _watch_on_terminal()
        return
    before: _Look | None = None
    while True:
        look, errors = _Look.now()
        if look != before:
            if as_json:
                entries = [_entry(device) for device in look.devices]
                described = [describe_error(error) for error in errors]
                print_line(json.dumps({"version": JSON_VERSION, "devices": entries, "errors": described}))
            else:
                if before is not None:
                    print_line("")
                _print(look.devices, errors)
        before = look
        if _reader_left(_INTERVAL):
            return


def _reader_left(seconds: float) -> bool:
    """Wait, and return whether whoever reads standard output has closed it, which shows without writing to it."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)  # POLLERR and POLLHUP come unasked
    except (OSError, ValueError, TypeError):  # it is no file
        time.sleep(seconds)
        return False
    return bool(poll.poll(seconds * 1000))


def _watch_on_terminal() -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            look, _ = _Look.now()
            live.update(_page(look), refresh=True)
            time.sleep(_INTERVAL)


def _page(look: _Look) -> RenderableType:
    """Return the table and, below it, what went wrong; every word made harmless."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    warnings = [Text(printable(error), style="red") for error in look.errors]
    if not look.devices:
        return Group(Text(_NOTHING), *warnings)
    table = Table(*_TITLES, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for device in look.devices:
        table.add_row(*(Text(printable(cell) or "-", overflow="fold") for cell in _columns(device)))
    return Group(table, *warnings)
