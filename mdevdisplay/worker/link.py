"""One connection to a worker: a question, an answer, and what becomes of a worker that gives none."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mdevdisplay.errors import MdevDisplayError, TimedOut, WorkerDied
from mdevdisplay.worker import wire
from mdevdisplay.worker.buffers import SharedBuffers
from mdevdisplay.worker.process import WorkerProcess, abandon, forget
from mdevdisplay.worker.values import boolean, error_from
from mdevdisplay.worker.wire import BadMessage, Message

__all__ = ["HANG", "Hung", "Link", "Lost"]

HANG = 60.0
"""Seconds after which a worker that does not answer is killed; drivers are known to take 25."""
GRACE = 0.5
"""Seconds that a worker has to end by itself: it closes the device, which takes milliseconds."""
KILL_GRACE = 2.0
"""Seconds after SIGKILL from which on a worker is taken to be stuck inside the kernel."""

Body = dict[str, Any]


class Hung(Exception):
    """The worker has not answered for `HANG` seconds."""


class Lost(Exception):
    """The source is gone with its owner; its only argument is the error as an object."""


class Link:
    """A connection to a worker, for one thread at a time but `interrupt`.

    Attributes:
        process: the worker, or None where another program started it.
        buffers: the memory that both map.
        since: when it was made, in seconds of time.monotonic().
        listens: whether other programs may be reading through the same worker.
    """

    def __init__(self, connection: socket.socket, process: WorkerProcess | None, locator: str) -> None:
        self.process = process
        self.buffers = SharedBuffers()
        self.since = time.monotonic()
        self.listens = False
        self._connection = connection
        self._locator = locator
        self._number = 0
        self._limit = -1.0

    def ask(self, body: Body, fds: Sequence[int] = (), patience: float | None = None) -> Message:
        """Send a question and return its answer; answers to questions that were given up are thrown away.

        Args:
            body: the question.
            fds: descriptors beside it; they stay the caller's.
            patience: seconds to wait, None for `HANG`.

        Raises:
            PeerGone: the worker has ended.
            Hung: it does not answer.
            Lost: the owner of its source has ended.
            BadMessage: what it sent is no answer.
            MdevDisplayError: the error that it answered.
        """
        self._number += 1
        limit = HANG if patience is None else patience
        deadline = time.monotonic() + limit
        if limit != self._limit:  # the kernel watches the time: one call less for every answer
            self._limit = limit
            seconds, rest = divmod(max(limit, 0.001), 1)
            timeout = struct.pack("ll", int(seconds), int(rest * 1e6))
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        try:
            self._send({**body, "id": self._number, "drop": self.buffers.dropped()}, fds, deadline)
        except wire.PeerGone:
            self._last_words()
            raise
        while True:
            try:
                message = wire.receive(self._connection)
            except BlockingIOError:
                raise Hung from None
            except wire.PeerGone:
                self._last_words()
                raise
            try:
                if self._is_answer(message.body):
                    return message
            except BaseException:
                message.close()
                raise
            message.close()
            if time.monotonic() > deadline:
                raise Hung

    def _is_answer(self, body: Body) -> bool:
        number = body.get("id")
        if type(number) is not int or not 0 <= number <= self._number:
            raise BadMessage("an answer to a question that was not asked")
        if "lost" in body:
            error_from(body, "lost", self._locator)  # as a check
            raise Lost(body)
        if number == self._number and "error" in body:
            raise error_from(body, "error", self._locator)
        return number == self._number

    def _send(self, body: Body, fds: Sequence[int], deadline: float) -> None:
        while True:
            try:
                wire.send(self._connection, body, fds, wire.NO_WAIT)
            except BlockingIOError:  # it has not read earlier questions, whose askers gave up
                poll = select.poll()
                poll.register(self._connection, select.POLLOUT)
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise Hung from None
            else:
                return

    def _last_words(self) -> None:
        """Read what a worker said before it ended; raises `Lost` where it said that."""
        for _ in range(16):
            try:
                message = wire.receive(self._connection)
            except (wire.PeerGone, BadMessage, OSError):
                continue  # ECONNRESET comes before what is still to be read
            message.close()
            with suppress(MdevDisplayError, BadMessage):
                self._is_answer(message.body)

    def fileno(self) -> int:
        """Return the connection's descriptor; -1 once it is closed."""
        return self._connection.fileno()

    def interrupt(self) -> None:
        """Let a question that waits for its answer fail at once, from any thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """Close the connection; the worker goes on where other programs read through it, and is seen to end where not.

        Raises:
            TimedOut: see `end`.
        """
        if self.process is not None and self.listens:
            with suppress(wire.PeerGone, Hung, Lost, BadMessage, MdevDisplayError):
                message = self.ask({"op": "bye"}, patience=GRACE)
                message.close()
                if boolean(message.body, "others"):
                    self.interrupt()
                    self._connection.close()
                    forget(self.process)
                    return
        self.end()

    def end(self, *, patience: float = GRACE) -> str:
        """Close the connection and see the worker end, killed if it does not by itself; return how it ended.

        Raises:
            TimedOut: it does not even end when it is killed; it is remembered, see `mdevdisplay.worker.abandoned`.
        """
        self.interrupt()
        self._connection.close()
        process = self.process
        if process is None:
            return "has ended; another program started it"
        if process.ended(patience):
            return process.end
        process.kill()
        if process.ended(KILL_GRACE):
            return process.end
        abandon(process, self._locator)
        raise TimedOut(
            f"the worker (pid {process.pid}) was killed and does not end: it is stuck inside the kernel",
            device=self._locator,
            hint="nothing can be done from here; look for the driver's words in the host's kernel log",
            cause="worker-stuck",
        )

    def died(self, how: str, hint: str, cause: str | None = None) -> WorkerDied:
        """Return the error that says so."""
        who = f"the worker (pid {self.process.pid})" if self.process is not None else "the worker"
        return WorkerDied(f"{who} {how}", device=self._locator, hint=hint, cause=cause)
