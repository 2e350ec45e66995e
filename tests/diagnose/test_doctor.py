"""What a doctor says to each cause, on fake kernels, fake VMMs and simulated displays."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

import mdevdisplay
from mdevdisplay.diagnose import Ends, Report, State, deadline, diagnose, diagnose_host
from mdevdisplay.diagnose.nvidia import is_zero_mode
from mdevdisplay.host import devices as host_devices
from mdevdisplay.source import Finding
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty
from mdevdisplay.testing.drivers import Nvidia
from mdevdisplay.testing.vmm import FakeVmm

VM_UUID = "44cc0626-0a5f-4a5e-8f9b-7f9c1f4b3b01"
PIXELS = bytes(range(256)) * 16


def look(locator: str, *, watch: float = 0, timeout: float = 30, backend: str | None = None) -> Report:
    return diagnose(locator, isolated=False, watch=watch, timeout=timeout, backend=backend)


def causes(report: Report) -> list[str]:
    return [found.cause for found in report.findings]


def evidence(report: Report, cause: str) -> str:
    return next(found.evidence for found in report.findings if found.cause == cause)


def qemu(*drivers: Driver, display: str = "", extra: Sequence[str] = ()) -> list[str]:
    """A command line of QEMU without any other card and viewer."""
    words = ["/usr/bin/qemu-system-x86_64", "-nodefaults", "-name", "guest=win10", "-uuid", VM_UUID, "-display", "none"]
    for driver in drivers:
        suffix = f",display={display}" if display else ""
        words += ["-device", f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{driver.name}{suffix}"]
    return [*words, *extra]


def painted(kernel: FakeKernel, data: bytes = PIXELS) -> Mdpy:
    driver = kernel.add(Mdpy("vga"))
    driver.paint(data)
    return driver


def sysfs(kernel: FakeKernel, driver: Driver) -> Path:
    return kernel.sysfs.device(driver)


# the picture is there


def test_a_picture_is_seen(kernel: FakeKernel) -> None:
    report = look(painted(kernel).name)
    assert (report.cause, report.exit_status, report.findings) == ("shown", 0, ())
    assert "shows 640x480 on its vGPU" in report.verdict
    assert [step.name for step in report.steps] == ["host", "device", "access", "driver", "guest", "pixels"]
    assert {step.state for step in report.steps} == {State.OK}


def test_a_running_vm_is_named_with_its_process(kernel: FakeKernel) -> None:
    driver = painted(kernel)
    vmm = kernel.vmm(driver, name="win10", words=qemu(driver, display="on"))
    report = look("vm:win10")
    assert report.verdict.startswith("vm:win10 shows 640x480 on its vGPU")
    device = next(step for step in report.steps if step.name == "device")
    assert any(f"VM 'win10' (pid {vmm.pid})" in line for line in device.evidence)
    assert any(driver.name in line for line in device.evidence)
    assert driver.name in report.names
    assert "win10" in report.names


# host


def test_a_host_without_vfio(kernel: FakeKernel) -> None:
    kernel.remove_vfio()
    shutil.rmtree(kernel.path / "dev/vfio", ignore_errors=True)
    report = diagnose_host()
    assert (report.cause, report.ends) == ("no-vfio", Ends.BROKEN)
    assert causes(report)[:1] == ["no-vfio"]
    assert "$ modprobe -a vfio vfio_iommu_type1 vfio_pci" in report.findings[0].remedy


def test_a_host_without_mdev(kernel: FakeKernel) -> None:
    report = diagnose_host()
    assert (report.cause, report.ends) == ("no-mdev", Ends.BROKEN)
    missing = look("44cc0626-7e37-4b6c-a5b0-1e2ae6b9ea3e")
    assert missing.cause == "no-mdev"
    assert "no-such-device" in causes(missing)
    assert kernel


def test_a_host_without_a_vgpu(kernel: FakeKernel) -> None:
    (kernel.path / "sys/bus/mdev/devices").mkdir(parents=True)
    report = diagnose_host()
    assert (report.cause, report.ends) == ("no-vgpu", Ends.BROKEN)


def test_a_host_with_vgpus(kernel: FakeKernel) -> None:
    kernel.add(Mdpy("vga"))
    kernel.add(Mbochs())
    report = diagnose_host()
    assert (report.cause, report.verdict, report.exit_status) == ("host-ready", "this host has 2 vGPUs", 0)


def test_the_iommu_is_off(kernel: FakeKernel) -> None:
    driver = kernel.add(Nvidia(pci=True))
    (sysfs(kernel, driver) / "iommu_group").unlink()
    report = look(driver.name)
    assert (report.cause, report.ends) == ("iommu-off", Ends.BROKEN)
    assert "in no IOMMU group" in evidence(report, "iommu-off")


def test_a_proc_without_processes(kernel: FakeKernel) -> None:
    kernel.add(Mdpy("vga"))
    shutil.rmtree(kernel.path / "proc")
    (kernel.path / "proc").mkdir()
    assert look("vm:win10").cause == "no-proc"


def test_a_container_does_not_see_the_hosts_processes(kernel: FakeKernel) -> None:
    """A VM that is not found may be there all the same."""
    kernel.add(Mdpy("vga"))
    (kernel.path / "proc/self/ns").mkdir(parents=True)
    (kernel.path / "proc/self/ns/pid").symlink_to("pid:[4026532501]")
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("own-pid-namespace", 4)
    assert "pid:[4026532501]" in evidence(report, "own-pid-namespace")


# device


@pytest.mark.parametrize(
    ("locator", "cause", "status"),
    [
        ("vm:nobody", "no-such-vm", 1),
        ("pid:1999999999", "no-such-vm", 1),
        ("44cc0626-7e37-4b6c-a5b0-1e2ae6b9ea3e", "no-such-device", 1),
        ("0000:ff:1f.7", "no-such-device", 1),
        ("nonsense", "bad-locator", 2),
        ("", "bad-locator", 2),
        ("no such\nthing\x1b[31m", "bad-locator", 2),
        ("vm:", "no-such-vm", 1),
        ("pid:x", "bad-locator", 2),
        ("sim:nonsense=1", "bad-locator", 2),
        ("nul\0", "bad-locator", 2),
        ("x" * 5000, "bad-locator", 2),
        ("fd:999999", "bad-descriptor", 1),
        ("unix:/does/not/exist", "bad-hand-over", 1),
    ],
)
def test_a_locator_that_matches_nothing(kernel: FakeKernel, locator: str, cause: str, status: int) -> None:
    """A verdict all the same."""
    kernel.add(Mdpy("vga"))
    report = look(locator)
    assert (report.cause, report.exit_status) == (cause, status), report
    assert report.verdict


def test_a_name_of_two_vms(kernel: FakeKernel) -> None:
    one, two = kernel.add(Mdpy("vga")), kernel.add(Mdpy("vga"))
    first, second = kernel.vmm(one, name="twin"), kernel.vmm(two, name="twin")
    report = look("vm:twin")
    assert (report.cause, report.exit_status) == ("ambiguous-vm", 2)
    assert f"pid:{first.pid}" in report.findings[0].remedy[0]
    assert f"pid:{second.pid}" in report.findings[0].remedy[0]


def test_a_vm_with_two_displays(kernel: FakeKernel) -> None:
    kernel.vmm(kernel.add(Mdpy("vga")), kernel.add(Mdpy("xga")), name="win10")
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("ambiguous-display", 2)
    assert look("vm:win10/1").cause == "one-colour"


def test_a_process_without_a_vgpu(kernel: FakeKernel) -> None:
    kernel.add(Mdpy("vga"))
    (kernel.path / "proc/77/fd").mkdir(parents=True)
    (kernel.path / "proc/77/cmdline").write_bytes(b"/usr/bin/qemu-system-x86_64\0-name\0plain\0")
    assert look("pid:77").cause == "no-vfio-device"


def test_an_nvidia_function_without_a_type(kernel: FakeKernel) -> None:
    driver = kernel.add(Nvidia(pci=True))
    (sysfs(kernel, driver) / "nvidia").mkdir()
    (sysfs(kernel, driver) / "nvidia/current_vgpu_type").write_text("0\n")
    report = look(driver.name)
    assert (report.cause, report.ends) == ("nvidia-no-type", Ends.BROKEN)
    assert f"$ cat /sys/bus/pci/devices/{driver.name}/nvidia/creatable_vgpu_types" in report.findings[0].remedy
    assert not [call for call in kernel.calls.of("open") if "group" in call.target]


@attrs.frozen
class Physical:
    """A physical function's driver, and what its virtual functions come to."""

    driver: str
    cause: str


def as_function(kernel: FakeKernel, driver: Driver, *, of: str) -> None:
    """Let a device be a vfio-pci function, of a physical one with that driver or of none."""
    device = sysfs(kernel, driver)
    for link in (device / "driver",):
        link.unlink()
    module = kernel.path / "sys/bus/pci/drivers/vfio-pci"
    module.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(module)
    physical = device / "physfn"
    if not of:
        physical.unlink()
        return
    target = kernel.path / "sys/bus/pci/drivers" / of
    target.mkdir(parents=True)
    (physical.resolve() / "driver").symlink_to(target)


@pytest.mark.parametrize(
    "physical",
    [
        Physical("i915", "sriov-intel"),
        Physical("xe", "sriov-intel"),
        Physical("amdgpu", "sriov-amd"),
        Physical("gim", "sriov-amd"),
        Physical("", "passthrough"),
    ],
    ids=lambda physical: physical.driver or "none",
)
@pytest.mark.parametrize("held", [False, True])
def test_a_function_that_can_never_show(kernel: FakeKernel, physical: Physical, *, held: bool) -> None:
    """A free one is not opened, since vfio-pci would reset it; of one that a VM has the driver is asked."""
    driver = kernel.add(Driver(pci=True))
    as_function(kernel, driver, of=physical.driver)
    if held:
        kernel.vmm(driver, name="win10")
    report = look(driver.name)
    assert (report.cause, report.ends) == (physical.cause, Ends.BROKEN)
    assert ("not-a-display" in causes(report)) is held
    assert not [call for call in kernel.calls.of("open") if "group" in call.target]
    assert any("vfio-pci resets" in text for text in report.left_out) is not held


def test_a_type_for_computing(kernel: FakeKernel) -> None:
    driver = kernel.add(Nvidia())
    (kernel.sysfs.type_directory(driver) / "name").write_text("GRID V100-4C\n")
    driver.show(640, 480)
    driver.mapped_elsewhere = True
    report = look(driver.name)
    assert (report.cause, report.ends) == ("compute-only-type", Ends.BROKEN)
    assert "GRID V100-4C" in evidence(report, "compute-only-type")


def test_a_free_device_shows_nothing_since_no_vm_uses_it(kernel: FakeKernel) -> None:
    for driver in (kernel.add(Mbochs()), kernel.add(Gvt()), kernel.add(Nvidia())):
        report = look(driver.name)
        assert (report.cause, report.exit_status) == ("no-vm", 3)
        assert not [line for found in report.findings for line in found.remedy if "virsh" in line]


def test_a_free_device_is_not_opened_where_that_is_not_asked_for(kernel: FakeKernel) -> None:
    """A VM that starts meanwhile would find it busy."""
    driver = painted(kernel)
    report = diagnose(driver.name, isolated=False, open_free=False)
    assert (report.cause, report.exit_status) == ("no-vm", 3)
    assert any("would find it busy" in text for text in report.left_out)
    assert not [call for call in kernel.calls.of("open") if "group" in call.target]


def test_a_vgpu_beside_a_network_card(kernel: FakeKernel) -> None:
    """What is special about the vGPU is found by the VM's name too."""
    vgpu, card = kernel.add(Nvidia()), kernel.add(Driver(pci=True))
    vgpu.show(1600, 900)
    kernel.vmm(vgpu, card, name="win10", words=qemu(vgpu))
    report = look("vm:win10")
    assert report.cause == "nvidia-zero-mode"
    assert "display-off" in causes(report)


def test_the_second_of_two_vgpus(kernel: FakeKernel) -> None:
    """Which of the two it is, is known once it is open."""
    one, two = (kernel.add(Nvidia()) for _ in range(2))
    one.show(1920, 1080)
    two.show(1600, 900)
    kernel.vmm(one, two, name="win10", words=qemu(one, two))
    assert look("vm:win10/0").cause == "one-colour"
    second = look("vm:win10/1")
    assert second.cause == "nvidia-zero-mode"
    assert two.name in evidence(second, "display-off")


def test_a_vm_without_a_vgpu_is_named_as_such(kernel: FakeKernel) -> None:
    """It runs, and so is not missing."""
    kernel.add(Mdpy("vga"))
    (kernel.path / "proc/77/fd").mkdir(parents=True)
    (kernel.path / "proc/77/cmdline").write_bytes(b"/usr/bin/qemu-system-x86_64\0-name\0plain\0")
    assert look("vm:plain").cause == "no-vfio-device"
    assert look("plain").cause == "no-vfio-device"


def test_an_output_that_the_vm_has_not(kernel: FakeKernel) -> None:
    kernel.vmm(painted(kernel), name="win10")
    assert look("vm:win10/7").cause == "no-such-output"


def test_a_device_without_a_driver(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    (sysfs(kernel, driver) / "driver").unlink()
    (kernel.path / "dev/vfio" / str(driver.group)).unlink()
    assert look(driver.name).cause == "not-bound"


def test_a_device_without_a_node(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    (kernel.path / "dev/vfio" / str(driver.group)).unlink()
    assert look(driver.name).cause == "no-node"


# access


def test_a_node_that_may_not_be_opened(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    kernel.refuse_open(str(driver.group), errno.EACCES)
    report = look(driver.name)
    assert (report.cause, report.exit_status) == ("not-permitted", 4)
    assert f"$ ls -l /dev/vfio/vfio /dev/vfio/{driver.group}" in report.findings[0].remedy


def test_a_device_that_somebody_hides(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    kernel.refuse_open(str(driver.group), errno.EBUSY)
    assert look(driver.name).cause == "device-busy"


def test_a_vm_that_may_not_be_read(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which layer forbids it is told by host/refusals.py; here its id becomes the verdict's."""
    driver = painted(kernel)
    kernel.vmm(driver, name="win10")
    for module in ("attach", "trace_layers"):
        monkeypatch.setattr(f"mdevdisplay.host.{module}.duplicate_from", _refuse)
    report = look("vm:win10")
    assert report.exit_status == 4
    assert report.cause == "attach-not-permitted" or report.cause.startswith("trace-")
    assert "pidfd_getfd" in report.findings[0].evidence


def _refuse(pidfd: int, fd: int) -> int:
    raise OSError(errno.EBADF if pidfd < 0 else errno.EPERM, os.strerror(errno.EPERM), str(fd))


# vm


def vm(kernel: FakeKernel, driver: Driver, *extra: str, display: str = "") -> FakeVmm:
    return kernel.vmm(driver, name="win10", words=qemu(driver, display=display, extra=extra))


def test_display_off_beside_a_picture(kernel: FakeKernel) -> None:
    vm(kernel, painted(kernel))
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("shown", 0)
    assert "QEMU itself does not show this vGPU (display=off)" in report.verdict
    assert "display-off" in causes(report)


def test_a_second_card_beside_a_picture(kernel: FakeKernel) -> None:
    vm(kernel, painted(kernel), "-device", "qxl-vga,id=video0", display="on")
    report = look("vm:win10")
    assert report.verdict == (
        "vm:win10 shows 640x480 on its vGPU; if your console is black, it is attached to another card of that VM"
    )
    assert "qxl-vga" in evidence(report, "second-video-device")


def test_no_opengl_for_dmabufs(kernel: FakeKernel) -> None:
    driver = kernel.add(Mbochs())
    driver.set_mode(640, 480)
    driver.paint(PIXELS)
    vm(kernel, driver, "-vnc", ":1", display="auto")
    report = look("vm:win10")
    assert report.cause == "shown"
    assert "no-egl-headless" in causes(report)
    assert "OpenGL" in report.verdict


def test_opengl_is_there(kernel: FakeKernel) -> None:
    driver = kernel.add(Mbochs())
    driver.set_mode(640, 480)
    driver.paint(PIXELS)
    vm(kernel, driver, "-display", "egl-headless", "-vnc", ":1", display="on")
    assert not {"no-egl-headless", "wrong-render-node"} & set(causes(look("vm:win10")))


def gpus(kernel: FakeKernel, **addresses: str) -> None:
    for node, address in addresses.items():
        device = kernel.path / "sys/devices/pci0000:00" / address
        device.mkdir(parents=True, exist_ok=True)
        folder = kernel.path / "sys/class/drm" / node
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(device)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("egl-headless,rendernode=/dev/dri/renderD129", True),
        ("egl-headless,rendernode=/dev/dri/renderD128", False),
        ("egl-headless", False),
    ],
)
def test_the_wrong_render_node(kernel: FakeKernel, option: str, *, wrong: bool) -> None:
    driver = kernel.add(Gvt())
    gpus(kernel, renderD128=sysfs(kernel, driver).parent.name, renderD129="0000:41:00.0")
    driver.show(640, 480)
    vm(kernel, driver, "-display", option, display="on")
    report = look("vm:win10")
    assert ("wrong-render-node" in causes(report)) is wrong
    if wrong:
        assert "renderD128" in evidence(report, "wrong-render-node")


def test_only_ramfb_so_far(kernel: FakeKernel) -> None:
    vm(kernel, kernel.add(Gvt()), "-device", "ramfb", display="on")
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("only-ramfb", 3)


def test_ramfb_says_nothing_once_the_driver_shows(kernel: FakeKernel) -> None:
    vm(kernel, painted(kernel), "-device", "ramfb", display="on")
    report = look("vm:win10")
    assert report.cause == "shown"
    assert "ramfb" not in report.verdict


def libvirt_says(kernel: FakeKernel, vmm: FakeVmm, state: str, reason: str = "user") -> None:
    folder = kernel.path / "run/libvirt/qemu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "win10.xml").write_text(
        f"<domstatus state='{state}' reason='{reason}' pid='{vmm.pid}'><domain type='kvm'><name>win10</name>"
        f"<uuid>{VM_UUID}</uuid><devices/></domain></domstatus>\n"
    )


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        ("paused", "user", "vm-paused"),
        ("pmsuspended", "unknown", "guest-asleep"),
        ("crashed", "panicked", "vm-crashed"),
        ("shutdown", "user", "vm-shut-down"),
        ("paused", "migration", "vm-migrating"),
    ],
)
def test_a_vm_that_does_not_run(kernel: FakeKernel, state: str, reason: str, cause: str) -> None:
    """It is the reason where nothing is shown, and stands beside a picture."""
    driver = kernel.add(Mbochs())
    libvirt_says(kernel, vm(kernel, driver, display="on"), state, reason)
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == (cause, 3)
    if cause == "guest-asleep":
        assert "$ virsh send-key win10 KEY_LEFTCTRL" in report.findings[0].remedy
    driver.set_mode(640, 480)
    driver.paint(PIXELS)
    seen = look("vm:win10")
    assert (seen.cause, seen.exit_status) == ("shown", 0)
    assert cause in causes(seen)
    assert "picture stands still" in seen.verdict


def test_a_vmm_that_is_stopped(kernel: FakeKernel) -> None:
    vmm = vm(kernel, kernel.add(Mbochs()))
    stat = kernel.path / "proc" / str(vmm.pid) / "stat"
    before, bracket, after = stat.read_text().rpartition(") ")
    stat.write_text(before + bracket + "T" + after[1:])
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("vm-stopped", 3)
    assert f"$ kill -CONT {vmm.pid}" in report.findings[0].remedy


def test_names_in_commands_are_quoted(kernel: FakeKernel) -> None:
    """They come from VMs, and are pasted into a root's shell."""
    driver = kernel.add(Mbochs())
    words = qemu(driver)
    words[words.index("guest=win10")] = "guest=a; rm -rf $HOME '"
    kernel.vmm(driver, name="x", words=words)
    report = look(driver.name)
    sent = [line for found in report.findings for line in found.remedy if "send-key" in line]
    assert sent
    assert all(line.startswith("$ virsh send-key 'a; rm -rf $HOME '\"'\"'' ") for line in sent)


# driver


def test_a_device_that_is_no_display(kernel: FakeKernel) -> None:
    report = look(kernel.add(Mtty()).name)
    assert (report.cause, report.exit_status) == ("not-a-display", 1)
    assert "ENOTTY" in report.findings[0].evidence


def test_gvt_without_a_vm(kernel: FakeKernel) -> None:
    driver = kernel.add(Gvt())
    driver.open_errno = errno.ESRCH
    report = look(driver.name)
    assert (report.cause, report.exit_status) == ("no-kvm-vm", 1)
    assert "ESRCH" in report.findings[0].evidence


@pytest.mark.parametrize("pci", [False, True])
def test_nvidia_with_its_console_switched_off(kernel: FakeKernel, *, pci: bool) -> None:
    driver = kernel.add(Nvidia(pci=pci))
    (sysfs(kernel, driver) / "nvidia").mkdir()
    (sysfs(kernel, driver) / "nvidia/vgpu_params").write_text("frame_rate_limiter=0,disable_vnc=1\n")
    if pci:
        (sysfs(kernel, driver) / "nvidia/current_vgpu_type").write_text("63\n")
    report = look(driver.name)
    assert (report.cause, report.exit_status) == ("nvidia-disable-vnc", 3)
    assert "vgpu_params" in evidence(report, "nvidia-disable-vnc")


def test_nvidias_one_mapping_is_qemus(kernel: FakeKernel) -> None:
    driver = kernel.add(Nvidia())
    driver.show(640, 480)
    driver.mapped_elsewhere = True
    vm(kernel, driver, display="on")
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == ("nvidia-console-mapped", 1)


def test_nvidias_one_mapping_is_somebody_elses(kernel: FakeKernel) -> None:
    driver = kernel.add(Nvidia())
    driver.show(640, 480)
    driver.mapped_elsewhere = True
    vm(kernel, driver, display="off")
    assert look("vm:win10").cause == "not-mappable"


@pytest.mark.parametrize(("width", "height"), [(1680, 1050), (1600, 900), (800, 600)])
def test_a_mode_that_nvidia_shows_as_zeros(kernel: FakeKernel, width: int, height: int) -> None:
    driver = kernel.add(Nvidia())
    driver.show(width, height)
    report = look(driver.name)
    assert (report.cause, report.exit_status) == ("nvidia-zero-mode", 3)
    assert f"align128({width} * 4) * {height}" in evidence(report, "nvidia-zero-mode")


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 720), (1024, 768), (1280, 1024)])
def test_other_modes_of_zeros_are_black_screens(kernel: FakeKernel, width: int, height: int) -> None:
    driver = kernel.add(Nvidia())
    driver.show(width, height)
    assert look(driver.name).cause == "one-colour"
    assert not is_zero_mode(width, height)


def test_a_query_that_hangs(kernel: FakeKernel) -> None:
    driver = painted(kernel)
    release = threading.Event()
    kernel.vmm(driver, name="win10")

    def stall(request: int) -> None:
        if request == 0x3B72:
            release.wait(20)

    driver.stall = stall
    try:
        report = look("vm:win10", timeout=0.5)
    finally:
        release.set()
    until = time.monotonic() + 20
    while kernel.leaks() and time.monotonic() < until:  # what hung comes back, and lets go
        time.sleep(0.01)
    assert (report.cause, report.exit_status) == ("timed-out", 1)
    assert "does not answer" in report.verdict


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("short-stride", "bad-surface"),
        ("einval-forever", "guest-changing-mode"),
        ("eio", "driver-error"),
        ("gone", "device-gone"),
    ],
)
def test_what_a_driver_gets_wrong(fault: str, cause: str) -> None:
    assert look(f"sim:320x200,fault={fault}").cause == cause


def test_a_backend_that_is_not_there() -> None:
    report = look("sim:", backend="nonsense")
    assert (report.cause, report.exit_status) == ("unknown-backend", 2)


# guest


@pytest.mark.parametrize(
    ("command", "cause", "words"),
    [
        (0x0000, "guest-driver-not-loaded", "switched off"),
        (0x0003, "guest-driver-not-loaded", "as firmware does"),
        (0x0407, "plane-disabled", "bus mastering on"),
    ],
)
def test_whether_the_guests_driver_runs_is_in_the_configuration(
    kernel: FakeKernel, command: int, cause: str, words: str
) -> None:
    driver = kernel.add(Gvt())
    config = driver.own_regions[7]
    driver.write(config.offset + 4, command.to_bytes(2, "little"))
    vm(kernel, driver)
    report = look("vm:win10")
    assert (report.cause, report.exit_status) == (cause, 3)
    assert f"0x{command:04x}" in evidence(report, cause)
    assert words in evidence(report, cause)


def test_mbochs_tells_by_its_registers(kernel: FakeKernel) -> None:
    driver = kernel.add(Mbochs())
    vm(kernel, driver)
    assert look(driver.name).cause == "guest-driver-not-loaded"
    driver.set_mode(640, 480, bpp=16)
    report = look(driver.name)
    assert report.cause == "plane-not-ready"
    assert "16 bits per pixel" in evidence(report, "plane-not-ready")
    driver.set_mode(640, 480)
    driver.vbe["enable"] = 0
    assert look(driver.name).cause == "plane-disabled"


def test_a_sample_without_dma_says_nothing_by_its_configuration(kernel: FakeKernel) -> None:
    """By another backend's eyes mbochs just shows nothing."""
    driver = kernel.add(Mbochs())
    vm(kernel, driver)
    assert look(driver.name, backend="intel_gvt").cause == "nothing-displayed"


def test_a_plane_that_shows_nothing() -> None:
    report = look("sim:blank=on")
    assert (report.cause, report.exit_status) == ("nothing-displayed", 3)


# pixels


@pytest.mark.parametrize(
    ("options", "cause", "words"),
    [
        ("fault=unknown-fourcc", "unsupported-format", "SIM0"),
        ("fault=unknown-modifier", "unsupported-modifier", "0xff00000000000001"),
        ("format=C8", "unsupported-format", "C8"),
        ("via=region,fault=region-refused", "not-mappable", "EINVAL"),
    ],
)
def test_pixels_that_cannot_be_had(options: str, cause: str, words: str) -> None:
    report = look(f"sim:320x200,{options}")
    assert (report.cause, report.exit_status) == (cause, 1)
    assert words in report.findings[0].evidence


def test_which_render_node_could_import(kernel: FakeKernel) -> None:
    """The driver's dma-buf cannot be mapped; the GPU that it is a part of is named, and no other is tried."""
    driver = kernel.add(Gvt())
    driver.show(640, 480)
    parent = sysfs(kernel, driver).parent.name
    gpus(kernel, renderD128=parent, renderD129="0000:41:00.0")
    vm(kernel, driver)
    report = look("vm:win10")
    assert report.exit_status in (1, 4)
    assert report.cause in ("not-mappable", "no-egl", "no-render-node", "no-render-permission", "import-refused")
    assert f"renderD128 (no driver, {parent})" in report.findings[0].evidence
    assert "is the GPU that it is a part of" in report.findings[0].evidence


def test_one_colour_is_named(kernel: FakeKernel) -> None:
    driver = painted(kernel, bytes((0x33, 0x22, 0x11, 0x77)) * (640 * 480))
    report = look(driver.name)
    assert (report.cause, report.exit_status) == ("one-colour", 3)
    assert report.verdict.endswith("every pixel of it #112233")


def test_the_undefined_byte_is_no_colour(kernel: FakeKernel) -> None:
    pixels = b"".join(bytes((0x33, 0x22, 0x11, number % 256)) for number in range(640 * 480))
    assert look(painted(kernel, pixels).name).cause == "one-colour"


def test_one_pixel_is_enough(kernel: FakeKernel) -> None:
    driver = painted(kernel, b"")
    driver.paint(b"\1", 4 * (640 * 479 + 639))
    assert look(driver.name).cause == "shown"


def test_nothing_changed(kernel: FakeKernel) -> None:
    report = look(painted(kernel).name, watch=0.2)
    assert (report.cause, report.exit_status) == ("shown", 0)
    assert report.verdict.endswith("nothing in it changed for 0.2 s")
    assert "unchanged" in causes(report)


def test_something_changes() -> None:
    report = look("sim:320x200,fps=60", watch=30)
    assert report.cause == "shown"
    assert "unchanged" not in causes(report)


def test_a_screen_that_is_drawn_on_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of one colour is watched for a moment."""
    seen: list[str] = []
    real = mdevdisplay.diagnose.display_steps.one_colour

    def first_black(frame: mdevdisplay.Frame) -> str:
        seen.append(real(frame))
        return "#000000" if len(seen) == 1 else seen[-1]

    monkeypatch.setattr("mdevdisplay.diagnose.display_steps.one_colour", first_black)
    assert look("sim:320x200,fps=60").cause == "shown"
    assert len(seen) == 2


# what a backend knows


def test_a_vendors_own_cause_makes_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(
        cause="acme-asleep", evidence="the card's clock stands", remedy="wake it", explains=("nothing-displayed",)
    )
    monkeypatch.setattr("mdevdisplay._manager.Backend.diagnose", lambda _: (finding,))
    report = look("sim:blank=on")
    assert (report.cause, report.ends) == ("acme-asleep", Ends.NOTHING)
    assert report.verdict == "sim:blank=on: the card's clock stands"
    assert report.findings[0].remedy == ("wake it",)
    assert look("sim:320x200").cause == "shown"


def test_a_backend_that_fails_to_tell_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise mdevdisplay.MdevDisplayError("no idea")

    monkeypatch.setattr("mdevdisplay._manager.Backend.diagnose", fail)
    assert look("sim:320x200").cause == "shown"


# what /sys and /proc may be


def test_a_probe_of_the_host_that_hangs(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's attribute may: the rest goes on without it."""
    release = threading.Event()
    driver = painted(kernel)
    monkeypatch.setattr(deadline, "HOST_SECONDS", 0.3)
    monkeypatch.setattr("mdevdisplay.diagnose.host_step.list_mdevs", lambda _: release.wait(20) or [])
    try:
        report = look(driver.name)
    finally:
        release.set()
    assert report.cause == "shown"
    assert "probe-failed" in causes(report)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\0" * 100, b"9" * (1 << 20), b"\n\n\n", b"\x1b[2J"])
@pytest.mark.parametrize("name", ["nvidia/vgpu_params", "nvidia/current_vgpu_type", "class", "vendor"])
def test_attributes_that_make_no_sense(kernel: FakeKernel, name: str, content: bytes | None) -> None:
    """Missing, empty, binary and enormous ones: a verdict all the same."""
    driver = kernel.add(Nvidia(pci=True))
    driver.show(640, 480)
    driver.paint(PIXELS)
    path = sysfs(kernel, driver) / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    elif path.exists():
        path.unlink()
    report = look(driver.name)
    assert report.cause == "shown", report


def test_processes_that_die_while_they_are_read(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc full of them: each read of one may find it gone."""
    driver = painted(kernel)
    vmm = kernel.vmm(driver, name="win10")
    for pid in range(100, 200):
        entry = kernel.path / "proc" / str(pid)
        (entry / "fd").mkdir(parents=True)
        (entry / "cmdline").write_bytes(b"/usr/bin/qemu-system-x86_64\0-name\0dying\0")
    real = os.open
    count = [0]

    def dying(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and path in ("fd", "cmdline", "status", "stat"):
            count[0] += 1
            name = Path(f"/proc/self/fd/{dir_fd}").readlink().name
            if name != str(vmm.pid) and name.isdigit() and count[0] % 2:
                raise ProcessLookupError(errno.ESRCH, "No such process")
        return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", dying)
    report = look("vm:win10")
    assert report.cause == "shown", report
    assert count[0] > 100


def test_a_loop_of_links_in_sysfs(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    link = sysfs(kernel, driver) / "mdev_type"
    link.unlink()
    link.symlink_to("mdev_type")
    assert look(driver.name).cause == "one-colour"
    assert host_devices.look_up(mdevdisplay.host.HostRoot(kernel.path), driver.name)
