"""One line to syslog's auth facility for every attach: who reads which VM's screen."""

from __future__ import annotations

import os
import pwd
import socket
from contextlib import suppress

from mdevdisplay.host.root import HostRoot

__all__ = ["log_attach"]

_AUTH_NOTICE = 4 << 3 | 5
"""LOG_AUTH | LOG_NOTICE of syslog(3)."""
_MOST = 900
"""Bytes of a line; RFC 3164 allows 1024 with its header."""


def log_attach(root: HostRoot, *, whose: str, device: str) -> None:
    """Send the line; a host without a syslog daemon has nobody to tell.

    Not by Python's syslog module, whose settings belong to the program that we are part of.

    Args:
        root: where the host's /dev/log is.
        whose: whose device it is, e.g. "VM 'win10' (pid 4242)".
        device: the device's name, or the locator.
    """
    text = f"mdevdisplay[{os.getpid()}]: {_user()} reads the screen of {whose}, device {device}"
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as log:
        log.setblocking(False)  # a syslog daemon that hangs must not take us with it
        log.connect(str(root.dev / "log"))
        log.send(f"<{_AUTH_NOTICE}>{line}".encode("utf-8", "replace")[:_MOST])


def _user() -> str:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "user"
    sudo = os.environ.get("SUDO_USER", "")
    return f"{name}({uid})" + (f" for {sudo}" if sudo else "")
