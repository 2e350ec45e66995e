"""The device: what sysfs says of it, who holds it, and whether it is of a kind that can never show anything."""

from __future__ import annotations

import re
from pathlib import Path

from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.diagnose.subject import Subject
from mdevdisplay.host.attach import describe_holder
from mdevdisplay.host.devices import DISPLAY_CLASS, NVIDIA_TYPE, PCI_ADDRESS, HostDevice
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["examine_device"]

_COMPUTE_TYPE = re.compile(r"[0-9]C(ME|NOME|MEALL|GFX)?$")
"""The C series, as in A100-4C and, of a part of a card, A100-1-5CME."""
_NEVER = {"i915": "sriov-intel", "xe": "sriov-intel", "amdgpu": "sriov-amd", "gim": "sriov-amd"}
_NEVER_BY_VENDOR = {"0x8086": "sriov-intel", "0x1002": "sriov-amd"}


def examine_device(exam: Examination, subject: Subject, root: HostRoot) -> bool:
    """Look at the device in sysfs and at who holds it; return whether it may be opened."""
    device = subject.device
    for holder in subject.holders:
        exam.is_secret(holder.vm.name, holder.vm.uuid, *holder.vm.aliases)
    if subject.holder is not None:
        holder = subject.holder
        exam.names |= {"pid": str(holder.pid), "holder": describe_holder(holder)}
        number = next((alias for alias in holder.vm.aliases if alias.isdecimal()), "")
        if number:  # Proxmox knows no other name; virsh is not there
            exam.names["vmid"] = number
            exam.names.pop("vm", None)
        elif holder.vm.kind and holder.vm.name:
            exam.names["vm"] = holder.vm.name
        exam.ok("device", f"held by {describe_holder(holder)}, uid {holder.uid}")
    elif len(subject.holders) > 1:
        exam.ok("device", "held by " + ", ".join(map(describe_holder, subject.holders[:8])))
    if device is None:
        return True
    name = device.identity.name
    exam.is_secret(name)
    exam.names |= {"device": name, "group": device.group or "GROUP", "parent": device.identity.parent or "PARENT"}
    exam.ok("device", _describe(device))
    if not subject.holders and subject.group_holder is not None:
        exam.names["holder"] = describe_holder(subject.group_holder)
        exam.ok("device", f"{describe_holder(subject.group_holder)} has its IOMMU group open")
    elif not subject.holders:
        exam.ok("device", "no process that may be looked at holds it")
    _examine_type(exam, device)
    return not PCI_ADDRESS.fullmatch(name) or _examine_function(exam, device, root, held=bool(subject.holders))


def _describe(device: HostDevice) -> str:
    identity = device.identity
    named = f"({device.type_name})" if device.type_name not in ("", identity.mdev_type) else ""
    kind = " ".join(part for part in (identity.mdev_type, named) if part)
    of = f" of {identity.parent}" if identity.parent else ""
    return (
        f"{identity.name}: {kind or 'PCI function'}{of}, driver {identity.driver or 'none'}, "
        f"IOMMU group {device.group or 'none'}"
    )


def _examine_type(exam: Examination, device: HostDevice) -> None:
    if device.identity.vendor == "nvidia" and _COMPUTE_TYPE.search(device.type_name):
        exam.found("compute-only-type", f"its vGPU type is {device.type_name}")


def _examine_function(exam: Examination, device: HostDevice, root: HostRoot, *, held: bool) -> bool:
    """Say what kind of PCI function it is; return whether it may be opened: one that can never show is not."""
    path = root.sys / "bus/pci/devices" / device.identity.name
    if not device.group:
        exam.found("iommu-off", f"{device.identity.name} is in no IOMMU group")
    number = read_attribute(path / NVIDIA_TYPE)
    if number:
        if number == "0":
            exam.ends("nvidia-no-type", f"{path / NVIDIA_TYPE} is 0")
            return False
        return True
    kind = read_attribute(path / "class")
    if (path / "physfn").is_symlink():
        physical = _driver(path / "physfn")
        cause = _NEVER.get(physical) or _NEVER_BY_VENDOR.get(read_attribute(path / "vendor"), "")
        evidence = f"a virtual function of {device.identity.parent or 'unknown'} (driver {physical or 'none'})"
        if kind.startswith("0x") and not kind.startswith(DISPLAY_CLASS) and device.vfio:
            cause, evidence = "not-a-display", f"{evidence}, of class {kind or 'unknown'}"
        elif not cause:
            return True
    else:
        if not device.vfio:  # still the host's own: the error of opening it says what to do
            return True
        cause = "passthrough" if kind.startswith(DISPLAY_CLASS) else "not-a-display"
        evidence = f"a whole PCI function of class {kind or 'unknown'}, bound to {device.identity.driver}"
    if held:
        if cause != "not-a-display":
            exam.found(cause, evidence)
        return True
    exam.ends(cause, evidence, step="device")
    exam.leave_out("opening the device: vfio-pci resets a function that it opens, and nothing could be seen")
    return False


def _driver(path: Path) -> str:
    try:
        return (path / "driver").resolve(strict=True).name
    except (OSError, RuntimeError):
        return ""
