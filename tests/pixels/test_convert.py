from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from attrs import evolve
from hypothesis import given

from mdevdisplay import formats
from mdevdisplay.errors import UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import FORMATS, fourcc, modifier_name
from mdevdisplay.pixels.convert import bgra_to_rgb, bgra_to_rgba, check_decodable, is_decodable, to_bgra, to_rgb
from mdevdisplay.pixels.layout import Raw, raw_view
from mdevdisplay.surface import SurfaceInfo
from pixels.opencv_switch import use_opencv
from pixels.surfaces import pictures, surface_of

Bytes = npt.NDArray[np.uint8]

RGB = ("XR24", "AR24", "XB24", "AB24", "RG24", "RG16", "XR30", "XB30")
YUV = ("YUYV", "YVYU", "UYVY", "VYUY", "NV12", "P010")
CONVERTED = RGB + YUV
MODIFIERS = [
    formats.INVALID,
    0x0100_0000_0000_0004,
    0x0100_0000_0000_0005,
    0x0100_0000_0000_0006,
    0x0100_0000_0000_0007,
    0x0100_0000_0000_0009,
    0x0200_0000_1866_9E01,
    0x0300_0000_0060_6010,
    0x0800_0000_0000_0041,
    0x7700_0000_0000_0001,
]

# bits of the little-endian pixel, from include/uapi/drm/drm_fourcc.h: "[31:0] x:R:G:B 8:8:8:8 little endian"
BITS: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "XR24": (4, {"r": (16, 8), "g": (8, 8), "b": (0, 8)}),
    "AR24": (4, {"a": (24, 8), "r": (16, 8), "g": (8, 8), "b": (0, 8)}),
    "XB24": (4, {"b": (16, 8), "g": (8, 8), "r": (0, 8)}),
    "AB24": (4, {"a": (24, 8), "b": (16, 8), "g": (8, 8), "r": (0, 8)}),
    "RG24": (3, {"r": (16, 8), "g": (8, 8), "b": (0, 8)}),
    "RG16": (2, {"r": (11, 5), "g": (5, 6), "b": (0, 5)}),
    "XR30": (4, {"r": (20, 10), "g": (10, 10), "b": (0, 10)}),
    "XB30": (4, {"b": (20, 10), "g": (10, 10), "r": (0, 10)}),
}

# Pillow's raw modes for the same bytes
PILLOW = {
    "XR24": ("RGB", "BGRX"),
    "AR24": ("RGBA", "BGRA"),
    "XB24": ("RGB", "RGBX"),
    "AB24": ("RGBA", "RGBA"),
    "RG24": ("RGB", "BGR"),
    "RG16": ("RGB", "BGR;16"),
}


@pytest.fixture(autouse=True, params=["numpy", "opencv"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test holds with OpenCV and without it."""
    with use_opencv(request.param == "opencv"):
        yield


def by_the_header(data: bytes, surface: SurfaceInfo, start: int) -> Bytes:
    """Convert pixel by pixel, as the kernel's header says, in whole numbers, rounded to the nearest."""
    size, channels = BITS[formats.fourcc_name(surface.fourcc)]
    result = np.empty((surface.height, surface.width, 4), np.uint8)
    for y in range(surface.height):
        for x in range(surface.width):
            place = start + y * surface.stride + x * size
            pixel = int.from_bytes(data[place : place + size], "little")
            for index, channel in enumerate("bgra"):
                if channel not in channels:
                    result[y, x, index] = 255
                    continue
                shift, bits = channels[channel]
                most = (1 << bits) - 1
                result[y, x, index] = (2 * (pixel >> shift & most) * 255 + most) // (2 * most)
    return result


@given(pictures(RGB))
def test_every_rgb_format_is_what_the_kernels_header_says(picture: tuple[SurfaceInfo, Bytes, int, Raw]) -> None:
    """Eight-bit channels come out exactly, others correctly rounded, X as 255, whatever stride and start."""
    surface, data, start, raw = picture
    expected = by_the_header(data.tobytes(), surface, start)
    np.testing.assert_array_equal(to_bgra(raw, surface), expected)
    np.testing.assert_array_equal(to_rgb(raw, surface), expected[..., 2::-1])


@given(pictures(tuple(PILLOW)))
def test_every_rgb_format_is_what_pillow_makes_of_it(picture: tuple[SurfaceInfo, Bytes, int, Raw]) -> None:
    """Pillow's raw decoders, which know strides too, give the same; they cut RGB565 off where we round."""
    surface, data, start, raw = picture
    code = formats.fourcc_name(surface.fourcc)
    mode, raw_mode = PILLOW[code]
    padded = data[start:].tobytes().ljust(surface.stride * surface.height, b"\0")
    image = PIL.Image.frombytes(mode, (surface.width, surface.height), padded, "raw", raw_mode, surface.stride, 1)
    expected = np.asarray(image.convert("RGBA"), np.int16)[..., [2, 1, 0, 3]]
    difference = np.abs(to_bgra(raw, surface).astype(np.int16) - expected)
    assert difference.max() <= (1 if code == "RG16" else 0)


@pytest.mark.parametrize("code", RGB)
def test_a_screenful_is_converted_alike(code: str) -> None:
    """Full-size pictures, where NumPy takes its vector paths, are as exact as small ones."""
    surface = surface_of(code, 1366, 37, padding=6)
    data = np.random.default_rng(1).integers(0, 256, surface.needed, np.uint8)
    raw = raw_view(data, 0, surface, surface.stride)
    pixels = to_bgra(raw, surface)
    assert pixels.shape == (37, 1366, 4)
    size, channels = BITS[code]
    rows = np.ndarray((37, 1366, size), np.uint8, data, 0, (surface.stride, size, 1)).astype(np.uint32)
    words = sum((rows[..., place] << np.uint32(8 * place) for place in range(size)), np.zeros((37, 1366), np.uint32))
    for index, channel in enumerate("bgra"):
        if channel not in channels:
            assert (pixels[..., index] == 255).all()
            continue
        shift, bits = channels[channel]
        most = (1 << bits) - 1
        expected = np.floor((words >> shift & most) * 255 / most + 0.5)
        np.testing.assert_array_equal(pixels[..., index], expected)


def test_black_and_white_of_rgb565_are_full() -> None:
    """The ends of 5 and 6 bits become 0 and 255, and 255 only at the very end."""
    surface = surface_of("RG16", 4, 1)
    raw = np.array([[0x0000, 0xFFFF, 0xF7DE, 0x0841]], "<u2")
    assert to_bgra(raw, surface)[0].tolist() == [
        [0, 0, 0, 255],
        [255, 255, 255, 255],
        [247, 251, 247, 255],
        [8, 8, 8, 255],
    ]


@pytest.mark.parametrize("code", ["XR24", "XB24"])
def test_x_bytes_become_255(code: str) -> None:
    """X means undefined: whatever the driver leaves there, the pixel is opaque."""
    surface = surface_of(code, 3, 2)
    for garbage in (0, 1, 127, 255):
        raw = np.full((2, 3, 4), garbage, np.uint8)
        assert (to_bgra(raw, surface)[..., 3] == 255).all()


@pytest.mark.parametrize("code", ["XR30", "XB30"])
def test_x_bits_become_255(code: str) -> None:
    """The two bits above 10-bit channels mean nothing either, and do not reach the colours."""
    surface = surface_of(code, 4, 1)
    raw = np.array([[bits << 30 | 0x1234567 for bits in range(4)]], "<u4")
    pixels = to_bgra(raw, surface)[0]
    assert (pixels[:, 3] == 255).all()
    assert (pixels == pixels[0]).all()


@pytest.mark.parametrize("code", ["RG24", "RG16", *YUV])
def test_what_has_no_alpha_is_opaque(code: str) -> None:
    """A format without a fourth channel gets 255 there."""
    surface = surface_of(code, 5, 3)
    raw = raw_view(np.random.default_rng(4).integers(0, 256, surface.needed, np.uint8), 0, surface, surface.stride)
    assert (to_bgra(raw, surface)[..., 3] == 255).all()


@pytest.mark.parametrize("code", ["XR30", "XB30"])
def test_every_level_of_ten_bits_is_rounded(code: str) -> None:
    """All 1,024 levels of each channel become the nearest of 0 to 255, the other channels staying what they are."""
    surface = surface_of(code, 1024, 1)
    nearest = [math.floor(Fraction(level * 255, 1023) + Fraction(1, 2)) for level in range(1024)]
    for channel, (shift, _) in BITS[code][1].items():
        raw = (np.arange(1024, dtype="<u4") << shift)[None]
        pixels = to_bgra(raw, surface)[0]
        expected = np.zeros((1024, 3), np.uint8)
        expected[:, "bgr".index(channel)] = nearest
        np.testing.assert_array_equal(pixels[:, :3], expected)


@pytest.mark.parametrize("code", ["AR24", "AB24"])
def test_alpha_is_kept(code: str) -> None:
    """A format with alpha keeps it as it is, straight, never premultiplied or undone."""
    surface = surface_of(code, 256, 1)
    raw = np.zeros((1, 256, 4), np.uint8)
    raw[0, :, 3] = np.arange(256)
    raw[0, :, 1] = 200
    pixels = to_bgra(raw, surface)
    assert pixels[0, :, 3].tolist() == list(range(256))
    assert (pixels[..., 1] == 200).all()


@pytest.mark.parametrize("code", CONVERTED)
def test_the_source_is_never_written(code: str) -> None:
    """Conversion reads: memory that is mapped read-only is enough."""
    surface = surface_of(code, 5, 3, padding=2)
    data = np.random.default_rng(2).integers(0, 256, surface.needed, np.uint8)
    before = data.copy()
    data.flags.writeable = False
    raw = raw_view(data, 0, surface, surface.stride)
    to_bgra(raw, surface)
    to_rgb(raw, surface)
    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize("code", [code for code in CONVERTED if code != "AR24"])
def test_the_result_is_memory_of_its_own(code: str) -> None:
    """Only AR24 needs no conversion; everything else is a new array, and R, G, B always is."""
    surface = surface_of(code, 5, 3)
    raw = raw_view(np.zeros(surface.needed, np.uint8), 0, surface, surface.stride)
    assert not np.shares_memory(to_bgra(raw, surface), raw)
    assert not np.shares_memory(to_rgb(raw, surface), raw)


def test_ar24_is_not_copied() -> None:
    """B, G, R, A in memory is B, G, R, A already."""
    surface = surface_of("AR24", 5, 3)
    raw = raw_view(np.zeros(surface.needed, np.uint8), 0, surface, surface.stride)
    assert to_bgra(raw, surface) is raw
    assert not np.shares_memory(to_rgb(raw, surface), raw)


def test_a_palette_that_nobody_has_is_said_to_be_missing() -> None:
    """C8 is refused by its name and with its own reason: numbers without their colours."""
    surface = surface_of("C8", 8, 4)
    assert not is_decodable(surface)
    raw = raw_view(np.zeros(surface.size, np.uint8), 0, surface, surface.stride)
    for convert in (to_bgra, to_rgb):
        with pytest.raises(UnsupportedFormat, match="palette") as caught:
            convert(raw, surface, "sim:8x4")
        assert "C8 (C8)" in caught.value.message
        assert caught.value.device == "sim:8x4"
        assert caught.value.hint
        assert caught.value.cause == "unsupported-format"


def test_all_other_formats_that_have_a_name_are_converted() -> None:
    """Whatever the framework knows by name it converts, but for C8."""
    assert sorted(CONVERTED) == sorted(entry.code for entry in FORMATS.values() if entry.code != "C8")
    assert all(is_decodable(surface_of(code, 8, 4)) for code in CONVERTED)


@pytest.mark.parametrize(("number", "name"), [(fourcc("ZZ99"), "ZZ99"), (0x01020304, "0x01020304")])
def test_an_unknown_format_is_refused_by_its_code(number: int, name: str) -> None:
    """A fourcc that nobody knows is shown as text where it is text, else as a number."""
    surface = SurfaceInfo(fourcc=number, width=8, height=4, stride=32, size=128)
    with pytest.raises(UnsupportedFormat, match=name):
        check_decodable(surface)


@pytest.mark.parametrize("modifier", MODIFIERS, ids=modifier_name)
def test_modifiers_are_refused_by_name(modifier: int) -> None:
    """A layout that is not linear is refused by its name and its number, also for a format that we convert."""
    surface = surface_of("XR24", 64, 4, modifier=modifier)
    assert not is_decodable(surface)
    with pytest.raises(UnsupportedModifier) as caught:
        to_bgra(np.zeros(surface.size, np.uint8), surface, "sim:")
    assert modifier_name(modifier) in caught.value.message
    assert caught.value.message.count(f"0x{modifier:016x}") == 1
    assert caught.value.hint


@pytest.mark.parametrize("code", [code for code in CONVERTED if code not in ("NV12", "P010")])
def test_x_tiles_are_converted_as_rows_are(code: str) -> None:
    """A tiled picture of a format has the pixels of the same picture in rows."""
    tiled = surface_of(code, 301, 21, modifier=formats.X_TILED)
    plain = evolve(tiled, modifier=formats.LINEAR)
    rows = np.random.default_rng(13).integers(0, 256, (24, tiled.stride), np.uint8)
    # tiles of 8 rows of 512 bytes, one after the other
    memory = np.zeros(tiled.size, np.uint8)
    memory[: rows.size] = rows.reshape(3, 8, -1, 512).swapaxes(1, 2).reshape(-1)
    memory.flags.writeable = False
    raw = raw_view(rows.reshape(-1), 0, plain, plain.stride)
    assert is_decodable(tiled)
    np.testing.assert_array_equal(to_bgra(memory, tiled), to_bgra(raw, plain))
    np.testing.assert_array_equal(to_rgb(memory, tiled), to_rgb(raw, plain))


def test_the_modifier_is_named_before_the_format() -> None:
    """Where both are not ours the modifier is the reason: the format would not help."""
    surface = surface_of("C8", 64, 4, modifier=0x0100_0000_0000_0004)
    with pytest.raises(UnsupportedModifier, match="I915_Y_TILED_CCS"):
        check_decodable(surface)


def test_channels_change_places() -> None:
    """R, G, B and R, G, B, A are picked from B, G, R, A, whatever the order of the bytes in memory."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for source in (pixels, pixels[::-1], pixels[:, ::-1], pixels[..., ::-1], np.asfortranarray(pixels)):
        assert bgra_to_rgb(source).tolist() == source[..., [2, 1, 0]].tolist()
        assert bgra_to_rgba(source).tolist() == source[..., [2, 1, 0, 3]].tolist()


@pytest.mark.parametrize("code", ["XR24", "NV12"])
def test_a_matrix_that_does_not_exist_is_a_mistake_of_the_caller(code: str) -> None:
    """It is a ValueError that says which there are, for RGB too."""
    surface = surface_of(code, 4, 4)
    raw = raw_view(np.zeros(surface.needed, np.uint8), 0, surface, surface.stride)
    for convert in (to_bgra, to_rgb):
        with pytest.raises(ValueError, match="bt601, bt709"):
            convert(raw, surface, matrix="bt2020")  # type: ignore[arg-type]
