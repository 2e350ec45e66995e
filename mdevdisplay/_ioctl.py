"""The only call of ioctl(2) in the project.

It returns the kernel's own result, because VFIO_DEVICE_GET_GFX_DMABUF returns its file descriptor that way, and it
takes mutable buffers only: handed ``bytes``, CPython returns the buffer and the descriptor would be lost.
"""

from __future__ import annotations

import fcntl
from ctypes import Structure
from typing import Any

__all__ = ["ioctl"]


def ioctl(fd: int, request: int, argument: bytearray | Structure | int = 0) -> int:
    """Call ioctl and return its result.

    Args:
        fd: an open file descriptor.
        request: the request number.
        argument: a buffer that the kernel reads and writes, or a plain number.

    Raises:
        OSError: as the kernel says; EINTR is tried again here.
    """
    buffer: Any = argument
    while True:
        try:
            return int(fcntl.ioctl(fd, request, buffer))
        except InterruptedError:
            continue
