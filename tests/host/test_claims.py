"""Command lines that lie: anybody may call a program as he likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mdevdisplay
from mdevdisplay.errors import DeviceGone, MdevDisplayError
from mdevdisplay.host import HostRoot
from mdevdisplay.host.attach import attach
from mdevdisplay.host.holders import HeldDevice, HeldGroup, Holder, find_holder, find_holders, named
from mdevdisplay.host.holders import _without_false_claims as settled
from mdevdisplay.host.vmm import Vm
from mdevdisplay.testing import FakeKernel, Mdpy

ONE, OTHER = "00000001-0000-4000-8000-000000000000", "00000002-0000-4000-8000-000000000000"


def holder(pid: int, *devices: HeldDevice, readable: bool = True, groups: tuple[HeldGroup, ...] = ()) -> Holder:
    vm = Vm(name="win10", kind="qemu")
    return Holder(pid=pid, start_time=pid, vm=vm, devices=devices, readable=readable, groups=groups)


def test_the_kernels_word_beats_a_command_line() -> None:
    """Who claims a device that another process has for certain is not believed; that he has some device is."""
    liar = holder(1, HeldDevice(fd=5, name=ONE, known_by="command line"))
    owner = holder(2, HeldDevice(fd=6, name=ONE, known_by="group"))
    hidden = holder(3, HeldDevice(fd=-1, name=ONE, known_by="command line"), readable=False)
    found = settled([liar, owner, hidden])
    assert found == [holder(1, HeldDevice(fd=5)), owner]


def test_of_two_claims_neither_is_believed() -> None:
    """And a single one is."""
    claims = [holder(pid, HeldDevice(fd=5, name=ONE, known_by="command line")) for pid in (1, 2)]
    assert settled(claims) == [holder(pid, HeldDevice(fd=5)) for pid in (1, 2)]
    assert settled(claims[:1]) == claims[:1]


def test_a_process_that_may_not_be_looked_at_does_not_stand_in_the_way() -> None:
    """A stranger's VM of the same name is not the one that is meant where there is one that can be read."""
    mine = holder(2, HeldDevice(fd=6, name=ONE, known_by="group"))
    strangers = holder(1, HeldDevice(fd=-1, name=OTHER, known_by="command line"), readable=False)
    assert named([strangers, mine], "win10") == [mine]
    assert named([strangers], "win10") == [strangers]


def test_a_liar_is_not_shown_as_another_vm(kernel: FakeKernel) -> None:
    """An older process that names the device of a younger VM: the VM's own picture is shown."""
    device, own = kernel.add(Mdpy("vga")), kernel.add(Mdpy("xga"))
    claim = f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{device.name}"
    kernel.vmm(own, says=False, words=["qemu-system-x86_64", "-name", "liar", "-device", claim])
    kernel.vmm(device, name="bank")
    with mdevdisplay.open(device.name) as display:
        assert display.capture().surface.width == 640
    assert [one.vm.name for one in find_holders(HostRoot(kernel.path)) if one.holds(device.name)] == ["bank"]


def test_a_descriptor_of_another_device_than_was_said(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel names the device, no other name decides its quirks."""
    driver = kernel.add(Mdpy("vga"))
    vmm = kernel.vmm(driver)
    found = find_holder(HostRoot(kernel.path), vmm.pid)
    assert found is not None
    monkeypatch.setattr("mdevdisplay.dmabuf.read_fdinfo", lambda _: f"vfio-device-syspath:\t/sys/devices/x/{OTHER}\n")
    with pytest.raises(DeviceGone, match=f"is of device {OTHER}, not of"):
        attach(found, found.devices[0], driver.name, HostRoot(kernel.path))


def test_two_descriptors_of_one_device(kernel: FakeKernel) -> None:
    """As with a descriptor set of QEMU's: one display."""
    driver = kernel.add(Mdpy("vga"))
    vmm = kernel.vmm(driver)
    entry = kernel.path / f"proc/{vmm.pid}"
    fd = next(iter(vmm.fds.values()))
    for folder in ("fd", "fdinfo"):
        source, copy = entry / folder / str(fd), entry / folder / "900"
        copy.symlink_to(source.readlink()) if folder == "fd" else copy.write_bytes(source.read_bytes())
    with mdevdisplay.open("vm:win10") as display:
        assert display.identity.name == driver.name


def test_a_process_of_another_pid_namespace(kernel: FakeKernel) -> None:
    """Its number means another process here, or none: that is said, and nobody else's descriptor is taken."""
    driver = kernel.add(Mdpy("vga"))
    vmm = kernel.vmm(driver)
    entry = kernel.path / f"proc/{vmm.pid}"
    for number in (os.getpid(), 4194303):
        elsewhere = kernel.path / f"proc/{number}"
        entry.rename(elsewhere)
        words = Path(f"/proc/{vmm.pid}/stat").read_text().rpartition(")")[2].split()
        words[19] = "77"
        (elsewhere / "stat").write_text(f"{number} (qemu) {' '.join(words)}\n")
        (elsewhere / "status").write_text(f"Name:\tqemu\nTgid:\t{number}\nUid:\t0\t0\t0\t0\n")
        with pytest.raises(MdevDisplayError) as caught:
            mdevdisplay.open(f"pid:{number}")
        assert caught.value.cause == "other-pid-namespace"
        elsewhere.rename(entry)
