from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.formats import FORMATS, fourcc_name
from mdevdisplay.pixels.convert import to_bgra, to_rgb
from mdevdisplay.pixels.layout import raw_view
from mdevdisplay.pixels.yuv import Matrix, default_matrix
from pixels.peers import nv12_by_libyuv, p010_by_libyuv, packed_by_libyuv, yuv422_by_libyuv
from pixels.surfaces import Picture, pictures, surface_of

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

PACKED = ("YUYV", "YVYU", "UYVY", "VYUY")
PLANAR = ("NV12", "P010")
ALL = (*PACKED, *PLANAR)
MATRICES: tuple[Matrix, ...] = ("bt601", "bt709")

# the weights of red and blue in luma, from ITU-R BT.601 and BT.709
WEIGHTS = {"bt601": ("0.299", "0.114"), "bt709": ("0.2126", "0.0722")}


def coefficients(matrix: str) -> list[tuple[Fraction, Fraction, Fraction]]:
    """Return what one step of 8-bit Y, Cb and Cr adds to red, green and blue."""
    red, blue = (Fraction(weight) for weight in WEIGHTS[matrix])
    green = 1 - red - blue
    y, c = Fraction(255, 219), Fraction(255, 224)
    return [
        (y, Fraction(0), c * 2 * (1 - red)),
        (y, -c * 2 * (1 - blue) * blue / green, -c * 2 * (1 - red) * red / green),
        (y, c * 2 * (1 - blue), Fraction(0)),
    ]


def exactly(y: Numbers, cb: Numbers, cr: Numbers, matrix: str, bits: int = 8) -> Bytes:
    """Return red, green and blue of samples, in whole numbers all the way: rounded half up, then clipped."""
    channels = []
    for weights in coefficients(matrix):
        common = math.lcm(*(weight.denominator for weight in weights)) << bits - 8
        steps = [int(weight * common) >> bits - 8 for weight in weights]
        black, middle = 16 << bits - 8, 128 << bits - 8
        total = (y - black) * steps[0] + (cb - middle) * steps[1] + (cr - middle) * steps[2]
        channels.append(np.clip((2 * total + common) // (2 * common), 0, 255))
    return np.stack(channels, axis=-1).astype(np.uint8)


def samples(picture: Picture) -> tuple[Numbers, Numbers, Numbers, int]:
    """Return Y, Cb and Cr of every pixel and their bits, read byte by byte as drm_fourcc.h lays them out."""
    surface, data, start, _ = picture
    memory, stride = data[start:].tobytes(), surface.stride
    code, height, width = fourcc_name(surface.fourcc), surface.height, surface.width
    result = np.zeros((3, height, width), np.int64)
    for y in range(height):
        for x in range(width):
            if code in PACKED:
                pair = memory[y * stride + x // 2 * 4 :][:4]
                lumas = [pair[place] for place, letter in enumerate(code) if letter == "Y"]
                result[:, y, x] = lumas[x % 2], pair[code.index("U")], pair[code.index("V")]
                continue
            size = 1 if code == "NV12" else 2
            places = (y * stride + x * size, *((height + y // 2) * stride + (x // 2 * 2 + i) * size for i in (0, 1)))
            words = (int.from_bytes(memory[place : place + size], "little") for place in places)
            result[:, y, x] = [word >> 6 if code == "P010" else word for word in words]
    return result[0], result[1], result[2], 10 if code == "P010" else 8


@given(pictures(ALL), st.sampled_from(MATRICES))
def test_every_format_is_what_the_standards_say(picture: Picture, matrix: Matrix) -> None:
    """Samples are where drm_fourcc.h has them, at any stride and odd size, and are converted exactly."""
    surface, _, _, raw = picture
    y, cb, cr, bits = samples(picture)
    expected = exactly(y, cb, cr, matrix, bits)
    np.testing.assert_array_equal(to_rgb(raw, surface, matrix=matrix), expected)
    pixels = to_bgra(raw, surface, matrix=matrix)
    np.testing.assert_array_equal(pixels[..., 2::-1], expected)
    assert (pixels[..., 3] == 255).all()


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_combination_of_eight_bits_is_rounded(matrix: Matrix) -> None:
    """All 16,777,216 triples of Y, Cb and Cr become the nearest levels."""
    surface = surface_of("YUYV", 256, 256)
    raw = np.empty((256, 256, 2), np.uint8)
    raw[..., 0] = np.arange(256)
    raw[:, 1::2, 1] = np.arange(256)[:, None]
    y, cr = np.meshgrid(np.arange(256, dtype=np.int64), np.arange(256, dtype=np.int64))
    for cb in range(256):
        raw[:, 0::2, 1] = cb
        expected = exactly(y, np.full_like(y, cb), cr, matrix)
        np.testing.assert_array_equal(to_rgb(raw, surface, matrix=matrix), expected)


@given(st.sampled_from(MATRICES), st.integers(0, 2**32 - 1))
def test_ten_bits_are_rounded(matrix: Matrix, seed: int) -> None:
    """P010's ten bits are the upper ones; what lies below them means nothing."""
    surface = surface_of("P010", 128, 64)
    raw = np.random.default_rng(seed).integers(0, 65536, (96, 128), np.uint16)
    chroma = (raw[64:] >> 6).astype(np.int64).repeat(2, axis=0)
    cb, cr = chroma[:, 0::2].repeat(2, axis=1), chroma[:, 1::2].repeat(2, axis=1)
    expected = exactly((raw[:64] >> 6).astype(np.int64), cb, cr, matrix, 10)
    np.testing.assert_array_equal(to_rgb(raw, surface, matrix=matrix), expected)
    np.testing.assert_array_equal(to_rgb(raw & 0xFFC0, surface, matrix=matrix), expected)


# the kernel's own table, drivers/gpu/drm/vkms/tests/vkms_format_test.c: limited range, 8 bits
BARS = {
    "bt601": {
        (0xEB, 0x80, 0x80): (255, 255, 255),
        (0x7E, 0x80, 0x80): (128, 128, 128),
        (0x10, 0x80, 0x80): (0, 0, 0),
        (0x51, 0x5A, 0xF0): (255, 0, 0),
        (0x91, 0x36, 0x22): (0, 255, 0),
        (0x29, 0xF0, 0x6E): (0, 0, 255),
    },
    "bt709": {
        (0xEB, 0x80, 0x80): (255, 255, 255),
        (0x7E, 0x80, 0x80): (128, 128, 128),
        (0x10, 0x80, 0x80): (0, 0, 0),
        (0x3F, 0x66, 0xF0): (255, 0, 0),
        (0xAD, 0x2A, 0x1A): (0, 255, 0),
        (0x20, 0xF0, 0x76): (0, 0, 255),
    },
}


@pytest.mark.parametrize("code", ALL)
@pytest.mark.parametrize("matrix", MATRICES)
def test_the_kernels_colour_bars(matrix: Matrix, code: str) -> None:
    """The pure colours are within a level of the kernel's, whose samples are themselves rounded."""
    surface = surface_of(code, 2, 2)
    for (y, cb, cr), colour in BARS[matrix].items():
        if code in PLANAR:
            raw = np.array([[y, y], [y, y], [cb, cr]], "<u2")
            raw = raw << 8 if code == "P010" else raw.astype(np.uint8)
        else:
            letters = {"Y": y, "U": cb, "V": cr}
            raw = np.array([[letters[letter] for letter in code]] * 2, np.uint8).reshape(2, 2, 2)
        assert np.abs(to_rgb(raw, surface, matrix=matrix).astype(int) - colour).max() <= 1


def by_libyuv(picture: Picture, matrix: Matrix) -> Bytes:
    """Return libyuv's B, G, R, A of the picture."""
    surface, _, _, raw = picture
    height, width = surface.height, surface.width
    code = fourcc_name(surface.fourcc)
    if code in PLANAR:
        luma, chroma = raw[:height].copy(), raw[height:].copy()
        convert = nv12_by_libyuv if code == "NV12" else p010_by_libyuv
        return convert(luma, chroma, width, matrix)
    rows = raw.reshape(height, -1).copy()
    places = [code.index(letter) for letter in "UV"]
    cb, cr = (rows[:, place::4].copy() for place in places)
    return yuv422_by_libyuv(rows[:, code.index("Y") :: 2].copy(), cb, cr, width, matrix)


@given(pictures(ALL), st.sampled_from(MATRICES))
def test_libyuv_sees_the_same(picture: Picture, matrix: Matrix) -> None:
    """libyuv, which holds one chroma sample for a block too, sees the same within its own precision.

    Its coefficients have 6 bits, and none is above 2 (blue's is 2.018 by BT.601 and 2.112 by BT.709): red and green
    are off by up to 3 levels, blue as much and by what its coefficient lacks for the Cb at hand.
    """
    surface, _, _, raw = picture
    ours, theirs = to_bgra(raw, surface, matrix=matrix).astype(int), by_libyuv(picture, matrix)
    difference = ours - theirs
    assert np.abs(difference[..., 1:]).max() <= 3
    _, cb, _, bits = samples(picture)
    lacking = (float(coefficients(matrix)[2][1]) - 2) * (cb / (1 << bits - 8) - 128)
    blue = difference[..., 0]
    assert (blue >= np.minimum(lacking, 0) - 3).all()
    assert (blue <= np.maximum(lacking, 0) + 3).all()


@given(pictures(("YUYV", "UYVY")))
def test_libyuv_reads_the_same_order_of_bytes(picture: Picture) -> None:
    """The readers of YUYV and UYVY in libyuv, which know BT.601 only, see the same."""
    surface, _, _, raw = picture
    code = fourcc_name(surface.fourcc)
    theirs = packed_by_libyuv(code, raw.reshape(surface.height, -1).copy(), surface.width)
    ours = to_bgra(raw, surface, matrix="bt601").astype(int)
    assert np.abs(ours - theirs).max() <= 4


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, "bt601"),
        (720, 576, "bt601"),
        (1279, 576, "bt601"),
        (1280, 576, "bt709"),
        (1024, 577, "bt709"),
        (1280, 720, "bt709"),
        (1920, 1080, "bt709"),
        (1, 1, "bt601"),
    ],
)
def test_the_matrix_is_chosen_by_the_size(width: int, height: int, expected: Matrix) -> None:
    """Without a word of the caller a large picture is BT.709, a small one BT.601, as mpv has it."""
    assert default_matrix(width, height) == expected
    surface = surface_of("NV12", width, height)
    data = np.random.default_rng(8).integers(0, 256, surface.needed, np.uint8)
    raw = raw_view(data, 0, surface, surface.stride)
    other: Matrix = "bt601" if expected == "bt709" else "bt709"
    for convert in (to_rgb, to_bgra):
        chosen = convert(raw, surface)
        np.testing.assert_array_equal(chosen, convert(raw, surface, matrix=expected))
        assert (width, height) == (1, 1) or not np.array_equal(chosen, convert(raw, surface, matrix=other))


@pytest.mark.parametrize("code", ALL)
def test_a_screenful_is_converted_alike(code: str) -> None:
    """A picture of many bands is what its parts are: nothing is lost or doubled where bands meet."""
    surface = surface_of(code, 1365, 201, padding=6)
    data = np.random.default_rng(12).integers(0, 256, surface.needed, np.uint8)
    raw = raw_view(data, 0, surface, surface.stride)
    whole = to_rgb(raw, surface, matrix="bt709")
    assert whole.shape == (201, 1365, 3)
    for top in range(0, 201, 2):
        rows = min(2, 201 - top)
        part = surface_of(code, 1365, rows)
        chroma = [raw[201 + top // 2 :][:1]] if FORMATS[surface.fourcc].chroma else []
        strip = np.concatenate([raw[top : top + rows], *chroma])
        np.testing.assert_array_equal(whole[top : top + rows], to_rgb(strip, part, matrix="bt709"))
