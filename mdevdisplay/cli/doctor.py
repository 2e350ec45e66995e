"""``mdevdisplay doctor``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.failure import describe_error, exit_status
from mdevdisplay.cli.options import (
    FiniteRange,
    backend_option,
    isolated_option,
    json_option,
    locator_argument,
    timeout_option,
)
from mdevdisplay.cli.output import print_json, print_line, printable
from mdevdisplay.diagnose import Ends, Report, diagnose, diagnose_all
from mdevdisplay.diagnose.facts import report_facts
from mdevdisplay.diagnose.lines import reports_lines
from mdevdisplay.errors import MdevDisplayError

__all__ = ["command"]

_WORST_FIRST = (Ends.BROKEN, Ends.USAGE, Ends.NOT_PERMITTED, Ends.NOTHING, Ends.SEEN)


@click.command("doctor", cls=Command)
@locator_argument(required=False)
@backend_option
@isolated_option
@timeout_option
@click.option(
    "--watch",
    type=FiniteRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Also wait for a change of the picture.",
)
@click.option(
    "--bundle",
    type=click.Path(),
    metavar="FILE.tar.gz",
    help="Also write all that a bug report needs into this file, without names and pixels; - is refused.",
)
@click.option("--with-names", is_flag=True, help="Leave names of VMs, devices, this host and people in the bundle.")
@click.option("--with-pixels", is_flag=True, help="Put the picture into the bundle.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    locator: str | None,
    backend: str | None,
    isolated: bool | None,
    timeout: float,
    watch: float,
    bundle: str | None,
    with_names: bool,
    with_pixels: bool,
    as_json: bool,
) -> None:
    """Say why a screen is black: a verdict, then every step with its evidence, then what to do.

    Without LOCATOR it examines this host and every vGPU of it, and opens none that no VM has. It is safe on a running
    VM.

    Exit status: 0 the picture is seen; 3 nothing is displayed; 4 not permitted; 1 something is broken; 2 wrong usage.
    """
    if (with_names or with_pixels) and bundle is None:
        raise click.UsageError("--with-names and --with-pixels are for --bundle.")
    if bundle == "-":
        raise click.UsageError("--bundle needs the name of a file: standard output is for the report.")
    look = partial(diagnose, backend=backend, isolated=isolated, timeout=timeout, watch=watch)
    reports = diagnose_all(partial(look, open_free=False)) if locator is None else [look(locator)]
    worst = min(reports, key=lambda report: _WORST_FIRST.index(report.ends))
    if not as_json:  # before the bundle, which may not be writable
        _print(reports)
    status = worst.exit_status
    facts: dict[str, Any] = {}
    if bundle is not None:
        from mdevdisplay.diagnose.bundle import write_bundle

        try:
            write_bundle(
                bundle,
                reports,
                with_names=with_names,
                with_pixels=with_pixels,
                backend=backend,
                isolated=isolated,
                timeout=timeout,
            )
            facts = {"bundle": bundle}
        except MdevDisplayError as error:
            if not as_json:
                raise
            facts, status = {"bundle_error": describe_error(error)}, exit_status(error)
    if as_json:
        told = [report_facts(report) for report in reports]
        print_json(verdict=worst.verdict, cause=worst.cause, exit_status=worst.exit_status, reports=told, **facts)
    elif bundle is not None:
        print_line(f"\nwritten: {printable(bundle)}")
    ctx.exit(status)


def _print(reports: list[Report]) -> None:
    for line in reports_lines(reports):
        print_line(
            "".join(click.style(printable(span.text), bold=span.bold or None, fg=span.colour or None) for span in line)
        )
