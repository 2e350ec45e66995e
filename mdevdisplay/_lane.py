"""One lane a device: calls to its driver go one at a time, and a caller need not wait longer than it wants to.

A query may hang for 25 seconds inside the kernel (NVIDIA) and nothing can interrupt it. Without a deadline a call runs
right here, in the caller's thread, which costs a lock and nothing more. With one it runs in the lane's own thread; when
time is up the caller gets `TimedOut`, the call goes on alone, and what it returns late is thrown away properly.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from mdevdisplay.errors import Closed, TimedOut

__all__ = ["Lane"]

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "Future[Any]"]


class Lane:
    """Runs calls to one device, never two at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        # A baton rather than a lock: whoever has it may call. Taking it from the queue when nobody else wants it
        # costs no atomic operation (surface() is to cost little more than its ioctl).
        baton: SimpleQueue[None] = SimpleQueue()
        self.take, self.give = baton.get, baton.put
        self.give(None)
        self._entry = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def run(
        self,
        call: Callable[[], T],
        timeout: float | None = None,
        *,
        late: Callable[[T], object] | None = None,
        must_run: bool = False,
    ) -> T:
        """Run a call and return its result.

        Args:
            call: what to run.
            timeout: seconds, or None to wait as long as it takes.
            late: what to do with a result that comes after the timeout, such as closing it.
            must_run: run the call in the end even if it could not start in time, as closing has to.

        Raises:
            TimedOut: the call, or one before it, has not come back in time.
        """
        if timeout is None:
            self.take()
            try:
                return call()
            finally:
                self.give(None)
        future = self.submit(call)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                return future.result()  # the call's own timeout, or it came back at the last moment
            self.abandon(future, late, must_run=must_run)
            raise self.timed_out(timeout) from None

    @staticmethod
    def abandon(future: Future[T], late: Callable[[T], object] | None, *, must_run: bool = False) -> None:
        """Give up waiting: a call that has not begun never will, one that runs has its result handed to ``late``."""
        if must_run or not future.cancel():
            future.add_done_callback(lambda done: _discard(done, late))

    def timed_out(self, timeout: float) -> TimedOut:
        """Return the error for a call that did not come back."""
        return TimedOut(
            f"the driver has not answered within {timeout:g} s",
            device=self.name,
            hint="a query to NVIDIA's driver may take 25 s; allow more time, or look at the host's kernel log",
        )

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run a call in the lane's own thread and return its future at once; raises `Closed` after stop()."""
        future: Future[T] = Future()
        with self._entry:
            if self._stopped:
                raise Closed("the display was closed before", device=self.name, hint="open it again")
            if self._thread is None:
                # a daemon: a thread that hangs inside the kernel must not keep the program from ending
                self._thread = threading.Thread(target=self._work, name=f"mdevdisplay {self.name}", daemon=True)
                self._thread.start()
            self._jobs.put((call, future))
        return future

    def stop(self) -> None:
        """Let the thread end once it is idle. Idempotent."""
        with self._entry:
            if not self._stopped:
                self._stopped = True
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                self.take()
                try:
                    result = call()
                finally:
                    self.give(None)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del call, future, job  # a frame must not live on in an idle thread


def _discard(done: Future[Any], late: Callable[[Any], object] | None) -> None:
    if late is not None and not done.cancelled() and done.exception() is None:
        with contextlib.suppress(Exception):
            late(done.result())
