"""Comparing and copying memory at the speed of the C library, without Python's lock."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

__all__ = ["address", "equal", "move"]

# CDLL, not PyDLL: other threads run meanwhile
_libc = ctypes.CDLL(None)
_libc.memcmp.restype = ctypes.c_int
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memmove.restype = ctypes.c_void_p
_libc.memmove.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def address(data: npt.NDArray[np.uint8]) -> int:
    """Return where an array begins in memory; the array has to be kept as long as the address is used."""
    pointer: int = data.__array_interface__["data"][0]
    return pointer


def equal(one: int, other: int, size: int) -> bool:
    """Whether ``size`` bytes at two addresses are equal (memcmp)."""
    return not _libc.memcmp(one, other, size)


def move(target: int, source: int, size: int) -> None:
    """Copy ``size`` bytes (memmove)."""
    _libc.memmove(target, source, size)
