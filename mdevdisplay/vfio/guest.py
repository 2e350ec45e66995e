"""What a device's PCI configuration space tells of its guest: whether a driver there has taken it."""

from __future__ import annotations

from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.source import Finding
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.device import Device

__all__ = ["guest_findings"]

_COMMAND = 4
_MEMORY = 1 << 1
_BUS_MASTER = 1 << 2
_EXPLAINS = ("nothing-displayed",)


def guest_findings(device: Device) -> tuple[Finding, ...]:
    """Say whether a driver of the guest has taken a device whose plane shows nothing; nothing where that is not told.

    Firmware switches a card's memory on, and a driver its bus mastering (Linux: pci_enable_device, pci_set_master). The
    configuration space is read, which is safe on a VM's device.
    """
    if not device.quirks.bus_master_tells:
        return ()
    try:
        region = device.region(uapi.VFIO_PCI_CONFIG_REGION_INDEX)
        if region is None:
            return ()
        command = int.from_bytes(device.pread(region, _COMMAND, 2), "little")
    except MdevDisplayError:
        return ()
    told = f"PCI command register 0x{command:04x}"
    if command & _BUS_MASTER:
        evidence = f"{told}: a driver of the guest has switched bus mastering on, and the plane is empty"
        return (Finding(cause="plane-disabled", evidence=evidence, explains=_EXPLAINS),)
    memory = "its memory is switched on, as firmware does" if command & _MEMORY else "its memory is switched off"
    evidence = f"{told}: {memory}, and bus mastering is off, so no driver of the guest has taken the device"
    return (Finding(cause="guest-driver-not-loaded", evidence=evidence, explains=_EXPLAINS),)
