"""Which vGPUs are listed, with which VM and in which state."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.fake_processes import DEVICE, FakeProcesses
from mdevdisplay.host import HostRoot, list_host_devices
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia

UUID = "48888226-7b6b-415c-bcf7-b278ba0bca62"


@pytest.fixture
def processes(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> FakeProcesses:
    return FakeProcesses(kernel.path, monkeypatch)


@pytest.fixture
def root(kernel: FakeKernel) -> HostRoot:
    return HostRoot.from_environment()


def states(root: HostRoot) -> dict[str, str]:
    return {device.locator: device.state for device in list_host_devices(root)}


def test_a_device_is_listed_with_its_vm(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Name, UUID, process, state; mediated devices first, then functions; nothing is touched."""
    mdpy, function, free = kernel.add(Mdpy()), kernel.add(Nvidia("0000:41:00.4", pci=True)), kernel.add(Gvt())
    words = ["qemu-kvm", "-name", "guest=win10", "-uuid", UUID]
    paths = {20: f"/sys/devices/x/{mdpy.name}", 21: f"/sys/devices/x/{function.name}"}
    processes.add(4242, words, dict.fromkeys(paths, DEVICE), fdinfo=paths)
    found = [
        (device.locator, device.vm, device.vm_uuid, device.pid, device.state) for device in list_host_devices(root)
    ]
    assert found == [
        (mdpy.name, "win10", UUID, 4242, "in use"),
        (free.name, "", "", None, "free"),
        (function.name, "win10", UUID, 4242, "in use"),
    ]
    assert not kernel.calls


def test_two_vms_of_one_name_are_both_listed(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Each with its own device and process."""
    for pid in (11, 12):
        path = f"/sys/devices/x/{kernel.add(Mdpy()).name}"
        processes.add(pid, ["qemu-kvm", "-name", "win10"], {20: DEVICE}, fdinfo={20: path})
    assert [(device.vm, device.pid) for device in list_host_devices(root)] == [("win10", 11), ("win10", 12)]


def test_a_vm_with_two_devices_has_both(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Though before Linux 6.18 nobody knows which descriptor is which."""
    first, second = kernel.add(Mdpy()), kernel.add(Mbochs())
    fds = {number: processes.group(kernel.sysfs, driver.group) for number, driver in ((10, first), (11, second))}
    processes.add(4242, ["qemu-kvm", "-name", "win10"], {**fds, 20: DEVICE, 21: DEVICE})
    third = kernel.add(Gvt())
    assert states(root) == {first.name: "in use", second.name: "in use", third.name: "free"}
    assert [device.vm for device in list_host_devices(root)][:2] == ["win10", "win10"]


def test_the_vmm_is_listed_before_its_readers(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """A process that duplicated the descriptor holds the device too; it is listed where it is alone, and is no VM."""
    driver = kernel.add(Mdpy())
    told = {20: f"/sys/devices/x/{driver.name}"}
    processes.add(11, ["python3"], {20: DEVICE}, fdinfo=told, start=1)
    [alone] = list_host_devices(root)
    assert (alone.vm, alone.pid, alone.state) == ("", 11, "in use")
    processes.add(12, ["qemu-kvm"], {20: DEVICE}, fdinfo=told, start=9)
    [device] = list_host_devices(root)
    assert (device.vm, device.pid) == ("qemu-kvm", 12)


def test_a_vm_that_we_may_not_look_at_is_listed_by_its_command_line(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other devices are in a state that nobody may tell."""
    driver, other = kernel.add(Mdpy()), kernel.add(Mbochs())
    words = ["qemu-kvm", "-name", "win10", "-device", f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{driver.name}"]
    processes.add(4242, words, uid=107)
    processes.close_to_us(monkeypatch, 4242)
    assert states(root) == {driver.name: "in use", other.name: "unknown"}
    assert list_host_devices(root)[0].vm == "win10"


def test_states_of_devices_that_nobody_holds(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free only where that is certain; without a VFIO driver it cannot be opened at all."""
    bound, unbound = kernel.add(Mdpy()), kernel.add(Mbochs())
    (kernel.sysfs.device(unbound) / "driver").unlink()
    assert states(root) == {bound.name: "free", unbound.name: "not bound"}
    processes.add(11, ["python3"], {20: DEVICE})  # it may be this one
    assert states(root) == {bound.name: "unknown", unbound.name: "not bound"}


def test_in_a_container_nothing_is_free(kernel: FakeKernel, root: HostRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its /proc does not show who else is on the host."""
    driver = kernel.add(Mdpy())
    assert states(root) == {driver.name: "unknown"}
    FakeProcesses(kernel.path, monkeypatch, whole=False)
    assert states(root) == {driver.name: "unknown"}


def test_a_group_that_is_open_is_in_use(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Its device could not be opened, whether or not its VM has done so already."""
    driver = kernel.add(Mdpy())
    processes.add(11, ["qemu-kvm", "-name", "starting"], {10: processes.group(kernel.sysfs, driver.group)})
    assert states(root) == {driver.name: "in use"}


def test_a_host_without_vgpus_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is looked at for nothing."""
    FakeProcesses(tmp_path, monkeypatch)
    monkeypatch.setattr("os.readlink", None)
    assert list_host_devices(HostRoot(tmp_path)) == []
