"""Displays in processes of their own: what one costs in time and memory, and whether many cost each as much as few."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import attrs
from measure import Figure, interleaved

import mdevdisplay
from mdevdisplay.connecting import connect
from mdevdisplay.surface import PlaneType
from mdevdisplay.worker.client import RemoteReader

PRIMARY = PlaneType.PRIMARY
SCREEN = "sim:1920x1080,fps=0"
SMALL = "sim:640x480,step=2"
COUNTS = (8, 16, 32, 64)
RATE = 2.0
"""Frames a second of every one of many displays."""
SECONDS = 5.0
"""For which they are read."""
_MEMORY = 15 * 1024
_FRAMES = ("/memfd:mdevdisplay-frame", "/memfd:mdevdisplay-simulated")
"""What is not counted: frames, and what stands in for a GPU's memory."""


@attrs.frozen
class _Many:
    """What a number of displays costs, each: seconds to start, KiB private and proportional, CPU seconds a second."""

    start: float
    private: float
    proportional: float
    cpu: float


def figures() -> list[Figure]:
    return [_capture(), _memory(), _start(), *_many()]


def _capture() -> Figure:
    here, there = connect(SCREEN, None, 0), RemoteReader(SCREEN)
    try:
        for _ in range(32):  # until its buffer lies in huge pages
            there.look(PRIMARY)
        time.sleep(1)
        isolated, plain = interleaved(lambda: there.look(PRIMARY), lambda: here.look(PRIMARY), rounds=31)
    finally:
        there.close()
        here.close()
    ratio = isolated / plain
    return Figure(
        "isolated capture() 1920x1080",
        f"{isolated * 1e3:.3f} ms",
        f"in this process {plain * 1e3:.3f} ms",
        ratio,
        "<= 1.3x",
        met=ratio <= 1.3,
    )


def _memory() -> Figure:
    """The memory of one of two, so that what both share counts for neither."""
    one, two = RemoteReader(SCREEN), RemoteReader(SCREEN)
    try:
        for reader in (one, two):
            for _ in range(5):
                reader.look(PRIMARY)
        private = _memory_of(two)[0]
    finally:
        one.close()
        two.close()
    ratio = private / _MEMORY
    return Figure(
        "private memory of a worker",
        f"{private / 1024:.1f} MiB",
        f"{_MEMORY / 1024:.0f} MiB",
        ratio,
        "<= 1x",
        met=ratio <= 1,
    )


def _start() -> Figure:
    def first_frame(*, isolated: bool) -> None:
        with mdevdisplay.open("sim:640x480", isolated=isolated) as display:
            display.capture()

    isolated, plain = interleaved(
        lambda: first_frame(isolated=True), lambda: first_frame(isolated=False), rounds=7, pick=min
    )
    return Figure(
        "open() to first frame, isolated",
        f"{isolated * 1e3:.0f} ms",
        f"in this process {plain * 1e3:.1f} ms",
        isolated / plain,
        "as it is",
        met=True,
    )


def _many() -> list[Figure]:
    measured = {count: _measure(count) for count in COUNTS}
    few, many = measured[COUNTS[0]], measured[COUNTS[-1]]
    lines = []
    for name, unit, scale in (("start", "ms", 1e3), ("private", "MiB", 1 / 1024), ("cpu", "% CPU", 100.0)):
        each = ", ".join(f"{count}: {getattr(value, name) * scale:.2f}" for count, value in measured.items())
        ratio = getattr(many, name) / max(getattr(few, name), 1e-9)
        what = f"{name} of each of so many displays"
        lines.append(Figure(what, f"{each} {unit}", f"of {COUNTS[0]}", ratio, "<= 1.25x", met=ratio <= 1.25))
    return lines


def _measure(count: int) -> _Many:
    begin = time.perf_counter()
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=count) as threads:
        readers = list(threads.map(lambda _: RemoteReader(SMALL), range(count)))
        started = time.perf_counter() - begin
        for reader in readers:
            stack.callback(reader.close)
        for reader in readers:
            reader.look(PRIMARY)
        before, since = _cpu(readers), time.perf_counter()
        while (now := time.perf_counter()) - since < SECONDS:
            list(threads.map(lambda reader: reader.look(PRIMARY), readers))
            time.sleep(max(0.0, 1 / RATE - (time.perf_counter() - now)))
        spent = (_cpu(readers) - before) / (time.perf_counter() - since)
        memory = [_memory_of(reader) for reader in readers]
    return _Many(
        started / count,
        sum(private for private, _ in memory) / count,
        sum(proportional for _, proportional in memory) / count,
        spent / count,
    )


def _cpu(readers: Sequence[RemoteReader]) -> float:
    """Return the CPU seconds of the workers and of this process."""
    spent = time.process_time()
    for reader in readers:
        fields = Path(f"/proc/{reader.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def _memory_of(reader: RemoteReader) -> tuple[int, int]:
    """Return the private and the proportional KiB of a worker, without frames."""
    private = proportional = 0
    counted = True
    for line in Path(f"/proc/{reader.pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if " " in name:  # a mapping's own line
            counted = not any(frame in line for frame in _FRAMES)
        elif counted and name in ("Private_Dirty", "Private_Clean"):
            private += int(rest.split()[0])
        elif counted and name == "Pss":
            proportional += int(rest.split()[0])
    return private, proportional
