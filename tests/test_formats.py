"""Fourccs, modifiers and the arithmetic of rows and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay import formats
from mdevdisplay.formats import (
    FORMATS,
    LINEAR,
    X_TILED,
    Y_TILED,
    YF_TILED,
    Format,
    fourcc,
    fourcc_name,
    lookup,
    minimum_size,
    modifier_name,
    tiling,
)

LAYOUTS = st.sampled_from(sorted(FORMATS.values(), key=lambda layout: layout.name))
SIZES = st.integers(1, 9000)


NUMBERS = {
    "XR24": 0x34325258,
    "AR24": 0x34325241,
    "XB24": 0x34324258,
    "AB24": 0x34324241,
    "RG24": 0x34324752,
    "RG16": 0x36314752,
    "XR30": 0x30335258,
    "XB30": 0x30334258,
    "C8": 0x20203843,
    "YUYV": 0x56595559,
    "YVYU": 0x55595659,
    "UYVY": 0x59565955,
    "VYUY": 0x59555956,
    "NV12": 0x3231564E,
    "P010": 0x30313050,
}
"""As the kernel's drm_fourcc.h computes them."""


def _number(text: str) -> int:
    return int.from_bytes(text.encode("latin-1"), "little")


@pytest.mark.parametrize(("code", "number"), NUMBERS.items())
def test_a_fourcc_is_drm_fourcc_hs_number(code: str, number: int) -> None:
    """Each format is known by the number that the kernel's drm_fourcc.h computes, and shown by its code."""
    assert fourcc(code) == number
    assert fourcc_name(number) == code
    layout = lookup(number)
    assert layout is not None
    assert (layout.fourcc, layout.code) == (number, code)


def test_every_format_has_a_number_to_be_held_to() -> None:
    """A format that is added is added above too."""
    assert set(FORMATS) == set(NUMBERS.values())


@pytest.mark.parametrize(("code", "text"), [("Y", "Y   "), ("R8", "R8  "), ("ABC", "ABC "), ("ABCD", "ABCD")])
def test_a_short_code_is_padded_with_spaces(code: str, text: str) -> None:
    """As drm_fourcc.h does for C8 and R8."""
    assert fourcc(code) == _number(text)


@pytest.mark.parametrize("code", ["", "TOOLONG", "ä", "XR24 "])
def test_what_is_no_fourcc_is_refused(code: str) -> None:
    """One to four ASCII characters, no more and no less."""
    with pytest.raises(ValueError, match="not a fourcc"):
        fourcc(code)


@given(st.one_of(st.integers(0, 0xFFFFFFFF), st.text("XR24 \x1f\x7f\x80\0", min_size=4, max_size=4).map(_number)))
def test_every_number_can_be_shown(value: int) -> None:
    """A driver's fourcc may be anything: it is shown as its code only if that is printable, and both lead back."""
    name = fourcc_name(value)
    assert name.isprintable()
    assert name.strip()
    assert (int(name, 16) if name.startswith("0x") and len(name) == 10 else fourcc(name)) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0, "LINEAR"),
        (0x00FF_FFFF_FFFF_FFFF, "INVALID"),
        (0x0100_0000_0000_0001, "I915_X_TILED"),
        (0x0100_0000_0000_0002, "I915_Y_TILED"),
        (0x0100_0000_0000_0003, "I915_Yf_TILED"),
        (0x0100_0000_0000_0063, "INTEL:0x0100000000000063"),
        (0x0300_0000_0000_0010, "NVIDIA:0x0300000000000010"),
        (0xAB00_0000_0000_0001, "0xab00000000000001"),
        (5, "0x0000000000000005"),
    ],
)
def test_a_modifier_is_shown_by_name_or_by_vendor_and_number(value: int, name: str) -> None:
    """Also one that nobody can decode can be named in a message."""
    assert modifier_name(value) == name


@given(st.integers(0, 0xFFFFFFFF_FFFFFFFF))
def test_every_modifier_can_be_shown(value: int) -> None:
    """Whatever 64 bits a driver reports, the text is printable and tells unknown ones apart."""
    name = modifier_name(value)
    assert name.isprintable()
    assert name in formats._MODIFIER_NAMES.values() or int(name.rsplit(":", 1)[-1], 16) == value


@pytest.mark.parametrize(("modifier", "size"), [(X_TILED, (512, 8)), (Y_TILED, (128, 32)), (YF_TILED, (128, 32))])
def test_a_tile_of_intels_is_one_page(modifier: int, size: tuple[int, int]) -> None:
    """X is 512 bytes by 8 rows, Y and Yf 128 by 32: 4096 bytes each."""
    tile = tiling(modifier)
    assert tile is not None
    assert (tile.width, tile.height) == size
    assert tile.width * tile.height == 4096


@pytest.mark.parametrize("modifier", [LINEAR, formats.INVALID, 0x0100_0000_0000_0004, 0x0300_0000_0000_0001])
def test_what_is_not_plainly_tiled_has_no_tile(modifier: int) -> None:
    """Linear, unknown and compressed layouts have no tile size to compute with."""
    assert tiling(modifier) is None


@pytest.mark.parametrize(
    ("code", "width", "stride"),
    [
        ("XR24", 1366, 5464),
        ("RG24", 1366, 4098),
        ("RG16", 1366, 2732),
        ("C8", 1366, 1366),
        ("YUYV", 1366, 2732),
        ("YUYV", 1365, 2732),
        ("NV12", 1365, 1366),
        ("P010", 1365, 2732),
    ],
)
def test_the_least_stride_holds_whole_pixels_and_pairs(code: str, width: int, stride: int) -> None:
    """Formats that share colour between two pixels round an odd width up to a pair."""
    assert FORMATS[fourcc(code)].minimum_stride(width) == stride


@pytest.mark.parametrize(
    ("code", "shape"),
    [
        ("XR24", (5, 7, 4)),
        ("RG24", (5, 7, 3)),
        ("RG16", (5, 7)),
        ("XR30", (5, 7)),
        ("C8", (5, 7)),
        ("YUYV", (5, 8, 2)),
        ("NV12", (8, 8)),
        ("P010", (8, 8)),
    ],
)
def test_the_raw_shape_of_7_by_5_pixels(code: str, shape: tuple[int, ...]) -> None:
    """A frame in its own layout has the shape that the documentation says."""
    assert FORMATS[fourcc(code)].raw_shape(7, 5) == shape


@given(LAYOUTS, SIZES, SIZES)
def test_the_raw_shape_takes_exactly_the_packed_bytes(layout: Format, width: int, height: int) -> None:
    """Elements times their size are the least stride times the rows, so nothing is read beyond or left out."""
    elements = int(np.prod(layout.raw_shape(width, height), dtype=np.int64))
    size = elements * np.dtype(layout.dtype).itemsize
    assert size == layout.minimum_stride(width) * layout.rows(height)
    assert size == minimum_size(layout, width, height, layout.minimum_stride(width))


@given(LAYOUTS, SIZES, SIZES, st.integers(0, 5000))
def test_the_last_row_counts_to_its_last_pixel(layout: Format, width: int, height: int, padding: int) -> None:
    """A linear picture ends with its last pixel: adding padding adds it once a row but the last."""
    stride = layout.minimum_stride(width) + padding
    size = minimum_size(layout, width, height, stride)
    assert size == stride * layout.rows(height) - padding


@given(LAYOUTS, SIZES, SIZES, st.sampled_from([X_TILED, Y_TILED, YF_TILED]))
def test_a_tiled_picture_takes_whole_rows_of_tiles(layout: Format, width: int, height: int, modifier: int) -> None:
    """Its size is a multiple of stride times tile height, the least one that has all rows."""
    tile = tiling(modifier)
    assert tile is not None
    stride = -(-layout.minimum_stride(width) // tile.width) * tile.width
    size = minimum_size(layout, width, height, stride, modifier)
    assert size % (stride * tile.height) == 0
    assert 0 <= size - stride * layout.rows(height) < stride * tile.height


def test_gvts_own_sizes_are_enough() -> None:
    """Stride * roundup(height, tile) is what vgpu_get_plane_info reports for 1920x1080 in each tiling."""
    layout = FORMATS[fourcc("XR24")]
    assert minimum_size(layout, 1920, 1080, 7680, X_TILED) == 7680 * 1080
    assert minimum_size(layout, 1920, 1080, 7680, Y_TILED) == 7680 * 1088
    assert minimum_size(layout, 1920, 1080, 7680) == 7680 * 1080


def test_alpha_is_where_the_name_says_so() -> None:
    """Only ARGB and ABGR have a meaning in their fourth channel."""
    assert {layout.code for layout in FORMATS.values() if layout.alpha} == {"AR24", "AB24"}
