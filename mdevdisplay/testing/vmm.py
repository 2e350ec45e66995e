"""A process that holds fake devices, as a VMM holds a VM's: real to pidfds, with a /proc entry of its own making."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["FakeVmm"]


class FakeVmm:
    """A running process with device descriptors; see `FakeKernel.vmm`.

    Attributes:
        pid: its number.
        fds: its descriptor of each device, by the device's name. This process keeps them under the same numbers.
        on_kill: called once it has ended.
    """

    def __init__(self, proc: Path, fds: dict[str, int], name: str, words: Sequence[str] = ()) -> None:
        """Start the process, and write its entry below ``proc``."""
        self.fds = fds
        self.on_kill: Callable[[], object] | None = None
        self._process = subprocess.Popen(
            ["/bin/sleep", "600"], pass_fds=tuple(fds.values()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        self._entry = proc / str(self.pid)
        (self._entry / "fd").mkdir(parents=True)
        (self._entry / "fdinfo").mkdir()
        command = list(words) or ["/usr/bin/qemu-system-x86_64", "-name", f"guest={name},debug-threads=on"]
        if not words:
            for device in fds:
                command += ["-device", f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{device},display=off"]
        (self._entry / "cmdline").write_bytes(
            b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in command)
        )
        (self._entry / "comm").write_text("qemu-system-x86\n")
        (self._entry / "stat").write_bytes(Path(f"/proc/{self.pid}/stat").read_bytes())
        (self._entry / "status").write_bytes(Path(f"/proc/{self.pid}/status").read_bytes())
        for fd in fds.values():
            (self._entry / "fd" / str(fd)).symlink_to("anon_inode:[vfio-device]")
            self._describe(fd, "")

    def say(self, device: str, line: str) -> None:
        """Add a line to the fdinfo of a device's descriptor."""
        self._describe(self.fds[device], line)

    def _describe(self, fd: int, line: str) -> None:
        (self._entry / "fdinfo" / str(fd)).write_text(f"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t9\n{line}")

    def forget(self, device: str) -> None:
        """Show a device's descriptor in /proc no more, as if it had been closed."""
        (self._entry / "fd" / str(self.fds[device])).unlink()

    def kill(self) -> None:
        """End the process as SIGKILL does, and forget it. Idempotent."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self._entry, ignore_errors=True)
            if self.on_kill is not None:
                self.on_kill()
