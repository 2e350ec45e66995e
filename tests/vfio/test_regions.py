"""GET_REGION_INFO and its capability chain, against honest, odd and hostile drivers."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import DeviceGone, DriverError, MdevDisplayError
from mdevdisplay.surface import RegionInfo
from mdevdisplay.testing import Answer, Driver, FakeKernel, Gvt, Mbochs, Mdpy, Nvidia, PreGfx, Scripted, UserMemory
from mdevdisplay.vfio import Device, uapi
from mdevdisplay.vfio.regions import MAX_REGION_INFO, decode_region_info

GET_REGION_INFO = uapi.VFIO_DEVICE_GET_REGION_INFO
READ, WRITE, MMAP, CAPS = 1, 2, 4, 8


def answer(
    *, argsz: int = 32, flags: int = READ, index: int = 0, cap_offset: int = 0, size: int = 0, offset: int = 0
) -> bytes:
    """The fixed 32 bytes, packed by hand."""
    return struct.pack("<IIIIQQ", argsz, flags, index, cap_offset, size, offset)


def capability(number: int, next_offset: int, *words: int) -> bytes:
    return struct.pack("<HHI", number, 1, next_offset) + struct.pack(f"<{len(words)}I", *words)


Opener = Callable[[Driver], Device]


def sizes_asked(kernel: FakeKernel) -> list[int]:
    """The argsz of every GET_REGION_INFO so far."""
    return [int.from_bytes(call.sent[:4], "little") for call in kernel.calls.of("ioctl")]


class TestRealDrivers:
    def test_a_plain_region_is_asked_once_with_32_bytes(self, kernel: FakeKernel, opened: Opener) -> None:
        """Mdpy's display: region 16 of 9, never checked against the count (gotcha 7)."""
        device = opened(Mdpy("vga"))
        expected = RegionInfo(index=16, size=2 << 20, offset=4096, readable=True, writable=True, mappable=True)
        assert device.region(16) == expected
        assert sizes_asked(kernel) == [32]

    def test_a_region_is_asked_once_a_device(self, kernel: FakeKernel, opened: Opener) -> None:
        """The answer does not change while the device is open: the driver is asked once, also for one that is not."""
        device = opened(Mdpy())
        assert device.region(16) is device.region(16)
        assert device.region(12) is None
        assert device.region(12) is None
        assert len(kernel.calls.of("ioctl")) == 2

    def test_capabilities_take_a_second_call_with_exactly_the_size_named(
        self, kernel: FakeKernel, opened: Opener
    ) -> None:
        """Mbochs refuses anything above its 48 bytes (gotcha 16)."""
        region = opened(Mbochs()).region(9)
        assert region is not None
        assert (region.type, region.subtype, region.capabilities) == (1, 1, (2,))
        assert (region.offset, region.size) == (8192, 4096)
        assert sizes_asked(kernel) == [32, 48]

    def test_gvts_capabilities_are_read_the_same_way(self, kernel: FakeKernel, opened: Opener) -> None:
        """It answers cap_offset 0 until argsz is large enough; its offset has the index in the high bits."""
        region = opened(Gvt()).region(10)
        assert region is not None
        assert (region.type, region.subtype, region.offset) == (1, 1, 10 << 40)
        assert sizes_asked(kernel) == [32, 48]

    def test_nvidias_console_lies_beyond_the_count(self, opened: Opener) -> None:
        """Region 9 of 9, at an offset to be used as it is (gotcha 7)."""
        device = opened(Nvidia())
        region = device.region(9)
        assert region is not None
        assert (region.offset, region.size, region.mappable) == (9 << 40, 16 << 20, True)
        assert device.info().num_regions == 9

    def test_regions_yields_what_the_driver_answers_for(self, opened: Opener) -> None:
        """The counted ones, empty ones included; not those beyond."""
        assert [region.index for region in opened(Mdpy()).regions()] == list(range(9))

    def test_a_driver_that_returns_0_for_everything_has_empty_regions(self, opened: Opener) -> None:
        """Kvmgt before 4.16."""
        region = opened(PreGfx()).region(0)
        assert region is not None
        assert (region.size, region.mappable) == (0, False)


class TestOddDrivers:
    def test_einval_means_no_such_region(self, opened: Opener) -> None:
        """That is how drivers end an enumeration."""
        assert opened(Scripted({GET_REGION_INFO: [-errno.EINVAL]})).region(3) is None

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.ENODEV, DeviceGone), (errno.EFAULT, DriverError), (errno.EIO, DriverError)]
    )
    def test_other_errors_are_errors(self, opened: Opener, number: int, kind: type[MdevDisplayError]) -> None:
        """Only EINVAL means that there is none."""
        with pytest.raises(kind, match="GET_REGION_INFO of region 3 failed") as caught:
            opened(Scripted({GET_REGION_INFO: [-number]})).region(3)
        assert caught.value.errno == number

    def test_an_absurd_size_is_not_believed(self, kernel: FakeKernel, opened: Opener) -> None:
        """A driver that asks for gigabytes of info gets no second call."""
        huge = answer(argsz=0xFFFFFFFF, flags=READ | CAPS)
        with pytest.raises(DriverError, match="asks for 4294967295 bytes of info, more than 65536"):
            opened(Scripted({GET_REGION_INFO: [huge]})).region(0)
        assert len(kernel.calls.of("ioctl")) == 1

    def test_the_largest_believed_size_is_asked_for(self, kernel: FakeKernel, opened: Opener) -> None:
        """The limit itself is still within it."""
        script = [answer(argsz=MAX_REGION_INFO, flags=CAPS), answer(argsz=MAX_REGION_INFO, flags=READ, size=5)]
        region = opened(Scripted({GET_REGION_INFO: script})).region(0)
        assert region is not None
        assert region.size == 5
        assert sizes_asked(kernel) == [32, MAX_REGION_INFO]

    def test_a_size_without_the_flag_is_not_asked_for(self, kernel: FakeKernel, opened: Opener) -> None:
        """Argsz alone, without FLAG_CAPS, promises nothing."""
        region = opened(Scripted({GET_REGION_INFO: [answer(argsz=4096, size=7)]})).region(0)
        assert region is not None
        assert region.size == 7
        assert sizes_asked(kernel) == [32]

    def test_a_region_that_goes_between_two_calls_is_none(self, opened: Opener) -> None:
        """EINVAL to the second call."""
        script: list[Answer] = [answer(argsz=48, flags=CAPS), -errno.EINVAL]
        assert opened(Scripted({GET_REGION_INFO: script})).region(0) is None


class TestChains:
    def test_a_chain_is_followed_in_its_own_order(self) -> None:
        """Capabilities may lie in any order; the first type counts."""
        raw = (
            answer(argsz=88, flags=READ | CAPS, cap_offset=64)
            + capability(2, 48, 7, 9)
            + capability(2, 0, 3, 4)
            + capability(1, 32, 0, 0)
        )
        region = decode_region_info(raw, 5)
        assert region.capabilities == (1, 2, 2)
        assert (region.index, region.type, region.subtype) == (5, 7, 9)

    @pytest.mark.parametrize(
        ("cap_offset", "tail", "words"),
        [
            (32, capability(1, 32), "it comes back to 32"),
            (32, capability(1, 40) + capability(1, 32), "it comes back to 32"),
            (31, capability(1, 0), "31 lies outside 32 to 40"),
            (4, capability(1, 0), "4 lies outside 32 to 40"),
            (33, capability(1, 0), "33 lies outside"),
            (0xFFFFFFFF, capability(1, 0), "4294967295 lies outside"),
            (32, capability(1, 0xFFFFFFF8), "4294967288 lies outside"),
            (32, capability(2, 0, 1), "the type capability at 32 is cut off"),
        ],
    )
    def test_a_broken_chain_is_refused(self, cap_offset: int, tail: bytes, words: str) -> None:
        """Circles and offsets outside the answer are named, and nothing outside is read (gotcha 16)."""
        raw = answer(argsz=32 + len(tail), flags=CAPS, cap_offset=cap_offset) + tail
        with pytest.raises(DriverError, match="the capability chain of region 3 is broken: ") as caught:
            decode_region_info(raw, 3, "d")
        assert words in caught.value.message
        assert caught.value.device == "d"

    def test_offsets_without_the_flag_are_garbage(self) -> None:
        """Mbochs leaves what it does not fill: without FLAG_CAPS nobody looks."""
        raw = answer(argsz=48, flags=READ, cap_offset=0xA5A5A5A5) + b"\xa5" * 16
        assert decode_region_info(raw, 0).capabilities == ()

    @given(st.binary(min_size=32, max_size=200))
    def test_any_bytes_are_an_answer_or_an_error_of_ours(self, raw: bytes) -> None:
        """No crash, no endless loop; what is decoded was inside the bytes."""
        try:
            region = decode_region_info(raw, 1)
        except MdevDisplayError:
            return
        assert len(region.capabilities) <= len(raw) - 32
        assert (region.size, region.offset) == struct.unpack_from("<QQ", raw, 16)

    @given(
        flags=st.integers(0, 31),
        cap_offset=st.integers(0, 140),
        links=st.lists(st.tuples(st.sampled_from([1, 2, 3, 0xFFFF]), st.integers(0, 140)), max_size=12),
    )
    def test_any_chain_ends(self, flags: int, cap_offset: int, links: list[tuple[int, int]]) -> None:
        """Chains built of plausible offsets: every capability is met at most once."""
        raw = answer(flags=flags, cap_offset=cap_offset) + b"".join(capability(*link) for link in links)
        try:
            region = decode_region_info(raw, 1)
        except DriverError:
            return
        assert len(region.capabilities) <= max(0, len(raw) - 32)
        assert bool(region.capabilities) <= bool(flags & CAPS)


@given(
    first=st.binary(min_size=32, max_size=32),
    argsz=st.one_of(st.integers(0, 100), st.integers(0, 0xFFFFFFFF)),
    flags=st.integers(0, 15),
    tail=st.binary(max_size=80),
)
def test_whatever_a_driver_answers_no_byte_is_written_or_read_outside(
    kernel: FakeKernel, first: bytes, argsz: int, flags: int, tail: bytes
) -> None:
    """Both calls with any bytes: a RegionInfo, None or an error of ours, and buffers as large as they claim."""
    head = struct.pack("<II", argsz, flags) + first[8:]

    def second(user: UserMemory) -> int:
        room = int.from_bytes(user.sent[:4], "little")
        user.write((head + tail).ljust(room, b"\xa5")[:room])
        return 0

    driver = Scripted({GET_REGION_INFO: [head, second]})
    kernel.add(driver)
    with Device(kernel.open_descriptor(driver), "d") as device:
        try:
            region = device.region(0)
        except MdevDisplayError:
            pass
        else:
            assert isinstance(region, RegionInfo)
    assert kernel.violations == []
    assert all(int.from_bytes(call.sent[:4], "little") == len(call.sent) for call in kernel.calls.of("ioctl"))
