"""The command line: one module a command, loaded when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from mdevdisplay import __version__

__all__ = ["Command", "cli", "main"]

COMPLETE_VARIABLE = "_MDEVDISPLAY_COMPLETE"

_COMMANDS = {
    "completion": "Print a shell's completion script.",
    "doctor": "Say why a screen is black: a verdict, every step, and what to do.",
    "info": "Describe one display: planes, format, EDID, and how its pixels can be read.",
    "list": "List every display of this host.",
    "plugins": "List the backends, and those that could not be loaded.",
    "screenshot": "Save what a display shows as a picture.",
    "stream": "Write a display as video, for FFmpeg and others.",
    "watch": "Show a display live in the terminal.",
}

_EPILOG = """\b
LOCATOR is a device's UUID or PCI address as sysfs spells it, libvirt's name of
it (mdev_…, pci_…); a running VM by its name, vm:win10 or vm:win10/1 for its
second display, or by its process, pid:4242; fd:7 or unix:PATH for a device that
a launcher hands over; or sim: for the simulated display, e.g.
sim:1280x720,format=RG16,cursor=on.

\b
Exit status: 0; 1 error; 2 wrong usage; 3 nothing displayed; 4 not permitted."""


class Command(click.Command):
    """A command whose help, and what is wrong with its words, come to a clean end."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the words; ``--help`` and ``--version`` print here."""
        as_json = "--json" in args
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except (click.UsageError, OSError) as error:
            from mdevdisplay.cli.failure import cleaned

            failure = cleaned(error, as_json=as_json)
            if failure is None:
                raise
            raise failure from error
        context.meta.setdefault("mdevdisplay.json", as_json)  # for a command that there is not
        return context


class _Commands(Command, click.Group):
    """Knows its commands by name and one line; imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [*_COMMANDS]  # "list" is a command here, once its module is loaded

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"mdevdisplay.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        from mdevdisplay.cli.failure import failing_cleanly

        with failing_cleanly(ctx):
            return super().invoke(ctx)


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mdevdisplay")
def cli() -> None:
    """See what a virtual GPU is showing."""


def main() -> None:
    """Run the command line."""
    if sys.stderr is None:  # closed; click would print errors to standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - pathlib takes time to load
    if COMPLETE_VARIABLE in os.environ:
        import_module("mdevdisplay.cli.completion").register()
    cli.main(prog_name="mdevdisplay", complete_var=COMPLETE_VARIABLE)
