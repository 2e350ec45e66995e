"""An empty KVM VM of this process, for drivers that open a vGPU only beside one: GVT-g (intel_vgpu_open_device).

Read from the kernel's sources (Documentation/virt/kvm/devices/vfio.rst, virt/kvm/vfio.c); no hardware has seen it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mdevdisplay._ioctl import ioctl
from mdevdisplay.errors import DriverError, NotPermitted, from_oserror, translated

__all__ = ["EmptyVm"]

# include/uapi/linux/kvm.h
KVM_CREATE_VM = 0xAE01
KVM_CREATE_DEVICE = 0xC00CAEE0
KVM_SET_DEVICE_ATTR = 0x4018AEE1
KVM_DEV_TYPE_VFIO = 4
KVM_DEV_VFIO_GROUP = 1
KVM_DEV_VFIO_GROUP_ADD = 1


class _CreateDevice(ctypes.Structure):
    type: int
    fd: int
    flags: int
    _fields_ = [("type", ctypes.c_uint32), ("fd", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


class _DeviceAttr(ctypes.Structure):
    flags: int
    group: int
    attr: int
    addr: int
    _fields_ = [
        ("flags", ctypes.c_uint32),
        ("group", ctypes.c_uint32),
        ("attr", ctypes.c_uint64),
        ("addr", ctypes.c_uint64),
    ]


class EmptyVm:
    """A VM without memory and processors, to which a VFIO group or cdev is linked. Close it after the device."""

    def __init__(self, file: int, locator: str, dev: Path) -> None:
        """Make the VM and link ``file``, the descriptor of an open group or cdev, before its device is opened.

        Raises:
            NotPermitted: /dev/kvm may not be opened.
            DriverError: there is no KVM, or it refuses.
        """
        self._fds: list[int] = []
        node = dev / "kvm"
        hint = f"this driver opens a vGPU only for a VM's own process, so an empty VM is made, which needs {node}"
        try:
            try:
                kvm = os.open(node, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                kind = NotPermitted if isinstance(error, PermissionError) else DriverError
                raise from_oserror(error, device=locator, doing=f"opening {node}", hint=hint, kind=kind) from error
            self._fds.append(kvm)
            with translated(locator, "making an empty KVM VM", hint):
                vm = ioctl(kvm, KVM_CREATE_VM, 0)
                self._fds.append(vm)
                self._link(vm, file)
        except BaseException:
            self.close()
            raise

    def _link(self, vm: int, file: int) -> None:
        buffer = bytearray(ctypes.sizeof(_CreateDevice))
        request = _CreateDevice.from_buffer(buffer)
        request.type = KVM_DEV_TYPE_VFIO
        ioctl(vm, KVM_CREATE_DEVICE, buffer)
        self._fds.append(request.fd)
        os.set_inheritable(request.fd, False)
        number = ctypes.c_int32(file)
        attribute = bytearray(ctypes.sizeof(_DeviceAttr))
        words = _DeviceAttr.from_buffer(attribute)
        words.group, words.attr, words.addr = KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, ctypes.addressof(number)
        ioctl(request.fd, KVM_SET_DEVICE_ATTR, attribute)

    def close(self) -> None:
        """Let go of the VM. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())
