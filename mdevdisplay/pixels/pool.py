"""Frame buffers that are used again once nobody looks at them."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["BufferPool", "FramePool", "Lent", "Storage"]

Bytes = npt.NDArray[np.uint8]


@attrs.define(eq=False)
class Storage:
    """One buffer's memory.

    Attributes:
        data: (n,) uint8.
        holds: what was written into it last, as (number of the picture, its serial); None for anything else.
    """

    data: Bytes
    holds: tuple[int, int] | None = None


@attrs.frozen(eq=False)
class Lent:
    """A buffer for one frame.

    Attributes:
        data: (size,) uint8; the buffer is lent as long as any array or view of it lives.
        storage: where to note what it holds.
    """

    data: Bytes
    storage: Storage


class BufferPool(Protocol):
    """Where buffers come from."""

    def take(self, size: int) -> Lent:
        """Return a buffer of ``size`` bytes that holds what its storage says."""
        ...


class _Lease:
    """The base of every array made from one buffer; the buffer returns to the pool when it dies."""

    __slots__ = ("__array_interface__", "_free", "_storage")

    def __init__(self, storage: Storage, free: deque[Storage]) -> None:
        self._storage = storage
        self._free = free
        self.__array_interface__: dict[str, Any] = storage.data.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._storage)


class FramePool:
    """Hands out buffers. A fresh one costs a page fault for every 4 KiB, a used one nothing.

    A buffer is lent as long as any array or view of it lives, so a frame that somebody keeps is never overwritten.
    """

    def __init__(self, keep: int = 4) -> None:
        """Keep at most ``keep`` idle buffers, of whatever sizes: screen and cursor are read in turn."""
        self._free: deque[Storage] = deque(maxlen=keep)

    def take(self, size: int) -> Lent:
        """Return a buffer of ``size`` bytes."""
        for _ in range(len(self._free)):
            try:
                storage = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if storage.data.size == size:
                return self._lend(storage)
            self._free.appendleft(storage)
        return self._lend(Storage(np.empty(size, np.uint8)))

    def _lend(self, storage: Storage) -> Lent:
        return Lent(np.asarray(_Lease(storage, self._free)), storage)
