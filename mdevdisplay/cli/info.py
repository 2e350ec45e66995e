"""``mdevdisplay info``."""

from __future__ import annotations

from typing import Any

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import describe_error
from mdevdisplay.cli.options import backend_option, isolated_option, json_option, locator_argument, timeout_option
from mdevdisplay.cli.output import print_json, print_line, printable
from mdevdisplay.display import open as open_display
from mdevdisplay.facts import display_facts


@click.command("info", cls=Command)
@locator_argument()
@backend_option
@isolated_option
@timeout_option
@json_option
def command(locator: str, backend: str | None, isolated: bool | None, timeout: float, as_json: bool) -> None:
    """Describe one display: planes, format, modifier, EDID, and how its pixels can be read."""
    with open_display(locator, backend=backend, isolated=isolated, timeout=timeout) as display:
        facts = display_facts(display, describe_error)
    if as_json:
        print_json(display=facts)
    else:
        _print(facts)


def _print(facts: dict[str, Any]) -> None:
    chosen = facts["backend"]
    parts = (facts["name"] or facts["locator"], facts["mdev_type"] or facts["driver"], facts["access"])
    _line("device", " ".join(dict.fromkeys(part for part in parts if part)))
    if facts["parent"]:
        _line("parent", f"{facts['parent']}, driver {facts['driver'] or 'unknown'}")
    _line("backend", f"{chosen['name']} (score {chosen['score']}): {chosen['reason']}")
    for name, reason in chosen["others"].items():
        _line("", f"not {name}: {reason}")
    for name, plane in facts["planes"].items():
        _line(name, _plane_line(plane))
        if plane and "error" not in plane:
            _line("", _place_line(name, plane))
            _line("", _way_line(plane))
    _line("EDID", _edid_line(facts["edid"]))
    for finding in facts["findings"]:
        _line("finding", ": ".join(part for part in (finding["cause"], finding["evidence"]) if part))
        if finding["remedy"]:
            _line("", f"what to do: {finding['remedy']}")


def _line(title: str, text: str) -> None:
    print_line(click.style(f"{printable(title):<9}", bold=True) + printable(text))


def _plane_line(plane: dict[str, Any] | None) -> str:
    if plane is None:
        return "nothing displayed"
    if "error" in plane:
        return f"{plane['error']['message']} [{plane['error']['cause']}]"
    name = f"{plane['format']} ({plane['format_name']})" if plane["format_name"] else plane["format"]
    return f"{plane['width']}x{plane['height']} {name} {plane['modifier']}"


def _place_line(name: str, plane: dict[str, Any]) -> str:
    text = f"stride {plane['stride']}, size {plane['size']} bytes"
    if plane["dmabuf_id"] is not None:
        text += f", dma-buf id {plane['dmabuf_id']}"
    if plane["region_index"] is not None:
        text += f", region {plane['region_index']}"
    if name == "cursor":
        hot = f"{plane['x_hot']},{plane['y_hot']}" if plane["x_hot"] is not None else "unknown"
        text += f", at {plane['x']},{plane['y']}, hotspot {hot}"
    return text


def _way_line(plane: dict[str, Any]) -> str:
    if not plane["read_by"]:
        return f"not readable: {plane['not_readable_because']}"
    if plane["read_by"] == "read":
        return "readable as a file, which cannot be mapped"
    if plane["read_by"] == "import":
        return f"read back by the GPU that exported it: {plane['not_mapped_because']}"
    return f"readable through its {plane['read_by']}"


def _edid_line(edid: dict[str, Any] | None) -> str:
    if edid is None:
        return "the device has no EDID region"
    if "error" in edid:
        return f"{edid['error']['message']} [{edid['error']['cause']}]"
    limits = f"{edid['max_width'] or 'any'}x{edid['max_height'] or 'any'}"
    state = "" if not edid["size"] else ", valid" if edid["valid"] else ", not valid"
    return f"{edid['size']} of {edid['max_size']} bytes{state}, link {edid['link']}, at most {limits}"
