"""Messages: what is sent arrives, and nothing else is taken for a message."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels.holdings import holdings, nothing_new_since

from mdevdisplay.worker import wire

Pair = tuple[socket.socket, socket.socket]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = holdings()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other
    assert nothing_new_since(before)


@given(st.dictionaries(st.text(), JSON))
def test_what_is_encoded_is_decoded(body: dict[str, object]) -> None:
    """Every object that fits, whatever is in its texts."""
    try:
        data = wire.encode(body)
    except wire.BadMessage:
        return
    assert wire.decode(data) == body


@given(st.binary(max_size=300))
def test_bytes_are_an_object_or_refused(data: bytes) -> None:
    """Nothing else comes out, and no other error."""
    with suppress(wire.BadMessage):
        assert isinstance(wire.decode(data), dict)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xff",
        b"{",
        b"[" * 60000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    """Also what would exhaust the parser, or is no JSON that others understand."""
    with pytest.raises(wire.BadMessage):
        wire.decode(data)


def test_lone_surrogates_do_not_travel() -> None:
    """A name that is no text, as Linux allows, becomes one."""
    assert wire.decode(wire.encode({"name": "a\udcffb"})) == {"name": "a?b"}


def test_a_message_that_is_too_long_is_not_sent(pair: Pair) -> None:
    """It is refused here, and the connection lives on."""
    with pytest.raises(wire.BadMessage, match="longer"):
        wire.send(pair[0], {"a": "x" * wire.MAX_MESSAGE})
    wire.send(pair[0], {"a": 1})
    assert wire.receive(pair[1]).body == {"a": 1}


def test_descriptors_come_with_a_message(pair: Pair) -> None:
    """Close-on-exec, and the sender's own stay open."""
    reader, writer = os.pipe()
    wire.send(pair[0], {}, [reader, writer])
    message = wire.receive(pair[1])
    assert len(message.fds) == 2
    assert not any(os.get_inheritable(fd) for fd in message.fds)
    message.close()
    os.close(reader)
    os.close(writer)


def test_too_many_descriptors_are_all_closed(pair: Pair) -> None:
    """Those that the kernel delivered; it throws the others away."""
    reader, writer = os.pipe()
    fds = [reader] * (wire.MAX_FDS + 20)
    pair[0].sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    with pytest.raises(wire.BadMessage, match="descriptors"):
        wire.receive(pair[1])
    os.close(reader)
    os.close(writer)


def test_descriptors_of_nonsense_are_closed(pair: Pair) -> None:
    """The bytes beside them are no message."""
    fd = os.open("/dev/null", os.O_RDONLY)
    socket.send_fds(pair[0], [b"nonsense"], [fd])
    os.close(fd)
    with pytest.raises(wire.BadMessage):
        wire.receive(pair[1])


def test_a_longer_packet_is_refused(pair: Pair) -> None:
    """Not cut: its rest would be lost."""
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair[0].send(b'{"a":"' + b"x" * (wire.MAX_MESSAGE + 100) + b'"}')
    with pytest.raises(wire.BadMessage, match="more than"):
        wire.receive(pair[1])


def test_a_closed_connection(pair: Pair) -> None:
    """Both for whoever sends and whoever receives."""
    pair[0].close()
    with pytest.raises(wire.PeerGone):
        wire.receive(pair[1])
    with pytest.raises(wire.PeerGone):
        wire.send(pair[1], {})
