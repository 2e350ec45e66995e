"""Frames in memory that a program and its worker both map: the worker copies once, the program copies nothing."""

from __future__ import annotations

import ctypes
import fcntl
import mmap as _constants
import os
import threading
from collections import deque
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay._mapping import Mapping, _libc, mmap, page_up
from mdevdisplay.errors import from_oserror
from mdevdisplay.pixels.pool import Lent, Storage
from mdevdisplay.region import MAX_MAPPING
from mdevdisplay.worker.wire import BadMessage

__all__ = ["Buffer", "MappedBuffers", "NeedBytes", "SharedBuffers", "SharedMapping", "is_sealed"]

Bytes = npt.NDArray[np.uint8]
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_KEPT = 4
_MAP_FIXED = 0x10
_MADV_COLLAPSE = 25
HUGE = 1 << 21
"""Bytes of a huge page; where they are larger, as on some ARM kernels, they are not used."""
_WORTH_IT = 16
"""Captures into one buffer after which it is worth to put it into huge pages."""
_MOST_MAPPED = 4096
"""The most buffers that a worker maps for one client."""


class SharedMapping(Mapping):
    """A shared mapping that can be written; the descriptor may be closed at once.

    It begins at a multiple of a huge page, so that huge pages can be mapped in both processes.
    """

    __slots__ = ()

    def __init__(self, fd: int, size: int) -> None:
        self._address = 0
        whole = page_up(size)
        reserved = mmap(None, whole + HUGE, 0, _constants.MAP_PRIVATE | _constants.MAP_ANONYMOUS, -1, 0)
        address = -(-reserved // HUGE) * HUGE
        try:
            protection = _constants.PROT_READ | _constants.PROT_WRITE
            mmap(address, size, protection, _constants.MAP_SHARED | _MAP_FIXED, fd, 0)
        except OSError:
            _libc.munmap(reserved, whole + HUGE)
            raise
        if address > reserved:
            _libc.munmap(reserved, address - reserved)
        _libc.munmap(address + whole, reserved + HUGE - address)
        self._address = address
        self.size = size
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._address, False),
        }

    def collapse(self) -> None:
        """Put the content into huge pages, as NumPy's own arrays have: copying into small ones takes 1.3 times as long.

        Unlike MADV_HUGEPAGE this works for shared memory whatever the host's settings are (Linux 6.1). It takes the
        kernel a tenth of a second. Where it cannot, everything stays as it is.
        """
        whole = self.size // HUGE * HUGE
        if whole:
            _libc.madvise(ctypes.c_void_p(self._address), ctypes.c_size_t(whole), _MADV_COLLAPSE)


def is_sealed(fd: int) -> bool:
    """Whether a descriptor is a memfd that nobody can make smaller, so that a mapping of it never raises SIGBUS."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False


class Buffer:
    """A program's buffer, known to its worker by a number.

    Attributes:
        number: what the worker calls it.
        size: its bytes, whole pages.
    """

    __slots__ = ("_mapping", "number", "size")

    def __init__(self, number: int, mapping: SharedMapping) -> None:
        self.number = number
        self.size = mapping.size
        self._mapping = mapping

    def lend(self, back: deque[Buffer]) -> Bytes:
        """Return (size,) uint8; the buffer goes ``back`` once the last array or view made from it is gone."""
        return np.asarray(_Lease(self._mapping, self, back))


class _Lease:
    """The base of every array made from a lent buffer."""

    __slots__ = ("__array_interface__", "_back", "_buffer")

    def __init__(self, mapping: SharedMapping, buffer: Buffer, back: deque[Buffer]) -> None:
        self._buffer = buffer
        self._back = back
        self.__array_interface__ = mapping.__array_interface__

    def __del__(self) -> None:
        self._back.append(self._buffer)


class SharedBuffers:
    """The buffers of one connection to a worker, on the program's side.

    Buffers come back in whatever thread drops the last view of a frame; all else is done by one thread at a time.
    """

    def __init__(self, keep: int = _KEPT) -> None:
        """Keep at most ``keep`` idle buffers, of whatever sizes: screen and cursor are read in turn."""
        self._keep = keep
        self._back: deque[Buffer] = deque()
        self._idle: list[Buffer] = []
        self._forgotten: list[int] = []
        self._numbers = 0

    def take(self, size: int) -> Buffer | None:
        """Return an idle buffer of at least ``size`` bytes, and not many more; None where there is none."""
        self._collect()
        fitting = [buffer for buffer in self._idle if size <= buffer.size <= 2 * page_up(size)]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda buffer: buffer.size)
        self._idle.remove(chosen)
        return chosen

    def make(self, size: int, device: str) -> tuple[Buffer, int]:
        """Return a new buffer, and its sealed memfd, which the caller sends to the worker and closes.

        Raises:
            DriverError: there is no memory or no descriptor for it.
        """
        try:
            fd = os.memfd_create("mdevdisplay-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                whole = page_up(size) if size < 2 * HUGE else -(-size // HUGE) * HUGE
                os.ftruncate(fd, whole)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
                mapping = SharedMapping(fd, whole)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise from_oserror(error, device=device, doing=f"making {size} bytes of shared memory") from error
        self._numbers += 1
        return Buffer(self._numbers, mapping), fd

    def lend(self, buffer: Buffer) -> Bytes:
        """Return the bytes of a buffer, lent until the last view of them is gone."""
        return buffer.lend(self._back)

    def give_back(self, buffer: Buffer) -> None:
        """Take a buffer back that was not lent after all."""
        self._back.append(buffer)

    def forget(self, buffer: Buffer) -> None:
        """Let a buffer go for good that was not lent after all."""
        self._forgotten.append(buffer.number)

    def dropped(self) -> list[int]:
        """Forget the idle buffers that are too many, the longest unused first; return the numbers of all forgotten."""
        self._collect()
        too_many = self._idle[: -self._keep] if self._keep else self._idle
        self._idle = self._idle[len(too_many) :]
        forgotten, self._forgotten = self._forgotten, []
        return [*forgotten, *(buffer.number for buffer in too_many)]

    def _collect(self) -> None:
        while self._back:
            self._idle.append(self._back.popleft())


class NeedBytes(Exception):
    """The buffer is too small.

    Attributes:
        size: how many bytes it takes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@attrs.define(eq=False)
class _Mapped:
    mapping: SharedMapping
    storage: Storage
    used: int = 0


class MappedBuffers:
    """The buffers of one client, on the worker's side; the pool of the reader while it captures for this client."""

    def __init__(self) -> None:
        self._mapped: dict[int, _Mapped] = {}
        self._current: Storage | None = None

    def add(self, number: int, fd: int) -> None:
        """Map a buffer that the client made; ``fd`` stays the caller's."""
        if not is_sealed(fd) or number in self._mapped or len(self._mapped) >= _MOST_MAPPED:
            raise BadMessage(f"descriptor for buffer {number} is no sealed memory, or there are too many")
        size = os.fstat(fd).st_size
        if not 0 < size <= MAX_MAPPING:
            raise BadMessage(f"buffer {number} has {size} bytes")
        mapping = SharedMapping(fd, size)
        self._mapped[number] = _Mapped(mapping, Storage(np.asarray(mapping)))

    def drop(self, number: int) -> None:
        """Unmap a buffer; one that is not there is no matter."""
        self._mapped.pop(number, None)

    def use(self, number: int) -> Bytes | None:
        """Capture into a buffer from now on, 0 for none; return its bytes."""
        self._current = None
        if not number:
            return None
        if number not in self._mapped:
            raise BadMessage(f"there is no buffer {number}")
        mapped = self._mapped[number]
        mapped.used += 1
        if mapped.used == _WORTH_IT:  # beside the captures, which it would hold up
            threading.Thread(target=mapped.mapping.collapse, name="mdevdisplay huge pages", daemon=True).start()
        self._current = mapped.storage
        return mapped.storage.data

    def take(self, size: int) -> Lent:
        """Return the first ``size`` bytes of the current buffer; raises `NeedBytes` where it has fewer."""
        if self._current is None or self._current.data.size < size:
            raise NeedBytes(size)
        return Lent(self._current.data[:size], self._current)
