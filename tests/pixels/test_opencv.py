from __future__ import annotations

import itertools
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.pixels import channels, opencv
from mdevdisplay.pixels.convert import bgra_to_rgb, bgra_to_rgba, to_bgra, to_rgb
from mdevdisplay.pixels.layout import raw_view
from pixels.opencv_switch import opencv_is, use_opencv
from pixels.surfaces import Picture, pictures, surface_of

Bytes = npt.NDArray[np.uint8]
EIGHT_BITS = ("XR24", "AR24", "XB24", "AB24", "RG24")
ORDERS = sorted(opencv._CONVERSIONS)


@given(pictures(EIGHT_BITS))
def test_opencv_and_numpy_agree_on_every_format(picture: Picture) -> None:
    """Both ways give the same bytes for the same picture."""
    surface, _, _, raw = picture
    results = []
    for wanted in (True, False):
        with use_opencv(wanted):
            pixels = to_bgra(raw, surface)
            results.append((pixels, to_rgb(raw, surface), bgra_to_rgb(pixels), bgra_to_rgba(pixels)))
    for with_it, without in zip(*results, strict=True):
        np.testing.assert_array_equal(with_it, without)
        assert with_it.dtype == without.dtype == np.uint8


@given(
    st.sampled_from(ORDERS),
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from([(1, 1), (2, 1), (1, 3), (-1, 1), (1, -1), (-2, -3)]),
    st.integers(0, 2**32 - 1),
)
def test_each_conversion_is_numpys_own_indexing(
    conversion: tuple[int, tuple[int, ...]], width: int, height: int, steps: tuple[int, int], seed: int
) -> None:
    """What OpenCV makes of any view, backwards and with gaps too, is what plain indexing makes of it."""
    count, order = conversion
    image = np.random.default_rng(seed).integers(0, 256, (height * 2, width * 3, count), np.uint8)
    image.flags.writeable = False
    source = image[:: steps[0], :: steps[1]]
    with use_opencv(True):
        opencv.picked(source, order)  # the first one may be done without
        pixels = opencv.picked(source, order)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, source[..., order])
    assert not np.shares_memory(pixels, source)
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(("count", "order"), ORDERS)
def test_large_pictures_are_converted_alike(count: int, order: tuple[int, ...]) -> None:
    """A padded screenful, which OpenCV divides among threads, is as exact as a small one."""
    image = np.random.default_rng(3).integers(0, 256, (1080, 2048, count), np.uint8)[:, :1917]
    with use_opencv(True):
        opencv.picked(image, order)
        pixels = opencv.picked(image, order)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, image[..., order])


def test_it_is_used_where_it_is_there() -> None:
    """A conversion that OpenCV has goes to OpenCV; one that it has not does not."""
    import cv2

    calls: list[int] = []

    def counted(source: Any, code: int) -> Any:
        calls.append(code)
        return cv2.cvtColor(source, code)

    codes = {name: getattr(cv2, name) for name in opencv._CONVERSIONS.values()}
    surface = surface_of("XR24", 8, 4)
    raw = raw_view(np.zeros(surface.needed, np.uint8), 0, surface, surface.stride)
    with opencv_is(cast("ModuleType", SimpleNamespace(cvtColor=counted, **codes))):
        to_rgb(raw, surface)
        calls.clear()
        to_rgb(raw, surface)
        assert calls == [cv2.COLOR_BGRA2RGB]
        to_bgra(raw, surface)
        assert len(calls) == 1


def raising(*arguments: object) -> object:
    raise RuntimeError("broken")


CODES = {name: number for number, name in enumerate(opencv._CONVERSIONS.values())}


@pytest.mark.parametrize(
    "module",
    [
        None,
        SimpleNamespace(),  # half removed: a folder without its library
        SimpleNamespace(cvtColor=raising, **CODES),
        SimpleNamespace(cvtColor=lambda source, code: None, **CODES),
        SimpleNamespace(cvtColor=lambda source, code: source, **CODES),
        SimpleNamespace(cvtColor=lambda source, code: np.zeros((*source.shape[:2], 3), np.uint8), **CODES),
        SimpleNamespace(cvtColor=lambda source, code: source[..., 2::-1]),  # no codes
    ],
)
def test_a_broken_opencv_is_as_good_as_none(module: Any) -> None:
    """Missing, half installed, raising or converting wrongly: it is left alone and the pixels are right."""
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    with opencv_is(module):
        for _ in range(3):
            np.testing.assert_array_equal(bgra_to_rgb(pixels), pixels[..., 2::-1])
        assert opencv._converter() is None


def test_one_that_breaks_later_does_no_harm() -> None:
    """An error of OpenCV's after a good start is not the caller's: the picture is converted without it."""
    import cv2

    codes = {name: getattr(cv2, name) for name in opencv._CONVERSIONS.values()}

    def small_ones_only(source: Any, code: int) -> Any:
        if source.shape[0] > 5:
            raise cv2.error("out of memory")
        return cv2.cvtColor(source, code)

    pixels = np.random.default_rng(6).integers(0, 256, (9, 4, 4), np.uint8)
    with opencv_is(cast("ModuleType", SimpleNamespace(cvtColor=small_ones_only, **codes))):
        assert opencv._converter() is not None
        for _ in range(2):
            np.testing.assert_array_equal(bgra_to_rgb(pixels), pixels[..., 2::-1])


def test_the_first_picture_does_not_wait_for_the_import() -> None:
    """A single conversion leaves cv2 alone, a second one loads it; importing the package never does."""
    script = """
import sys
import numpy
from mdevdisplay.pixels.convert import bgra_to_rgb
pixels = numpy.zeros((4, 4, 4), numpy.uint8)
seen = ["cv2" in sys.modules]
for _ in range(2):
    bgra_to_rgb(pixels)
    seen.append("cv2" in sys.modules)
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, False, True]"


@pytest.mark.parametrize("count", [3, 4])
def test_without_it_any_channels_can_be_picked(count: int) -> None:
    """Every choice and order of channels comes out right, from rows with gaps too."""
    image = np.random.default_rng(9).integers(0, 256, (7, 11, count), np.uint8)
    with use_opencv(False):
        for length in (3, 4):
            for order in itertools.product(range(count), repeat=length):
                for source in (image, image[::2], image[:, ::2], image[..., ::-1]):
                    np.testing.assert_array_equal(channels.picked(source, order), source[..., order])
