"""One lane a device: calls to its driver go one at a time, and a caller need not wait longer than it wants to.

A query may hang for many seconds inside the kernel and nothing can interrupt it. Without a deadline a call runs right
here, in the caller's thread. With one it runs in the lane's own thread; when
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
    """Runs calls to one device, never two at once.

    Whose turn it is stands in `holder`, under the key 0, as the list that the caller made for the purpose. That has
    three things that threading.Lock has not. Nobody starves: a thread that calls again and again queues behind one
    that waits. Ctrl-C cannot lose the turn between taking it and the block that gives it back, since the dictionary
    names its holder from the moment it is taken. And where nobody else wants the turn, taking it is one method call
    and no atomic operation: `Display.surface` is to cost little more than its ioctl.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.holder: dict[int, object] = {}
        self.waiting = 0
        self._queue = threading.Lock()
        self._given = threading.Condition()
        self._entry = threading.RLock()  # a display may be collected, and so closed, in the middle of submit()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def here(self, call: Callable[[], T]) -> T:
        """Run a call in this thread, when it is its turn."""
        me = [self]
        try:
            if self.waiting or self.holder.setdefault(0, me) is not me:
                self.wait(me)
            return call()
        finally:
            # no call before the turn is given back: a signal's handler may run at the start of one
            if 0 in self.holder and self.holder[0] is me:
                del self.holder[0]
                if self.waiting:
                    self.wake()

    def wait(self, me: object) -> None:
        """Queue for the turn."""
        with self._queue, self._given:
            self.waiting = 1
            try:
                while self.holder.setdefault(0, me) is not me:
                    self._given.wait(0.1)  # not for ever: Ctrl-C may come between giving the turn and wake()
            finally:
                self.waiting = 0

    def wake(self) -> None:
        """Tell the first of the queue that the turn is free."""
        with self._given:
            self._given.notify()

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
            return self.here(call)
        future = self.submit(call)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                return future.result()  # the call's own timeout, or it came back at the last moment
            raise self.give_up(future, timeout, late, must_run=must_run) from None
        except BaseException:
            if not future.done():  # Ctrl-C
                self.abandon(future, late, must_run=must_run)
            raise

    def give_up(
        self, future: Future[T], timeout: float, late: Callable[[T], object] | None, *, must_run: bool = False
    ) -> TimedOut:
        """Abandon a call that has not come back in time, and return the error that says so."""
        began = future.running()
        self.abandon(future, late, must_run=must_run)
        what = "the driver has not answered" if began else "another call to the device has not come back"
        hint = "some drivers take up to 25 s: allow more time, or look for their words in the host's kernel log"
        return TimedOut(f"{what} within {timeout:g} s", device=self.name, hint=hint)

    def close(self, call: Callable[[], None]) -> None:
        """Run a last call without waiting for it if the lane has a thread, which may be in the middle of a call."""
        if self._thread is None and not self.holder:  # else somebody is in the middle of a call
            call()
        else:
            self.submit(call)
        self.stop()

    @staticmethod
    def abandon(future: Future[T], late: Callable[[T], object] | None, *, must_run: bool = False) -> None:
        """Give up waiting: a call that has not begun never will, one that runs has its result handed to ``late``."""
        if must_run or not future.cancel():
            future.add_done_callback(lambda done: _discard(done, late))

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
                result = self.here(call)
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
