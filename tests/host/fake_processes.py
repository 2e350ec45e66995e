"""A /proc with processes that hold VFIO devices, as links and files below a host root.

The number of a device behind a descriptor cannot be made without privileges, so os.stat answers it: as in the kernel it
has nothing to do with what the link says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mdevdisplay.testing import Driver
from mdevdisplay.testing.sysfs import Sysfs

__all__ = ["DEVICE", "FakeProcesses"]

DEVICE = "anon_inode:[vfio-device]"
_MAJOR = 240


class FakeProcesses:
    """The processes of one host root.

    Attributes:
        root: the host's root.
        proc: its /proc.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, whole: bool = True) -> None:
        """Make /proc; ``whole``: its first process is the host's, not a container's."""
        self.root = root
        self.proc = root / "proc"
        self._numbers: dict[str, int] = {}  # by what the link says
        self._minors = 0
        self._stat = os.stat
        monkeypatch.setattr(os, "stat", self._answer)
        self.add(1, ["/sbin/init"])
        (self.proc / "1/ns").mkdir()
        (self.proc / "1/ns/pid").symlink_to("pid:[4026531836]" if whole else "pid:[4026532501]")

    def add(
        self,
        pid: int,
        words: Sequence[str | bytes],
        fds: Mapping[int, str] | None = None,
        *,
        fdinfo: Mapping[int, str] | None = None,
        uid: int = 0,
        start: int = 0,
        comm: str = "",
        exe: str = "",
        leader: int | None = None,
    ) -> Path:
        """Add a process; ``fdinfo`` has the path of the device that the kernel tells since Linux 6.18."""
        path = self.proc / str(pid)
        (path / "fd").mkdir(parents=True)
        (path / "fdinfo").mkdir()
        line = [os.fsencode(word) if isinstance(word, str) else word for word in words]
        (path / "cmdline").write_bytes(b"".join(word + b"\0" for word in line))
        (path / "comm").write_bytes(os.fsencode(f"{comm}\n"))
        status = f"Name:\t{comm}\nTgid:\t{leader or pid}\nUid:\t{uid}\t0\t0\t0\n"
        (path / "status").write_bytes(os.fsencode(status))
        fields = " ".join(["S", *["7"] * 18, str(start or pid), "0"])
        (path / "stat").write_text(f"{pid} (a ) b (c) {fields}\n")
        if exe:
            (path / "exe").symlink_to(exe)
        for fd, link in {0: "/dev/null", 1: "pipe:[77]", 3: "anon_inode:kvm-vm", **(fds or {})}.items():
            (path / "fd" / str(fd)).symlink_to(link)
            told = (fdinfo or {}).get(fd)
            text = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n"
            (path / "fdinfo" / str(fd)).write_text(text + (f"vfio-device-syspath: {told}\n" if told else ""))
        return path

    def close_to_us(self, monkeypatch: pytest.MonkeyPatch, *closed: int) -> None:
        """Refuse the descriptors of some processes, as the kernel does to other users."""
        real = os.open

        def refuse(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == "fd" and dir_fd is not None:
                pid = Path(f"/proc/self/fd/{dir_fd}").readlink().name
                if int(pid) in closed:
                    raise PermissionError(13, "Permission denied")
            return real(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)

    def cdev(self, sysfs: Sysfs, driver: Driver, link: str) -> str:
        """Let links that say ``link`` be a device's own node; return the link."""
        [own] = (sysfs.device(driver) / "vfio-dev").iterdir()
        return self._node(sysfs, own, link)

    def group(self, sysfs: Sysfs, number: int | str, link: str = "") -> str:
        """Let links that say ``link``, or else /dev/vfio/NUMBER, be a group's node; return the link."""
        own = sysfs.path / "devices/virtual/vfio" / str(number)
        own.mkdir(parents=True, exist_ok=True)
        return self._node(sysfs, own, link or f"/dev/vfio/{number}")

    def _node(self, sysfs: Sysfs, own: Path, link: str) -> str:
        self._minors += 1
        folder = sysfs.path / "dev/char"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{_MAJOR}:{self._minors}").symlink_to(os.path.relpath(own, folder))
        self._numbers[link] = os.makedev(_MAJOR, self._minors)
        return link

    def _answer(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
        if dir_fd is not None and str(path).startswith("fd/"):
            number = self._numbers.get(os.readlink(path, dir_fd=dir_fd))
            if number is not None:
                return _Node(number)
        return self._stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)


class _Node:
    """What os.stat says of a character device."""

    st_mode = stat.S_IFCHR | 0o600

    def __init__(self, number: int) -> None:
        self.st_rdev = number
