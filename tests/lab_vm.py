"""Whole VMs inside the kernel lab: QEMU with one or several vGPUs, and a guest that draws what a test asks for.

The guest is the one that ``lab/vm/build`` makes; lab/vm/README.md describes it. A VM is QEMU's snapshot of that guest,
restored with the vGPUs plugged in, which the guest's kernel then finds and whose drivers it starts.

    with Vm(["mbochs-medium"], name="guest=win10,debug-threads=on") as vm:
        vm.mode(1024, 768)
        vm.picture(7)
        expected_picture(7, 1024, 768)      # what the display's memory holds now

Every wait is bounded. What goes wrong is a `VmFailed` that ends with the guest's and QEMU's last lines.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import numpy as np
from lab_support import CLASS, MDEVS, remove_mdev

__all__ = ["Beat", "Qmp", "QmpError", "Vm", "VmFailed", "create_mdev", "expected_picture", "ready"]

FIRST_SLOT = 0x10
START_SECONDS = 180.0
# What QEMU says whenever it starts with a sample device, which has neither, and newer ones about -incoming.
USUAL = (
    ": Could not enable error recovery for the device",
    ", no available reset mechanism.",
    "warning: fd: migration to a file is deprecated. Use file: instead.",
)


class VmFailed(AssertionError):
    """A VM did not do what it was told to, within its time."""


class QmpError(Exception):
    """QEMU's answer to a command was an error, or there was none."""


def expected_picture(seed: int, width: int, height: int) -> np.ndarray:
    """What ``picture(seed)`` puts on a display of that size: (height, width, 4) uint8 in the order B, G, R, X.

    X is not shown, but is in the memory like the others. The function is that of pixel() in lab/vm/init.c.
    """
    x = np.arange(width * height, dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x.astype("<u4").view(np.uint8).reshape(height, width, 4)


def _environment(name: str, script: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise VmFailed(f"{name} is not set; it is what {script} prints, passed on by lab/run --env {name}")
    return value


def _node(name: str) -> Path:
    """The character device of a mediated device."""
    # 6.1 has the entry in sysfs and no node.
    entries = (MDEVS / name / "vfio-dev").glob("vfio*")
    found = [node for entry in entries if (node := Path("/dev/vfio/devices", entry.name)).exists()]
    if not found:
        raise VmFailed(f"{name} has no node in /dev/vfio/devices; Linux 6.12 has them, lab/run --kernel 6.12")
    return found[0]


def create_mdev(kind: str, name: str | None = None) -> str:
    """Make a mediated device of a type (``mdpy-xga``) and return its UUID."""
    name = name or str(uuids.uuid4())
    (CLASS / kind.split("-", maxsplit=1)[0] / "mdev_supported_types" / kind / "create").write_text(name)
    return name


@attrs.frozen
class Beat:
    """A sign of life.

    Attributes:
        number: from 0, without gaps.
        guest: the guest's monotonic clock, seconds.
        host: when it arrived, by `time.monotonic`.
        loops: rounds of the busy loop so far, see `Vm.throughput`.
    """

    number: int
    guest: float
    host: float
    loops: int


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path: Path, seconds: float, alive: Callable[[], None]) -> None:
        """Connect as soon as QEMU listens; ``alive`` raises when there is no use in waiting any longer."""
        self._seconds = seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(seconds)
        self._file = self._socket.makefile("rb")
        try:
            until = time.monotonic() + seconds
            while self._socket.connect_ex(str(path)):
                alive()
                if time.monotonic() > until:
                    raise QmpError(f"QEMU does not listen on {path}")
                time.sleep(0.02)
            self._read()
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except TimeoutError:
            raise QmpError(f"QEMU's monitor says nothing for {self._seconds} s") from None
        except OSError as error:
            raise QmpError(f"QEMU's monitor: {error}") from None
        if not line:
            raise QmpError("QEMU has closed its monitor")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its answer; events in between are dropped.

        Raises:
            QmpError: with QEMU's own words.
        """
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QEMU's monitor: {error}") from None
        while True:
            message = self._read()
            if "error" in message:
                raise QmpError(f"{command}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Vm:
    """A running QEMU. Its constructor starts it; `wait_ready`, or entering it, waits until the guest takes commands.

    Attributes:
        mdevs: the UUIDs of its vGPUs, in the order of the displays' numbers.
        pid: QEMU's.
        process: QEMU's.
        beats: the guest's signs of life, oldest first.
        arguments: QEMU's command line.
        timings: seconds from QEMU's start to "running" (the guest's state is restored) and "ready".
    """

    def __init__(
        self,
        gpus: Sequence[str],
        *,
        name: str | None = None,
        uuid: str | None = None,
        display: Literal["on", "off"] = "off",
        spelling: Literal["plain", "json"] = "plain",
        cdev: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        """Start QEMU.

        Args:
            gpus: types of mediated devices (``mdpy-xga``), made here and removed by `close`; or the UUIDs of some that
                exist, which are not.
            name: the value of -name, verbatim: ``guest=NAME,debug-threads=on``, ``NAME,debug-threads=on``, ``NAME``.
            uuid: the value of -uuid.
            display: vfio-pci's display=; with "on", `screendump` works for mdpy.
            spelling: how -device is written.
            cdev: reach the devices by iommufd and descriptors of their nodes in /dev/vfio/devices, opened here and
                handed over, rather than by groups. Needs the newer QEMU of lab/vm/newer-qemu, whose path is in
                MDEVDISPLAY_LAB_QEMU, and a kernel that has these (6.12).
            extra: further options.
        """
        built = _environment("MDEVDISPLAY_LAB_VM", "lab/vm/build")
        qemu = _environment("MDEVDISPLAY_LAB_QEMU", "lab/vm/newer-qemu") if cdev else "qemu-system-x86_64"
        self.mdevs: list[str] = []
        self.beats: list[Beat] = []
        self.timings: dict[str, float] = {}
        self._made: list[str] = []
        self._tail: list[str] = []
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._qmp: Qmp | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="vm-"))
        self._line, theirs = socket.socketpair()
        self._listener = threading.Thread(target=self._listen, name="guest's line", daemon=True)
        self.process: subprocess.Popen[bytes] | None = None
        try:
            for gpu in gpus:
                if (MDEVS / gpu).exists():
                    self.mdevs.append(gpu)
                else:
                    self._made.append(create_mdev(gpu))
                    self.mdevs.append(self._made[-1])
            with contextlib.ExitStack() as ours:
                snapshot = ours.enter_context((Path(built) / "snapshot").open("rb")).fileno()
                log = ours.enter_context((self._folder / "log").open("wb"))
                line = ours.enter_context(theirs).fileno()
                nodes = [ours.enter_context(_node(name).open("r+b", 0)).fileno() for name in self.mdevs if cdev]
                self.arguments = [
                    *(qemu, "-nodefaults", "-no-user-config", "-no-reboot"),
                    *([] if name is None else ["-name", name]),
                    *([] if uuid is None else ["-uuid", uuid]),
                    *(Path(built) / "machine").read_text().split("\n")[:-1],
                    *("-display", "none", "-incoming", f"fd:{snapshot}"),
                    *("-chardev", f"file,id=console,path={self._folder}/console", "-serial", "chardev:console"),
                    *("-chardev", f"socket,id=line,fd={line}", "-serial", "chardev:line"),
                    *("-qmp", f"unix:{self._folder}/qmp,server=on,wait=off"),
                    *(("-object", "iommufd,id=iommu") if cdev else ()),
                    *self._devices(display, spelling, nodes),
                    *extra,
                ]
                self._started = time.monotonic()
                self.process = subprocess.Popen(
                    self.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[snapshot, line, *nodes],
                )
            self._listener.start()
        except BaseException:
            theirs.close()
            self.close()
            raise

    def _devices(self, display: str, spelling: str, nodes: list[int]) -> Iterator[str]:
        for number, name in enumerate(self.mdevs):
            properties = {
                "driver": "vfio-pci",
                "id": f"gpu{number}",
                "sysfsdev": str(MDEVS / name),
                "display": display,
                # In the order of the displays' numbers, which the guest gives by address.
                "addr": f"{FIRST_SLOT + number:#x}",
            }
            if nodes:
                # Beside sysfsdev: with fd alone QEMU 10.0 does not see that it is a mediated device, and wants the
                # IOMMU's properties, which the kernel refuses for one: "Failed to get hardware info".
                properties |= {"iommufd": "iommu", "fd": str(nodes[number])}
            yield "-device"
            if spelling == "json":
                yield json.dumps(properties)
            else:
                driver, *others = properties.items()
                yield ",".join([driver[1], *(f"{key}={value}" for key, value in others)])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def qmp(self) -> Qmp:
        """QEMU's monitor, once the VM is ready."""
        assert self._qmp is not None, "the VM is not ready yet"
        return self._qmp

    # The guest's line.

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._line.makefile("rb") as lines:
            for line in lines:
                words = line.decode("ascii", "backslashreplace").split()
                if words[:1] == ["beat"] and len(words) == 4:
                    self.beats.append(Beat(int(words[1]), int(words[2]) / 1000, time.monotonic(), int(words[3])))
                elif words:
                    self._tail = [*self._tail[-19:], " ".join(words)]
                    self._replies.put(" ".join(words))
        self._replies.put(None)

    def command(self, text: str, seconds: float = 60.0) -> str:
        """Tell the guest to do something, wait until it has, and return what it says beyond "ok" and the command.

        Raises:
            VmFailed: the guest says "error", says nothing in time, or is gone.
        """
        self._send(text)
        return self._answer(text, seconds)

    def _send(self, text: str) -> None:
        try:
            self._line.sendall(text.encode("ascii") + b"\n")
        except OSError as error:
            raise self._failed(f"the guest's line is closed: {error}") from None

    def _answer(self, text: str, seconds: float) -> str:
        try:
            reply = self._replies.get(timeout=seconds)
        except queue.Empty:
            raise self._failed(f"the guest does not answer {text!r} within {seconds} s") from None
        if reply is None:
            raise self._failed(f"the VM ended, and did not answer {text!r}")
        if not reply.startswith(f"ok {text}"):
            raise self._failed(f"the guest answers {text!r} with {reply!r}")
        return reply.removeprefix(f"ok {text}").strip()

    def mode(self, width: int, height: int, display: int = 0) -> None:
        """Set a mode (bochs only), with a buffer of its own that is all black."""
        self.command(f"mode {display} {width}x{height}")

    def picture(self, seed: int, display: int = 0) -> None:
        """Draw the picture of a seed over the whole of a display."""
        self.command(f"picture {display} {seed}")

    def loop(self, *, on: bool) -> None:
        """Start or end a busy loop in the guest."""
        self.command(f"loop {'on' if on else 'off'}")

    def throughput(self, seconds: float) -> float:
        """What the busy loop gets done from now on for that long: rounds of 1000 pixels per second of guest time."""
        first_ms, first = map(int, self.command("count").split())
        time.sleep(seconds)
        last_ms, last = map(int, self.command("count").split())
        return (last - first) * 1000 / (last_ms - first_ms)

    def longest_gap(self, since: float | None = None) -> float:
        """The longest time in seconds without a sign of life, as it arrived here, up to now.

        Args:
            since: count from there only, a `time.monotonic`; the first beat otherwise.
        """
        arrivals = [beat.host for beat in self.beats if since is None or beat.host >= since]
        if since is not None:
            arrivals.insert(0, since)
        if not arrivals:
            raise self._failed("the guest has not given any sign of life")
        arrivals.append(time.monotonic())
        return max(later - earlier for earlier, later in itertools.pairwise(arrivals))

    # QEMU.

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the guest runs, has found its displays and takes commands; at once if that has been waited for."""
        self._wait_restored(seconds)
        self._wait_started(seconds)

    def _wait_restored(self, seconds: float) -> None:
        """Wait until the guest runs, and have it look for its displays."""
        if "running" in self.timings:
            return
        try:
            self._qmp = Qmp(self._folder / "qmp", seconds, self._require_alive)
            while self._qmp.execute("query-status")["status"] != "running":
                self._require_alive()
                if time.monotonic() > self._started + seconds:
                    raise self._failed(f"the guest's state is not restored after {seconds} s")
                time.sleep(0.1)
        except QmpError as error:
            # It closes the monitor before it has written why.
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self.process is not None
                self.process.wait(10)
            raise self._failed(str(error)) from None
        self.timings["running"] = time.monotonic() - self._started
        self._send("start")

    def _wait_started(self, seconds: float) -> None:
        if "ready" in self.timings:
            return
        found = self._answer("start", max(self._started + seconds - time.monotonic(), 1))
        if int(found) != len(self.mdevs):
            raise self._failed(f"the guest finds {found} of {len(self.mdevs)} displays")
        self.timings["ready"] = time.monotonic() - self._started

    def screendump(self, display: int = 0) -> np.ndarray:
        """QEMU's own picture of a display, (height, width, 3) uint8 in the order R, G, B. Needs display="on"."""
        path = self._folder / "screendump.ppm"
        self.qmp.execute("screendump", filename=str(path), device=f"gpu{display}")
        kind, width, height, most, pixels = path.read_bytes().split(maxsplit=4)
        assert (kind, most) == (b"P6", b"255")
        return np.frombuffer(pixels, np.uint8).reshape(int(height), int(width), 3)

    def device_fds(self) -> list[int]:
        """The numbers of QEMU's descriptors of vfio devices, in ascending order."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target == "anon_inode:[vfio-device]" or target.startswith("/dev/vfio/devices/"):
                    found.append(int(entry.name))
        return sorted(found)

    def log(self) -> list[str]:
        """What QEMU has said, without what it says at every start."""
        lines = (self._folder / "log").read_text("utf-8", "backslashreplace").splitlines()
        return [line for line in lines if not line.endswith(USUAL)]

    def _require_alive(self) -> None:
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            raise self._failed(f"QEMU ended with status {status}")

    def _failed(self, what: str) -> VmFailed:
        console = self._folder / "console"
        said = console.read_text("utf-8", "backslashreplace").splitlines()[-10:] if console.exists() else []
        beats = f"{len(self.beats)} beats"
        if self.beats:
            beats += f", the last {time.monotonic() - self.beats[-1].host:.1f} s ago"
        parts = [what, f"guest's line ({beats}):", *self._tail, "guest's console:", *said, "QEMU's log:", *self.log()]
        return VmFailed("\n".join(parts))

    # The end.

    def halt(self, seconds: float = 30.0) -> None:
        """Let the guest end by itself, and QEMU with it."""
        self.command("halt")
        assert self.process is not None
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._failed(f"QEMU still runs {seconds} s after the guest's halt") from None
        if status:
            raise self._failed(f"QEMU ended with status {status}")

    def kill(self) -> None:
        """End QEMU as a crash would, and wait until it has."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)

    def close(self) -> None:
        """Kill QEMU if it still runs, remove the vGPUs that were made for it, and leave nothing behind.

        Raises:
            VmFailed: a vGPU is still in use twenty seconds later.
        """
        self.kill()
        if self._qmp is not None:
            self._qmp.close()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        if self._listener.is_alive():
            self._listener.join(10)
        self._line.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        made = [name for name in self._made if (MDEVS / name).exists()]
        self._made = []
        if held := [name for name in made if not remove_mdev(name)]:
            raise VmFailed(f"QEMU has ended, and {held} are still in use")

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def ready(*vms: Vm, seconds: float = START_SECONDS) -> None:
    """Wait for several VMs that start at the same time."""
    for vm in vms:
        vm._wait_restored(seconds)
    for vm in vms:
        vm._wait_started(seconds)
