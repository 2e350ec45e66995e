"""A driver that hangs."""

from __future__ import annotations

import threading

__all__ = ["Gate"]


class Gate:
    """Holds back what calls it, as a driver that hangs, until it is opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = threading.Event()

    def __call__(self, *_: object) -> None:
        self.waiting += 1
        assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._open.clear()
