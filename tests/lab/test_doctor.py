"""Why a screen is black, on real drivers and real VMs: each cause is produced, and `doctor` has to name it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import click.testing
import numpy as np
import pytest
from lab_support import (
    CLASS,
    MDEVS,
    VideoMemory,
    device_mappings,
    device_of,
    let_everybody_execute,
    open_descriptors,
    remove_mdev,
    run_cli,
    set_mode,
    set_vbe,
)
from lab_vm import Qmp, Vm, VmFailed, create_mdev

import mdevdisplay
from mdevdisplay.cli import cli

pytestmark = pytest.mark.timeout(400)

NOBODY = 65534
SAMPLES = ("mdpy", "mbochs", "mtty")
HAS_CDEVS = Path("/dev/iommu").exists()
STEPS = ["host", "device", "access", "vm", "driver", "guest", "pixels"]
# VFIO is built into the lab's 6.12.
MODULES = ["mdev", *(["vfio"] if Path("/sys/module/vfio/refcnt").exists() else [])]


@attrs.frozen
class Answer:
    """What ``doctor --json`` said.

    Attributes:
        status: its exit status.
        cause: the id of the cause that makes the verdict.
        verdict: its first line.
        reports: each of its reports, the one of a locator alone where one was given.
    """

    status: int
    cause: str
    verdict: str
    reports: list[dict[str, Any]]

    @property
    def named(self) -> tuple[str, int]:
        """The cause and the exit status."""
        return self.cause, self.status

    @property
    def causes(self) -> list[str]:
        """The causes that were found, the verdict's first."""
        return [found["cause"] for found in self.reports[0]["findings"]]

    def evidence(self, cause: str) -> str:
        """What was seen of a cause."""
        return "\n".join(found["evidence"] for found in self.reports[0]["findings"] if found["cause"] == cause)

    def step(self, name: str) -> str:
        """What a step saw."""
        return "\n".join(line for step in self.reports[0]["steps"] if step["name"] == name for line in step["evidence"])


def doctor(*arguments: str, user: int | None = None) -> Answer:
    """Run the command, in this process, or as another user in one of its own."""
    words = ["doctor", *arguments, "--json"]
    begin = time.monotonic()
    if user is None:
        here = click.testing.CliRunner().invoke(cli, words, prog_name="mdevdisplay", catch_exceptions=False)
        status, text, errors = here.exit_code, here.stdout, here.stderr
    else:
        there = run_cli(*words, user=user)
        status, text, errors = there.returncode, there.stdout.decode(), there.stderr.decode()
    assert errors == ""
    said = json.loads(text)
    answer = Answer(said["exit_status"], said["cause"], said["verdict"], said["reports"])
    print(f"{time.monotonic() - begin:.2f} s: exit status {answer.status}: {answer.verdict} [{answer.cause}]")
    print(json.dumps(answer.reports, indent=1))
    assert status == answer.status
    return answer


def group_node(name: str) -> Path:
    return Path("/dev/vfio", (MDEVS / name / "iommu_group").resolve().name)


def cdev_node(name: str) -> Path:
    [entry] = (MDEVS / name / "vfio-dev").iterdir()
    return Path("/dev/vfio/devices", entry.name)


def by_cdev(request: pytest.FixtureRequest) -> bool:
    """Whether `make_mdev` has left a device its cdev alone."""
    return "cdev" in request.node.name


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def holders() -> set[int]:
    """Every process that holds anything of VFIO."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if "vfio" in str(link.readlink()):
                found.add(int(link.parts[2]))
    return found


class TestHost:
    """What the host lacks."""

    @pytest.mark.parametrize("module", MODULES)
    def test_a_module_is_not_loaded(self, module: str) -> None:
        """Unloaded for real; the host's verdict and that of a device that was there before name it."""
        loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
        gone = [name for name in (*SAMPLES, "mdev", "vfio_iommu_type1", "vfio") if name in loaded]
        try:
            subprocess.run(["rmmod", *gone[: gone.index(module) + 1]], check=True, timeout=60)
            for answer in (doctor(), doctor("c0ffee00-5e4c-4f4f-8d45-0123456789ab")):
                assert answer.named == (f"no-{module}", 1)
                assert "modprobe" in str(answer.reports[0]["findings"][0]["remedy"])
                assert "is missing" in answer.evidence(f"no-{module}")
        finally:
            for name in reversed(gone):
                subprocess.run(["modprobe", name], check=True, timeout=60)
        assert eventually(lambda: all((CLASS / name).is_dir() for name in SAMPLES))
        assert Path("/dev/vfio/vfio").exists()

    @pytest.mark.by_group
    def test_a_container_without_dev_vfio(self, make_mdev: Callable[[str], str]) -> None:
        """In a mount namespace with an empty /dev/vfio a device that is there cannot be opened for want of its node."""
        words = [sys.executable, "-m", "mdevdisplay", "doctor", make_mdev("mdpy-vga")]
        script = 'mount -t tmpfs none /dev/vfio && exec "$@"'
        result = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, timeout=100)
        print(result.stdout.decode())
        assert result.returncode == 1
        assert result.stderr == b""
        assert result.stdout.splitlines()[0].endswith(b"[no-node]")
        assert b"modprobe" not in result.stdout

    def test_every_device_of_the_host(self, make_mdev: Callable[[str], str]) -> None:
        """Without a locator: the host, then each device, and the worst of them makes the verdict and the status."""
        mdpy, mbochs = make_mdev("mdpy-vga"), make_mdev("mbochs-small")
        answer = doctor()
        verdicts = {report["locator"]: (report["cause"], report["exit_status"]) for report in answer.reports}
        assert verdicts == {
            "": ("host-ready", 0),
            mdpy: ("no-vm", 3),
            mbochs: ("no-vm", 3),
        }
        assert answer.named == ("no-vm", 3)
        assert all("would find it busy" in report["left_out"][0] for report in answer.reports[1:])
        assert "2 mediated devices" in answer.step("host")


class TestAccess:
    """Devices that may not be opened, or are taken."""

    def test_not_permitted(self, make_mdev: Callable[[str], str], request: pytest.FixtureRequest) -> None:
        """By whichever node the user may not open yet: the group, or the cdev and then the iommufd."""
        name = make_mdev("mdpy-vga")
        nodes = [cdev_node(name), Path("/dev/iommu")] if by_cdev(request) else [group_node(name)]
        let_everybody_execute(sys.executable)
        modes = [node.stat().st_mode for node in nodes]
        try:
            for node in nodes:
                answer = doctor(name, user=NOBODY)
                assert answer.named == ("not-permitted", 4)
                assert str(node) in answer.evidence("not-permitted")
                assert "EACCES" in answer.evidence("not-permitted")
                node.chmod(0o666)
        finally:
            for node, mode in zip(nodes, modes, strict=True):
                node.chmod(mode)

    def test_busy(self, make_mdev: Callable[[str], str], request: pytest.FixtureRequest) -> None:
        """A process that is no VMM has the group, or the cdev bound to an iommufd: it is named with its number."""
        name = make_mdev("mdpy-vga")
        script = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); sys.stdin.read()"
        if by_cdev(request):
            script = (
                "import mdevdisplay, sys\n"
                "with mdevdisplay.open(sys.argv[1]) as display:\n"
                "    print('open', flush=True); sys.stdin.read()"
            )
        words = [sys.executable, "-c", script, name if by_cdev(request) else str(group_node(name))]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == b"open\n"
                answer = doctor(name)
                assert answer.named == ("device-busy", 1)
                # a cdev that is bound already: EINVAL
                assert "failed: E" in answer.evidence("device-busy")
                assert f"process {holder.pid} (" in answer.verdict
                assert f"process {holder.pid} (" in answer.step("device")
            finally:
                holder.kill()
        assert doctor(name).named == ("shown", 0)

    def test_a_serial_port_is_no_display(self, make_mdev: Callable[[str], str]) -> None:
        """Its driver answers neither probe."""
        answer = doctor(make_mdev("mtty-2"))
        assert answer.named == ("not-a-display", 1)
        assert "is no display" in answer.verdict
        assert "mtty-2" in answer.step("device")
        assert "PROBE+DMABUF" in answer.evidence("not-a-display")
        assert "PROBE+REGION" in answer.evidence("not-a-display")


class TestGuest:
    """What a guest does, with the registers written as a guest would."""

    def test_from_no_driver_to_a_mode(self, make_mdev: Callable[[str], str]) -> None:
        """The same device through every state of its plane; what is drawn on it ends with its last descriptor."""
        name = make_mdev("mbochs-small")
        answer = doctor(name)
        assert answer.named == ("no-vm", 3)
        assert "0x0, 0 bits per pixel, ENABLE 0x00" in answer.evidence("guest-driver-not-loaded")

        with mdevdisplay.open(name) as display:
            set_mode(device_of(display), 640, 480)
            set_vbe(device_of(display), bpp=16)
        answer = doctor(name)
        assert answer.named == ("plane-not-ready", 3)
        assert "640x480, 16 bits per pixel" in answer.evidence("plane-not-ready")

        with mdevdisplay.open(name) as display:
            set_vbe(device_of(display), bpp=32, enable=0)
        answer = doctor(name)
        assert answer.named == ("plane-disabled", 3)
        assert "640x480, 32 bits per pixel, ENABLE 0x00" in answer.evidence("plane-disabled")

        with mdevdisplay.open(name) as display:
            set_mode(device_of(display), 640, 480)
        answer = doctor(name)
        assert answer.named == ("one-colour", 3)
        assert "640x480, every pixel of it #000000" in answer.verdict
        assert "640x480 XR24" in answer.step("guest")

    def test_what_no_cpu_can_map(self, make_mdev: Callable[[str], str]) -> None:
        """A dma-buf that no CPU may map and no GPU here has exported: the host's render nodes are listed."""
        name = make_mdev("mbochs-small")
        with mdevdisplay.open(name) as display:
            set_mode(device_of(display), 640, 480)
        answer = doctor(name, "--backend", "intel_gvt")
        assert answer.named == ("no-render-node", 1)
        assert "exported by mbochs failed: EINVAL" in answer.evidence("no-render-node")
        assert "--backend mbochs" in answer.evidence("no-render-node")
        nodes = answer.evidence("no-render-node").partition("render nodes of this host: ")[2]
        assert "renderD128 (" in nodes
        assert "vgem" in nodes

    def test_one_colour(self, make_mdev: Callable[[str], str]) -> None:
        """A fresh mdpy shows its gradient; filled with one word it shows one colour, whose name is told."""
        name = make_mdev("mdpy-vga")
        answer = doctor(name)
        assert answer.named == ("shown", 0)
        assert f"{name} shows 640x480" in answer.verdict
        rows = np.broadcast_to(np.frombuffer(b"\x30\x20\x10\xff", np.uint8), (480, 640, 4)).reshape(480, 2560)
        with mdevdisplay.open(name) as display, closing(VideoMemory(device_of(display), 16)) as memory:
            memory.draw(0, 2560, rows)
        answer = doctor(name)
        assert answer.named == ("one-colour", 3)
        assert "#102030" in answer.verdict
        assert f"all {640 * 480} pixels" in answer.evidence("one-colour")

    def test_nothing_changes(self, make_mdev: Callable[[str], str]) -> None:
        """--watch: nobody draws, which is told beside the picture that is there."""
        answer = doctor(make_mdev("mdpy-vga"), "--watch", "1")
        assert answer.named == ("shown", 0)
        assert answer.causes == ["unchanged"]
        assert answer.verdict.endswith("; nothing in it changed for 1 s")


@attrs.frozen
class Firmware:
    """A QEMU whose guest is its firmware alone.

    Attributes:
        process: QEMU's.
        monitor: the path of its QMP socket, free between calls.
    """

    process: subprocess.Popen[bytes]
    monitor: Path

    @property
    def who(self) -> str:
        """What it is for people, in part."""
        return f"(pid {self.process.pid})"

    def execute(self, command: str) -> Any:
        """Run a QMP command."""
        with closing(Qmp(self.monitor, 60, self._require_alive)) as qmp:
            return qmp.execute(command)

    def _require_alive(self) -> None:
        if self.process.poll() is not None:
            raise VmFailed(f"QEMU ended with status {self.process.returncode}: {self.log()}")

    def log(self) -> str:
        return self.monitor.with_name("log").read_text()


@contextmanager
def firmware(name: str, *options: str, made: Sequence[str] = ()) -> Iterator[Firmware]:
    """Start a QEMU without a disk, and remove the devices that were made for it after its end."""
    with ExitStack() as stack:
        for mdev in made:
            stack.callback(_must_remove, mdev)
        folder = Path(tempfile.mkdtemp(prefix="firmware-"))
        stack.callback(shutil.rmtree, folder)
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "tcg"),
                *("-m", "64", "-display", "none", "-name", name),
                *("-qmp", f"unix:{folder}/qmp,server=on,wait=off", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        vm = Firmware(process, folder / "qmp")
        vm.execute("query-status")
        yield vm


def _must_remove(name: str) -> None:
    assert remove_mdev(name), f"{name} is still held"


def vgpu(name: str, *properties: str) -> list[str]:
    """QEMU's options for a mediated device."""
    return ["-device", ",".join(["vfio-pci", f"sysfsdev={MDEVS / name}", *properties])]


class TestFirmware:
    """VMs whose guest has not begun, or not got beyond its firmware."""

    def test_a_vm_that_shows_nothing(self) -> None:
        """Not begun, in its firmware, paused, stopped: each is told, and the device's own reason beside it."""
        name = create_mdev("mbochs-small")
        with firmware("guest=dark,debug-threads=on", "-S", *vgpu(name), made=[name]) as vm:
            answer = doctor("vm:dark", "--in-process")
            assert answer.named == ("vm-starting", 3)
            assert f"QMP at {vm.monitor}: prelaunch" in answer.evidence("vm-starting")
            assert "guest-driver-not-loaded" in answer.causes

            vm.execute("cont")
            answer = doctor("vm:dark", "--in-process")
            assert answer.named == ("guest-driver-not-loaded", 3)
            assert "ENABLE 0x00" in answer.evidence("guest-driver-not-loaded")
            assert "running" in answer.step("vm")
            assert f"'dark' {vm.who}" in answer.step("device")
            assert "display-off" in answer.causes
            assert "second-video-device" not in answer.causes
            assert "only-ramfb" not in answer.causes

            vm.execute("stop")
            answer = doctor(name, "--in-process")
            assert answer.named == ("vm-paused", 3)
            assert f"QMP at {vm.monitor}: paused" in answer.evidence("vm-paused")
            assert "guest-driver-not-loaded" in answer.causes

            vm.execute("cont")
            os.kill(vm.process.pid, signal.SIGSTOP)
            answer = doctor(f"pid:{vm.process.pid}", "--in-process")
            os.kill(vm.process.pid, signal.SIGCONT)
            assert answer.named == ("vm-stopped", 3)
            assert f"/proc/{vm.process.pid}/stat" in answer.evidence("vm-stopped")
            assert doctor(name, "--in-process").named == ("guest-driver-not-loaded", 3)
            assert vm.execute("query-status")["status"] == "running"

    def test_only_the_firmware_draws(self) -> None:
        """On a ramfb: the reason where no driver has taken the vGPU; none where one has switched it off, or draws."""
        dark, off, mdpy = create_mdev("mbochs-small"), create_mdev("mbochs-small"), create_mdev("mdpy-vga")
        with mdevdisplay.open(off) as display:
            set_mode(device_of(display), 640, 480)
            set_vbe(device_of(display), enable=0)
        devices = [*vgpu(dark, "display=off"), *vgpu(off, "display=off"), *vgpu(mdpy, "display=on")]
        devices += ["-device", "ramfb", "-device", "VGA"]
        with firmware("boot", *devices, made=[dark, off, mdpy]):
            answer = doctor(dark, "--in-process")
            assert answer.named == ("only-ramfb", 3)
            assert "ramfb" in answer.evidence("only-ramfb")
            assert {"guest-driver-not-loaded", "display-off", "second-video-device"} <= {*answer.causes}

            assert doctor(off, "--in-process").named == ("plane-disabled", 3)

            answer = doctor(mdpy, "--in-process")
            assert answer.named == ("shown", 0)
            assert answer.causes == ["second-video-device"]
            assert "VGA" in answer.evidence("second-video-device")
            assert answer.verdict.endswith("; if your console is black, it is attached to another card of that VM")

            assert doctor("vm:boot", "--in-process").named == ("ambiguous-display", 2)
            number = sorted([dark, off, mdpy]).index(mdpy)
            assert doctor(f"vm:boot/{number}", "--in-process").named == ("shown", 0)


@pytest.fixture(scope="module")
def running() -> Iterator[Vm]:
    """A VM as libvirt calls it, with an emulated card beside its vGPU; its second monitor is free.

    Its QEMU has the vGPU by group, or by its cdev where the kernel has these.
    """
    folder = Path(tempfile.mkdtemp(prefix="monitor-"))
    extra = ["-device", "cirrus-vga", "-qmp", f"unix:{folder}/free,server=on,wait=off"]
    try:
        with Vm(["mbochs-small"], name="guest=win10,debug-threads=on", cdev=HAS_CDEVS, extra=extra) as vm:
            vm.mode(640, 480)
            vm.picture(171)
            yield vm
    finally:
        shutil.rmtree(folder)


class TestRunningVm:
    """A guest that draws, and what may stand beside its picture."""

    def test_a_picture_and_what_stands_beside_it(self, running: Vm) -> None:
        """QEMU shows another card and not the vGPU: the verdict is the picture, and says so."""
        since = time.monotonic()
        before = open_descriptors()
        answer = doctor("vm:win10")
        assert answer.named == ("shown", 0)
        assert answer.verdict.startswith("vm:win10 shows 640x480 on its vGPU; ")
        assert "QEMU itself does not show this vGPU (display=off)" in answer.verdict
        assert "if your console is black, it is attached to another card of that VM" in answer.verdict
        assert "display=off" in answer.evidence("display-off")
        assert "cirrus-vga" in answer.evidence("second-video-device")
        assert f"VM 'win10' (pid {running.pid})" in answer.step("device")
        assert "borrowed" in answer.step("access")
        assert "running" in answer.step("vm")
        # the test's own connection has the first monitor
        assert "in use" in str(answer.reports[0]["left_out"])
        assert open_descriptors() == before
        assert device_mappings() == []
        assert eventually(lambda: holders() == {running.pid})
        assert running.longest_gap(since) < 5
        assert running.log() == []

    def test_as_people_see_it(self, running: Vm) -> None:
        """The verdict is the first line, with its cause; the reader's own process leaves nothing behind."""
        since = time.monotonic()
        result = run_cli("doctor", "vm:win10")
        print(result.stdout.decode())
        assert (result.returncode, result.stderr) == (0, b"")
        first, *lines = result.stdout.decode().splitlines()
        assert first.startswith("vm:win10 shows 640x480 on its vGPU")
        assert first.endswith("[shown]")
        steps = [line.split()[0] for line in lines if line[:1].isalpha()]
        assert [step for step in STEPS if step in steps] == STEPS
        assert eventually(lambda: holders() == {running.pid})
        assert running.longest_gap(since) < 5

    def test_paused_and_stopped(self, running: Vm) -> None:
        """What was drawn before is still seen, and the verdict says why it stands still."""
        running.qmp.execute("stop")
        paused = doctor("vm:win10", "--in-process")
        running.qmp.execute("cont")
        os.kill(running.pid, signal.SIGSTOP)
        stopped = doctor("vm:win10", "--in-process")
        os.kill(running.pid, signal.SIGCONT)
        for answer, cause, aside in (
            (paused, "vm-paused", "its VM is paused, so the picture stands still"),
            (stopped, "vm-stopped", "its VMM is stopped by a signal, so the picture stands still"),
        ):
            assert answer.named == ("shown", 0)
            assert cause in answer.causes
            assert aside in answer.verdict
        beats = len(running.beats)
        assert eventually(lambda: len(running.beats) > beats)
        after = doctor("vm:win10", "--in-process")
        assert after.named == ("shown", 0)
        assert not {"vm-paused", "vm-stopped"} & {*after.causes}

    def test_an_unprivileged_user(self, running: Vm) -> None:
        """Who may not read another user's process is told so, by the layer of the kernel that refuses."""
        let_everybody_execute(sys.executable)
        answer = doctor(running.mdevs[0], user=NOBODY)
        assert answer.named == ("trace-other-user", 4)
        assert "Uid 0, yours 65534" in answer.evidence("trace-other-user")
        assert f"VM 'win10' (pid {running.pid})" in answer.step("device")
        # what needs no right is told all the same
        assert {"display-off", "second-video-device"} <= {*answer.causes}

    def test_a_guest_that_has_drawn_nothing(self, running: Vm) -> None:
        """A new mode is black all over: one colour; paused, the VM's state is the reason."""
        running.mode(800, 600)
        answer = doctor("vm:win10", "--in-process")
        assert answer.named == ("one-colour", 3)
        assert "800x600, every pixel of it #000000" in answer.verdict
        running.qmp.execute("stop")
        answer = doctor("vm:win10", "--in-process")
        running.qmp.execute("cont")
        assert answer.named == ("vm-paused", 3)
        assert "one-colour" in answer.causes

    def test_it_ends_as_if_nobody_had_looked(self, running: Vm) -> None:
        """Right after a look the guest halts, QEMU ends with status 0, and the device can be removed at once."""
        running.picture(172)
        assert doctor("vm:win10").named == ("shown", 0)
        running.halt()
        assert remove_mdev(running.mdevs[0], seconds=5)
        assert doctor("vm:win10", "--in-process").named == ("no-such-vm", 1)
