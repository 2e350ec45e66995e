"""Attaching to a process that holds devices: real processes and pidfds, a fake /proc and fake drivers."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs
import pytest

import mdevdisplay
from mdevdisplay import _fds
from mdevdisplay.errors import (
    DeviceGone,
    DeviceNotFound,
    LocatorError,
    MdevDisplayError,
    NotADisplay,
    NotPermitted,
    VmGone,
)
from mdevdisplay.host import HostRoot, attach, open_device, refusals, trace_layers
from mdevdisplay.host.holders import find_holder
from mdevdisplay.testing import Driver, FakeKernel, Mbochs, Mdpy, Mtty
from mdevdisplay.testing.vmm import FakeVmm


@pytest.fixture
def driver(kernel: FakeKernel) -> Mdpy:
    """A device that a VM will use."""
    return kernel.add(Mdpy("vga"))


@pytest.fixture
def vmm(kernel: FakeKernel, driver: Mdpy) -> FakeVmm:
    """A running VM called win10 that has it."""
    return kernel.vmm(driver, name="win10")


LOCATORS = ["{uuid}", "mdev_{libvirt}", "vm:win10", "vm:win10/0", "pid:{pid}", "pid:{pid}/0", "win10"]


@pytest.mark.parametrize("locator", LOCATORS)
def test_every_name_finds_the_route(driver: Mdpy, vmm: FakeVmm, locator: str) -> None:
    """A device in use is borrowed from its VMM, however it is named, and knows which it is."""
    name = locator.format(uuid=driver.name, libvirt=driver.name.replace("-", "_"), pid=vmm.pid)
    with mdevdisplay.open(name) as display:
        assert display.borrowed
        assert display.identity.name == driver.name
        assert display.capture().surface.width == 640


def test_the_old_kernel_says_nothing(kernel: FakeKernel) -> None:
    """Before Linux 6.18 the command line settles one device of one process."""
    driver = kernel.add(Mdpy("vga"))
    kernel.vmm(driver, says=False)
    with mdevdisplay.open(driver.name) as display:
        assert display.borrowed
        assert display.identity.driver == "mdpy"


def test_nothing_is_changed_on_it(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
    """What reached the device: queries, region infos and a read-only mapping. The kernel fixture checks the rest."""
    with mdevdisplay.open("vm:win10") as display:
        display.capture()
        display.edid()
    names = {call.name for call in kernel.calls if call.target == driver.name}
    assert names == {"ioctl", "mmap", "unmap", "close"}
    assert not any(call.name == "open" for call in kernel.calls)
    assert vmm.pid > 0


class TestChoice:
    """Several VMs, several devices."""

    def test_one_vm_with_two(self, kernel: FakeKernel) -> None:
        """Each has its number and its name; the bare name says which there are."""
        drivers = [kernel.add(Mdpy("vga")), kernel.add(Mdpy("xga"))]
        kernel.vmm(*drivers, name="two")
        for number, width in enumerate((640, 1024)):
            with mdevdisplay.open(f"vm:two/{number}") as display:
                assert display.capture().surface.width == width
                assert display.identity.name == drivers[number].name
        with pytest.raises(LocatorError, match="has 2 displays") as caught:
            mdevdisplay.open("vm:two")
        assert f"vm:two/1 is {drivers[1].name}" in caught.value.hint
        with pytest.raises(DeviceNotFound, match="has 2 displays, counted from 0"):
            mdevdisplay.open("vm:two/2")

    def test_a_device_without_a_display_does_not_count(self, kernel: FakeKernel) -> None:
        """A serial port beside a display: the name of the VM is enough."""
        kernel.vmm(kernel.add(Mtty()), kernel.add(Mdpy("vga")), name="mixed")
        with mdevdisplay.open("vm:mixed") as display:
            assert display.capture().surface.width == 640

    def test_none_is_a_display(self, kernel: FakeKernel) -> None:
        """Two devices and nothing to see."""
        kernel.vmm(kernel.add(Mtty()), kernel.add(Mtty()), name="mute")
        with pytest.raises(NotADisplay, match="none of the 2 VFIO devices"):
            mdevdisplay.open("vm:mute")

    def test_forty_devices(self, kernel: FakeKernel) -> None:
        """All are looked at, and none stays open."""
        drivers: list[Driver] = [kernel.add(Mtty()) for _ in range(39)]
        kernel.vmm(*drivers, kernel.add(Mdpy("vga")), name="big")
        with mdevdisplay.open("vm:big") as display:
            assert display.capture().surface.width == 640
            assert len(kernel.leaks()) == 2  # a descriptor and a mapping

    def test_two_vms_of_one_name(self, kernel: FakeKernel) -> None:
        """Both are named, by pid, and the pid says which."""
        one = kernel.vmm(kernel.add(Mdpy("vga")), name="twin")
        other = kernel.vmm(kernel.add(Mdpy("xga")), name="twin")
        with pytest.raises(LocatorError, match="2 VMs are called 'twin'") as caught:
            mdevdisplay.open("vm:twin")
        assert f"pid:{one.pid}" in caught.value.hint
        assert f"pid:{other.pid}" in caught.value.hint
        with mdevdisplay.open(f"pid:{other.pid}") as display:
            assert display.capture().surface.width == 1024

    def test_a_name_with_a_slash(self, kernel: FakeKernel) -> None:
        """A VM called a/1 is not the second display of a."""
        kernel.vmm(kernel.add(Mdpy("vga")), name="a/1")
        mdevdisplay.open("vm:a/1").close()


class Refuse(Protocol):
    """See `refuse`."""

    def __call__(self, number: int, *, to_nothing: int = errno.EBADF) -> None: ...


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """A function that has pidfd_getfd fail; ``to_nothing``: with which errno for a pidfd of -1."""

    def start(number: int, *, to_nothing: int = errno.EBADF) -> None:
        def fail(pidfd: int, fd: int) -> int:
            failed = to_nothing if pidfd < 0 else number
            raise OSError(failed, os.strerror(failed))

        monkeypatch.setattr(attach, "duplicate_from", fail)
        monkeypatch.setattr(trace_layers, "duplicate_from", fail)

    return start


class TestInTheWay:
    """What can go wrong, each a clear error with nothing left open."""

    def test_no_such_vm(self, vmm: FakeVmm) -> None:
        """The hint has those that there are."""
        with pytest.raises(DeviceNotFound, match="'win11'") as caught:
            mdevdisplay.open("vm:win11")
        assert "'win10'" in caught.value.hint
        assert vmm.pid

    def test_no_such_process(self, kernel: FakeKernel) -> None:
        """A pid that nobody has."""
        with pytest.raises(DeviceNotFound, match="no process 4194303"):
            mdevdisplay.open("pid:4194303")

    @pytest.mark.parametrize("text", ["", "x", "-1", "1/", "1/x", "99999999999", "1 "])
    def test_no_pid(self, kernel: FakeKernel, text: str) -> None:
        """What is no number of a process."""
        with pytest.raises((LocatorError, DeviceNotFound)):
            mdevdisplay.open(f"pid:{text}")

    def test_a_process_that_is_no_vmm(self, kernel: FakeKernel, vmm: FakeVmm, driver: Mdpy) -> None:
        """It exists and holds no device."""
        vmm.forget(driver.name)
        with pytest.raises(DeviceNotFound, match="holds no VFIO device"):
            mdevdisplay.open(f"pid:{vmm.pid}")

    def test_it_ends_between_look_up_and_attach(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """VmGone, before anything was opened."""
        root = HostRoot(kernel.path)
        holder = find_holder(root, vmm.pid)
        assert holder is not None
        vmm.kill()
        with pytest.raises(VmGone, match="ended while it was looked at"):
            attach.attach(holder, holder.devices[0], driver.name, root)

    def test_the_number_is_another_process_by_now(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """The start time tells them apart."""
        root = HostRoot(kernel.path)
        holder = find_holder(root, vmm.pid)
        assert holder is not None
        stat = kernel.path / f"proc/{vmm.pid}/stat"
        stat.write_bytes(stat.read_bytes().replace(str(holder.start_time).encode(), b"1"))
        with pytest.raises(VmGone):
            attach.attach(holder, holder.devices[0], driver.name, root)

    def test_it_closes_the_device_meanwhile(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """EBADF: the device is gone from that process, the process is not."""
        root = HostRoot(kernel.path)
        holder = find_holder(root, vmm.pid)
        assert holder is not None
        gone = mdevdisplay.host.holders.HeldDevice(fd=900, name=driver.name, known_by="fdinfo")
        with pytest.raises(DeviceGone, match="EBADF"):
            attach.attach(holder, gone, driver.name, root)

    def test_the_descriptor_is_something_else_by_now(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """A number that was given to another file."""
        root = HostRoot(kernel.path)
        holder = find_holder(root, vmm.pid)
        assert holder is not None
        with pytest.raises(NotADisplay, match="no VFIO device but"):
            attach.attach(holder, mdevdisplay.host.holders.HeldDevice(fd=1), driver.name, root)

    @pytest.mark.parametrize(
        ("scope", "cause"), [("0", "attach-not-permitted"), ("1", "attach-not-permitted"), ("3", "trace-yama-3")]
    )
    def test_not_permitted(self, kernel: FakeKernel, vmm: FakeVmm, refuse: Refuse, scope: str, cause: str) -> None:
        """EPERM is NotPermitted, and says which layer it was. The VMM is this program's child, which passes at 1."""
        refuse(errno.EPERM)
        path = kernel.path / "proc/sys/kernel/yama/ptrace_scope"
        path.parent.mkdir(parents=True)
        path.write_text(f"{scope}\n")
        with pytest.raises(NotPermitted, match="pidfd_getfd of descriptor") as caught:
            mdevdisplay.open("vm:win10")
        assert caught.value.cause == cause
        assert caught.value.errno == errno.EPERM
        assert ("ptrace_scope is 3" in caught.value.message) == (scope == "3")
        assert caught.value.hint.endswith("docs/permissions.md")

    def test_the_error_says_what_the_doctor_says(self, kernel: FakeKernel, vmm: FakeVmm, refuse: Refuse) -> None:
        """The same cause, the evidence in the message, the remedy as the hint."""
        refuse(errno.EPERM)
        status = kernel.path / f"proc/{vmm.pid}/status"
        status.write_text(re.sub(r"(?m)^CapPrm:.*$", f"CapPrm:\t{1 << 50:x}", status.read_text()))
        own = kernel.path / "own"
        own.mkdir()
        (own / str(vmm.pid)).symlink_to(f"/proc/{vmm.pid}")
        (own / "self").mkdir()
        ours = re.sub(r"(?m)^Cap(\w+):.*$", r"Cap\1:\t0", Path("/proc/self/status").read_text())
        (own / "self/status").write_text(ours)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(refusals, "OWN_PROC", own)
            holder = find_holder(HostRoot(kernel.path), vmm.pid)
            assert holder is not None
            refusal = refusals.explain(holder, HostRoot(kernel.path))
            with pytest.raises(NotPermitted) as caught:
                mdevdisplay.open("vm:win10")
        expected = "trace-capabilities" if os.getuid() else "trace-no-ptrace-capability"
        assert caught.value.cause == refusal.cause == expected
        assert caught.value.message.endswith(refusal.evidence)
        assert "CapPrm 4000000000000" in refusal.evidence
        assert caught.value.hint == refusal.remedy

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL])
    def test_a_seccomp_filter(self, vmm: FakeVmm, refuse: Refuse, number: int) -> None:
        """A call that fails whatever it is called with is filtered: that is neither the user's nor the VM's doing."""
        refuse(number, to_nothing=number)
        with pytest.raises(NotPermitted, match=errno.errorcode[number]) as caught:
            mdevdisplay.open("vm:win10")
        assert (caught.value.cause, caught.value.errno) == ("trace-seccomp", number)
        assert "pidfd_getfd" in caught.value.hint

    def test_a_kernel_or_filter_without_the_call(self, vmm: FakeVmm, refuse: Refuse) -> None:
        """ENOSYS is a filter's where this process has one, and an old kernel's otherwise."""
        refuse(errno.ENOSYS, to_nothing=errno.ENOSYS)
        with pytest.raises(NotPermitted, match="ENOSYS") as caught:
            mdevdisplay.open("vm:win10")
        filtered = "Seccomp:\t0" not in Path("/proc/self/status").read_text()
        assert caught.value.cause == ("trace-seccomp" if filtered else "attach-not-permitted")
        assert caught.value.errno == errno.ENOSYS

    def test_a_security_module_forbids_the_file(self, kernel: FakeKernel, vmm: FakeVmm, refuse: Refuse) -> None:
        """EACCES comes after the attach was allowed; which module it is, its own files tell."""
        refuse(errno.EACCES)
        with pytest.raises(NotPermitted, match="EACCES") as caught:
            mdevdisplay.open("vm:win10")
        assert (caught.value.cause, caught.value.errno) == ("attach-not-permitted", errno.EACCES)

    def test_descriptors_that_may_not_be_read(self, kernel: FakeKernel, vmm: FakeVmm) -> None:
        """Before anything is attached to: by name, and by number."""
        holder = find_holder(HostRoot(kernel.path), vmm.pid)
        assert holder is not None
        closed = attrs.evolve(holder, readable=False)
        with pytest.raises(NotPermitted, match="reading the descriptors of VM 'win10'") as caught:
            attach.attach(closed, holder.devices[0], "vm:win10", HostRoot(kernel.path))
        assert caught.value.hint.endswith("docs/permissions.md")


def test_a_mapped_vgpu_never_asks_for_a_dmabuf_of_a_borrowed_mbochs(kernel: FakeKernel) -> None:
    """GET while a VM runs may crash the kernel with that driver."""
    driver = kernel.add(Mbochs())
    driver.set_mode(640, 480)
    kernel.vmm(driver)
    with mdevdisplay.open("vm:win10") as display:
        assert display.capture().surface.width == 640
        with pytest.raises(MdevDisplayError):
            display.dmabuf()


@pytest.fixture
def log(kernel: FakeKernel) -> Iterator[socket.socket]:
    """A syslog daemon's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(kernel.path / "dev/log"))
        daemon.settimeout(5)
        yield daemon


def test_one_line_to_the_auth_log(kernel: FakeKernel, driver: Mdpy, log: socket.socket) -> None:
    """Who, which VM, which device; whatever the VM is called stays one line."""
    kernel.vmm(driver, name="win\n<0>10\x1b[31m")
    mdevdisplay.open(driver.name).close()
    line = log.recv(2000).decode()
    assert line.startswith(f"<37>mdevdisplay[{os.getpid()}]: ")
    assert f"({os.getuid()})" in line
    assert driver.name in line
    assert "win" in line
    assert line.isprintable()
    log.setblocking(False)
    with pytest.raises(BlockingIOError):
        log.recv(2000)


def test_a_syslog_that_hangs_does_not_matter(kernel: FakeKernel, driver: Mdpy, log: socket.socket) -> None:
    """Its queue is full and nobody reads."""
    kernel.vmm(driver)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(10_000):
                sender.sendto(b"full", str(kernel.path / "dev/log"))
        with pytest.raises(BlockingIOError):
            sender.sendto(b"full", str(kernel.path / "dev/log"))
    with mdevdisplay.open(driver.name) as display:
        assert display.borrowed


def test_the_real_call(tmp_path: Path) -> None:
    """pidfd_getfd of a real process gives the very same file."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, subprocess.Popen(["/bin/sleep", "60"], stdin=file) as process:
        pidfd = os.pidfd_open(process.pid)
        copy = _fds.duplicate_from(pidfd, 0)
        assert os.path.sameopenfile(copy, file.fileno())
        assert not os.get_inheritable(copy)
        with pytest.raises(OSError, match="Bad file descriptor"):
            _fds.duplicate_from(pidfd, 77)
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            _fds.duplicate_from(pidfd, 0)
        os.close(copy)
        os.close(pidfd)


def test_open_device_is_the_same_for_plugin_authors(vmm: FakeVmm) -> None:
    """`mdevdisplay.host.open_device` takes every locator of the host."""
    with open_device("vm:win10") as device:
        assert device.borrowed
        assert device.lifeline is not None
