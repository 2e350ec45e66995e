from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import mdevdisplay
from mdevdisplay import Blank, Frame, FrameFlags, PlaneType
from mdevdisplay.connecting import connect
from mdevdisplay.errors import Closed, NothingDisplayed
from mdevdisplay.pixels.memory import PixelMemory
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
    for step in (reader.surface, reader.capture, reader.picture, reader.dmabuf, reader.readability, reader.pin):
        with pytest.raises(Closed):
            step(PRIMARY)


def test_a_capture_asks_twice(kernel: FakeKernel) -> None:
    """One query before the copy and one behind it; no mapping, region info or dma-buf after the first frame."""
    device = kernel.add(Mdpy("vga"))
    reader = connect(device.name, None, 0)
    reader.capture(PRIMARY)
    first = len(kernel.calls)
    reader.capture(PRIMARY)
    later = [str(call).split(" of ")[0] for call in kernel.calls[first:]]
    assert later == ["ioctl VFIO_DEVICE_QUERY_GFX_PLANE"] * 2
    reader.close()


def test_a_capture_gives_up_after_three_copies() -> None:
    """A plane that never stands still costs three copies and four queries, and says that it is torn."""
    reader = connect("sim:64x64,fault=torn", None, 0)
    before = reader.source.driver._queries  # type: ignore[attr-defined]
    frame = reader.capture(PRIMARY)
    assert frame.flags is FrameFlags.TORN
    assert reader.source.driver._queries - before == 4  # type: ignore[attr-defined]
    reader.close()


def test_what_is_let_go_goes_in_order(kernel: FakeKernel) -> None:
    """Mappings, dma-bufs, the device, its group, the container: the order that frees no memory under a driver."""
    device = kernel.add(Mbochs())
    device.set_mode(64, 64)
    reader = connect(device.name, None, 0)
    reader.capture(PRIMARY)
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
    """What a stream is made of: nothing displayed is a value here, and serials count both."""
    reader = connect("sim:64x64,blank=1-2,step=2", None, 0)
    pictures = [reader.picture(PRIMARY) for _ in range(8)]
    reader.close()
    assert isinstance(pictures[0], Frame)
    assert isinstance(pictures[1], Blank)
    assert isinstance(pictures[-1], Frame)
    assert [picture.serial for picture in pictures] == list(range(1, 9))
    assert [picture.timestamp for picture in pictures] == sorted(picture.timestamp for picture in pictures)


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
            places.add(memory.data.__array_interface__["data"][0])
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
    frame = reader.capture(PRIMARY)
    reader.close()
    with mdevdisplay.open("sim:320x200,frame=7,fps=0") as display:
        assert frame.raw.tobytes() == display.capture().raw.tobytes()
    assert read_counter(frame.pixels) == 7


def test_a_reader_copies_into_the_buffers_that_it_is_given() -> None:
    """Whoever wants frames in memory of its own hands the pool in, or sets it later."""

    class Pool:
        def __init__(self) -> None:
            self.memory = np.zeros(1 << 20, np.uint8)
            self.taken: list[int] = []

        def take(self, size: int) -> npt.NDArray[np.uint8]:
            self.taken.append(size)
            return self.memory[:size]

    pool, later = Pool(), Pool()
    other = connect("sim:64x64,fps=0", None, 0)
    reader = Reader(other.source, other.backend, pool=pool)
    frame = reader.capture(PRIMARY)
    reader.pool = later
    reader.capture(PRIMARY)
    reader.close()
    assert pool.taken == later.taken == [64 * 64 * 4]
    assert np.shares_memory(frame.raw, pool.memory)
    assert frame.decoded is None
    assert frame.decoded is not frame.pixels
    assert frame.decoded is frame.pixels
