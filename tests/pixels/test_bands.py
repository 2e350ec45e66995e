from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.formats import LINEAR, X_TILED, Y_TILED, YF_TILED, fourcc
from mdevdisplay.pixels.bands import Bands
from mdevdisplay.surface import SurfaceInfo
from pixels.sources import (
    CODES,
    TILINGS,
    Bytes,
    FakeSource,
    Mask,
    apply,
    changes,
    is_straight,
    known,
    rows_of,
    sources,
    tiles_changed,
)
from pixels.surfaces import surface_of


def bands_of(source: FakeSource) -> Bands:
    return Bands(source.layout, source.layout.stride, source.extent)


def mask_of(bands: Bands, old: Bytes, new: Bytes) -> Mask:
    """Return what all stretches say together."""
    mask = np.zeros(bands.shape, np.bool_)
    for stretch in bands.stretches:
        place = slice(stretch.start, stretch.stop)
        columns = bands.changed(stretch, old[place] ^ new[place])
        if bands.closely:
            mask[stretch.band] |= columns
        elif (old[place] != new[place]).any():
            mask[...] = True
    return mask


@given(sources(), changes)
def test_the_mask_is_the_tiles_with_a_changed_pixel(source: FakeSource, changed: list[tuple[int, int]]) -> None:
    """Any format and tiling, any geometry: exactly the tiles that a comparison of every pixel finds."""
    before = source.bytes.copy()
    apply(source, changed)
    assert np.array_equal(
        mask_of(bands_of(source), before, source.bytes), tiles_changed(before, source.bytes, source.layout)
    )


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("modifier", [LINEAR, *TILINGS])
def test_every_byte_of_a_row_belongs_to_its_tile(code: str, modifier: int) -> None:
    """One byte after the other in a picture of 2x2 tiles, none of them whole."""
    surface = surface_of(code, 67, 66, padding=4, modifier=modifier)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    bands = bands_of(source)
    assert bands.closely == is_straight(surface)
    before = source.bytes.copy()
    for place in range(0, source.extent, 37):
        source.bytes[place] = 255
        assert np.array_equal(mask_of(bands, before, source.bytes), tiles_changed(before, source.bytes, surface)), place
        source.bytes[place] = 0


@given(sources())
def test_stretches_hold_every_pixel_once(source: FakeSource) -> None:
    """Sorted by band, no byte in two, every byte of a pixel in one, none outside the picture."""
    bands = bands_of(source)
    held = np.zeros(source.extent, np.uint8)
    for stretch in bands.stretches:
        assert 0 <= stretch.start < stretch.stop <= source.extent
        held[stretch.start : stretch.stop] += 1
    assert held.max() == 1
    assert [stretch.band for stretch in bands.stretches] == sorted(stretch.band for stretch in bands.stretches)
    if bands.closely:
        assert (
            rows_of(255 * held, source.layout) == rows_of(np.full(source.extent, 255, np.uint8), source.layout)
        ).all()
    else:
        assert held.min() == 1


def test_a_pixel_of_chroma_counts_for_the_luma_that_it_covers() -> None:
    """A row of chroma lies in the tile of its two rows of luma."""
    surface = surface_of("NV12", 200, 131)
    source = FakeSource(surface, np.zeros(surface.needed, np.uint8))
    for row, column, tile in ((0, 0, (0, 0)), (31, 63, (0, 0)), (32, 64, (1, 1)), (65, 199, (2, 3))):
        before = source.bytes.copy()
        source.bytes[(131 + row) * 200 + column] ^= 1
        mask = mask_of(bands_of(source), before, source.bytes)
        assert np.argwhere(mask).tolist() == [list(tile)]


@pytest.mark.parametrize(
    ("code", "offset", "bits"),
    [
        ("XR24", 3, 0xFF),
        ("XB24", 3, 0xFF),
        ("XR30", 3, 0xC0),
        ("XB30", 3, 0xC0),
        ("P010", 0, 0x3F),
    ],
)
@pytest.mark.parametrize("modifier", [LINEAR, X_TILED])
def test_undefined_bits_are_no_change_and_the_next_bit_is(code: str, offset: int, bits: int, modifier: int) -> None:
    """X bytes, the two bits above 10-bit colours, the six below P010's."""
    surface = surface_of(code, 128, 128, modifier=modifier)
    if surface.format is not None and surface.format.chroma and modifier != LINEAR:
        surface = surface_of(code, 128, 128)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    bands, before = bands_of(source), source.bytes.copy()
    source.bytes[512 + offset] = bits
    assert not mask_of(bands, before, source.bytes).any()
    source.bytes[512 + offset] = 0
    if bits != 0xFF:
        source.bytes[512 + offset] = ~bits & 0xFF
        assert mask_of(bands, before, source.bytes).sum() == 1
    source.bytes[512 + (offset + 1) % 4] = 1
    assert mask_of(bands, before, source.bytes).any()


@pytest.mark.parametrize("code", ["AR24", "AB24", "RG24", "RG16", "C8", "YUYV"])
def test_every_bit_of_other_formats_counts(code: str) -> None:
    """Alpha is a value."""
    surface = surface_of(code, 64, 64)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    bands, before = bands_of(source), source.bytes.copy()
    for place in range(16):
        for bit in range(8):
            source.bytes[place] = 1 << bit
            assert mask_of(bands, before, source.bytes).all()
        source.bytes[place] = 0


@pytest.mark.parametrize(
    "surface",
    [
        SurfaceInfo(fourcc=fourcc("SIM0"), width=100, height=100, stride=400, size=40_000),
        SurfaceInfo(fourcc=fourcc("XR24"), modifier=0x0100000000000004, width=100, height=100, stride=512, size=60_000),
        surface_of("NV12", 100, 100, modifier=Y_TILED),
        surface_of("RG24", 100, 100, modifier=YF_TILED),
    ],
)
def test_what_is_in_no_known_place_is_all_or_nothing(surface: SurfaceInfo) -> None:
    """Formats and modifiers that nobody knows, tiles that there are not: one stretch, and any change is everywhere."""
    bands = Bands(surface, surface.stride, surface.size)
    assert not bands.closely
    assert [(stretch.start, stretch.stop) for stretch in bands.stretches] == [(0, surface.size)]
    difference = np.zeros(surface.size, np.uint8)
    assert bands.changed(bands.stretches[0], difference).all()


def test_tiles_that_the_memory_does_not_hold_are_all_or_nothing() -> None:
    """C8 in Yf tiles of 64 rows, in a buffer that ends after half of the last one."""
    surface = SurfaceInfo(
        fourcc=fourcc("C8"), modifier=YF_TILED, width=100, height=70, stride=128, size=128 * 96, dmabuf_id=1
    )
    assert not Bands(surface, surface.stride, surface.size).closely
    whole = SurfaceInfo(fourcc=fourcc("C8"), modifier=YF_TILED, width=100, height=70, stride=128, size=128 * 128)
    assert Bands(whole, whole.stride, whole.size).closely
    assert not Bands(whole, whole.stride, 128 * 96).closely


@given(sources(), changes, st.booleans())
def test_packed_rows_of_the_changed_tiles_are_copied(
    source: FakeSource, changed: list[tuple[int, int]], everything: bool
) -> None:
    """A packed copy of the picture before becomes one of the picture after, whether by the mask or as a whole."""
    bands = bands_of(source)
    layout, surface = known(source.layout), source.layout
    plain = surface.modifier == LINEAR
    size = layout.minimum_stride(surface.width) * layout.rows(surface.height) if plain else source.extent
    target = np.zeros(size, np.uint8)

    def packed() -> Bytes:
        if not plain:
            return source.bytes.copy()
        length = layout.minimum_stride(surface.width)
        starts = [row * surface.stride for row in range(layout.rows(surface.height))]
        return np.concatenate([source.bytes[start : start + length] for start in starts])

    bands.copy_packed(target, source.bytes, None)
    assert np.array_equal(target, packed())
    before = source.bytes.copy()
    apply(source, changed)
    mask = None if everything else tiles_changed(before, source.bytes, surface)
    bands.copy_packed(target, source.bytes, mask)
    if everything:
        assert np.array_equal(target, packed())
    elif is_straight(surface):
        assert not tiles_changed(_unpacked(target, source), _unpacked(packed(), source), surface).any()
    else:
        assert np.array_equal(target, packed())


def _unpacked(data: Bytes, source: FakeSource) -> Bytes:
    """Return packed rows with the padding that the source has, zeros."""
    surface = source.layout
    if surface.modifier != LINEAR:
        return data
    layout = known(surface)
    rows = np.zeros((layout.rows(surface.height), surface.stride), np.uint8)
    length = layout.minimum_stride(surface.width)
    rows[:, :length] = data.reshape(-1, length)
    return rows.reshape(-1)


@given(sources(), st.integers(0, 2**32 - 1))
def test_only_the_tiles_of_the_mask_are_copied(source: FakeSource, seed: int) -> None:
    """What has not changed is left alone: of a picture with few changed tiles nothing else is touched."""
    bands, surface = bands_of(source), source.layout
    if surface.modifier != LINEAR:  # copied as a whole
        return
    layout = known(surface)
    mask = np.random.default_rng(seed).random(bands.shape) < 0.4
    if mask.sum() > mask.size // 2:
        return
    rows, length = layout.rows(surface.height), layout.minimum_stride(surface.width)
    target = np.zeros((rows, length), np.uint8)
    bands.copy_packed(target.reshape(-1), np.full(source.extent, 255, np.uint8), mask)
    expected = np.zeros_like(target)
    size = 64 * layout.block_bytes // layout.block_width
    for row, column in np.argwhere(mask).tolist():
        place = slice(column * size, (column + 1) * size)
        expected[: surface.height][row * 64 : (row + 1) * 64, place] = 255
        if layout.chroma:
            expected[surface.height :][row * 32 : (row + 1) * 32, place] = 255
    assert np.array_equal(target, expected)
