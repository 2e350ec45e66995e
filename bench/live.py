"""Following a screen: what a look costs beside the C library's memcmp and memcpy, what streams cost, and for how long.

The simulated guest does not draw here: pixels are changed in its memory, outside what is timed, or by another process
where a whole process's time is measured.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
from measure import Figure

import mdevdisplay
from mdevdisplay import PlaneType
from mdevdisplay.connecting import connect
from mdevdisplay.pixels.compare import address, equal, move
from mdevdisplay.pixels.memory import PixelMemory
from mdevdisplay.pixels.shadow import Shadow
from mdevdisplay.reader import Reader

PRIMARY = PlaneType.PRIMARY
FULL_HD, ULTRA_HD = (1920, 1080), (3840, 2160)
CALLS, ROUNDS = 15, 9
SECONDS = 5.0
COUNTS = (8, 16, 32, 64)
HOUR = 30 * 60 * 60
"""Frames of an hour, at 30 a second."""
ISOLATED = 20_000

Bytes = npt.NDArray[np.uint8]


def figures() -> list[Figure]:
    return [
        *(figure for size in (FULL_HD, ULTRA_HD) for figure in _looks(*size)),
        _stream("a block", scattered=False),
        _stream("scattered", scattered=True),
        *_many(),
        *_hour(isolated=False, looks=HOUR),
        *_hour(isolated=True, looks=ISOLATED),
    ]


# one look


@attrs.define
class _Screen:
    """A still simulated screen, read as displays are, with its memory to be written to."""

    reader: Reader
    memory: PixelMemory
    pixels: Bytes
    twin: Bytes
    last: mdevdisplay.Frame | mdevdisplay.Blank | None = None

    @property
    def live(self) -> Bytes:
        """The bytes as they are mapped for reading."""
        return self.memory.mapping.data[self.memory.start : self.memory.start + self.memory.extent]

    def look(self) -> None:
        """Look as a stream does."""
        self.last = self.reader.look(PRIMARY, self.last)

    def change(self, tiles: list[tuple[int, int]]) -> None:
        """Draw in the middle of each of some tiles, given by row and column; in the twin too, which stays equal."""
        for pixels in (self.pixels, self.twin.reshape(self.pixels.shape)):
            for row, column in tiles:
                pixels[row * 64 + 8 : row * 64 + 56, column * 64 + 8 : column * 64 + 56, :3] ^= 0x55


@contextmanager
def _screen(width: int, height: int) -> Generator[_Screen]:
    reader = connect(f"sim:{width}x{height},fps=0", None, 0)
    try:
        memory = reader._memory.find(reader.shown(PRIMARY))
        assert isinstance(memory, PixelMemory)
        drawn = reader.source.driver._buffers[0].memory.bytes  # type: ignore[attr-defined]
        pixels = drawn[: width * height * 4].reshape(height, width, 4)
        yield _Screen(reader, memory, pixels, pixels.reshape(-1).copy())
    finally:
        reader.close()


def _looks(width: int, height: int) -> list[Figure]:
    block = [(row, column) for row in range(3) for column in range(9)]
    rows, columns = height // 64, width // 64
    scattered = [(number * 5 % rows, number * 7 % columns) for number in range(27)]
    assert len(set(scattered)) == 27
    name = f"{width}x{height}"
    with _screen(width, height) as screen:
        twin = screen.twin
        shadow = Shadow(screen.memory)
        screen.look()

        def update() -> None:
            shadow.update(screen.memory)

        def compare() -> None:
            assert equal(address(screen.live), address(twin), twin.size)

        unchanged = _timed((compare, []), (update, []), (screen.look, []), screen=screen)
        changed = _timed(
            (compare, block),
            *((call, tiles) for call in (update, screen.look) for tiles in (block, scattered)),
            screen=screen,
        )
        screen.memory.mapping.cached = False
        staged = Shadow(screen.memory)
        target = np.empty_like(twin)

        def copy_and_compare() -> None:
            move(address(target), address(screen.live), target.size)
            assert equal(address(target), address(twin), twin.size)

        slow = _timed(
            (copy_and_compare, []), (lambda: staged.update(screen.memory), []), (screen.look, []), screen=screen
        )
    return [
        _ratio(f"unchanged {name}, Shadow.update", unchanged[1], unchanged[0], "memcmp", 1.4),
        _ratio(f"unchanged {name}, look", unchanged[2], unchanged[0], "memcmp", 1.4),
        _ratio(f"27 tiles in a block {name}, Shadow.update", changed[1], changed[0], "memcmp", 2.3),
        _ratio(f"27 tiles scattered {name}, Shadow.update", changed[2], changed[0], "memcmp", None),
        _ratio(f"27 tiles in a block {name}, look", changed[3], changed[0], "memcmp", 2.3),
        _ratio(f"27 tiles scattered {name}, look", changed[4], changed[0], "memcmp", None),
        _ratio(f"staged {name}, Shadow.update", slow[1], slow[0], "memcpy + memcmp", 1.4),
        _ratio(f"staged {name}, look", slow[2], slow[0], "memcpy + memcmp", 1.4),
    ]


def _timed(*calls: tuple[Callable[[], object], list[tuple[int, int]]], screen: _Screen) -> list[float]:
    """Return the seconds of each call, in turns: the median of the rounds.

    Tiles are changed before each call, the floor's too, so that all find the caches alike; that is not timed.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for place, (call, tiles) in enumerate(calls):
            spent = []
            call()
            for _ in range(CALLS):
                screen.change(tiles)
                begin = time.perf_counter()
                call()
                spent.append(time.perf_counter() - begin)
            times[place].append(statistics.median(spent))
    return [statistics.median(values) for values in times]


def _ratio(what: str, ours: float, floor: float, against: str, bound: float | None) -> Figure:
    ratio = ours / floor
    return Figure(
        what,
        f"{ours * 1e3:.3f} ms",
        f"{against} {floor * 1e3:.3f} ms",
        ratio,
        "as it is" if bound is None else f"<= {bound}x",
        met=bound is None or ratio <= bound,
    )


# streams


_GUEST = """
import mmap, os, sys, time
import numpy as np
path, width, height, share, scattered = sys.argv[1], *map(int, sys.argv[2:6])
memory = np.frombuffer(mmap.mmap(os.open(path, os.O_RDWR), width * height * 4), np.uint8).reshape(height, width, 4)
rows, columns = height // 64, width // 64
count = rows * columns * share // 100
numbers = np.random.default_rng(0)
due = time.monotonic()
print("drawing", flush=True)
while os.getppid() == int(sys.argv[6]):
    if scattered:
        places = [divmod(int(place), columns) for place in numbers.choice(rows * columns, count, replace=False)]
    else:
        top, left = int(numbers.integers(0, rows - 4)), int(numbers.integers(0, columns - 5))
        places = [(top + number // 5, left + number % 5) for number in range(count)]
    for row, column in places:
        memory[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64] += 1
    due += 1 / 60
    time.sleep(max(0, due - time.monotonic()))
"""


def _stream(what: str, *, scattered: bool) -> Figure:
    """One 1080p stream at 60 Hz; another process draws 5 % of the tiles 60 times a second."""
    width, height = FULL_HD
    with mdevdisplay.open(f"sim:{width}x{height},fps=0") as display:
        display.capture()
        fd = display.source.driver._buffers[0].memory.fd  # type: ignore[attr-defined]
        path = f"/proc/{os.getpid()}/fd/{fd}"
        arguments = [path, str(width), str(height), "5", str(int(scattered)), str(os.getpid())]
        guest = subprocess.Popen([sys.executable, "-c", _GUEST, *arguments], stdout=subprocess.PIPE)
        try:
            assert guest.stdout is not None
            guest.stdout.readline()
            stream = display.frames(max_fps=60)
            end = time.monotonic() + 1
            while time.monotonic() < end:  # until it is warm
                next(stream)
            begin, spent, count = time.monotonic(), time.process_time(), 0
            torn = 0
            while time.monotonic() - begin < SECONDS:
                frame = next(stream)
                count += 1
                torn += isinstance(frame, mdevdisplay.Frame) and bool(frame.flags)
            passed = time.monotonic() - begin
            share = (time.process_time() - spent) / passed
            seen = stream.statistics
            stream.close()
        finally:
            guest.kill()
            guest.communicate()
    return Figure(
        f"1080p at 60 Hz, 5 % of the tiles change, {what}",
        f"{share * 100:.1f} % of a core",
        f"{count / passed:.0f} frames/s, {seen.look_time * 1e3:.2f} ms a look, {torn} torn",
        share / 0.08,
        "<= 8 %",
        met=share <= 0.08,
    )


def _many() -> list[Figure]:
    """Still 1080p displays at 2 Hz, in as many threads; CPU time of the whole process."""
    shares = {count: _idle(count) for count in COUNTS}
    each = {count: share / count for count, share in shares.items()}
    ratio = max(each.values()) / min(each.values())
    return [
        Figure(
            "16 displays of 1080p at 2 Hz, unchanged",
            f"{shares[16] * 100:.2f} % of a core",
            "3 %",
            shares[16] / 0.03,
            "<= 3 %",
            met=shares[16] <= 0.03,
        ),
        Figure(
            "each of so many displays",
            ", ".join(f"{count}: {share * 100:.3f} %" for count, share in each.items()),
            "the cheapest",
            ratio,
            "<= 1.2x",
            met=ratio <= 1.2,
        ),
    ]


def _idle(count: int) -> float:
    """Return the CPU seconds a second of so many streams."""
    width, height = FULL_HD
    with ExitStack() as stack:
        displays = [stack.enter_context(mdevdisplay.open(f"sim:{width}x{height},fps=0")) for _ in range(count)]
        streams = [display.frames(max_fps=2) for display in displays]
        firsts = [next(stream) for stream in streams]
        threads = [threading.Thread(target=list, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
            time.sleep(0.5 / count)  # not all in the same moment
        del firsts
        looks = sum(stream.statistics.looks for stream in streams)
        begin, spent = time.monotonic(), time.process_time()
        time.sleep(SECONDS)
        share = (time.process_time() - spent) / (time.monotonic() - begin)
        done = sum(stream.statistics.looks for stream in streams) - looks
        assert done >= count * SECONDS * 2 * 0.9, "they were not looked at as often as they should"
        for stream in streams:
            stream.close()
        for thread in threads:
            thread.join()
    return share


# an hour


def _hour(*, isolated: bool, looks: int) -> list[Figure]:
    """Frames of an hour of a guest that changes its mode every 50 frames, with a cursor and blank moments."""
    locator = "sim:modes=64x48/96x64/64x48/160x120,mode_every=50,step=2,blank=30-33/70,cursor=on,buffers=3"
    with mdevdisplay.open(locator, isolated=isolated) as display:
        look = display._reader.look
        last: mdevdisplay.Frame | mdevdisplay.Blank | None = None
        shown: set[tuple[int, int]] = set()
        begin = time.perf_counter()
        for number in range(looks + 5000):
            if number == 5000:
                gc.collect()
                before = _held()
            last = look(PRIMARY, last, cursor=number // 1000 % 2 == 0)
            if isinstance(last, mdevdisplay.Frame):
                shown.add((last.width, last.height))
        gc.collect()
        after = _held()
        spent = time.perf_counter() - begin
    where = "isolated" if isolated else "in process"
    limits = (("file descriptors", 2), ("mappings", 6), ("RSS in KiB", 4096))
    return [
        Figure(
            f"{looks:,} frames in {len(shown)} modes, {where}: {name}",
            str(late),
            f"before {early}; {spent:.0f} s",
            late / early,
            f"+ {slack} at most",
            met=late - early <= slack,
        )
        for (name, slack), early, late in zip(limits, before, after, strict=True)
    ]


def _held() -> tuple[int, int, int]:
    """Return how many descriptors and mappings this process has, and its resident memory in KiB."""
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        mappings = sum(1 for _ in maps)
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), mappings, resident * os.sysconf("SC_PAGESIZE") // 1024
