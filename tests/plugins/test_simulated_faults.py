"""Every fault of the simulated driver, and what the framework's own rules make of it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path

import pytest
from simulated_display import decoded, dmabuf_bytes, luma_of, opened, query, region_bytes, shown

import mdevdisplay_simulated as plugin
from mdevdisplay.errors import (
    BadSurface,
    DeviceGone,
    DriverError,
    GuestChangingMode,
    MdevDisplayError,
    NotMappable,
    TimedOut,
    TooManyBuffers,
)
from mdevdisplay.formats import fourcc
from mdevdisplay.surface import PlaneType, Refusal
from mdevdisplay_simulated import FAULTS, read_counter
from mdevdisplay_simulated.options import OPTIONS, parse

README = (Path(plugin.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PARTS = dict(part.split("\n", 1) for part in README.split("\n## "))


def test_the_readme_has_every_fault() -> None:
    """The list for people and the table in the code say the same, in the same order."""
    line = re.compile(r"^\| `([a-z0-9-]+)(?::([A-Z]+)` \((\d+)\)|`) \| (.+) \| (.+) \|$", re.MULTILINE)
    rows = line.findall(PARTS["Faults"])
    table = [
        (fault.name, fault.argument, str(fault.default) if fault.argument else "", fault.effect, fault.source)
        for fault in FAULTS.values()
    ]
    assert rows == table


def test_the_readme_has_every_option() -> None:
    """The options are listed in full."""
    rows = re.findall(r"^\| `([a-z_]+)` \|[^|]*\|[^|]*\|$", PARTS["Options"], re.MULTILINE)
    assert sorted(rows) == sorted(OPTIONS)


def test_the_readmes_locators_are_right() -> None:
    """Each locator of an example parses."""
    locators = re.findall(r"sim:[^\s\"`]*", README)
    assert len(locators) > 4
    for locator in locators:
        if "WIDTH" not in locator:
            parse(locator)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_in_an_answer_or_an_error_of_ours(name: str) -> None:
    """Whatever a driver does, a reader gets a surface, None or an MdevDisplayError, with the cursor as well."""
    value = ":0" if name == "hang" else ""
    for via in ("both", "dmabuf", "region"):
        with opened(f"sim:64x64,cursor=on,step=1,via={via},fault={name}{value}") as source:
            with contextlib.suppress(MdevDisplayError):
                plugin.probe(source)
            for plane in (PlaneType.PRIMARY, PlaneType.CURSOR, PlaneType.PRIMARY):
                with contextlib.suppress(MdevDisplayError):
                    read_both_ways(source, plane)


def read_both_ways(source: plugin.SimulatedSource, plane: PlaneType) -> None:
    surface = query(source, plane)
    if surface is not None:
        plugin.query_region(source, surface)
        buffer = plugin.create_dmabuf(source, surface)
        if buffer is not None:
            buffer.close()


@pytest.mark.parametrize("name", FAULTS)
def test_diagnose_names_the_faults(name: str) -> None:
    """`doctor` says that a fault was asked for, what it does, and how to be rid of it."""
    with opened(f"sim:64x64,fault={name}") as source:
        (finding,) = plugin.diagnose(source)
    assert finding.cause == f"simulated-{name}"
    assert FAULTS[name].effect in finding.evidence
    assert name in finding.remedy


def test_diagnose_names_a_blank_screen() -> None:
    """A blank screen that was asked for is no mystery, and a sound display has no findings."""
    with opened("sim:64x64,blank=on") as source:
        assert [finding.cause for finding in plugin.diagnose(source)] == ["simulated-blank"]
    with opened("sim:64x64") as source:
        assert plugin.diagnose(source) == []


def counter(source: plugin.SimulatedSource) -> int:
    surface = shown(source)
    return read_counter(luma_of(decoded(region_bytes(source, surface), surface)))


# queries that fail


@pytest.mark.parametrize("fault", ["enomem-once", "einval", "einval:6", "efault:1", "enomem-once+einval:2"])
def test_what_passes_is_asked_again(fault: str) -> None:
    """After each change of mode the query fails for a while, and the reader does not notice."""
    with opened(f"sim:modes=64x64/80x64,mode_every=1,step=1,fault={fault}") as source:
        assert [counter(source) for _ in range(4)] == [0, 1, 2, 3]


def test_enomem_comes_once_for_each_buffer() -> None:
    """A mode that comes back has its buffer already: only a new one costs a failed query."""
    with opened("sim:modes=64x64/80x64,mode_every=1,step=1,fault=enomem-once") as source:
        for _ in range(4):
            shown(source)
        assert source.driver._queries == 6


@pytest.mark.parametrize(
    ("fault", "kind", "number"),
    [
        ("einval:99", GuestChangingMode, errno.EINVAL),
        ("efault:99", GuestChangingMode, errno.EFAULT),
        ("einval-forever", GuestChangingMode, errno.EINVAL),
        ("eio", DriverError, errno.EIO),
        ("etimedout", TimedOut, errno.ETIMEDOUT),
        ("gone:0", DeviceGone, errno.ENODEV),
    ],
)
def test_what_stays_is_an_error(fault: str, kind: type[MdevDisplayError], number: int) -> None:
    """Each errno that does not pass has an error of its own."""
    with opened(f"sim:64x64,fault={fault}") as source:
        with pytest.raises(kind) as caught:
            query(source)
        assert caught.value.errno == number


def test_a_query_may_hang() -> None:
    """`hang` holds up every query for as long as it says."""
    with opened("sim:64x64,fault=hang:0.05") as source:
        begun = time.monotonic()
        shown(source)
        shown(source)
        assert time.monotonic() - begun >= 0.1


def test_a_device_goes() -> None:
    """After so many queries everything fails with ENODEV, a dma-buf as well as the next query."""
    with opened("sim:64x64,fault=gone:2") as source:
        surface = shown(source)
        shown(source)
        for call in (
            lambda: query(source),
            lambda: plugin.create_dmabuf(source, surface),
            lambda: plugin.probe(source),
        ):
            with pytest.raises(DeviceGone):
                call()


@pytest.mark.parametrize(("fault", "why"), [("enotty", "ENOTTY"), ("answers-all", "older than the interface")])
def test_drivers_without_a_display_are_refused(fault: str, why: str) -> None:
    """A driver that knows no display, and one that says yes to everything, are refused by the probe."""
    with opened(f"sim:64x64,fault={fault}") as source:
        answer = plugin.probe(source)
        assert isinstance(answer, Refusal)
        assert why in answer.reason


# odd reports


def test_untouched_bytes_mean_nothing_displayed() -> None:
    """GVT-g leaves the caller's bytes: always, after some answers, or for blank frames; never a stale surface."""
    with opened("sim:64x64,fault=untouched") as source:
        assert [query(source) for _ in range(3)] == [None] * 3
    with opened("sim:64x64,fault=untouched:2") as source:
        assert [query(source) is None for _ in range(4)] == [False, False, True, True]
    with opened("sim:64x64,step=1,blank=1-2,fault=untouched:9") as source:
        assert [query(source) is None for _ in range(4)] == [False, True, True, False]


@pytest.mark.parametrize("field", ["format", "width", "height", "size"])
def test_a_zero_means_nothing_displayed(field: str) -> None:
    """Any of format, width, height and size being 0 is a plane that shows nothing."""
    with opened(f"sim:64x64,fault=zero-{field}") as source:
        assert query(source) is None


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("short-size", "takes 16384 bytes, the size is 16383"),
        ("short-stride", "takes 256 bytes, the stride is 128"),
        ("huge", "width 100000"),
        ("huge-stride", "stride 2147483648"),
        ("huge+short-size", "width 100000"),
    ],
)
def test_numbers_that_do_not_add_up_are_refused(fault: str, what: str) -> None:
    """The error has the numbers."""
    with opened(f"sim:64x64,fault={fault}") as source, pytest.raises(BadSurface, match=what):
        query(source)


def test_a_buffer_smaller_than_its_picture_is_refused() -> None:
    """Neither way reads beyond the end of the memory that is really there."""
    with opened("sim:64x64,fault=small-buffer") as source:
        surface = shown(source)
        with pytest.raises(BadSurface, match="the dma-buf has 8192"):
            plugin.create_dmabuf(source, surface)
        with pytest.raises(BadSurface, match="the file behind the region has 8192"):
            region_bytes(source, surface)


def test_sizes_in_pages_are_understood() -> None:
    """GVT-g's old unit becomes bytes."""
    with opened("sim:100x100,cursor=on,fault=size-in-pages") as source:
        assert shown(source).size == 10 * 4096
        assert shown(source, PlaneType.CURSOR).size == 4 * 4096
        assert counter(source) == 0


def test_a_size_may_be_rounded_up() -> None:
    """Mdpy's size is that of its memory, and the picture is all there."""
    with opened("sim:100x100,fps=0,fault=size-pow2") as source:
        assert shown(source).size == 65536
        assert counter(source) == 0


def test_unknown_formats_and_modifiers_are_passed_on() -> None:
    """They are no fault of the surface: whoever converts it refuses them by name."""
    with opened("sim:64x64,fault=unknown-fourcc") as source:
        surface = shown(source)
        assert (surface.fourcc, surface.format) == (fourcc("SIM0"), None)
    with opened("sim:64x64,fault=unknown-modifier") as source:
        assert shown(source).modifier == 0xFF00000000000001


def test_a_torn_surface_never_stays() -> None:
    """No two queries in a row agree."""
    with opened("sim:64x64,fps=0,fault=torn") as source:
        assert [shown(source).height for _ in range(4)] == [64, 63, 64, 63]


# the cursor


def test_unknown_hot_spots_are_none() -> None:
    """0xffffffff is not a place."""
    with opened("sim:64x64,cursor=on,fault=hotspot-unknown") as source:
        cursor = shown(source, PlaneType.CURSOR)
        assert (cursor.x_hot, cursor.y_hot) == (None, None)


def test_hot_spots_outside_the_picture_are_passed_on() -> None:
    """What the guest's driver wrote is the reader's to judge."""
    with opened("sim:64x64,cursor=on,fault=hotspot-outside") as source:
        assert (shown(source, PlaneType.CURSOR).x_hot or 0) > 64


@pytest.mark.parametrize("via", ["dmabuf", "region"])
@pytest.mark.parametrize("first", [PlaneType.PRIMARY, PlaneType.CURSOR])
def test_a_cursor_that_is_the_primary_plane_is_none(via: str, first: PlaneType) -> None:
    """Mdpy and NVIDIA answer the primary plane to every query, whichever is asked for first."""
    with opened(f"sim:80x64,via={via},fault=cursor-is-primary") as source:
        query(source, first)
        assert query(source, PlaneType.CURSOR) is None
        assert shown(source).width == 80


def test_a_lost_sign_makes_a_position_positive() -> None:
    """GVT-g gives the distance from the edge, on whichever side it is."""
    with opened("sim:64x64,cursor=on,fault=cursor-sign-lost") as source:
        cursor = shown(source, PlaneType.CURSOR)
        assert (cursor.x, cursor.y) == (cursor.x_hot, cursor.y_hot) == (6, 4)


# dma-bufs and memory


def test_recycled_ids_are_told_apart_by_their_geometry() -> None:
    """One id for every mode: each surface gets a dma-buf of its own size."""
    with opened("sim:modes=64x64/80x72,mode_every=1,step=1,fault=recycled-ids") as source:
        for _ in range(4):
            surface = shown(source)
            assert surface.dmabuf_id == 1
            data = dmabuf_bytes(source, surface)
            assert data.size == surface.needed
            read_counter(luma_of(decoded(data, surface)))


def test_thousands_of_buffers_do_not_use_up_descriptors() -> None:
    """A guest that flips without end costs no more than the buffers that are kept."""
    with opened("sim:64x64,fault=new-id-every-query") as source:
        ids = set()
        for _ in range(3000):
            surface = shown(source)
            ids.add(surface.dmabuf_id)
            buffer = plugin.create_dmabuf(source, surface)
            assert buffer is not None
            buffer.close()
        assert len(ids) == 3000
        assert len(os.listdir("/proc/self/fd")) < 200  # noqa: PTH208 - a count, not paths


def test_a_new_buffer_may_last_for_some_queries() -> None:
    """`new-id-every-query:2` leaves a capture time to see the same surface twice."""
    with opened("sim:64x64,fps=0,fault=new-id-every-query:2") as source:
        assert [shown(source).dmabuf_id for _ in range(6)] == [1, 1, 2, 2, 3, 3]


def test_an_id_that_is_long_gone_is_unknown() -> None:
    """The driver forgets a buffer that the guest left a thousand flips ago."""
    with opened("sim:64x64,fault=new-id-every-query") as source:
        first = shown(source)
        for _ in range(1100):
            shown(source)
        with pytest.raises(DriverError) as caught:
            plugin.create_dmabuf(source, first)
        assert caught.value.errno == errno.EINVAL
        assert plugin.query_region(source, first) is None


def test_a_dmabuf_that_may_be_asked_for_once_is_asked_for_once() -> None:
    """The framework keeps it and hands out duplicates, also where the ids of two modes alternate."""
    with opened("sim:modes=64x64/80x64,mode_every=1,step=1,fault=get-once") as source:
        for _ in range(8):
            dmabuf_bytes(source, shown(source))
        with pytest.raises(OSError, match="busy"):
            source.driver.ioctl(0x3B73, bytearray((1).to_bytes(4, "little")))


def test_buffers_that_must_be_kept_meet_a_cap() -> None:
    """Endless buffers of a driver whose buffers must be kept end in an error with a name."""

    def flip_through(source: plugin.SimulatedSource) -> None:
        for _ in range(300):
            dmabuf_bytes(source, shown(source))

    with opened("sim:64x64,fault=get-once+new-id-every-query") as source, pytest.raises(TooManyBuffers):
        flip_through(source)


@pytest.mark.parametrize(("fault", "number"), [("get-einval", errno.EINVAL), ("get-enoent", errno.ENOENT)])
def test_a_refused_dmabuf_is_an_error_and_the_region_still_works(fault: str, number: int) -> None:
    """The errno is kept, and reading goes on another way."""
    with opened(f"sim:64x64,fps=0,fault={fault}") as source:
        surface = shown(source)
        with pytest.raises(DriverError) as caught:
            plugin.create_dmabuf(source, surface)
        assert caught.value.errno == number
        assert counter(source) == 0


def test_a_descriptor_is_made_close_on_exec() -> None:
    """Mbochs exports without it, and the framework mends that."""
    with opened("sim:64x64,fault=no-cloexec") as source:
        surface = shown(source)
        fd = source.driver.ioctl(0x3B73, bytearray((surface.dmabuf_id or 0).to_bytes(4, "little")))
        assert os.get_inheritable(fd)
        os.close(fd)
        buffer = plugin.create_dmabuf(source, surface)
        assert buffer is not None
        with buffer:
            assert not os.get_inheritable(buffer.fileno())


def test_a_dmabuf_that_no_cpu_maps() -> None:
    """The buffer is handed out, and mapping it is refused with the errno that i915 gives."""
    with opened("sim:64x64,fault=dmabuf-enodev") as source:
        buffer = plugin.create_dmabuf(source, shown(source))
        assert buffer is not None
        with buffer, pytest.raises(NotMappable) as caught:
            buffer.map()
        assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("size", ["64x64", "100x70"])
def test_a_region_that_is_taken(size: str) -> None:
    """Mapping is refused with NVIDIA's errno, and the dma-buf still works."""
    with opened(f"sim:{size},fps=0,fault=region-refused") as source:
        surface = shown(source)
        with pytest.raises(NotMappable) as caught:
            region_bytes(source, surface)
        assert caught.value.errno == errno.EINVAL
        assert read_counter(luma_of(decoded(dmabuf_bytes(source, surface), surface))) == 0
