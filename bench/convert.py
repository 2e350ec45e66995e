"""XRGB8888 to RGB, against Pillow's raw decoder without OpenCV and against OpenCV's own with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from measure import Figure, interleaved

from mdevdisplay.formats import fourcc
from mdevdisplay.pixels import opencv
from mdevdisplay.pixels.convert import to_rgb
from mdevdisplay.pixels.layout import raw_view
from mdevdisplay.surface import SurfaceInfo

WIDTH, HEIGHT = 1920, 1080


def without_opencv(stride: int) -> Figure:
    data, ours = picture(stride)

    def pillow() -> PIL.Image.Image:
        return PIL.Image.frombuffer("RGB", (WIDTH, HEIGHT), data, "raw", "BGRX", stride, 1)

    with mock.patch.dict(sys.modules, {"cv2": None}):
        opencv._converter.cache_clear()
        exact = np.array_equal(ours(), np.asarray(pillow()))
        mine, peer = interleaved(ours, pillow, rounds=9, pick=min)
    opencv._converter.cache_clear()
    return figure(f"to_rgb() without OpenCV, stride {stride}", mine, "Pillow's raw decoder", peer, 2, exact=exact)


def with_opencv(stride: int) -> Figure:
    data, ours = picture(stride)
    source = np.ndarray((HEIGHT, WIDTH, 4), np.uint8, data, 0, (stride, 4, 1))

    def theirs() -> npt.NDArray[np.uint8]:
        return np.asarray(cv2.cvtColor(source, cv2.COLOR_BGRA2RGB), np.uint8)

    exact = np.array_equal(ours(), theirs())
    mine, peer = interleaved(ours, theirs, rounds=21, pick=min)
    return figure(f"to_rgb() with OpenCV, stride {stride}", mine, "cv2.cvtColor", peer, 1.2, exact=exact)


def picture(stride: int) -> tuple[npt.NDArray[np.uint8], Callable[[], npt.NDArray[np.uint8]]]:
    """Return random XRGB8888 and what converts it."""
    surface = SurfaceInfo(fourcc=fourcc("XR24"), width=WIDTH, height=HEIGHT, stride=stride, size=stride * HEIGHT)
    data = np.random.default_rng(0).integers(0, 256, surface.size, np.uint8)
    raw = raw_view(data, 0, surface, stride)
    return data, lambda: to_rgb(raw, surface)


def figure(what: str, mine: float, name: str, peer: float, bound: float, *, exact: bool) -> Figure:
    return Figure(
        f"{what}{'' if exact else ' NOT EXACT'}",
        f"{mine * 1e3:.2f} ms",
        f"{name} {peer * 1e3:.2f} ms",
        mine / peer,
        f"<= {bound}x",
        met=mine / peer <= bound and exact,
    )


def figures() -> list[Figure]:
    """Rows without padding, as frames have them, and at the next power of two, as guests have them."""
    strides = WIDTH * 4, 8192
    return [*map(without_opencv, strides), *map(with_opencv, strides)]
