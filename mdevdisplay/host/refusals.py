"""Why this process may not trace another one: which layer of the kernel refuses it, from /proc and sysfs alone.

The layers are asked in the kernel's own order, so that the first one that refuses here is the one that refused there:
`__ptrace_may_access` in kernel/ptrace.c, then the hooks of the security modules. docs/permissions.md has the table.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from mdevdisplay.host import trace_layers as layers
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.processes import Process
from mdevdisplay.host.root import HostRoot
from mdevdisplay.host.trace_layers import is_filtered
from mdevdisplay.host.trace_request import Refusal, TraceRequest, read_request

__all__ = ["OWN_PROC", "Refusal", "explain", "is_filtered", "other_pid_namespace"]

OWN_PROC = Path("/proc")
"""The /proc of this process's own pid namespace, whatever the host's root is."""

_Layer = Callable[[TraceRequest], Refusal | None]
_TRACING: tuple[_Layer, ...] = (layers.user_namespace, layers.ids, layers.dumpable, layers.capabilities)
_MODULES: tuple[_Layer, ...] = (layers.apparmor, layers.selinux)
_ATTACHING: tuple[_Layer, ...] = (layers.seccomp, *_TRACING, layers.yama, *_MODULES)
# Yama and the filter have no say in reading /proc: they come last, as what attaching would meet next
_LISTING: tuple[_Layer, ...] = (*_TRACING, layers.directory, *_MODULES, layers.yama, layers.seccomp)
_RECEIVING: tuple[_Layer, ...] = (layers.seccomp, *_MODULES)


def explain(holder: Holder, root: HostRoot, *, number: int = errno.EPERM, own: Path | None = None) -> Refusal:
    """Return which layer refuses this process the holder's device; nothing is raised, and nothing is attached to.

    It is for a trace that was refused. Of one that was not it says ``attach-not-permitted``, not certain: no layer can
    be shown to refuse it. Where the holder is not ``readable``, it was reading its descriptors in /proc that failed.

    Args:
        holder: the process, as `mdevdisplay.host.holders` found it.
        root: the host's root.
        number: what pidfd_getfd(2) failed with. EACCES is not of the trace, but of the file that it brings
            (security_file_receive).
        own: the /proc that shows this process as ``self``; `OWN_PROC` where it is None.
    """
    own = own or OWN_PROC
    asked = read_request(holder, root, own)
    if holder.start_time and _start_time(root.proc, holder.pid) not in (0, holder.start_time):
        evidence = f"{asked.target.folder} is not there any more, or hidden from you (hidepid)"
        return Refusal("attach-not-permitted", evidence, f"sudo mdevdisplay list shows it; {layers.DOC}", certain=False)
    if holder.start_time and _start_time(own, holder.pid) not in (0, holder.start_time):
        return other_pid_namespace(holder.pid, own)
    for layer in _LISTING if asked.listing else _RECEIVING if number == errno.EACCES else _ATTACHING:
        if refusal := layer(asked):
            return refusal
    return layers.unknown(asked)


def other_pid_namespace(pid: int, own: Path | None = None) -> Refusal:
    """Return the refusal of a process whose number is none, or another process's, in our pid namespace."""
    return Refusal(
        "other-pid-namespace",
        f"process {pid} of the host is not process {pid} of {own or OWN_PROC}",
        f"run in the host's: docker run --pid=host, hostPID: true; or {layers.LAUNCHER}",
    )


def _start_time(proc: Path, pid: int) -> int | None:
    """Return when a process started, 0 where that may not be read, None where there is no such process."""
    try:
        with Process(proc, pid) as process:
            return process.start_time()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return 0
