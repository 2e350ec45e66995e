"""Which vGPUs sysfs shows: mediated devices, and PCI functions by address."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from mdevdisplay.errors import DeviceBusy, DeviceNotFound, DriverError, MdevDisplayError
from mdevdisplay.host.root import HostRoot, read_attribute
from mdevdisplay.source import DeviceInfo, Identity

__all__ = [
    "DISPLAY_CLASS",
    "NVIDIA_TYPE",
    "PCI_ADDRESS",
    "UUID",
    "HostDevice",
    "find",
    "list_functions",
    "list_mdevs",
    "look_up",
    "without_node",
]

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
PCI_ADDRESS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
NVIDIA_TYPE = "nvidia/current_vgpu_type"
DISPLAY_CLASS = "0x03"


@attrs.frozen(kw_only=True)
class HostDevice:
    """A device as sysfs shows it.

    Attributes:
        identity: name, driver, vendor, type, parent. The type of a virtual function of NVIDIA's is ``nvidia-`` and the
            number of its vGPU type, as with the mediated devices of older kernels.
        group: the number of its IOMMU group, or "" where it has none.
        type_name: the vendor's name of its mdev type.
        vfio: whether a VFIO driver has it, as far as sysfs shows.
    """

    identity: Identity
    group: str
    type_name: str = ""
    vfio: bool = False

    def info(self) -> DeviceInfo:
        """Return its line for ``list``."""
        return DeviceInfo(locator=self.identity.name, identity=self.identity, type_name=self.type_name)


def _target(link: Path) -> Path | None:
    """Return what a symbolic link in sysfs points to; None where it vanished or never was."""
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _name(link: Path) -> str:
    target = _target(link)
    return target.name if target is not None else ""


def list_mdevs(root: HostRoot) -> list[HostDevice]:
    """Return every mediated device, by UUID; one that vanishes while it is read is left out."""
    try:
        names = sorted(entry.name for entry in (root.sys / "bus/mdev/devices").iterdir())
    except OSError:
        return []
    return [device for name in names if (device := _read_mdev(root, name)) is not None]


def _read_mdev(root: HostRoot, name: str) -> HostDevice | None:
    path = _target(root.sys / "bus/mdev/devices" / name)
    if path is None:
        return None
    mdev_type = _name(path / "mdev_type")
    identity = Identity(
        name=name,
        driver=_name(path / "driver"),
        vendor=mdev_type.split("-", 1)[0],
        mdev_type=mdev_type,
        parent=path.parent.name,
    )
    return HostDevice(
        identity=identity,
        group=_name(path / "iommu_group"),
        type_name=read_attribute(path / "mdev_type" / "name"),
        vfio=bool(identity.driver),  # every driver of this bus is one
    )


def list_functions(root: HostRoot) -> list[HostDevice]:
    """Return every SR-IOV virtual function that is a vGPU, by address; one that vanishes meanwhile is left out.

    Since Linux 6.8 NVIDIA's vGPUs are no mediated devices: each is a virtual function bound to ``nvidia`` whose
    ``nvidia/current_vgpu_type`` is the number of a type, and 0 while it has none. Of other vendors' functions those
    that a VFIO driver has and whose PCI class is a display controller's are vGPUs: a network card's are not.
    """
    try:
        entries = sorted((root.sys / "bus/pci/devices").iterdir())
    except OSError:
        return []
    addresses = [entry.name for entry in entries if (entry / "physfn").is_symlink()]
    found = [(address, _read_pci(root, address)) for address in addresses]
    return [device for address, device in found if device is not None and _is_vgpu(root, address, device)]


def _is_vgpu(root: HostRoot, address: str, device: HostDevice) -> bool:
    path = root.sys / "bus/pci/devices" / address
    if (path / NVIDIA_TYPE).exists():
        return bool(device.identity.mdev_type)
    return device.vfio and read_attribute(path / "class").startswith(DISPLAY_CLASS)


def _read_pci(root: HostRoot, address: str) -> HostDevice | None:
    path = _target(root.sys / "bus/pci/devices" / address)
    if path is None:
        return None
    driver = _name(path / "driver")
    physical = path / "physfn"  # a virtual function's link to its physical one
    number = read_attribute(path / NVIDIA_TYPE)
    has_type = number.isascii() and number.isdigit() and int(number) != 0
    identity = Identity(
        name=address,
        driver=driver,
        vendor=_name(physical / "driver") or driver,
        mdev_type=f"nvidia-{int(number)}" if has_type else "",
        parent=_name(physical),
    )
    # the folder is there since Linux 6.1
    vfio = "vfio" in driver or (path / "vfio-dev").is_dir()
    type_name = _nvidia_type_name(path, int(number)) if has_type else ""
    return HostDevice(identity=identity, group=_name(path / "iommu_group"), type_name=type_name, vfio=vfio)


def _nvidia_type_name(path: Path, number: int) -> str:
    """Return NVIDIA's name of a type, from lines such as ``1414 : NVIDIA H200X-1-18C``.

    The list has what can be made now, so a type that takes the last room is in none; "" then.
    """
    for line in read_attribute(path / "nvidia/creatable_vgpu_types").splitlines():
        found, colon, name = line.partition(":")
        if colon and found.strip() == str(number):
            return name.strip()
    return ""


def look_up(root: HostRoot, name: str) -> HostDevice | None:
    """Return the device of a UUID or a PCI address in any state; None where the host has none."""
    return (_read_mdev if UUID.fullmatch(name) else _read_pci)(root, name.lower())


def find(root: HostRoot, name: str) -> HostDevice:
    """Return the device of a UUID or a PCI address.

    Raises:
        DeviceNotFound: the host has no such device.
        DriverError: it has no IOMMU group, so no VFIO driver has it.
    """
    device = look_up(root, name)
    if UUID.fullmatch(name):
        kind, where = "mediated device", "see `mdevdisplay list`, or `mdevctl list --defined` for one not started"
    else:
        kind, where = "PCI function", "see `lspci -D`"
    if device is None:
        raise DeviceNotFound(f"this host has no {kind} of that name", device=name, hint=where)
    if not device.group:
        raise DriverError(
            "the device is in no IOMMU group, so no VFIO driver has it",
            device=name,
            hint="bind it to its VFIO driver, or enable the IOMMU for a PCI function",
            cause="not-bound",
        )
    return device


def without_node(device: HostDevice, locator: str) -> MdevDisplayError:
    """Return the error for a device that sysfs shows and whose group has no node below /dev/vfio."""
    name, driver = device.identity.name, device.identity.driver
    if device.vfio:
        return DriverError(
            f"driver {driver} has the device, and /dev/vfio/{device.group} is not there",
            device=locator,
            hint="in a container, pass the node in; elsewhere look whether udev runs",
            cause="no-node",
        )
    if not PCI_ADDRESS.fullmatch(name):
        return DriverError(
            "the device is bound to no driver",
            device=locator,
            hint="load the module of the vGPU's vendor, as root",
            cause="not-bound",
        )
    unbind = f"echo {name} > /sys/bus/pci/drivers/{driver}/unbind; " if driver else ""
    hint = (
        f"as root, `modprobe vfio-pci; echo vfio-pci > /sys/bus/pci/devices/{name}/driver_override; {unbind}"
        f"echo {name} > /sys/bus/pci/drivers_probe` takes it from the host; for a vGPU write its vendor's VFIO driver "
        "in place of vfio-pci"
    )
    if driver:
        what = f"the device is bound to {driver}, not to a VFIO driver"
        return DeviceBusy(what, device=locator, hint=hint, cause="not-bound")
    return DriverError("the device is bound to no driver", device=locator, hint=hint, cause="not-bound")
