# ruff: noqa: ARG002 - a driver is called with everything that the kernel has, wanted or not
"""The base of the fake drivers: a device with regions, and the ioctls that the VFIO core hands to its driver."""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable, Sequence
from ctypes import sizeof
from typing import TYPE_CHECKING

import attrs

from mdevdisplay.testing.files import FakeFile, Iommu, UserMemory, failure
from mdevdisplay.vfio import uapi

if TYPE_CHECKING:
    from mdevdisplay.testing.kernel import FakeKernel

__all__ = ["PLANE_INFO_MINSZ", "Answer", "Driver", "Region", "type_capability"]

PLANE_INFO_MINSZ = 60
"""Bytes of vfio_device_gfx_plane_info that every driver copies in and out: up to and with the union."""

Answer = bytes | int | Callable[[UserMemory], int]
"""One scripted answer to an ioctl: bytes are copied to the caller, a number is returned (negative: an errno, as in the
kernel), a function is called with the caller's memory and returns the result or raises OSError."""

_READ_WRITE = uapi.VFIO_REGION_INFO_FLAG_READ | uapi.VFIO_REGION_INFO_FLAG_WRITE


@attrs.frozen
class Region:
    """A region of a fake device; its bytes are those of the device's memfd at ``offset``.

    Attributes:
        offset: where it starts in the device's file.
        size: bytes, as reported.
        flags: VFIO_REGION_INFO_FLAG_*; CAPS is added where there are capabilities.
        capabilities: the capability chain as it lies behind the fixed 32 bytes.
    """

    offset: int
    size: int
    flags: int = _READ_WRITE
    capabilities: bytes = b""

    @property
    def mappable(self) -> bool:
        """Whether it has the MMAP flag."""
        return bool(self.flags & uapi.VFIO_REGION_INFO_FLAG_MMAP)

    def holds(self, offset: int, size: int) -> bool:
        """Whether a range of the device's file lies inside it."""
        return self.offset <= offset and offset + size <= self.offset + self.size


def type_capability(kind: int, subtype: int, *, at: int = 32) -> bytes:
    """Return a capability chain with one VFIO_REGION_INFO_CAP_TYPE, to lie at ``at``."""
    capability = uapi.vfio_region_info_cap_type()
    capability.header.id, capability.header.version = uapi.VFIO_REGION_INFO_CAP_TYPE, 1
    capability.type, capability.subtype = kind, subtype
    return bytes(at - 32) + bytes(capability)


class Driver(FakeFile):
    """One fake device with its driver. Subclass it for a vendor of your own and override `query`.

    Attributes:
        name: the UUID or PCI address; `FakeKernel.add` gives one where it is "".
        group: the IOMMU group, given by `FakeKernel.add`.
        module: the kernel driver's name in sysfs.
        mdev_type: the directory name of the mdev type, or "" for a PCI function.
        type_name: the type's ``name`` attribute.
        parent: the parent device's path below /sys/devices.
        config_ids: PCI vendor and device id in the config region.
        open_errno: what VFIO_GROUP_GET_DEVICE_FD fails with, or 0.
        gone: every further ioctl answers ENODEV, as a removed function does.
        stall: called at the start of every ioctl with its number, where set; may block or sleep.
        lent: a VMM holds the device, see `FakeKernel.lend`: changing it is a violation.
        bound: of a device that was opened by its cdev: whether it is bound to an iommufd. None for any other.
    """

    module = "vendor"
    mdev_type = ""
    type_name = ""
    parent = "virtual/vendor/vendor"
    config_ids = (0x1234, 0x0001)
    num_regions = uapi.VFIO_PCI_NUM_REGIONS
    unknown_ioctl = errno.ENOTTY
    own_regions: dict[int, Region]

    def __init__(self, name: str = "", *, pci: bool = False) -> None:
        """Make a device.

        Args:
            name: its UUID, or its PCI address.
            pci: whether it is a PCI function rather than a mediated device.
        """
        super().__init__(name)
        self.name = name
        self.pci = pci
        self.group = -1
        self.open_errno = 0
        self.gone = False
        self.lent = False
        self.bound: bool | None = None
        self.stall: Callable[[int], object] | None = None
        self.own_regions = {uapi.VFIO_PCI_CONFIG_REGION_INDEX: Region(0, 256)}
        self._answers: dict[int, deque[Answer]] = {}
        self._kernel: FakeKernel | None = None
        self._memory = -1

    # what the kernel needs

    @property
    def kernel(self) -> FakeKernel:
        """The kernel that it was added to."""
        if self._kernel is None:
            raise RuntimeError("add the driver to a FakeKernel first")
        return self._kernel

    def attached(self, kernel: FakeKernel, memory: int) -> None:
        """Called by `FakeKernel.add`: remember the kernel and the memfd with the device's memory."""
        self._kernel = kernel
        self._memory = memory
        self.label = self.name
        os.ftruncate(memory, self.memory_size)
        config = self.own_regions.get(uapi.VFIO_PCI_CONFIG_REGION_INDEX)
        if config is not None:
            vendor, device = self.config_ids
            self.write(config.offset, vendor.to_bytes(2, "little") + device.to_bytes(2, "little"))

    @property
    def memory_size(self) -> int:
        """Bytes of the device's file: up to the end of its last region."""
        end = max((region.offset + region.size for region in self.own_regions.values()), default=0)
        return (end + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE

    def open_device(self) -> None:
        """Called by VFIO_GROUP_GET_DEVICE_FD and VFIO_DEVICE_BIND_IOMMUFD; raises where the driver refuses."""
        if self.open_errno:
            raise failure(self.open_errno)

    @property
    def has_vm(self) -> bool:
        """Whether a KVM VM is linked to it, or to its group."""
        return self.vm is not None or self.kernel.group_of(self).vm is not None

    def bind(self, user: UserMemory) -> int:
        """Answer VFIO_DEVICE_BIND_IOMMUFD; only a cdev that was not bound before takes it."""
        words = user.read(16)
        argsz, flags, fd = (int.from_bytes(words[at : at + 4], "little") for at in (0, 4, 8))
        if self.bound is not False or argsz < 16 or flags:
            raise failure(errno.EINVAL)
        if not isinstance(self.kernel.file_of(fd), Iommu):
            raise failure(errno.EBADF)
        if self.kernel.descriptors_of(self.kernel.group_of(self)):
            raise failure(errno.EBUSY)
        self.open_device()
        self.bound = True
        return 0

    def released(self) -> None:
        """The last descriptor was closed."""
        self.vm = self.bound = None

    # what a test does to the device

    def write(self, offset: int, data: bytes) -> None:
        """Change the device's memory at an offset of its file, as the guest or the hardware would."""
        self.kernel.real.pwrite(self._memory, data, offset)

    def read(self, offset: int, size: int) -> bytes:
        """Return the device's memory at an offset of its file."""
        return self.kernel.real.pread(self._memory, size, offset)

    def answer_next(self, request: int, *answers: Answer) -> None:
        """Answer the next calls of an ioctl from this list, then by the driver again."""
        self._answers.setdefault(request, deque()).extend(answers)

    def vanish(self) -> None:
        """Take the device away, out of sysfs and /dev too."""
        self.gone = True
        self.kernel.remove(self)

    # what the VFIO core calls

    def ioctl(self, request: int, user: UserMemory) -> int:
        """Answer a scripted ioctl, else hand it to the driver."""
        if self.stall is not None:
            self.stall(request)
        if self.gone:
            raise failure(errno.ENODEV)
        if request == uapi.VFIO_DEVICE_BIND_IOMMUFD and self.bound is not None:
            return self.bind(user)
        if self.bound is False:
            raise failure(errno.EINVAL)
        scripted = self._answers.get(request)
        if scripted:
            return apply_answer(scripted.popleft(), user)
        return self.dispatch(request, user)

    def dispatch(self, request: int, user: UserMemory) -> int:
        """Call the method of an ioctl."""
        if request == uapi.VFIO_DEVICE_GET_INFO:
            return self._get_info(user)
        if request == uapi.VFIO_DEVICE_GET_REGION_INFO:
            return self.get_region_info(user)
        if request == uapi.VFIO_DEVICE_QUERY_GFX_PLANE:
            return self._query_plane(user)
        if request == uapi.VFIO_DEVICE_GET_GFX_DMABUF:
            return self.get_dmabuf(int.from_bytes(user.read(4), "little"))
        raise failure(self.unknown_ioctl)

    def _get_info(self, user: UserMemory) -> int:
        info = uapi.vfio_device_info.from_buffer_copy(user.read(16))
        if info.argsz < 16:
            raise failure(errno.EINVAL)
        info.flags, info.num_regions, info.num_irqs = uapi.VFIO_DEVICE_FLAGS_PCI, self.num_regions, 5
        user.write(bytes(info))
        return 0

    def get_region_info(self, user: UserMemory) -> int:
        """Answer GET_REGION_INFO as the VFIO core does since Linux 6.19, and GVT-g before: argsz from 32 up."""
        info = uapi.vfio_region_info.from_buffer_copy(user.read(32))
        region = self.region(info.index)
        if info.argsz < 32 or region is None:
            raise failure(errno.EINVAL)
        info.flags, info.offset, info.size = region.flags, region.offset, region.size
        if region.capabilities:
            info.flags |= uapi.VFIO_REGION_INFO_FLAG_CAPS
            if info.argsz < 32 + len(region.capabilities):
                info.argsz, info.cap_offset = 32 + len(region.capabilities), 0
            else:
                info.cap_offset = 32
                user.write(region.capabilities, 32)
        user.write(bytes(info))
        return 0

    def region(self, index: int) -> Region | None:
        """Return a region; an empty one for a number below `num_regions`, None (EINVAL) above."""
        return self.own_regions.get(index) or (Region(0, 0, 0) if index < self.num_regions else None)

    def _query_plane(self, user: UserMemory) -> int:
        sent = user.read(PLANE_INFO_MINSZ)
        plane = uapi.vfio_device_gfx_plane_info.from_buffer_copy(
            sent.ljust(sizeof(uapi.vfio_device_gfx_plane_info), b"\0")
        )
        if plane.argsz < PLANE_INFO_MINSZ:
            raise failure(errno.EINVAL)
        if plane.argsz > len(user.sent):
            self.kernel.violate(f"{self.label}: argsz {plane.argsz} is more than the buffer's {len(user.sent)} bytes")
        self.query(plane)
        user.write(bytes(plane)[:PLANE_INFO_MINSZ])
        return 0

    def query(self, plane: uapi.vfio_device_gfx_plane_info) -> None:
        """Answer QUERY_GFX_PLANE: change ``plane``, whose fields are the caller's, or raise OSError."""
        raise failure(self.unknown_ioctl)

    def get_dmabuf(self, dmabuf_id: int) -> int:
        """Answer GET_GFX_DMABUF: return a new descriptor, see `FakeKernel.export`."""
        raise failure(self.unknown_ioctl)

    def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
        """Let a region be mapped from its start, shared, and not beyond its end."""
        region = next((entry for entry in self.own_regions.values() if entry.offset == offset and entry.mappable), None)
        if region is None or not flags & mmap.MAP_SHARED or length > region.size:
            raise failure(errno.EINVAL)

    def pread(self, size: int, offset: int) -> bytes:
        """Read a region's memory; EINVAL outside."""
        if not any(region.holds(offset, size) for region in self.own_regions.values()):
            raise failure(errno.EINVAL)
        return self.read(offset, size)

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write a region's memory; EINVAL outside."""
        if not any(region.holds(offset, len(data)) for region in self.own_regions.values()):
            raise failure(errno.EINVAL)
        self.write(offset, data)
        return len(data)


def apply_answer(answer: Answer, user: UserMemory) -> int:
    """Do what a scripted answer says and return the ioctl's result."""
    if isinstance(answer, bytes):
        user.write(answer)
        return 0
    if callable(answer):
        return answer(user)
    if answer < 0:
        raise failure(-answer)
    return answer


class Scripted(Driver):
    """Answers each ioctl from a list and nothing else: full control, for answers that no driver should give."""

    module = "scripted"
    mdev_type = "scripted-1"
    type_name = "scripted"
    parent = "virtual/scripted/scripted"

    def __init__(
        self,
        script: dict[int, Sequence[Answer]] | None = None,
        *,
        regions: dict[int, Region] | None = None,
        name: str = "",
        pci: bool = False,
    ) -> None:
        """Make a device.

        Args:
            script: request number to its answers in order; the last one is given for ever. Others answer ENOTTY.
            regions: the memory that can be mapped and read; GET_REGION_INFO is answered from it unless scripted.
            name: its UUID or PCI address.
            pci: whether it is a PCI function.
        """
        super().__init__(name, pci=pci)
        self.script: dict[int, list[Answer]] = {request: list(answers) for request, answers in (script or {}).items()}
        if regions is not None:
            self.own_regions = dict(regions)

    def dispatch(self, request: int, user: UserMemory) -> int:
        """Give the next answer."""
        answers = self.script.get(request)
        if not answers:
            if request in (uapi.VFIO_DEVICE_GET_INFO, uapi.VFIO_DEVICE_GET_REGION_INFO):
                return super().dispatch(request, user)
            raise failure(self.unknown_ioctl)
        return apply_answer(answers.pop(0) if len(answers) > 1 else answers[0], user)
