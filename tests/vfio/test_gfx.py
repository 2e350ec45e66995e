"""QUERY_GFX_PLANE: probing, decoding 64 bytes, asking again, and what each real driver does to a caller."""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import (
    BadSurface,
    DeviceGone,
    DriverError,
    GuestChangingMode,
    MdevDisplayError,
    NotADisplay,
    TimedOut,
)
from mdevdisplay.formats import FORMATS, INVALID, X_TILED, Y_TILED, fourcc
from mdevdisplay.source import Identity
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.testing import Answer, Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty, Nvidia, PreGfx, Scripted
from mdevdisplay.vfio import Device, GfxKind, Quirks, decode_plane, quirks_of, same_memory, uapi

QUERY = uapi.VFIO_DEVICE_QUERY_GFX_PLANE
PRIMARY, CURSOR, OVERLAY = PlaneType.PRIMARY, PlaneType.CURSOR, PlaneType.OVERLAY
DMABUF, REGION = GfxKind.DMABUF, GfxKind.REGION
XR24 = fourcc("XR24")
FIELDS = "argsz flags plane fourcc modifier width height stride size x y x_hot y_hot union reserved"


def plane(**fields: int) -> bytes:
    """The 64 bytes of an answer, packed by hand from the interface's offsets."""
    values = {
        "argsz": 64,
        "flags": 2,
        "plane": 1,
        "fourcc": XR24,
        "width": 640,
        "height": 480,
        "stride": 2560,
        "size": 1228800,
        "union": 1,
    } | fields
    return struct.pack("<4IQ10I", *(values.get(name, 0) for name in FIELDS.split()))


Opener = Callable[[Driver], Device]


def scripted(*answers: Answer) -> Scripted:
    return Scripted({QUERY: answers})


class TestProbing:
    @pytest.mark.parametrize(
        ("driver", "dmabuf", "region"),
        [(Mdpy, False, True), (Mbochs, True, False), (Gvt, True, False), (Nvidia, False, True)],
    )
    def test_a_display_offers_one_kind(self, opened: Opener, driver: type[Driver], dmabuf: bool, region: bool) -> None:
        """Both kinds are asked for; EINVAL means: not this one (gotcha 21)."""
        device = opened(driver())
        answers = {kind: device.probe(kind) for kind in GfxKind}
        assert {kind: answer.supported for kind, answer in answers.items()} == {DMABUF: dmabuf, REGION: region}
        refused = DMABUF if region else REGION
        assert answers[refused].text == f"PROBE+{refused.name} answered EINVAL: not this kind"
        assert answers[DMABUF if dmabuf else REGION].text.endswith("answered 0")

    def test_enotty_means_no_display(self, opened: Opener) -> None:
        """A serial port is a mediated device too (gotcha 21)."""
        device = opened(Mtty())
        assert device.probe(DMABUF).text == "PROBE+DMABUF answered ENOTTY: it has no display"
        assert not device.probe(REGION).supported

    def test_a_driver_that_says_yes_to_everything_is_not_believed(self, opened: Opener) -> None:
        """Kvmgt before Linux 4.16 ends with return 0: a query too short gives it away."""
        answer = opened(PreGfx()).probe(DMABUF)
        assert not answer.supported
        assert "older than the interface" in answer.text

    def test_only_flags_that_the_interface_has_are_sent(self, kernel: FakeKernel, opened: Opener) -> None:
        """NVIDIA accepts unknown bits, so none is ever used to probe (gotcha 22)."""
        device = opened(Nvidia())
        for kind in GfxKind:
            device.probe(kind)
            for which in PlaneType:
                try:
                    device.query_plane(which, kind)
                except MdevDisplayError:
                    assert kind is DMABUF
        sent = {struct.unpack_from("<I", call.sent, 4)[0] for call in kernel.calls.of("ioctl")}
        assert sent <= {1 | 2, 1 | 4, 2, 4}

    def test_the_query_that_tells_old_drivers_is_short_and_nothing_else(
        self, kernel: FakeKernel, opened: Opener
    ) -> None:
        """The probe again with an argsz below the 60 bytes that drivers copy, in a whole buffer; EINVAL is proof."""
        assert opened(Mbochs()).probe(DMABUF).supported
        first, second = kernel.calls.of("ioctl")
        assert first.sent == struct.pack("<3I", 64, 1 | 2, 1) + bytes(52)
        assert second.sent == struct.pack("<3I", 8, 1 | 2, 1) + bytes(52)
        assert (first.errno, second.errno) == (0, errno.EINVAL)

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.ENODEV, DeviceGone), (errno.ENOTTY, NotADisplay), (errno.EIO, DriverError)]
    )
    def test_only_einval_is_that_proof(self, opened: Opener, number: int, kind: type[MdevDisplayError]) -> None:
        """Another errno says nothing of the driver's age: it is an error."""
        with pytest.raises(kind, match=r"QUERY_GFX_PLANE with PROBE\+REGION and 8 bytes failed") as caught:
            opened(scripted(0, -number)).probe(REGION)
        assert caught.value.errno == number

    def test_the_latest_answer_is_remembered(self, opened: Opener) -> None:
        """So that it can be told from what a backend makes of it: an answer, an error, or nothing asked yet."""
        driver = Mdpy()
        device = opened(driver)
        seen: list[object] = [device.last_probe]
        answer = device.probe(DMABUF)
        seen.append(device.last_probe)
        driver.vanish()
        with pytest.raises(DeviceGone) as caught:
            device.probe(REGION)
        seen.append(device.last_probe)
        assert seen == [None, answer, caught.value]

    @pytest.mark.parametrize(
        ("number", "kind"), [(errno.ENODEV, DeviceGone), (errno.EFAULT, DriverError), (errno.EIO, DriverError)]
    )
    def test_another_errno_is_an_error(self, opened: Opener, number: int, kind: type[MdevDisplayError]) -> None:
        """It says nothing of what the driver offers."""
        with pytest.raises(kind, match=r"QUERY_GFX_PLANE with PROBE\+DMABUF failed") as caught:
            opened(scripted(-number)).probe(DMABUF)
        assert caught.value.errno == number


class TestAsking:
    def test_every_query_is_64_zeroed_bytes(self, kernel: FakeKernel, opened: Opener) -> None:
        """GVT-g answers a plane that is off by leaving the caller's bytes: stale ones would be taken for a picture."""
        driver = Gvt()
        device = opened(driver)
        driver.show(640, 480)
        assert device.query_plane(PRIMARY, DMABUF) is not None
        driver.blank()
        assert device.query_plane(PRIMARY, DMABUF) is None
        calls = kernel.calls.of("ioctl")
        assert [call.sent for call in calls] == [struct.pack("<3I", 64, 2, 1) + bytes(52)] * 2

    @pytest.mark.parametrize("which", list(PlaneType))
    @pytest.mark.parametrize("kind", list(GfxKind))
    def test_the_plane_and_the_kind_are_sent_as_they_are(
        self, kernel: FakeKernel, opened: Opener, which: PlaneType, kind: GfxKind
    ) -> None:
        """One flag and one plane type a query (gotcha 22)."""
        assert opened(scripted(bytes(64))).query_plane(which, kind) is None
        (call,) = kernel.calls.of("ioctl")
        assert struct.unpack_from("<3I", call.sent) == (64, int(kind), int(which))

    def test_the_same_answer_is_the_same_object(self, opened: Opener) -> None:
        """So that a reader sees at once that nothing changed; another answer is another object."""
        device = opened(scripted(plane(), plane(), plane(width=600), plane()))
        one, two, three, four = (device.query_plane(PRIMARY, DMABUF) for _ in range(4))
        assert one is two
        assert three is not None
        assert three.width == 600
        assert four == one
        assert four is not three

    def test_planes_do_not_mix(self, opened: Opener) -> None:
        """Each plane and kind remembers its own last answer."""
        device = opened(scripted(plane()))
        primary = device.query_plane(PRIMARY, DMABUF)
        cursor = device.query_plane(CURSOR, DMABUF)
        region = device.query_plane(PRIMARY, REGION)
        assert primary is not None
        assert cursor is not None
        assert region is not None
        assert (primary.plane, cursor.plane) == (PRIMARY, CURSOR)
        assert (primary.dmabuf_id, primary.region_index) == (1, None)
        assert (region.dmabuf_id, region.region_index) == (None, 1)

    def test_a_bad_answer_is_bad_every_time(self, opened: Opener) -> None:
        """BadSurface is not cached away by the comparison, and a good answer after it counts."""
        device = opened(scripted(plane(stride=1), plane(stride=1), plane()))
        for _ in range(2):
            with pytest.raises(BadSurface, match="the stride is 1") as caught:
                device.query_plane(PRIMARY, DMABUF)
            assert caught.value.device == device.locator
        assert device.query_plane(PRIMARY, DMABUF) is not None

    def test_an_interrupted_query_is_asked_again(self, kernel: FakeKernel, opened: Opener) -> None:
        """EINTR is not the driver's answer."""
        device = opened(scripted(-errno.EINTR, -errno.EINTR, plane()))
        assert device.query_plane(PRIMARY, DMABUF) is not None
        assert [call.errno for call in kernel.calls.of("ioctl")] == [errno.EINTR, errno.EINTR, 0]

    def test_enomem_is_asked_again_at_once(
        self, kernel: FakeKernel, opened: Opener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first query of each mode fails in mbochs, which drops the result of its allocation (gotcha 2)."""
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        driver = Mbochs()
        device = opened(driver)
        for width in (640, 800):
            driver.set_mode(width, 480)
            surface = device.query_plane(PRIMARY, DMABUF)
            assert surface is not None
            assert surface.width == width
        assert [call.errno for call in kernel.calls.of("ioctl")] == [errno.ENOMEM, 0] * 2
        assert slept == []

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.EFAULT, errno.ENOMEM])
    def test_a_guest_that_changes_its_mode_is_waited_for(self, kernel: FakeKernel, opened: Opener, number: int) -> None:
        """GVT-g's refusals pass (gotcha 3): with a zeroed buffer every time, until the driver answers."""
        driver = Gvt()
        device = opened(driver)
        driver.show(640, 480)
        driver.answer_next(QUERY, -number, -number, -number)
        assert device.query_plane(PRIMARY, DMABUF) is not None
        calls = kernel.calls.of("ioctl")
        assert [call.errno for call in calls] == [number, number, number, 0]
        assert len({call.sent for call in calls}) == 1

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.EFAULT, errno.ENOMEM])
    def test_a_guest_that_never_finishes_is_named(self, kernel: FakeKernel, opened: Opener, number: int) -> None:
        """After some 150 ms of asking it is an error of its own, with the last errno (gotcha 3)."""
        device = opened(scripted(-number))
        started = time.monotonic()
        with pytest.raises(GuestChangingMode, match="QUERY_GFX_PLANE of the primary plane") as caught:
            device.query_plane(PRIMARY, DMABUF)
        assert 0.1 < time.monotonic() - started < 2
        assert caught.value.errno == number
        assert caught.value.cause == "guest-changing-mode"
        assert len(kernel.calls.of("ioctl")) in (7, 8)

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.EIO, DriverError),
            (errno.ENODEV, DeviceGone),
            (errno.ENOTTY, NotADisplay),
            (errno.ETIMEDOUT, TimedOut),
        ],
    )
    def test_another_errno_is_an_error_at_once(
        self, kernel: FakeKernel, opened: Opener, number: int, kind: type[MdevDisplayError]
    ) -> None:
        """NVIDIA's EIO and ETIMEDOUT, and a device that went away, do not pass by asking again."""
        with pytest.raises(kind, match="QUERY_GFX_PLANE of the cursor plane failed") as caught:
            opened(scripted(-number)).query_plane(CURSOR, REGION)
        assert caught.value.errno == number
        assert len(kernel.calls.of("ioctl")) == 1

    def test_an_error_that_becomes_another_is_that_other(self, opened: Opener) -> None:
        """A device that goes away during the back-off is gone."""
        with pytest.raises(DeviceGone):
            opened(scripted(-errno.EINVAL, -errno.ENODEV)).query_plane(PRIMARY, DMABUF)


class TestDecoding:
    @pytest.mark.parametrize("field", ["fourcc", "width", "height", "size"])
    def test_any_of_four_zeros_is_nothing_displayed(self, field: str) -> None:
        """NVIDIA answers a format with no size, mbochs all zeros: nothing displayed is a value (gotcha 1)."""
        assert decode_plane(plane(**{field: 0}), REGION, PRIMARY) is None

    def test_every_field_comes_from_its_own_place(self) -> None:
        """Distinct numbers in every field, at the offsets of the interface."""
        raw = plane(
            modifier=X_TILED, width=1920, height=1080, stride=7680, size=9000000, x=3, y=4, x_hot=5, y_hot=6, union=77
        )
        expected = SurfaceInfo(
            plane=CURSOR,
            fourcc=XR24,
            modifier=X_TILED,
            width=1920,
            height=1080,
            stride=7680,
            size=9000000,
            x=3,
            y=4,
            x_hot=5,
            y_hot=6,
            dmabuf_id=77,
        )
        assert decode_plane(raw, DMABUF, CURSOR) == expected
        region = decode_plane(raw, REGION, CURSOR)
        assert region is not None
        assert (region.dmabuf_id, region.region_index) == (None, 77)

    def test_an_unknown_hot_spot_is_none(self) -> None:
        """0xffffffff is no coordinate (gotcha 13); each axis on its own."""
        surface = decode_plane(plane(x_hot=0xFFFFFFFF, y_hot=7), DMABUF, CURSOR)
        assert surface is not None
        assert (surface.x_hot, surface.y_hot) == (None, 7)

    @pytest.mark.parametrize(
        ("size", "quirks", "expected"),
        [
            (300, Quirks(size_in_pages=True), 300 * 4096),
            (1228800, Quirks(size_in_pages=True), 1228800),
            (1228800 + 4096, Quirks(size_in_pages=True), 1228800 + 4096),
        ],
    )
    def test_gvts_pages_become_bytes(self, size: int, quirks: Quirks, expected: int) -> None:
        """Before Linux 5.2 its size was pages (gotcha 14): too small as bytes, enough as pages."""
        surface = decode_plane(plane(size=size), DMABUF, PRIMARY, quirks=quirks)
        assert surface is not None
        assert surface.size == expected

    @pytest.mark.parametrize("quirks", [None, Quirks()])
    def test_other_drivers_pages_are_a_bad_surface(self, quirks: Quirks | None) -> None:
        """Nobody else's size is reinterpreted."""
        with pytest.raises(BadSurface, match="the size is 300"):
            decode_plane(plane(size=300), DMABUF, PRIMARY, quirks=quirks)

    def test_pages_that_are_not_enough_stay_bad(self) -> None:
        """299 pages hold no 1,228,800 bytes; neither does a size that overflows 32 bits as pages."""
        for fields in ({"size": 299}, {"size": 0x100000, "height": 30000, "stride": 0x10000, "width": 16384}):
            with pytest.raises(BadSurface):
                decode_plane(plane(**fields), DMABUF, PRIMARY, quirks=Quirks(size_in_pages=True))

    def test_a_format_that_nobody_knows_is_kept(self) -> None:
        """Its size is not reinterpreted either, since nobody knows what it needs."""
        surface = decode_plane(
            plane(fourcc=0x12345678, modifier=INVALID, size=3), DMABUF, PRIMARY, quirks=Quirks(size_in_pages=True)
        )
        assert surface is not None
        assert (surface.format, surface.size, surface.modifier) == (None, 3, INVALID)

    @given(st.binary(min_size=64, max_size=64), st.sampled_from(list(GfxKind)), st.booleans())
    def test_any_64_bytes_are_a_surface_or_nothing_or_bad(self, raw: bytes, kind: GfxKind, pages: bool) -> None:
        """Random bytes never crash the decoder."""
        try:
            surface = decode_plane(raw, kind, PRIMARY, quirks=Quirks(size_in_pages=pages), device="d")
        except BadSurface:
            return
        if surface is None:
            assert 0 in struct.unpack_from("<I8x2I4xI", raw, 12)

    @given(
        fields=st.fixed_dictionaries(
            {
                "fourcc": st.sampled_from([*FORMATS, 0x12345678, 0]),
                "modifier": st.sampled_from([0, X_TILED, Y_TILED, INVALID]),
                "width": st.one_of(st.integers(0, 8192), st.integers(0, 0xFFFFFFFF)),
                "height": st.one_of(st.integers(0, 8192), st.integers(0, 0xFFFFFFFF)),
                "stride": st.one_of(st.integers(0, 1 << 17), st.integers(0, 0xFFFFFFFF)),
                "size": st.one_of(st.integers(0, 1 << 26), st.integers(0, 0xFFFFFFFF)),
                "x_hot": st.sampled_from([0, 5, 0xFFFFFFFF]),
            }
        ),
        pages=st.booleans(),
    )
    def test_what_is_decoded_adds_up(self, fields: dict[str, Any], pages: bool) -> None:
        """Plausible numbers: a surface that was accepted needs no more than the size that was reported."""
        try:
            surface = decode_plane(plane(**fields), DMABUF, PRIMARY, quirks=Quirks(size_in_pages=pages))
        except BadSurface:
            return
        if surface is None:
            assert 0 in (fields["fourcc"], fields["width"], fields["height"], fields["size"])
            return
        assert surface.needed <= surface.size
        assert surface.size in (fields["size"], fields["size"] * 4096 if pages else fields["size"])
        assert (surface.x_hot is None) == (fields["x_hot"] == 0xFFFFFFFF)


class TestRealDrivers:
    def test_mdpy(self, opened: Opener) -> None:
        """What a run of the real driver in the lab answered, byte for byte."""
        surface = opened(Mdpy("xga")).query_plane(PRIMARY, REGION)
        expected = SurfaceInfo(
            fourcc=XR24, width=1024, height=768, stride=4096, size=4194304, region_index=16, x_hot=0, y_hot=0
        )
        assert surface == expected

    def test_mdpy_answers_every_plane_type_with_its_primary(self, opened: Opener) -> None:
        """The plane type is ignored (gotcha 12): the backend has to see through it, not the query."""
        device = opened(Mdpy("xga"))
        cursor, primary = device.query_plane(CURSOR, REGION), device.query_plane(PRIMARY, REGION)
        assert cursor is not None
        assert primary is not None
        assert (cursor.width, cursor.region_index) == (primary.width, primary.region_index)

    def test_mbochs_shows_nothing_until_a_mode_is_set(self, opened: Opener) -> None:
        """All zeros; also for a mode that it does not take, and for other planes."""
        driver = Mbochs()
        device = opened(driver)
        assert device.query_plane(PRIMARY, DMABUF) is None
        for mode in ({"bpp": 16}, {"width": 63}, {"height": 63}, {"width": 4000, "height": 4000}):
            driver.set_mode(**({"width": 640, "height": 480} | mode))
            assert device.query_plane(PRIMARY, DMABUF) is None
        driver.set_mode(640, 480)
        surface = device.query_plane(PRIMARY, DMABUF)
        assert surface is not None
        assert (surface.dmabuf_id, surface.size) == (1, 640 * 480 * 4)
        assert device.query_plane(CURSOR, DMABUF) is None
        driver.blank()
        assert device.query_plane(PRIMARY, DMABUF) is None

    def test_mbochs_remembers_its_modes(self, opened: Opener) -> None:
        """Flipping back gives the old id again (gotcha 15)."""
        driver = Mbochs()
        device = opened(driver)
        ids = []
        for start in (0, 480, 0, 480):
            driver.set_mode(640, 480, y=start)
            surface = device.query_plane(PRIMARY, DMABUF)
            assert surface is not None
            ids.append(surface.dmabuf_id)
        assert ids == [1, 2, 1, 2]

    @pytest.mark.parametrize("pages", [False, True])
    @pytest.mark.parametrize("modifier", [0, X_TILED, Y_TILED])
    def test_gvt(self, opened: Opener, modifier: int, pages: bool) -> None:
        """Tiled is the normal case (gotcha 23); the size has whole rows of tiles, in bytes or in pages (gotcha 14)."""
        driver = Gvt(pages=pages)
        device = opened(driver)
        driver.show(1366, 768, modifier=modifier)
        surface = device.query_plane(PRIMARY, DMABUF)
        assert surface is not None
        assert (surface.modifier, surface.dmabuf_id) == (modifier, 1)
        assert surface.size >= surface.needed
        assert (surface.size % 4096 == 0) or not pages

    def test_gvts_cursor(self, opened: Opener) -> None:
        """Position, size and an unknown hot spot; off is None."""
        driver = Gvt()
        device = opened(driver)
        assert device.query_plane(CURSOR, DMABUF) is None
        driver.show_cursor(10, 20, size=64)
        cursor = device.query_plane(CURSOR, DMABUF)
        assert cursor is not None
        assert (cursor.x, cursor.y, cursor.width, cursor.x_hot) == (10, 20, 64, None)

    def test_gvts_overlay_is_a_refusal(self, opened: Opener) -> None:
        """It has none, and says EINVAL, which cannot be told from a guest that changes its mode."""
        with pytest.raises(GuestChangingMode):
            opened(Gvt()).query_plane(OVERLAY, DMABUF)

    def test_nvidia_fills_only_some_fields(self, opened: Opener) -> None:
        """Modifier, position and hot spot stay as sent: zeros."""
        driver = Nvidia()
        device = opened(driver)
        assert device.query_plane(PRIMARY, REGION) is None
        driver.show(1024, 768, code="RG24")
        surface = device.query_plane(PRIMARY, REGION)
        expected = SurfaceInfo(
            fourcc=fourcc("RG24"),
            width=1024,
            height=768,
            stride=3072,
            size=3072 * 768,
            region_index=9,
            x_hot=0,
            y_hot=0,
        )
        assert surface == expected

    @pytest.mark.parametrize(
        ("driver", "vendor"), [(Gvt, "i915"), (Mbochs, "mbochs"), (Mdpy, "mdpy"), (Nvidia, "nvidia")]
    )
    def test_quirks_go_by_the_mdev_type(self, opened: Opener, driver: type[Driver], vendor: str) -> None:
        """The vendor's key is the text before the first dash; a driver without an entry has no quirks."""
        device = opened(driver())
        assert device.identity.vendor == vendor
        assert device.quirks is quirks_of(device.identity)
        assert device.quirks.get_once == (vendor == "mbochs")
        assert device.quirks.get_when_borrowed == (vendor != "mbochs")
        assert device.quirks.size_in_pages == (vendor == "i915")


class TestQuirks:
    @pytest.mark.parametrize(
        ("identity", "like"),
        [
            (Identity(vendor="mbochs"), Identity(vendor="mbochs", driver="mbochs")),
            (Identity(driver="mbochs"), Identity(vendor="mbochs")),
            (Identity(driver="vfio_mdev"), Identity()),
            (Identity(vendor="acme"), Identity(vendor="another")),
        ],
    )
    def test_the_vendor_counts_and_then_the_driver(self, identity: Identity, like: Identity) -> None:
        """Where the type's link is missing, the driver's name says it; vfio_mdev is everybody's."""
        assert quirks_of(identity) is quirks_of(like)

    def test_an_unknown_driver_may_be_any(self) -> None:
        """Also one that must not be asked for a dma-buf while a VM uses it."""
        assert (quirks_of(Identity()).known, quirks_of(Identity()).get_when_borrowed) == (False, False)
        assert (quirks_of(Identity(vendor="acme")).known, quirks_of(Identity(vendor="acme")).get_when_borrowed) == (
            True,
            True,
        )

    def test_nvidias_console_is_mapped_once(self) -> None:
        """The hint is NVIDIA's alone."""
        assert "one mapping" in quirks_of(Identity(vendor="nvidia")).region_hint
        assert [quirks_of(Identity(vendor=vendor)).region_hint for vendor in ("i915", "mbochs", "mdpy", "")] == [""] * 4


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"plane": CURSOR, "x": 5, "y": 6, "x_hot": 1, "stride": 4096}, True),
        ({"dmabuf_id": 2}, False),
        ({"region_index": 1}, False),
        ({"offset": 4096}, False),
        ({"width": 63}, False),
        ({"height": 63}, False),
    ],
)
def test_planes_of_the_same_memory(change: dict[str, Any], same: bool) -> None:
    """Id or region, start and size: what differs otherwise does not make a cursor of the primary plane."""
    numbers = {"fourcc": XR24, "width": 64, "height": 64, "stride": 256, "size": 1 << 20, "dmabuf_id": 1}
    one, other = SurfaceInfo(**numbers), SurfaceInfo(**numbers | change)  # type: ignore[arg-type]
    assert same_memory(one, other) is same
