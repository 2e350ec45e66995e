"""Which processes hold VFIO devices, whose VMs they are, and which device each descriptor is.

From /proc and sysfs alone; no device is touched. What the kernel does not tell is "unknown": an order of descriptors or
of words on a command line proves nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from mdevdisplay.host.libvirt import Domain, read_domains
from mdevdisplay.host.processes import Process, device_number, pids
from mdevdisplay.host.root import HostRoot
from mdevdisplay.host.vmm import Vm, VmmCommand, parse_command_line, parse_qemu

__all__ = [
    "INITIAL_PID_NAMESPACE",
    "HeldDevice",
    "HeldGroup",
    "Holder",
    "Scan",
    "find_holder",
    "find_holders",
    "name_of_descriptor",
    "named",
    "scan",
]

_DEVICE_LINK = "anon_inode:[vfio-device]"  # of a descriptor that came from a group: VFIO_GROUP_GET_DEVICE_FD
_SYSPATH = "vfio-device-syspath"  # Linux 6.18: drivers/vfio/vfio_main.c, vfio_device_show_fdinfo()
_NODE_LINK = re.compile(r"vfio/(noiommu-)?[0-9]+|vfio/devices/")  # as that process's mounts name it
_CLAIMED = "command line"
_FIRST_LOOK = 4096
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # include/linux/proc_ns.h, PROC_PID_INIT_INO


@attrs.frozen(kw_only=True)
class HeldDevice:
    """A VFIO device that a process holds.

    Attributes:
        fd: the descriptor's number in that process; -1 where we may not look at its descriptors.
        name: the device's UUID or PCI address as sysfs spells it, or "" where it is not known.
        known_by: what told the name: ``fdinfo``, ``cdev``, ``group``, ``command line``, or "".
    """

    fd: int
    name: str = ""
    known_by: str = ""


@attrs.frozen(kw_only=True)
class HeldGroup:
    """An IOMMU group that a process has open.

    Attributes:
        fd: the descriptor's number in that process.
        number: the group's number, as sysfs spells it.
        devices: the devices of the group that a VFIO driver has.
    """

    fd: int
    number: str
    devices: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Holder:
    """A process that holds VFIO devices.

    Attributes:
        pid: its number.
        uid: its real user id; -1 where it is not known.
        command: its program's name.
        start_time: when it started, in clock ticks since boot: together with the pid it names a process for good.
        vm: its VM; a kind of "" where it is no VMM that we know, such as a reader that was handed the descriptor.
        devices: the VFIO devices, in order of their descriptors.
        others: devices that it holds for certain, by their groups, though not which descriptor each is.
        groups: the IOMMU groups that it has open, in order of their descriptors.
        readable: whether we may look at its descriptors. Where not, the devices are those of its command line, which
            may have been plugged out since.
    """

    pid: int
    uid: int = -1
    command: str = ""
    start_time: int = 0
    vm: Vm = attrs.field(factory=Vm)
    devices: tuple[HeldDevice, ...] = ()
    others: tuple[str, ...] = ()
    groups: tuple[HeldGroup, ...] = ()
    readable: bool = True

    def holds(self, name: str) -> bool:
        """Return whether it holds a device, whether or not it is known by which descriptor."""
        return bool(name) and (name in self.others or any(device.name == name for device in self.devices))


@attrs.frozen(kw_only=True)
class Scan:
    """All that /proc showed.

    Attributes:
        holders: the processes that hold VFIO devices or groups of them, VMMs first.
        complete: whether every process of the host was looked at, so that nobody else holds one.
    """

    holders: tuple[Holder, ...] = ()
    complete: bool = False


def find_holders(root: HostRoot) -> list[Holder]:
    """Return every process that holds a VFIO device, VMMs first, the oldest of these first.

    Processes that we may not look at are among them if they are VMMs whose command line names a device.
    """
    return [holder for holder in scan(root).holders if holder.devices]


def find_holder(root: HostRoot, pid: int) -> Holder | None:
    """Return one process, with what it holds, be that nothing; None where there is no such process.

    The number of a thread means its process.
    """
    try:
        with Process(root.proc, pid) as process:
            leader = process.status().get("Tgid", "")
            if leader in ("", str(pid)):
                seen = _look(process, pid, root, always=True)
                return _named_by_libvirt([seen], root)[0].holder
    except OSError:
        return None
    return find_holder(root, int(leader)) if leader.isdigit() and _leads(root, int(leader)) else None


def _leads(root: HostRoot, pid: int) -> bool:
    try:
        with Process(root.proc, pid) as process:
            return process.status().get("Tgid", "") == str(pid)
    except OSError:
        return False


def named(holders: Iterable[Holder], text: str) -> list[Holder]:
    """Return those whose VM has a name, an alias or a UUID.

    Others than VMMs only where no VMM has it, and those that may not be looked at only where no other has it.
    """
    found = [holder for holder in holders if holder.vm.matches(text)]
    found = [holder for holder in found if holder.readable] or found
    return [holder for holder in found if holder.vm.kind] or found


def scan(root: HostRoot) -> Scan:
    """Look at every process once."""
    seen: list[_Seen] = []
    complete = _sees_the_whole_host(root.proc)
    for pid in pids(root.proc):
        try:
            with Process(root.proc, pid) as process:
                one = _look(process, pid, root)
        except OSError:  # it has ended
            continue
        complete = complete and one.holder.readable
        if one.holder.devices or one.holder.groups:
            seen.append(one)
    holders = _without_false_claims([one.holder for one in _named_by_libvirt(seen, root)])
    holders.sort(key=lambda holder: (not holder.readable, not holder.vm.kind, holder.start_time, holder.pid))
    return Scan(holders=tuple(holders), complete=complete)


def _without_false_claims(holders: Sequence[Holder]) -> list[Holder]:
    """Return the holders without what only a command line says and what the kernel says of another process.

    Anybody may write any command line. Where two claim one device and the kernel says nothing, neither is believed.
    """
    proven = {
        name
        for holder in holders
        for name in (*(held.name for held in holder.devices if held.known_by != _CLAIMED), *holder.others)
    }
    claims = Counter(held.name for holder in holders for held in holder.devices if held.known_by == _CLAIMED)

    def believed(holder: Holder, held: HeldDevice) -> bool:
        return held.known_by != _CLAIMED or (
            held.name not in proven and (claims[held.name] == 1 or not holder.readable)
        )

    found: list[Holder] = []
    for holder in holders:
        if holder.readable:
            devices = [held if believed(holder, held) else HeldDevice(fd=held.fd) for held in holder.devices]
        else:
            devices = [held for held in holder.devices if believed(holder, held)]
        if devices or holder.groups:
            found.append(attrs.evolve(holder, devices=tuple(devices)))
    return found


def _sees_the_whole_host(proc: Path) -> bool:
    """Return whether this /proc shows the processes of every container, which only the first PID namespace does."""
    try:
        return str((proc / "1/ns/pid").readlink()) == INITIAL_PID_NAMESPACE
    except OSError:
        return False


# --- one process ---


@attrs.frozen(kw_only=True)
class _Seen:
    """A process that was looked at, and its words where these were of interest."""

    holder: Holder
    words: tuple[str, ...] = ()


@attrs.define
class _Files:
    """The open files of a process that matter here."""

    devices: list[HeldDevice] = attrs.Factory(list)
    groups: list[HeldGroup] = attrs.Factory(list)


def _look(process: Process, pid: int, root: HostRoot, *, always: bool = False) -> _Seen:
    """Return what a process holds; its words and its VM only if it holds something, or ``always``."""
    try:
        files = _open_files(process, root)
    except PermissionError:
        return _look_from_outside(process, pid, always=always)
    except OSError:  # it has ended, or is about to
        files = _Files()
    if not (files.devices or files.groups or always):
        return _Seen(holder=Holder(pid=pid))
    words = process.command_line()
    command = _vmm_command(process, words)
    named_devices = command.devices if command is not None else ()
    devices, others = _match(files.devices, files.groups, named_devices)
    holder = _holder(process, pid, words, command, devices=devices)
    return _Seen(holder=attrs.evolve(holder, others=tuple(others), groups=tuple(files.groups)), words=words)


def _look_from_outside(process: Process, pid: int, *, always: bool) -> _Seen:
    """Return what a command line says that anybody may read; the rest of the process is closed to us."""
    words = process.command_line(_FIRST_LOOK)
    if parse_command_line(words) is None and not always:
        return _Seen(holder=Holder(pid=pid, readable=False))
    words = process.command_line()
    command = parse_command_line(words)
    devices = [HeldDevice(fd=-1, name=name, known_by="command line") for name in command.devices] if command else []
    return _Seen(holder=_holder(process, pid, words, command, devices=devices, readable=False), words=words)


def _vmm_command(process: Process, words: Sequence[str]) -> VmmCommand | None:
    """Return what the command line says, also where its first word is not the program's name."""
    return parse_command_line(words) or parse_command_line([process.program(), *words[1:]])


def _holder(
    process: Process,
    pid: int,
    words: Sequence[str],
    command: VmmCommand | None,
    *,
    devices: Sequence[HeldDevice],
    readable: bool = True,
) -> Holder:
    name = words[0].rstrip("/").rpartition("/")[2] if words else ""
    name = name or process.comm()
    return Holder(
        pid=pid,
        uid=process.uid(),
        command=name,
        start_time=process.start_time(),
        vm=command.vm if command is not None else Vm(aliases=(name,) if name else ()),
        devices=tuple(devices),
        readable=readable,
    )


def _named_by_libvirt(seen: list[_Seen], root: HostRoot) -> list[_Seen]:
    domains = read_domains(root, [one.holder.pid for one in seen])
    return [_with_domain(one, domains.get(one.holder.pid)) for one in seen]


def _with_domain(one: _Seen, domain: Domain | None) -> _Seen:
    """Add libvirt's names.

    Its file may be an old one, of a number that another process has by now: the UUIDs must agree.
    """
    if domain is None or not domain.uuid:
        return one
    vm = one.holder.vm
    if not vm.kind and domain.uuid in one.words:  # QEMU in a wrapper with a name of its own
        vm = parse_qemu(one.words).vm
    if vm.uuid != domain.uuid:
        return one
    name = vm.name or domain.name
    # the command is an alias only of what has no name
    command = one.holder.command if not vm.name else ""
    aliases = [alias for alias in (*vm.aliases, domain.name, *domain.others) if alias not in ("", name, command)]
    vm = attrs.evolve(vm, name=name, aliases=tuple(dict.fromkeys(aliases)))
    return attrs.evolve(one, holder=attrs.evolve(one.holder, vm=vm))


# --- which device a descriptor is ---


def name_of_descriptor(root: HostRoot, fd: int) -> str:
    """Return the device behind a descriptor of this process, or "" where the kernel does not tell."""
    try:
        with Process(root.proc, "self") as process:
            name = _from_fdinfo(process, fd)
    except OSError:
        name = ""
    return name or _cdev_name(_sysfs_node(root, device_number(fd)))


def _open_files(process: Process, root: HostRoot) -> _Files:
    files = _Files()
    for fd, link in process.open_files("vfio"):
        if link == _DEVICE_LINK:
            name = _from_fdinfo(process, fd)
            files.devices.append(HeldDevice(fd=fd, name=name, known_by="fdinfo" if name else ""))
        elif _NODE_LINK.search(link):
            _add_node(files, process, root, fd)
    return files


def _from_fdinfo(process: Process, fd: int) -> str:
    return process.fdinfo(fd).get(_SYSPATH, "").rpartition("/")[2]


def _add_node(files: _Files, process: Process, root: HostRoot, fd: int) -> None:
    """Tell a device's node from a group's by its number alone: its path belongs to another mount namespace."""
    node = _sysfs_node(root, process.device_number(fd))
    if name := _cdev_name(node):
        told = _from_fdinfo(process, fd)
        files.devices.append(HeldDevice(fd=fd, name=told or name, known_by="fdinfo" if told else "cdev"))
    elif node is not None and node.parent.name == "vfio":  # /sys/devices/virtual/vfio/7, or noiommu-7
        number = node.name.rpartition("-")[2]
        files.groups.append(HeldGroup(fd=fd, number=number, devices=_group_devices(root, number)))


def _sysfs_node(root: HostRoot, number: tuple[int, int] | None) -> Path | None:
    """Return where sysfs has a character device, by its major and minor number."""
    if number is None:
        return None
    try:
        return (root.sys / "dev/char" / f"{number[0]}:{number[1]}").resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _cdev_name(node: Path | None) -> str:
    """Return the device of a node of the kind …/DEVICE/vfio-dev/vfio7, or "" for another one."""
    return node.parent.parent.name if node is not None and node.parent.name == "vfio-dev" else ""


def _group_devices(root: HostRoot, group: str) -> tuple[str, ...]:
    """Return the devices of a group that a VFIO driver has; all of them where sysfs does not say which."""
    try:
        every = sorted((root.sys / "kernel/iommu_groups" / group / "devices").iterdir())
    except OSError:
        return ()
    return tuple(path.name for path in every if (path / "vfio-dev").is_dir()) or tuple(path.name for path in every)


def _match(
    devices: Sequence[HeldDevice], groups: Sequence[HeldGroup], command_line: Sequence[str]
) -> tuple[list[HeldDevice], list[str]]:
    """Return the descriptors with the names that follow, and the devices held for certain by one of the others.

    A name follows only where one descriptor and one device are left over.
    """
    settled = {device.name for device in devices if device.name}
    unknown = [device for device in devices if not device.name]
    in_groups = {name for group in groups for name in group.devices} - settled
    on_command_line = set(command_line) - settled
    if in_groups:  # a device that was plugged out is still on the command line, and in no group that is held
        on_command_line &= in_groups
    # a group is open for its devices only, and to one process alone
    others = {group.devices[0] for group in groups if len(group.devices) == 1} - settled
    if in_groups and len(on_command_line) <= len(unknown):
        others |= on_command_line
    if len(unknown) == 1:
        for candidates, known_by in ((in_groups, "group"), (on_command_line, "command line")):
            if len(candidates) == 1:
                [name] = candidates
                found = attrs.evolve(unknown[0], name=name, known_by=known_by)
                return [found if device is unknown[0] else device for device in devices], sorted(others - {name})
    return list(devices), sorted(others)
