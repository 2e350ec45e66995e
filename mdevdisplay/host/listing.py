"""The vGPUs of this host, each with the VM that uses it."""

from __future__ import annotations

import attrs

from mdevdisplay.host.devices import HostDevice, list_functions, list_mdevs
from mdevdisplay.host.holders import Holder, Scan, scan
from mdevdisplay.host.root import HostRoot
from mdevdisplay.source import DeviceInfo

__all__ = ["list_host_devices"]


def list_host_devices(root: HostRoot) -> list[DeviceInfo]:
    """Return every vGPU that sysfs shows, mediated devices first, with its VM, its process and its state.

    From sysfs and /proc alone: no device is touched. A device that several processes hold is listed with its VMM. What
    the states mean is said at `mdevdisplay.source.DeviceInfo`.
    """
    devices = [*list_mdevs(root), *list_functions(root)]
    if not devices:
        return []
    seen = scan(root)
    return [_with_holder(device, seen) for device in devices]


def _with_holder(device: HostDevice, seen: Scan) -> DeviceInfo:
    info = device.info()
    holder = next((holder for holder in seen.holders if holder.holds(info.identity.name)), None)
    if holder is not None:
        vm = holder.vm
        return attrs.evolve(info, vm=_vm_name(holder), vm_uuid=vm.uuid, pid=holder.pid, state="in use")
    return attrs.evolve(info, state=_state_without_holder(device, seen))


def _vm_name(holder: Holder) -> str:
    """Return the VM's name; what else it is called where it has none; "" for a process that is no VMM."""
    if not holder.vm.kind:
        return ""
    return holder.vm.name or next(iter(holder.vm.aliases), "")


def _state_without_holder(device: HostDevice, seen: Scan) -> str:
    if not device.vfio:
        return "not bound"
    return "free" if seen.complete and not any(map(_holds_another, seen.holders)) else "unknown"


def _holds_another(holder: Holder) -> bool:
    """Return whether a process has more unknown descriptors than devices that it is known to hold by one of these."""
    return sum(not held.name for held in holder.devices) > len(holder.others)
