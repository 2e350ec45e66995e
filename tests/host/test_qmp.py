"""Asking a monitor: what is sent, what is understood, and what a hostile one can do."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdevdisplay.host.qmp import NoAnswer, query_status

# as QEMU 7.2 writes them
GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}
STATUS = {"return": {"status": "running", "singlestep": False, "running": True}}
EVENT = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {"offset": 0}}
SOON = 0.2
LATER = 2.0  # room for what has to come before, on a busy machine


class Client:
    """What a fake QEMU does with the one client that it serves."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def say(self, *messages: dict[str, Any], pretty: bool = False) -> None:
        text = "".join(json.dumps(message, indent=4 if pretty else None) + "\r\n" for message in messages)
        self.connection.sendall(text.encode())

    def hear(self) -> bytes:
        line = self.connection.recv(4096)
        self.received += line
        return line


@contextmanager
def qemu(path: Path, serve: Callable[[Client], None]) -> Iterator[list[Client]]:
    """A monitor at a path; each client is served in turn, and what it sent is read to its end."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    clients: list[Client] = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(30)
                clients.append(Client(connection))
                try:
                    serve(clients[-1])
                    while clients[-1].hear():
                        pass
                except OSError:
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield clients
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def talk(client: Client, status: dict[str, Any] = STATUS, *, pretty: bool = False) -> None:
    client.say(GREETING, pretty=pretty)
    client.hear()
    client.say({"return": {}}, pretty=pretty)
    client.hear()
    client.say(status, pretty=pretty)


def ask(path: Path | str, seconds: float = 20.0) -> str:
    return query_status(str(path), time.monotonic() + seconds)


def why(path: Path | str, seconds: float = 20.0) -> str:
    with pytest.raises(NoAnswer) as caught:
        ask(path, seconds)
    assert caught.value.detail
    return caught.value.reason


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "qmp"


def test_the_state_is_asked_for_and_nothing_else(place: Path) -> None:
    """Two commands, and the connection is closed."""
    with qemu(place, talk) as clients:
        assert ask(place) == "running"
        assert ask(place) == "running"
    assert [client.received.split() for client in clients] == 2 * [
        [b'{"execute":"qmp_capabilities"}', b'{"execute":"query-status"}']
    ]


@pytest.mark.parametrize("word", ["paused", "suspended", "prelaunch", "guest-panicked", "a-word-of-tomorrow"])
def test_the_word_is_qemus(place: Path, word: str) -> None:
    """Words that are new to us as well."""
    with qemu(place, lambda client: talk(client, {"return": {"status": word, "running": False}})):
        assert ask(place) == word


def test_answers_may_be_spread_over_many_lines(place: Path) -> None:
    """As -qmp-pretty writes them."""
    with qemu(place, lambda client: talk(client, pretty=True)):
        assert ask(place) == "running"


def test_events_in_between_are_left_out(place: Path) -> None:
    """They come whenever they like."""

    def serve(client: Client) -> None:
        client.say(GREETING, EVENT)
        client.hear()
        client.say(EVENT, {"return": {}}, EVENT)
        client.hear()
        client.say(EVENT, EVENT, STATUS, EVENT)

    with qemu(place, serve):
        assert ask(place) == "running"


def test_answers_may_come_byte_by_byte(place: Path) -> None:
    """A stream has no messages."""

    def serve(client: Client) -> None:
        messages: list[dict[str, Any]] = [GREETING, {"return": {}}, STATUS]
        for message in messages:
            for byte in json.dumps(message).encode():
                client.connection.sendall(bytes([byte]))
            client.hear()

    with qemu(place, serve):
        assert ask(place) == "running"


def test_a_path_may_be_longer_than_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's address has 107 bytes; below the root of a container's host there are more."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with qemu(Path("qmp"), talk):
        assert len(str(folder / "qmp")) > 160
        assert ask(folder / "qmp") == "running"
        assert ask("qmp") == "running"


def test_a_monitor_that_another_has_gives_no_greeting(place: Path) -> None:
    """QEMU serves one client; the next is greeted once the first has left."""
    with qemu(place, talk), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(place))
        assert first.recv(9)
        assert why(place, SOON) == "in use"
        first.close()
        assert ask(place) == "running"


def test_a_full_queue_is_told_at_once(place: Path) -> None:
    """listen(2) has room for a few who wait; connecting does not block for a place."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(place))
            assert why(place) == "in use"


def test_one_that_greets_and_falls_silent(place: Path) -> None:
    """Its main loop hangs: told apart from one that somebody else has."""
    with qemu(place, lambda client: client.say(GREETING)):
        assert why(place, LATER) == "silent"
    with qemu(place.with_name("b"), lambda client: client.say(GREETING, EVENT)):
        assert why(place.with_name("b"), LATER) == "silent"


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_time_is_no_answer(place: Path, seconds: float) -> None:
    """A deadline that has passed ends it, without an exception of another kind."""
    with qemu(place, talk):
        assert why(place, seconds) == "in use"


def test_nobody_there_is_told_apart(tmp_path: Path, place: Path) -> None:
    """No file, no folder, a file, a folder, a socket that is left over, a path that cannot be."""
    left_over = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left_over))
    (tmp_path / "file").write_text("")
    paths: list[Path | str] = [
        place,
        tmp_path / "no/qmp",
        tmp_path / "file",
        tmp_path / "file/qmp",
        tmp_path,
        left_over,
    ]
    paths += ["", "/", "a\0b", "x" * 300, f"{tmp_path}/{'x' * 300}"]
    assert [why(path) for path in paths] == ["gone"] * len(paths)


def test_a_datagram_socket_is_no_monitor(place: Path) -> None:
    """The path is another process's word: anything can be there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(place))
        assert why(place) == "nonsense"


def test_a_socket_that_is_closed_to_us(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EACCES of connect(2), which the tests' own user may be above: root."""

    class Closed(socket.socket):
        def connect(self, address: Any) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mdevdisplay.host.qmp.socket.socket", Closed)
    with qemu(place, talk):
        assert why(place) == "refused"


def test_another_process_is_sent_nothing(place: Path) -> None:
    """Who listens is asked of the kernel, before a byte is sent."""
    peers: list[int] = []

    def is_vm(pid: int) -> bool:
        peers.append(pid)
        return False

    with qemu(place, talk) as clients, pytest.raises(NoAnswer) as caught:
        query_status(str(place), time.monotonic() + 20, is_vm=is_vm)
    assert caught.value.reason == "stranger"
    assert peers == [os.getpid()]
    assert [client.received for client in clients] in ([], [b""])


GARBAGE = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"[]\r\n",
    b'"QMP"\r\n',
    b"{}\r\n",
    b'{"QMP":1}\r\n',
    b'{"return":{"status":"running"}}\r\n',
    b"\xff\xfe\x00\r\n",
    b"{" * 70_000,
    b'{"QMP":' * 9000,
    b'{"QMP":"' + b"x" * 70_000,
    b" " * 70_000,
    b'{"a":' + b"9" * 60_000 + b"}" + b" " * 9000,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_not_qmp_is_told(place: Path, garbage: bytes) -> None:
    """At once where its first letter shows it, else after 64 KiB; never after the 20 seconds that it may take."""
    with qemu(place, lambda client: client.connection.sendall(garbage)) as clients:
        assert why(place) == "nonsense"
    assert clients[0].received == b""


def test_half_a_message_is_waited_for_and_no_longer(place: Path) -> None:
    """Then it is nonsense."""
    with qemu(place, lambda client: client.connection.sendall(b'{"QMP": {"ver')):
        assert why(place, LATER) == "nonsense"


def test_an_endless_line_is_left(place: Path) -> None:
    """After 64 KiB, events or not."""

    def serve(client: Client) -> None:
        client.say(GREETING)
        while True:
            client.say(EVENT)

    with qemu(place, serve):
        assert why(place) == "nonsense"


@pytest.mark.parametrize("said", [[], [GREETING], [GREETING, {"return": {}}]])
def test_one_that_closes_is_gone(place: Path, said: list[dict[str, Any]]) -> None:
    """At once, after its greeting, or after the first answer."""

    def serve(client: Client) -> None:
        if said:
            client.say(said[0])
        for message in said[1:]:
            client.hear()
            client.say(message)
        client.connection.shutdown(socket.SHUT_RDWR)

    with qemu(place, serve):
        assert why(place) == "gone"


@pytest.mark.parametrize(
    "answer",
    [
        {"return": {}},
        {"return": []},
        {"return": "running"},
        {"return": {"status": 1}},
        {"return": {"status": ""}},
        {"return": {"status": "run\x1b[2Jning"}},
        {"return": {"status": "x" * 41}},
        {"error": {"class": "CommandNotFound", "desc": "no"}},
        {"hello": 1},
        {},
    ],
)
def test_an_answer_without_a_state_is_nonsense(place: Path, answer: dict[str, Any]) -> None:
    """No word of QEMU's is longer than 40 letters, or has others than letters, digits and dashes."""
    with qemu(place, lambda client: talk(client, answer)):
        assert why(place) == "nonsense"


@settings(max_examples=40)
@given(parts=st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(GARBAGE[:7])), max_size=6))
def test_any_bytes_are_an_answer_or_a_reason(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    """Never another exception, and nothing is left open (ResourceWarning is an error here)."""

    def serve(client: Client) -> None:
        for part in parts:
            client.connection.sendall(part)
        client.connection.shutdown(socket.SHUT_WR)

    place = tmp_path_factory.mktemp("any") / "qmp"
    with qemu(place, serve):
        assert why(place) in ("nonsense", "gone")


def test_no_descriptor_is_left(place: Path) -> None:
    """Whatever came of it."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with qemu(place, talk):
        ask(place)
    with qemu(place.with_name("b"), lambda client: client.connection.sendall(b"no")):
        why(place.with_name("b"))
    why(place.with_name("c"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
