"""A device descriptor by the legacy way: container, group, device."""

from __future__ import annotations

import errno
import os
from ctypes import c_int32, sizeof
from pathlib import Path

from mdevdisplay._ioctl import ioctl
from mdevdisplay.errors import (
    DeviceBusy,
    DeviceGone,
    DriverError,
    MdevDisplayError,
    NotADisplay,
    NotPermitted,
    NoVfio,
    from_oserror,
    translated,
)
from mdevdisplay.source import Identity
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.kvm import EmptyVm
from mdevdisplay.vfio.quirks import quirks_of

__all__ = ["device_of_group", "open_by_group"]

_PERMISSION_HINT = (
    "run as root, or give your user the node: `chown USER {node}` now, a udev rule on SUBSYSTEM vfio for good"
)
_NO_VFIO_HINT = "load VFIO: `modprobe vfio_iommu_type1` and the vGPU's own module, as root"


def open_by_group(
    group: int | str, name: str, locator: str, identity: Identity | None = None, *, dev: Path = Path("/dev")
) -> Device:
    """Open a device that nobody else holds, by /dev/vfio/vfio and /dev/vfio/GROUP.

    Args:
        group: the IOMMU group's number, the basename of the device's ``iommu_group`` link in sysfs.
        name: the device's name inside the group: a UUID for an mdev, the address for a PCI function.
        locator: how the user named it.
        identity: what sysfs says of it.
        dev: where device nodes are.

    Raises:
        NoVfio: there is no /dev/vfio/vfio, or no such group node.
        NotPermitted: a node's mode forbids it.
        DeviceBusy: the group is open elsewhere; a group opens once.
        DriverError: the driver refuses; GVT-g wants a VM of the opener's own process.
    """
    container_node, group_node = dev / "vfio" / "vfio", dev / "vfio" / str(group)
    container = _open_node(container_node, locator)
    try:
        version = _checked(container, uapi.VFIO_GET_API_VERSION, locator, "VFIO_GET_API_VERSION")
        if version != uapi.VFIO_API_VERSION:
            raise DriverError(f"the kernel speaks VFIO API {version}, not {uapi.VFIO_API_VERSION}", device=locator)
        group_fd = _open_node(group_node, locator)
        vm: EmptyVm | None = None
        try:
            _join(container, group_fd, group_node, locator)
            if identity is not None and quirks_of(identity).wants_kvm:
                vm = EmptyVm(group_fd, locator, dev)
            source = Device(device_of_group(group_fd, name, locator), locator, identity)
        except BaseException:
            if vm is not None:
                vm.close()
            os.close(group_fd)
            raise
    except BaseException:
        os.close(container)
        raise
    # closed after the device, group before container
    source.after_release(lambda: os.close(container))
    source.after_release(lambda: os.close(group_fd))
    if vm is not None:
        source.after_release(vm.close)
    return source


def _open_node(node: Path, locator: str) -> int:
    try:
        return os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(error, node, locator) from error


def _cannot_open(error: OSError, node: Path, locator: str) -> MdevDisplayError:
    doing = f"opening {node}"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = _PERMISSION_HINT.format(node=node)
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=NotPermitted)
    if error.errno == errno.EBUSY:
        hint = "another process, most likely the VM's VMM, holds the device, and a VFIO group opens only once"
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=DeviceBusy)
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        # a node without its device: the module is missing, or the group went away between listing and opening
        here = node.parent.is_dir() and node.name != "vfio"
        hint = "the device was removed; see `mdevdisplay list`" if here else _NO_VFIO_HINT
        kind: type[MdevDisplayError] = DeviceGone if here else NoVfio
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=kind)
    return from_oserror(error, device=locator, doing=doing)


def _checked(fd: int, request: int, locator: str, doing: str, argument: bytearray | int = 0) -> int:
    with translated(locator, doing):
        return ioctl(fd, request, argument)


def _join(container: int, group: int, node: Path, locator: str) -> None:
    """Put the group into the container and choose an IOMMU for it."""
    buffer = bytearray(sizeof(uapi.vfio_group_status))
    status = uapi.vfio_group_status.from_buffer(buffer)
    status.argsz = len(buffer)
    _checked(group, uapi.VFIO_GROUP_GET_STATUS, locator, "VFIO_GROUP_GET_STATUS", buffer)
    if not status.flags & uapi.VFIO_GROUP_FLAGS_VIABLE:
        raise DeviceBusy(
            f"IOMMU group {node.name} is not viable: another device of it is bound to a host driver",
            device=locator,
            hint="bind every device of the group to vfio-pci, or to no driver",
        )
    argument = bytearray(bytes(c_int32(container)))
    _checked(group, uapi.VFIO_GROUP_SET_CONTAINER, locator, f"adding {node} to a container", argument)
    _set_iommu(container, locator)


def device_of_group(group: int, name: str, locator: str) -> int:
    """Return a new descriptor of a device of an open group (VFIO_GROUP_GET_DEVICE_FD).

    A device that is open already is opened once more: the driver's own open is called for the first only
    (vfio_device_open).

    Raises:
        DeviceBusy, DeviceGone, NotADisplay, DriverError: the driver refuses.
    """
    try:
        return ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, bytearray(os.fsencode(name) + b"\0"))
    except OSError as error:
        raise _no_device(error, name, locator) from error


def _set_iommu(container: int, locator: str) -> None:
    """Choose type 1 version 2, else version 1; an mdev needs no IOMMU hardware for either."""
    try:
        ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)
    except OSError:
        try:
            ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1_IOMMU)
        except OSError as error:
            kind = NoVfio if error.errno == errno.ENODEV else None  # no IOMMU driver has registered
            raise from_oserror(error, device=locator, doing="VFIO_SET_IOMMU", hint=_NO_VFIO_HINT, kind=kind) from error


def _no_device(error: OSError, name: str, locator: str) -> MdevDisplayError:
    doing = f"VFIO_GROUP_GET_DEVICE_FD of {name}"
    if error.errno == errno.ESRCH:
        hint = "this driver (GVT-g) opens a vGPU only beside a KVM VM of the same process; read it while its VM runs"
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=DriverError, cause="no-kvm-vm")
    if error.errno == errno.EEXIST:
        hint = "the VM of this process has a vGPU of this driver already"
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=DeviceBusy)
    if error.errno == errno.ENODEV:
        hint = "the device was removed, or no vGPU type is set on it; see `mdevdisplay list`"
        return from_oserror(error, device=locator, doing=doing, hint=hint, kind=DeviceGone)
    kind = None if error.errno != errno.ENOTTY else NotADisplay
    return from_oserror(error, device=locator, doing=doing, kind=kind)
