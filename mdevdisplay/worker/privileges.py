"""Giving up every privilege for good: what reads a hostile guest's data needs nothing but what it already has open."""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import resource
import struct
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mdevdisplay.errors import NotPermitted

__all__ = ["NOBODY", "drop_privileges", "import_all"]

NOBODY = 65534

# include/uapi/linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
# include/uapi/linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SETGID = 6
_CAP_SETPCAP = 8
_MOST_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


def import_all(module: ModuleType) -> None:
    """Import every submodule of a backend's package: without privileges its files may not be readable any more."""
    for entry in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
        if not entry.name.endswith((".__main__", ".testing")):
            with suppress(Exception):  # what cannot be imported now is no use later either
                importlib.import_module(entry.name)


def drop_privileges(device: str) -> None:
    """Become nobody where this is root, without groups and capabilities for good, and without core files.

    Raises:
        NotPermitted: the kernel refuses a step; the worker must not serve then.
    """
    try:
        held = _effective()
        if held >> _CAP_SETPCAP & 1:
            _empty_bounding_set()
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        if held >> _CAP_SETGID & 1:
            os.setgroups([])
        if os.geteuid() == 0 or os.getuid() == 0:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        left = _effective()
        if left:
            raise PermissionError(f"capabilities {left:#x} are left")
    except OSError as error:
        raise NotPermitted(
            f"the worker cannot give up its privileges: {error}",
            device=device,
            hint="in a user namespace user 65534 must be mapped, and in a container that drops capabilities root needs "
            "SETUID, SETGID and SETPCAP; or start as an ordinary user, or open the display without isolation",
            cause="privileges-kept",
            errno=error.errno,
        ) from error


def _effective() -> int:
    """Return the effective capabilities as bits."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise PermissionError("/proc/self/status names no capabilities")


def _prctl(option: int, argument: int = 0) -> int:
    result = int(_libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0),) * 3))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
    return result


def _empty_bounding_set() -> None:
    for capability in range(_MOST_CAPABILITIES):
        try:
            present = _prctl(_PR_CAPBSET_READ, capability)
        except OSError:  # EINVAL: the kernel knows no more of them
            return
        if present:
            _prctl(_PR_CAPBSET_DROP, capability)


def _drop_capabilities() -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    nothing = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; 64 bits each, in two halves
    if _libc.capset(header, nothing) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
