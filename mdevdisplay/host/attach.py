"""Attaching: duplicating a VFIO device's descriptor from the process that holds it, the VM's VMM."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from mdevdisplay._fds import duplicate_from
from mdevdisplay.errors import (
    DeviceGone,
    MdevDisplayError,
    NotPermitted,
    VmGone,
    from_oserror,
)
from mdevdisplay.host.auth_log import log_attach
from mdevdisplay.host.borrowed import borrow
from mdevdisplay.host.holders import HeldDevice, HeldGroup, Holder, find_holder
from mdevdisplay.host.processes import Process
from mdevdisplay.host.refusals import explain, is_filtered, other_pid_namespace
from mdevdisplay.host.root import HostRoot
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.group import device_of_group

__all__ = ["VmProcess", "attach", "attach_by_name", "describe_holder", "not_permitted"]


@attrs.frozen(kw_only=True)
class VmProcess:
    """The process that owns a borrowed device: the device's lifeline.

    Attributes:
        pid: its number.
        who: what it is, for people: "VM 'win10' (pid 4242)".
        pidfd: readable once it has ended.
        locator: how the user named the device.
    """

    pid: int
    who: str
    pidfd: int
    locator: str

    def fileno(self) -> int:
        """Return the pidfd."""
        return self.pidfd

    def error(self) -> MdevDisplayError:
        """Return what every call raises once the process has ended."""
        return VmGone(
            f"{self.who} has ended",
            device=self.locator,
            hint="start it again and open the display again; open(reconnect=True) and `watch --reconnect` wait for it",
        )


def describe_holder(holder: Holder) -> str:
    """Name a process for people: "VM 'win10' (pid 4242)", or by its command where it is no VMM that we know."""
    if holder.vm.name:
        return f"VM {holder.vm.name!r} (pid {holder.pid})"
    return f"process {holder.pid} ({holder.command or 'unknown'})"


def attach(holder: Holder, held: HeldDevice, locator: str, root: HostRoot, *, log: bool = True) -> Device:
    """Return a borrowed device: a duplicate of one that another process holds.

    The process is not stopped, and learns nothing of it. Its exit is watched by a pidfd, the device's lifeline.

    Args:
        holder: the process, as `mdevdisplay.host.holders` found it.
        held: which of its descriptors.
        locator: how the user named it.
        root: the host's root.
        log: whether to write the line to the auth log.

    Raises:
        VmGone: the process ended meanwhile.
        DeviceGone: it has closed the device meanwhile.
        NotPermitted: pidfd_getfd(2) is not allowed.
        NotADisplay, DriverError: the descriptor is not one that can be read.
    """
    take = partial(_duplicate, holder=holder, fd=held.fd, locator=locator, root=root)
    return _attach(holder, locator, root, held.name, take, log=log)


def attach_by_name(holder: Holder, name: str, locator: str, root: HostRoot, *, log: bool = True) -> Device:
    """Return a borrowed device of a process by the device's name.

    Where several of its descriptors may be the one, as before Linux 6.18, the device is asked from a duplicate of the
    process's own descriptor of the group, which cannot be wrong. Arguments and errors are those of `attach`.
    """
    held = next((held for held in holder.devices if held.name == name), None)
    if held is not None:
        return attach(holder, held, locator, root, log=log)
    group = next((group for group in holder.groups if name in group.devices), None)
    if group is None:
        raise DeviceGone(
            f"{describe_holder(holder)} does not hold device {name} by a group any more",
            device=locator,
            hint="see `mdevdisplay list`",
        )

    def ask(pidfd: int) -> int:
        fd = _duplicate(pidfd, holder, group.fd, locator, root)
        try:
            _check_group(fd, group, root, locator)
            return device_of_group(fd, name, locator)
        finally:
            os.close(fd)

    return _attach(holder, locator, root, name, ask, log=log)


def _check_group(fd: int, group: HeldGroup, root: HostRoot, locator: str) -> None:
    """Make sure that the number has not become another file's: an ioctl means something else to each."""
    status = os.fstat(fd)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    node = (root.sys / "dev/char" / number).resolve().name
    if not stat.S_ISCHR(status.st_mode) or node.rpartition("-")[2] != group.number:
        raise DeviceGone(
            f"descriptor {group.fd} is not group {group.number} any more", device=locator, hint="try again"
        )


def _attach(
    holder: Holder, locator: str, root: HostRoot, name: str, take: Callable[[int], int], *, log: bool
) -> Device:
    """Attach with what ``take`` gets through the process's pidfd."""
    who = describe_holder(holder)
    if not holder.readable:
        raise not_permitted(holder, locator, root, f"reading the descriptors of {who} is not allowed")
    pidfd = _pidfd(holder, who, locator, root)
    try:
        device = borrow(take(pidfd), locator, root, name)
    except BaseException:
        os.close(pidfd)
        raise
    device.lifeline = VmProcess(pid=holder.pid, who=who, pidfd=pidfd, locator=locator)
    device.after_release(partial(os.close, pidfd))
    if log:
        log_attach(root, whose=who, device=name or locator)
    return device


def _ended(who: str, locator: str) -> VmGone:
    return VmGone(f"{who} ended while it was looked at", device=locator, hint="see `mdevdisplay list`")


def _is_there(holder: Holder, root: HostRoot) -> bool:
    """Whether the process is still the one that was seen."""
    now = find_holder(root, holder.pid)
    return now is not None and now.start_time == holder.start_time


def _started_here(pid: int) -> int:
    """Return when the process of a number started in our own pid namespace, which pidfd_open means; 0 for none."""
    try:
        with Process(Path("/proc"), pid) as process:
            return process.start_time()
    except OSError:
        return 0


def _other_namespace(holder: Holder, who: str, locator: str) -> NotPermitted:
    refusal = other_pid_namespace(holder.pid)
    return NotPermitted(
        f"{who} is in another pid namespace than this program: {refusal.evidence}",
        device=locator,
        hint=refusal.remedy,
        cause=refusal.cause,
    )


def _pidfd(holder: Holder, who: str, locator: str, root: HostRoot) -> int:
    try:
        pidfd = os.pidfd_open(holder.pid)
    except ProcessLookupError as error:
        if _is_there(holder, root):
            raise _other_namespace(holder, who, locator) from error
        raise _ended(who, locator) from error
    except OSError as error:
        raise from_oserror(error, device=locator, doing=f"pidfd_open of {who}") from error
    try:
        # from here on the number cannot become another process's; before, it could
        if not _is_there(holder, root):
            raise _ended(who, locator)
        if _started_here(holder.pid) != holder.start_time:
            raise _other_namespace(holder, who, locator)
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def _duplicate(pidfd: int, holder: Holder, fd: int, locator: str, root: HostRoot) -> int:
    who = describe_holder(holder)
    doing = f"pidfd_getfd of descriptor {fd} of {who}"
    try:
        return duplicate_from(pidfd, fd)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise _ended(who, locator) from error
        if error.errno == errno.EBADF:
            raise from_oserror(
                error, device=locator, doing=doing, hint="it has closed the device; try again", kind=DeviceGone
            ) from error
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS) or is_filtered():
            number = error.errno or 0
            name = errno.errorcode.get(number, f"errno {number}")
            raise not_permitted(holder, locator, root, f"{doing} failed: {name}", number) from error
        raise from_oserror(error, device=locator, doing=doing) from error


def not_permitted(holder: Holder, locator: str, root: HostRoot, what: str, number: int = errno.EPERM) -> NotPermitted:
    """Return the error for a process that may not be read, with the layer of the kernel that forbids it.

    Args:
        holder: the process.
        locator: how the user named it.
        root: the host's root.
        what: what was asked and what came back.
        number: the errno of it.
    """
    refusal = explain(holder, root, number=number)
    return NotPermitted(
        f"{what}: {refusal.evidence}", device=locator, hint=refusal.remedy, errno=number, cause=refusal.cause
    )
