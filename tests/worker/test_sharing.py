"""Two readers of one device: the second finds the first and shares its frames."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pixels.holdings import eventually

from mdevdisplay import PlaneType
from mdevdisplay.connecting import connect
from mdevdisplay.errors import MdevDisplayError, NotMappable, VmGone, WorkerDied
from mdevdisplay.worker import process, sharing
from mdevdisplay.worker.client import RemoteReader
from worker.conftest import Remote
from worker.looks import captured
from worker.processes import children, is_running, links_of

PRIMARY = PlaneType.PRIMARY
PICTURE = bytes(range(256))


@pytest.fixture
def gpu(fakegpu: None, tmp_path: Path) -> str:
    """A device with a name of its own, whose openings are noted."""
    return f"fakegpu:name=gpu-{os.getpid()}-{tmp_path.name[-20:]},file={tmp_path / 'notes'}"


def openings(gpu: str) -> int:
    return Path(gpu.partition("file=")[2]).read_text().count("open")


def test_the_second_reader_shares_the_firsts(remote: Remote, gpu: str) -> None:
    """One worker reads for both; each has frames of its own."""
    one = remote(gpu)
    before = children()
    two = remote(gpu)
    assert two.pid is None
    assert children() == before
    assert two.backend_info == one.backend_info
    assert (two.identity, two.borrowed) == (one.identity, one.borrowed)
    frames = [captured(reader) for reader in (one, two, one, two)]
    assert all(frame.raw.tobytes()[:256] == PICTURE for frame in frames)
    assert [frame.serial for frame in frames] == [1, 1, 1, 1]
    assert not any(np.shares_memory(frame.raw, frames[0].raw) for frame in frames[1:])
    frames[0].pixels[:] = 0
    assert frames[1].pixels.any()


def test_the_worker_ends_with_its_last_client(remote: Remote, gpu: str) -> None:
    """Whoever started it may go first; it stays for the other, and is reaped when it ends."""
    one, two = remote(gpu), remote(gpu)
    pid = one.pid
    assert pid is not None
    two.close()
    assert captured(one).raw.any()
    three = remote(gpu)
    assert three.pid is None
    one.close()
    assert captured(three).raw.any()
    three.close()
    assert eventually(lambda: not is_running(pid))
    process._reap()


def test_the_starter_may_go_first(gpu: str) -> None:
    """Its worker goes on for the other program, and is not waited for."""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{STARTER}", gpu]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        reader = RemoteReader(gpu)
        assert reader.pid is None
        assert first.stdin is not None
        first.stdin.close()
        first.wait(60)
        assert is_running(pid)
        assert captured(reader).raw.tobytes()[:256] == PICTURE
        reader.close()
        assert eventually(lambda: not is_running(pid))


STARTER = """
import sys
from mdevdisplay.worker.client import RemoteReader
reader = RemoteReader(sys.argv[1])
print(reader.pid, flush=True)
sys.stdin.read()
reader.close()
"""


def test_other_backends_and_outputs_are_not_shared(remote: Remote, gpu: str) -> None:
    """They are asked other questions."""
    one, two, three = remote(gpu), remote(gpu, backend="fakegpu"), remote(gpu, output=1)
    assert len({one.pid, two.pid, three.pid} - {None}) == 3


def test_simulated_displays_and_nameless_devices_are_not_shared(remote: Remote, fakegpu: None) -> None:
    """Each opening of one is another display."""
    for locator in ("sim:64x64", "fakegpu:"):
        one, two = remote(locator), remote(locator)
        assert one.pid is not None
        assert two.pid is not None


def test_a_shared_worker_that_dies_is_replaced(remote: Remote, gpu: str) -> None:
    """The one who shared it starts its own, which the other then finds."""
    one, two = remote(gpu), remote(gpu)
    captured(two)
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="another program"):
        captured(two)
    assert captured(two).raw.any()
    assert two.pid is not None
    with pytest.raises(WorkerDied, match="SIGKILL"):
        captured(one)
    assert captured(one).raw.any()
    assert one.pid is None


def test_every_client_hears_of_the_vms_end(remote: Remote, gpu: str) -> None:
    """Also the one that did not start the worker."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as vm:
        locator = f"{gpu},pid={vm.pid}"
        one, two = remote(locator), remote(locator)
        assert captured(one).raw.tobytes() == captured(two).raw.tobytes()
    for reader in (two, one, two):
        with pytest.raises(VmGone):
            reader.surface(PRIMARY)


LOOKS = [
    b'{"id":1,"op":"look","plane":99,"buffer":0,"known":0,"since":0,"same":false}',
    b'{"id":1,"op":"look","plane":1,"buffer":7,"known":0,"since":0,"same":false}',
    b'{"id":1,"op":"look","plane":1,"buffer":0,"known":0,"since":-1,"same":false}',
    b'{"id":1,"op":"look","plane":1,"buffer":0,"known":0,"since":18446744073709551615,"same":false}',
    b'{"id":1,"op":"look","plane":1,"buffer":0,"known":0,"since":1e400,"same":true}',
    b'{"id":1,"op":"look","plane":1,"buffer":0,"known":0,"since":0,"same":1}',
    b'{"id":1,"op":"look","plane":1,"buffer":0}',
    b'{"id":1,"op":"wait","seen":-1}',
    b'{"id":1,"op":"wait","seen":"x"}',
]


def test_clients_are_served_in_turn(remote: Remote, gpu: str) -> None:
    """A client that sends nonsense, or does not read its answers, is let go; the other is served."""
    one = remote(gpu)
    name = sharing.shared_name(gpu.partition("name=")[2].partition(",")[0], None, 0)
    for nonsense in (b"nonsense", b"[]", b"{}", b'{"op":"x","drop":7}', *LOOKS):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(b"\0" + name.encode())
            stranger.send(nonsense)
            assert captured(one).raw.any()
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deaf.connect(b"\0" + name.encode())
    deaf.settimeout(5)
    try:
        for _ in range(5000):
            deaf.send(b'{"id":1,"op":"hello"}')
    except OSError:
        pass
    assert captured(one).raw.any()
    deaf.close()


@pytest.fixture
def squatter(gpu: str) -> Iterator[socket.socket]:
    """Somebody who has bound the device's name already, and does not answer."""
    name = sharing.shared_name(gpu.partition("name=")[2].partition(",")[0], None, 0)
    listener = sharing.listen(name)
    assert listener is not None
    assert sharing.listen(name) is None
    yield listener
    listener.close()


def test_a_strangers_name_is_not_believed(
    remote: Remote, gpu: str, squatter: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user may bind any name: whoever is neither root nor we is left alone, and we read the device ourselves."""
    monkeypatch.setattr(sharing, "peer_uid", lambda _: 4242)
    reader = remote(gpu)
    assert reader.pid is not None
    assert captured(reader).raw.any()


def test_a_user_that_is_not_ours_is_not_served() -> None:
    """Root and the user who started the worker are."""
    assert sharing.trusted(0, 1000)
    assert sharing.trusted(1000, 1000)
    assert not sharing.trusted(1001, 1000)
    assert not sharing.trusted(1000, 0)


def test_the_kernel_says_who_is_there() -> None:
    """Of the one who connected, and of the one who listens."""
    name = f"mdevdisplay-test-{os.getpid()}"
    listener = sharing.listen(name)
    assert listener is not None
    connection = sharing.connect_to(name)
    assert connection is not None
    accepted, _ = listener.accept()
    assert sharing.peer_uid(connection) == sharing.peer_uid(accepted) == os.getuid()
    for one in (listener, connection, accepted):
        one.close()
    assert sharing.connect_to(name) is None


def test_names() -> None:
    """A device by what its locator or its source says; none where either says nothing, or it is too long."""
    uuid = "44CC0626-0000-1111-2222-333344445555"
    assert sharing.device_of_locator(uuid) == uuid.lower()
    assert sharing.device_of_locator("0000:41:00.4") == "0000:41:00.4"
    assert sharing.device_of_locator("vm:win10") == ""
    assert sharing.shared_name("", None, 0) == ""
    assert sharing.shared_name("x" * 99, None, 0) == ""
    assert (
        sharing.shared_name("gpu", None, 0) != sharing.shared_name("gpu", "b", 0) != sharing.shared_name("gpu", "b", 1)
    )
    reader = connect("sim:64x64", None, 0)
    assert sharing.device_of_source(reader.source) == ""
    reader.close()


def test_a_devices_descriptor_stays_in_its_worker(remote: Remote, gpu: str) -> None:
    """Its region cannot be looked at from here: the error says what can be done instead."""
    reader = remote(gpu)
    with pytest.raises(NotMappable, match="stays in its worker") as caught:
        reader.pin(PRIMARY)
    assert caught.value.cause == "isolated"
    assert "capture()" in caught.value.hint
    assert not [link for link in links_of(os.getpid()).values() if "fakegpu" in link]


def test_what_a_backend_decodes_comes_out(remote: Remote, fakegpu: None) -> None:
    """Pixels and raw bytes, in one buffer and without a copy here."""
    reader = remote("fakegpu:decode=1")
    for _ in range(3):
        frame = captured(reader)
        assert frame.raw.tobytes()[:256] == PICTURE
        assert frame.pixels.shape == (8, 16, 4)
        assert frame.pixels.tobytes()[:256] == bytes(255 - value for value in PICTURE)
    assert reader.readability(PRIMARY).way == "region"


def test_many_long_findings_come_out_or_an_error(remote: Remote, fakegpu: None) -> None:
    """What does not fit into a message is said, and the worker lives on."""
    reader = remote("fakegpu:long=9999")
    pid = reader.pid
    with pytest.raises(MdevDisplayError, match="longer"):
        reader.findings()
    assert captured(reader).raw.any()
    assert reader.pid == pid


def test_a_backends_own_error_is_an_answer(remote: Remote, fakegpu: None) -> None:
    """As in this process: a PluginError with its distribution's name and version."""
    reader = remote("fakegpu:raise=oh")
    with pytest.raises(Exception, match=r"mdevdisplay-fakegpu 7\.0\) raised RuntimeError: oh"):
        reader.surface(PRIMARY)
    assert reader.backend_info.distribution == "mdevdisplay-fakegpu"
    assert reader.backend_info.version == "7.0"
