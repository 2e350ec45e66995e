"""What the kernel compares when one process asks to trace another, as /proc shows it of one process."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Literal

import attrs

from mdevdisplay.host.processes import Process
from mdevdisplay.host.root import read_attribute

__all__ = [
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYS_PTRACE",
    "INITIAL_USER_NAMESPACE",
    "Credentials",
    "descends_from",
    "read_credentials",
]

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE = 1, 2, 19
"""Bits of the capability sets, linux/capability.h."""
INITIAL_USER_NAMESPACE = "user:[4026531837]"
"""linux/proc_ns.h, PROC_USER_INIT_INO."""

_NAMESPACE = re.compile(r"user:\[[0-9]{1,20}\]", re.ASCII)
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)
_SET = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)
_MOST_ANCESTORS = 64


@attrs.frozen(kw_only=True)
class Credentials:
    """One process, so far as /proc shows it to us; ids are as our user namespace sees them.

    Attributes:
        folder: the process's directory in /proc.
        pid: its number there; 0 where it is not known.
        parent: its parent's number, 0 where that is outside of the pid namespace; None where it is not known.
        uids: real, effective, saved and file system user id; empty where they are not known.
        gids: the same of the group.
        permitted: the permitted capabilities as bits, or None.
        effective: the effective ones.
        seccomp: "0" without a filter, "2" with one; "" where it is not known.
        user_namespace: its link, ``user:[4026531837]``; "" where that may not be read.
        namespace_refused: whether the link is there and the kernel refuses it: PTRACE_MODE_READ_FSCREDS.
        uid_map: the mapping of its user namespace, which anybody may read: where two differ, so do the namespaces;
            "" before one is set, None where there is none.
        files_owner: user and group that the directory ``fd`` belongs to; None where they are not known.
        label: what the security module says of it, ``attr/current``.
        profile: its AppArmor profile: ``attr/apparmor/current``, which has it beside another module too.
        refused: the errno that even its directory is refused with, 0 otherwise.
    """

    folder: Path
    pid: int = 0
    parent: int | None = None
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    permitted: int | None = None
    effective: int | None = None
    seccomp: str = ""
    user_namespace: str = ""
    namespace_refused: bool = False
    uid_map: str | None = None
    files_owner: tuple[int, int] | None = None
    label: str = ""
    profile: str = ""
    refused: int = 0

    def can(self, capability: int) -> bool:
        """Return whether its effective set has a capability; where that is not known, it has not."""
        return bool((self.effective or 0) >> capability & 1)


def read_credentials(proc: Path, pid: int | Literal["self"]) -> Credentials:
    """Return what /proc shows of a process; what it does not show is left at its default. Nothing is raised."""
    folder = proc / str(pid)
    try:
        with Process(proc, pid) as process:
            status = process.status()
    except OSError as error:
        return Credentials(folder=folder, pid=0 if pid == "self" else pid, refused=error.errno or errno.EIO)
    namespace, refused = _user_namespace(folder)
    return Credentials(
        folder=folder,
        pid=(_number(status.get("Tgid", "")) or 0) if pid == "self" else pid,
        parent=_number(status.get("PPid", "")),
        uids=_ids(status.get("Uid", "")),
        gids=_ids(status.get("Gid", "")),
        permitted=_capabilities(status.get("CapPrm", "")),
        effective=_capabilities(status.get("CapEff", "")),
        seccomp=status.get("Seccomp", ""),
        user_namespace=namespace,
        namespace_refused=refused,
        uid_map=_uid_map(folder / "uid_map"),
        files_owner=_owner(folder / "fd"),
        label=read_attribute(folder / "attr/current"),
        profile=read_attribute(folder / "attr/apparmor/current"),
    )


def descends_from(proc: Path, process: Credentials, ancestor: int) -> bool:
    """Return whether a process has another one among its ancestors, the nearest 64 of them."""
    parent = process.parent
    for _ in range(_MOST_ANCESTORS):
        if parent in (None, 0, ancestor):
            break
        try:
            with Process(proc, parent or 0) as above:
                parent = _number(above.status().get("PPid", ""))
        except OSError:
            return False
    return parent == ancestor != 0


def _number(text: str) -> int | None:
    return int(text) if _ID.fullmatch(text) else None


def _ids(text: str) -> tuple[int, ...]:
    words = text.split()
    return tuple(map(int, words)) if len(words) == 4 and all(map(_ID.fullmatch, words)) else ()


def _capabilities(text: str) -> int | None:
    return int(text, 16) if _SET.fullmatch(text) else None


def _user_namespace(folder: Path) -> tuple[str, bool]:
    try:
        link = str((folder / "ns/user").readlink())
    except OSError as error:
        return "", error.errno in (errno.EACCES, errno.EPERM)
    return (link if _NAMESPACE.fullmatch(link) else ""), False


def _uid_map(path: Path) -> str | None:
    return " ".join(read_attribute(path).split()) if path.exists() else None


def _owner(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_uid, found.st_gid
