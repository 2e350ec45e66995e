"""An open display, an error and the backends, as they stand in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mdevdisplay.display import Display, backends
from mdevdisplay.errors import MdevDisplayError, TimedOut
from mdevdisplay.formats import fourcc_name, modifier_name
from mdevdisplay.hookspecs import VERSION
from mdevdisplay.surface import PlaneType, SurfaceInfo

__all__ = ["display_facts", "error_facts", "plugin_facts"]

_PLANES = (PlaneType.PRIMARY, PlaneType.CURSOR)
Describe = Callable[[MdevDisplayError], dict[str, Any]]


def error_facts(error: MdevDisplayError) -> dict[str, Any]:
    """Return an error as it stands in JSON."""
    return {
        "cause": error.cause,
        "message": error.message,
        "device": error.device,
        "hint": error.hint,
        "errno": error.errno,
    }


def display_facts(display: Display, describe_error: Describe) -> dict[str, Any]:
    """Return what `info` tells of a display.

    Args:
        display: the display.
        describe_error: makes an error a fact.

    Raises:
        TimedOut: the driver hangs; each further question would take as long.
    """
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
        "planes": {plane.name.lower(): _plane(display, plane, describe_error) for plane in _PLANES},
        "edid": _edid(display, describe_error),
        "findings": [
            {"cause": finding.cause, "evidence": finding.evidence, "remedy": finding.remedy}
            for finding in display.findings()
        ],
    }


def _plane(display: Display, plane: PlaneType, describe_error: Describe) -> dict[str, Any] | None:
    """Return one plane's facts; None for nothing displayed; an error is a fact too."""
    try:
        surface = display.surface(plane)
        if surface is None:
            return None
        readable = display.readability(plane)
    except MdevDisplayError as error:
        return _failed(error, describe_error)
    return {
        **_surface(surface),
        "read_by": readable.way,
        "not_readable_because": "" if readable.way else readable.reason,
        "not_mapped_because": readable.reason if readable.way else "",
    }


def _failed(error: MdevDisplayError, describe_error: Describe) -> dict[str, Any]:
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


def _edid(display: Display, describe_error: Describe) -> dict[str, Any] | None:
    try:
        edid = display.edid()
    except MdevDisplayError as error:
        return _failed(error, describe_error)
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


def plugin_facts() -> dict[str, Any]:
    """Return the backends, and those that could not be loaded and why."""
    manager = backends()
    return {
        "hookspec_version": list(VERSION),
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "hookspec_version": list(plugin.hookspec_version),
                "hooks": list(plugin.hooks),
            }
            for plugin in manager.plugins
        ],
        "failures": [
            {"name": failure.name, "distribution": failure.distribution, "reason": failure.reason}
            for failure in manager.failures
        ],
    }
