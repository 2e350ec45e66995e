"""Frame buffers that are used again once nobody looks at them."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["BufferPool", "FramePool"]

Bytes = npt.NDArray[np.uint8]


class BufferPool(Protocol):
    """Where buffers come from."""

    def take(self, size: int) -> Bytes:
        """Return (size,) uint8 with undefined content."""
        ...


class _Lease:
    """The base of every array made from one buffer; the buffer returns to the pool when it dies."""

    __slots__ = ("__array_interface__", "_free", "_storage")

    def __init__(self, storage: Bytes, free: deque[Bytes]) -> None:
        self._storage = storage
        self._free = free
        self.__array_interface__: dict[str, Any] = storage.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._storage)


class FramePool:
    """Hands out buffers. A fresh one costs a page fault for every 4 KiB, a used one nothing.

    A buffer is lent as long as any array or view of it lives, so a frame that somebody keeps is never overwritten.
    """

    def __init__(self, keep: int = 4) -> None:
        """Keep at most ``keep`` idle buffers, all of the size asked for last."""
        self._free: deque[Bytes] = deque(maxlen=keep)

    def take(self, size: int) -> Bytes:
        """Return (size,) uint8 with undefined content."""
        while self._free:
            try:
                storage = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if storage.size == size:
                return np.asarray(_Lease(storage, self._free))
        return np.asarray(_Lease(np.empty(size, np.uint8), self._free))
