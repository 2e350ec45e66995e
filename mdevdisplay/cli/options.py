"""Options and arguments that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from mdevdisplay.surface import PlaneType

__all__ = [
    "PLANES",
    "FiniteRange",
    "backend_option",
    "chosen_plane",
    "cursor_option",
    "isolated_option",
    "json_option",
    "locator_argument",
    "plane_option",
    "timeout_option",
    "wait_option",
]

F = TypeVar("F", bound=Callable[..., Any])
PLANES = ("primary", "cursor", "overlay")

_PLAIN_WORD = re.compile(r"[\w./:=,+@%-]+")
"""What a shell takes for one word and nothing else, quoted or not: others may be typed but are not offered."""


class FiniteRange(click.FloatRange):
    """A number in a range: neither NaN, which click lets pass, nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number that there is.", param, ctx)
        return number


def _complete_locator(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from mdevdisplay.cli.output import printable
    from mdevdisplay.display import devices
    from mdevdisplay.errors import MdevDisplayError

    try:
        listed = devices()
        found = [CompletionItem(device.locator, help=printable(device.identity.mdev_type)) for device in listed]
        names = dict.fromkeys(device.vm for device in listed if device.vm)
        found += [CompletionItem(f"vm:{name}", help="a running VM") for name in names]
    except MdevDisplayError:
        found = []
    found.append(CompletionItem("sim:", help="the simulated display"))
    found += [CompletionItem(f"sim:{size}") for size in ("640x480", "1280x720", "1920x1080", "3840x2160")]
    return [item for item in found if item.value.startswith(incomplete) and _PLAIN_WORD.fullmatch(item.value)]


def _complete_backend(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from mdevdisplay.display import backends

    names = [plugin.name for plugin in backends().plugins]
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and _PLAIN_WORD.fullmatch(name)]


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta["mdevdisplay.json"] = value
    return value


def locator_argument(*, required: bool = True) -> Callable[[F], F]:
    """The device."""
    return click.argument("locator", required=required, shell_complete=_complete_locator)


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember_json,
    help="Print versioned JSON, errors too.",
)
backend_option = click.option(
    "--backend", metavar="NAME", shell_complete=_complete_backend, help="Use this backend instead of the best one."
)
timeout_option = click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the driver may take for an answer.",
)
isolated_option = click.option(
    "--isolated/--in-process",
    default=None,
    help="Read the device in a process of its own, or in this one.  [default: of its own where a VM uses it]",
)
plane_option = click.option(
    "--plane", type=click.Choice(PLANES), default="primary", show_default=True, help="Which plane."
)
cursor_option = click.option("--cursor", is_flag=True, help="Draw the cursor over the primary plane.")
wait_option = click.option(
    "--wait",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for a picture where nothing is displayed yet.",
)


def chosen_plane(plane: str, *, cursor: bool) -> PlaneType:
    """Return the plane of `plane_option`, over which a cursor may be drawn or not.

    Raises:
        click.UsageError: the cursor was to be drawn over another plane than the primary.
    """
    from mdevdisplay.surface import PlaneType

    if cursor and plane != "primary":
        raise click.UsageError(f"--cursor draws over the primary plane; it does not go with --plane {plane}.")
    return PlaneType[plane.upper()]
