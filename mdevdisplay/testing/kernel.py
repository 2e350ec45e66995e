"""A kernel for unit tests: open, ioctl, mmap and the reads of a descriptor are answered by scripted drivers."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from unittest import mock

import attrs

from mdevdisplay import _fds, _mapping, dmabuf
from mdevdisplay.testing.driver import Driver
from mdevdisplay.testing.files import Container, DmaBufFile, FakeFile, Group, Iommu, Kvm, UserMemory
from mdevdisplay.testing.record import Call, Record, request_name
from mdevdisplay.testing.sysfs import Sysfs
from mdevdisplay.testing.vmm import FakeVmm
from mdevdisplay.vfio import uapi

__all__ = ["FakeKernel"]

D = TypeVar("D", bound=Driver)
T = TypeVar("T")

_MAP_FIXED = 0x10
_OUTSIDE_VFIO = ("iommu", "kvm")
"""Nodes that lie in /dev itself."""
_CHANGES_A_DEVICE = frozenset(
    {
        uapi.VFIO_DEVICE_SET_IRQS,
        uapi.VFIO_DEVICE_RESET,
        uapi.VFIO_DEVICE_PCI_HOT_RESET,
        uapi.VFIO_DEVICE_IOEVENTFD,
        uapi.VFIO_DEVICE_FEATURE,
        uapi.VFIO_DEVICE_BIND_IOMMUFD,
        uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
        uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT,
    }
)
"""Requests that nobody may send to a device that a VMM holds."""


@attrs.frozen
class _Real:
    """The functions that are replaced, as they were before."""

    open: Callable[..., int] = attrs.field(factory=lambda: os.open)
    close: Callable[[int], None] = attrs.field(factory=lambda: os.close)
    pread: Callable[[int, int, int], bytes] = attrs.field(factory=lambda: os.pread)
    pwrite: Callable[[int, bytes, int], int] = attrs.field(factory=lambda: os.pwrite)
    ioctl: Callable[..., Any] = attrs.field(factory=lambda: fcntl.ioctl)
    fdinfo: Callable[[int], str] = attrs.field(factory=lambda: dmabuf.read_fdinfo)
    link_of: Callable[[int], str] = attrs.field(factory=lambda: _fds.link_of)
    map: Callable[..., int] = attrs.field(factory=lambda: _mapping.mmap)
    mmap: type[mmap.mmap] = attrs.field(factory=lambda: mmap.mmap)


class FakeKernel:
    """Answers VFIO for as long as its ``with`` block lasts; everything above open, ioctl and mmap is the real thing.

        with FakeKernel() as kernel:
            device = kernel.add(Mdpy())
            with mdevdisplay.open(device.name) as display:
                display.capture()
            kernel.assert_nothing_left()

    Device nodes lie below a folder of its own, with a /sys to match, and MDEVDISPLAY_HOST_ROOT points there. The fake
    descriptors are memfds: they can be duplicated, inherited, measured, mapped and forgotten like any other. What is
    not fake passes through. It replaces process-wide functions, so one test at a time, and threads but no other
    processes see it.

    Attributes:
        path: the folder that stands for the host's root.
        sysfs: what /sys shows.
        calls: every system call that reached something fake, in order.
        violations: what no driver would survive or no VM should suffer, in words.
        api_version: what VFIO_GET_API_VERSION answers.
        iommu_types: what VFIO_SET_IOMMU takes; empty where vfio_iommu_type1 is not loaded.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Make a kernel without devices.

        Args:
            path: an empty or missing folder for /sys and /dev; None makes one and removes it in the end.
        """
        self._own_path = path is None
        self.path = Path(tempfile.mkdtemp(prefix="fake-kernel-")) if path is None else path
        self.sysfs = Sysfs(self.path / "sys")
        self.calls = Record()
        self.violations: list[str] = []
        self.api_version = uapi.VFIO_API_VERSION
        self.iommu_types = {uapi.VFIO_TYPE1_IOMMU, uapi.VFIO_TYPE1v2_IOMMU}
        self.real = _Real()
        self._files: dict[tuple[int, int], FakeFile] = {}
        self._keepers: dict[FakeFile, int] = {}
        self._cdevs: dict[str, Driver] = {}
        self._vmms: list[FakeVmm] = []
        self._vmm_fds: list[int] = []
        self._groups: dict[int, Group] = {}
        self._open_errors: dict[str, int] = {}
        self._mapped: dict[int, tuple[FakeFile, int]] = {}
        self._in_flight: dict[FakeFile, int] = {}
        self._added = 0
        self._lock = threading.Lock()
        self._patches = ExitStack()
        (self.path / "dev/vfio").mkdir(parents=True)
        (self.path / "proc/2/fd").mkdir(parents=True, exist_ok=True)  # a host has processes: kthreadd
        self._node("vfio")
        self._node("kvm")

    # what a test sets up

    def add(self, driver: D, *, group: int | None = None, cdev: bool = False) -> D:
        """Plug a device in: into sysfs, with an IOMMU group (its own unless ``group`` is given) and its node.

        Args:
            driver: the device.
            group: the number of a group to share.
            cdev: whether it has a node of its own too, below /dev/vfio/devices, and the host a /dev/iommu.

        Returns:
            The driver, whose ``name`` is the UUID or PCI address.
        """
        number = max(self._groups, default=0) + 1 if group is None else group
        driver.group = number
        self._added += 1
        if not driver.name:
            uuid = f"{self._added:08x}-0000-4000-8000-000000000000"
            driver.name = f"0000:{self._added:02x}:00.4" if driver.pci else uuid
        if number not in self._groups:
            self._groups[number] = Group(number, self)
            self._keep(self._groups[number])
            self._node(str(number))
        self._groups[number].drivers.append(driver)
        driver.attached(self, self._keep(driver))
        self.sysfs.add(driver)
        if cdev:
            name = self.sysfs.vfio_device(driver)
            self._cdevs[name] = driver
            self._node(f"devices/{name}")
            self._node("iommu")
        return driver

    def remove(self, driver: Driver) -> None:
        """Take a device out of sysfs, and its group's node where it was the last one."""
        self.sysfs.remove(driver)
        group = self._groups[driver.group]
        if driver in group.drivers:
            group.drivers.remove(driver)
        if not group.drivers:
            (self.path / f"dev/vfio/{group.number}").unlink(missing_ok=True)

    def group_of(self, driver: Driver) -> Group:
        """Return a device's IOMMU group."""
        return self._groups[driver.group]

    def lend(self, driver: Driver) -> int:
        """Let a VMM hold the device, and return a descriptor of it as pidfd_getfd would: the caller's to close.

        From now on the group is busy, and whatever changes the device is a violation.
        """
        driver.lent = True
        self._vmm_fds.append(self._reopen(driver))
        return self._reopen(driver)

    def vmm(self, *drivers: Driver, name: str = "win10", says: bool = True, words: Sequence[str] = ()) -> FakeVmm:
        """Start a process that holds devices, as a VM's VMM does; `FakeVmm.kill` or the end of the block ends it.

        It is a real process, which has the devices' descriptors and does nothing; what /proc says of it is not.

        Args:
            drivers: the devices.
            name: the VM's name.
            says: whether the kernel says which device a descriptor is, as Linux does from 6.18 on.
            words: its command line in place of QEMU's.
        """
        for driver in drivers:
            driver.lent = True
        vmm = FakeVmm(self.path / "proc", {driver.name: self._reopen(driver) for driver in drivers}, name, words)
        for driver in drivers:
            if says:
                vmm.say(driver.name, f"vfio-device-syspath:\t{self.sysfs.device(driver)}\n")
            self._vmm_fds.append(vmm.fds[driver.name])
        self._vmms.append(vmm)
        vmm.on_kill = partial(self._vmm_ended, vmm, drivers)
        return vmm

    def _vmm_ended(self, vmm: FakeVmm, drivers: Sequence[Driver]) -> None:
        for driver in drivers:
            driver.lent = False
            self._vmm_fds.remove(vmm.fds[driver.name])
            os.close(vmm.fds[driver.name])

    def hide_groups(self) -> None:
        """Take the nodes of groups and containers out of /dev/vfio, as on a kernel without CONFIG_VFIO_GROUP."""
        for node in (self.path / "dev/vfio").iterdir():
            if node.is_file():
                node.unlink()

    def unlink(self, vm: FakeFile) -> None:
        """Forget which groups and devices a KVM VM was linked to; called when it ends."""
        for file in (*self._groups.values(), *(driver for group in self._groups.values() for driver in group.drivers)):
            if file.vm is vm:
                file.vm = None

    def refuse_open(self, node: str, number: int) -> None:
        """Fail every open of a node with an errno; 0 allows it.

        Args:
            node: ``vfio``, a group's number or ``devices/vfio0`` below /dev/vfio; or ``iommu``, ``kvm``.
            number: the errno.
        """
        self._open_errors[node] = number

    def remove_vfio(self) -> None:
        """Unload VFIO: no /dev/vfio at all."""
        shutil.rmtree(self.path / "dev/vfio")

    # what a test asks

    def leaks(self) -> list[str]:
        """Return the fake descriptors and mappings of this process that are still open, in words."""
        return [f"descriptor {fd} of {file.label}" for fd, file in self._open_descriptors()] + [
            f"mapping of {file.label} at {where}" for where, file in self._mappings()
        ]

    def assert_nothing_left(self) -> None:
        """Raise AssertionError where something is still open or a rule of the drivers was broken."""
        problems = self.leaks() + self.violations
        if problems:
            raise AssertionError("left in the fake kernel: " + "; ".join(problems))

    def violate(self, what: str) -> None:
        """Note that a rule was broken; called by drivers."""
        self.violations.append(what)

    def descriptors_of(self, file: FakeFile) -> list[int]:
        """Return the open descriptors of a file, a VMM's included."""
        return [fd for fd, other in self._open_descriptors(vmm=True) if other is file]

    def mappings_of(self, file: FakeFile) -> int:
        """Return how often this process maps a file now."""
        return sum(other is file for _, other in self._mappings())

    def file_of(self, fd: int) -> FakeFile | None:
        """Return what a descriptor is open of, or None where it is not fake."""
        try:
            status = os.fstat(fd)
        except (OSError, OverflowError, TypeError, ValueError):
            return None
        return self._files.get((status.st_dev, status.st_ino))

    # what drivers and files ask

    def open_descriptor(self, file: FakeFile, flags: int = os.O_RDWR, *, cloexec: bool = True) -> int:
        """Return a new descriptor of a file."""
        if file not in self._keepers:
            self._keep(file)
        fd = self._reopen(file, flags)
        os.set_inheritable(fd, not cloexec)
        return fd

    def export(self, file: DmaBufFile, *, flags: int = os.O_RDWR, cloexec: bool = True) -> int:
        """Return a descriptor of a dma-buf; a new one, if it has never been exported."""
        if file not in self._keepers:
            os.ftruncate(self._keep(file), file.size)
        return self.open_descriptor(file, flags, cloexec=cloexec)

    def forget(self, file: FakeFile) -> None:
        """Drop the kernel's own descriptor of a file that nobody can open any more."""
        keeper = self._keepers.pop(file, None)
        if keeper is not None:
            self.real.close(keeper)

    # the life of the kernel

    def __enter__(self) -> Self:
        patch = mock.patch.object
        for context in (
            mock.patch.dict(os.environ, {"MDEVDISPLAY_HOST_ROOT": str(self.path)}),
            patch(os, "open", self._open),
            patch(os, "close", self._close),
            patch(os, "pread", self._pread),
            patch(os, "pwrite", self._pwrite),
            patch(fcntl, "ioctl", self._ioctl),
            patch(_mapping, "mmap", self._map),
            patch(dmabuf, "read_fdinfo", self._fdinfo),
            patch(_fds, "link_of", self._link_of),
            patch(mmap, "mmap", self._mmap_class()),
        ):
            self._patches.enter_context(context)
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
        for vmm in self._vmms:
            vmm.kill()
        for fd in (*self._keepers.values(), *self._vmm_fds):
            os.close(fd)
        self._keepers.clear()
        self._vmm_fds.clear()
        if self._own_path:
            shutil.rmtree(self.path, ignore_errors=True)

    def _node(self, name: str) -> None:
        path = self._node_path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    def _keep(self, file: FakeFile) -> int:
        """Make the memfd behind a file, and hold a descriptor of it that is nobody's leak."""
        keeper = os.memfd_create(file.label or type(file).__name__, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(keeper, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a device's memory cannot be truncated either
        status = os.fstat(keeper)
        self._files[status.st_dev, status.st_ino] = file
        self._keepers[file] = keeper
        return keeper

    def _reopen(self, file: FakeFile, flags: int = os.O_RDWR) -> int:
        return self.real.open(f"/proc/self/fd/{self._keepers[file]}", flags | os.O_CLOEXEC)

    def _open_descriptors(self, *, vmm: bool = False) -> Iterator[tuple[int, FakeFile]]:
        hidden = {*self._keepers.values(), *(() if vmm else self._vmm_fds)}
        for name in sorted(os.listdir("/proc/self/fd"), key=int):  # noqa: PTH208 - names are numbers, not paths
            file = self.file_of(int(name))
            if file is not None and int(name) not in hidden:
                yield int(name), file

    def _mappings(self) -> Iterator[tuple[str, FakeFile]]:
        for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
            where, _, _, device, inode, *_ = line.split()
            major, minor = (int(part, 16) for part in device.split(":"))
            file = self._files.get((os.makedev(major, minor), int(inode)))
            if file is not None:
                yield where, file

    def _note(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)

    def _changes(self, file: FakeFile, what: str) -> None:
        if isinstance(file, Driver) and file.lent:
            self.violate(f"{what} on {file.label}, which a VMM holds")

    # what is called instead of the real functions

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        node = self._node_of(path) if dir_fd is None else None
        if node is None:
            return self.real.open(path, flags, mode, dir_fd=dir_fd)
        target = node.removeprefix("devices/")
        try:
            number = self._open_errors.get(node, 0)
            if number:
                raise OSError(number, os.strerror(number), str(path))
            if not self._node_path(node).exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            file = self._file_behind(node)
            target = file.label
            fd = self._reopen(file, flags)
        except OSError as error:
            self._note(Call(name="open", target=target, result=-1, errno=error.errno or 0))
            raise
        self._note(Call(name="open", target=target, result=fd))
        return fd

    def _file_behind(self, node: str) -> FakeFile:
        """Return what an open of a node is open of: a new file for container, iommufd and KVM."""
        if node.isdecimal():
            group = self._groups[int(node)]
            group.opened()
            return group
        if node.startswith("devices/"):
            driver = self._cdevs[node.removeprefix("devices/")]
            if driver.bound is None and not self.descriptors_of(driver):
                driver.bound = False
            return driver
        file = Iommu() if node == "iommu" else Kvm(self) if node == "kvm" else Container(self)
        self._keep(file)
        return file

    def _node_path(self, node: str) -> Path:
        return self.path / "dev" / (node if node in _OUTSIDE_VFIO else f"vfio/{node}")

    def _node_of(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        dev, text = f"{self.path}/dev/", os.fsdecode(path)
        if not text.startswith(dev):
            return None
        node = text.removeprefix(dev)
        if node in _OUTSIDE_VFIO:
            return node
        return node.removeprefix("vfio/") if node.startswith("vfio/") else None

    def _close(self, fd: int) -> None:
        file = self.file_of(fd)
        self.real.close(fd)
        if file is None:
            return
        last = not self.descriptors_of(file)
        self._note(Call(name="close", target=file.label, last=last))
        if last:
            file.released()
            if not isinstance(file, Driver | Group | DmaBufFile):  # nobody can open the same one again
                self.forget(file)

    def _ioctl(self, fd: Any, request: int, arg: Any = 0, mutate_flag: bool = True, /) -> Any:  # noqa: FBT001, FBT002 - fcntl's own signature
        number = fd if isinstance(fd, int) else fd.fileno()
        file = self.file_of(number)
        if file is None:
            return self.real.ioctl(fd, request, arg, mutate_flag)
        argument: memoryview | int
        copied = None
        if isinstance(arg, int):
            argument = arg
        else:
            view = memoryview(arg.encode() if isinstance(arg, str) else arg).cast("B")
            if view.readonly or not mutate_flag:
                view = memoryview(copied := bytearray(view))
            argument = view
        result = self._dispatch(file, request & 0xFFFFFFFF, UserMemory(argument, self))
        # with an immutable buffer CPython returns the bytes, and a descriptor in the result is lost
        return result if copied is None else bytes(copied)

    def _dispatch(self, file: FakeFile, request: int, user: UserMemory) -> int:
        sent = user.sent
        if request in _CHANGES_A_DEVICE:
            self._changes(file, request_name(request))
        with self._lock:
            self._in_flight[file] = self._in_flight.get(file, 0) + 1
            if self._in_flight[file] > 1:
                self.violate(f"two ioctls of {file.label} at the same time")
        result, number = -1, 0
        try:
            result = file.ioctl(request, user)
        except OSError as error:
            number = error.errno or 0
            raise
        finally:
            with self._lock:
                self._in_flight[file] -= 1
            self._note(Call(name="ioctl", target=file.label, request=request, sent=sent, result=result, errno=number))
        return result

    def _pread(self, fd: int, length: int, offset: int, /) -> bytes:
        file = self.file_of(fd)
        if file is None:
            return self.real.pread(fd, length, offset)
        return self._noted(
            Call(name="pread", target=file.label, offset=offset, size=length), lambda: file.pread(length, offset)
        )

    def _pwrite(self, fd: int, data: Any, offset: int, /) -> int:
        file = self.file_of(fd)
        if file is None:
            return self.real.pwrite(fd, data, offset)
        self._changes(file, "pwrite")
        call = Call(name="pwrite", target=file.label, offset=offset, sent=bytes(data), size=len(data))
        return self._noted(call, lambda: file.pwrite(bytes(data), offset))

    def _noted(self, call: Call, action: Callable[[], T]) -> T:
        try:
            result = action()
        except OSError as error:
            self._note(attrs.evolve(call, result=-1, errno=error.errno or 0))
            raise
        self._note(attrs.evolve(call, result=len(result) if isinstance(result, bytes) else 0))
        return result

    def _map(self, address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        file = self.file_of(fd) if fd >= 0 else None
        if file is not None:
            return self._mapped_file(
                file, length, prot, flags, offset, lambda: self.real.map(address, length, prot, flags, fd, offset)
            )
        result = self.real.map(address, length, prot, flags, fd, offset)
        gone = self._mapped.pop(address, None) if address is not None and flags & _MAP_FIXED else None
        if gone is not None:
            self._note(Call(name="unmap", target=gone[0].label, size=gone[1]))
        return result

    def _mapped_file(
        self, file: FakeFile, length: int, prot: int, flags: int, offset: int, action: Callable[[], int]
    ) -> int:
        if prot & mmap.PROT_WRITE:
            self._changes(file, "a writable mapping")
        call = Call(name="mmap", target=file.label, offset=offset, size=length)
        try:
            file.mmap(offset, length, prot, flags)
            address = action()
        except OSError as error:
            self._note(attrs.evolve(call, result=-1, errno=error.errno or 0))
            raise
        self._mapped[address] = (file, length)
        self._note(call)
        return address

    def _link_of(self, fd: int) -> str:
        return "anon_inode:[vfio-device]" if isinstance(self.file_of(fd), Driver) else self.real.link_of(fd)

    def _fdinfo(self, fd: int) -> str:
        file = self.file_of(fd)
        if isinstance(file, DmaBufFile) and file.exporter:
            return f"size:\t{file.size}\nexp_name:\t{file.exporter}\n"
        return self.real.fdinfo(fd)

    def _mmap_class(self) -> type[mmap.mmap]:
        """Return an mmap.mmap that asks the file behind its descriptor first."""
        kernel = self

        class Mmap(self.real.mmap):  # type: ignore[name-defined,misc]
            def __new__(cls, fileno: int, length: int, *args: Any, **kwargs: Any) -> Self:
                file = kernel.file_of(fileno) if fileno >= 0 else None
                if file is not None:
                    kernel._ask_to_map(file, length, *args, **kwargs)
                made: Self = super().__new__(cls, fileno, length, *args, **kwargs)
                return made

        return Mmap

    def _ask_to_map(
        self,
        file: FakeFile,
        length: int,
        flags: int = mmap.MAP_SHARED,
        prot: int = mmap.PROT_READ | mmap.PROT_WRITE,
        access: int = 0,
        offset: int = 0,
        **_: Any,
    ) -> None:
        if access == mmap.ACCESS_READ:
            flags, prot = mmap.MAP_SHARED, mmap.PROT_READ
        elif access == mmap.ACCESS_COPY:
            flags = mmap.MAP_PRIVATE
        if prot & mmap.PROT_WRITE and flags & mmap.MAP_SHARED:
            self._changes(file, "a writable mapping")
        self._noted(
            Call(name="mmap", target=file.label, offset=offset, size=length),
            lambda: file.mmap(offset, length, prot, flags),
        )
