"""Frames of a display as its consumers see them: in this process, from a worker's, and in an event loop, all alike."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from gate import Gate
from pixels.holdings import eventually, holdings, nothing_new_since

import mdevdisplay
from mdevdisplay import Blank, Frame, FrameFlags, PlaneType, Rect, SurfaceInfo
from mdevdisplay._lane import Lane
from mdevdisplay.connecting import connect
from mdevdisplay.errors import DeviceGone, TimedOut
from mdevdisplay.pixels.damage import full_mask
from mdevdisplay.stream import FrameStream
from mdevdisplay.testing import FakeKernel, Nvidia
from mdevdisplay_simulated import read_counter

Picture = Frame | Blank
Pixels = npt.NDArray[np.uint8]

WAYS = ("here", "isolated", "async")
MODES = "modes=200x130/130x200/257x64/200x130,mode_every=6"


def follow(way: str, locator: str, count: int, see: Callable[[Picture], object], *, cursor: bool = False) -> None:
    """Hand so many pictures of a display's stream on, one by one."""
    if way == "async":
        asyncio.run(_follow(locator, count, see, cursor=cursor))
        return
    with mdevdisplay.open(locator, isolated=way == "isolated") as display:
        for number, picture in enumerate(display.frames(max_fps=1000, cursor=cursor), 1):
            see(picture)
            if number == count:
                break


async def _follow(locator: str, count: int, see: Callable[[Picture], object], *, cursor: bool) -> None:
    async with mdevdisplay.aopen(locator) as display:
        number = 0
        async for picture in display.frames(max_fps=1000, cursor=cursor):
            see(picture)
            number += 1
            if number == count:
                break


class Canvas:
    """A consumer that paints only what the damage says, and compares."""

    def __init__(self) -> None:
        self.pixels: Pixels | None = None
        self.serial = 0
        self.whole = self.parts = self.blanks = 0
        self.wrong: list[int] = []
        self.shares: list[float] = []

    def __call__(self, picture: Picture) -> None:
        assert picture.serial > self.serial
        self.serial = picture.serial
        if isinstance(picture, Blank):
            self.blanks += 1
            self.pixels = None
            return
        fresh = picture.pixels
        if self.pixels is None or self.pixels.shape != fresh.shape:
            self.pixels = np.zeros_like(fresh)
            self.whole += 1
            assert picture.damage == (Rect(0, 0, picture.width, picture.height),)
        else:
            self.parts += 1
            self.shares.append(float(picture.changed_tiles.mean()))
        for rect in picture.damage:
            place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            self.pixels[place] = fresh[place]
        if not np.array_equal(self.pixels, fresh):
            self.wrong.append(picture.serial)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cursor", [False, True])
def test_the_damage_of_consecutive_frames_adds_up(way: str, cursor: bool) -> None:
    """Whoever paints only the damaged rectangles has every frame exactly, hundreds of steps long."""
    canvas = Canvas()
    follow(way, "sim:640x360,step=1,cursor=on", 300, canvas, cursor=cursor)
    assert canvas.wrong == []
    assert (canvas.whole, canvas.parts, canvas.blanks) == (1, 299, 0)
    assert np.mean(canvas.shares) < 0.7, "it is less than everything"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cursor", [False, True])
@pytest.mark.parametrize(
    "options", ["format=NV12", "modifier=Y_TILED", "via=dmabuf", "buffers=3", "format=XR30,via=region"]
)
def test_modes_and_blanks_are_followed(way: str, cursor: bool, options: str) -> None:
    """Each new mode, and each return of the screen, begins with a whole frame; everything else adds up."""
    canvas = Canvas()
    follow(way, f"sim:{MODES},blank=15-17/30,step=1,cursor=on,{options}", 120, canvas, cursor=cursor)
    assert canvas.wrong == []
    assert canvas.whole > 15
    assert canvas.parts > 20
    assert canvas.blanks >= 3


@pytest.mark.parametrize("way", WAYS)
def test_the_guests_frames_come_in_order(way: str) -> None:
    """Their counters, sizes and serials: nothing twice, nothing old, each mode in its size."""
    sizes = ((200, 130), (130, 200), (257, 64), (200, 130))
    seen: list[int] = []

    def see(picture: Picture) -> None:
        assert isinstance(picture, Frame)
        seen.append(read_counter(picture.pixels))
        assert (picture.width, picture.height) == sizes[seen[-1] // 6 % 4]
        assert picture.flags in (FrameFlags.NONE, FrameFlags.TORN)

    follow(way, f"sim:{MODES},step=2", 60, see)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("way", WAYS)
def test_a_still_screen_is_one_frame(way: str) -> None:
    """Nothing changes, nothing comes, and the statistics say that somebody looks."""
    if way == "async":

        async def main() -> None:
            async with mdevdisplay.aopen("sim:64x64,fps=0") as display:
                stream = display.frames(max_fps=1000)
                assert isinstance(await anext(stream), Frame)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.3)
                assert (stream.statistics.pictures, stream.statistics.looks > 3) == (1, True)

        asyncio.run(main())
        return
    with mdevdisplay.open("sim:64x64,fps=0", isolated=way == "isolated") as display:
        stream = display.frames(max_fps=1000)
        next(stream)
        closing = threading.Timer(0.3, stream.close)
        closing.start()
        assert list(stream) == []
        closing.join()
        assert (stream.statistics.pictures, stream.statistics.looks > 3) == (1, True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cursor", [False, True])
def test_a_slow_consumer_asks_what_changed(way: str, cursor: bool) -> None:
    """Whoever skips frames paints what changed since the one that it has, and has the newest exactly."""
    if way == "async":
        asyncio.run(_skip_frames(cursor=cursor))
        return
    with mdevdisplay.open("sim:640x360,step=1,cursor=on", isolated=way == "isolated") as display:
        stream = display.frames(max_fps=1000, cursor=cursor)
        has = next(stream)
        assert isinstance(has, Frame)
        canvas = has.pixels.copy()
        for skipped in range(1, 12):
            for _ in range(skipped):
                newest = next(stream)
            assert isinstance(newest, Frame)
            _paint(canvas, newest, display.damage_since(has.serial, cursor=cursor))
            assert display.damage_since(newest.serial, cursor=cursor) == ()
            has = newest
        assert display.damage_since(0, cursor=cursor) == (Rect(0, 0, 640, 360),)
        assert display.damage_since(0, plane=PlaneType.OVERLAY) == ()


async def _skip_frames(*, cursor: bool) -> None:
    async with mdevdisplay.aopen("sim:640x360,step=1,cursor=on") as display:
        stream = display.frames(max_fps=1000, cursor=cursor)
        has = await anext(stream)
        assert isinstance(has, Frame)
        canvas = has.pixels.copy()
        for skipped in range(1, 12):
            for _ in range(skipped):
                newest = await anext(stream)
            assert isinstance(newest, Frame)
            _paint(canvas, newest, await display.damage_since(has.serial, cursor=cursor))
            has = newest


def _paint(canvas: Pixels, newest: Frame, damage: tuple[Rect, ...]) -> None:
    assert 0 < sum(rect.width * rect.height for rect in damage) < 640 * 360
    for rect in damage:
        place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
        canvas[place] = newest.pixels[place]
    assert np.array_equal(canvas, newest.pixels)


@pytest.mark.parametrize("isolated", [False, True])
def test_streams_that_share_a_display_each_add_up(isolated: bool) -> None:
    """Two streams of different rates, one with the cursor, and captures in between: each has its own damage."""
    with mdevdisplay.open("sim:640x360,step=3,cursor=on", isolated=isolated) as display:
        streams = [
            display.frames(max_fps=1000),
            display.frames(max_fps=1000),
            display.frames(max_fps=1000, cursor=True),
        ]
        canvases = [Canvas() for _ in streams]
        for step in range(60):
            for number, (stream, canvas) in enumerate(zip(streams, canvases, strict=True)):
                if step % (number + 1) == 0:
                    canvas(next(stream))
            if step % 7 == 0:
                assert display.capture().damage == (Rect(0, 0, 640, 360),)
    assert [canvas.wrong for canvas in canvases] == [[], [], []]


@pytest.mark.parametrize("way", WAYS)
def test_a_guest_that_sets_its_mode_leaves_a_stale_frame(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last picture again, once, flagged and without damage; then the new mode."""
    monkeypatch.setattr("mdevdisplay.pace._STALE_AFTER", 0.0)
    seen: list[tuple[bool, int, bool]] = []

    def see(picture: Picture) -> None:
        assert isinstance(picture, Frame)
        stale = FrameFlags.STALE in picture.flags
        seen.append((stale, picture.width, bool(picture.damage)))

    follow(way, "sim:modes=64x64/128x96,mode_every=2,step=2,fault=einval:30", 6, see)
    place = [flag for flag, _, _ in seen].index(True)
    assert 0 < place < 5
    assert seen[place - 1][1] == seen[place][1] != seen[place + 1][1]
    assert [seen[place + step][0] for step in (-1, 0, 1)] == [False, True, False]
    assert [seen[place + step][2] for step in (0, 1)] == [False, True]


@pytest.mark.parametrize("way", ["here", "isolated"])
def test_after_a_stale_frame_the_same_picture_is_fresh_again(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plane comes back as it was: a new frame without the flag, of the same serial, without damage."""
    with mdevdisplay.open("sim:64x64,fps=0", isolated=way == "isolated") as display:
        look = display._reader.look
        first = look(PlaneType.PRIMARY)
        assert isinstance(first, Frame)
        for cursor in (False, True):
            last = look(PlaneType.PRIMARY, None, cursor=cursor)
            assert isinstance(last, Frame)
            fresh = look(PlaneType.PRIMARY, last.marked(FrameFlags.STALE), cursor=cursor)
            assert isinstance(fresh, Frame)
            assert fresh is not last
            assert (fresh.serial, fresh.flags, fresh.damage) == (last.serial, FrameFlags.NONE, ())
            assert look(PlaneType.PRIMARY, fresh, cursor=cursor) is fresh


# a source that announces

BELL = '''
"""A display of a file of pixels, that rings when they have changed: a byte in a pipe is an announcement."""

import os
import signal
import select
from mdevdisplay import Identity, Match, PlaneType, Refusal, Source, SurfaceInfo, hookimpl
from mdevdisplay.formats import fourcc
from mdevdisplay.region import Mappable

WIDTH, HEIGHT = 200, 130
SURFACE = SurfaceInfo(
    fourcc=fourcc("AR24"), width=WIDTH, height=HEIGHT, stride=WIDTH * 4, size=WIDTH * HEIGHT * 4, region_index=0
)


class Bell(Source):
    def __init__(self, locator):
        super().__init__(locator, Identity(name="bell"))
        place = locator.removeprefix("bell:")
        self.pixels = os.open(place + "/pixels", os.O_RDONLY | os.O_CLOEXEC)
        self.bell = os.open(place + "/bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.asked = os.open(place + "/asked", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _release(self):
        for fd in (self.pixels, self.bell, self.asked):
            os.close(fd)


@hookimpl
def open_locator(locator):
    return Bell(locator) if locator.startswith("bell:") else None


@hookimpl
def probe(source):
    return Match(100, "a bell") if isinstance(source, Bell) else Refusal("no bell")


@hookimpl
def get_surface_info(source, plane, output):
    if plane is not PlaneType.PRIMARY:
        return None
    os.write(source.asked, b"?")
    return SURFACE


@hookimpl
def query_region(source, surface):
    return Mappable(fd=source.pixels, offset=0, size=surface.size)


@hookimpl
def wait_update(source, timeout):
    if not select.select([source.bell], [], [], timeout)[0]:
        return False
    os.read(source.bell, 4096)
    return True
'''


@attrs.frozen
class Bell:
    """The other end of a display that announces."""

    place: Path
    pipe: int

    @property
    def locator(self) -> str:
        return f"bell:{self.place}"

    @property
    def asked(self) -> int:
        """How often its planes were asked for."""
        return (self.place / "asked").stat().st_size

    def draw(self, value: int) -> None:
        """Draw one tile in a grey."""
        with (self.place / "pixels").open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([value]) * 16, 70 * 800 + 300)

    def ring(self) -> None:
        os.write(self.pipe, b"!")


@pytest.fixture
def bell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bell]:
    site, place = tmp_path / "site", tmp_path / "bell"
    info = site / "mdevdisplay_bell-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mdevdisplay_bell.py").write_text(BELL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mdevdisplay-bell\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mdevdisplay]\nbell = mdevdisplay_bell\n")
    place.mkdir()
    (place / "pixels").write_bytes(bytes(200 * 130 * 4))
    (place / "asked").touch()
    os.mkfifo(place / "bell")
    pipe = os.open(place / "bell", os.O_RDWR | os.O_CLOEXEC)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    mdevdisplay.backends.cache_clear()
    yield Bell(place, pipe)
    mdevdisplay.backends.cache_clear()
    os.close(pipe)


def value_of(picture: Picture) -> int:
    assert isinstance(picture, Frame)
    return int(picture.raw[70, 75, 0])


def damage_of(picture: Picture) -> tuple[Rect, ...]:
    assert isinstance(picture, Frame)
    return picture.damage


@contextmanager
def collecting(stream: FrameStream) -> Iterator[list[Picture]]:
    """Follow a stream in a thread of its own, which ends with it."""
    seen: list[Picture] = []
    thread = threading.Thread(target=seen.extend, args=(stream,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stream.close()
        thread.join(30)
        assert not thread.is_alive()


def shows(seen: list[Picture], value: int) -> bool:
    """Whether the newest picture of a stream has a value."""
    return bool(seen) and value_of(seen[-1]) == value


@pytest.mark.parametrize("isolated", [False, True])
def test_a_source_that_announces_is_not_polled(bell: Bell, isolated: bool) -> None:
    """It is asked at first and after every announcement, once; a change that it does not announce is not looked for."""
    with (
        mdevdisplay.open(bell.locator, isolated=isolated) as display,
        collecting(display.frames(max_fps=1000)) as seen,
    ):
        assert eventually(lambda: len(seen) == 1)
        time.sleep(0.05)
        asked = bell.asked
        bell.draw(1)
        time.sleep(0.4)
        assert bell.asked == asked
        for value in range(2, 12):
            bell.draw(value)
            bell.ring()
            assert eventually(partial(shows, seen, value))
            assert damage_of(seen[-1]) == (Rect(64, 64, 64, 64),)
        time.sleep(0.1)
        assert bell.asked == asked + 2 * 10, "before and after each copy"


@pytest.mark.parametrize("isolated", [False, True])
def test_an_announcement_without_a_change_is_no_frame(bell: Bell, isolated: bool) -> None:
    """It is looked at, and found unchanged; the next change comes."""
    with mdevdisplay.open(bell.locator, isolated=isolated) as display, collecting(display.frames()) as seen:
        assert eventually(lambda: len(seen) == 1)
        asked = bell.asked
        bell.ring()
        assert eventually(lambda: bell.asked > asked)
        bell.draw(7)
        bell.ring()
        assert eventually(lambda: len(seen) == 2)
        assert value_of(seen[1]) == 7


@pytest.mark.parametrize("isolated", [False, True])
def test_every_stream_hears_every_announcement(bell: Bell, isolated: bool) -> None:
    """Several streams of one source, of different rates: each sees each change, and captures go on between."""
    with mdevdisplay.open(bell.locator, isolated=isolated) as display:
        streams = [display.frames(max_fps=max_fps) for max_fps in (1000, 1000, 100)]
        with collecting(streams[0]) as one, collecting(streams[1]) as two, collecting(streams[2]) as three:
            for value in range(1, 16):
                assert all(eventually(partial(shows, seen, value - 1)) for seen in (one, two, three))
                bell.draw(value)
                bell.ring()
                if value % 5 == 0:
                    assert value_of(display.capture()) == value
            assert all(eventually(partial(shows, seen, 15)) for seen in (one, two, three))
            assert [value_of(picture) for picture in one] == list(range(16))


def test_an_event_loop_hears_announcements(bell: Bell) -> None:
    """Nothing is polled there either, and several streams each see every change."""

    async def main() -> None:
        async with mdevdisplay.aopen(bell.locator) as display:
            streams = [display.frames(max_fps=1000) for _ in range(2)]
            for stream in streams:
                assert value_of(await anext(stream)) == 0
            asked = bell.asked
            waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
            await asyncio.sleep(0.3)
            assert bell.asked == asked
            for value in range(1, 6):
                bell.draw(value)
                bell.ring()
                assert [value_of(await future) for future in waiting] == [value] * 2
                waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        for future in waiting:
            with pytest.raises(StopAsyncIteration):
                await future

    asyncio.run(main())


def test_a_stream_that_repeats_polls(bell: Bell) -> None:
    """Video needs a picture at every beat, announced or not."""
    with mdevdisplay.open(bell.locator) as display:
        stream = display.frames(max_fps=200, repeat=True)
        assert [value_of(next(stream)) for _ in range(5)] == [0] * 5
        bell.draw(3)
        assert [value_of(next(stream)) for _ in range(3)] == [3] * 3


@pytest.mark.parametrize("isolated", [False, True])
def test_close_ends_a_stream_that_waits_for_an_announcement(bell: Bell, isolated: bool) -> None:
    """From another thread, of the display or of the stream."""
    before = holdings()
    display = mdevdisplay.open(bell.locator, isolated=isolated)
    ended: list[int] = []
    streams = [display.frames() for _ in range(2)]
    threads = [
        threading.Thread(target=lambda stream=stream: ended.append(len(list(stream))), daemon=True)
        for stream in streams
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    streams[0].close()
    threads[0].join(30)
    assert len(ended) == 1
    display.close()
    threads[1].join(30)
    assert len(ended) == 2
    del streams, display, thread
    threads.clear()
    gc.collect()
    assert eventually(lambda: nothing_new_since(before))


def test_an_announcement_outlives_a_look_that_fails() -> None:
    """The consumer sees the error; the next step looks at what was announced, and does not wait for more."""
    announced = [0]
    looks: list[object] = [Blank(serial=1, timestamp=0.0), TimedOut("late"), Blank(serial=2, timestamp=0.0)]

    def look(_: Picture | None) -> Picture:
        picture = looks.pop(0)
        if isinstance(picture, TimedOut):
            raise picture
        assert isinstance(picture, Blank)
        return picture

    def wait(seen: int) -> int:
        assert announced[0] <= seen, "it waits for what it was told already"
        if announced[0]:
            pytest.fail("it waits for another announcement")
        announced[0] += 1
        return announced[0]

    stream = FrameStream(look, 1000, wait=wait)
    assert next(stream).serial == 1
    with pytest.raises(TimedOut):
        next(stream)
    assert next(stream).serial == 2


# many displays


def test_a_slow_device_delays_no_other(kernel: FakeKernel, gate: Gate) -> None:
    """One driver hangs in the middle of a stream; frames of the other display keep coming, and then both do."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    with mdevdisplay.open(device.name) as slow, mdevdisplay.open("sim:64x64,step=1") as quick:
        device.stall = gate
        with collecting(slow.frames(max_fps=100)) as seen:
            assert eventually(lambda: gate.waiting)
            stream = quick.frames(max_fps=1000)
            assert len({next(stream).serial for _ in range(100)}) == 100
            assert seen == []
            gate.open()
            assert eventually(lambda: seen)


def test_a_slow_device_delays_no_other_in_an_event_loop(kernel: FakeKernel, gate: Gate) -> None:
    """Nor the loop itself."""

    async def main() -> None:
        device = kernel.add(Nvidia())
        device.show(64, 64)
        async with mdevdisplay.aopen(device.name) as slow, mdevdisplay.aopen("sim:64x64,step=1") as quick:
            device.stall = gate
            waiting = asyncio.ensure_future(anext(slow.frames(max_fps=100)))
            assert await asyncio.to_thread(eventually, lambda: gate.waiting)
            stream = quick.frames(max_fps=1000)
            assert len({(await anext(stream)).serial for _ in range(100)}) == 100
            assert not waiting.done()
            gate.open()
            assert isinstance(await waiting, Frame)

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_close_ends_a_stream_that_waits_for_a_change(way: str) -> None:
    """A still screen, looked at ten times a second: the consumer comes out of its loop, without an error."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,fps=0") as display:
            stream = display.frames()
            await anext(stream)
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            await display.close()
            with pytest.raises(StopAsyncIteration):
                await waiting

    if way == "async":
        asyncio.run(main())
        return
    display = mdevdisplay.open("sim:64x64,fps=0", isolated=way == "isolated")
    seen: list[Picture] = []
    thread = threading.Thread(target=seen.extend, args=(display.frames(),), daemon=True)
    thread.start()
    assert eventually(lambda: seen)
    display.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(seen) == 1


# hours


def _resident() -> int:
    """Return the resident memory of this process in KiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


@pytest.mark.parametrize(
    ("isolated", "warm", "looks"), [(False, 2_000, 20_000), (True, 500, 3_000)], ids=["here", "isolated"]
)
def test_many_frames_leave_nothing_behind(isolated: bool, warm: int, looks: int) -> None:
    """Mode changes, blanks, a cursor, frames that are held a while: descriptors, mappings and memory stay as they are.

    A whole hour's worth of frames is in bench/live.py.
    """
    locator = "sim:modes=64x48/96x64/64x48/160x120,mode_every=50,step=2,blank=30-33/70,cursor=on,buffers=3"
    with mdevdisplay.open(locator, isolated=isolated) as display:
        look = display._reader.look
        held: list[Picture] = []
        last: Picture | None = None

        def run(count: int) -> None:
            nonlocal last
            for number in range(count):
                last = look(PlaneType.PRIMARY, last, cursor=number // 100 % 2 == 0)
                held.append(last)
                del held[: -(number % 7) - 1]

        run(warm)
        gc.collect()
        before, resident = holdings(), _resident()
        serial = last.serial if last is not None else 0
        run(looks)
        gc.collect()
        after = holdings()
        assert last is not None
        assert last.serial > serial
        assert len(after.descriptors) <= len(before.descriptors) + 2
        assert len(after.mappings) <= len(before.mappings) + 6
        assert after.threads == before.threads
        assert _resident() - resident < 4096


def test_what_is_remembered_does_not_grow() -> None:
    """Damage of thousands of changes is one number a tile."""
    reader = connect("sim:320x200,step=1", None, 0)
    try:
        last: Picture | None = None
        for _ in range(500):
            last = reader.look(PlaneType.PRIMARY, last)
        damage = reader.live(PlaneType.PRIMARY).damage
        assert damage._changed_at.shape == full_mask(320, 200).shape
        assert damage.since(0).all()
    finally:
        reader.close()


# what must not be mixed up


def test_a_worker_that_died_leaves_no_number_twice() -> None:
    """The moment without a picture and the first picture after it differ, for streams and for damage."""
    with mdevdisplay.open("sim:64x64,fps=0", isolated=True, reconnect=True, timeout=60) as display:
        stream = display.frames(max_fps=200)
        seen = [next(stream)]
        reader: Any = display._reader
        os.kill(reader.last.pid, signal.SIGKILL)
        while not (isinstance(seen[-1], Frame) and len(seen) > 2):
            seen.append(next(stream))
        serials = [picture.serial for picture in seen]
        assert serials == sorted(set(serials))
        assert display.damage_since(serials[-2]) == (Rect(0, 0, 64, 64),)


def test_two_streams_see_one_absence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a VM is away a second stream is told once too, and not at every look."""
    with mdevdisplay.open("sim:64x64,fps=0", reconnect=True) as display:
        reader: Any = display._reader

        def gone(*_: object, **__: object) -> None:
            raise DeviceGone("away", device="sim:")

        monkeypatch.setattr(reader, "_call", gone)
        one, other = None, None
        blanks = []
        for _ in range(5):
            one = reader.look(PlaneType.PRIMARY, one)
            other = reader.look(PlaneType.PRIMARY, other)
            blanks.append((one, other))
        assert all(pair[0] is blanks[0][0] and pair[1] is blanks[0][1] for pair in blanks)


def test_with_the_cursor_a_backend_is_asked_for_memory_once_a_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen's memory is remembered beside the cursor's."""
    with mdevdisplay.open("sim:320x200,fps=0,cursor=on") as display:
        reader: Any = display._reader
        asked: list[PlaneType] = []
        ask = reader.backend.query_region

        def counted(_: object, surface: SurfaceInfo) -> object:
            asked.append(surface.plane)
            return ask(surface)

        monkeypatch.setattr(type(reader.backend), "query_region", counted)
        for _ in range(20):
            display.capture(cursor=True)
        assert sorted(asked) == [PlaneType.PRIMARY, PlaneType.CURSOR]


def test_a_display_that_is_forgotten_is_not_closed_under_a_call() -> None:
    """A call that another thread is inside of ends before the device is let go."""
    lane = Lane("a device")
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        inside.set()
        assert go_on.wait(20)

    thread = threading.Thread(target=lane.here, args=(call,))
    thread.start()
    assert inside.wait(20)
    lane.close(closed.set)
    assert not closed.wait(0.2)
    go_on.set()
    assert closed.wait(20)
    thread.join()


@pytest.mark.parametrize("cursor", [False, True])
def test_torn_does_not_stick(monkeypatch: pytest.MonkeyPatch, cursor: bool) -> None:
    """A picture that was torn and turns out to be right comes again without the flag."""
    with mdevdisplay.open("sim:320x200,fps=0") as display:
        reader: Any = display._reader
        refresh = reader.refresh
        monkeypatch.setattr(reader, "refresh", lambda plane: refresh(plane) or True)
        torn = reader.look(PlaneType.PRIMARY, cursor=cursor)
        assert FrameFlags.TORN in torn.flags
        assert reader.look(PlaneType.PRIMARY, torn, cursor=cursor) is torn
        monkeypatch.undo()
        whole = reader.look(PlaneType.PRIMARY, torn, cursor=cursor)
        assert whole.flags is FrameFlags.NONE
        assert whole.serial == torn.serial
        assert whole.damage == ()
        assert reader.look(PlaneType.PRIMARY, whole, cursor=cursor) is whole
