"""Opening a device that nobody holds: by its group, or by its cdev where this host has no node for groups."""

from __future__ import annotations

from mdevdisplay.errors import DriverError
from mdevdisplay.host.devices import HostDevice
from mdevdisplay.host.root import HostRoot
from mdevdisplay.vfio.cdev import open_by_cdev
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.group import open_by_group

__all__ = ["cdev_of", "open_free"]


def cdev_of(device: HostDevice, root: HostRoot) -> str:
    """Return the name of a device's own node below /dev/vfio/devices, or "" where the kernel or /dev has none."""
    bus = "mdev" if device.identity.mdev_type else "pci"
    folder = root.sys / "bus" / bus / "devices" / device.identity.name / "vfio-dev"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ""
    return next((name for name in names if (root.dev / "vfio/devices" / name).exists()), "")


def open_free(device: HostDevice, locator: str, root: HostRoot) -> Device:
    """Open a device that nobody holds.

    Raises:
        DriverError: it is in no IOMMU group and has no cdev, so no VFIO driver has it.
        NoVfio, NotPermitted, DeviceBusy, DeviceGone: see `open_by_group` and `open_by_cdev`.
    """
    cdev = cdev_of(device, root)
    nodes = (root.dev / "vfio/vfio", root.dev / "vfio" / device.group)
    if cdev and (not device.group or not all(node.exists() for node in nodes)):
        return open_by_cdev(cdev, locator, device.identity, dev=root.dev)
    if not device.group:
        raise DriverError(
            "the device is in no IOMMU group, so no VFIO driver has it",
            device=locator,
            hint="bind it to its VFIO driver, or enable the IOMMU for a PCI function",
            cause="not-bound",
        )
    return open_by_group(device.group, device.identity.name, locator, device.identity, dev=root.dev)
