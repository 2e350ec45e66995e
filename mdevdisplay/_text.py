"""Text from VMs and drivers, made harmless."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return text with every control, format and invisible character written out as an escape.

    Names come from VMs and drivers; an escape sequence in one must not reach the terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if unicodedata.category(char)[0] not in "CZ" or char == " "
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
