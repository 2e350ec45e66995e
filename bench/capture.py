"""Copying a frame and looking at it in place, against NumPy alone on the same memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
from measure import Figure, interleaved

import mdevdisplay


def figures() -> list[Figure]:
    return [
        _capture(1920, 1080, 0.8),
        _capture(3840, 2160, 0.9),
        _map_time(),
        _map_memory(),
    ]


def _capture(width: int, height: int, bound: float) -> Figure:
    with mdevdisplay.open(f"sim:{width}x{height},fps=0") as display, display.map() as view:
        rows = view.reshape(height, width * 4)
        warm = np.empty_like(rows)
        ours, floor = interleaved(display.capture, lambda: np.copyto(warm, rows))
        size = rows.nbytes
    ratio = floor / ours
    return Figure(
        f"capture() {width}x{height}",
        f"{size / ours / 1e9:.1f} GB/s ({ours * 1e3:.3f} ms)",
        f"numpy.copyto {size / floor / 1e9:.1f} GB/s ({floor * 1e3:.3f} ms)",
        ratio,
        f">= {bound}x",
        met=ratio >= bound,
    )


def _map_time() -> Figure:
    with mdevdisplay.open("sim:640x480,fps=0") as small, mdevdisplay.open("sim:3840x2160,fps=0") as large:

        def look(display: mdevdisplay.Display) -> None:
            with display.map():
                pass

        little, big = interleaved(lambda: look(small), lambda: look(large))
    ratio = big / little
    return Figure(
        "map() 3840x2160",
        f"{big * 1e6:.1f} us",
        f"map() 640x480 {little * 1e6:.1f} us",
        ratio,
        "0.8x to 1.2x",
        met=0.8 <= ratio <= 1.2,
    )


def _map_memory() -> Figure:
    with mdevdisplay.open("sim:3840x2160,fps=0") as display:
        display.surface()  # the simulated guest draws its picture
        tracemalloc.start()
        with display.map():
            _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Figure("map() 3840x2160, first", f"{peak} bytes allocated", "64 KiB", peak / 65536, "< 1x", met=peak < 65536)
