"""From a locator to an open device of this host."""

from __future__ import annotations

import errno

from mdevdisplay.errors import DeviceGone, DeviceNotFound, LocatorError
from mdevdisplay.host.devices import PCI_ADDRESS, UUID, HostDevice, find, without_node
from mdevdisplay.host.root import HostRoot
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.group import open_by_group

__all__ = ["host_name", "open_device"]


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


def open_device(locator: str, root: HostRoot | None = None) -> Device:
    """Open a free device by UUID, PCI address or libvirt's name of it.

    Raises:
        LocatorError: the text is none of these.
        DeviceNotFound: this host has no such device.
        DeviceBusy, DriverError: it is bound to no VFIO driver.
        NoVfio, NotPermitted, DeviceBusy, DeviceGone, DriverError: see `mdevdisplay.vfio.group.open_by_group`.
    """
    name = host_name(locator)
    if name is None:
        raise LocatorError(
            "not a locator that any backend understands",
            device=locator,
            hint="give a UUID, a PCI address such as 0000:41:00.4, libvirt's name of one, or sim: for the simulated "
            "display; `mdevdisplay list` shows this host's devices",
        )
    root = root or HostRoot.from_environment()
    device = find(root, name)
    try:
        return open_by_group(device.group, device.identity.name, locator, device.identity, dev=root.dev)
    except DeviceGone as error:
        if error.errno != errno.ENOENT:
            raise
        left = _left(root, name)
        if left is None:
            raise
        raise without_node(left, locator) from error


def _left(root: HostRoot, name: str) -> HostDevice | None:
    try:
        return find(root, name)
    except DeviceNotFound:
        return None
