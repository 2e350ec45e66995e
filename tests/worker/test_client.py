"""A display in a worker is the same display: every operation answers what it answers in this process."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest
from pixels.holdings import eventually, shared_mappings

from mdevdisplay import Blank, Frame, FrameFlags, PlaneType
from mdevdisplay.connecting import connect
from mdevdisplay.errors import Closed, LocatorError, MdevDisplayError, NothingDisplayed, NotMappable
from mdevdisplay.formats import FORMATS
from mdevdisplay.reader import Readability, Reader
from mdevdisplay.worker.client import RemoteReader
from mdevdisplay_simulated import read_counter
from worker.conftest import Remote
from worker.looks import captured
from worker.processes import is_running, links_of

PRIMARY, CURSOR = PlaneType.PRIMARY, PlaneType.CURSOR

STILL = [
    *(f"sim:67x33,fps=0,frame=5,format={layout.code.strip()}" for layout in FORMATS.values()),
    "sim:64x64,fps=0,stride=512",
    "sim:64x64,fps=0,modifier=X_TILED,stride=512",
    "sim:64x64,fps=0,modifier=0x100000000000004",
    "sim:64x64,fps=0,fault=unknown-fourcc",
    "sim:64x64,fps=0,via=dmabuf",
    "sim:64x64,fps=0,via=region",
    "sim:64x64,fps=0,fault=size-pow2",
    "sim:1x1,fps=0",
]


@pytest.mark.parametrize("locator", STILL)
def test_a_frame_is_the_same(remote: Remote, locator: str) -> None:
    """Bytes, shape, type, surface and flags."""
    here = connect(locator, None, 0)
    there = remote(locator)
    ours, theirs = captured(here), captured(there)
    here.close()
    assert theirs.raw.dtype == ours.raw.dtype
    assert theirs.raw.shape == ours.raw.shape
    assert theirs.raw.tobytes() == ours.raw.tobytes()
    assert theirs.surface == ours.surface
    assert theirs.flags == ours.flags
    assert theirs.raw.flags.writeable is ours.raw.flags.writeable is False
    assert (theirs.serial, theirs.damage) == (ours.serial, ours.damage)


FAULTY = [
    "sim:64x64,fault=einval-forever",
    "sim:64x64,fault=eio",
    "sim:64x64,fault=etimedout",
    "sim:64x64,fault=short-size",
    "sim:64x64,fault=short-stride",
    "sim:64x64,fault=huge",
    "sim:64x64,fault=huge-stride",
    "sim:64x64,fault=small-buffer",
    "sim:64x64,fault=region-refused,via=region",
    "sim:64x64,fault=get-einval,via=dmabuf",
    "sim:64x64,fault=gone:1",
]


@pytest.mark.parametrize("locator", FAULTY)
def test_an_error_is_the_same(remote: Remote, locator: str) -> None:
    """Class, message, device, hint, cause and errno."""
    here = connect(locator, None, 0)
    there = remote(locator)
    ours, theirs = _error_of(here), _error_of(there)
    here.close()
    assert type(theirs) is type(ours)
    assert str(theirs) == str(ours)
    assert (theirs.cause, theirs.hint, theirs.errno) == (ours.cause, ours.hint, ours.errno)


def _error_of(reader: Reader | RemoteReader) -> MdevDisplayError:
    for _ in range(3):
        try:
            captured(reader)
        except MdevDisplayError as error:
            return error
    pytest.fail("no error came")


def test_a_buffer_that_no_cpu_can_map_is_refused_alike(remote: Remote) -> None:
    """The error is that of mapping it, whatever a GPU says of it here and there."""
    locator = "sim:64x64,fault=dmabuf-enodev,via=dmabuf"
    here, there = connect(locator, None, 0), remote(locator)
    errors_ = [_error_of(here), _error_of(there)]
    readable = [here.readability(PRIMARY), there.readability(PRIMARY)]
    here.close()
    for error, found in zip(errors_, readable, strict=True):
        assert type(error) is NotMappable
        assert error.errno == errno.ENODEV
        assert "mapping a dma-buf of 16384 bytes" in error.message
        assert found.way == ""
        assert "ENODEV" in found.reason


@pytest.mark.parametrize("locator", ["sim:64x64,fault=zero-width", "sim:64x64,blank=on"])
def test_nothing_is_the_same(remote: Remote, locator: str) -> None:
    """A value of looking, None of the surface, and one error for whoever needs a picture."""
    here, there = connect(locator, None, 0), remote(locator)
    blanks = []
    messages = []
    for reader in (here, there):
        blank = reader.look(PRIMARY)
        assert isinstance(blank, Blank)
        assert reader.look(PRIMARY, blank) is blank
        assert reader.surface(PRIMARY) is None
        assert reader.damage_since(PRIMARY, 0) == ()
        with pytest.raises(NothingDisplayed) as caught:
            reader.shown(PRIMARY)
        blanks.append((blank.serial, blank.error))
        messages.append((str(caught.value), caught.value.hint))
    here.close()
    assert blanks == [(1, None)] * 2
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    "locator", ["sim:0x0", "sim:64x64,fault=enotty", "nonsense", "11111111-2222-3333-4444-555555555555"]
)
def test_what_cannot_be_opened_is_refused_alike(remote: Remote, locator: str) -> None:
    """The error of opening it comes out of the worker, which has ended then."""
    with pytest.raises(MdevDisplayError) as here:
        connect(locator, None, 0).close()
    with pytest.raises(MdevDisplayError) as there:
        remote(locator)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))


def test_what_is_known_of_it_is_the_same(remote: Remote) -> None:
    """Identity, borrowed or owned, backend with its distribution, and what the other backends said."""
    here, there = connect("sim:64x64", None, 0), remote("sim:64x64")
    assert (there.locator, there.identity, there.borrowed) == (here.locator, here.identity, here.borrowed)
    assert there.backend_info == here.backend_info
    assert there.edid() is None
    assert there.findings() == ()
    assert there.readability(PRIMARY) == here.readability(PRIMARY)
    here.close()


def test_findings_and_reasons_come_out(remote: Remote) -> None:
    """What a backend says of the device, and why its pixels cannot be had."""
    locator = "sim:64x64,fault=unknown-modifier"
    here, there = connect(locator, None, 0), remote(locator)
    assert there.findings() == here.findings() != ()
    assert there.readability(PRIMARY) == here.readability(PRIMARY) != Readability(way="region")
    here.close()


def test_the_chosen_backend_and_output_are_asked_for(remote: Remote) -> None:
    """They reach the worker: one that does not fit is refused, another output shows nothing."""
    with pytest.raises(MdevDisplayError, match="region_cap"):
        remote("sim:64x64", backend="region_cap")
    assert remote("sim:64x64", backend="simulated", output=1).surface(PRIMARY) is None


def test_every_mode_is_read(remote: Remote) -> None:
    """The picture grows and shrinks; each frame has the size of its moment."""
    reader = remote("sim:modes=64x48/160x120/32x32,mode_every=2,step=2")
    sizes = [(frame.width, frame.height) for frame in (captured(reader) for _ in range(12))]
    assert set(sizes) == {(64, 48), (160, 120), (32, 32)}


def test_frames_follow_each_other(remote: Remote) -> None:
    """Serial numbers count the pictures that were seen here, and each frame has its own picture."""
    reader = remote("sim:320x200,step=2")
    frames = [captured(reader) for _ in range(6)]
    counters = [read_counter(frame.pixels) for frame in frames]
    assert counters == sorted(set(counters))
    assert [frame.serial for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert [frame.timestamp for frame in frames] == sorted(frame.timestamp for frame in frames)


def test_torn_frames_are_flagged(remote: Remote) -> None:
    """As in this process."""
    assert captured(remote("sim:64x64,fault=torn")).flags is FrameFlags.TORN


def test_what_is_shown_still_is_the_same_object(remote: Remote) -> None:
    """As in this process: whoever hands in what it has gets that back, and no buffer is made for it."""
    reader = remote("sim:320x200,fps=0")
    frame = captured(reader)
    lines = shared_mappings("mdevdisplay-frame")
    for _ in range(5):
        assert reader.look(PRIMARY, frame) is frame
    again = captured(reader)
    assert again is not frame
    assert again.serial == frame.serial == 1
    assert not np.shares_memory(again.raw, frame.raw)
    assert again.raw.tobytes() == frame.raw.tobytes()
    assert reader.look(PRIMARY, frame.marked(FrameFlags.STALE)) is not frame
    assert len(shared_mappings("mdevdisplay-frame")) > len(lines)


def test_damage_comes_out(remote: Remote) -> None:
    """The tiles that changed between two looks, and what changed since any of them, are those of this process."""
    locator = "sim:640x400,step=2"
    here, there = connect(locator, None, 0), remote(locator)
    theirs: list[Frame | Blank] = [captured(there)]
    ours: list[Frame | Blank] = [captured(here)]
    # the first look of a worker was for the size alone: the driver is a picture ahead there
    while _counter_of(ours[0]) < _counter_of(theirs[0]):
        ours[0] = here.look(PRIMARY)
    for _ in range(5):
        ours.append(here.look(PRIMARY, ours[-1]))
        theirs.append(there.look(PRIMARY, theirs[-1]))
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, Frame)
        assert isinstance(other, Frame)
        assert _counter_of(one) == _counter_of(other)
        assert one.damage == other.damage != ()
    for one, other in zip(ours, theirs, strict=True):
        since = here.damage_since(PRIMARY, one.serial)
        assert since == there.damage_since(PRIMARY, other.serial)
        assert bool(since) == (one is not ours[-1])
    here.close()


def _counter_of(picture: Frame | Blank) -> int:
    assert isinstance(picture, Frame)
    return read_counter(picture.pixels)


def test_nothing_displayed(remote: Remote) -> None:
    """None, an error and one blank, and then frames."""
    reader = remote("sim:64x64,blank=0-1,step=2")
    assert reader.surface(PRIMARY) is None
    with pytest.raises(NothingDisplayed, match="primary"):
        reader.shown(PRIMARY)
    pictures: list[Frame | Blank] = [reader.look(PRIMARY)]
    for _ in range(7):
        pictures.append(reader.look(PRIMARY, pictures[-1]))
    dark = sum(isinstance(picture, Blank) for picture in pictures)
    assert dark == 2
    assert pictures[0] is pictures[1]
    assert [picture.serial for picture in pictures] == [1, *range(1, 8)]


def test_screen_and_cursor_in_turn(remote: Remote) -> None:
    """Each has buffers of its size: no memory is made anew."""
    reader = remote("sim:320x200,fps=0,cursor=on")
    for _ in range(3):
        assert captured(reader).width == 320
        assert captured(reader, CURSOR).width == 64
    lines = shared_mappings("mdevdisplay-frame")
    for _ in range(10):
        captured(reader)
        captured(reader, CURSOR)
    assert shared_mappings("mdevdisplay-frame") == lines
    assert len(lines) == 2


def test_the_same_surface_is_the_same_object(remote: Remote) -> None:
    """As long as nothing changed, as in this process."""
    reader = remote("sim:64x64,fps=0")
    surface = reader.surface(PRIMARY)
    assert reader.surface(PRIMARY) is surface
    assert captured(reader).surface is surface


def test_a_kept_frame_stays(remote: Remote) -> None:
    """However many follow, and when the display is long closed; it can be drawn on, and holds no descriptor."""
    reader = remote("sim:320x200,step=2")
    kept = [captured(reader) for _ in range(10)]
    bytes_of = [frame.raw.tobytes() for frame in kept]
    for _ in range(10):
        captured(reader)
    reader.close()
    assert [frame.raw.tobytes() for frame in kept] == bytes_of
    kept[0].pixels[:] = 7
    assert kept[0].raw.tobytes() == bytes_of[0]
    del kept
    gc.collect()
    assert shared_mappings("mdevdisplay-frame") == []


def test_dropped_frames_are_dropped_by_the_worker_too(remote: Remote) -> None:
    """Whoever held a hundred frames and drops them leaves a few buffers behind, on both sides."""
    reader = remote("sim:64x64,fps=0")
    frames = [captured(reader) for _ in range(50)]
    assert reader.pid is not None
    maps = Path(f"/proc/{reader.pid}/maps")
    assert maps.read_text().count("mdevdisplay-frame") >= 50
    del frames
    captured(reader)
    assert maps.read_text().count("mdevdisplay-frame") <= 5
    assert len(shared_mappings("mdevdisplay-frame")) <= 5


def test_no_copy_is_made_here(remote: Remote) -> None:
    """The frame lies in the memory that the worker wrote to."""
    reader = remote("sim:64x64,fps=0")
    frame = captured(reader)
    address = frame.raw.__array_interface__["data"][0]
    ranges = [line.split()[0].split("-") for line in shared_mappings("mdevdisplay-frame")]
    assert any(int(begin, 16) <= address < int(end, 16) for begin, end in ranges)


def test_memory_can_be_looked_at(remote: Remote) -> None:
    """The simulated display's memory is sealed, so this process maps it itself; what changes is seen."""
    reader = remote("sim:320x200,step=2,via=region")
    memory = reader.pin(PRIMARY)
    first = read_counter(np.asarray(memory.view()))
    reader.surface(PRIMARY)
    reader.surface(PRIMARY)
    assert read_counter(np.asarray(memory.view())) > first
    view = memory.view()
    reader.unpin(memory)
    reader.close()
    assert not view.any()


def test_a_dmabuf_can_be_looked_at(remote: Remote) -> None:
    """It is let go with the last look: it would hold a VM's device."""
    reader = remote("sim:320x200,fps=0,frame=9,via=dmabuf")
    one, two = reader.pin(PRIMARY), reader.pin(PRIMARY)
    reader.unpin(one)
    assert read_counter(np.asarray(two.view())) == 9
    reader.unpin(two)
    assert shared_mappings("mdevdisplay-simulated") == []


def test_many_buffers_are_looked_at_in_turn(remote: Remote) -> None:
    """The guest flips between more buffers than are kept."""
    reader = remote("sim:320x200,step=1,buffers=12,via=region")
    for _ in range(24):
        memory = reader.pin(PRIMARY)
        read_counter(np.asarray(memory.view()))
        reader.unpin(memory)


def test_dmabufs_come_out(remote: Remote) -> None:
    """Owned by the caller, with a key that is the same for the same buffer."""
    reader = remote("sim:320x200,fps=0,frame=3,via=dmabuf")
    with reader.dmabuf(PRIMARY) as one, reader.dmabuf(PRIMARY) as two:
        assert one.key == two.key
        assert one.surface is reader.surface(PRIMARY)
        with one.map() as region:
            shape = (200, 320, 4)
            assert read_counter(region.data[: one.surface.needed].reshape(shape)) == 3
    other = remote("sim:320x200,fps=0,via=dmabuf")
    with other.dmabuf(PRIMARY) as buffer, reader.dmabuf(PRIMARY) as three:
        assert three.key != buffer.key
        assert three.key == one.key


def test_a_dmabuf_outlives_its_worker(remote: Remote) -> None:
    """It is the caller's."""
    reader = remote("sim:64x64,fps=0,via=dmabuf")
    buffer = reader.dmabuf(PRIMARY)
    reader.close()
    with buffer, buffer.map() as region:
        assert region.data.any()


def test_a_descriptor_that_is_no_dmabuf_stays_out(remote: Remote) -> None:
    """The simulated fault makes a pipe of it: an error, and the worker lives on."""
    reader = remote("sim:64x64,fault=dmabuf-enodev,via=dmabuf")
    pid = reader.pid
    with pytest.raises(MdevDisplayError, match="as a dma-buf is none") as caught:
        reader.dmabuf(PRIMARY)
    assert caught.value.cause == "bad-descriptor"
    assert reader.surface(PRIMARY) is not None
    assert reader.pid == pid


def test_close_ends_the_worker(remote: Remote) -> None:
    """Idempotent; every call afterwards is Closed."""
    reader = remote("sim:64x64")
    pid = reader.pid
    assert pid is not None
    reader.close()
    reader.close()
    assert not is_running(pid)
    for step in (reader.surface, reader.look, reader.dmabuf, reader.readability, reader.pin):
        with pytest.raises(Closed):
            step(PRIMARY)


def test_a_worker_has_no_descriptors_of_ours(remote: Remote, tmp_path: Path) -> None:
    """Only its own, nothing as input and output, and standard error; not even inheritable ones."""
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        reader = remote("sim:64x64")
        assert reader.pid is not None
        links = links_of(reader.pid)
    assert not [link for link in links.values() if "secret" in link]
    assert links[0] == links[1] == "/dev/null"


def test_a_forgotten_reader_is_closed_with_a_warning() -> None:
    """As every owner here."""
    reader = RemoteReader("sim:64x64")
    pid = reader.pid
    assert pid is not None
    with pytest.warns(ResourceWarning, match="not closed"):
        del reader
        gc.collect()
    assert eventually(lambda: not is_running(pid))


def test_standard_descriptors_are_not_handed_over() -> None:
    """They are something else in a worker."""
    with pytest.raises(LocatorError, match="standard"):
        RemoteReader("fd:2")
