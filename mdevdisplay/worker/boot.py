"""What a worker does first: it learns what it is to read, and only then imports what that takes."""

from __future__ import annotations

import os
import signal
import socket

from mdevdisplay.worker import points, wire

__all__ = ["main"]


def main(fd: int) -> None:
    """Serve the program at the other end of a socket, until it is gone. Does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    status = 1
    try:
        connection = socket.socket(fileno=fd)
        connection.set_inheritable(False)
        request = wire.receive(connection)
        points.install_points(request.body["points"])
        from mdevdisplay.worker.server import serve

        serve(connection, request.body)
        status = 0
    except wire.PeerGone:
        status = 0
    except BaseException:  # noqa: BLE001 - the status tells the program
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)  # what is left needs no clean-up, and an interpreter's takes its time
