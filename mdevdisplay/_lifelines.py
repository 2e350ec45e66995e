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
        # reentrant: a display that is collected in the middle of a call here forgets its own
        self._lock = threading.RLock()
        self._watch: _Watch | None = None
        self._calls: dict[int, Callable[[], object]] = {}
        os.register_at_fork(after_in_child=self._after_fork)

    def watch(self, fd: int, call: Callable[[], object], events: int = select.EPOLLIN) -> None:
        """Call a function, which must not block, once ``fd`` is readable. `forget` it before it is closed.

        With ``events`` EPOLLRDHUP it is called once the other end of a socket is closed.
        """
        with self._lock:
            self._calls[fd] = call  # first: while there is one, nobody ends the thread
            try:
                if self._watch is None:
                    self._watch = self._start()
                self._watch.epoll.register(fd, events | select.EPOLLONESHOT)
            except BaseException:
                self.forget(fd)
                raise

    def _start(self) -> _Watch:
        watch = _Watch()
        try:
            watch.epoll.register(watch.end, select.EPOLLIN)
            threading.Thread(target=self._wait, args=(watch,), name="mdevdisplay lifelines", daemon=True).start()
        except BaseException:
            watch.close()
            raise
        return watch

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more. Idempotent."""
        with self._lock:
            watch = self._watch
            if self._calls.pop(fd, None) is None or watch is None:
                return
            with suppress(OSError, ValueError):
                watch.epoll.unregister(fd)
            if not self._calls:
                self._watch = None
                os.eventfd_write(watch.end, 1)

    def _after_fork(self) -> None:
        """Begin anew in a child: the epoll is the parent's too, the thread is the parent's alone."""
        watch, self._watch = self._watch, None
        self._lock = threading.RLock()
        self._calls.clear()
        if watch is not None:
            watch.close()

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
