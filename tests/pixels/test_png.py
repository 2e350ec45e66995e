from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.pixels.png import encode_png

Bytes = npt.NDArray[np.uint8]

PICTURES = st.builds(
    lambda height, width, channels, seed, flat: (
        np.full((height, width, channels), seed % 256, np.uint8)
        if flat
        else np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    ),
    st.one_of(st.just(1), st.integers(1, 70)),
    st.one_of(st.just(1), st.integers(1, 70)),
    st.sampled_from([3, 4]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)


def decoded(data: bytes) -> Bytes:
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image)


@given(PICTURES, st.integers(0, 3))
def test_pillow_decodes_what_was_encoded(pixels: Bytes, level: int) -> None:
    """Any size down to a single pixel, a single row and a single column, at any level, comes back as it was."""
    found = decoded(encode_png(pixels, level))
    assert found.shape == pixels.shape
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (1080, 1920)])
@pytest.mark.parametrize("channels", [3, 4])
def test_long_and_large_pictures(shape: tuple[int, int], channels: int) -> None:
    """The longest row, the longest column and a whole screen decode to what they were."""
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, channels), np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(pixels)), pixels)


def test_the_file_is_well_formed() -> None:
    """Signature, then IHDR, IDAT and IEND, each with its right length and CRC; the data inflates to whole rows."""
    pixels = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
    data = encode_png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (7, 5, 8, 2, 0, 0, 0)
    assert len(zlib.decompress(chunks[b"IDAT"])) == 5 * (7 * 3 + 1)


def test_views_are_encoded_as_they_look() -> None:
    """An array need not be packed: a crop, a flipped picture and one with its channels turned are as good."""
    pixels = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    for view in (pixels[3:20, 4:30], pixels[::-1], pixels[:, ::-1, ::-1], pixels.transpose(1, 0, 2)):
        np.testing.assert_array_equal(decoded(encode_png(view)), view)


def test_read_only_pixels_are_enough() -> None:
    """Encoding reads only."""
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels.flags.writeable = False
    assert decoded(encode_png(pixels)).shape == (3, 4, 3)


def test_a_screen_is_compressed() -> None:
    """A screen with large areas alike makes a file far smaller than its pixels, at every level."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[100:200] = (200, 100, 50)
    for level in range(4):
        assert len(encode_png(pixels, level)) < pixels.nbytes / 50


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((4, 4), np.uint8),
        ((4, 4, 1), np.uint8),
        ((4, 4, 2), np.uint8),
        ((4, 4, 5), np.uint8),
        ((2, 4, 4, 3), np.uint8),
        ((0, 4, 3), np.uint8),
        ((4, 0, 4), np.uint8),
        ((4, 4, 3), np.uint16),
        ((4, 4, 3), np.int8),
        ((4, 4, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(shape: tuple[int, ...], kind: type) -> None:
    """What is no RGB or RGBA picture of bytes is refused with its shape and type."""
    with pytest.raises(ValueError, match=np.dtype(kind).name) as caught:
        encode_png(np.zeros(shape, kind))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("level", [-1, 4, 9])
def test_other_levels_are_refused(level: int) -> None:
    """ISA-L has the levels 0 to 3."""
    with pytest.raises(ValueError, match="between 0 and 3"):
        encode_png(np.zeros((1, 1, 3), np.uint8), level)
