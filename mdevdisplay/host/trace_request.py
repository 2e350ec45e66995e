"""One request of the kernel: may this process trace that one? Who asks, of whom, and what refused it."""

from __future__ import annotations

from pathlib import Path

import attrs

from mdevdisplay.host.confinement import Confinement, read_confinement
from mdevdisplay.host.credentials import CAP_SYS_PTRACE, INITIAL_USER_NAMESPACE, Credentials, read_credentials
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.root import HostRoot

__all__ = ["Refusal", "TraceRequest", "read_request"]


@attrs.frozen
class Refusal:
    """Why a trace of a process is refused.

    Attributes:
        cause: a stable id, ``trace-yama-1`` for instance: see `mdevdisplay.diagnose.CAUSES`.
        evidence: what was seen, with its numbers and files.
        remedy: what to do, in one line.
        certain: whether what was seen refuses the trace for sure, so that no other layer can be the one.
    """

    cause: str
    evidence: str
    remedy: str
    certain: bool = True


@attrs.frozen(kw_only=True)
class TraceRequest:
    """All that the layers of the kernel look at.

    Attributes:
        own: this process.
        target: the process to be traced.
        host: what the security modules do.
        proc: the host's /proc.
        listing: whether reading its descriptors in /proc is asked for, not attaching to it.
    """

    own: Credentials
    target: Credentials
    host: Confinement
    proc: Path
    listing: bool = False

    @property
    def own_ids(self) -> tuple[int, int] | None:
        """User and group id that count: the real ones for attaching, those of the file system for reading /proc."""
        which = 3 if self.listing else 0
        return (self.own.uids[which], self.own.gids[which]) if self.own.uids and self.own.gids else None

    @property
    def as_root(self) -> bool:
        """Whether this process is root, really or in effect."""
        return 0 in self.own.uids[:2]

    @property
    def namespace_is_told(self) -> bool:
        """Whether the target's user namespace is known; the kernel shows it to those alone who may trace there."""
        return bool(self.own.user_namespace and self.target.user_namespace)

    @property
    def maps_differ(self) -> bool:
        """Whether the mappings of ids tell that the user namespaces are two."""
        return self.own.uid_map is not None and self.target.uid_map not in (None, "", self.own.uid_map)

    @property
    def outside(self) -> bool:
        """Whether the target is not in our user namespace nor below it, so that no capability of ours counts."""
        if self.own.user_namespace in ("", INITIAL_USER_NAMESPACE):
            return False
        if self.namespace_is_told:
            return self.target.user_namespace == INITIAL_USER_NAMESPACE
        # with the capability in its namespace, or in one above, the link could be read
        return self.target.namespace_refused and (self.maps_differ or self.own.can(CAP_SYS_PTRACE))

    @property
    def may_trace(self) -> bool:
        """Whether we have CAP_SYS_PTRACE over the target, where that is not outside of our user namespace.

        By our effective set, or as the owner of a namespace below ours (cap_capable).
        """
        owner = self.namespace_is_told and self.own.user_namespace != self.target.user_namespace
        return self.own.can(CAP_SYS_PTRACE) or owner


def read_request(holder: Holder, root: HostRoot, own_proc: Path) -> TraceRequest:
    """Read who asks and of whom; nothing is raised.

    Args:
        holder: the process to be traced.
        root: the host's root.
        own_proc: the /proc that shows this process as ``self``.
    """
    own, target = read_credentials(own_proc, "self"), read_credentials(root.proc, holder.pid)
    if not target.uids and holder.uid >= 0:
        target = attrs.evolve(target, uids=(holder.uid,) * 4)
    host = read_confinement(root, own)
    return TraceRequest(own=own, target=target, host=host, proc=root.proc, listing=not holder.readable)
