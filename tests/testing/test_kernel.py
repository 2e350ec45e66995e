"""The fake kernel itself: what is fake, what is real, and that it notices what it is there to notice."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mdevdisplay import _mapping
from mdevdisplay.host import HostRoot, list_mdevs, open_device
from mdevdisplay.region import MappedRegion
from mdevdisplay.testing import (
    DmaBufFile,
    FakeKernel,
    Gvt,
    Mbochs,
    Mdpy,
    Mtty,
    Nvidia,
    PreGfx,
    Region,
    Scripted,
    request_name,
)
from mdevdisplay.vfio import uapi

GET_INFO, GET_REGION_INFO = uapi.VFIO_DEVICE_GET_INFO, uapi.VFIO_DEVICE_GET_REGION_INFO
QUERY, GET_DMABUF = uapi.VFIO_DEVICE_QUERY_GFX_PLANE, uapi.VFIO_DEVICE_GET_GFX_DMABUF
RESET = 0x3B6F
SHARED, READ = mmap.MAP_SHARED, mmap.PROT_READ
Descriptor = Callable[..., int]


def query(fd: int, flags: int = 2, plane: int = 1, *, argsz: int = 64, size: int = 64) -> tuple[int, ...]:
    """One raw query; the answer's 15 numbers after argsz, flags and plane type have been sent."""
    buffer = bytearray(struct.pack("<3I", argsz, flags, plane).ljust(size, b"\0"))
    fcntl.ioctl(fd, QUERY, buffer)
    return struct.unpack("<4IQ10I", bytes(buffer[:64]).ljust(64, b"\0"))


def refusal(call: Callable[[], object]) -> int:
    """The errno that a call fails with, 0 where it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


class TestKernel:
    def test_everything_is_as_before_afterwards(self) -> None:
        """Functions, environment and folder: nothing of it stays."""
        before = (os.open, os.close, os.pread, os.pwrite, fcntl.ioctl, _mapping.mmap, mmap.mmap, dict(os.environ))
        with FakeKernel() as kernel:
            assert os.environ["MDEVDISPLAY_HOST_ROOT"] == str(kernel.path)
            assert os.open is not before[0]
        after = (os.open, os.close, os.pread, os.pwrite, fcntl.ioctl, _mapping.mmap, mmap.mmap, dict(os.environ))
        assert after == before
        assert not kernel.path.exists()

    def test_it_leaves_no_descriptor_of_its_own(self) -> None:
        """The memfds behind groups and devices go with it."""
        before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with FakeKernel() as kernel:
            kernel.lend(kernel.add(Mdpy()))
            os.close(int(kernel.leaks()[0].split()[1]))
            kernel.assert_nothing_left()
        assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_what_is_not_fake_passes_through(self, kernel: FakeKernel, tmp_path: Path) -> None:
        """Files, memfds and terminals work as ever, unseen."""
        path = tmp_path / "file"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        assert os.pwrite(fd, b"hello", 2) == 5
        assert os.pread(fd, 5, 2) == b"hello"
        assert refusal(lambda: fcntl.ioctl(fd, QUERY, bytearray(64))) == errno.ENOTTY
        with mmap.mmap(fd, 7, prot=READ) as mapped:
            assert mapped[2:] == b"hello"
        os.close(fd)
        assert path.read_bytes() == b"\0\0hello"
        with pytest.raises(ValueError, match="negative"):
            fcntl.ioctl(-1, QUERY, bytearray(64))
        assert kernel.calls == []

    def test_a_fake_descriptor_is_a_real_one(self, kernel: FakeKernel, descriptor: Descriptor) -> None:
        """It can be duplicated any way there is; the duplicate reaches the same device."""
        fd = descriptor(Mdpy("vga"))
        copies = [os.dup(fd), fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)]
        for copy in copies:
            assert query(copy, 4)[5] == 640
            assert os.fstat(copy).st_ino == os.fstat(fd).st_ino
        assert len(kernel.leaks()) == 3
        for copy in copies:
            os.close(copy)
        assert [call.last for call in kernel.calls.of("close")] == [False, False]

    def test_leaks_are_named(self, kernel: FakeKernel) -> None:
        """Descriptors and mappings of this process, whoever made them; and none once they are gone."""
        driver = kernel.add(Mdpy("vga"))
        fd = kernel.open_descriptor(driver)
        region = MappedRegion(fd, 4096, 4096)
        mapped = mmap.mmap(fd, 4096, offset=4096, prot=READ)
        leaks = kernel.leaks()
        assert sum(leak.startswith("descriptor") for leak in leaks) == 2  # Python's own mmap keeps one
        assert sum(leak.startswith(f"mapping of {driver.name} at ") for leak in leaks) == 2
        with pytest.raises(AssertionError, match="left in the fake kernel: descriptor"):
            kernel.assert_nothing_left()
        mapped.close()
        region.close()
        os.close(fd)
        assert kernel.leaks() == []

    def test_violations_fail_a_test_too(self) -> None:
        """assert_nothing_left names them."""
        with FakeKernel() as kernel:
            kernel.violate("a rule was broken")
            with pytest.raises(AssertionError, match="a rule was broken"):
                kernel.assert_nothing_left()

    def test_an_immutable_buffer_loses_the_result(self, kernel: FakeKernel) -> None:
        """As CPython's ioctl does: the bytes come back, the new descriptor is leaked (gotcha 17)."""
        driver = kernel.add(Scripted({GET_DMABUF: [lambda user: kernel.export(DmaBufFile("lost", 4096, kernel))]}))
        fd = kernel.open_descriptor(driver)
        assert fcntl.ioctl(fd, GET_DMABUF, b"\1\0\0\0") == b"\1\0\0\0"
        (lost,) = [leak for leak in kernel.leaks() if leak.endswith("of lost")]
        os.close(int(lost.split()[1]))
        os.close(fd)

    def test_a_buffer_shorter_than_it_claims_is_a_violation(self) -> None:
        """The real kernel would read or write behind it."""
        with FakeKernel() as kernel:
            fd = kernel.open_descriptor(kernel.add(Mdpy()))
            query(fd, 4, size=32)
            assert kernel.violations[0] == "the driver reads 60 bytes from a buffer of 32"
            kernel.violations.clear()
            query(fd, 4, argsz=100)
            assert "argsz 100 is more than the buffer's 64 bytes" in kernel.violations[0]
            os.close(fd)

    def test_two_requests_at_once_are_a_violation(self) -> None:
        """A device is asked one thing at a time (gotcha 11)."""
        with FakeKernel() as kernel:
            driver = kernel.add(Mdpy())
            fd = kernel.open_descriptor(driver)
            begun, release = threading.Event(), threading.Event()

            def stall(request: int) -> None:
                begun.set()
                assert release.wait(20)

            driver.stall = stall
            thread = threading.Thread(target=query, args=(fd, 4))
            thread.start()
            assert begun.wait(20)
            release.set()
            driver.stall = None
            begun.clear()
            thread.join(20)
            assert kernel.violations == []
            release.clear()
            driver.stall = stall
            thread = threading.Thread(target=query, args=(fd, 4))
            thread.start()
            assert begun.wait(20)
            driver.stall = None
            query(fd, 4)
            release.set()
            thread.join(20)
            assert kernel.violations == [f"two ioctls of {driver.name} at the same time"]
            os.close(fd)

    @pytest.mark.parametrize("what", ["reset", "pwrite", "map", "python map"])
    def test_changing_a_lent_device_is_a_violation(self, what: str) -> None:
        """Nobody may reset, write or map for writing what a VMM holds; on one's own it is fine."""
        with FakeKernel() as kernel:
            driver = kernel.add(Mdpy("vga"))

            def change(fd: int) -> None:
                if what == "reset":
                    refusal(lambda: fcntl.ioctl(fd, RESET))
                elif what == "pwrite":
                    os.pwrite(fd, b"x", 4096)
                elif what == "map":
                    address = _mapping.mmap(None, 4096, READ | mmap.PROT_WRITE, SHARED, fd, 4096)
                    _mapping._libc.munmap(address, 4096)
                else:
                    mmap.mmap(fd, 4096, offset=4096).close()

            own = kernel.open_descriptor(driver)
            change(own)
            os.close(own)
            assert kernel.violations == []
            lent = kernel.lend(driver)
            change(lent)
            os.close(lent)
            assert [entry for entry in kernel.violations if "which a VMM holds" in entry]

    def test_the_record_reads_well(self, kernel: FakeKernel, descriptor: Descriptor) -> None:
        """Requests by their names, errnos as numbers."""
        fd = descriptor(Mtty())
        assert refusal(lambda: query(fd)) == errno.ENOTTY
        assert str(kernel.calls[-1]) == f"ioctl VFIO_DEVICE_QUERY_GFX_PLANE of {kernel.calls[-1].target} -> errno 25"
        assert (request_name(0x3B6F), request_name(0x3BFF)) == ("VFIO_DEVICE_RESET", "0x3bff")

    def test_sysfs_is_linked_as_the_kernel_does(self, kernel: FakeKernel) -> None:
        """Relative links that lead where they should, for an mdev and for a PCI function."""
        mdev, function = kernel.add(Mdpy()), kernel.add(Nvidia("0000:41:00.4", pci=True))
        sys = kernel.sysfs.path
        links = [path for path in sys.rglob("*") if path.is_symlink()]
        assert len(links) > 15
        assert all(path.exists() and not str(path.readlink()).startswith("/") for path in links)
        device = sys / "bus/mdev/devices" / mdev.name
        assert device.resolve() == sys / "devices/virtual/mdpy/mdpy" / mdev.name
        assert (device / "iommu_group").resolve() == sys / "kernel/iommu_groups/1"
        assert (device / "mdev_type/device_api").read_text() == "vfio-pci\n"
        assert (sys / "class/mdev_bus/mdpy/mdev_supported_types/mdpy-xga/devices" / mdev.name).resolve() == (
            device.resolve()
        )
        assert (sys / "bus/pci/devices" / function.name / "physfn").resolve().name == "0000:41:00.0"
        kernel.remove(mdev)
        kernel.remove(function)
        assert not [path for path in sys.rglob("*") if path.is_symlink() and not path.exists()]
        assert list_mdevs(HostRoot.from_environment()) == []

    def test_a_group_opens_once(self, kernel: FakeKernel) -> None:
        """And stays busy as long as its device is open, whoever holds it."""
        node = kernel.path / "dev/vfio" / str(kernel.add(Mdpy()).group)
        first = os.open(node, os.O_RDWR)
        assert refusal(lambda: os.open(node, os.O_RDWR)) == errno.EBUSY
        os.close(first)
        os.close(os.open(node, os.O_RDWR))

    def test_the_core_refuses_what_is_out_of_order(self, kernel: FakeKernel) -> None:
        """Device before IOMMU, IOMMU before group, a container that is none, a second container."""
        driver = kernel.add(Mdpy())
        container = os.open(kernel.path / "dev/vfio/vfio", os.O_RDWR)
        group = os.open(kernel.path / "dev/vfio/1", os.O_RDWR)
        name = bytearray(driver.name.encode() + b"\0")
        assert refusal(lambda: fcntl.ioctl(container, uapi.VFIO_SET_IOMMU, 1)) == errno.EINVAL
        assert refusal(lambda: fcntl.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, name)) == errno.EINVAL
        own = bytearray(struct.pack("<i", group))
        assert refusal(lambda: fcntl.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, own)) == errno.EBADFD
        argument = bytearray(struct.pack("<i", container))
        fcntl.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, argument)
        assert refusal(lambda: fcntl.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, argument)) == errno.EINVAL
        assert fcntl.ioctl(container, uapi.VFIO_CHECK_EXTENSION, 3) == 1
        assert fcntl.ioctl(container, uapi.VFIO_CHECK_EXTENSION, 8) == 0
        fcntl.ioctl(container, uapi.VFIO_SET_IOMMU, 1)
        unknown = bytearray(b"no-such-device\0")
        assert refusal(lambda: fcntl.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, unknown)) == errno.ENODEV
        device = fcntl.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, name)
        assert refusal(lambda: fcntl.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)) == errno.EBUSY
        os.close(device)
        fcntl.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)
        for fd in (group, container):
            os.close(fd)

    def test_a_dmabufs_reads_are_balanced(self) -> None:
        """An END without START, and a buffer closed in the middle of a read, are violations."""
        with FakeKernel() as kernel:
            fd = kernel.export(DmaBufFile("buffer", 8192, kernel))
            for flags, number in ((0, errno.EINVAL), (9, errno.EINVAL), (1, 0), (5, 0), (5, 0), (1, 0)):
                call = partial(fcntl.ioctl, fd, 0x40086200, bytearray(struct.pack("<Q", flags)))
                assert refusal(call) == number
            os.close(fd)
            assert kernel.violations == [
                "buffer: a CPU read was ended that was not begun",
                "buffer: closed in the middle of a CPU read",
            ]

    def test_without_a_kernel_a_driver_says_so(self) -> None:
        """It has to be added first."""
        with pytest.raises(RuntimeError, match="add the driver to a FakeKernel first"):
            _ = Mdpy().kernel
        with pytest.raises(RuntimeError, match="add the driver"):
            Mdpy().paint(b"x")


class TestDrivers:
    """Each driver against what the real one does to a caller."""

    @pytest.mark.parametrize(
        ("driver", "flags", "number"),
        [
            *((Mdpy, flags, errno.EINVAL) for flags in (3, 1, 0, 7, 2, 8, 12, 0xFF)),
            *((Mdpy, flags, 0) for flags in (5, 4)),
            *((Mbochs, flags, errno.EINVAL) for flags in (5, 1, 0, 7, 4, 8, 10, 0xFF)),
            *((Mbochs, flags, 0) for flags in (3, 2)),
            *((Gvt, flags, errno.EINVAL) for flags in (5, 1, 0, 7, 4, 8, 10, 0xFF)),
            *((Gvt, flags, 0) for flags in (3, 2)),
            *((Nvidia, flags, errno.EINVAL) for flags in (3, 1, 0, 2, 8)),
            *((Nvidia, flags, 0) for flags in (5, 4, 12, 0xFC)),
            *((Mtty, flags, errno.ENOTTY) for flags in (0, 2, 3, 4, 5)),
            *((PreGfx, flags, 0) for flags in (0, 2, 3, 4, 5, 0xFF)),
        ],
    )
    def test_flags(self, descriptor: Descriptor, driver: type[Mdpy], flags: int, number: int) -> None:
        """Strictly one of four, but for NVIDIA, which looks at one bit, and a driver that knows none."""
        fd = descriptor(driver())
        assert refusal(lambda: query(fd, flags)) == number

    @pytest.mark.parametrize("driver", [Mdpy, Mbochs, Gvt, Nvidia])
    def test_argsz_below_60_is_einval(self, descriptor: Descriptor, driver: type[Mdpy]) -> None:
        """Drivers want everything up to and with the union; larger is accepted."""
        fd = descriptor(driver())
        flags = 4 if driver in (Mdpy, Nvidia) else 2
        assert refusal(lambda: query(fd, flags, argsz=59)) == errno.EINVAL
        for argsz in (60, 64, 128):
            assert refusal(partial(query, fd, flags, argsz=argsz, size=argsz)) == 0

    @pytest.mark.parametrize(
        ("driver", "number"),
        [(Mdpy, errno.ENOTTY), (Mbochs, errno.ENOTTY), (Gvt, errno.ENOTTY), (Nvidia, errno.EINVAL), (PreGfx, 0)],
    )
    def test_unknown_ioctls(self, descriptor: Descriptor, driver: type[Mdpy], number: int) -> None:
        """ENOTTY, but for NVIDIA and a driver that returns 0 for everything."""
        fd = descriptor(driver())
        assert refusal(lambda: fcntl.ioctl(fd, 0x3BFF, bytearray(64))) == number

    @pytest.mark.parametrize(
        ("driver", "number"),
        [
            (Mdpy, errno.ENOTTY),
            (Mbochs, errno.ENOENT),
            (Gvt, errno.EINVAL),
            (Nvidia, errno.EINVAL),
            (Mtty, errno.ENOTTY),
        ],
    )
    def test_an_unknown_dmabuf(self, descriptor: Descriptor, driver: type[Mdpy], number: int) -> None:
        """Each says no in its own way."""
        fd = descriptor(driver())
        assert refusal(lambda: fcntl.ioctl(fd, GET_DMABUF, bytearray(4))) == number

    @pytest.mark.parametrize(
        ("argsz", "number"), [(31, errno.EINVAL), (32, 0), (40, 0), (48, 0), (49, errno.EINVAL), (64, errno.EINVAL)]
    )
    def test_mbochs_takes_32_to_48_bytes_of_region_info(self, descriptor: Descriptor, argsz: int, number: int) -> None:
        """And leaves garbage in those that it does not fill."""
        fd = descriptor(Mbochs())
        buffer = bytearray(struct.pack("<3I", argsz, 0, 0).ljust(64, b"\0"))
        assert refusal(lambda: fcntl.ioctl(fd, GET_REGION_INFO, buffer)) == number
        assert buffer[32:argsz] == (b"\xa5" * max(0, argsz - 32) if not number else bytes(max(0, argsz - 32)))

    def test_mdpy_reads_its_first_bytes_everywhere(self, descriptor: Descriptor) -> None:
        """The position is ignored (gotcha 9)."""
        driver = Mdpy("vga")
        fd = descriptor(driver)
        driver.paint(b"0123")
        driver.paint(b"abcd", 100_000)
        assert os.pread(fd, 4, 4096 + 100_000) == b"0123"
        assert refusal(lambda: os.pread(fd, 4, 4096 + (2 << 20))) == errno.EINVAL

    @pytest.mark.parametrize(
        ("offset", "length", "flags", "number"),
        [
            (4096, 2 << 20, SHARED, 0),
            (4096, 4096, SHARED, 0),
            (4096, (2 << 20) + 4096, SHARED, errno.EINVAL),
            (8192, 4096, SHARED, errno.EINVAL),
            (0, 4096, SHARED, errno.EINVAL),
            (4096, 4096, mmap.MAP_PRIVATE, errno.EINVAL),
        ],
    )
    def test_mdpy_is_mapped_from_its_start(
        self, descriptor: Descriptor, offset: int, length: int, flags: int, number: int
    ) -> None:
        """Shared, pgoff 1, no longer than its memory (gotcha 8)."""
        fd = descriptor(Mdpy("vga"))

        def attempt() -> None:
            _mapping._libc.munmap(_mapping.mmap(None, length, READ, flags, fd, offset), length)

        assert refusal(attempt) == number
        assert refusal(lambda: mmap.mmap(fd, length, flags, READ, offset=offset).close()) == number

    @pytest.mark.parametrize(
        ("position", "size", "value"),
        [(0x502, 2, 640), (0x504, 2, 480), (0x502, 1, 0), (0x504, 4, 0), (0x600, 2, 0)],
    )
    def test_mbochs_registers_answer_reads_of_two_bytes(
        self, descriptor: Descriptor, position: int, size: int, value: int
    ) -> None:
        """Others get zeros."""
        driver = Mbochs()
        fd = descriptor(driver)
        driver.set_mode(640, 480)
        assert int.from_bytes(os.pread(fd, size, 4096 + position), "little") == value

    def test_mbochs_pixels_are_read_two_pages_off(self) -> None:
        """Wrong bytes, and a violation (gotcha 9)."""
        with FakeKernel() as kernel:
            driver = kernel.add(Mbochs())
            fd = kernel.open_descriptor(driver)
            driver.write(12288, b"here")
            driver.write(12288 + 8192, b"away")
            assert os.pread(fd, 4, 12288) == b"away"
            assert len(kernel.violations) == 1
            assert refusal(lambda: os.pread(fd, 4, 12288 + (4 << 20))) == errno.EFAULT
            os.close(fd)

    def test_a_second_get_of_an_mbochs_id_is_a_violation(self) -> None:
        """Also after the first descriptor was closed; reopening the device starts anew (gotcha 4)."""
        with FakeKernel() as kernel:
            driver = kernel.add(Mbochs())
            driver.set_mode(640, 480)
            for _ in range(2):
                fd = kernel.open_descriptor(driver)
                assert refusal(partial(query, fd)) == errno.ENOMEM
                number = query(fd)[13]
                buffer = fcntl.ioctl(fd, GET_DMABUF, bytearray(struct.pack("<I", number)))
                assert os.get_inheritable(buffer)
                assert fcntl.fcntl(buffer, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
                os.close(buffer)
                os.close(fd)
            assert kernel.violations == []
            fd = kernel.open_descriptor(driver)
            assert refusal(lambda: query(fd)) == errno.ENOMEM
            argument = bytearray(struct.pack("<I", query(fd)[13]))
            os.close(fcntl.ioctl(fd, GET_DMABUF, argument))
            held = fcntl.ioctl(fd, GET_DMABUF, argument)
            assert ["second GET_GFX_DMABUF" in entry for entry in kernel.violations] == [True]
            os.close(fd)
            assert "outlives the device" in kernel.violations[-1]
            os.close(held)

    def test_gvt_leaves_the_callers_bytes_alone(self, descriptor: Descriptor) -> None:
        """A plane that is off is a success that answers nothing (gotcha 1)."""
        fd = descriptor(Gvt())
        buffer = bytearray(struct.pack("<3I", 64, 2, 1) + b"\x77" * 52)
        assert fcntl.ioctl(fd, QUERY, buffer) == 0
        assert buffer[12:] == b"\x77" * 52
        assert refusal(lambda: query(fd, plane=0)) == errno.EINVAL

    def test_gvt_gives_ids_again(self, descriptor: Descriptor) -> None:
        """An id lives as long as its dma-buf is open, or until it was fetched; then the lowest free one is next."""
        driver = Gvt()
        fd = descriptor(driver)

        def shown(address: int) -> int:
            driver.show(64, 64, address=address)
            return query(fd)[13]

        def fetch(number: int) -> int:
            return int(fcntl.ioctl(fd, GET_DMABUF, bytearray(struct.pack("<I", number))))

        assert [shown(0x1000), shown(0x10000), shown(0x1000)] == [1, 2, 1]
        first = fetch(1)
        assert shown(0x20000) == 3
        os.close(first)
        assert shown(0x30000) == 1
        assert refusal(lambda: fetch(9)) == errno.EINVAL
        second = fetch(1)
        assert not os.get_inheritable(second)
        os.close(second)

    def test_gvts_paint_is_seen_through_its_dmabuf(self, kernel: FakeKernel, descriptor: Descriptor) -> None:
        """The buffer is the guest's memory, not a copy; and no CPU maps it."""
        driver = Gvt()
        fd = descriptor(driver)
        driver.show(64, 64)
        number = query(fd)[13]
        buffer = fcntl.ioctl(fd, GET_DMABUF, bytearray(struct.pack("<I", number)))
        driver.paint(b"later", 100)
        assert kernel.real.pread(buffer, 5, 100) == b"later"
        assert refusal(lambda: mmap.mmap(buffer, 4096, prot=READ)) == errno.ENODEV
        os.close(buffer)

    def test_nvidia_is_mapped_once_and_only_its_surface(self, descriptor: Descriptor) -> None:
        """Not before there is a surface, not beyond it, not twice (gotcha 10)."""
        driver = Nvidia()
        fd = descriptor(driver)

        def attempt(length: int) -> mmap.mmap:
            return mmap.mmap(fd, length, prot=READ, offset=9 << 40)

        assert refusal(lambda: attempt(4096)) == errno.EINVAL
        driver.show(64, 64)
        assert refusal(lambda: attempt(20480)) == errno.EINVAL
        with attempt(16384):
            assert refusal(lambda: attempt(4096)) == errno.EINVAL
        attempt(4096).close()
        driver.mapped_elsewhere = True
        assert refusal(lambda: attempt(4096)) == errno.EINVAL
        assert refusal(lambda: os.pread(fd, 4, 9 << 40)) == errno.EFAULT

    def test_nvidia_leaves_fields_as_they_were_sent(self, descriptor: Descriptor) -> None:
        """Modifier, position and hot spot."""
        driver = Nvidia()
        fd = descriptor(driver)
        driver.show(64, 64)
        buffer = bytearray(struct.pack("<3I", 64, 4, 2) + b"\x77" * 52)
        fcntl.ioctl(fd, QUERY, buffer)
        assert buffer[16:24] == b"\x77" * 8
        assert buffer[40:56] == b"\x77" * 16
        assert struct.unpack_from("<I", buffer, 24)[0] == 64

    def test_scripted_answers(self, descriptor: Descriptor) -> None:
        """Bytes, results, errnos and functions in order; the last one for ever, the rest is ENOTTY."""
        fd = descriptor(Scripted({QUERY: [b"abc", 7, -errno.EIO, lambda user: len(user.sent)]}))
        buffer = bytearray(8)
        assert fcntl.ioctl(fd, QUERY, buffer) == 0
        assert buffer == b"abc\0\0\0\0\0"
        assert fcntl.ioctl(fd, QUERY, buffer) == 7
        assert refusal(lambda: fcntl.ioctl(fd, QUERY, buffer)) == errno.EIO
        assert [fcntl.ioctl(fd, QUERY, bytearray(size)) for size in (3, 5)] == [3, 5]
        assert refusal(lambda: fcntl.ioctl(fd, GET_DMABUF, buffer)) == errno.ENOTTY

    def test_answers_in_between(self, descriptor: Descriptor) -> None:
        """answer_next overrides a real driver for as many calls."""
        driver = Mdpy("vga")
        fd = descriptor(driver)
        driver.answer_next(QUERY, -errno.EIO, -errno.ENOMEM)
        assert [refusal(lambda: query(fd, 4)) for _ in range(3)] == [errno.EIO, errno.ENOMEM, 0]

    def test_a_driver_of_ones_own(self, kernel: FakeKernel) -> None:
        """What a vendor writes: a subclass with a query; everything else is there."""

        class Acme(Scripted):
            module, mdev_type, parent = "acme", "acme-1", "virtual/acme/acme"

            def dispatch(self, request: int, user: object) -> int:
                return 42 if request == 0x3B99 else super().dispatch(request, user)  # type: ignore[arg-type]

        driver = kernel.add(Acme(regions={0: Region(0, 4096)}))
        with open_device(driver.name) as device:
            assert device.identity.vendor == "acme"
            assert device.ioctl(0x3B99, bytearray(4)) == 42
            region = device.region(0)
            assert region is not None
            driver.write(8, b"hi")
            assert device.pread(region, 8, 2) == b"hi"


def test_hundreds_of_dmabufs_do_not_exhaust_the_process(kernel: FakeKernel, descriptor: Descriptor) -> None:
    """The kernel keeps one descriptor a buffer: a stress test has room for its own."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(200, soft // 4)
    driver = Mbochs(memory=16 << 20)
    fd = descriptor(driver)
    buffers = []
    for start in range(count):
        driver.set_mode(64, 64, y=start * 16)
        assert refusal(lambda: query(fd)) == errno.ENOMEM
        buffers.append(fcntl.ioctl(fd, GET_DMABUF, bytearray(struct.pack("<I", query(fd)[13]))))
    assert len(kernel.leaks()) == count + 1
    for buffer in buffers:
        os.close(buffer)
