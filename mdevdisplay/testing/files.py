# ruff: noqa: ARG002 - a driver is called with everything that the kernel has, wanted or not
"""What stands behind the fake descriptors: the container, the groups, the dma-bufs.

A descriptor is a real memfd, told apart by its inode, so that close, dup, fstat, lseek, close-on-exec and a forgotten
descriptor are the real kernel's business. Only what the real kernel cannot know is answered here.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

from mdevdisplay.vfio import kvm, uapi

if TYPE_CHECKING:
    from mdevdisplay.testing.driver import Driver
    from mdevdisplay.testing.kernel import FakeKernel

__all__ = ["Container", "DmaBufFile", "FakeFile", "Group", "Iommu", "Kvm", "UserMemory", "failure"]

# include/uapi/linux/dma-buf.h
_DMA_BUF_IOCTL_SYNC = 0x40086200
_DMA_BUF_SYNC_READ = 1
_DMA_BUF_SYNC_RW = 3
_DMA_BUF_SYNC_END = 4


def failure(number: int) -> OSError:
    """Return the OSError of an errno, to be raised where a driver returns ``-number``."""
    return OSError(number, os.strerror(number))


class UserMemory:
    """An ioctl's third argument as a driver sees it: a pointer into the caller's buffer, or a plain number."""

    def __init__(self, argument: memoryview | int, kernel: FakeKernel) -> None:
        self._argument = argument
        self._kernel = kernel

    @property
    def number(self) -> int:
        """The argument as a number; EFAULT where it is a buffer, whose address would make no sense."""
        if isinstance(self._argument, int):
            return self._argument
        raise failure(errno.EFAULT)

    @property
    def sent(self) -> bytes:
        """The whole buffer as it is now; a plain number as 8 bytes."""
        if isinstance(self._argument, int):
            return (self._argument & 0xFFFFFFFF_FFFFFFFF).to_bytes(8, "little")
        return bytes(self._argument)

    def read(self, size: int) -> bytes:
        """Copy from the caller (copy_from_user); EFAULT for a plain number.

        A buffer that is too short would let the kernel read on behind it. That is a violation.
        """
        view = self._view()
        if size > len(view):
            self._kernel.violate(f"the driver reads {size} bytes from a buffer of {len(view)}")
        return bytes(view[:size]).ljust(size, b"\0")

    def write(self, data: bytes, offset: int = 0) -> None:
        """Copy to the caller (copy_to_user); a buffer that is too short is a violation and stays unharmed."""
        view = self._view()
        if offset + len(data) > len(view):
            self._kernel.violate(
                f"the driver writes bytes {offset} to {offset + len(data)} of a {len(view)} byte buffer"
            )
        room = max(0, len(view) - offset)
        view[offset : offset + min(len(data), room)] = data[:room]

    def _view(self) -> memoryview:
        if isinstance(self._argument, int):
            raise failure(errno.EFAULT)
        return self._argument


class FakeFile:
    """Something that descriptors can be open of. Every method may raise OSError, as the kernel would.

    Attributes:
        label: what it is, for messages.
        vm: the KVM VM that a group or cdev was added to, or None.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.vm: FakeFile | None = None

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer an ioctl."""
        raise failure(errno.ENOTTY)

    def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
        """Refuse a mapping; where this returns, the memfd is mapped."""
        raise failure(errno.ENODEV)

    def pread(self, size: int, offset: int) -> bytes:
        """Answer a read."""
        raise failure(errno.EINVAL)

    def pwrite(self, data: bytes, offset: int) -> int:
        """Answer a write."""
        raise failure(errno.EINVAL)

    def released(self) -> None:
        """The last descriptor was closed."""


class Container(FakeFile):
    """An open /dev/vfio/vfio."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__("container")
        self._kernel = kernel
        self.groups: list[Group] = []
        self.iommu: int | None = None

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer GET_API_VERSION, CHECK_EXTENSION and SET_IOMMU."""
        if request == uapi.VFIO_GET_API_VERSION:
            return self._kernel.api_version
        if request == uapi.VFIO_CHECK_EXTENSION:
            return int(user.number in self._kernel.iommu_types)
        if request == uapi.VFIO_SET_IOMMU:
            if not self.groups or self.iommu is not None:
                raise failure(errno.EINVAL)
            if user.number not in self._kernel.iommu_types:
                raise failure(errno.ENODEV)
            self.iommu = user.number
            return 0
        raise failure(errno.ENOTTY)


class Group(FakeFile):
    """An IOMMU group, /dev/vfio/N."""

    def __init__(self, number: int, kernel: FakeKernel) -> None:
        super().__init__(f"group {number}")
        self._kernel = kernel
        self.number = number
        self.viable = True
        self.drivers: list[Driver] = []
        self.container: Container | None = None

    def opened(self) -> None:
        """Refuse a second opener: a group opens once, and stays open as long as one of its devices does."""
        if any(self._kernel.descriptors_of(entry) for entry in (self, *self.drivers)):
            raise failure(errno.EBUSY)
        self.container = None
        self.vm = None

    def released(self) -> None:
        """Leave the container."""
        if self.container is not None:
            self.container.groups.remove(self)
            self.container = None

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer GET_STATUS, SET_CONTAINER, UNSET_CONTAINER and GET_DEVICE_FD."""
        if request == uapi.VFIO_GROUP_GET_STATUS:
            return self._get_status(user)
        if request == uapi.VFIO_GROUP_SET_CONTAINER:
            return self._set_container(int.from_bytes(user.read(4), "little", signed=True))
        if request == uapi.VFIO_GROUP_UNSET_CONTAINER:
            if any(self._kernel.descriptors_of(driver) for driver in self.drivers):
                raise failure(errno.EBUSY)
            self.released()
            return 0
        if request == uapi.VFIO_GROUP_GET_DEVICE_FD:
            return self._get_device_fd(user.sent.split(b"\0", 1)[0].decode("utf-8", "replace"))
        raise failure(errno.ENOTTY)

    def _get_status(self, user: UserMemory) -> int:
        if int.from_bytes(user.read(8)[:4], "little") < 8:
            raise failure(errno.EINVAL)
        flags = uapi.VFIO_GROUP_FLAGS_VIABLE if self.viable else 0
        if self.container is not None:
            flags |= uapi.VFIO_GROUP_FLAGS_CONTAINER_SET
        user.write(flags.to_bytes(4, "little"), 4)
        return 0

    def _set_container(self, fd: int) -> int:
        container = self._kernel.file_of(fd)
        if not isinstance(container, Container):
            raise failure(errno.EBADFD)
        if self.container is not None or not self.viable:
            raise failure(errno.EINVAL if self.viable else errno.EPERM)
        self.container = container
        container.groups.append(self)
        return 0

    def _get_device_fd(self, name: str) -> int:
        if self.container is None or self.container.iommu is None:
            raise failure(errno.EINVAL)
        for driver in self.drivers:
            if driver.name == name:
                driver.open_device()
                return self._kernel.open_descriptor(driver)
        raise failure(errno.ENODEV)


class Iommu(FakeFile):
    """An open /dev/iommu: something to bind cdevs to."""

    def __init__(self) -> None:
        super().__init__("iommufd")


class Kvm(FakeFile):
    """An open /dev/kvm."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__("kvm")
        self._kernel = kernel

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer KVM_CREATE_VM."""
        if request == kvm.KVM_CREATE_VM:
            return self._kernel.open_descriptor(KvmVm(self._kernel))
        raise failure(errno.ENOTTY)


class KvmVm(FakeFile):
    """A VM of KVM."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__("KVM VM")
        self._kernel = kernel

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer KVM_CREATE_DEVICE of the VFIO pseudo device."""
        if request != kvm.KVM_CREATE_DEVICE:
            raise failure(errno.ENOTTY)
        if int.from_bytes(user.read(12)[:4], "little") != kvm.KVM_DEV_TYPE_VFIO:
            raise failure(errno.ENODEV)
        user.write(self._kernel.open_descriptor(KvmVfio(self, self._kernel)).to_bytes(4, "little"), 4)
        return 0

    def released(self) -> None:
        """Forget what was linked to it."""
        self._kernel.unlink(self)


class KvmVfio(FakeFile):
    """KVM's VFIO pseudo device, to which groups and cdevs are added."""

    def __init__(self, vm: KvmVm, kernel: FakeKernel) -> None:
        super().__init__("KVM VFIO device")
        self._vm = vm
        self._kernel = kernel

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer KVM_SET_DEVICE_ATTR with KVM_DEV_VFIO_GROUP_ADD, whose argument is a pointer to a descriptor."""
        if request != kvm.KVM_SET_DEVICE_ATTR:
            raise failure(errno.ENOTTY)
        words = user.read(24)
        group, attr, address = (
            int.from_bytes(words[at : at + size], "little") for at, size in ((4, 4), (8, 8), (16, 8))
        )
        if (group, attr) != (kvm.KVM_DEV_VFIO_GROUP, kvm.KVM_DEV_VFIO_GROUP_ADD):
            raise failure(errno.ENXIO)
        file = self._kernel.file_of(ctypes.c_int32.from_address(address).value)
        if file is None:
            raise failure(errno.EBADF)
        file.vm = self._vm
        return 0


class DmaBufFile(FakeFile):
    """A dma-buf.

    Attributes:
        size: bytes, as fstat and lseek say.
        mmap_errno: why the exporter refuses every mapping, or 0.
        exporter: the name of the exporting module in its fdinfo, or "" for a plain memfd.
    """

    def __init__(self, label: str, size: int, kernel: FakeKernel, *, mmap_errno: int = 0, exporter: str = "") -> None:
        super().__init__(label)
        self.size = size
        self.mmap_errno = mmap_errno
        self.exporter = exporter
        self._kernel = kernel
        self._reading = 0

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer DMA_BUF_IOCTL_SYNC; an END without its START is a violation."""
        if request != _DMA_BUF_IOCTL_SYNC:
            raise failure(errno.ENOTTY)
        flags = int.from_bytes(user.read(8), "little")
        if not flags & _DMA_BUF_SYNC_RW or flags & ~(_DMA_BUF_SYNC_RW | _DMA_BUF_SYNC_END):
            raise failure(errno.EINVAL)
        self._reading += -1 if flags & _DMA_BUF_SYNC_END else 1
        if self._reading < 0:
            self._kernel.violate(f"{self.label}: a CPU read was ended that was not begun")
            self._reading = 0
        return 0

    def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
        """Map whole pages of it only, as dma_buf_mmap_internal does: it compares with ``size >> PAGE_SHIFT``."""
        if not flags & mmap.MAP_SHARED:
            raise failure(errno.EINVAL)
        if (offset + length + mmap.PAGESIZE - 1) // mmap.PAGESIZE > self.size // mmap.PAGESIZE:
            raise failure(errno.EINVAL)
        if self.mmap_errno:
            raise failure(self.mmap_errno)

    def released(self) -> None:
        """Complain about a CPU read that was begun and not ended."""
        if self._reading:
            self._kernel.violate(f"{self.label}: closed in the middle of a CPU read")
