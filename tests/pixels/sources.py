"""A picture in ordinary memory that is read as a display's is, and what of it belongs to which tile, without our code.

Only tiled rows are straightened by `mdevdisplay.pixels.tiling`, which has tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mdevdisplay.formats import FORMATS, LINEAR, X_TILED, Y_TILED, YF_TILED, Format, fourcc_name
from mdevdisplay.pixels.layout import extent_of
from mdevdisplay.pixels.tiling import to_linear
from mdevdisplay.surface import SurfaceInfo
from pixels.surfaces import surface_of

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

CODES = tuple(fourcc_name(value) for value in FORMATS)
TILINGS = (X_TILED, Y_TILED, YF_TILED)
_WORDS = {
    "XR24": ("<u4", 0x00FFFFFF),
    "XB24": ("<u4", 0x00FFFFFF),
    "XR30": ("<u4", 0x3FFFFFFF),
    "XB30": ("<u4", 0x3FFFFFFF),
    "P010": ("<u2", 0xFFC0),
}


class FakeMapping:
    """Mapped memory; ``cached`` as it would have been measured."""

    def __init__(self, data: Bytes, cached: bool | None) -> None:
        self.data = data[:]
        self.data.flags.writeable = False
        self.cached = cached


class FakeSource:
    """Pixels in an array. ``copies`` counts how often all of them were fetched, ``brackets`` how often they were read.

    What ``fail`` raises is raised when they are about to be read, what ``fail_inside`` raises in the middle.
    """

    def __init__(self, surface: SurfaceInfo, memory: Bytes, start: int = 0, *, cached: bool | None = True) -> None:
        self.layout = surface
        self.memory = memory
        self.start = start
        self.mapping: FakeMapping | None = FakeMapping(memory, cached)
        self.extent = extent_of(surface, memory.size - start)
        self.copies = self.brackets = 0
        self.fail: Callable[[], None] = lambda: None
        self.fail_inside: Callable[[], None] = lambda: None

    @property
    def bytes(self) -> Bytes:
        """The picture's own bytes, to be written to."""
        return self.memory[self.start : self.start + self.extent]

    @contextmanager
    def reading(self) -> Generator[None]:
        self.fail()
        self.brackets += 1
        yield

    def copy_into(self, target: Bytes) -> None:
        self.copies += 1
        half = target.size // 2
        target[:half] = self.bytes[:half]
        self.fail_inside()
        target[half:] = self.bytes[half : target.size]

    def copy_rows_into(self, target: Bytes) -> None:
        self.copies += 1
        stride = self.layout.stride
        for number, row in enumerate(target):
            row[:] = self.bytes[number * stride : number * stride + row.size]


def known(surface: SurfaceInfo) -> Format:
    """Return a surface's format, which there is."""
    layout = surface.format
    assert layout is not None
    return layout


def rows_of(data: Bytes, surface: SurfaceInfo) -> Bytes:
    """Return (rows, bytes of a row) of a picture: no padding, undefined bits zero."""
    layout = known(surface)
    if surface.modifier == LINEAR:
        size = layout.minimum_stride(surface.width)
        starts = [row * surface.stride for row in range(layout.rows(surface.height))]
        rows = np.stack([data[start : start + size] for start in starts])
    else:
        rows = to_linear(data, surface)
    return defined(rows, layout.code)


def defined(rows: Bytes, code: str) -> Bytes:
    """Return rows with their undefined bits zero."""
    dtype, bits = _WORDS.get(code, ("<u1", 0xFF))
    words = np.ascontiguousarray(rows).view(dtype) & np.dtype(dtype).type(bits)
    result: Bytes = words.view(np.uint8)
    return result


def tiles_changed(before: Bytes, after: Bytes, surface: SurfaceInfo) -> Mask:
    """Return which 64x64 tiles of two pictures differ, one tile after the other. All or none of an unknown layout."""
    width, height = surface.width, surface.height
    mask = np.zeros((-(-height // 64), -(-width // 64)), np.bool_)
    if not is_straight(surface):
        mask[...] = bool((before != after).any())
        return mask
    layout = known(surface)
    differ = rows_of(before, surface) != rows_of(after, surface)
    size = 64 * layout.block_bytes // layout.block_width
    for row, column in np.ndindex(*mask.shape):
        place = slice(column * size, (column + 1) * size)
        mask[row, column] = differ[:height][row * 64 : (row + 1) * 64, place].any()
        if layout.chroma:
            mask[row, column] |= differ[height:][row * 32 : (row + 1) * 32, place].any()
    return mask


def is_straight(surface: SurfaceInfo) -> bool:
    """Whether it is known where each pixel of a surface lies."""
    layout = surface.format
    if layout is None or surface.modifier not in (LINEAR, *TILINGS):
        return False
    if surface.modifier == LINEAR:
        return True
    return not layout.chroma and not (surface.modifier == YF_TILED and layout.block_bytes == 3)


@st.composite
def sources(draw: st.DrawFn, cached: bool | None = True, most: int = 140) -> FakeSource:
    """A source of any known format and layout in random bytes: odd sizes, padding, not at the start of its memory."""
    code = draw(st.sampled_from(CODES))
    modifier = draw(st.sampled_from((LINEAR, LINEAR, *TILINGS)))
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    surface = surface_of(code, width, height, padding=draw(st.integers(0, 9)), modifier=modifier)
    start = draw(st.integers(0, 5)) * int(known(surface).dtype[1])
    size = surface.needed if modifier == LINEAR else surface.size
    seed = draw(st.integers(0, 2**32 - 1))
    memory = np.random.default_rng(seed).integers(0, 256, start + size, np.uint8)
    return FakeSource(surface, memory, start, cached=cached)


changes = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 255)), max_size=6)
"""Where bytes are changed, and by which bits: pixels, padding and undefined bits alike."""


def apply(source: FakeSource, changed: list[tuple[int, int]]) -> None:
    """Change bytes."""
    for place, bits in changed:
        source.bytes[place % source.extent] ^= np.uint8(bits)
