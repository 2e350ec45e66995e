"""Surfaces, rectangles and probe answers: what adds up is built, what does not is BadSurface."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mdevdisplay.errors import BadSurface
from mdevdisplay.formats import FORMATS, X_TILED, Y_TILED, fourcc, minimum_size, tiling
from mdevdisplay.surface import MAX_DIMENSION, Match, PlaneType, Rect, SurfaceInfo

XR24 = fourcc("XR24")
GOOD: dict[str, Any] = {"fourcc": XR24, "width": 640, "height": 480, "stride": 2560, "size": 2560 * 480}

U32 = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from([0, 1, 64, 1920, 4096, 7680, 0x7FFFFFFF, 0xFFFFFFFF]))


def test_plane_numbers_are_the_kernels() -> None:
    """DRM_PLANE_TYPE_OVERLAY, _PRIMARY and _CURSOR."""
    assert [(plane.name, int(plane)) for plane in PlaneType] == [("OVERLAY", 0), ("PRIMARY", 1), ("CURSOR", 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width 0 is not between 1 and 32767"),
        ({"height": -1}, "height -1 is not between"),
        ({"width": MAX_DIMENSION + 1}, "width 32768 is not between"),
        ({"height": 0xFFFFFFFF}, "height 4294967295 is not between"),
        ({"stride": 2559}, "takes 2560 bytes, the stride is 2559"),
        ({"stride": 0}, "the stride is 0"),
        ({"stride": 1 << 32}, "stride 4294967296 is not a 32-bit number"),
        ({"size": 2560 * 479 + 2559}, "takes 1228800 bytes, the size is 1228799"),
        ({"size": -1}, "size -1 is not a 32-bit number"),
        ({"fourcc": 1 << 32}, "is not a 32-bit number"),
        ({"modifier": 1 << 64}, "not a 64-bit number"),
        ({"modifier": -1}, "not a 64-bit number"),
        ({"offset": -1}, "not a 64-bit number"),
        ({"x": -1}, "x -1 is not a 32-bit number"),
        ({"modifier": X_TILED}, ""),
        ({"modifier": X_TILED, "width": 500, "stride": 2000, "size": 1 << 24}, "no multiple of the 512 bytes"),
        ({"modifier": Y_TILED, "height": 481}, "takes 1310720 bytes, the size is 1228800"),
        ({"fourcc": fourcc("RG16"), "stride": 1281, "size": 1 << 20}, "splits an element of 2 bytes"),
        ({"fourcc": fourcc("XR30"), "offset": 2}, "splits an element of 4 bytes"),
    ],
)
def test_what_does_not_add_up_is_refused_with_the_numbers(change: dict[str, int], words: str) -> None:
    """Each contradiction is named, and the message has the whole report (gotcha 14)."""
    if not words:
        SurfaceInfo(**{**GOOD, **change})
        return
    with pytest.raises(BadSurface) as caught:
        SurfaceInfo(**{**GOOD, **change})
    report = GOOD | change
    assert words in caught.value.message
    assert f"{report['width']}x{report['height']} stride {report['stride']} size {report['size']}" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(("width", "height"), [(MAX_DIMENSION, 1), (1, MAX_DIMENSION), (1, 1)])
def test_the_limits_of_a_dimension_are_dimensions(width: int, height: int) -> None:
    """1 and the largest that is believed, both included."""
    surface = SurfaceInfo(fourcc=XR24, width=width, height=height, stride=width * 4, size=width * height * 4)
    assert (surface.width, surface.height) == (width, height)


def test_the_last_rows_padding_need_not_exist() -> None:
    """Drivers differ in whether the rest of the last row exists: its last pixel is enough."""
    surface = SurfaceInfo(fourcc=XR24, width=100, height=10, stride=512, size=512 * 9 + 400)
    assert surface.needed == 512 * 9 + 400


def test_an_unknown_format_is_kept_and_not_computed_with() -> None:
    """A vendor's own format is for its own decode(); what is needed is what was reported."""
    surface = SurfaceInfo(fourcc=0x12345678, width=640, height=480, stride=1, size=5000, offset=7)
    assert surface.format is None
    assert surface.needed == 5007
    assert surface.planes() == ((7, 1),)


def test_a_chroma_plane_follows_the_luma_plane() -> None:
    """NV12 has its second plane at stride * height, with the same stride."""
    surface = SurfaceInfo(fourcc=fourcc("NV12"), width=641, height=481, stride=704, size=704 * 722, offset=64)
    assert surface.planes() == ((64, 704), (64 + 704 * 481, 704))
    assert surface.needed == 64 + 704 * 721 + 642


def test_a_surface_describes_itself_in_one_line() -> None:
    """Format, size, stride, offset and modifier by name."""
    surface = SurfaceInfo(**GOOD, modifier=X_TILED)
    assert surface.describe() == "XR24 640x480 stride 2560 size 1228800 offset 0 modifier I915_X_TILED"


def test_surfaces_are_values() -> None:
    """Equal numbers are equal surfaces, and nobody can change one."""
    assert SurfaceInfo(**GOOD) == SurfaceInfo(**GOOD)
    assert hash(SurfaceInfo(**GOOD)) == hash(SurfaceInfo(**GOOD))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SurfaceInfo(**GOOD).width = 1  # type: ignore[misc]


@given(
    code=st.one_of(st.sampled_from(sorted(FORMATS)), U32),
    modifier=st.one_of(st.sampled_from([0, X_TILED, Y_TILED]), st.integers(0, 0xFFFFFFFF_FFFFFFFF)),
    width=U32,
    height=U32,
    stride=U32,
    size=U32,
    offset=st.integers(0, 1 << 40),
)
def test_no_report_crashes_and_what_is_accepted_adds_up(
    code: int, modifier: int, width: int, height: int, stride: int, size: int, offset: int
) -> None:
    """Any 32-bit numbers either are BadSurface, or a surface whose every row and plane lies inside its size."""
    try:
        surface = SurfaceInfo(
            fourcc=code, modifier=modifier, width=width, height=height, stride=stride, size=size, offset=offset
        )
    except BadSurface:
        return
    assert 1 <= surface.width <= MAX_DIMENSION
    assert 1 <= surface.height <= MAX_DIMENSION
    layout = surface.format
    if layout is None:
        assert surface.needed == offset + size
        return
    assert layout.minimum_stride(width) <= stride
    assert surface.needed - offset <= size
    tile = tiling(modifier)
    assert tile is None or stride % tile.width == 0
    for start, row in surface.planes():
        assert offset <= start < surface.needed
        assert row == stride


@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from([0, X_TILED, Y_TILED]),
    st.integers(1, MAX_DIMENSION),
    st.integers(1, MAX_DIMENSION),
    st.integers(0, 300),
)
def test_what_an_honest_driver_reports_is_accepted_and_one_byte_less_is_not(
    code: int, modifier: int, width: int, height: int, padding: int
) -> None:
    """The check is exact: the least size passes, and is the least."""
    layout = FORMATS[code]
    tile = tiling(modifier)
    unit = tile.width if tile is not None else int(layout.dtype[1])
    stride = -(-(layout.minimum_stride(width) + padding) // unit) * unit
    size = minimum_size(layout, width, height, stride, modifier)
    assume(size <= 0xFFFFFFFF)
    surface = SurfaceInfo(fourcc=code, modifier=modifier, width=width, height=height, stride=stride, size=size)
    assert surface.needed == size
    with pytest.raises(BadSurface):
        attrs.evolve(surface, size=size - 1)


@pytest.mark.parametrize("numbers", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)])
def test_a_rectangle_has_an_area(numbers: tuple[int, int, int, int]) -> None:
    """Empty and negative rectangles are refused."""
    with pytest.raises(ValueError, match="not a rectangle"):
        Rect(*numbers)


def test_the_smallest_rectangle_is_one_pixel_at_the_corner() -> None:
    """Position 0 is a position; numbers stay in their order."""
    assert attrs.astuple(Rect(0, 0, 1, 1)) == (0, 0, 1, 1)
    assert (Rect(1, 2, 3, 4).x, Rect(1, 2, 3, 4).height) == (1, 4)


@pytest.mark.parametrize("score", [1, 1000])
def test_the_limits_of_a_score_are_scores(score: int) -> None:
    """Both ends are allowed."""
    assert Match(score, "because").score == score


@pytest.mark.parametrize("score", [0, -1, 1001])
def test_a_match_has_a_score_between_1_and_1000(score: int) -> None:
    """A score of 0 would be a refusal, and must be one."""
    with pytest.raises(ValueError, match="not between 1 and 1000"):
        Match(score, "because")
