"""The EDID region: registers of four bytes, a blob that is where they say, and drivers that lie."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import DriverError
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy, Nvidia, Region, Scripted, type_capability
from mdevdisplay.vfio import Device, Edid
from mdevdisplay.vfio.edid import HEADER_SIZE, MAX_EDID, decode_edid, decode_header

Opener = Callable[..., Device]


def block(fill: int = 0x42) -> bytes:
    """A valid 128-byte EDID block."""
    body = bytes.fromhex("00ffffffffffff00") + bytes([fill]) * 119
    return body + bytes([-sum(body) % 256])


def registers(offset: int, max_size: int, size: int, xres: int = 0, yres: int = 0, link: int = 1) -> bytes:
    return struct.pack("<6I", offset, max_size, size, xres, yres, link)


def edid_device(content: bytes, size: int) -> Scripted:
    """A device whose region 0 is an EDID region of ``size`` bytes; paint ``content`` into it once it is added."""
    return Scripted(regions={0: Region(0, size, capabilities=type_capability(1, 1))})


class TestRealDrivers:
    def test_mbochs_in_four_byte_registers(self, kernel: FakeKernel, opened: Opener) -> None:
        """Each register by an aligned read of four bytes, the only one that it answers; then the blob."""
        driver = Mbochs()
        device = opened(driver)
        driver.set_edid(block())
        edid = device.read_edid()
        assert edid == Edid(blob=block(), max_size=1024, max_xres=1920, max_yres=1080, link_up=True)
        assert edid is not None
        assert edid.valid
        reads = [(call.offset - 8192, call.size) for call in kernel.calls.of("pread")]
        assert reads == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4), (2048, 128)]

    def test_no_monitor_yet(self, kernel: FakeKernel, opened: Opener) -> None:
        """edid_size 0 is an empty blob, and no read of it."""
        device = opened(Mbochs())
        edid = device.read_edid()
        assert edid is not None
        assert edid.blob == b""
        assert not edid.valid
        assert len(kernel.calls.of("pread")) == 6

    def test_gvts_blob_lies_beyond_its_region(self, opened: Opener) -> None:
        """It registers the region with the 128 bytes of the blob, which is at 2048."""
        driver = Gvt()
        device = opened(driver)
        driver.edid_blob = block()
        region = device.region(10)
        assert region is not None
        assert region.size == 128
        edid = device.read_edid()
        assert edid is not None
        assert (edid.blob, edid.max_xres, edid.max_yres) == (block(), 1920, 1200)

    @pytest.mark.parametrize("driver", [Mdpy, Nvidia])
    def test_most_have_none(self, opened: Opener, driver: type[Driver]) -> None:
        """None where no region has the capability."""
        assert opened(driver()).read_edid() is None

    def test_it_may_be_read_while_a_vm_uses_the_device(self, opened: Opener) -> None:
        """The EDID region is among what is harmless on a borrowed device."""
        driver = Mbochs()
        device = opened(driver, borrowed=True)
        driver.set_edid(block())
        edid = device.read_edid()
        assert edid is not None
        assert edid.valid


class TestHostileDrivers:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (registers(2048, 1024, 1025), "edid_size 1025 is above edid_max_size 1024"),
            (registers(2048, 0xFFFFFFFF, 0xFFFFFFFF), "edid_size 4294967295 is above"),
            (registers(2048, MAX_EDID + 1, MAX_EDID + 1), "edid_size 32769 is above"),
            (registers(4000, 128, 128), "128 bytes at 4000 lie outside the region of 4096"),
            (registers(0xFFFFFFFF, 128, 128), "128 bytes at 4294967295 lie outside"),
            (registers(23, 128, 128), "128 bytes at 23 lie outside"),
        ],
    )
    def test_registers_that_contradict_each_other_are_refused(
        self, kernel: FakeKernel, opened: Opener, content: bytes, words: str
    ) -> None:
        """The numbers are named, and the blob is not read."""
        driver = edid_device(content, 4096)
        device = opened(driver)
        driver.write(0, content)
        with pytest.raises(DriverError, match="the EDID region makes no sense") as caught:
            device.read_edid()
        assert words in caught.value.message
        assert {call.size for call in kernel.calls.of("pread")} == {4}

    def test_a_region_too_small_for_its_registers_is_refused(self, opened: Opener) -> None:
        """No read leaves the region."""
        with pytest.raises(DriverError, match="bytes 20 to 24 are outside region 0 of 23 bytes"):
            opened(edid_device(b"", 23)).read_edid()

    @given(raw=st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), size=st.integers(0, 1 << 64))
    def test_any_registers_are_refused_or_lead_inside(self, raw: bytes, size: int) -> None:
        """What is accepted has its blob inside the region, behind the registers, and of a believable size."""
        decoded, problem = decode_header(raw, size)
        if not problem and decoded.edid_size:
            assert decoded.edid_size <= MAX_EDID
            assert decoded.edid_offset >= HEADER_SIZE
            assert decoded.edid_offset + decoded.edid_size <= size

    @given(
        offset=st.integers(0, 5000),
        max_size=st.integers(0, 2000),
        size=st.integers(0, 2000),
        link=st.integers(0, 4),
        region=st.integers(0, 5000),
    )
    def test_plausible_registers(self, offset: int, max_size: int, size: int, link: int, region: int) -> None:
        """Accepted exactly where the interface allows it."""
        raw, problem = decode_header(registers(offset, max_size, size, link=link), region)
        fits = size == 0 or (offset >= 24 and offset + size <= region)
        assert (problem == "") == (size <= max_size and fits)
        assert decode_edid(raw, b"").link_up is {1: True, 2: False}.get(link)


@pytest.mark.parametrize(
    ("blob", "valid"),
    [
        (block(), True),
        (block() + bytes(128), True),
        (block() + bytes(127), False),
        (block() + bytes(127) + b"\1", False),
        (bytes(128), False),
        (b"", False),
        (block()[:-1] + bytes([block()[-1] ^ 1]), False),
    ],
)
def test_a_valid_edid_has_its_signature_and_its_sums(blob: bytes, valid: bool) -> None:
    """Whole blocks of 128 bytes that sum up to 0, the first with the signature."""
    assert Edid(blob=blob, max_size=256, max_xres=0, max_yres=0, link_up=None).valid is valid
