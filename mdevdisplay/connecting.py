"""From a locator to a reader: open or attach, and choose the backend."""

from __future__ import annotations

import fcntl
import os
from functools import cache

from mdevdisplay._manager import Manager, load
from mdevdisplay.errors import DeviceGone, from_oserror
from mdevdisplay.host.handed import Words, borrow_descriptor
from mdevdisplay.host.locate import is_host_locator, open_device
from mdevdisplay.host.root import HostRoot
from mdevdisplay.reader import Reader
from mdevdisplay.source import Source

__all__ = ["backends", "connect", "connect_fd"]


@cache
def backends() -> Manager:
    """Return the installed backends; they are loaded once a process."""
    return load()


def connect(
    locator: str, backend: str | None, output: int, *, must_attach: bool = False, imports: bool = True
) -> Reader:
    """Open a device and choose its backend: what `open` does, in the calling thread and without a deadline.

    Args:
        locator: what to open.
        backend: the name of the backend, or None.
        output: the number of the output.
        must_attach: refuse a device that no VM has.
        imports: let a GPU read what a CPU cannot map.
    """
    manager = backends()
    source: Source | None = None
    if not is_host_locator(locator):  # no backend stands between the host and its own devices
        source = manager.open_locator(locator)
    source = source or open_device(locator, must_attach=must_attach)
    try:
        reader = Reader(source, manager.choose(source, backend), output=output, imports=imports)
        if locator.startswith("fd:"):  # taken over only now: a wrong backend must not cost the descriptor
            os.close(int(locator[3:]))
    except BaseException:
        source.close()
        raise
    return reader


def connect_fd(fd: int, locator: str, words: Words, backend: str | None) -> Reader:
    """Choose the backend for a duplicate of a VFIO device descriptor that this process has."""
    try:
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        raise from_oserror(error, device=locator, doing="duplicating the descriptor", kind=DeviceGone) from error
    source = borrow_descriptor(copy, locator, words, HostRoot.from_environment())
    try:
        return Reader(source, backends().choose(source, backend))
    except BaseException:
        source.close()
        raise
