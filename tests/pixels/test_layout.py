from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.formats import FORMATS, X_TILED, fourcc
from mdevdisplay.pixels.layout import extent_of, packed_size, raw_view
from mdevdisplay.surface import SurfaceInfo

PADDED = st.tuples(
    st.sampled_from(sorted(FORMATS)), st.integers(1, 40), st.integers(1, 12), st.integers(0, 20), st.integers(0, 6)
)


@given(PADDED)
def test_the_view_and_the_packed_copy_show_the_same_elements(case: tuple[int, int, int, int, int]) -> None:
    """For every format: rows copied without their padding, seen with the least stride, equal the rows in place."""
    code, width, height, padding, start = case
    layout = FORMATS[code]
    item = int(layout.dtype[1])
    stride = layout.minimum_stride(width) + padding * item
    surface = SurfaceInfo(fourcc=code, width=width, height=height, stride=stride, size=stride * layout.rows(height))
    data = np.random.default_rng(7).integers(0, 256, start * item + surface.needed, np.uint8)
    in_place = raw_view(data, start * item, surface, stride)
    begin, least, count = start * item, layout.minimum_stride(width), layout.rows(height)
    rows = np.concatenate([data[begin + row * stride :][:least] for row in range(count)])
    assert rows.size == packed_size(surface, data.size - begin)
    packed = raw_view(rows, 0, surface, least)
    assert in_place.shape == packed.shape == layout.raw_shape(width, height)
    np.testing.assert_array_equal(in_place, packed)
    # and the last row ends with the last byte that the picture takes, which a copy with its padding has too
    assert np.shares_memory(in_place, data[-1:])
    assert extent_of(surface, 1 << 20) == data.size - begin


@pytest.mark.parametrize(("code", "modifier"), [(fourcc("XR24"), X_TILED), (fourcc("SIM0"), 0)])
def test_what_is_not_rows_of_known_pixels_is_bytes(code: int, modifier: int) -> None:
    """A tiling or an unknown format has no rows that we could name: its bytes come as they lie there."""
    surface = SurfaceInfo(fourcc=code, modifier=modifier, width=64, height=8, stride=512, size=4096)
    data = np.arange(5000, dtype=np.uint16).astype(np.uint8)
    assert raw_view(data, 100, surface, 512).shape == (4900,)
    assert packed_size(surface, 4900) == extent_of(surface, 4900) == 4096
    # a buffer may have fewer bytes than the driver counts to the picture, as long as it has the last tile's
    assert packed_size(surface, 4090) == extent_of(surface, 4090) == 4090


def test_a_view_never_leaves_its_memory() -> None:
    """A surface that does not fit is an error of NumPy's, not somebody else's memory."""
    surface = SurfaceInfo(fourcc=fourcc("XR24"), width=64, height=8, stride=256, size=2048)
    with pytest.raises((TypeError, ValueError)):
        raw_view(np.zeros(2047, np.uint8), 0, surface, 256)
