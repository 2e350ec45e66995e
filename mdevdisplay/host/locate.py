"""From a locator to an open device of this host: handed over, attached to its VMM, or opened because it is free."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from mdevdisplay.errors import (
    DeviceBusy,
    DeviceGone,
    DeviceNotFound,
    DriverError,
    LocatorError,
    MdevDisplayError,
    NotADisplay,
    NoVfio,
)
from mdevdisplay.host.attach import attach, attach_by_name, describe_holder, not_permitted
from mdevdisplay.host.auth_log import log_attach
from mdevdisplay.host.devices import PCI_ADDRESS, UUID, HostDevice, find, without_node
from mdevdisplay.host.free import open_free
from mdevdisplay.host.handed import open_inherited, receive_device
from mdevdisplay.host.holders import Holder, find_holder, find_holders, named
from mdevdisplay.host.processes import pids
from mdevdisplay.host.root import HostRoot
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.gfx import GfxKind

__all__ = ["held_elsewhere", "host_name", "is_host_locator", "open_device", "open_vm"]

_SCHEMES = ("vm", "pid", "fd", "unix")
_PID = re.compile(r"([0-9]{1,10})(?:/([0-9]{1,3}))?")


def host_name(locator: str) -> str | None:
    """Return the UUID or PCI address that a locator means, or None where it means neither.

    libvirt's node device names are understood: ``mdev_44cc0626_…`` (newer ones with the parent behind it) and
    ``pci_0000_41_00_4``.
    """
    if UUID.fullmatch(locator):
        return locator.lower()
    if PCI_ADDRESS.fullmatch(locator):
        return locator.lower()
    if locator.startswith("mdev_"):
        uuid = "-".join(locator[5:].split("_")[:5])
        return uuid.lower() if UUID.fullmatch(uuid) else None
    if locator.startswith("pci_"):
        parts = locator[4:].split("_")
        address = f"{':'.join(parts[:-1])}.{parts[-1]}"
        return address.lower() if PCI_ADDRESS.fullmatch(address) else None
    return None


def is_host_locator(locator: str) -> bool:
    """Whether a locator is the host's own by its form: no backend stands between the host and its devices."""
    return locator.partition(":")[0] in _SCHEMES or host_name(locator) is not None


def held_elsewhere(locator: str, root: HostRoot | None = None) -> bool:
    """Whether opening a locator would borrow a device that another process holds, from sysfs and /proc alone."""
    if locator.partition(":")[0] in _SCHEMES:
        return True
    root = root or HostRoot.from_environment()
    name = host_name(locator)
    if name is None:
        return ":" not in locator and bool(named(find_holders(root), locator))
    return bool(_holding(root, name)) or _missing_vm_uuid(root, name)


def open_device(locator: str, root: HostRoot | None = None, *, must_attach: bool = False) -> Device:
    """Open a device of this host, by the route that its state needs.

    Args:
        locator: ``vm:NAME``, ``vm:NAME/1``, ``pid:N``, ``pid:N/1``, ``fd:N``, ``unix:PATH``; a UUID, a PCI address or
            libvirt's name of either, attached to where a process holds it and opened where it is free; or the name or
            UUID of a VM.
        root: the host's root.
        must_attach: refuse a device that no process holds.

    Raises:
        LocatorError: the text is none of these, or means several.
        DeviceNotFound: this host has no such device or VM.
        VmGone, DeviceGone: it ended or was removed meanwhile.
        NotPermitted: the device, or the process that holds it, may not be opened.
        NoVfio, DeviceBusy, DriverError: see `mdevdisplay.vfio.group.open_by_group`.
    """
    root = root or HostRoot.from_environment()
    scheme = locator.partition(":")[0]
    if scheme in _SCHEMES:
        return _BY_SCHEME[scheme](locator, root)
    name = host_name(locator)
    if name is not None:
        return _open_by_name(locator, name, root, must_attach=must_attach)
    return open_vm(locator, root)


def open_vm(locator: str, root: HostRoot) -> Device:
    """Attach to the VM of a bare name; raises `LocatorError` where there is none."""
    if ":" not in locator and (found := named(find_holders(root), locator) or _any_vm(locator, root)):
        return _attach_to(_only(found, locator, locator), None, locator, root)
    raise LocatorError(
        "not a locator that any backend understands, and no running VM with a VFIO device is called so",
        device=locator,
        hint="give a UUID, a PCI address such as 0000:41:00.4, libvirt's name of one, vm:NAME, or sim: for the "
        "simulated display; `mdevdisplay list` shows this host's devices",
    )


def _open_by_name(locator: str, name: str, root: HostRoot, *, must_attach: bool) -> Device:
    holding = _holding(root, name)
    if holding:
        return attach_by_name(holding[0], name, locator, root)
    if _missing_vm_uuid(root, name):
        return _attach_to(_only(named(find_holders(root), name), name, locator), None, locator, root)
    device = find(root, name)
    if must_attach:
        raise DeviceGone("no VM uses the device now", device=locator, hint="start the VM again")
    try:
        return _open_free(device, locator, root)
    except DeviceBusy as error:
        again = _holding(root, name)  # a VM that started meanwhile
        if again:
            return attach_by_name(again[0], name, locator, root)
        raise _busy(error, name, locator, root) from error
    except DeviceGone as error:
        if error.errno != errno.ENOENT:
            raise
        left = _left(root, name)
        if left is None:
            raise
        raise without_node(left, locator) from error


def _open_free(device: HostDevice, locator: str, root: HostRoot) -> Device:
    try:
        return open_free(device, locator, root)
    except NoVfio as error:
        if device.vfio and not (root.dev / "vfio/vfio").exists():  # so VFIO is there, and its nodes are not
            raise without_node(device, locator) from error
        raise


def _missing_vm_uuid(root: HostRoot, name: str) -> bool:
    """Whether a UUID is no device's but a VM's."""
    if not UUID.fullmatch(name):
        return False
    try:
        find(root, name)
    except DeviceNotFound:
        return bool(named(find_holders(root), name))
    except MdevDisplayError:  # it is there, and in no state to be opened
        pass
    return False


def _left(root: HostRoot, name: str) -> HostDevice | None:
    try:
        return find(root, name)
    except DeviceNotFound:
        return None


def _holding(root: HostRoot, name: str) -> list[Holder]:
    """Return who owns a device, VMMs first, without this process itself.

    Who has the device and not its group is a reader as we are: two that attach to each other never let it go.
    """
    return [holder for holder in _others(root) if holder.holds(name) and (holder.vm.kind or holder.groups)]


def _others(root: HostRoot) -> list[Holder]:
    return [holder for holder in find_holders(root) if holder.pid != os.getpid()]


def _busy(error: DeviceBusy, name: str, locator: str, root: HostRoot) -> MdevDisplayError:
    """Say who it may be that holds a device: a process that may not be looked into, or one whose device is unknown."""
    hidden = [holder for holder in _others(root) if not holder.readable]
    if hidden:
        return not_permitted(
            hidden[0], locator, root, f"another process holds the device, perhaps {describe_holder(hidden[0])}"
        )
    readers = [holder for holder in _others(root) if holder.holds(name)]
    if readers:
        error.hint = f"{describe_holder(readers[0])} reads it; pid:{readers[0].pid} attaches to that process"
        return error
    unknown = [holder for holder in _others(root) if sum(not held.name for held in holder.devices) > len(holder.others)]
    if unknown:
        names = ", ".join(f"pid:{holder.pid} ({describe_holder(holder)})" for holder in unknown[:5])
        error.hint = f"another process holds it, and nothing tells which of theirs it is; try {names}"
    return error


def _open_vm(locator: str, root: HostRoot) -> Device:
    text = locator.partition(":")[2]
    holders = find_holders(root)
    found, index = named(holders, text), None
    if not found:  # a name may itself end in /1
        name, slash, number = text.rpartition("/")
        if slash and re.fullmatch(r"[0-9]{1,3}", number):
            found, index, text = named(holders, name), int(number), name
    if not found and not pids(root.proc):
        raise _no_proc(locator, root)
    if not found:  # it may run all the same, without a vGPU or with one that we may not see
        found = _any_vm(text, root)
    if not found:
        running = ", ".join(repr(name) for name in sorted({holder.vm.name for holder in holders if holder.vm.name})[:8])
        raise DeviceNotFound(
            f"no process of this host that uses a VFIO device runs a VM called {text!r}",
            device=locator,
            hint=f"those that do are {running}" if running else "`mdevdisplay list` shows who uses what",
            cause="no-such-vm",
        )
    return _attach_to(_only(found, text, locator), index, locator, root)


def _any_vm(name: str, root: HostRoot) -> list[Holder]:
    """Return the VMs of a name, whether or not they hold a device that we see."""
    holders = (find_holder(root, pid) for pid in pids(root.proc))
    return named((holder for holder in holders if holder is not None and holder.vm.kind), name)


def _only(found: Sequence[Holder], text: str, locator: str) -> Holder:
    if len(found) == 1:
        return found[0]
    each = "; ".join(
        f"pid:{holder.pid}" + (f" is {holder.vm.uuid}" if holder.vm.uuid else "") for holder in list(found)[:8]
    )
    raise LocatorError(
        f"{len(found)} VMs are called {text!r}", device=locator, hint=f"say which: {each}", cause="ambiguous-vm"
    )


def _open_pid(locator: str, root: HostRoot) -> Device:
    match = _PID.fullmatch(locator.partition(":")[2])
    if match is None:
        raise LocatorError("not the number of a process", device=locator, hint="write pid:4242, or pid:4242/1")
    pid = int(match[1])
    holder = find_holder(root, pid) if 0 < pid < 1 << 31 else None
    if holder is None and not pids(root.proc):
        raise _no_proc(locator, root)
    if holder is None:
        raise DeviceNotFound(
            f"there is no process {pid}",
            device=locator,
            hint="`mdevdisplay list` shows the pids of VMs",
            cause="no-such-vm",
        )
    return _attach_to(holder, int(match[2]) if match[2] else None, locator, root)


def _no_proc(locator: str, root: HostRoot) -> MdevDisplayError:
    return DriverError(
        f"{root.proc} shows no processes",
        device=locator,
        hint="mount the host's /proc there; in a container, MDEVDISPLAY_HOST_ROOT says where the host's root is",
        cause="no-proc",
    )


def _attach_to(holder: Holder, index: int | None, locator: str, root: HostRoot) -> Device:
    """Attach to a process's only display, or to one of several by its number."""
    who = describe_holder(holder)
    if not holder.readable:
        raise not_permitted(holder, locator, root, f"reading the descriptors of {who} is not allowed")
    if not holder.devices:
        raise DeviceNotFound(
            f"{who} holds no VFIO device",
            device=locator,
            hint="`mdevdisplay list` shows who does",
            cause="no-vfio-device",
        )
    if len({held.name or held.fd for held in holder.devices}) == 1 and not index:
        return attach(holder, holder.devices[0], locator, root)
    displays = _displays(holder, locator, root)
    try:
        position = _position(holder, displays, index, locator)
    except BaseException:
        _close_all(displays)
        raise
    chosen = displays.pop(position)
    _close_all(displays)
    log_attach(root, whose=who, device=chosen.identity.name or locator)
    return chosen


def _displays(holder: Holder, locator: str, root: HostRoot) -> list[Device]:
    """Attach to every device of a process, and keep those that answer as a display.

    They are in the order of their names, which outlives the process, or of descriptors where a name is not known.
    """
    displays: list[Device] = []
    failures: list[MdevDisplayError] = []
    attaching: list[Callable[[], Device]]
    names = [held.name for held in holder.devices if held.name]
    if len(names) + len(holder.others) == len(holder.devices):
        names = sorted({*names, *holder.others})
        attaching = [partial(attach_by_name, holder, name, locator, root, log=False) for name in names]
    else:
        attaching = [partial(attach, holder, held, locator, root, log=False) for held in holder.devices]
    try:
        for call in attaching:
            try:
                device = call()
            except (NotADisplay, DeviceGone) as error:
                failures.append(error)
                continue
            if _shows(device):
                displays.append(device)
            else:
                device.close()
    except BaseException:
        _close_all(displays)
        raise
    if not displays:
        if failures:
            raise failures[0]
        raise NotADisplay(
            f"none of the {len(holder.devices)} VFIO devices of {describe_holder(holder)} has a display",
            device=locator,
            hint="a passed-through function of a GPU or a network card shows nothing to the host",
        )
    return displays


def _shows(device: Device) -> bool:
    with suppress(MdevDisplayError):
        return any(device.probe(kind).supported for kind in GfxKind)
    return True  # it failed in another way than by having none: whoever opens it is to hear how


def _position(holder: Holder, displays: Sequence[Device], index: int | None, locator: str) -> int:
    base = locator if index is None else locator.rpartition("/")[0]
    each = ", ".join(
        f"{base}/{number} is {device.identity.name or 'unknown'}" for number, device in enumerate(displays)
    )
    if index is None and len(displays) > 1:
        raise LocatorError(
            f"{describe_holder(holder)} has {len(displays)} displays",
            device=locator,
            hint=f"say which: {each}",
            cause="ambiguous-display",
        )
    if index is not None and index >= len(displays):
        raise DeviceNotFound(
            f"{describe_holder(holder)} has {len(displays)} displays, counted from 0",
            device=locator,
            hint=each,
            cause="no-such-output",
        )
    return index or 0


def _close_all(devices: Sequence[Device]) -> None:
    for device in devices:
        with suppress(MdevDisplayError):
            device.close()


_BY_SCHEME: dict[str, Callable[[str, HostRoot], Device]] = {
    "vm": _open_vm,
    "pid": _open_pid,
    "fd": open_inherited,
    "unix": receive_device,
}
