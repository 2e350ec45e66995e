"""A /sys with mediated devices, PCI functions and IOMMU groups, linked as the kernel links them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdevdisplay.testing.driver import Driver

__all__ = ["Sysfs"]


class Sysfs:
    """The tree below one /sys.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._vfio_devices = 0

    def device(self, driver: Driver) -> Path:
        """Return a device's own directory, below /sys/devices."""
        return self.path / "devices" / driver.parent / driver.name

    def vfio_device(self, driver: Driver) -> str:
        """Return the name of a device's cdev: ``vfio0``."""
        return next(entry.name for entry in (self.device(driver) / "vfio-dev").iterdir())

    def type_directory(self, driver: Driver) -> Path:
        """Return the directory of a device's mdev type."""
        return self.path / "devices" / driver.parent / "mdev_supported_types" / driver.mdev_type

    def add(self, driver: Driver) -> None:
        """Show a device."""
        device = self.device(driver)
        device.mkdir(parents=True)
        (device / "uevent").write_text(f"DRIVER={driver.module}\n")
        (device / "power").mkdir()
        bus = self.path / "bus" / ("pci" if driver.pci else "mdev")
        module = bus / "drivers" / driver.module
        module.mkdir(parents=True, exist_ok=True)
        _link(device / "driver", module)
        _link(module / driver.name, device)
        _link(device / "subsystem", bus)
        _link(bus / "devices" / driver.name, device)
        self._add_group(driver, device)
        self._add_vfio_device(device)
        if driver.pci:
            self._add_function(driver, device)
        else:
            self._add_type(driver, device)

    def remove(self, driver: Driver) -> None:
        """Hide a device; what links to it goes with it."""
        device = self.device(driver)
        for folder in (self.path / "bus", self.path / "class", self.path / "kernel", device.parent):
            for link in _links(folder):
                if _points_into(link, device):
                    link.unlink()
        shutil.rmtree(device, ignore_errors=True)

    def _add_group(self, driver: Driver, device: Path) -> None:
        group = self.path / "kernel/iommu_groups" / str(driver.group)
        (group / "devices").mkdir(parents=True, exist_ok=True)
        _link(device / "iommu_group", group)
        _link(group / "devices" / driver.name, device)

    def _add_vfio_device(self, device: Path) -> None:
        name = f"vfio{self._vfio_devices}"
        self._vfio_devices += 1
        own = device / "vfio-dev" / name
        own.mkdir(parents=True)
        _link(own / "device", device)
        _link(self.path / "class/vfio-dev" / name, own)

    def _add_type(self, driver: Driver, device: Path) -> None:
        parent = device.parent
        kind = self.type_directory(driver)
        if not kind.exists():
            (kind / "devices").mkdir(parents=True)
            for name, text in (
                ("name", driver.type_name),
                ("device_api", "vfio-pci"),
                ("available_instances", "4"),
                ("create", ""),
            ):
                (kind / name).write_text(f"{text}\n" if text else "")
        _link(device / "mdev_type", kind)
        _link(kind / "devices" / driver.name, device)
        (device / "remove").write_text("")
        if not (self.path / "class/mdev_bus" / parent.name).is_symlink():
            _link(self.path / "class/mdev_bus" / parent.name, parent)

    def _add_function(self, driver: Driver, device: Path) -> None:
        vendor, number = driver.config_ids
        for name, text in (("vendor", f"0x{vendor:04x}"), ("device", f"0x{number:04x}"), ("class", "0x030000")):
            (device / name).write_text(f"{text}\n")
        physical = device.parent / f"{driver.name.rsplit('.', 1)[0]}.0"
        if physical != device:
            physical.mkdir(exist_ok=True)
            _link(device / "physfn", physical)


def _link(link: Path, target: Path) -> None:
    """Make a relative link, as sysfs does."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _links(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink()]


def _points_into(link: Path, device: Path) -> bool:
    target = os.path.normpath(link.parent / os.readlink(link))  # noqa: PTH115 - the text itself, followed or not
    return target == str(device) or target.startswith(f"{device}/")
