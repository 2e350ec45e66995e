"""100,000 captures with mode changes: descriptors, mappings and memory must stay where they are."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from measure import Figure

import mdevdisplay

CAPTURES = 100_000


def figures() -> list[Figure]:
    modes = "320x240/640x480/800x600"
    with mdevdisplay.open(f"sim:modes={modes},mode_every=50,step=2") as display:
        sizes = set()
        for _ in range(2_000):
            sizes.add(display.capture().width)
        before = _usage()
        for _ in range(CAPTURES):
            sizes.add(display.capture().width)
        after = _usage()
    names = ("file descriptors", "mappings", "RSS in KiB")
    allowed = (0, 4, 4096)
    return [
        Figure(
            f"{name} after {CAPTURES:,} captures, {len(sizes)} modes",
            str(late),
            f"before {early}",
            late / early,
            f"+ {slack} at most",
            met=late - early <= slack and len(sizes) == 3,
        )
        for name, early, late, slack in zip(names, before, after, allowed, strict=True)
    ]


def _usage() -> tuple[int, int, int]:
    gc.collect()
    with Path("/proc/self/maps").open() as maps:
        mappings = sum(1 for _ in maps)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), mappings, resident
