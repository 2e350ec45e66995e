"""``mdevdisplay completion``: click's completion, made to survive the colons in locators.

bash cuts words at colons (COMP_WORDBREAKS) and replaces only the last piece of what was typed. So the whole line is
handed over, cut here as a shell would, and what bash already has on its line is left off the answers.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from mdevdisplay.cli import Command
from mdevdisplay.cli.output import print_line

__all__ = ["ColonBashComplete", "command", "register"]

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n'
    COMPREPLY=($(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete %(prog_name)s))
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -o bashdefault -o default -F %(complete_func)s %(prog_name)s
"""


class ColonBashComplete(BashComplete):
    """bash completion of words that may contain colons."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and that one."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return what bash shall put in place of the piece behind the last colon; file names are left to bash."""
        if item.type != "plain":
            return ""
        _, incomplete = self.get_completion_args()
        line, breaks = os.environ.get("COMP_LINE", ""), os.environ.get("COMP_WORDBREAKS", ":")
        if ":" in breaks and ":" in incomplete and not _in_quotes(line):
            kept = incomplete.rindex(":") + 1
            return str(item.value)[kept:]
        return str(item.value)

    @staticmethod
    def _check_version() -> None:
        """Any bash will do: the script needs nothing newer than compopt, of 2009."""


def _in_quotes(line: str) -> bool:
    """Whether a quotation is open at the end of a line; bash cuts no words in it."""
    quote = ""
    escaped = False
    for char in line:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return bool(quote)


def register() -> None:
    """Use the class above for bash."""
    add_completion_class(ColonBashComplete, "bash")


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print a shell's completion script.

    \b
    bash: mdevdisplay completion bash > /etc/bash_completion.d/mdevdisplay
    zsh:  mdevdisplay completion zsh > "${fpath[1]}/_mdevdisplay"
    fish: mdevdisplay completion fish > ~/.config/fish/completions/mdevdisplay.fish
    """
    from mdevdisplay.cli import COMPLETE_VARIABLE, cli

    register()
    kind = get_completion_class(shell)
    if kind is not None:
        print_line(kind(cli, {}, "mdevdisplay", COMPLETE_VARIABLE).source())
