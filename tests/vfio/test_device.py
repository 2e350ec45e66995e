"""A device by its descriptor: the borrowed read-only policy, reads, the order of closing."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import Closed, DeviceGone, DriverError, MdevDisplayError, NotPermitted, PluginError
from mdevdisplay.host import open_device
from mdevdisplay.region import map_region
from mdevdisplay.surface import PlaneType, RegionInfo
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia, Region, Scripted
from mdevdisplay.vfio import Device, DeviceSummary, GfxKind, ReadOnlyAccess, RegisterRange, uapi
from mdevdisplay.vfio import device as vfio_device

Opener = Callable[..., Device]

GET_INFO, GET_REGION_INFO = uapi.VFIO_DEVICE_GET_INFO, uapi.VFIO_DEVICE_GET_REGION_INFO
QUERY, GET_DMABUF = uapi.VFIO_DEVICE_QUERY_GFX_PLANE, uapi.VFIO_DEVICE_GET_GFX_DMABUF
RESET = 0x3B6F
NEVER = [0x3B6E, RESET, 0x3B71, 0x3B74, 0x3B75, 0x3B76, 0x3B77, 0x3B78]
"""SET_IRQS, RESET, PCI_HOT_RESET, IOEVENTFD, FEATURE, and binding and attaching to an iommufd."""


class TestTakingOver:
    def test_the_descriptor_is_the_devices_own(self, kernel: FakeKernel) -> None:
        """It is made close-on-exec, and closed with the object, once."""
        fd = kernel.open_descriptor(kernel.add(Mdpy()), cloexec=False)
        device = Device(fd, "fd:7")
        assert device.fileno() == fd
        assert not os.get_inheritable(fd)
        device.close()
        device.close()
        assert len(kernel.calls.of("close")) == 1

    @pytest.mark.parametrize("fd", [-1, 999_999])
    def test_a_descriptor_that_is_not_open_is_an_error_of_ours(self, fd: int) -> None:
        """``fd:`` locators come from users: no OSError, and no warning about a device that never was."""
        with pytest.raises(DriverError, match="taking over descriptor") as caught:
            Device(fd, f"fd:{fd}")
        assert caught.value.errno == errno.EBADF

    def test_a_descriptor_is_closed_where_taking_it_over_fails(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was handed over: nobody else would close it, and nothing warns of a device that never was."""

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(vfio_device, "plane_query", fail)
        fd = kernel.open_descriptor(kernel.add(Mdpy()))
        with pytest.raises(MemoryError):
            Device(fd, "fd:7")
        assert kernel.leaks() == []
        assert len(kernel.calls.of("close")) == 1

    def test_a_forgotten_device_warns_and_is_closed(self, kernel: FakeKernel) -> None:
        """A ResourceWarning with its locator."""
        held = [Device(kernel.open_descriptor(kernel.add(Mdpy())), "vm:win10")]
        with pytest.warns(ResourceWarning, match="vm:win10: a source was not closed"):
            held.clear()
        assert kernel.leaks() == []

    def test_info(self, opened: Opener) -> None:
        """Flags and counts of GET_INFO."""
        assert opened(Mbochs()).info() == DeviceSummary(flags=2, num_regions=10, num_irqs=5)

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTTY, errno.ENODEV])
    def test_what_is_no_bound_device_says_so(self, opened: Opener, number: int) -> None:
        """An unbound cdev answers EINVAL to everything (gotcha 21): the hint asks for that."""
        with pytest.raises(MdevDisplayError, match="a cdev bound") as caught:
            opened(Scripted({GET_INFO: [-number]})).info()
        assert caught.value.errno == number


class TestNever:
    @pytest.mark.parametrize("borrowed", [False, True])
    @pytest.mark.parametrize("request_number", NEVER)
    def test_what_changes_a_device_never_reaches_the_kernel(
        self, kernel: FakeKernel, opened: Opener, request_number: int, borrowed: bool
    ) -> None:
        """On one's own device either, and however the number is spelt: the kernel looks at 32 bits of it."""
        device = opened(Scripted({request_number: [0]}), borrowed=borrowed)
        for spelling in (request_number, request_number | 1 << 32, request_number - (1 << 32)):
            with pytest.raises(NotPermitted, match=f"ioctl 0x{request_number:x} .VFIO_DEVICE_") as caught:
                device.ioctl(spelling, bytearray(64))
            assert (caught.value.cause, caught.value.device) == ("read-only", device.locator)
        assert kernel.calls == []

    @pytest.mark.parametrize("request_number", NEVER)
    def test_it_cannot_be_declared_as_harmless(self, kernel: FakeKernel, opened: Opener, request_number: int) -> None:
        """The declaration is refused as a whole, and what was allowed before stays."""
        device = opened(Scripted({0x3B99: [5]}), borrowed=True)
        device.allow(ReadOnlyAccess(ioctls=(0x3B99,)))
        for spelling in (request_number, request_number | 1 << 32):
            with pytest.raises(PluginError, match=f"declared ioctl 0x{spelling:x} .VFIO_DEVICE_"):
                device.allow(ReadOnlyAccess(ioctls=(0x3B9A, spelling)))
        assert device.ioctl(0x3B99, bytearray(8)) == 5
        with pytest.raises(NotPermitted):
            device.ioctl(0x3B9A, bytearray(8))
        assert kernel.calls.requests() == [0x3B99]

    @pytest.mark.parametrize("borrowed", [False, True])
    def test_a_dmabuf_is_asked_for_by_its_own_method_only(
        self, kernel: FakeKernel, opened: Opener, borrowed: bool
    ) -> None:
        """get_dmabuf() keeps the rule of one GET an id (gotcha 4); nothing goes round it, declared or not."""
        device = opened(Gvt(), borrowed=borrowed)
        device.allow(ReadOnlyAccess(ioctls=(GET_DMABUF,)))
        for spelling in (GET_DMABUF, GET_DMABUF | 1 << 40):
            with pytest.raises(NotPermitted, match="twice for one id") as caught:
                device.ioctl(spelling, bytearray(4))
        assert "get_dmabuf()" in caught.value.hint
        assert kernel.calls == []

    def test_a_closed_device_is_not_reset_either(self, kernel: FakeKernel) -> None:
        """The refusal comes before every other check."""
        device = Device(kernel.open_descriptor(kernel.add(Mdpy())), "fd:7")
        device.close()
        with pytest.raises(NotPermitted):
            device.ioctl(RESET, bytearray(8))

    def test_the_policys_error_travels(self, opened: Opener) -> None:
        """It pickles with its cause, so that a worker process can report it."""
        with pytest.raises(NotPermitted) as caught:
            opened(Mdpy(), borrowed=True).ioctl(RESET, bytearray(8))
        twin = pickle.loads(pickle.dumps(caught.value))
        assert (str(twin), twin.cause) == (str(caught.value), "read-only")


class TestBorrowed:
    @pytest.mark.parametrize("request_number", [GET_INFO, GET_REGION_INFO, QUERY])
    def test_what_is_harmless_reaches_the_driver(self, kernel: FakeKernel, opened: Opener, request_number: int) -> None:
        """Query, info and region info."""
        device = opened(Scripted({request_number: [0]}), borrowed=True)
        assert device.ioctl(request_number, bytearray(64)) == 0
        assert kernel.calls.requests() == [request_number]

    @pytest.mark.parametrize("request_number", [0x3B6D, 0x3B70, 0x3B79, QUERY + 0x100, 0])
    def test_everything_else_never_reaches_the_kernel(
        self, kernel: FakeKernel, opened: Opener, request_number: int
    ) -> None:
        """Borrowed means read-only: the request is refused before any system call."""
        device = opened(Scripted({request_number: [0]}), borrowed=True)
        with pytest.raises(NotPermitted, match=f"ioctl 0x{request_number:x} is not among") as caught:
            device.ioctl(request_number, bytearray(64))
        assert caught.value.cause == "borrowed-read-only"
        assert caught.value.device == device.locator
        assert kernel.calls == []

    def test_a_declared_ioctl_is_allowed_and_no_other(self, kernel: FakeKernel, opened: Opener) -> None:
        """What the chosen backend declares in readonly_access is let through."""
        device = opened(Scripted({0x3B99: [5]}), borrowed=True)
        device.allow(ReadOnlyAccess(ioctls=(0x3B99,)))
        assert device.ioctl(0x3B99, bytearray(8)) == 5
        with pytest.raises(NotPermitted):
            device.ioctl(0x3B9A, bytearray(8))
        assert kernel.calls.requests() == [0x3B99]

    def test_an_owned_device_takes_a_vendors_own_request(self, kernel: FakeKernel, opened: Opener) -> None:
        """What nobody knows to change the device needs no declaration there."""
        assert opened(Scripted({0x3B99: [7]})).ioctl(0x3B99, bytearray(8)) == 7
        assert kernel.calls.requests() == [0x3B99]

    @pytest.mark.parametrize("borrowed", [False, True])
    def test_bytes_are_refused_before_the_call(self, kernel: FakeKernel, opened: Opener, borrowed: bool) -> None:
        """With an immutable buffer CPython would return it, and lose a new descriptor (gotcha 17)."""
        device = opened(Gvt(), borrowed=borrowed)
        with pytest.raises(TypeError, match="bytearray"):
            device.ioctl(QUERY, bytes(64))  # type: ignore[arg-type]
        assert kernel.calls == []

    def test_config_space_may_be_read(self, opened: Opener) -> None:
        """Vendor and device of the PCI function, at any time."""
        device = opened(Mbochs(), borrowed=True)
        config = device.region(uapi.VFIO_PCI_CONFIG_REGION_INDEX)
        assert config is not None
        assert device.pread(config, 0, 4) == bytes.fromhex("34121111")

    @pytest.mark.parametrize(
        ("offset", "size", "allowed"),
        [(0x510, 4, True), (0x510, 2, True), (0x512, 2, True), (0x50E, 2, False), (0x512, 4, False), (0x514, 2, False)],
    )
    def test_registers_only_as_declared(
        self, kernel: FakeKernel, opened: Opener, offset: int, size: int, allowed: bool
    ) -> None:
        """A range is allowed from its first to its last byte; nothing that sticks out of it."""
        device = opened(Mbochs(), borrowed=True)
        device.allow(ReadOnlyAccess(registers=(RegisterRange(2, 0x510, 4),)))
        region = device.region(2)
        assert region is not None
        if allowed:
            assert len(device.pread(region, offset, size)) == size
            return
        with pytest.raises(NotPermitted, match=f"reading bytes {offset} to {offset + size} of region 2") as caught:
            device.pread(region, offset, size)
        assert caught.value.cause == "borrowed-read-only"
        assert kernel.calls.of("pread") == []

    def test_a_range_of_another_region_allows_nothing(self, kernel: FakeKernel, opened: Opener) -> None:
        """The region's number belongs to the declaration."""
        device = opened(Mbochs(), borrowed=True)
        device.allow(ReadOnlyAccess(registers=(RegisterRange(2, 0, 4096),)))
        pixels = device.region(0)
        assert pixels is not None
        with pytest.raises(NotPermitted):
            device.pread(pixels, 0, 4)
        assert kernel.calls.of("pread") == []

    def test_reading_a_display_changes_nothing(self, kernel: FakeKernel, opened: Opener) -> None:
        """Everything a reader does on a VM's device: the fake kernel counts what would change it as a violation."""
        driver = Mdpy("vga")
        device = opened(driver, borrowed=True)
        device.info()
        list(device.regions())
        assert device.probe(GfxKind.REGION).supported
        surface = device.query_plane(PlaneType.PRIMARY, GfxKind.REGION)
        assert surface is not None
        with map_region(device.mappable(16), surface.needed) as region:
            assert region.size == 2 << 20
        assert device.read_edid() is None
        assert kernel.calls.of("pwrite") == []
        assert kernel.violations == []


class TestReading:
    @pytest.mark.parametrize(
        ("offset", "size"), [(-1, 1), (0, 0), (0, -1), (4096, 1), (4095, 2), (0, 4097), (1 << 63, 1), (0, 1 << 62)]
    )
    def test_a_read_stays_inside_its_region(self, kernel: FakeKernel, opened: Opener, offset: int, size: int) -> None:
        """Ranges outside are refused before anything is allocated or read."""
        device = opened(Scripted(regions={0: Region(0, 4096)}))
        region = device.region(0)
        assert region is not None
        with pytest.raises(DriverError, match="outside region 0 of 4096 bytes"):
            device.pread(region, offset, size)
        assert kernel.calls.of("pread") == []

    @pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 4096, (1 << 63) - 100])
    def test_a_region_beyond_the_end_of_a_file_cannot_be_read(
        self, kernel: FakeKernel, opened: Opener, offset: int
    ) -> None:
        """A driver may report any 64-bit offset; a file position has 63 bits."""
        with pytest.raises(DriverError, match="are outside region 0"):
            opened(Scripted()).pread(RegionInfo(index=0, size=4096, offset=offset), 0, 4)
        assert kernel.calls.of("pread") == []

    @pytest.fixture
    def window(self, opened: Opener) -> Device:
        return opened(Scripted(regions={0: Region(0, 8192)}))

    @given(
        region=st.builds(RegionInfo, index=st.just(0), size=st.integers(0, 1 << 64), offset=st.integers(0, 1 << 64)),
        offset=st.integers(-10, 1 << 64),
        size=st.integers(-10, 1 << 16),
    )
    def test_any_region_and_range_is_an_error_of_ours_where_it_cannot_be_read(
        self, window: Device, region: RegionInfo, offset: int, size: int
    ) -> None:
        """Whatever numbers a driver and a backend make up; a region that no file can hold is read nowhere."""
        possible = region.offset + region.size < 1 << 63
        if possible and 0 <= offset < offset + size <= region.size and region.offset + offset + size <= 8192:
            assert len(window.pread(region, offset, size)) == size
            return
        with pytest.raises(MdevDisplayError):
            window.pread(region, offset, size)

    @given(
        base=st.integers(0, 9000), length=st.integers(0, 9000), offset=st.integers(-5, 9000), size=st.integers(-5, 9000)
    )
    def test_plausible_reads(self, window: Device, base: int, length: int, offset: int, size: int) -> None:
        """What lies in the region and in the file is read, and nothing else."""
        region = RegionInfo(index=0, size=length, offset=base)
        if 0 <= offset < offset + size <= length and base + offset + size <= 8192:
            assert len(window.pread(region, offset, size)) == size
            return
        with pytest.raises(MdevDisplayError):
            window.pread(region, offset, size)

    def test_a_read_at_the_regions_own_offset(self, kernel: FakeKernel, opened: Opener) -> None:
        """The region's offset in the file is added, as it is."""
        driver = Nvidia()
        device = opened(driver)
        config = device.region(7)
        assert config is not None
        assert device.pread(config, 0, 4) == bytes.fromhex("de10381b")
        assert [call.offset for call in kernel.calls.of("pread")] == [7 << 40]

    def test_a_refused_read_is_an_error_of_ours(self, opened: Opener) -> None:
        """EFAULT from the driver, with what was read."""
        device = opened(Nvidia())
        console = device.region(9)
        assert console is not None
        with pytest.raises(DriverError, match="reading 4 bytes of region 9 at 0 failed: EFAULT"):
            device.pread(console, 0, 4)

    def test_a_short_read_is_an_error(self, opened: Opener) -> None:
        """Half an answer is none."""

        class Short(Scripted):
            def pread(self, size: int, offset: int) -> bytes:
                return super().pread(size, offset)[:-1]

        device = opened(Short(regions={0: Region(0, 4096)}))
        region = device.region(0)
        assert region is not None
        with pytest.raises(DriverError, match="reading 4 bytes of region 0 at 8 gave 3"):
            device.pread(region, 8, 4)


class TestMapping:
    @pytest.mark.parametrize(("index", "words"), [(3, "cannot be mapped"), (40, "does not exist")])
    def test_a_region_that_cannot_be_mapped_is_named(self, opened: Opener, index: int, words: str) -> None:
        """The plane info may name any region: one without memory is the driver's contradiction."""
        with pytest.raises(DriverError, match=f"region {index}, where the display should be, {words}"):
            opened(Mdpy()).mappable(index)

    def test_mbochs_pixels_are_mapped_and_never_read(self, kernel: FakeKernel, opened: Opener) -> None:
        """Reading region 0 is two pages off (gotcha 9); mapped at pgoff 3 it is right (gotcha 8)."""
        driver = Mbochs()
        device = opened(driver)
        driver.set_mode(64, 64)
        driver.paint(b"pixel")
        with map_region(device.mappable(0), 64 * 64 * 4) as region:
            assert bytes(region.data[:5]) == b"pixel"
        assert [call.offset for call in kernel.calls.of("mmap")] == [3 * 4096]
        assert kernel.calls.of("pread") == []


class TestClosing:
    def test_everything_closes_in_the_right_order(self, kernel: FakeKernel) -> None:
        """Maps, dma-bufs, device, group, container (gotcha 19)."""
        driver = kernel.add(Mbochs())
        driver.set_mode(640, 480)
        device = open_device(driver.name)
        surface = device.query_plane(PlaneType.PRIMARY, GfxKind.DMABUF)
        assert surface is not None
        device.get_dmabuf(surface).close()
        region = map_region(device.mappable(0), surface.needed)
        device.on_close(region.close)
        device.close()
        assert kernel.calls.releases() == [
            f"unmap {driver.name}",
            f"close dma-buf 1 of {driver.name}",
            f"close {driver.name}",
            "close group 1",
            "close container",
        ]

    def test_a_closed_device_can_only_say_so(self, kernel: FakeKernel, opened: Opener) -> None:
        """Every use after close() is Closed, also of what was asked before: the number may be another file's by now."""
        driver = Mbochs()
        device = opened(driver)
        driver.set_mode(640, 480)
        surface = device.query_plane(PlaneType.PRIMARY, GfxKind.DMABUF)
        assert surface is not None
        region = device.region(0)
        assert region is not None
        device.close()
        calls = len(kernel.calls)
        uses: list[Callable[[], object]] = [
            device.fileno,
            device.info,
            device.read_edid,
            lambda: device.probe(GfxKind.DMABUF),
            lambda: device.query_plane(PlaneType.PRIMARY, GfxKind.DMABUF),
            lambda: device.query_plane(PlaneType.CURSOR, GfxKind.DMABUF),
            lambda: device.get_dmabuf(surface),
            lambda: device.pread(region, 0, 4),
            lambda: device.ioctl(QUERY, bytearray(64)),
            lambda: device.mappable(0),
            lambda: device.region(5),
        ]
        for use in uses:
            with pytest.raises(Closed):
                use()
        assert len(kernel.calls) == calls

    def test_a_descriptor_closed_behind_its_back_is_reported(self, kernel: FakeKernel, opened: Opener) -> None:
        """EBADF at close() is an error, and the rest was let go."""
        device = Device(kernel.open_descriptor(kernel.add(Mdpy())), "fd:7")
        os.close(device.fileno())
        with pytest.raises(DriverError, match="closing the device failed: EBADF"):
            device.close()
        assert device.closed

    def test_a_vanished_device_is_gone(self, opened: Opener) -> None:
        """ENODEV while it is open is DeviceGone, from every request."""
        driver = Mdpy()
        device = opened(driver)
        driver.vanish()
        for use in (device.info, lambda: device.query_plane(PlaneType.PRIMARY, GfxKind.REGION)):
            with pytest.raises(DeviceGone):
                use()

    def test_an_interrupted_request_is_asked_again(self, kernel: FakeKernel, opened: Opener) -> None:
        """EINTR is nobody's answer."""
        driver = Mdpy()
        device = opened(driver)
        driver.answer_next(GET_INFO, -errno.EINTR)
        assert device.info().num_regions == 9
        assert len(kernel.calls.of("ioctl")) == 2

    def test_nothing_is_inherited_by_a_child(self, kernel: FakeKernel) -> None:
        """Container, group and device are close-on-exec."""
        driver = kernel.add(Mdpy())
        with open_device(driver.name):
            fds = [int(leak.split()[1]) for leak in kernel.leaks()]
            assert len(fds) == 3
            assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
