from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.formats import FORMATS, fourcc
from mdevdisplay.pixels.convert import to_bgra
from mdevdisplay.pixels.layout import raw_view
from pixels.peers import by_pixman
from pixels.surfaces import surface_of

Bytes = npt.NDArray[np.uint8]

EIGHT_BITS = ("XR24", "AR24", "XB24", "AB24", "RG24")
FEWER_BITS = {"RG16": (5, 6, 5)}
MORE_BITS = ("XR30", "XB30")
ALL = (*EIGHT_BITS, *FEWER_BITS, *MORE_BITS)


def both(code: str, width: int, height: int, padding: int, seed: int) -> tuple[Bytes, Bytes]:
    """Return our pixels and pixman's, of the same random bytes at the same stride."""
    layout = FORMATS[fourcc(code)]
    assert layout.pixman is not None
    item = int(layout.dtype[1])
    while (layout.minimum_stride(width) + padding * item) % 4:
        padding += 1
    surface = surface_of(code, width, height, padding=padding)
    data = np.random.default_rng(seed).integers(0, 256, surface.stride * height, np.uint8)
    ours = to_bgra(raw_view(data, 0, surface, surface.stride), surface)
    return ours, by_pixman(data, layout.pixman, width, height, surface.stride)


SIZES = (st.integers(1, 70), st.integers(1, 9), st.integers(0, 9), st.integers(0, 2**32 - 1))


@given(st.sampled_from(EIGHT_BITS), *SIZES)
def test_eight_bits_are_pixmans(code: str, width: int, height: int, padding: int, seed: int) -> None:
    """Every byte is pixman's, alpha of X formats too, at any size and stride."""
    ours, theirs = both(code, width, height, padding, seed)
    np.testing.assert_array_equal(ours, theirs)


@given(*SIZES)
def test_rgb565_is_pixmans_but_for_its_rounding(width: int, height: int, padding: int, seed: int) -> None:
    """Pixman repeats the upper bits below, (v << 3 | v >> 2); that is the nearest level or one beside it."""
    ours, theirs = both("RG16", width, height, padding, seed)
    for channel, bits in enumerate(FEWER_BITS["RG16"]):
        most = (1 << bits) - 1
        value = theirs[..., channel].astype(int) >> 8 - bits
        np.testing.assert_array_equal(theirs[..., channel], value << 8 - bits | value >> 2 * bits - 8)
        np.testing.assert_array_equal(ours[..., channel], (2 * value * 255 + most) // (2 * most))
    assert (ours[..., 3] == theirs[..., 3]).all()


@given(st.sampled_from(MORE_BITS), *SIZES)
def test_ten_bits_are_pixmans_but_for_its_rounding(code: str, width: int, height: int, padding: int, seed: int) -> None:
    """Pixman cuts the lower two bits off: ours is the nearest level of one of the four values that it takes alike."""
    ours, theirs = both(code, width, height, padding, seed)
    least = theirs[..., :3].astype(int) * 4
    nearest = [(2 * value * 255 + 1023) // 2046 for value in (least, least + 3)]
    assert (ours[..., :3] >= nearest[0]).all()
    assert (ours[..., :3] <= nearest[1]).all()
    assert (ours[..., 3] == theirs[..., 3]).all()


@pytest.mark.parametrize("code", MORE_BITS)
def test_eight_bits_widened_by_pixman_come_back(code: str) -> None:
    """All levels of 8 bits, made 10-bit ones by pixman, are themselves again."""
    layout = FORMATS[fourcc(code)]
    assert layout.pixman is not None
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[:4, :, 1] = np.arange(256).reshape(4, 64)
    pixels[..., 3] = 255
    wide = by_pixman(pixels.reshape(-1), "a8r8g8b8", 64, 64, 256, layout.pixman)
    surface = surface_of(code, 64, 64)
    np.testing.assert_array_equal(to_bgra(wide.view("<u4")[..., 0], surface), pixels)


@pytest.mark.parametrize("code", ALL)
def test_a_screenful_is_pixmans(code: str) -> None:
    """Full-size pictures with padded rows, which are converted band by band, agree as small ones do."""
    ours, theirs = both(code, 1366, 200, 6, 11)
    most = 0 if code in EIGHT_BITS else 1
    assert np.abs(ours.astype(int) - theirs).max() == most
