"""Surfaces of any format, and random pictures of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mdevdisplay.formats import FORMATS, fourcc, tiling
from mdevdisplay.pixels.layout import Raw, raw_view
from mdevdisplay.surface import SurfaceInfo

Bytes = npt.NDArray[np.uint8]
Picture = tuple[SurfaceInfo, Bytes, int, Raw]


def surface_of(code: str, width: int, height: int, *, padding: int = 0, modifier: int = 0) -> SurfaceInfo:
    """Return a surface with so many unused elements at the end of each row."""
    layout = FORMATS[fourcc(code)]
    tile = tiling(modifier)
    stride = layout.minimum_stride(width) + padding * int(layout.dtype[1])
    if tile is not None:
        stride = -(-stride // tile.width) * tile.width
    size = stride * (layout.rows(height) + 64)
    return SurfaceInfo(fourcc=layout.fourcc, modifier=modifier, width=width, height=height, stride=stride, size=size)


@st.composite
def pictures(draw: st.DrawFn, codes: tuple[str, ...]) -> Picture:
    """A surface of one of the formats in random bytes, read-only: rows padded, not at the start of the memory."""
    code = draw(st.sampled_from(codes))
    width, height = draw(st.integers(1, 19)), draw(st.integers(1, 9))
    surface = surface_of(code, width, height, padding=draw(st.integers(0, 9)))
    start = draw(st.integers(0, 5)) * int(FORMATS[surface.fourcc].dtype[1])
    seed = draw(st.integers(0, 2**32 - 1))
    data = np.random.default_rng(seed).integers(0, 256, start + surface.needed, np.uint8)
    data.flags.writeable = False
    return surface, data, start, raw_view(data, start, surface, surface.stride)
