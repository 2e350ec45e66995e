"""A device descriptor that another process gave or that was taken from it: checked, then a borrowed `Device`."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from mdevdisplay import _fds, dmabuf
from mdevdisplay.errors import DeviceGone, DriverError, MdevDisplayError, NotADisplay, from_oserror
from mdevdisplay.host.devices import find
from mdevdisplay.host.root import HostRoot
from mdevdisplay.source import Identity
from mdevdisplay.vfio.device import Device

__all__ = ["borrow", "identity_of"]

_SYSPATH = "vfio-device-syspath:"
_LINK = "anon_inode:[vfio-device]"


def identity_of(root: HostRoot, name: str) -> Identity:
    """Return what sysfs knows of a device by its name; nothing but the name where it does not know it."""
    with suppress(MdevDisplayError):
        if name:
            return find(root, name).identity
    return Identity(name=name)


def borrow(fd: int, locator: str, root: HostRoot, name: str = "") -> Device:
    """Take over a descriptor as a borrowed device. It is closed if this fails.

    Args:
        fd: what another process opened.
        locator: how the user named it.
        root: the host's /sys.
        name: the device's UUID or PCI address; "" for what the kernel says of the descriptor, if anything.

    Raises:
        NotADisplay: it is no VFIO device.
        DeviceGone: the kernel says that it is of another device than ``name``.
        DriverError: it is a cdev that nobody has bound yet, or the device does not answer.
    """
    try:
        kind, found = _look(fd, root)
        if kind not in ("vfio-device", "vfio-cdev"):
            raise NotADisplay(
                f"the descriptor is no VFIO device but {kind}",
                device=locator,
                hint="hand over the descriptor whose link in /proc/PID/fd is anon_inode:[vfio-device] or "
                "/dev/vfio/devices/vfioN",
                cause="not-a-vfio-device",
            )
        if name and found and found != name:
            raise DeviceGone(
                f"the descriptor is of device {found}, not of {name}",
                device=locator,
                hint="try again; if a launcher handed it over, it named the wrong device",
            )
        identity = identity_of(root, found or name)
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    device = Device(fd, locator, identity, borrowed=True)
    try:
        _ask(device, kind)
    except BaseException:
        device.close()
        raise
    return device


def _ask(device: Device, kind: str) -> None:
    try:
        device.info()
    except DriverError as error:
        if kind != "vfio-cdev" or isinstance(error, NotADisplay):
            raise
        raise DriverError(
            f"{error.message}: its owner has opened the device and not bound it yet",
            device=device.locator,
            hint="try again once the VM runs",
            cause="not-bound",
            errno=error.errno,
        ) from error


def _look(fd: int, root: HostRoot) -> tuple[str, str]:
    """Say what a descriptor is open of ("vfio-device", "vfio-cdev", or words for people), and the device's name."""
    link = _fds.link_of(fd)
    if link == _LINK:
        return "vfio-device", _name_in_fdinfo(fd)
    try:
        status = os.fstat(fd)
    except OSError as error:
        raise from_oserror(error, device="", doing=f"looking at descriptor {fd}", kind=NotADisplay) from error
    if stat.S_ISCHR(status.st_mode):
        # the link's text may belong to another mount namespace; the number is the kernel's
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        with suppress(OSError):
            target = (root.sys / "dev/char" / number).resolve(strict=True)  # …/DEVICE/vfio-dev/vfio7
            if target.parent.name == "vfio-dev":
                return "vfio-cdev", target.parent.parent.name
    return link or "nothing that /proc knows", ""


def _name_in_fdinfo(fd: int) -> str:
    """Return the device's name from Linux 6.18 on (drivers/vfio/vfio_main.c, vfio_device_show_fdinfo)."""
    for line in dmabuf.read_fdinfo(fd).splitlines():
        if line.startswith(_SYSPATH):
            return line.removeprefix(_SYSPATH).strip().rpartition("/")[2]
    return ""
