"""The core's only call of ioctl(2).

It returns the kernel's own result, because VFIO_DEVICE_GET_GFX_DMABUF returns its file descriptor that way, and it
takes mutable buffers only: handed ``bytes``, CPython returns the buffer and the descriptor would be lost.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from ctypes import Structure
from functools import partial
from typing import Any

__all__ = ["bound_ioctl", "ioctl"]


def bound_ioctl(fd: int) -> Callable[[int, bytearray], int]:
    """Return a bare ioctl for one descriptor: (request, buffer) -> result, without a call of Python in between.

    It is for the query of every frame. Its caller tries EINTR again, and forgets it when it closes the file.
    """
    return partial(fcntl.ioctl, fd)


def ioctl(fd: int, request: int, argument: bytearray | Structure | int = 0) -> int:
    """Call ioctl and return its result.

    Args:
        fd: an open file descriptor.
        request: the request number.
        argument: a buffer that the kernel reads and writes, or a plain number.

    Raises:
        OSError: as the kernel says; EINTR is tried again here.
        TypeError: the buffer is immutable.
    """
    buffer: Any = argument
    if type(buffer) is bytes:  # whoever does without a type checker would lose a descriptor
        raise TypeError("ioctl needs a bytearray or a number, not bytes")
    while True:
        try:
            return int(fcntl.ioctl(fd, request, buffer))
        except InterruptedError:
            continue
