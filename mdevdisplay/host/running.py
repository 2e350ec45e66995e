"""Whether a VM runs, is paused or asleep, as far as that can be asked without disturbing it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Literal

import attrs

from mdevdisplay.host.console import Console
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.libvirt import Domain, read_domains
from mdevdisplay.host.processes import Process
from mdevdisplay.host.qmp import NoAnswer, query_status
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["State", "VmState", "running_state"]

State = Literal["running", "paused", "migrating", "suspended", "stopped", "crashed", "starting", "shutdown", "unknown"]

_LIBVIRT: dict[str, State] = {  # virDomainState in src/conf/domain_conf.c
    "running": "running",
    "blocked": "running",
    "paused": "paused",
    "shutdown": "shutdown",
    "shutoff": "shutdown",
    "crashed": "crashed",
    "pmsuspended": "suspended",
}
_LIBVIRT_PAUSED: dict[str, State] = {  # virDomainPausedReason
    "starting up": "starting",
    "panicked": "crashed",
    "migration": "migrating",
    "post-copy": "migrating",
    "post-copy failed": "migrating",
}
_QMP: dict[str, State] = {  # RunState in qapi/run-state.json
    "running": "running",
    "paused": "paused",
    "debug": "paused",
    "io-error": "paused",
    "watchdog": "paused",
    "colo": "migrating",
    "finish-migrate": "migrating",
    "postmigrate": "migrating",
    "restore-vm": "paused",
    "save-vm": "paused",
    "suspended": "suspended",
    "guest-panicked": "crashed",
    "internal-error": "crashed",
    "prelaunch": "starting",
    "preconfig": "starting",
    "inmigrate": "migrating",
    "shutdown": "shutdown",
}


@attrs.frozen(kw_only=True)
class VmState:
    """What a VM is doing.

    Attributes:
        state: ``running``; ``paused``: its processors are halted by the VMM; ``migrating``: it moves, or has moved,
            from or to another host, and may run there; ``suspended``: the guest sleeps (ACPI S3); ``stopped``: the
            VMM's process is, by SIGSTOP or a debugger; ``crashed``: the guest or the VMM gave up; ``starting``: it has
            not begun; ``shutdown``: the guest has shut down and its VMM is still there; ``unknown``.
        told_by: the file or socket that told it; "" where none did.
        detail: the words of that source, or why it is not known.
        left_out: what was not asked, and why.
    """

    state: State
    told_by: str = ""
    detail: str = ""
    left_out: tuple[str, ...] = ()


def running_state(root: HostRoot, holder: Holder, *, console: Console | None, seconds: float) -> VmState:
    """Return what a VM is doing, from its process, libvirt's file of it, or a QMP socket that is free.

    The VM notices nothing, and a monitor that libvirt holds is left alone.

    Args:
        root: the host's root.
        holder: the VM's process, as `mdevdisplay.host.holders` found it.
        console: what its command line says, where it is a QEMU.
        seconds: how long to wait for QMP altogether.
    """
    deadline = time.monotonic() + seconds
    return (
        _from_process(root, holder)
        or _from_libvirt(root, holder, console)
        or _from_qmp(root, holder, console, deadline)
    )


# --- the process ---


def _from_process(root: HostRoot, holder: Holder) -> VmState | None:
    path = root.proc / f"{holder.pid}/stat"
    # proc_pid_stat(5): the name in brackets may have brackets of its own; the state is field 3, the start field 22
    fields = read_attribute(path).rpartition(")")[2].split()
    letter = fields[0] if fields else ""
    started = fields[19] if len(fields) > 19 else ""
    other = holder.start_time != 0 and started != str(holder.start_time)
    if letter in ("", "Z", "X") or other:
        return VmState(state="unknown", told_by=str(path), detail="the process has ended")
    if letter == "T":
        return VmState(state="stopped", told_by=str(path), detail="the process is stopped, as by SIGSTOP")
    if letter == "t":
        return VmState(state="stopped", told_by=str(path), detail="the process is stopped by a debugger")
    return None


# --- libvirt ---


def _from_libvirt(root: HostRoot, holder: Holder, console: Console | None) -> VmState | None:
    domain = read_domains(root, [holder.pid]).get(holder.pid)
    # the file may be an old one, of a number that another process has by now
    if domain is None or not domain.state or domain.uuid != holder.vm.uuid or not domain.uuid:
        return None
    told_by = str(root.run / f"libvirt/qemu/{domain.name}.xml")
    return VmState(
        state=_libvirt_state(domain),
        told_by=told_by,
        detail=f"{domain.state} ({domain.reason})" if domain.reason else domain.state,
        left_out=_left_to_libvirt(console),
    )


def _libvirt_state(domain: Domain) -> State:
    state = _LIBVIRT.get(domain.state, "unknown")
    return _LIBVIRT_PAUSED.get(domain.reason, state) if state == "paused" else state


def _left_to_libvirt(console: Console | None) -> tuple[str, ...]:
    if console is None:
        return ()
    places = [f"at {path}" for path in console.qmp]
    if console.monitored:
        places.append("by a descriptor")
    return tuple(f"QMP {place}: libvirt holds the monitor" for place in places)


# --- QMP ---


def _from_qmp(root: HostRoot, holder: Holder, console: Console | None, deadline: float) -> VmState:
    if console is None:
        return VmState(state="unknown", detail="its VMM is not QEMU, and libvirt has no file of it that we may read")
    left_out: list[str] = []
    if console.monitored:
        left_out.append("QMP by a descriptor: whoever started the VM, libvirt for one, holds the monitor")
    for place, path in enumerate(console.qmp):
        reason, place_here = _may_be_asked(root, holder, console, path)
        if place_here is None:
            left_out.append(f"QMP at {path}: {reason}")
            continue
        now = time.monotonic()
        share = now + max(0.0, deadline - now) / (len(console.qmp) - place)
        try:
            word = query_status(str(place_here), share, is_vm=partial(_is_holder, holder))
        except NoAnswer as error:
            left_out.append(f"QMP at {path}: {error.reason}: {error.detail}")
            continue
        return VmState(state=_QMP.get(word, "unknown"), told_by=f"QMP at {path}", detail=word, left_out=tuple(left_out))
    return VmState(state="unknown", detail=_why_unknown(console), left_out=tuple(left_out))


def _why_unknown(console: Console) -> str:
    if console.qmp:
        return "no QMP socket of its command line told it"
    if console.monitored:
        return "libvirt's file of it cannot be read, or is not there; as root it might"
    return "its command line has no QMP socket, and libvirt has no file of it that we may read"


def _may_be_asked(root: HostRoot, holder: Holder, console: Console, path: str) -> tuple[str, Path | None]:
    """Return the socket's path on this host where it may be asked, or else why it may not."""
    if "/libvirt/" in path:
        return "libvirt holds the monitor", None
    if console.given_files:
        return "QEMU may close descriptors of -add-fd when we leave", None
    # QEMU makes its VM once the first client has come. A VM that holds a device has been made.
    if path in console.qmp_waits and not (holder.groups or any(held.fd >= 0 for held in holder.devices)):
        return "QEMU may still be waiting there for its first client", None
    place = next(filter(_is_socket, _places(root, holder, path)), None)
    return "no such socket on this host that we may see", place


def _places(root: HostRoot, holder: Holder, path: str) -> list[Path]:
    """Return where a path of the VMM's may be: below its own root or working directory, or the host's root.

    Its own root, that of its container, is closed to those who may not trace it.
    """
    own = root.proc / str(holder.pid)
    if not path.startswith("/"):
        return [own / "cwd" / path]
    below = path.lstrip("/")
    return [own / "root" / below, root.path / below]


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except (OSError, ValueError):
        return False


def _is_holder(holder: Holder, pid: int) -> bool:
    """Return whether the process of a number, in our own pid namespace, is the VM's."""
    try:
        with Process(Path("/proc"), pid) as process:
            return pid == holder.pid and process.start_time() == holder.start_time != 0
    except OSError:
        return False
