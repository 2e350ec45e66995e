"""Pages that cannot be touched beside all memory that is read or written, and a check of every bare comparison.

An access that leaves a mapping or a buffer by a page kills the process; a memcmp or memmove that leaves the memory
whose address was taken by a single byte is an AssertionError, and so is a buffer larger than the memory that there is.
"""

from __future__ import annotations

import mmap as _constants
from collections import deque
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mdevdisplay import _mapping
from mdevdisplay._mapping import PAGE, Mapping, _libc, page_up
from mdevdisplay.pixels import compare, pool, shadow

__all__ = ["Guards"]

Bytes = npt.NDArray[np.uint8]

_ANONYMOUS = _constants.MAP_PRIVATE | _constants.MAP_ANONYMOUS
_MAP_FIXED = 0x10
_SAMPLE = 1 << 17
_mmap = _mapping.mmap
_unmap = Mapping.__del__


class _Pages:
    """Memory of our own whose last byte is followed by a page that cannot be touched."""

    def __init__(self, size: int) -> None:
        self._whole = page_up(size) + PAGE
        self._start = _mmap(None, self._whole, _constants.PROT_READ | _constants.PROT_WRITE, _ANONYMOUS, -1, 0)
        _mmap(self._start + self._whole - PAGE, PAGE, 0, _ANONYMOUS | _MAP_FIXED, -1, 0)
        begin = (self._start + self._whole - PAGE - size) // 16 * 16  # aligned as NumPy's own
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (begin, False)}

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        munmap(self._start, self._whole)


class _NumPy:
    """NumPy with other memory for buffers."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    def empty(self, size: int, dtype: type[np.uint8]) -> Bytes:
        assert dtype is np.uint8
        return self._guards.allocate(size)

    def empty_like(self, other: Bytes) -> Bytes:
        return self._guards.allocate(other.size)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Guards:
    """Guards the memory of the framework while it is entered.

    Attributes:
        mapped: the mappings that there are: where each begins, and the memory with its guard pages.
        most: the most bytes that a buffer of the framework's may have: the largest memory that there was.
    """

    def __init__(self) -> None:
        self.mapped: dict[int, tuple[int, int]] = {}
        self.most = 0
        self._taken: deque[tuple[int, int]] = deque(maxlen=2)
        self._kept: list[tuple[Any, str, Any]] = []

    def may_need(self, size: int) -> None:
        """Note that there is memory of so many bytes."""
        self.most = max(self.most, page_up(size))

    def allocate(self, size: int) -> Bytes:
        """Return a buffer, unless it is larger than all memory that there was."""
        assert 0 < size <= max(self.most, _SAMPLE), (
            f"{size} bytes are allocated, and no memory has more than {self.most}"
        )
        return np.asarray(_Pages(size))

    def _map(self, address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        if address is not None:
            return _mmap(address, length, prot, flags, fd, offset)
        whole = page_up(length) + 2 * PAGE
        reserved = _mmap(None, whole, 0, _ANONYMOUS, -1, 0)
        try:
            start = _mmap(reserved + PAGE, length, prot, flags | _MAP_FIXED, fd, offset)
        except OSError:
            _libc.munmap(reserved, whole)
            raise
        self.mapped[start] = (reserved, whole)
        return start

    def _address(self, data: Bytes) -> int:
        start = compare.address(data)
        assert data.flags.c_contiguous
        self._taken.append((start, data.nbytes))
        return start

    def _check(self, start: int, size: int) -> None:
        assert any(first <= start and start + size <= first + there for first, there in self._taken), (
            f"{size} bytes at 0x{start:x} are not within {[(hex(first), there) for first, there in self._taken]}"
        )

    def _equal(self, one: int, other: int, size: int) -> bool:
        self._check(one, size)
        self._check(other, size)
        return compare.equal(one, other, size)

    def _move(self, target: int, source: int, size: int) -> None:
        self._check(target, size)
        self._check(source, size)
        compare.move(target, source, size)

    def replace(self, place: Any, name: str, value: Any) -> None:
        """Set an attribute until the guards are left."""
        self._kept.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    def __enter__(self) -> Self:
        mapped = self.mapped

        def unmap(mapping: Mapping) -> None:
            known = mapped.pop(mapping._address, None)
            if known is None:
                _unmap(mapping)
            else:
                _libc.munmap(*known)

        numpy = _NumPy(self)
        for place, name, value in (
            (_mapping, "mmap", self._map),
            (Mapping, "__del__", unmap),
            (shadow, "address", self._address),
            (shadow, "equal", self._equal),
            (shadow, "move", self._move),
            (shadow, "np", numpy),
            (pool, "np", numpy),
        ):
            self.replace(place, name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._kept:
            place, name, value = self._kept.pop()
            setattr(place, name, value)
