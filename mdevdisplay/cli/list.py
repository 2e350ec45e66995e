"""``mdevdisplay list``."""

from __future__ import annotations

from typing import Any

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import complain, describe_error
from mdevdisplay.cli.options import json_option, timeout_option
from mdevdisplay.cli.output import print_json, print_line, print_table
from mdevdisplay.display import list_devices
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError, NothingDisplayed
from mdevdisplay.formats import fourcc_name
from mdevdisplay.source import DeviceInfo

_TITLES = ("LOCATOR", "PARENT", "TYPE", "DRIVER", "VM")


@click.command("list", cls=Command)
@click.option("--probe", is_flag=True, help="Open each device and ask what it shows.")
@timeout_option
@json_option
def command(probe: bool, timeout: float, as_json: bool) -> None:
    """List every display of this host.

    From sysfs alone, without touching a device; --probe opens each one. A backend that cannot list its own is said on
    standard error, and does not keep the others from it.
    """
    found, errors = list_devices()
    answers = [_probe(device.locator, timeout) for device in found] if probe else None
    if as_json:
        rows = [_entry(device) for device in found]
        if answers is not None:
            rows = [{**row, "probe": answer} for row, answer in zip(rows, answers, strict=True)]
        print_json(devices=rows, errors=[describe_error(error) for error in errors])
        return
    for error in errors:
        complain(error)
    if not found:
        print_line("No virtual GPU on this host. Try the simulated one: mdevdisplay screenshot sim:")
        return
    lines = [_columns(device) for device in found]
    if answers is None:
        print_table(_TITLES, lines)
    else:
        shown = [[*line, *_shown(answer)] for line, answer in zip(lines, answers, strict=True)]
        print_table((*_TITLES, "BACKEND", "SHOWS"), shown)


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
        "pid": device.pid,
        "listed_by": device.backend,
    }


def _columns(device: DeviceInfo) -> list[str]:
    identity = device.identity
    return [device.locator, identity.parent, identity.mdev_type, identity.driver, device.vm]


def _probe(locator: str, timeout: float) -> dict[str, Any]:
    """Return what one device shows, or why it cannot be asked; no device stops the list."""
    try:
        with open_display(locator, timeout=timeout) as display:
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
    if "error" in answer:
        return answer["backend"], f"{answer['error']['cause']}: {answer['error']['message']}"
    return answer["backend"], f"{answer['width']}x{answer['height']} {answer['format']}"
