from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import BadSurface, UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import FORMATS, LINEAR, X_TILED, Y_TILED, YF_TILED, fourcc
from mdevdisplay.pixels.tiling import can_straighten, is_tiled, tile_of, to_linear
from mdevdisplay.surface import SurfaceInfo
from pixels.gmmlib import Gmmlib

Bytes = npt.NDArray[np.uint8]

# what Intel's library calls the tiles of a modifier, by the bytes of a pixel
LAYOUTS = {
    X_TILED: dict.fromkeys((1, 2, 3, 4), "INTEL_TILE_X"),
    Y_TILED: dict.fromkeys((1, 2, 3, 4), "INTEL_TILE_Y"),
    YF_TILED: {1: "INTEL_TILE_YF_8", 2: "INTEL_TILE_YF_16", 4: "INTEL_TILE_YF_32"},
}
PIXEL_BYTES = {"C8": 1, "RG16": 2, "YUYV": 2, "UYVY": 2, "YVYU": 2, "VYUY": 2, "RG24": 3, "XR24": 4, "AR24": 4}
PIXEL_BYTES |= {"XB24": 4, "AB24": 4, "XR30": 4, "XB30": 4}
CASES = [(code, modifier) for code, size in PIXEL_BYTES.items() for modifier in LAYOUTS if size in LAYOUTS[modifier]]


def surface_of(code: str, modifier: int, width: int, height: int, more_tiles: int = 0) -> SurfaceInfo:
    """A surface of whole tiles; ``more_tiles`` of them stand to the right of the picture in each row."""
    layout = FORMATS[fourcc(code)]
    step = 512 if modifier == X_TILED else 128  # what a stride is a multiple of
    stride = (-(-layout.minimum_stride(width) // step) + more_tiles) * step
    return SurfaceInfo(
        fourcc=fourcc(code),
        modifier=modifier,
        width=width,
        height=height,
        stride=stride,
        size=stride * (-(-height // 64) * 64),
    )


def row_bytes(surface: SurfaceInfo) -> int:
    """The bytes of a row of pixels."""
    layout = surface.format
    assert layout is not None
    return layout.minimum_stride(surface.width)


def noise(size: int, seed: int = 0) -> Bytes:
    """Random bytes that begin at a multiple of 16 bytes."""
    buffer = np.random.default_rng(seed).integers(0, 256, size + 16, dtype=np.uint8)
    start = -buffer.ctypes.data % 16
    return buffer[start : start + size]


def places(surface: SurfaceInfo) -> npt.NDArray[np.int64]:
    """For each byte of the picture, (rows, bytes), where in memory it came from."""
    number = np.arange(surface.size)
    found = np.zeros((surface.height, row_bytes(surface)), np.int64)
    for shift in (0, 8, 16, 24):
        found |= to_linear((number >> shift & 255).astype(np.uint8), surface).astype(np.int64) << shift
    return found


@pytest.fixture(scope="module")
def gmmlib(tmp_path_factory: pytest.TempPathFactory) -> Gmmlib:
    return Gmmlib(tmp_path_factory.mktemp("gmmlib"))


def _surface(case: tuple[str, int], width: int, height: int, more_tiles: int) -> SurfaceInfo:
    return surface_of(*case, width, height, more_tiles)


surfaces = st.builds(_surface, st.sampled_from(CASES), st.integers(1, 1100), st.integers(1, 200), st.integers(0, 3))


class TestAgainstIntelsLibrary:
    """What Intel's own code draws into tiles comes out as it was."""

    def check(self, gmmlib: Gmmlib, code: str, surface: SurfaceInfo, seed: int) -> None:
        picture = noise(surface.height * row_bytes(surface), seed).reshape(surface.height, -1)
        memory = noise(surface.size, seed + 1)  # what is not drawn is not black either
        gmmlib.to_tiles(picture, memory, surface.stride, LAYOUTS[surface.modifier][PIXEL_BYTES[code]])
        memory.flags.writeable = False
        assert can_straighten(surface)
        assert np.array_equal(to_linear(memory, surface), picture)

    @given(data=st.data())
    def test_any_format_width_height_and_stride(self, gmmlib: Gmmlib, data: st.DataObject) -> None:
        surface = data.draw(surfaces)
        code = next(code for code in PIXEL_BYTES if fourcc(code) == surface.fourcc)
        self.check(gmmlib, code, surface, data.draw(st.integers(0, 1000)))

    @pytest.mark.parametrize("modifier", LAYOUTS)
    @pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1366, 768), (3840, 2160), (800, 600), (1, 1)])
    def test_screens(self, gmmlib: Gmmlib, modifier: int, width: int, height: int) -> None:
        self.check(gmmlib, "XR24", surface_of("XR24", modifier, width, height), 1)

    @pytest.mark.parametrize(("code", "modifier"), CASES)
    def test_every_format_in_every_tile_that_it_has(self, gmmlib: Gmmlib, code: str, modifier: int) -> None:
        self.check(gmmlib, code, surface_of(code, modifier, 333, 77, more_tiles=1), 2)

    def test_every_format_that_we_know_is_among_them(self) -> None:
        """A format that is added to the table is added here, or is one of those that are never tiled."""
        assert {fourcc(code) for code in PIXEL_BYTES} == {code for code, layout in FORMATS.items() if not layout.chroma}


class TestTileByTile:
    """Tiles follow each other from left to right, then down, and each holds its rectangle and no other byte."""

    @pytest.mark.parametrize(("code", "modifier"), CASES)
    def test_each_tile_is_a_bijection_with_its_rectangle(self, code: str, modifier: int) -> None:
        tile = tile_of(surface_of(code, modifier, 1, 1))
        across, down = 6, 3
        surface = surface_of(code, modifier, across * tile.width // PIXEL_BYTES[code], down * tile.height)
        assert surface.stride == row_bytes(surface) == across * tile.width
        came_from = places(surface)
        assert came_from.shape == (down * tile.height, across * tile.width)
        for row in range(down):
            for column in range(across):
                rectangle = came_from[row * tile.height :, column * tile.width :][: tile.height, : tile.width]
                first = (row * across + column) * 4096
                assert np.array_equal(np.sort(rectangle, axis=None), np.arange(first, first + 4096))

    def test_where_single_bytes_lie(self) -> None:
        """X: rows of 512 bytes. Y: 16 bytes of each of 32 rows. Yf: 16 bytes of 8 rows, then 8 more to the right."""
        x, y, yf = (places(surface_of("XR24", modifier, 256, 64)) for modifier in LAYOUTS)
        assert (x[0, 0], x[0, 511], x[1, 0], x[0, 512], x[8, 0]) == (0, 511, 512, 4096, 8192)
        assert (y[0, 15], y[1, 0], y[31, 0], y[0, 16], y[0, 128], y[32, 0]) == (15, 16, 496, 512, 4096, 32768)
        assert (yf[1, 0], yf[7, 0], yf[0, 16], yf[8, 0], yf[0, 32], yf[16, 0]) == (16, 112, 128, 256, 512, 1024)
        assert (yf[0, 64], yf[0, 128], yf[32, 0]) == (2048, 4096, 32768)


class TestRows:
    """Some of the rows are the same as in the whole picture."""

    @given(surface=surfaces, seed=st.integers(0, 1000))
    def test_band_by_band_equals_the_whole(self, surface: SurfaceInfo, seed: int) -> None:
        memory = noise(surface.size, seed)
        whole = to_linear(memory, surface)
        target = np.zeros_like(whole)
        for first in range(0, surface.height, 64):
            band = target[first : first + 64]
            assert to_linear(memory, surface, first_row=first, rows=len(band), out=band) is band
        assert np.array_equal(target, whole)

    @given(surface=surfaces, data=st.data())
    def test_any_rows_that_begin_at_a_tile(self, surface: SurfaceInfo, data: st.DataObject) -> None:
        """They need the memory of their own tiles and no more."""
        height = tile_of(surface).height
        first = height * data.draw(st.integers(0, (surface.height - 1) // height))
        rows = data.draw(st.integers(1, surface.height - first))
        memory = noise(surface.size)
        tiles_end = -(-(first + rows) // height) * height * surface.stride
        some = to_linear(memory[:tiles_end], surface, first_row=first, rows=rows)
        assert np.array_equal(some, to_linear(memory, surface)[first : first + rows])
        with pytest.raises(BadSurface):
            to_linear(memory[: tiles_end - 1], surface, first_row=first, rows=rows)

    @pytest.mark.parametrize(("first", "rows"), [(8, 8), (-32, 32), (32, 0), (0, 101), (96, 5), (128, None), (32, -1)])
    def test_rows_that_are_not_there_or_begin_inside_a_tile(self, first: int, rows: int | None) -> None:
        surface = surface_of("XR24", Y_TILED, 40, 100)
        with pytest.raises(ValueError, match=r"of 100 do not begin at a multiple of 32 or are not in the picture"):
            to_linear(noise(surface.size), surface, first_row=first, rows=rows)


class TestOut:
    """The result can be written to memory of the caller's."""

    @given(surface=surfaces, padding=st.integers(0, 40), shift=st.integers(0, 17))
    def test_rows_with_padding_at_any_address(self, surface: SurfaceInfo, padding: int, shift: int) -> None:
        """Between the rows nothing is written; neither memory needs an alignment."""
        memory = noise(surface.size + shift)[shift:]
        width = row_bytes(surface)
        buffer = np.full(shift + surface.height * (width + padding), 77, np.uint8)
        padded = buffer[shift:].reshape(surface.height, width + padding)
        out = padded[:, :width]
        assert to_linear(memory, surface, out=out) is out
        assert np.array_equal(out, to_linear(noise(surface.size + shift)[shift:], surface))
        assert (padded[:, width:] == 77).all()
        assert (buffer[:shift] == 77).all()

    @pytest.mark.parametrize(
        "out",
        [
            np.empty((9, 40), np.uint8),
            np.empty((10, 39), np.uint8),
            np.empty((10, 40), np.int8),
            np.empty((10, 80), np.uint8)[:, ::2],
            np.empty(400, np.uint8),
        ],
    )
    def test_other_shapes_are_refused(self, out: npt.NDArray[np.uint8]) -> None:
        surface = surface_of("XR24", X_TILED, 10, 10)
        with pytest.raises(ValueError, match="10 contiguous rows of 40 bytes are needed"):
            to_linear(noise(surface.size), surface, out=out)


class TestRefusals:
    """What cannot be straightened is refused by name."""

    def test_only_plain_intel_tiles_are_known(self) -> None:
        """Not the compressed ones (4 to 8), Tile 4 (9) and those of other vendors."""
        intel = [modifier for modifier in range(1 << 56, (1 << 56) + 40) if is_tiled(modifier)]
        assert intel == [X_TILED, Y_TILED, YF_TILED]
        assert not any(is_tiled(vendor << 56 | number) for vendor in (0, *range(2, 256)) for number in range(40))
        assert not is_tiled(LINEAR)

    @pytest.mark.parametrize(
        ("modifier", "name"),
        [(LINEAR, "LINEAR"), ((1 << 56) + 4, "I915_Y_TILED_CCS"), (2 << 56 | 9, "AMD:0x0200000000000009")],
    )
    def test_other_layouts(self, modifier: int, name: str) -> None:
        surface = SurfaceInfo(fourcc=fourcc("XR24"), modifier=modifier, width=8, height=8, stride=512, size=4096)
        assert not can_straighten(surface)
        with pytest.raises(ValueError, match=f"{name} is not a tiling"):
            to_linear(noise(4096), surface)

    def test_a_format_of_unknown_size(self) -> None:
        surface = SurfaceInfo(fourcc=fourcc("XB4H"), modifier=Y_TILED, width=8, height=8, stride=128, size=4096)
        assert not can_straighten(surface)
        with pytest.raises(
            UnsupportedFormat, match=r"^mdev:a: the plane is XB4H 8x8 .*I915_Y_TILED.*unknown size.*GPU"
        ):
            to_linear(noise(4096), surface, device="mdev:a")

    @pytest.mark.parametrize(("code", "name"), [("NV12", "NV12"), ("P010", "P010")])
    @pytest.mark.parametrize("modifier", LAYOUTS)
    def test_a_chroma_plane(self, code: str, name: str, modifier: int) -> None:
        surface = SurfaceInfo(fourcc=fourcc(code), modifier=modifier, width=8, height=8, stride=512, size=512 * 64)
        assert not can_straighten(surface)
        with pytest.raises(UnsupportedModifier, match=rf"^mdev:a: .*{name} laid out as I915_.*chroma plane.*GPU"):
            to_linear(noise(surface.size), surface, device="mdev:a")

    def test_yf_tiles_of_three_byte_pixels(self) -> None:
        surface = surface_of("RG24", YF_TILED, 8, 8)
        assert not can_straighten(surface)
        with pytest.raises(
            UnsupportedModifier, match=r"RGB888 laid out as I915_Yf_TILED \(0x01.*no tile for 3-byte pixels"
        ):
            to_linear(noise(surface.size), surface)

    def test_a_buffer_that_is_one_byte_short(self) -> None:
        surface = attrs.evolve(surface_of("XR24", X_TILED, 128, 9), size=512 * 16)
        with pytest.raises(
            BadSurface, match=r"^mdev:a: .*9 rows in tiles of 512 bytes by 8 rows take 8192 .*are 8191 "
        ):
            to_linear(noise(8191), surface, device="mdev:a")

    def test_yf_tiles_of_bytes_are_64_rows_high(self) -> None:
        """A driver that rounds the height up to 32 rows, as GVT-g does, leaves half of the last tiles out."""
        surface = SurfaceInfo(fourcc=fourcc("C8"), modifier=YF_TILED, width=128, height=96, stride=128, size=128 * 96)
        assert not can_straighten(surface)
        with pytest.raises(BadSurface, match=r"64 bytes by 64 rows take 16384 bytes, and there are 12288"):
            to_linear(noise(surface.size), surface)
        assert to_linear(noise(surface.size), surface, rows=64).shape == (64, 128)
