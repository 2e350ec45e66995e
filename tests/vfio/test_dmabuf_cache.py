"""GET_GFX_DMABUF: asked once, handed out as duplicates, kept as the exporter needs it."""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable, Iterator

import pytest

from mdevdisplay.errors import BadSurface, Closed, DriverError, TooManyBuffers
from mdevdisplay.formats import X_TILED, fourcc
from mdevdisplay.source import Identity
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.testing import DmaBufFile, FakeKernel, Gvt, Mbochs, Mdpy, Scripted, UserMemory
from mdevdisplay.vfio import Device, GfxKind, uapi

GET = uapi.VFIO_DEVICE_GET_GFX_DMABUF
QUERY = uapi.VFIO_DEVICE_QUERY_GFX_PLANE
PRIMARY, DMABUF = PlaneType.PRIMARY, GfxKind.DMABUF
Opener = Callable[..., Device]


def shown(device: Device) -> SurfaceInfo:
    surface = device.query_plane(PRIMARY, DMABUF)
    assert surface is not None
    return surface


def gets(kernel: FakeKernel) -> list[int]:
    """The ids of every GET_GFX_DMABUF so far."""
    return [int.from_bytes(call.sent, "little") for call in kernel.calls.of("ioctl") if call.request == GET]


def surface(number: int | None, **changes: int) -> SurfaceInfo:
    fields = {"fourcc": fourcc("XR24"), "width": 64, "height": 64, "stride": 256, "size": 16384} | changes
    return SurfaceInfo(dmabuf_id=number, **fields)  # type: ignore[arg-type]


class Exporting(Scripted):
    """A driver that exports any id, as a dma-buf of a size of its own."""

    def __init__(self, size: int = 16384, name: str = "") -> None:
        super().__init__({GET: [self.give]}, name=name)
        self.size = size
        self.exporter = ""

    def give(self, user: UserMemory) -> int:
        number = int.from_bytes(user.read(4), "little")
        return self.kernel.export(DmaBufFile(f"dma-buf {number}", self.size, self.kernel, exporter=self.exporter))


class MbochsLike(Exporting):
    """The same with the identity of mbochs, and so its quirks."""

    module = "mbochs"
    mdev_type = "mbochs-small"
    parent = "virtual/mbochs/mbochs"


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """A soft limit that leaves a device 25 dma-bufs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    yield 25
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestGetting:
    def test_the_id_is_sent_as_a_pointer_and_the_result_is_the_descriptor(
        self, kernel: FakeKernel, opened: Opener
    ) -> None:
        """A mutable buffer of 4 bytes; what the ioctl returns is kept, and a duplicate is handed out (gotcha 17)."""
        driver = Gvt()
        device = opened(driver)
        driver.show(640, 480, modifier=X_TILED)
        with device.get_dmabuf(shown(device)) as buffer:
            (call,) = [call for call in kernel.calls.of("ioctl") if call.request == GET]
            assert call.sent == struct.pack("<I", 1)
            assert call.result != buffer.fileno()
            assert os.path.sameopenfile(call.result, buffer.fileno())
            assert (buffer.size, buffer.modifier) == (640 * 480 * 4, X_TILED)

    def test_every_descriptor_is_close_on_exec(self, kernel: FakeKernel, opened: Opener) -> None:
        """Mbochs exports without it (gotcha 17): neither the kept one nor the duplicate is inherited."""
        driver = Mbochs()
        device = opened(driver)
        driver.set_mode(640, 480)
        with device.get_dmabuf(shown(device)) as buffer:
            (call,) = [call for call in kernel.calls.of("ioctl") if call.request == GET]
            assert not os.get_inheritable(call.result)
            assert not os.get_inheritable(buffer.fileno())
        assert not os.get_inheritable(device.fileno())

    def test_a_buffer_is_asked_for_once_and_shared(self, kernel: FakeKernel, opened: Opener) -> None:
        """Two duplicates of one buffer: the same key, one GET; closing one does not hurt the other."""
        driver = Gvt()
        device = opened(driver)
        driver.show(640, 480)
        one, two = device.get_dmabuf(shown(device)), device.get_dmabuf(shown(device))
        assert one.key == two.key
        assert one.fileno() != two.fileno()
        one.close()
        assert os.fstat(two.fileno()).st_size == two.size
        two.close()
        assert gets(kernel) == [1]

    @pytest.mark.parametrize(
        "change",
        [
            {"fourcc": fourcc("AR24")},
            {"modifier": X_TILED, "stride": 512, "width": 16, "height": 8},
            {"width": 63},
            {"height": 63},
            {"stride": 260, "height": 63},
            {"size": 16385},
        ],
    )
    def test_an_id_with_another_geometry_is_another_buffer(
        self, kernel: FakeKernel, opened: Opener, change: dict[str, int]
    ) -> None:
        """GVT-g gives ids again: the cache goes by id and all of the geometry (gotcha 15)."""
        device = opened(Exporting(1 << 20))
        with device.get_dmabuf(surface(1)) as one, device.get_dmabuf(surface(1, **change)) as two:
            assert one.key != two.key
            with device.get_dmabuf(surface(1)) as again:
                assert again.key == one.key
        assert gets(kernel) == [1, 1]

    def test_a_position_is_not_a_geometry(self, kernel: FakeKernel, opened: Opener) -> None:
        """A cursor that moves stays the same buffer, and the duplicate shows where it is now."""
        device = opened(Exporting())
        with device.get_dmabuf(surface(1, x=1)) as one, device.get_dmabuf(surface(1, x=2)) as two:
            assert one.key == two.key
            assert two.surface.x == 2
        assert gets(kernel) == [1]

    def test_a_recycled_id_is_a_new_buffer(self, kernel: FakeKernel, opened: Opener) -> None:
        """After eight others GVT-g's id 1 is free again and means other memory: it is fetched anew (gotcha 15)."""
        driver = Gvt()
        device = opened(driver)
        keys = []
        for number in range(9):
            driver.show(640, 480, address=0x100000 * (number + 1))
            with device.get_dmabuf(shown(device)) as buffer:
                keys.append(buffer.key)
        driver.show(800, 480, address=0x9000000)
        recycled = shown(device)
        assert recycled.dmabuf_id == 1
        with device.get_dmabuf(recycled) as buffer:
            keys.append(buffer.key)
        assert len(set(keys)) == 10
        assert gets(kernel) == [*range(1, 10), 1]


class TestKeeping:
    def test_the_least_recently_used_of_eight_goes(self, kernel: FakeKernel, opened: Opener) -> None:
        """An LRU of 8: using one again saves it."""
        device = opened(Exporting())
        for number in range(1, 9):
            device.get_dmabuf(surface(number)).close()
        device.get_dmabuf(surface(1)).close()
        assert kernel.calls.releases() == []
        device.get_dmabuf(surface(9)).close()
        assert kernel.calls.releases() == ["close dma-buf 2"]
        device.get_dmabuf(surface(1)).close()
        assert gets(kernel) == list(range(1, 10))
        device.get_dmabuf(surface(2)).close()
        assert gets(kernel)[-1] == 2
        assert len(kernel.leaks()) == 9

    def test_a_duplicate_outlives_its_place_in_the_cache(self, opened: Opener) -> None:
        """What a consumer holds stays valid when the cache lets go."""
        device = opened(Exporting())
        held = device.get_dmabuf(surface(1))
        for number in range(2, 12):
            device.get_dmabuf(surface(number)).close()
        assert os.fstat(held.fileno()).st_size == 16384
        held.close()

    def test_mbochs_is_asked_once_an_id(self, kernel: FakeKernel, opened: Opener) -> None:
        """One GET per id and open, however often the guest flips (gotcha 4): a second one frees its pages twice."""
        driver = Mbochs()
        device = opened(driver)
        for start in (0, 480, 0, 480, 0):
            driver.set_mode(640, 480, y=start)
            device.get_dmabuf(shown(device)).close()
        assert gets(kernel) == [1, 2]
        assert driver.gets == {1: 1, 2: 1}

    def test_mbochs_descriptors_are_kept_until_the_device_closes(self, kernel: FakeKernel, opened: Opener) -> None:
        """Far more than eight: nothing is dropped while the device is open (gotcha 4)."""
        driver = Mbochs(memory=8 << 20)
        device = opened(driver)
        for start in range(20):
            driver.set_mode(64, 64, y=start * 16)
            device.get_dmabuf(shown(device)).close()
        assert kernel.calls.releases() == []
        device.close()
        assert len(kernel.calls.releases()) == 21

    def test_mbochs_is_known_by_its_dmabufs(self, kernel: FakeKernel) -> None:
        """A descriptor that came without an identity: the exporter's name in fdinfo brings the rules (gotcha 4)."""
        driver = kernel.add(Mbochs(memory=8 << 20))
        with Device(kernel.open_descriptor(driver), "fd:7") as device:
            assert device.identity.vendor == ""
            for start in (*range(20), *range(20)):
                driver.set_mode(64, 64, y=start * 16)
                device.get_dmabuf(shown(device)).close()
            assert kernel.calls.releases() == []
        assert gets(kernel) == list(range(1, 21))
        assert kernel.violations == []

    def test_a_bad_first_buffer_of_mbochs_is_not_asked_for_again(self, kernel: FakeKernel) -> None:
        """The exporter is read before the buffer is judged."""
        driver = kernel.add(Exporting(4096))
        driver.exporter = "mbochs"
        with Device(kernel.open_descriptor(driver), "fd:7") as device:
            with pytest.raises(BadSurface, match="the dma-buf has 4096"):
                device.get_dmabuf(surface(1))
            with pytest.raises(DriverError, match="asked for dma-buf id 1 before"):
                device.get_dmabuf(surface(1))
        assert gets(kernel) == [1]

    def test_the_exporter_of_a_wrong_identity_counts(self, kernel: FakeKernel) -> None:
        """After the first dma-buf turned out to be mbochs', none is asked for on a VM's device any more."""
        driver = kernel.add(Exporting())
        driver.exporter = "mbochs"
        with Device(kernel.lend(driver), "fd:7", Identity(vendor="acme"), borrowed=True) as device:
            device.get_dmabuf(surface(1)).close()
            with pytest.raises(DriverError, match="not safe while a VM"):
                device.get_dmabuf(surface(2))
            device.get_dmabuf(surface(1)).close()
        assert gets(kernel) == [1]

    @pytest.mark.parametrize("exporter", ["", "i915", "udmabuf"])
    def test_a_rule_that_is_kept_stays(self, kernel: FakeKernel, opened: Opener, exporter: str) -> None:
        """No exporter makes mbochs, known by its type, less careful."""
        driver = MbochsLike()
        driver.exporter = exporter
        device = opened(driver)
        for number in range(1, 20):
            device.get_dmabuf(surface(number)).close()
        assert kernel.calls.releases() == []

    def test_a_guest_that_flips_through_too_many_meets_a_cap(
        self, few_descriptors: int, kernel: FakeKernel, opened: Opener
    ) -> None:
        """A quarter of the descriptors allowed; then an error of its own, and what was kept still works."""
        device = opened(MbochsLike())
        for number in range(1, few_descriptors + 1):
            device.get_dmabuf(surface(number)).close()
        with pytest.raises(TooManyBuffers, match=f"more than {few_descriptors} framebuffers") as caught:
            device.get_dmabuf(surface(1000))
        assert caught.value.cause == "too-many-buffers"
        assert "capture()" in caught.value.hint
        device.get_dmabuf(surface(1)).close()
        assert gets(kernel) == list(range(1, few_descriptors + 1))

    def test_the_cap_is_never_above_256(self, kernel: FakeKernel, opened: Opener) -> None:
        """However many descriptors are allowed."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 4096:
            pytest.skip(f"the hard limit of open files is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
        try:
            device = opened(MbochsLike())
            assert device._dmabufs._limit == 256
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_mbochs_is_not_asked_twice_for_another_geometry(self, kernel: FakeKernel, opened: Opener) -> None:
        """An id that comes back with other numbers is refused rather than fetched again (gotcha 4)."""
        device = opened(MbochsLike())
        device.get_dmabuf(surface(1)).close()
        with pytest.raises(DriverError, match="asked for dma-buf id 1 before"):
            device.get_dmabuf(surface(1, width=63))
        assert gets(kernel) == [1]

    def test_mbochs_is_not_asked_twice_after_a_bad_buffer(self, kernel: FakeKernel, opened: Opener) -> None:
        """A buffer that was too small was fetched all the same: asking again would be the second GET (gotcha 4)."""
        device = opened(MbochsLike(4096))
        with pytest.raises(BadSurface, match="the dma-buf has 4096"):
            device.get_dmabuf(surface(1))
        with pytest.raises(DriverError, match="asked for dma-buf id 1 before"):
            device.get_dmabuf(surface(1))
        assert gets(kernel) == [1]

    def test_others_may_be_asked_again_after_a_bad_buffer(self, kernel: FakeKernel, opened: Opener) -> None:
        """GVT-g makes a new dma-buf for every GET: a bad one is forgotten and asked for again."""
        driver = Exporting(4096)
        device = opened(driver)
        with pytest.raises(BadSurface):
            device.get_dmabuf(surface(1))
        driver.size = 16384
        device.get_dmabuf(surface(1)).close()
        assert gets(kernel) == [1, 1]


class TestRefusals:
    def test_a_borrowed_mbochs_is_never_asked(self, kernel: FakeKernel, opened: Opener) -> None:
        """A GET beside QEMU's display is a use after free in the kernel (gotcha 4)."""
        driver = Mbochs()
        device = opened(driver, borrowed=True)
        driver.set_mode(640, 480)
        with pytest.raises(DriverError, match="not safe while a VM uses the device") as caught:
            device.get_dmabuf(shown(device))
        assert caught.value.cause == "unsafe-dmabuf"
        assert gets(kernel) == []

    def test_a_borrowed_device_of_unknown_driver_is_never_asked(self, kernel: FakeKernel) -> None:
        """``fd:7`` without an identity may be mbochs (gotcha 4): the cause says that the name is what is missing."""
        driver = kernel.add(Mbochs())
        with Device(kernel.lend(driver), "fd:7", borrowed=True) as device:
            driver.set_mode(640, 480)
            with pytest.raises(DriverError, match="nothing says which driver this device has") as caught:
                device.get_dmabuf(shown(device))
        assert caught.value.cause == "unknown-driver"
        assert "UUID" in caught.value.hint
        assert gets(kernel) == []

    def test_a_borrowed_gvt_is_asked(self, kernel: FakeKernel, opened: Opener) -> None:
        """Its dma-bufs are made anew for everyone: the normal route to a GVT-g display."""
        driver = Gvt()
        device = opened(driver, borrowed=True)
        driver.show(640, 480)
        device.get_dmabuf(shown(device)).close()
        assert gets(kernel) == [1]

    def test_a_surface_in_a_region_has_none(self, kernel: FakeKernel, opened: Opener) -> None:
        """Without an id there is nothing to ask for."""
        with pytest.raises(DriverError, match="in a region, not in a dma-buf"):
            opened(Mdpy()).get_dmabuf(surface(None))
        assert gets(kernel) == []

    @pytest.mark.parametrize(
        ("number", "kind", "words"),
        [
            (errno.EINVAL, DriverError, "query and ask again"),
            (errno.ENOENT, DriverError, "query and ask again"),
            (errno.EMFILE, TooManyBuffers, "ulimit -n"),
            (errno.ENOMEM, DriverError, ""),
        ],
    )
    def test_the_drivers_refusal_says_what_to_do(
        self, kernel: FakeKernel, opened: Opener, number: int, kind: type[DriverError], words: str
    ) -> None:
        """Unknown and unaligned buffers, and too many open files, are told apart; nothing is cached."""
        driver = Exporting()
        device = opened(driver)
        driver.answer_next(GET, -number)
        with pytest.raises(kind, match="GET_GFX_DMABUF of id 7 failed") as caught:
            device.get_dmabuf(surface(7))
        assert caught.value.errno == number
        assert words in caught.value.hint
        device.get_dmabuf(surface(7)).close()
        assert gets(kernel) == [7, 7]

    @pytest.mark.parametrize(("driver", "number"), [(Mbochs, errno.ENOENT), (Gvt, errno.EINVAL)])
    def test_an_id_that_the_driver_does_not_know(self, opened: Opener, driver: type[Mbochs | Gvt], number: int) -> None:
        """Mbochs says ENOENT, GVT-g EINVAL: the same error of ours."""
        with pytest.raises(DriverError) as caught:
            opened(driver()).get_dmabuf(surface(99))
        assert caught.value.errno == number

    def test_an_unaligned_mbochs_framebuffer_has_no_dmabuf(self, opened: Opener) -> None:
        """Its start must lie on a page."""
        driver = Mbochs()
        device = opened(driver)
        driver.set_mode(640, 480, x=8, virt_width=700)
        with pytest.raises(DriverError) as caught:
            device.get_dmabuf(shown(device))
        assert caught.value.errno == errno.EINVAL
        assert "off a page" in caught.value.hint

    def test_a_closed_device_has_none(self, opened: Opener) -> None:
        """Closed, not an ioctl on a descriptor that may be another's."""
        device = opened(Exporting())
        device.close()
        with pytest.raises(Closed):
            device.get_dmabuf(surface(1))


def test_dmabufs_close_before_their_device(kernel: FakeKernel, opened: Opener) -> None:
    """Mbochs frees what they point to with the device (gotcha 19)."""
    driver = Mbochs()
    device = opened(driver)
    for start in (0, 480):
        driver.set_mode(640, 480, y=start)
        device.get_dmabuf(shown(device)).close()
    device.close()
    assert kernel.calls.releases() == [
        f"close dma-buf 2 of {driver.name}",
        f"close dma-buf 1 of {driver.name}",
        f"close {driver.name}",
    ]
    assert driver.gets == {}
