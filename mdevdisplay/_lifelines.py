"""Waiting for the owners of borrowed devices to end: one thread for all of them, asleep until one does."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

import attrs

__all__ = ["Lifelines"]


@attrs.frozen
class _Watch:
    """What the thread sleeps on: an epoll, and an eventfd that wakes it for good."""

    epoll: select.epoll = attrs.field(factory=select.epoll)
    end: int = attrs.field(factory=lambda: os.eventfd(0, os.EFD_CLOEXEC))

    def close(self) -> None:
        self.epoll.close()
        os.close(self.end)


class Lifelines:
    """Calls a function once a descriptor becomes readable; pidfds do when their process ends.

    The thread lives only while there is something to watch.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch: _Watch | None = None
        self._calls: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Call a function, which must not block, once ``fd`` is readable. `forget` it before it is closed."""
        with self._lock:
            if self._watch is None:
                self._watch = _Watch()
                self._watch.epoll.register(self._watch.end, select.EPOLLIN)
                thread = threading.Thread(
                    target=self._wait, args=(self._watch,), name="mdevdisplay lifelines", daemon=True
                )
                thread.start()
            self._watch.epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more. Idempotent."""
        with self._lock:
            if self._calls.pop(fd, None) is None or self._watch is None:
                return
            with suppress(OSError):
                self._watch.epoll.unregister(fd)
            if not self._calls:
                os.eventfd_write(self._watch.end, 1)
                self._watch = None

    def _wait(self, watch: _Watch) -> None:
        try:
            while True:
                for fd, _ in watch.epoll.poll():
                    if fd == watch.end:
                        return
                    with self._lock:
                        call = self._calls.get(fd) if self._watch is watch else None
                    if call is not None:
                        with suppress(Exception):  # what fails for one device must not end the others' watch
                            call()
                    del call
        finally:
            watch.close()
