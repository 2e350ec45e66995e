"""Numbers out of bytes that a fuzzer, or hypothesis, makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Choices"]

T = TypeVar("T")


class Choices:
    """Takes numbers off the front of some bytes; what lies behind their end is zero, so 0 is the tame choice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, high: int, low: int = 0) -> int:
        """Return a number from ``low`` to ``high``."""
        span = high - low
        count = -(-span.bit_length() // 8)
        taken = self._data[self._place : self._place + count]
        self._place += count
        return low + int.from_bytes(taken, "little") % (span + 1)

    def of(self, values: Sequence[T]) -> T:
        """Return one of some values."""
        return values[self.number(len(values) - 1)]

    def rarely(self) -> bool:
        """Return True one time in sixteen."""
        return self.number(15) == 15

    def often(self) -> bool:
        """Return True one time in two."""
        return self.number(1) == 1

    def bytes(self, count: int) -> bytes:
        """Return some bytes."""
        taken = self._data[self._place : self._place + count]
        self._place += count
        return taken.ljust(count, b"\0")

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return max(0, len(self._data) - self._place)
