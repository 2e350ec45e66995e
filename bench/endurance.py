"""100,000 captures with mode changes, of which most map memory anew: descriptors, mappings and memory stay as they are.

Half of them go through dma-bufs, more than are kept; half through the region of NVIDIA's driver, scripted, in which
the picture grows and shrinks and which is opened and closed all along.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import attrs
from measure import Figure

import mdevdisplay
from mdevdisplay import _mapping
from mdevdisplay.testing import FakeKernel, Nvidia

CAPTURES = 50_000
"""Of each kind."""
_WARM = 2_000
_SIZES = ((64, 48), (96, 64), (64, 48), (128, 96), (80, 60), (160, 120))
"""A picture that grows over the mapping needs a new one, one that shrinks does not."""
_LOOKS = 5
"""Captures of each size."""
_LIMITS = (("file descriptors", 0), ("mappings", 4), ("RSS in KiB", 4096))


@attrs.define
class _Work:
    """What was done.

    Attributes:
        captures: frames copied.
        sizes: the sizes of the frames.
        mapped: calls of mmap(2) that mapped a descriptor.
        dropped: mappings that were replaced by zero pages, which is how one is let go.
    """

    captures: int = 0
    sizes: set[tuple[int, int]] = attrs.field(factory=set)
    mapped: int = 0
    dropped: int = 0

    def look(self, display: mdevdisplay.Display) -> None:
        frame = display.capture()
        self.captures += 1
        self.sizes.add((frame.width, frame.height))


def figures() -> list[Figure]:
    return [
        *_endure("dma-bufs", _through_dmabufs, rate=0.9, modes=3),
        *_endure("a region", _through_a_region, rate=0.1, modes=len(set(_SIZES))),
    ]


def _endure(what: str, work: Callable[[_Work], Generator[tuple[int, ...]]], *, rate: float, modes: int) -> list[Figure]:
    """Return the figures of one kind: how much it did, and what it held before and after.

    Args:
        what: its name.
        work: does it, and yields what is held once warm and in the end.
        rate: how many mappings a capture it shall make, for the figures to mean anything.
        modes: how many sizes it shall see.
    """
    done = _Work()
    with _counting(done):
        before, after = work(done)
    made = done.mapped / done.captures
    head = f"{what}: "
    return [
        Figure(
            f"{head}mappings made",
            f"{done.mapped:,}",
            f"{done.captures:,} captures in {len(done.sizes)} modes; {done.mapped - done.dropped} left",
            made,
            f">= {rate}x",
            met=made >= rate and len(done.sizes) == modes and done.mapped == done.dropped,
        ),
        *(
            Figure(
                f"{head}{name} held",
                str(late),
                f"before {early}",
                late / early,
                f"+ {slack} at most",
                met=late - early <= slack,
            )
            for (name, slack), early, late in zip(_LIMITS, before, after, strict=True)
        ),
    ]


def _through_dmabufs(work: _Work) -> Generator[tuple[int, ...]]:
    """Twelve buffers in turn, where eight are kept: each frame is in one that has to be fetched and mapped again."""
    modes = "64x48/96x64/128x96"
    with mdevdisplay.open(f"sim:modes={modes},mode_every=50,step=2,via=dmabuf,buffers=12") as display:
        for count in (_WARM, CAPTURES):
            for _ in range(count):
                work.look(display)
            yield _held()


def _through_a_region(work: _Work) -> Generator[tuple[int, ...]]:
    """NVIDIA's driver maps no more than its picture takes, and lets nobody map it twice."""
    with FakeKernel() as kernel:
        device = kernel.add(Nvidia())
        for count in (_WARM, CAPTURES):
            end = work.captures + count
            while work.captures < end:
                device.show(*_SIZES[0])
                with mdevdisplay.open(device.name) as display:
                    for width, height in _SIZES:
                        device.show(width, height)
                        for _ in range(_LOOKS):
                            work.look(display)
                kernel.assert_nothing_left()
                kernel.calls.clear()  # its record is for tests, and would be all that grows
            yield _held()


@contextmanager
def _counting(work: _Work) -> Generator[None]:
    """Count the real calls of mmap(2)."""
    real = _mapping.mmap

    def counted(address: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        result = real(address, length, prot, flags, fd, offset)
        if fd >= 0:
            work.mapped += 1
        else:
            work.dropped += 1
        return result

    with mock.patch.object(_mapping, "mmap", counted):
        yield


def _held() -> tuple[int, int, int]:
    """Return how many descriptors and mappings this process has, and its resident memory in KiB."""
    gc.collect()
    with Path("/proc/self/maps").open() as maps:
        mappings = sum(1 for _ in maps)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), mappings, resident
