"""What tells whether a VM runs, in which order, and what is left alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGSTOP
from typing import Any

import attrs
import pytest

from mdevdisplay.host import HostRoot
from mdevdisplay.host.console import Console
from mdevdisplay.host.holders import HeldDevice, HeldGroup, Holder
from mdevdisplay.host.processes import Process
from mdevdisplay.host.running import VmState, running_state
from mdevdisplay.host.vmm import Vm

UUID = "48888226-7b6b-415c-bcf7-b278ba0bca62"
SOCKET = "/run/vm/qmp.sock"
LISTENS = Console(qmp=(SOCKET,))
LONG = 20.0


@attrs.define
class Host:
    """A host whose one VM is this very process, so that the sockets of fake QEMUs are truly its own."""

    root: HostRoot
    holder: Holder

    def ask(self, console: Console | None = LISTENS, seconds: float = LONG) -> VmState:
        return running_state(self.root, self.holder, console=console, seconds=seconds)

    def is_in_state(self, letter: str) -> None:
        """Write the process's entry as the kernel does."""
        folder = self.root.proc / str(self.holder.pid)
        folder.mkdir(parents=True, exist_ok=True)
        fields = " ".join([letter, *["7"] * 18, str(self.holder.start_time), "0"])
        (folder / "stat").write_text(f"{self.holder.pid} (qemu) T (x) {fields}\n")

    def libvirt_says(self, attributes: str, uuid: str = UUID) -> Path:
        folder = self.root.run / "libvirt/qemu"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "win10.xml"
        path.write_text(
            f"<domstatus {attributes} pid='{self.holder.pid}'><domain><name>win10</name><uuid>{uuid}</uuid></domain>"
            "</domstatus>"
        )
        return path

    @contextmanager
    def monitor(self, serve: Callable[[socket.socket], None], path: str = SOCKET) -> Iterator[list[bytes]]:
        """Serve one client at a time at a path; yield what came."""
        place = self.root.path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        heard: list[bytes] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place))
        listener.listen(1)

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.settimeout(30)
                    heard.append(b"")
                    try:
                        serve(client)
                        while part := client.recv(4096):
                            heard[-1] += part
                    except OSError:
                        pass

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)
            listener.close()
            place.unlink()
            assert not thread.is_alive()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    with Process(Path("/proc"), os.getpid()) as process:
        started = process.start_time()
    held = (HeldDevice(fd=30, name="0000:41:00.4", known_by="fdinfo"),)
    vm = Vm(name="win10", uuid=UUID, kind="qemu")
    host = Host(HostRoot(tmp_path), Holder(pid=os.getpid(), start_time=started, vm=vm, devices=held))
    host.is_in_state("S")
    return host


def qemu(status: str) -> Callable[[socket.socket], None]:
    """A QEMU that is in a state."""

    def serve(client: socket.socket) -> None:
        messages: list[dict[str, Any]] = [
            {"QMP": {"version": {}, "capabilities": []}},
            {"return": {}},
            {"return": {"status": status, "running": status == "running"}},
        ]
        for message in messages:
            client.sendall(json.dumps(message).encode() + b"\r\n")
            client.recv(4096)

    return serve


def silent(client: socket.socket) -> None:
    """A QEMU that never greets."""


# --- the process ---


@pytest.mark.parametrize(("letter", "words"), [("T", "SIGSTOP"), ("t", "debugger")])
def test_a_stopped_process_comes_first(host: Host, letter: str, words: str) -> None:
    """Whatever libvirt wrote before, and without a word to QMP: it could not answer."""
    host.is_in_state(letter)
    host.libvirt_says("state='running' reason='booted'")
    with host.monitor(qemu("running")) as heard:
        found = host.ask()
    assert found.state == "stopped"
    assert found.told_by == str(host.root.proc / f"{os.getpid()}/stat")
    assert words in found.detail
    assert not heard


@pytest.mark.parametrize("letter", ["Z", "X"])
def test_a_process_that_has_ended_is_not_asked(host: Host, letter: str) -> None:
    """A zombie, one that is gone, or another one with its number."""
    host.libvirt_says("state='running'")
    host.is_in_state(letter)
    assert (host.ask().state, host.ask().detail) == ("unknown", "the process has ended")
    host.is_in_state("S")
    other = attrs.evolve(host, holder=attrs.evolve(host.holder, start_time=host.holder.start_time + 1))
    assert other.ask().detail == "the process has ended"
    gone = attrs.evolve(host, holder=attrs.evolve(host.holder, pid=4_000_000))
    assert gone.ask().detail == "the process has ended"
    (host.root.proc / f"{os.getpid()}/stat").write_bytes(b"\xff\0")
    assert host.ask().detail == "the process has ended"


def test_a_real_process_that_is_stopped() -> None:
    """By SIGSTOP, as the real /proc shows it."""
    sleeper = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with Process(Path("/proc"), sleeper.pid) as process:
            holder = Holder(pid=sleeper.pid, start_time=process.start_time())
        sleeper.send_signal(SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
        assert running_state(HostRoot(), holder, console=None, seconds=LONG).state == "stopped"
    finally:
        sleeper.kill()
        sleeper.wait()


# --- libvirt ---


@pytest.mark.parametrize(
    ("attributes", "state", "detail"),
    [
        ("state='running' reason='booted'", "running", "running (booted)"),
        ("state='running' reason='wakeup'", "running", "running (wakeup)"),
        ("state='blocked'", "running", "blocked"),
        ("state='paused' reason='user'", "paused", "paused (user)"),
        ("state='paused' reason='ioerror'", "paused", "paused (ioerror)"),
        ("state='paused' reason='starting up'", "starting", "paused (starting up)"),
        ("state='paused' reason='panicked'", "crashed", "paused (panicked)"),
        ("state='running' reason='panicked'", "running", "running (panicked)"),
        ("state='pmsuspended' reason='unknown'", "suspended", "pmsuspended (unknown)"),
        ("state='crashed' reason='panicked'", "crashed", "crashed (panicked)"),
        ("state='shutdown' reason='user'", "shutdown", "shutdown (user)"),
        ("state='shutoff'", "shutdown", "shutoff"),
        ("state='nostate'", "unknown", "nostate"),
        ("state='of tomorrow'", "unknown", "of tomorrow"),
    ],
)
def test_libvirts_file_tells_it(host: Host, attributes: str, state: str, detail: str) -> None:
    """In libvirt's words; its monitor is left alone, and that is said."""
    path = host.libvirt_says(attributes)
    with host.monitor(qemu("paused")) as heard:
        found = host.ask(Console(qmp=(SOCKET,), monitored=True))
    assert found == VmState(
        state=state,  # type: ignore[arg-type] # one of its words
        told_by=str(path),
        detail=detail,
        left_out=(f"QMP at {SOCKET}: libvirt holds the monitor", "QMP by a descriptor: libvirt holds the monitor"),
    )
    assert not heard


def test_libvirt_tells_of_other_vmms_too(host: Host) -> None:
    """Without a QEMU command line."""
    host.libvirt_says("state='paused' reason='user'")
    assert (host.ask(None).state, host.ask(None).left_out) == ("paused", ())


@pytest.mark.parametrize(
    ("attributes", "uuid"), [("state='paused'", UUID.replace("4", "5")), ("state='paused'", ""), ("", UUID)]
)
def test_an_old_file_of_libvirts_is_not_believed(host: Host, attributes: str, uuid: str) -> None:
    """The number may be another VM's by now; a file without a state tells nothing."""
    host.libvirt_says(attributes, uuid)
    with host.monitor(qemu("running")):
        assert host.ask().state == "running"


# --- QMP ---


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("running", "running"),
        ("paused", "paused"),
        ("io-error", "paused"),
        ("suspended", "suspended"),
        ("guest-panicked", "crashed"),
        ("internal-error", "crashed"),
        ("prelaunch", "starting"),
        ("inmigrate", "migrating"),
        ("shutdown", "shutdown"),
        ("of-tomorrow", "unknown"),
    ],
)
def test_a_free_socket_tells_it(host: Host, word: str, state: str) -> None:
    """In QEMU's words, by the two commands."""
    with host.monitor(qemu(word)) as heard:
        found = host.ask()
    assert found == VmState(state=state, told_by=f"QMP at {SOCKET}", detail=word)  # type: ignore[arg-type]
    assert len(heard) == 1


def test_the_next_socket_is_asked_where_one_is_taken(host: Host) -> None:
    """Each has its share of the time; what was not told is said."""
    other = "/run/vm/other.sock"
    with host.monitor(silent), host.monitor(qemu("paused"), other):
        found = host.ask(Console(qmp=(SOCKET, other)), seconds=4.0)
    assert (found.state, found.told_by) == ("paused", f"QMP at {other}")
    assert [text.partition(" no greeting")[0] for text in found.left_out] == [f"QMP at {SOCKET}: in use:"]


def test_it_never_takes_longer_than_it_may(host: Host) -> None:
    """Ten sockets that are silent; the bound is generous, and tells a hang."""
    paths = [f"/run/vm/{number}" for number in range(10)]
    place = host.root.path / "run/vm"
    place.mkdir(parents=True)
    listeners = [socket.socket(socket.AF_UNIX) for _ in paths]
    try:
        for path, listener in zip(paths, listeners, strict=True):
            listener.bind(str(host.root.path / path.lstrip("/")))
            listener.listen(1)
        before = time.monotonic()
        found = host.ask(Console(qmp=tuple(paths)), seconds=0.3)
        assert time.monotonic() - before < 20
    finally:
        for listener in listeners:
            listener.close()
    assert (found.state, len(found.left_out)) == ("unknown", 10)


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (lambda client: client.sendall(b"hello\r\n"), "nonsense"),
        (lambda client: client.sendall(b'{"a":"' + b"x" * 100_000), "nonsense"),
        (lambda client: client.shutdown(socket.SHUT_RDWR), "gone"),
    ],
)
def test_what_is_no_qemu_leaves_it_unknown(host: Host, serve: Callable[[socket.socket], None], reason: str) -> None:
    """With the reason."""
    with host.monitor(serve):
        found = host.ask()
    assert (found.state, found.told_by, bool(found.detail)) == ("unknown", "", True)
    assert [text.split(": ")[:2] for text in found.left_out] == [[f"QMP at {SOCKET}", reason]]


def test_a_socket_of_another_process_is_not_asked(host: Host) -> None:
    """The path is the VMM's word, and may be anybody's by now: the kernel says who listens."""
    sleeper = subprocess.Popen(["/bin/sleep", "60"])
    try:
        with Process(Path("/proc"), sleeper.pid) as process:
            started = process.start_time()
        other = attrs.evolve(host, holder=attrs.evolve(host.holder, pid=sleeper.pid, start_time=started))
        other.is_in_state("S")
        with host.monitor(qemu("running")) as heard:
            found = other.ask()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert found.state == "unknown"
    assert found.left_out == (f"QMP at {SOCKET}: stranger: process {os.getpid()} listens there",)
    assert heard in ([], [b""])


def test_the_same_number_is_not_the_same_process(host: Host) -> None:
    """The start time has to agree as well, and to be known."""
    for started in (host.holder.start_time + 7, 0):
        other = attrs.evolve(host, holder=attrs.evolve(host.holder, start_time=started))
        other.is_in_state("S")
        with host.monitor(qemu("running")):
            found = other.ask()
        assert (found.state, found.left_out[0].split(": ")[1]) == ("unknown", "stranger")


def test_a_path_that_is_not_on_this_host_is_left(host: Host) -> None:
    """Nothing there, a file, or a path that cannot be."""
    (host.root.path / "file").write_text("")
    for path in ("/run/nothing", "/file", "/run/a\0b", "/", "", "x" * 5000, "\udcff"):
        found = host.ask(Console(qmp=(path,)))
        assert found.state == "unknown"
        assert found.left_out == (f"QMP at {path}: no such socket on this host that we may see",)


def test_a_path_is_meant_as_the_vmm_sees_it(host: Host) -> None:
    """Below its own root, which may be a container's, before the host's; below its working directory."""
    own = host.root.proc / str(os.getpid())
    (own / "root").symlink_to(host.root.path / "container")
    (own / "cwd").symlink_to(host.root.path / "folder")
    with host.monitor(qemu("paused"), f"/container{SOCKET}"), host.monitor(qemu("running")):
        assert (host.ask().state, host.ask().told_by) == ("paused", f"QMP at {SOCKET}")
    with host.monitor(qemu("suspended"), "/folder/below/qmp"):
        assert host.ask(Console(qmp=("below/qmp",))).state == "suspended"


@pytest.mark.parametrize(
    ("console", "path", "reason"),
    [
        (Console(qmp=("/var/lib/libvirt/qemu/domain-1-a/monitor.sock",)), "", "libvirt holds the monitor"),
        (Console(qmp=("/home/a/.config/libvirt/qemu/lib/m.sock",)), "", "libvirt holds the monitor"),
        (Console(qmp=(SOCKET,), given_files=True), SOCKET, "QEMU may close descriptors of -add-fd when we leave"),
    ],
)
def test_what_could_disturb_is_left_out(host: Host, console: Console, path: str, reason: str) -> None:
    """And said."""
    with host.monitor(qemu("running"), path or console.qmp[0]) as heard:
        found = host.ask(console)
    assert (found.state, found.left_out) == ("unknown", (f"QMP at {console.qmp[0]}: {reason}",))
    assert not heard


def test_a_qemu_that_waits_for_its_first_client_is_left_waiting(host: Host) -> None:
    """With wait=on the first client starts the VM; one that holds a device has been started."""
    waits = Console(qmp=(SOCKET,), qmp_waits=(SOCKET,))
    claimed = (HeldDevice(fd=-1, name="0000:41:00.4", known_by="command line"),)
    waiting = attrs.evolve(host, holder=attrs.evolve(host.holder, devices=claimed))
    with host.monitor(qemu("running")) as heard:
        found = waiting.ask(waits)
        assert found.left_out == (f"QMP at {SOCKET}: QEMU may still be waiting there for its first client",)
        assert not heard
        assert host.ask(waits).state == "running"
        by_group = attrs.evolve(waiting, holder=attrs.evolve(waiting.holder, groups=(HeldGroup(fd=9, number="7"),)))
        assert by_group.ask(waits).state == "running"


@pytest.mark.parametrize("console", [None, Console(), Console(monitored=True)])
def test_nothing_to_ask_is_unknown(host: Host, console: Console | None) -> None:
    """With the reason, and what is held by somebody else."""
    found = host.ask(console)
    assert (found.state, found.told_by, bool(found.detail)) == ("unknown", "", True)
    assert bool(found.left_out) == (console is not None and console.monitored)
