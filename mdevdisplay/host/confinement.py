"""Which security modules this host has, and how far they confine this process."""

from __future__ import annotations

import re

import attrs

from mdevdisplay.host.credentials import Credentials
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["Confinement", "read_confinement"]

_MODE = re.compile(r"(.*) \((\w+)\)", re.DOTALL)
_FREE = ("complain", "unconfined")
_SILENT = ("landlock", "smack", "bpf")
_MOST_LABEL = 100


@attrs.frozen(kw_only=True)
class Confinement:
    """What the security modules have to say about a trace.

    Attributes:
        ptrace_scope: Yama's, 0 to 3; None without Yama.
        apparmor: the AppArmor profile that confines us, or "".
        selinux: the SELinux context that we are in, or "" where SELinux does not enforce.
        others: other modules here that may refuse a trace; /proc does not show what they confine.
    """

    ptrace_scope: int | None = None
    apparmor: str = ""
    selinux: str = ""
    others: tuple[str, ...] = ()

    @property
    def confined(self) -> bool:
        """Whether AppArmor or SELinux may refuse."""
        return bool(self.apparmor or self.selinux)


def read_confinement(root: HostRoot, own: Credentials) -> Confinement:
    """Return what this host's security modules do with a process. Nothing is raised."""
    text = read_attribute(root.sys / "kernel/security/lsm")
    modules = tuple(name for name in text.split(",") if re.fullmatch(r"[a-z0-9_]{1,20}", name, re.ASCII))
    return Confinement(
        ptrace_scope=_ptrace_scope(root, modules),
        apparmor=_apparmor(root, modules, own),
        selinux=_selinux(root, modules, own),
        others=tuple(name for name in modules if name in _SILENT),
    )


def _ptrace_scope(root: HostRoot, modules: tuple[str, ...]) -> int | None:
    if modules and "yama" not in modules:
        return None
    scope = read_attribute(root.proc / "sys/kernel/yama/ptrace_scope")
    return int(scope) if scope in ("0", "1", "2", "3") else None


def _apparmor(root: HostRoot, modules: tuple[str, ...], own: Credentials) -> str:
    # without the list, as in most containers, the module's own parameter says that it is there
    active = "apparmor" in modules or (
        not modules and read_attribute(root.sys / "module/apparmor/parameters/enabled") == "Y"
    )
    label = own.profile or own.label
    mode = _MODE.fullmatch(label)
    free = label in ("", "unconfined") or (mode is not None and mode[2] in _FREE)
    return label[:_MOST_LABEL] if active and not free else ""


def _selinux(root: HostRoot, modules: tuple[str, ...], own: Credentials) -> str:
    enforce = read_attribute(root.sys / "fs/selinux/enforce")
    active = enforce != "0" if "selinux" in modules else not modules and enforce == "1"
    return own.label[:_MOST_LABEL] if active and own.label.count(":") >= 3 else ""
