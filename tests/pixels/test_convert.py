from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay import formats
from mdevdisplay.errors import UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import FORMATS, fourcc, modifier_name
from mdevdisplay.pixels.convert import bgra_to_rgb, bgra_to_rgba, check_decodable, is_decodable, to_bgra, to_rgb
from mdevdisplay.pixels.layout import Raw, raw_view
from mdevdisplay.surface import SurfaceInfo

Bytes = npt.NDArray[np.uint8]

CONVERTED = ("XR24", "AR24", "XB24", "AB24", "RG24", "RG16")
REFUSED = sorted(entry.code for entry in FORMATS.values() if entry.code not in CONVERTED)
MODIFIERS = [
    formats.INVALID,
    formats.X_TILED,
    formats.Y_TILED,
    formats.YF_TILED,
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


def surface_of(code: str, width: int, height: int, *, padding: int = 0, modifier: int = 0) -> SurfaceInfo:
    layout = FORMATS[fourcc(code)]
    tile = formats.tiling(modifier)
    stride = layout.minimum_stride(width) + padding * int(layout.dtype[1])
    if tile is not None:
        stride = -(-stride // tile.width) * tile.width
    size = stride * (layout.rows(height) + 64)
    return SurfaceInfo(fourcc=layout.fourcc, modifier=modifier, width=width, height=height, stride=stride, size=size)


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


@st.composite
def pictures(draw: st.DrawFn) -> tuple[SurfaceInfo, Bytes, int, Raw]:
    """A surface of any converted format in random bytes: rows padded, not at the start of the memory."""
    code = draw(st.sampled_from(CONVERTED))
    width, height = draw(st.integers(1, 19)), draw(st.integers(1, 9))
    surface = surface_of(code, width, height, padding=draw(st.integers(0, 9)))
    start = draw(st.integers(0, 5)) * int(FORMATS[surface.fourcc].dtype[1])
    seed = draw(st.integers(0, 2**32 - 1))
    data = np.random.default_rng(seed).integers(0, 256, start + surface.needed, np.uint8)
    return surface, data, start, raw_view(data, start, surface, surface.stride)


@given(pictures())
def test_every_format_is_what_the_kernels_header_says(picture: tuple[SurfaceInfo, Bytes, int, Raw]) -> None:
    """Eight-bit channels come out exactly, RGB565 correctly rounded, X bytes as 255, whatever stride and start."""
    surface, data, start, raw = picture
    expected = by_the_header(data.tobytes(), surface, start)
    np.testing.assert_array_equal(to_bgra(raw, surface), expected)
    np.testing.assert_array_equal(to_rgb(raw, surface), expected[..., 2::-1])


@given(pictures())
def test_every_format_is_what_pillow_makes_of_it(picture: tuple[SurfaceInfo, Bytes, int, Raw]) -> None:
    """Pillow's raw decoders, which know strides too, give the same; they cut RGB565 off where we round."""
    surface, data, start, raw = picture
    code = formats.fourcc_name(surface.fourcc)
    mode, raw_mode = PILLOW[code]
    padded = data[start:].tobytes().ljust(surface.stride * surface.height, b"\0")
    image = PIL.Image.frombytes(mode, (surface.width, surface.height), padded, "raw", raw_mode, surface.stride, 1)
    expected = np.asarray(image.convert("RGBA"), np.int16)[..., [2, 1, 0, 3]]
    difference = np.abs(to_bgra(raw, surface).astype(np.int16) - expected)
    assert difference.max() <= (1 if code == "RG16" else 0)


@pytest.mark.parametrize("code", CONVERTED)
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


@pytest.mark.parametrize("code", REFUSED)
def test_other_formats_are_refused_by_name(code: str) -> None:
    """A format that we know and do not convert is refused by both of its names, with what to do."""
    surface = surface_of(code, 8, 4)
    assert not is_decodable(surface)
    raw = raw_view(np.zeros(surface.size, np.uint8), 0, surface, surface.stride)
    for convert in (to_bgra, to_rgb):
        with pytest.raises(UnsupportedFormat) as caught:
            convert(raw, surface, "sim:8x4")
        assert f"{code} ({FORMATS[surface.fourcc].name})" in caught.value.message
        assert caught.value.device == "sim:8x4"
        assert caught.value.hint
        assert caught.value.cause == "unsupported-format"


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


def test_the_modifier_is_named_before_the_format() -> None:
    """Where both are not ours the modifier is the reason: the format would not help."""
    surface = surface_of("NV12", 64, 4, modifier=formats.Y_TILED)
    with pytest.raises(UnsupportedModifier, match="I915_Y_TILED"):
        check_decodable(surface)


def test_channels_change_places() -> None:
    """R, G, B and R, G, B, A are picked from B, G, R, A."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert bgra_to_rgb(pixels).tolist() == pixels[..., [2, 1, 0]].tolist()
    assert bgra_to_rgba(pixels).tolist() == pixels[..., [2, 1, 0, 3]].tolist()
