"""One process as /proc shows it: its words, its owner, its open files.

Everything is read below one open directory of the process, so that a number that is given to another process halfway
is never mixed up with it: where the process has ended, each read says so.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

__all__ = ["Process", "device_number", "pids"]

_MOST_STATUS = 1 << 14
_MOST_FDINFO = 1 << 14
_MOST_COMMAND_LINE = 1 << 22  # the kernel's own bound is 6 MiB, and its usual one 2 MiB


def pids(proc: Path) -> list[int]:
    """Return the numbers of the processes that /proc shows, in order; with hidepid these are not all."""
    try:
        names = os.listdir(proc)  # noqa: PTH208 - hundreds of names, and no use for paths
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


class Process:
    """A process, while its directory in /proc is open.

    A thread's number opens the same as its process's.
    """

    def __init__(self, proc: Path, pid: int | Literal["self"]) -> None:
        """Open its directory.

        Args:
            proc: the /proc to look in.
            pid: its number there, or this process's own one.

        Raises:
            OSError: there is no such process (any more), or it is hidden.
        """
        self._directory = os.open(f"{proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files = -1

    def close(self) -> None:
        """Close the directories."""
        for fd in (self._files, self._directory):
            if fd >= 0:
                os.close(fd)
        self._files = self._directory = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_files(self, word: str = "") -> list[tuple[int, str]]:
        """Return the number of each open file and what its link says, where that has a word in it.

        Links are paths of the process's own mount namespace or such as ``anon_inode:[vfio-device]``, made text by
        `os.fsdecode`. A host has ten thousands of them, so they are picked out here.

        Raises:
            OSError: we may not look (PermissionError), or the process has ended.
        """
        if self._files < 0:
            self._files = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        files, readlink = self._files, os.readlink
        found: list[tuple[int, str]] = []
        for name in os.listdir(files):  # noqa: PTH208 - of a descriptor
            try:
                link = readlink(name, dir_fd=files)
            except OSError as error:
                # closed in the meantime; or a path that is too long to be read, and so none of a VFIO node
                if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                    continue
                raise
            if word in link:
                found.append((int(name), link))
        return sorted(found)

    def device_number(self, fd: int) -> tuple[int, int] | None:
        """Return major and minor of the device that an open file is of, wherever its node is; None where it is none."""
        return device_number(f"fd/{fd}", self._directory)

    def fdinfo(self, fd: int) -> dict[str, str]:
        """Return the fields of /proc/PID/fdinfo/FD; none where they cannot be read."""
        return _fields(self._read(f"fdinfo/{fd}", _MOST_FDINFO))

    def command_line(self, most: int = _MOST_COMMAND_LINE) -> tuple[str, ...]:
        """Return the words that the process was started with, as text made by `os.fsdecode`.

        A process may write over them. None where they cannot be read, and for a kernel thread; of more than ``most``
        bytes the word that is cut is left out.
        """
        data = self._read("cmdline", most)
        words = data.split(b"\0")
        if data.endswith(b"\0") or len(data) == most:
            words.pop()
        return tuple(map(os.fsdecode, words)) if data else ()

    def program(self) -> str:
        """Return the name of the file that it executes, or ""."""
        try:
            target = os.readlink("exe", dir_fd=self._directory)
        except OSError:
            return ""
        return target.removesuffix(" (deleted)").rpartition("/")[2]

    def comm(self) -> str:
        """Return the kernel's name of it: at most 15 bytes, or ""."""
        return os.fsdecode(self._read("comm", 64).removesuffix(b"\n"))

    def status(self) -> dict[str, str]:
        """Return the fields of /proc/PID/status; none where they cannot be read."""
        return _fields(self._read("status", _MOST_STATUS))

    def uid(self) -> int:
        """Return its real user id as our user namespace sees it; -1 where it is not known."""
        words = self.status().get("Uid", "").split()
        return int(words[0]) if words and words[0].isdigit() else -1

    def start_time(self) -> int:
        """Return when it started, in clock ticks since boot: with its number this names a process for good.

        0 where it is not known.
        """
        # the name in brackets may have spaces and brackets of its own; the start is field 22 (proc_pid_stat(5))
        words = self._read("stat", 4096).rpartition(b")")[2].split()
        return int(words[19]) if len(words) > 19 and words[19].isdigit() else 0

    def _read(self, name: str, most: int) -> bytes:
        """Return a file's first bytes; nothing where it cannot be read."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return b""
        parts: list[bytes] = []
        try:
            while most > 0 and (part := os.read(fd, most)):
                parts.append(part)
                most -= len(part)
        except OSError:  # ESRCH: it has ended
            return b""
        finally:
            os.close(fd)
        return b"".join(parts)


def device_number(file: str | int, directory: int | None = None) -> tuple[int, int] | None:
    """Return major and minor of the character device behind a path or a descriptor; None where it is none."""
    try:
        found = os.stat(file, dir_fd=directory)
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISCHR(found.st_mode) else None


def _fields(data: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in os.fsdecode(data).split("\n"))
    return {key: value.strip() for key, colon, value in pairs if colon}
