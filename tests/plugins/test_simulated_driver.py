"""The simulated driver: its raw answers, its time, its modes and buffers, and what it holds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_display import (
    decoded,
    dmabuf_bytes,
    luma_of,
    open_descriptors,
    opened,
    query,
    region_bytes,
    shown,
)

import mdevdisplay_simulated as plugin
from mdevdisplay.errors import Closed, DeviceNotFound
from mdevdisplay.formats import fourcc
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal
from mdevdisplay_simulated import memory, read_counter
from mdevdisplay_simulated.driver import SimulatedDriver
from mdevdisplay_simulated.options import parse

QUERY, GET = 0x3B72, 0x3B73
PROBE, DMABUF, REGION = 1, 2, 4
PRIMARY, CURSOR = 1, 2


def counter(source: plugin.SimulatedSource) -> int:
    surface = shown(source)
    return read_counter(luma_of(decoded(region_bytes(source, surface), surface)))


class Raw:
    """A driver and the bytes of linux/vfio.h, packed by hand."""

    def __init__(self, locator: str) -> None:
        self.time = 0.0
        self.driver = SimulatedDriver(parse(locator), locator, clock=lambda: self.time)

    def query(self, flags: int = DMABUF, plane: int = PRIMARY, argsz: int = 64, fill: int = 0) -> tuple[int, ...]:
        buffer = bytearray([fill]) * 64
        struct.pack_into("<III", buffer, 0, argsz, flags, plane)
        assert self.driver.ioctl(QUERY, buffer) == 0
        assert struct.unpack_from("<III", buffer) == (argsz, flags, plane)
        assert set(buffer[60:]) == {fill}, "a driver fills in 60 bytes and leaves the rest"
        return struct.unpack_from("<IQ9I", buffer, 12)

    def errno(self, **request: int) -> int:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what the test is about
            self.query(**request)
        return caught.value.errno or 0


def test_a_query_answers_the_kernels_bytes() -> None:
    """Each field lies where linux/vfio.h has it."""
    raw = Raw("sim:800x600,format=RG16,stride=2048,modifier=0x9,cursor=on")
    assert raw.query() == (fourcc("RG16"), 9, 800, 600, 2048, 600 * 2048, 0, 0, 0, 0, 1)
    assert raw.query(REGION)[-1] == 16
    format_, modifier, width, height, stride, size, _, _, x_hot, y_hot, number = raw.query(plane=CURSOR)
    assert (format_, modifier, width, height, stride, size) == (fourcc("AR24"), 0, 64, 64, 256, 16384)
    assert (x_hot, y_hot, number) == (6, 4, 2)
    assert raw.query(REGION, CURSOR)[-1] == 9
    raw.driver.close()


def test_a_plane_that_shows_nothing_is_answered_with_zeros() -> None:
    """As mbochs does; whatever the caller sent is overwritten."""
    raw = Raw("sim:64x64,blank=on")
    assert raw.query(fill=0xFF) == raw.query(plane=CURSOR, fill=0xFF) == (0,) * 11
    raw.driver.close()


@pytest.mark.parametrize("via", ["both", "dmabuf", "region"])
def test_wrong_requests_are_refused(via: str) -> None:
    """One kind alone or with PROBE, a known plane, at least 60 bytes: anything else is EINVAL."""
    raw = Raw(f"sim:64x64,via={via}")
    offered = {"both": {DMABUF, REGION}, "dmabuf": {DMABUF}, "region": {REGION}}[via]
    for flags in range(16):
        if flags & ~PROBE in offered:
            raw.query(flags)
        else:
            assert raw.errno(flags=flags) == errno.EINVAL, flags
    good = min(offered)
    assert raw.errno(flags=good, argsz=59) == errno.EINVAL
    assert raw.errno(flags=good, plane=0) == raw.errno(flags=good, plane=3) == errno.EINVAL
    raw.query(good, argsz=60)
    raw.query(good, argsz=100)
    raw.driver.close()


def test_other_ioctls_are_unknown() -> None:
    """A request that is none of the display's is ENOTTY, a buffer that is too short EFAULT, an unknown id EINVAL."""
    driver = SimulatedDriver(parse("sim:64x64"))
    for request, size, number in ((0x3B6F, 8, errno.ENOTTY), (QUERY, 59, errno.EFAULT), (GET, 4, errno.EINVAL)):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            driver.ioctl(request, bytearray(size))
        assert caught.value.errno == number
    driver.close()


@given(
    request=st.sampled_from([QUERY, GET, 0x3B6C]),
    argument=st.binary(max_size=80).map(bytearray),
    fault=st.sampled_from([name for name in plugin.FAULTS if name != "hang"]),
)
def test_no_bytes_confuse_the_driver(request: int, argument: bytearray, fault: str) -> None:
    """Whatever comes, it answers or raises OSError, as a kernel does."""
    driver = SimulatedDriver(parse(f"sim:8x8,cursor=on,fault={fault}"))
    with contextlib.suppress(OSError):
        assert driver.ioctl(request, argument) == 0
    driver.close()


# time


def test_the_clock_starts_with_the_first_query() -> None:
    """Whoever looks once sees the first frame, however long ago the display was opened."""
    raw = Raw("sim:64x64,fps=10,frame=5,buffers=16")
    raw.time = 100.0
    assert raw.query(REGION)[-1] == 16 + 5
    raw.time = 100.099
    assert raw.query(REGION)[-1] == 16 + 5
    raw.time = 100.35
    assert raw.query(REGION)[-1] == 16 + 8
    raw.driver.close()


def test_the_picture_moves_under_a_surface_that_stays() -> None:
    """With one buffer the surface is the same object, and what is mapped changes in place."""
    with opened("sim:64x64,step=1") as source:
        surface = shown(source)
        before = region_bytes(source, surface)
        assert shown(source) is surface
        assert not np.array_equal(region_bytes(source, surface), before)
        assert shown(source).dmabuf_id == 1


def test_a_still_picture_stays() -> None:
    """`fps=0` is the first frame for ever."""
    with opened("sim:64x64,fps=0,frame=9") as source:
        assert [counter(source) for _ in range(5)] == [9] * 5


def test_a_step_counts_answered_queries_of_the_primary_plane() -> None:
    """`step=3` shows each frame three times; the cursor's queries and the probe do not count, nor do failed ones."""
    with opened("sim:64x64,step=3,cursor=on,fault=einval:2") as source:
        seen = []
        for _ in range(7):
            plugin.probe(source)
            seen.append(counter(source))
            query(source, PlaneType.CURSOR)
        assert seen == [0, 0, 0, 1, 1, 1, 2]


def test_pages_are_flipped() -> None:
    """With two buffers two ids alternate, and the one that is not shown keeps the frame before."""
    with opened("sim:64x64,step=1,buffers=2") as source:
        first, second, third = shown(source), shown(source), shown(source)
        assert (first.dmabuf_id, second.dmabuf_id, third.dmabuf_id) == (1, 2, 1)
        frames = [read_counter(luma_of(decoded(dmabuf_bytes(source, surface), surface))) for surface in (third, second)]
        assert frames == [2, 1]


def test_regions_are_flipped_too() -> None:
    """In a region each buffer has an index of its own, beyond what a PCI device has."""
    with opened("sim:64x64,step=1,buffers=3,via=region") as source:
        assert [shown(source).region_index for _ in range(4)] == [16, 17, 18, 16]


def test_modes_follow_each_other() -> None:
    """Every `mode_every` frames comes the next size, with a buffer id of its own; the ids come back with the modes."""
    with opened("sim:modes=64x64/100x80/64x72,mode_every=2,step=1") as source:
        surfaces = [shown(source) for _ in range(8)]
        sizes = [(surface.width, surface.height) for surface in surfaces]
        assert sizes == [(64, 64)] * 2 + [(100, 80)] * 2 + [(64, 72)] * 2 + [(64, 64)] * 2
        assert [surface.dmabuf_id for surface in surfaces] == [1, 1, 2, 2, 3, 3, 1, 1]
        assert counter(source) == 8


def test_blank_frames_are_none() -> None:
    """A blank frame shows nothing, neither picture nor cursor, and passes like any other."""
    with opened("sim:64x64,step=1,cursor=on,blank=1-2/4") as source:
        assert [query(source) is None for _ in range(8)] == [False, True, True, False] * 2
        assert counter(source) == 8
        assert query(source) is None
        assert query(source, PlaneType.CURSOR) is None


def test_the_cursor_wanders_inside_the_screen() -> None:
    """Its position changes with the frames, its picture does not, and its tip stays on the screen."""
    with opened("sim:80x70,step=1,cursor=on") as source:
        places = []
        for _ in range(200):
            shown(source)
            cursor = shown(source, PlaneType.CURSOR)
            assert 0 <= cursor.x + (cursor.x_hot or 0) < 80
            assert 0 <= cursor.y + (cursor.y_hot or 0) < 70
            places.append((cursor.x, cursor.y))
            assert cursor.dmabuf_id == 2
        assert len(set(places)) > 50


def test_the_cursor_leaves_the_counter_free() -> None:
    """On a screen that is large enough a picture with its cursor drawn in has a counter that can be read."""
    with opened("sim:320x200,step=1,cursor=on") as source:
        for _ in range(200):
            surface, cursor = shown(source), shown(source, PlaneType.CURSOR)
            picture = luma_of(decoded(region_bytes(source, surface), surface))
            frame = read_counter(picture)
            picture[cursor.y : cursor.y + 64, cursor.x : cursor.x + 64] = 0
            assert read_counter(picture) == frame


@pytest.mark.parametrize("size", ["1x1", "5x5", "64x64"])
def test_a_cursor_may_be_larger_than_its_screen(size: str) -> None:
    """A tiny screen has a cursor too."""
    with opened(f"sim:{size},cursor=on,step=1") as source:
        for _ in range(5):
            shown(source)
            assert shown(source, PlaneType.CURSOR).width == 64


def test_there_is_no_cursor_unless_asked_for_and_one_output() -> None:
    """No cursor by default, never an overlay, nothing beyond output 0."""
    with opened("sim:64x64") as source:
        assert query(source, PlaneType.CURSOR) is None
        assert query(source, PlaneType.OVERLAY) is None
        assert plugin.get_surface_info(source, PlaneType.PRIMARY, 1) is None


# the hooks


def test_the_probe_claims_simulated_displays_alone() -> None:
    """100 for a simulated display, a refusal for anything else."""
    with opened("sim:64x64,via=region") as source:
        answer = plugin.probe(source)
        assert isinstance(answer, Match)
        assert (answer.score, answer.reason) == (100, "simulated, PROBE+REGION answered 0")
        assert (source.identity.vendor, source.identity.driver, source.borrowed) == ("simulated", "simulated", False)
    with Source("other") as other:
        assert plugin.probe(other) == Refusal("not a simulated display")


def test_nothing_is_listed() -> None:
    """A simulated display is there for the asking and no device of this host."""
    assert list(plugin.list_devices()) == []


@pytest.mark.parametrize(
    ("via", "dmabuf", "region"), [("both", True, True), ("dmabuf", True, False), ("region", False, True)]
)
def test_via_says_what_is_offered(via: str, dmabuf: bool, region: bool) -> None:
    """What is not offered is None, neither an error nor an answer."""
    with opened(f"sim:64x64,via={via}") as source:
        surface = shown(source)
        buffer = plugin.create_dmabuf(source, surface)
        assert (buffer is not None, plugin.query_region(source, surface) is not None) == (
            via != "region",
            via != "dmabuf",
        )
        assert (surface.dmabuf_id is not None, surface.region_index is not None) == (via != "region", via == "region")
        if buffer is not None:
            buffer.close()


def test_a_dmabuf_is_the_callers_own() -> None:
    """Two of the same surface have one key and different descriptors, close-on-exec, and outlive the display."""
    with opened("sim:64x64,fps=0") as source:
        surface = shown(source)
        truth = region_bytes(source, surface)
        one, other = plugin.create_dmabuf(source, surface), plugin.create_dmabuf(source, surface)
        assert one is not None
        assert other is not None
        assert one.key == other.key
        assert one.fileno() != other.fileno()
        assert not os.get_inheritable(one.fileno())
        one.close()
    with other, other.map() as region:
        assert np.array_equal(region.data[: surface.needed], truth)


def test_the_memory_cannot_shrink() -> None:
    """It is sealed, so that no reader can be hit by SIGBUS, and udmabuf takes it."""
    with opened("sim:100x100") as source:
        buffer = plugin.create_dmabuf(source, shown(source))
        assert buffer is not None
        with buffer:
            assert fcntl.fcntl(buffer.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            assert os.fstat(buffer.fileno()).st_size == 40960
            with pytest.raises(PermissionError):
                os.ftruncate(buffer.fileno(), 4096)


def test_a_closed_display_says_so() -> None:
    """After close() every hook raises Closed, and a second close() does nothing."""
    with opened("sim:64x64") as source:
        surface = shown(source)
    source.close()
    for call in (
        lambda: query(source),
        lambda: plugin.create_dmabuf(source, surface),
        lambda: plugin.query_region(source, surface),
        lambda: plugin.probe(source),
    ):
        with pytest.raises(Closed):
            call()


def test_nothing_is_left_open() -> None:
    """Closing gives back every descriptor, whatever was asked for before."""
    with opened("sim:64x64"):
        pass
    before = open_descriptors()
    for options in (
        "buffers=5,cursor=on,step=1",
        "fault=small-buffer",
        "fault=new-id-every-query",
        "modes=64x64/80x80",
    ):
        with opened(f"sim:{options}") as source:
            for _ in range(20):
                surface = shown(source)
                query(source, PlaneType.CURSOR)
                if "small-buffer" not in options:
                    dmabuf_bytes(source, surface)
                    region_bytes(source, surface)
    for wrong in ("sim:fault=nonsense", "sim:clip=/nonexistent", "sim:buffers=3,udmabuf=on"):
        if wrong.endswith("udmabuf=on") and Path(memory.UDMABUF).exists():
            continue
        with pytest.raises(Exception, match="option"), opened(wrong):
            pass
    assert open_descriptors() == before


def test_a_forgotten_display_is_reported_and_freed() -> None:
    """Without close() there is a ResourceWarning, and no descriptor is lost."""
    before = open_descriptors()
    source = plugin.open_locator("sim:64x64,buffers=3")
    assert source is not None
    assert open_descriptors() != before
    holder = [source]
    del source
    with pytest.warns(ResourceWarning, match="sim:64x64,buffers=3"):
        holder.clear()
    assert open_descriptors() == before


# udmabuf


def test_without_udmabuf_a_memfd_stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`auto` is content with a memfd; `on` is refused at once, with what to do."""
    monkeypatch.setattr(memory, "UDMABUF", str(tmp_path / "missing"))
    with opened("sim:64x64,udmabuf=auto") as source:
        assert dmabuf_bytes(source, shown(source)).any()
    with pytest.raises(DeviceNotFound, match="ENOENT") as caught, opened("sim:64x64,udmabuf=on"):
        pass
    assert "udmabuf module" in caught.value.hint


def test_udmabuf_is_asked_for_whole_pages_of_the_memfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """UDMABUF_CREATE gets the memfd, close-on-exec, from 0, rounded up to pages; its result is the dma-buf."""
    node = tmp_path / "udmabuf"
    node.touch()
    asked = []

    def ioctl(fd: int, request: int, argument: bytearray) -> int:
        assert Path(f"/proc/self/fd/{fd}").resolve() == node
        asked.append((request, struct.unpack("<IIQQ", argument)))
        return os.dup(asked[-1][1][0])

    monkeypatch.setattr(memory, "UDMABUF", str(node))
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    before = open_descriptors()
    with opened("sim:100x60,udmabuf=on,via=dmabuf") as source:
        monkeypatch.undo()
        surface = shown(source)
        for _ in range(2):
            assert dmabuf_bytes(source, surface).any()
    ((request, (_, flags, offset, size)),) = asked
    assert (request, flags, offset, size) == (0x40187542, 1, 0, 24576)
    assert open_descriptors() == before


def test_udmabuf_on_is_a_true_dmabuf_or_an_error() -> None:
    """Where the kernel has udmabuf, it shows what the region shows; where it has not, the error names it."""
    if not Path(memory.UDMABUF).exists():
        with pytest.raises(DeviceNotFound, match="udmabuf"):
            plugin.SimulatedSource("sim:64x64,udmabuf=on,fps=0")
        return
    with opened("sim:64x64,udmabuf=on,fps=0") as source:
        surface = shown(source)
        buffer = plugin.create_dmabuf(source, surface)
        assert buffer is not None
        with buffer:
            assert buffer.exporter == "udmabuf"
        assert np.array_equal(dmabuf_bytes(source, surface), region_bytes(source, surface))
