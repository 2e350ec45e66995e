"""Messages between a program and its worker: one JSON object a packet, with descriptors beside it.

Neither side believes the other further than it must: a message is bounded, is an object and nothing else, and
descriptors that nobody asked for are closed.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

import attrs

__all__ = [
    "MAX_FDS",
    "MAX_MESSAGE",
    "NO_WAIT",
    "BadMessage",
    "Message",
    "PeerGone",
    "decode",
    "encode",
    "receive",
    "send",
]

MAX_MESSAGE = 1 << 16
"""The most bytes of a message."""
MAX_FDS = 4
"""The most descriptors that come with one; the kernel throws away what has no room."""


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


# json.dumps and json.loads would make these anew for every message
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_constant=_no_constant)
# plain numbers: operations on the enumeration's members take a microsecond each
NO_WAIT = int(socket.MSG_DONTWAIT)
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_ROOM = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class BadMessage(Exception):
    """What came is no message; its descriptors are closed."""


class PeerGone(Exception):
    """The other side has closed the connection or ended."""


@attrs.frozen
class Message:
    """What came: an object and its descriptors, which are the receiver's to close."""

    body: dict[str, Any]
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


def encode(body: dict[str, Any]) -> bytes:
    """Return the bytes of a message; raises `BadMessage` for one that is too long."""
    data = _ENCODER.encode(body).encode("utf-8", "replace")
    if len(data) > MAX_MESSAGE:
        raise BadMessage(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
    return data


def decode(data: bytes) -> dict[str, Any]:
    """Return the object that a message is; raises `BadMessage` for anything else."""
    try:
        body = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{len(data)} bytes that are not JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise BadMessage(f"a {type(body).__name__}, not an object")
    return body


def send(connection: socket.socket, body: dict[str, Any], fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send a message; the descriptors stay the sender's.

    Raises:
        BadMessage: it is too long.
        PeerGone: nobody is there to read it.
        BlockingIOError: the other side does not read, and ``flags`` say not to wait.
    """
    data = encode(body)
    try:
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            connection.sendmsg([data], ancillary, flags | _NO_SIGNAL)
        else:
            connection.send(data, flags | _NO_SIGNAL)
    except (BrokenPipeError, ConnectionError) as error:
        raise PeerGone(str(error)) from error


def receive(connection: socket.socket) -> Message:
    """Wait for a message; its descriptors are close-on-exec.

    Raises:
        PeerGone: the other side has closed the connection or ended.
        BadMessage: what came is no message.
    """
    try:
        data, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE + 1, _ROOM, _CLOEXEC)
    except ConnectionError as error:
        raise PeerGone(str(error)) from error
    if not ancillary and data and not flags & _CUT and len(data) <= MAX_MESSAGE:  # nearly all
        return Message(decode(data))
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    try:
        if not data and not fds:
            raise PeerGone("the connection was closed")
        if flags & _CUT or len(data) > MAX_MESSAGE:
            raise BadMessage(f"more than {MAX_MESSAGE} bytes or {MAX_FDS} descriptors in one message")
        return Message(decode(data), tuple(fds))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
