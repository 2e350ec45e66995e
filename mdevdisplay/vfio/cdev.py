"""A device descriptor by the newer way, without a group: /dev/vfio/devices/vfioN, bound to an iommufd (Linux 6.6)."""

from __future__ import annotations

import errno
import os
from ctypes import sizeof
from pathlib import Path

from mdevdisplay._ioctl import ioctl
from mdevdisplay.errors import DeviceBusy, DeviceGone, MdevDisplayError, NotPermitted, NoVfio, from_oserror
from mdevdisplay.source import Identity
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.kvm import EmptyVm
from mdevdisplay.vfio.quirks import quirks_of

__all__ = ["open_by_cdev"]

_BUSY = "another process, most likely the VM's VMM, has bound the device, and it can be bound only once"


def open_by_cdev(name: str, locator: str, identity: Identity | None = None, *, dev: Path = Path("/dev")) -> Device:
    """Open a device that nobody else holds, by its own node and /dev/iommu.

    No page table is attached: the drivers need none for what is asked here.

    Args:
        name: the node's name: ``vfio0``, as in the device's ``vfio-dev`` directory in sysfs.
        locator: how the user named it.
        identity: what sysfs says of it.
        dev: where device nodes are.

    Raises:
        NoVfio: there is no /dev/iommu.
        NotPermitted: a node's mode forbids it.
        DeviceBusy: it is bound already, or its group is open.
        DeviceGone, DriverError: it was removed; the driver refuses.
    """
    iommu_node, node = dev / "iommu", dev / "vfio/devices" / name
    device = _open_node(node, locator, missing=DeviceGone)
    vm: EmptyVm | None = None
    try:
        iommu = _open_node(iommu_node, locator, missing=NoVfio)
        try:
            if identity is not None and quirks_of(identity).wants_kvm:
                vm = EmptyVm(device, locator, dev)
            _bind(device, iommu, node, locator)
        except BaseException:
            if vm is not None:
                vm.close()
            os.close(iommu)
            raise
    except BaseException:
        os.close(device)
        raise
    try:
        source = Device(device, locator, identity)
    except BaseException:
        if vm is not None:
            vm.close()
        os.close(iommu)
        raise
    source.after_release(lambda: os.close(iommu))
    if vm is not None:
        source.after_release(vm.close)
    return source


def _bind(device: int, iommu: int, node: Path, locator: str) -> None:
    buffer = bytearray(sizeof(uapi.vfio_device_bind_iommufd))
    request = uapi.vfio_device_bind_iommufd.from_buffer(buffer)
    request.argsz, request.iommufd = len(buffer), iommu
    try:
        ioctl(device, uapi.VFIO_DEVICE_BIND_IOMMUFD, buffer)
    except OSError as error:
        doing = f"VFIO_DEVICE_BIND_IOMMUFD of {node}"
        # EINVAL: bound through another descriptor of the node; EBUSY: its group's node is open (vfio_df_open)
        if error.errno in (errno.EINVAL, errno.EBUSY):
            raise from_oserror(error, device=locator, doing=doing, hint=_BUSY, kind=DeviceBusy) from error
        raise from_oserror(error, device=locator, doing=doing) from error


def _open_node(node: Path, locator: str, *, missing: type[MdevDisplayError]) -> int:
    try:
        return os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        doing = f"opening {node}"
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            hint = (
                "load the iommufd module, as root"
                if missing is NoVfio
                else "the device was removed; see `mdevdisplay list`"
            )
            raise from_oserror(error, device=locator, doing=doing, hint=hint, kind=missing) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = f"run as root, or give your user the node: `chown USER {node}` now, a udev rule for good"
            raise from_oserror(error, device=locator, doing=doing, hint=hint, kind=NotPermitted) from error
        raise from_oserror(error, device=locator, doing=doing) from error
