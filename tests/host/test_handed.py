"""Descriptors that a launcher hands over: inherited, given by the program itself, or through a socket."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdevdisplay
from mdevdisplay.errors import DeviceGone, LocatorError, MdevDisplayError, NotADisplay, TimedOut, VmGone
from mdevdisplay.host import handed
from mdevdisplay.testing import FakeKernel, Mdpy


@pytest.fixture
def driver(kernel: FakeKernel) -> Mdpy:
    """A device that a VMM holds."""
    return kernel.add(Mdpy("vga"))


@pytest.fixture
def fd(kernel: FakeKernel, driver: Mdpy) -> Iterator[int]:
    """A descriptor of it, as a launcher has one; closed after the test if it is still open."""
    fd = kernel.lend(driver)
    yield fd
    if kernel.file_of(fd) is driver:
        os.close(fd)


class TestInherited:
    """``fd:N``."""

    def test_it_is_taken_over(self, kernel: FakeKernel, driver: Mdpy, fd: int) -> None:
        """Closing the display closes the number that was inherited too, so that the device is let go."""
        with mdevdisplay.open(f"fd:{fd}") as display:
            assert display.borrowed
            assert display.capture().surface.width == 640
            assert kernel.file_of(fd) is None
        assert kernel.leaks() == []

    def test_a_wrong_backend_does_not_cost_it(self, kernel: FakeKernel, driver: Mdpy, fd: int) -> None:
        """A second try finds it still there."""
        with pytest.raises(MdevDisplayError):
            mdevdisplay.open(f"fd:{fd}", backend="no-such-backend")
        mdevdisplay.open(f"fd:{fd}").close()
        assert kernel.leaks() == []

    def test_a_wrong_number_is_left_alone(self, tmp_path: Path) -> None:
        """It is somebody else's file."""
        with (tmp_path / "file").open("wb") as file:
            with pytest.raises(NotADisplay, match="no VFIO device but"):
                mdevdisplay.open(f"fd:{file.fileno()}")
            file.write(b"still open")

    def test_nothing_is_open_there(self) -> None:
        """The hint says how to inherit one."""
        with pytest.raises(DeviceGone, match="EBADF") as caught:
            mdevdisplay.open("fd:4000")
        assert "pass_fds" in caught.value.hint

    @pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "7 ", "99999999"])
    def test_no_number(self, text: str) -> None:
        """What is no descriptor's number."""
        with pytest.raises(LocatorError, match="not the number"):
            mdevdisplay.open(f"fd:{text}")


class TestGiven:
    """`mdevdisplay.open_fd`."""

    def test_the_callers_stays_open(self, kernel: FakeKernel, driver: Mdpy, fd: int) -> None:
        """A VMM goes on using its device."""
        with mdevdisplay.open_fd(fd, device=driver.name, vm="win10") as display:
            assert display.borrowed
            assert display.identity.driver == "mdpy"
            assert display.capture().surface.width == 640
        assert kernel.descriptors_of(driver).count(fd) == 1

    def test_no_descriptor(self) -> None:
        """EBADF is DeviceGone."""
        with pytest.raises(DeviceGone, match="EBADF"):
            mdevdisplay.open_fd(4000)

    def test_no_such_process(self, fd: int) -> None:
        """A VMM that has ended already."""
        with pytest.raises(DeviceGone, match="pidfd_open"):
            mdevdisplay.open_fd(fd, pid=4194303)

    def test_its_vm_ends(self, kernel: FakeKernel, driver: Mdpy) -> None:
        """The pid that was given is watched."""
        vmm = kernel.vmm(driver)
        fd = kernel.open_descriptor(driver)
        with mdevdisplay.open_fd(fd, vm="win10", pid=vmm.pid, timeout=10) as display:
            display.capture()
            vmm.kill()
            with pytest.raises(VmGone, match="'win10'"):
                until_it_fails(display)
        os.close(fd)


def until_it_fails(display: mdevdisplay.Display) -> None:
    """Capture until it raises, at most a while."""
    for _ in range(2000):
        display.capture()
        threading.Event().wait(0.005)


Launcher = Callable[[Callable[[socket.socket], object]], str]


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """A function that starts a launcher: it calls a function with its first connection. Returns the locator."""
    threads: list[threading.Thread] = []
    path = tmp_path / "launcher.sock"

    def start(serve: Callable[[socket.socket], object]) -> str:
        listener = socket.socket(socket.AF_UNIX, request.param)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(10)

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(10)
                serve(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"unix:{path}"

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


class TestSocket:
    """``unix:PATH``."""

    def test_one_descriptor(self, launcher: Launcher, driver: Mdpy, fd: int) -> None:
        """With nothing but the descriptor, the display is there."""
        locator = launcher(lambda peer: socket.send_fds(peer, [b"{}"], [fd]))
        with mdevdisplay.open(locator) as display:
            assert display.borrowed
            assert display.capture().surface.width == 640

    def test_its_words_are_believed(self, kernel: FakeKernel, launcher: Launcher, driver: Mdpy) -> None:
        """The device decides the quirks, the pid ends the reading, the name stands in messages."""
        vmm = kernel.vmm(driver)
        words = json.dumps({"device": driver.name.upper(), "vm": "win10", "pid": vmm.pid}).encode()
        fd = kernel.open_descriptor(driver)
        locator = launcher(lambda peer: socket.send_fds(peer, [words], [fd]))
        with mdevdisplay.open(locator, timeout=10) as display:
            os.close(fd)
            assert display.identity.driver == "mdpy"
            vmm.kill()
            with pytest.raises(VmGone, match=f"VM 'win10' \\(pid {vmm.pid}\\) has ended"):
                until_it_fails(display)
            assert kernel.leaks() == []

    def test_the_vmm_is_found_where_it_is_not_said(self, kernel: FakeKernel, launcher: Launcher, driver: Mdpy) -> None:
        """The device's name is enough to know whose end to wait for."""
        vmm = kernel.vmm(driver)
        fd = kernel.open_descriptor(driver)
        words = json.dumps({"device": driver.name}).encode()
        with mdevdisplay.open(launcher(lambda peer: socket.send_fds(peer, [words], [fd])), timeout=10) as display:
            os.close(fd)
            vmm.kill()
            with pytest.raises(VmGone, match=f"pid {vmm.pid}"):
                until_it_fails(display)

    @pytest.mark.parametrize(
        ("count", "words"),
        [
            pytest.param(0, b"{}", id="none"),
            pytest.param(2, b"{}", id="two"),
            pytest.param(16, b"{}", id="sixteen"),
            pytest.param(17, b"{}", id="more than can be taken"),
            pytest.param(1, b"[]", id="no object"),
            pytest.param(1, b"\xff", id="no text"),
            pytest.param(1, b"{" * 5000, id="too long"),
            pytest.param(1, b"[" * 4000, id="nested"),
            pytest.param(1, b'{"device": "../../etc"}', id="no device"),
            pytest.param(1, b'{"device": 7}', id="device of another kind"),
            pytest.param(1, b'{"vm": 7}', id="name of another kind"),
            pytest.param(1, b'{"pid": true}', id="pid of another kind"),
            pytest.param(1, b'{"pid": 0}', id="no pid"),
            pytest.param(1, b'{"pid": 99999999999}', id="pid out of range"),
        ],
    )
    def test_nonsense_is_refused(self, launcher: Launcher, fd: int, count: int, words: bytes) -> None:
        """Every descriptor that came with it is closed; the fixture checks."""
        locator = launcher(lambda peer: socket.send_fds(peer, [words], [fd] * count) if count else peer.send(words))
        with pytest.raises(MdevDisplayError) as caught:
            mdevdisplay.open(locator)
        assert caught.value.cause == "bad-hand-over"
        assert caught.value.device == locator
        assert caught.value.hint

    def test_a_wrong_descriptor(self, launcher: Launcher) -> None:
        """A file that is no device."""
        with open(os.devnull, "rb") as wrong:  # noqa: PTH123
            locator = launcher(lambda peer: socket.send_fds(peer, [b"{}"], [wrong.fileno()]))
            with pytest.raises(NotADisplay, match="no VFIO device but /dev/null"):
                mdevdisplay.open(locator)

    def test_it_hangs_up(self, launcher: Launcher) -> None:
        """Connected, and closed at once."""
        with pytest.raises(MdevDisplayError, match="sent nothing"):
            mdevdisplay.open(launcher(lambda peer: None))

    def test_it_sends_nothing(self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        """A launcher that waits for something."""
        monkeypatch.setattr(handed, "_PATIENCE", 0.2)
        locator = launcher(lambda peer: peer.recv(1))
        with pytest.raises(TimedOut, match="no descriptor came"):
            mdevdisplay.open(locator)

    def test_nobody_listens(self, tmp_path: Path) -> None:
        """No socket, a file, an abandoned socket, no path."""
        with pytest.raises(DeviceGone, match="ENOENT"):
            mdevdisplay.open(f"unix:{tmp_path}/none")
        abandoned = tmp_path / "abandoned"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(abandoned))
        with pytest.raises(DeviceGone, match="ECONNREFUSED"):
            mdevdisplay.open(f"unix:{abandoned}")
        with pytest.raises(LocatorError):
            mdevdisplay.open("unix:")
        with pytest.raises(LocatorError, match="not the path of a socket"):
            mdevdisplay.open("unix:" + "x" * 200)


words_of_a_kind = st.dictionaries(st.sampled_from(["device", "vm", "pid", "other"]), st.integers() | st.text())


@given(st.binary(max_size=200) | words_of_a_kind.map(lambda words: json.dumps(words).encode()))
def test_any_words_make_sense_or_an_error(data: bytes) -> None:
    """No message crashes the parser."""
    with suppress(MdevDisplayError):
        words = handed._words(data, "unix:x")
        assert words.pid is None or 0 < words.pid < 1 << 31
        assert words.device == words.device.lower()
