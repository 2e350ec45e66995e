#!/usr/bin/env python3
"""Let one user see one VM's screen, without a privilege of his own.

Run it as root, or with CAP_SYS_PTRACE. It takes the descriptor of the VM's vGPU and hands a duplicate to whoever
connects to the socket as that user, until the VM ends:

    hand_over.py vm:win10 /run/win10-screen.sock alice

    alice$ mdevdisplay watch unix:/run/win10-screen.sock

Alice's reader is a process of its own that drops what it can, and her other programs cannot take the descriptor out of
it. Who has the descriptor can change the VM's device: hand it to programs that you trust as much as the VMM.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import select
import socket
import struct
from pathlib import Path

from mdevdisplay.host import open_device
from mdevdisplay.source import Lifeline
from mdevdisplay.vfio import Device


def main() -> None:
    parser = argparse.ArgumentParser(description="Hand a running VM's vGPU to one user's mdevdisplay.")
    parser.add_argument("locator", help="as for mdevdisplay: vm:NAME, a UUID")
    parser.add_argument("socket", type=Path, help="where to listen")
    parser.add_argument("user", help="who may connect: a name or a uid")
    arguments = parser.parse_args()
    uid = int(arguments.user) if arguments.user.isdigit() else pwd.getpwnam(arguments.user).pw_uid
    with open_device(arguments.locator) as device, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        arguments.socket.unlink(missing_ok=True)
        listener.bind(str(arguments.socket))
        os.chown(arguments.socket, uid, -1)
        arguments.socket.chmod(0o600)
        listener.listen()
        print(f"listening on {arguments.socket}", flush=True)
        serve(device, listener, uid)
    arguments.socket.unlink(missing_ok=True)


def serve(device: Device, listener: socket.socket, uid: int) -> None:
    """Hand the device to the user's connections; return when the VM has ended."""
    words: dict[str, object] = {"device": device.identity.name}
    watched: list[socket.socket | Lifeline] = [listener]
    if device.lifeline is not None:
        watched.append(device.lifeline)
        words["pid"] = getattr(device.lifeline, "pid", None)
    message = json.dumps(words).encode()
    while True:
        ready, _, _ = select.select(watched, [], [])
        if listener not in ready:
            return
        connection, _ = listener.accept()
        with connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", credentials)[1] == uid:
                socket.send_fds(connection, [message], [device.fileno()])


if __name__ == "__main__":
    main()
