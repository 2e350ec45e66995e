"""Asking a QEMU over its monitor (QMP) whether its VM runs, and nothing else.

The two commands of this module are all that it can send: ``qmp_capabilities``, which every client has to begin with,
and ``query-status``. QEMU serves one client of a monitor at a time; the next one waits in the socket's queue for a
greeting (tcp_chr_accept in chardev/char-socket.c), so we are in nobody's way for longer than the deadline. What comes
back is another process's word: at most 64 KiB of it are read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["NoAnswer", "query_status"]

_CAPABILITIES = b'{"execute":"qmp_capabilities"}\n'
_QUERY_STATUS = b'{"execute":"query-status"}\n'
_MOST = 1 << 16
_STATUS = re.compile(r"[a-z0-9-]{1,40}")
_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

Reason = Literal["in use", "refused", "gone", "stranger", "silent", "nonsense"]


class NoAnswer(Exception):
    """The monitor did not tell the VM's state.

    Attributes:
        reason: ``in use``: no greeting came, as somebody else has the monitor, or QEMU does not answer anybody;
            ``refused``: we may not connect; ``gone``: nobody listens there, or the connection ended;
            ``stranger``: another process listens there; ``silent``: a greeting came and no answer;
            ``nonsense``: what came is not QMP.
        detail: what came back, for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def query_status(path: str, deadline: float, *, is_vm: Callable[[int], bool] | None = None) -> str:
    """Return QEMU's word for the VM's state: ``running``, ``paused``, ``suspended``, ... (RunState in QEMU's QAPI).

    Args:
        path: the unix socket of the monitor, on this host and in our mount namespace; of any length.
        deadline: when to give up, in seconds of `time.monotonic`.
        is_vm: told the number of the process that listens there, as our own pid namespace sees it (0 where it does
            not), returns whether it is the one to ask. Nothing is sent or read before.

    Raises:
        NoAnswer: it did not tell.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as monitor:
        _connect(monitor, path)
        if is_vm is not None and not is_vm(peer := _peer(monitor)):
            raise NoAnswer("stranger", f"process {peer} listens there" if peer else "it is in another pid namespace")
        conversation = _Conversation(monitor, deadline)
        if not isinstance(conversation.hear().get("QMP"), dict):
            raise NoAnswer("nonsense", "it does not greet as QMP does")
        conversation.ask(_CAPABILITIES)
        status = conversation.ask(_QUERY_STATUS)
    word = status.get("status") if isinstance(status, dict) else None
    if not isinstance(word, str) or not _STATUS.fullmatch(word):
        raise NoAnswer("nonsense", "its answer has no state")
    return word


def _connect(monitor: socket.socket, path: str) -> None:
    """Connect; a socket's address has room for 107 bytes, so it is named below its open folder."""
    folder, name = os.path.split(path)
    try:
        directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            monitor.connect(os.fsencode(f"/proc/self/fd/{directory}/{name}"))
        finally:
            os.close(directory)
    except OSError as error:
        raise _refusal(error) from error
    except ValueError as error:  # a NUL in the path
        raise NoAnswer("gone", "there can be no such path") from error


def _refusal(error: OSError) -> NoAnswer:
    code = errno.errorcode.get(error.errno or 0, str(error))
    match error.errno:
        case errno.EAGAIN:  # the queue of those who wait for it is full
            return NoAnswer("in use", "others wait for it already")
        case errno.EACCES | errno.EPERM:
            return NoAnswer("refused", f"connecting failed: {code}")
        case errno.ENOTSOCK | errno.EPROTOTYPE:
            return NoAnswer("nonsense", f"connecting failed: {code}")
        case _:
            return NoAnswer("gone", f"connecting failed: {code}")


def _peer(monitor: socket.socket) -> int:
    """Return the process that called listen(2) on the other end (unix(7), SO_PEERCRED)."""
    credentials = monitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(credentials)[0])


class _Conversation:
    """One connection: what came and was not looked at yet, and how much may still come."""

    def __init__(self, monitor: socket.socket, deadline: float) -> None:
        self._monitor = monitor
        self._deadline = deadline
        self._data = bytearray()
        self._left = _MOST
        self._greeted = False

    def ask(self, command: bytes) -> Any:
        """Send one of the two commands and return its answer; events that come in between are left out."""
        self._send(command)
        while True:
            message = self.hear()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise NoAnswer("nonsense", "it does not know the command")
            if "event" not in message:
                raise NoAnswer("nonsense", "it is no answer of QMP's")

    def hear(self) -> dict[str, Any]:
        """Return the next JSON object; QEMU may spread one over many lines (``-qmp-pretty``)."""
        while True:
            message = self._next()
            if message is not None:
                self._greeted = True
                return message
            self._receive()

    def _next(self) -> dict[str, Any] | None:
        """Take a whole object off what came; None where there is none yet."""
        text = self._data.decode("utf-8", "surrogateescape").lstrip()
        if not text:
            return None
        if text[0] != "{":
            raise NoAnswer("nonsense", "what came is not QMP")
        try:
            message, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            return None  # it may be half of one
        except RecursionError as error:
            raise NoAnswer("nonsense", "what came is not QMP") from error
        self._data = bytearray(text[end:].lstrip().encode("utf-8", "surrogateescape"))
        return dict(message)

    def _receive(self) -> None:
        self._wait(select.POLLIN)
        if not self._left:
            raise NoAnswer("nonsense", f"{_MOST} bytes came without an answer")
        try:
            part = self._monitor.recv(min(self._left, 4096))
        except BlockingIOError:
            return
        except OSError as error:
            raise _refusal(error) from error
        if not part:
            raise NoAnswer("nonsense" if self._data else "gone", "it ended the connection")
        self._left -= len(part)
        self._data += part

    def _send(self, command: bytes) -> None:
        rest = memoryview(command)
        while rest:
            self._wait(select.POLLOUT)
            try:
                rest = rest[self._monitor.send(rest, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _refusal(error) from error

    def _wait(self, event: int) -> None:
        left = self._deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._monitor, event)
        if left <= 0 or not poll.poll(left * 1000):
            if self._data:
                raise NoAnswer("nonsense", "what came is not QMP, or half of it")
            if self._greeted:
                raise NoAnswer("silent", "it greeted and did not answer in time")
            raise NoAnswer("in use", "no greeting came: somebody else has it, or QEMU does not answer")
