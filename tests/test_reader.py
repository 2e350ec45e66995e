from __future__ import annotations

import itertools

import numpy as np
import pytest

import mdevdisplay
from mdevdisplay import Blank, Frame, FrameFlags, PlaneType
from mdevdisplay.connecting import connect
from mdevdisplay.errors import Closed, NothingDisplayed
from mdevdisplay.pixels.memory import PixelMemory
from mdevdisplay.pixels.pool import Lent, Storage
from mdevdisplay.reader import Readability, Reader
from mdevdisplay.testing import FakeKernel, Mbochs, Mdpy
from mdevdisplay_simulated import read_counter

PRIMARY = PlaneType.PRIMARY


def test_a_reader_takes_over_its_source() -> None:
    """close() closes the source, and is idempotent; every step afterwards is Closed."""
    reader = connect("sim:64x64", None, 0)
    source = reader.source
    assert isinstance(reader, Reader)
    reader.close()
    reader.close()
    assert source.closed
    for step in (reader.surface, reader.look, reader.dmabuf, reader.readability, reader.pin):
        with pytest.raises(Closed):
            step(PRIMARY)


def framed(picture: Frame | Blank) -> Frame:
    """Return a picture that has to be a frame."""
    assert isinstance(picture, Frame)
    return picture


@pytest.mark.parametrize("known", [False, True])
def test_a_look_asks_twice(kernel: FakeKernel, known: bool) -> None:
    """One query before the copy and one behind it; no mapping, region info or dma-buf after the first frame."""
    device = kernel.add(Mdpy("vga"))
    reader = connect(device.name, None, 0)
    picture = reader.look(PRIMARY)
    first = len(kernel.calls)
    reader.look(PRIMARY, picture if known else None)
    later = [str(call).split(" of ")[0] for call in kernel.calls[first:]]
    assert later == ["ioctl VFIO_DEVICE_QUERY_GFX_PLANE"] * 2
    reader.close()


def test_a_look_gives_up_after_three_copies() -> None:
    """A plane that never stands still costs three copies and four queries, and says that it is torn."""
    reader = connect("sim:64x64,fault=torn", None, 0)
    before = reader.source.driver._queries  # type: ignore[attr-defined]
    frame = framed(reader.look(PRIMARY))
    assert frame.flags is FrameFlags.TORN
    assert reader.source.driver._queries - before == 4  # type: ignore[attr-defined]
    reader.close()


def test_what_is_let_go_goes_in_order(kernel: FakeKernel) -> None:
    """Mappings, dma-bufs, the device, its group, the container: the order that frees no memory under a driver."""
    device = kernel.add(Mbochs())
    device.set_mode(64, 64)
    reader = connect(device.name, None, 0)
    reader.look(PRIMARY)
    reader.dmabuf(PRIMARY).close()
    assert kernel.calls.releases() == []
    reader.close()
    assert kernel.calls.releases() == [
        f"unmap {device.name}",
        f"close dma-buf 1 of {device.name}",
        f"close {device.name}",
        f"close group {device.group}",
        "close container",
    ]


def test_a_picture_is_a_frame_or_a_blank() -> None:
    """Nothing displayed is a value here; serials count the pictures and the dark between them, once each."""
    reader = connect("sim:64x64,blank=1-2,step=2", None, 0)
    pictures = [reader.look(PRIMARY) for _ in range(8)]
    reader.close()
    # a dark plane is asked once a look, a picture before and after its copy
    assert [type(picture) for picture in pictures] == [Frame] + [Blank] * 4 + [Frame] * 3
    assert [picture.serial for picture in pictures] == [1, 2, 2, 2, 2, 3, 4, 5]
    assert [read_counter(picture.pixels) for picture in pictures if isinstance(picture, Frame)] == [0, 3, 4, 5]
    assert [picture.timestamp for picture in pictures] == sorted(picture.timestamp for picture in pictures)


def test_what_is_shown_still_is_the_same_object() -> None:
    """Whoever hands in what it has gets that back until something else is shown; a copy is made of what changed."""
    reader = connect("sim:64x64,blank=1-2,step=6", None, 0)
    pictures: list[Frame | Blank] = [reader.look(PRIMARY)]
    while pictures[-1].serial < 4:
        pictures.append(reader.look(PRIMARY, pictures[-1]))
    reader.close()
    assert [picture.serial for picture in pictures] == [1, 1, 1] + [2] * 12 + [3, 3, 3, 4]
    assert all((one is other) == (one.serial == other.serial) for one, other in itertools.pairwise(pictures))
    assert [type(picture) for picture in pictures] == [Frame] * 3 + [Blank] * 12 + [Frame] * 4


def test_another_frame_of_the_same_picture_is_another_frame() -> None:
    """Who hands in nothing gets a frame of its own, with the same serial and bytes; neither shares the other's."""
    reader = connect("sim:64x64,fps=0", None, 0)
    one, other = framed(reader.look(PRIMARY)), framed(reader.look(PRIMARY))
    assert one.serial == other.serial == 1
    assert one.raw.tobytes() == other.raw.tobytes()
    assert not np.shares_memory(one.raw, other.raw)
    # one that is older than what is shown, or marked as stale, is not what is shown
    assert reader.look(PRIMARY, one.evolve(serial=0)) is not one
    stale = one.marked(FrameFlags.STALE)
    assert framed(reader.look(PRIMARY, stale)).flags is FrameFlags.NONE
    reader.close()


def test_shown_is_a_surface_or_an_error() -> None:
    """shown() is surface() for those who need one."""
    reader = connect("sim:64x64,cursor=on", None, 0)
    assert reader.shown(PlaneType.CURSOR).plane is PlaneType.CURSOR
    with pytest.raises(NothingDisplayed, match="overlay"):
        reader.shown(PlaneType.OVERLAY)
    reader.close()


def test_planes_do_not_cost_each_other_their_mappings() -> None:
    """Screen and cursor in turn, as a viewer reads them: each is mapped once."""
    reader = connect("sim:64x64,fps=0,cursor=on,via=region", None, 0)
    places = set()
    for _ in range(4):
        for plane in (PRIMARY, PlaneType.CURSOR):
            memory = reader.pin(plane)
            reader.unpin(memory)
            assert isinstance(memory, PixelMemory)
            places.add(memory.mapping.data.__array_interface__["data"][0])
    reader.close()
    assert len(places) == 2


def test_readability_is_a_value() -> None:
    """The way, and no reason; or a reason, and no way."""
    reader = connect("sim:64x64,via=dmabuf", None, 0)
    assert reader.readability(PRIMARY) == Readability(way="dma-buf")
    reader.close()


def test_frames_of_a_reader_are_those_of_a_display() -> None:
    """The display adds deadlines and threads, and changes no pixel."""
    reader = connect("sim:320x200,frame=7,fps=0", None, 0)
    frame = framed(reader.look(PRIMARY))
    reader.close()
    with mdevdisplay.open("sim:320x200,frame=7,fps=0") as display:
        assert frame.raw.tobytes() == display.capture().raw.tobytes()
    assert read_counter(frame.pixels) == 7


class CountingPool:
    """Hands out one buffer, again and again."""

    def __init__(self) -> None:
        self.storage = Storage(np.zeros(1 << 20, np.uint8))
        self.taken: list[int] = []

    def take(self, size: int) -> Lent:
        self.taken.append(size)
        return Lent(self.storage.data[:size], self.storage)


def test_a_picture_is_copied_into_the_buffers_that_are_given() -> None:
    """Whoever wants a picture in memory of its own brings it up to date and hands a pool in, another one each time."""
    pool, later = CountingPool(), CountingPool()
    reader = connect("sim:64x64,fps=0", None, 0)
    assert not reader.refresh(PRIMARY)
    one = reader.live(PRIMARY).copy(pool)
    other = reader.live(PRIMARY).copy(later)
    expected = framed(reader.look(PRIMARY)).raw.tobytes()
    reader.close()
    assert pool.taken == later.taken == [64 * 64 * 4]
    assert np.shares_memory(one, pool.storage.data)
    assert np.shares_memory(other, later.storage.data)
    assert one.tobytes() == other.tobytes() == expected


def test_a_picture_that_is_known_takes_no_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied for whoever has the picture already."""
    pool = CountingPool()
    reader = connect("sim:64x64,fps=0", None, 0)
    monkeypatch.setattr(reader, "_pool", pool)
    frame = reader.look(PRIMARY)
    for _ in range(3):
        assert reader.look(PRIMARY, frame) is frame
    reader.close()
    assert pool.taken == [64 * 64 * 4]


def test_pixels_are_made_at_the_first_use() -> None:
    """A format that we convert costs its conversion only where somebody looks at it."""
    reader = connect("sim:64x64,fps=0", None, 0)
    frame = framed(reader.look(PRIMARY))
    reader.close()
    assert frame.decoded is None
    assert frame.pixels is frame.pixels
