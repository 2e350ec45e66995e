"""``mdevdisplay info``."""

from __future__ import annotations

from typing import Any

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import describe_error
from mdevdisplay.cli.options import backend_option, isolated_option, json_option, locator_argument, timeout_option
from mdevdisplay.cli.output import print_json, print_line, printable
from mdevdisplay.display import Display
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError, TimedOut
from mdevdisplay.formats import fourcc_name, modifier_name
from mdevdisplay.surface import PlaneType, SurfaceInfo

_PLANES = (PlaneType.PRIMARY, PlaneType.CURSOR)


@click.command("info", cls=Command)
@locator_argument()
@backend_option
@isolated_option
@timeout_option
@json_option
def command(locator: str, backend: str | None, isolated: bool | None, timeout: float, as_json: bool) -> None:
    """Describe one display: planes, format, modifier, EDID, and how its pixels can be read."""
    with open_display(locator, backend=backend, isolated=isolated, timeout=timeout) as display:
        facts = _describe(display)
    if as_json:
        print_json(display=facts)
    else:
        _print(facts)


def _describe(display: Display) -> dict[str, Any]:
    identity = display.identity
    chosen = display.backend
    return {
        "locator": display.locator,
        "name": identity.name,
        "driver": identity.driver,
        "vendor": identity.vendor,
        "mdev_type": identity.mdev_type,
        "parent": identity.parent,
        "access": "borrowed" if display.borrowed else "owned",
        "isolated": display.isolated,
        "backend": {
            "name": chosen.name,
            "distribution": chosen.distribution,
            "version": chosen.version,
            "score": chosen.match.score,
            "reason": chosen.match.reason,
            "others": chosen.refusals,
        },
        "planes": {plane.name.lower(): _plane(display, plane) for plane in _PLANES},
        "edid": _edid(display),
        "findings": [
            {"cause": finding.cause, "evidence": finding.evidence, "remedy": finding.remedy}
            for finding in display.findings()
        ],
    }


def _plane(display: Display, plane: PlaneType) -> dict[str, Any] | None:
    """Return one plane's facts; None for nothing displayed; an error is a fact too."""
    try:
        surface = display.surface(plane)
        if surface is None:
            return None
        readable = display.readability(plane)
    except MdevDisplayError as error:
        return _failed(error)
    return {
        **_surface(surface),
        "read_by": readable.way,
        "not_readable_because": "" if readable.way else readable.reason,
        "not_mapped_because": readable.reason if readable.way else "",
    }


def _failed(error: MdevDisplayError) -> dict[str, Any]:
    """Return an error as a fact; a driver that hangs ends the description, or each question would take as long."""
    if isinstance(error, TimedOut) and error.errno is None:
        raise error
    return {"error": describe_error(error)}


def _surface(surface: SurfaceInfo) -> dict[str, Any]:
    layout = surface.format
    return {
        "format": fourcc_name(surface.fourcc),
        "format_name": layout.name if layout else "",
        "modifier": modifier_name(surface.modifier),
        "modifier_number": surface.modifier,
        "width": surface.width,
        "height": surface.height,
        "stride": surface.stride,
        "size": surface.size,
        "offset": surface.offset,
        "x": surface.x,
        "y": surface.y,
        "x_hot": surface.x_hot,
        "y_hot": surface.y_hot,
        "dmabuf_id": surface.dmabuf_id,
        "region_index": surface.region_index,
    }


def _edid(display: Display) -> dict[str, Any] | None:
    try:
        edid = display.edid()
    except MdevDisplayError as error:
        return _failed(error)
    if edid is None:
        return None
    return {
        "size": len(edid.blob),
        "max_size": edid.max_size,
        "max_width": edid.max_xres,
        "max_height": edid.max_yres,
        "link": {True: "up", False: "down", None: "unknown"}[edid.link_up],
        "valid": edid.valid,
        "hex": edid.blob.hex(),
    }


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
