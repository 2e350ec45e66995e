"""The layers of the kernel that may refuse a trace: each says whether it does, and why, or None.

A layer believes that those before it were passed; `mdevdisplay.host.refusals` has their order.
"""

from __future__ import annotations

import errno

import attrs

from mdevdisplay._fds import duplicate_from
from mdevdisplay.host.credentials import (
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_SYS_PTRACE,
    Credentials,
    descends_from,
)
from mdevdisplay.host.trace_request import Refusal, TraceRequest

__all__ = [
    "DOC",
    "LAUNCHER",
    "apparmor",
    "capabilities",
    "directory",
    "dumpable",
    "ids",
    "is_filtered",
    "seccomp",
    "selinux",
    "unknown",
    "user_namespace",
    "yama",
]

DOC = "docs/permissions.md"
LAUNCHER = f"let a launcher that may do it pass the descriptor (unix:PATH); {DOC}"
_SERVICE = "AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"
_NO_CAPABILITY = "CAP_SYS_PTRACE is not in your effective set"


def is_filtered() -> bool:
    """Whether pidfd_getfd(2) itself is out of reach: without a filter the kernel answers EBADF to a pidfd of -1."""
    return _answer_to_nothing() != errno.EBADF


def _answer_to_nothing() -> int:
    try:
        duplicate_from(-1, 0)
    except OSError as error:
        return error.errno or 0
    return 0


def seccomp(asked: TraceRequest) -> Refusal | None:
    """Ask for nothing, to which only a filter answers anything but EBADF."""
    answer = _answer_to_nothing()
    if answer == errno.EBADF:
        return None
    seen = f"pidfd_getfd(-1, 0) answers {_name(answer)} instead of EBADF; {asked.own.folder}/status: Seccomp "
    if answer == errno.ENOSYS and asked.own.seccomp == "0":
        return Refusal("attach-not-permitted", f"{seen}0, so this kernel has no such call", f"Linux 5.6 has it; {DOC}")
    seen += asked.own.seccomp if asked.own.seccomp in ("0", "1", "2") else "unknown"
    remedy = "allow pidfd_open and pidfd_getfd: docker run --cap-add SYS_PTRACE, SystemCallFilter=pidfd_getfd"
    return Refusal("trace-seccomp", seen, f"{remedy}; or {LAUNCHER}")


def user_namespace(asked: TraceRequest) -> Refusal | None:
    """ptrace_has_cap: a capability counts in our own user namespace and those below it."""
    if not asked.outside:
        return None
    theirs = f"is {asked.target.user_namespace}" if asked.target.user_namespace else "may not be read"
    if asked.maps_differ:
        theirs += " and its uid_map is not yours"
    evidence = f"{asked.target.folder}/ns/user {theirs}, yours is {asked.own.user_namespace}"
    remedy = "start it in the host's user namespace: no rootless container, no userns-remap, PrivateUsers=no"
    certain = asked.namespace_is_told or (asked.maps_differ and asked.own.can(CAP_SYS_PTRACE))
    return Refusal("trace-user-namespace", f"{evidence}: your capabilities do not count there", _or(remedy), certain)


def ids(asked: TraceRequest) -> Refusal | None:
    """__ptrace_may_access: our uid and gid are all six of the target's."""
    own, target = asked.own_ids, asked.target
    if own is None or asked.may_trace:
        return None
    pairs = (("Uid", target.uids[:3], own[0]), ("Gid", target.gids[:3], own[1]))
    other = [f"{name} {_few(theirs)}, yours {mine}" for name, theirs, mine in pairs if set(theirs) - {mine}]
    if not other:
        return None
    evidence = f"{target.folder}/status: {', '.join(other)}"
    refusal = _for_want_of_the_capability("trace-other-user", evidence, asked)
    return attrs.evolve(refusal, remedy=_as_its_user(target) + refusal.remedy) if _is_plain(asked) else refusal


def dumpable(asked: TraceRequest) -> Refusal | None:
    """get_dumpable: what is not dumpable belongs to root in /proc, whatever its effective ids are (task_dump_owner)."""
    target = asked.target
    if asked.may_trace or target.files_owner is None or not (target.uids and target.gids):
        return None
    effective = (target.uids[1], target.gids[1])
    if target.files_owner == effective:
        return None
    evidence = (
        f"{target.folder}/fd belongs to {_pair(target.files_owner)} and the process is {_pair(effective)}, "
        "so it is not dumpable"
    )
    return _for_want_of_the_capability("trace-not-dumpable", evidence, asked)


def capabilities(asked: TraceRequest) -> Refusal | None:
    """cap_ptrace_access_check: in one user namespace, the target may do nothing that we may not."""
    own, target = asked.own, asked.target
    ours, name = (own.effective, "CapEff") if asked.listing else (own.permitted, "CapPrm")
    if asked.may_trace:
        return None
    if target.permitted is not None and ours is not None and target.permitted & ~ours:
        evidence = f"{target.folder}/status: CapPrm {target.permitted:x}, your {name} {ours:x}"
    elif asked.maps_differ:
        evidence = f"{target.folder}/uid_map is not yours, so it is in another user namespace than you"
    else:
        return None
    return _for_want_of_the_capability("trace-capabilities", evidence, asked)


def directory(asked: TraceRequest) -> Refusal | None:
    """proc_fd_permission: /proc/PID/fd has mode 0500 and belongs to the target's user, or to root."""
    owner, own = asked.target.files_owner, asked.own
    if owner is None or not own.uids or owner[0] == own.uids[3]:
        return None
    if own.can(CAP_DAC_READ_SEARCH) or own.can(CAP_DAC_OVERRIDE):
        return None
    evidence = (
        f"{asked.target.folder}/fd belongs to uid {owner[0]} and has mode 0500, you are uid {own.uids[3]}; "
        "CAP_DAC_READ_SEARCH is not in your effective set"
    )
    return Refusal("trace-no-dac-read-search", evidence, _get_the_rights(asked))


def yama(asked: TraceRequest) -> Refusal | None:
    """yama_ptrace_access_check, which looks at attaching alone."""
    scope = asked.host.ptrace_scope
    if not scope or (scope < 3 and asked.may_trace):
        return None
    evidence = f"{asked.proc}/sys/kernel/yama/ptrace_scope is {scope}"
    remedy = _get_the_rights(asked)
    if scope == 3:
        return Refusal("trace-yama-3", f"{evidence}: nobody may attach to anybody", remedy)
    if scope == 2:
        return Refusal("trace-yama-2", f"{evidence}; {_NO_CAPABILITY}", remedy)
    if descends_from(asked.proc, asked.target, asked.own.pid):
        return None
    evidence += f" and process {asked.target.pid} is no descendant of yours; {_NO_CAPABILITY}"
    # PR_SET_PTRACER lets a process in all the same, and /proc does not show it
    certain = not asked.host.confined and asked.target.parent is not None
    return Refusal("trace-yama-1", evidence, remedy, certain)


def apparmor(asked: TraceRequest) -> Refusal | None:
    """apparmor_ptrace_access_check: it may be this one, as /proc does not show the rules of a profile."""
    if not asked.host.apparmor:
        return None
    evidence = f"AppArmor confines you: {asked.own.folder}/attr/current is {asked.host.apparmor!r}"
    if peer := asked.target.profile or asked.target.label:
        evidence += f", the process's {peer[:100]!r}"
    remedy = (
        "journalctl -k --grep 'apparmor=\"DENIED\"' shows what is refused; add rules to the profile, "
        "or docker run --security-opt apparmor=unconfined"
    )
    return Refusal("trace-apparmor", evidence, _or(remedy, asked), certain=False)


def selinux(asked: TraceRequest) -> Refusal | None:
    """selinux_ptrace_access_check: it may be this one, as /proc does not show the policy."""
    if not asked.host.selinux:
        return None
    evidence = f"SELinux enforces: {asked.own.folder}/attr/current is {asked.host.selinux!r}"
    if asked.target.label:
        evidence += f", the process's {asked.target.label[:100]!r}"
    remedy = "ausearch -m avc -ts recent shows what is refused; add rules for your domain"
    return Refusal("trace-selinux", evidence, _or(remedy, asked), certain=False)


def unknown(asked: TraceRequest) -> Refusal:
    """Return what is left where no layer can be shown to refuse."""
    evidence = "so far as /proc shows, ids, capabilities, namespaces and Yama allow it"
    if asked.target.refused:
        evidence = f"{asked.target.folder} answers {_name(asked.target.refused)} (hidepid?)"
    if asked.host.others:
        evidence += f"; of some security modules it shows nothing: {', '.join(asked.host.others)}"
    remedy = "journalctl -k --grep 'ptrace|apparmor|avc' may tell" + ("" if asked.as_root else "; sudo mdevdisplay …")
    return Refusal("attach-not-permitted", evidence, _or(remedy, asked), certain=False)


# --- words ---


def _for_want_of_the_capability(cause: str, evidence: str, asked: TraceRequest) -> Refusal:
    """Return the refusal of a layer that CAP_SYS_PTRACE passes."""
    if asked.as_root:
        cause = "trace-no-ptrace-capability"
    return Refusal(cause, f"{evidence}; {_NO_CAPABILITY}", _get_the_rights(asked))


def _is_plain(asked: TraceRequest) -> bool:
    """Whether the target's own user may trace it: no later layer is in the way."""
    target = asked.target
    alone = len(set(target.uids)) == len(set(target.gids)) == 1 and 0 not in target.uids
    owned = target.files_owner is not None and target.files_owner == (*target.uids[:1], *target.gids[:1])
    return alone and owned and target.permitted == 0 and not asked.host.ptrace_scope and not asked.as_root


def _as_its_user(target: Credentials) -> str:
    return f"run it as its user (sudo -u '#{target.uids[0]}' -g '#{target.gids[0]}' mdevdisplay …); or "


def _get_the_rights(asked: TraceRequest) -> str:
    if asked.host.ptrace_scope == 3:
        return _or("", asked)
    if asked.as_root:
        return _or(f"docker run --pid=host --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH, or in a unit {_SERVICE}")
    return _or(f"run it as root (sudo mdevdisplay …), or as a service with {_SERVICE}")


def _or(remedy: str, asked: TraceRequest | None = None) -> str:
    """Add the way that is always left, and where it is the only one say why."""
    if asked is not None and asked.host.ptrace_scope == 3:
        return f"until the host restarts Yama forbids every trace (ptrace_scope 3): {LAUNCHER}"
    return f"{remedy}; or {LAUNCHER}"


def _name(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}")


def _few(several: tuple[int, ...]) -> str:
    return " ".join(map(str, several if len(set(several)) > 1 else several[:1]))


def _pair(two: tuple[int, int]) -> str:
    return f"{two[0]}:{two[1]}"
