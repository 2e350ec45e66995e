"""The core's only call of mmap(2).

Python's own ``mmap.mmap`` duplicates the descriptor that it maps and keeps the duplicate until the last view of the
memory is gone. A VFIO device stays busy that long, so a frame that somebody keeps would block the next VM. Here the
range is mapped without a descriptor of its own, and ``detach()`` swaps anonymous zero pages in, in place: old views
stay readable and hold no device.
"""

from __future__ import annotations

import ctypes
import mmap as _constants
import os
from typing import Any

__all__ = ["PAGE", "Mapping", "page_up"]

PAGE = _constants.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10


def mmap(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """Return the address that the system call gives, or raise OSError."""
    result = _libc.mmap(address, length, prot, flags, fd, offset)
    if result == _FAILED or result is None:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def page_up(size: int) -> int:
    """Round a size in bytes up to whole pages."""
    return (size + PAGE - 1) // PAGE * PAGE


class Mapping:
    """A read-only shared mapping of a file descriptor, unmapped when its last view is gone.

    NumPy arrays made from it (``numpy.asarray(mapping)``) keep it alive. The descriptor may be closed at once.

    Attributes:
        size: the length in bytes.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_address", "size")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._address = 0
        self._address = mmap(None, size, _constants.PROT_READ, _constants.MAP_SHARED, fd, offset)
        self.size = size
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._address, True),
        }

    def detach(self) -> None:
        """Replace the mapped pages by zero pages, so that views stay readable and nothing is held."""
        flags = _constants.MAP_PRIVATE | _constants.MAP_ANONYMOUS | _MAP_FIXED
        mmap(self._address, self.size, _constants.PROT_READ, flags, -1, 0)

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        if self._address:
            munmap(self._address, self.size)
