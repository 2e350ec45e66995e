"""``mdevdisplay plugins``."""

from __future__ import annotations

import click

from mdevdisplay.cli import Command
from mdevdisplay.cli.options import json_option
from mdevdisplay.cli.output import print_json, print_line, print_table, printable
from mdevdisplay.display import backends
from mdevdisplay.facts import plugin_facts


@click.command("plugins", cls=Command)
@json_option
def command(as_json: bool) -> None:
    """List the backends, and those that could not be loaded and why."""
    manager = backends()
    if as_json:
        print_json(**plugin_facts())
        return
    print_table(
        ("NAME", "FROM", "SPEC", "HOOKS"),
        [
            (
                plugin.name,
                f"{plugin.distribution} {plugin.version}",
                ".".join(map(str, plugin.hookspec_version)),
                " ".join(plugin.hooks),
            )
            for plugin in manager.plugins
        ],
    )
    for failure in manager.failures:
        print_line(
            f"not loaded: {printable(failure.name)} of {printable(failure.distribution)}: {printable(failure.reason)}",
            fg="red",
        )
