"""Finding the worker that reads a device already: each listens on an abstract socket that is named by the device.

Whoever binds the name first is the one. Only root and the user who started it may connect; whoever connects checks
likewise that the name was bound by root or by its own user, since any user may bind any name. Abstract names belong to
a network namespace: readers in two containers do not find each other.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

from mdevdisplay.host.locate import host_name
from mdevdisplay.source import Source
from mdevdisplay.vfio.device import Device

__all__ = ["connect_to", "device_of_locator", "device_of_source", "listen", "peer_uid", "shared_name", "trusted"]

_MOST = 100
"""The most bytes of a name; sun_path has 108."""


def device_of_locator(locator: str) -> str:
    """Return the device that a locator names by itself, "" where only attaching tells."""
    return host_name(locator) or ""


def device_of_source(source: Source) -> str:
    """Return the name of a host's device, "" for anything else: simulated displays are not shared."""
    return source.identity.name if isinstance(source, Device) else ""


def shared_name(device: str, backend: str | None, output: int) -> str:
    """Return the name of the socket, "" where the device cannot be shared."""
    if not device:
        return ""
    name = f"mdevdisplay/{os.getuid()}/{device}/{output}/{backend or ''}"
    return name if len(name.encode("utf-8", "surrogateescape")) <= _MOST else ""


def listen(name: str) -> socket.socket | None:
    """Bind a name and listen; None where somebody has it already, or abstract sockets do not work."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(b"\0" + os.fsencode(name))
        listener.listen(16)
        listener.setblocking(False)
    except OSError:
        listener.close()
        return None
    return listener


def peer_uid(connection: socket.socket) -> int:
    """Return the user behind a connection: of the one who connected, or who called listen(2)."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def trusted(uid: int, own: int) -> bool:
    """Whether a user may share with ours."""
    return uid in (0, own)


def connect_to(name: str) -> socket.socket | None:
    """Connect to a worker; None where nobody is there any more, or it is a stranger's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with suppress(OSError):
        connection.settimeout(1)
        connection.connect(b"\0" + os.fsencode(name))
        connection.settimeout(None)
        if trusted(peer_uid(connection), os.getuid()):
            return connection
    connection.close()
    return None
