"""What the simulated display shows: the same picture in every format and layout, and a counter that can be read."""

from __future__ import annotations

from pathlib import Path

import mmap_ninja.numpy
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_display import Bytes, decoded, dmabuf_bytes, luma_of, opened, region_bytes, shown

from mdevdisplay.errors import LocatorError
from mdevdisplay.formats import FORMATS, fourcc_name
from mdevdisplay.surface import PlaneType
from mdevdisplay_simulated import read_counter
from mdevdisplay_simulated.picture import Area, BarsPicture

CODES = [fourcc_name(code) for code in FORMATS]
TILINGS = ["LINEAR", "X_TILED", "Y_TILED", "Yf_TILED"]
Levels = npt.NDArray[np.float64]


def channels_of(locator: str) -> dict[str, Levels]:
    with opened(locator) as source:
        surface = shown(source)
        return decoded(region_bytes(source, surface), surface)


def raw(locator: str, queries: int = 1) -> Bytes:
    """Return the memory after so many queries."""
    with opened(locator) as source:
        for _ in range(queries):
            surface = shown(source)
        return region_bytes(source, surface)


def rgb(locator: str) -> Levels:
    channels = channels_of(locator)
    return np.stack([channels[name] for name in "rgb"], axis=-1)


def paired(values: Levels, rows: int) -> Levels:
    """Return means over 2 pixels a row and so many rows; an odd edge stands for two."""
    padded = np.pad(values, ((0, values.shape[0] % rows), (0, values.shape[1] % 2)), mode="edge")
    means: Levels = padded.reshape(padded.shape[0] // rows, rows, -1, 2).mean(axis=(1, 3))
    return means


# 4:2:0 with odd edges, tiles that end outside the picture, one pixel
SIZES = ["320x200", "131x77", "64x64", "5x3", "1x1"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", CODES)
def test_every_format_shows_the_same_picture(code: str, size: str) -> None:
    """Each pixel is the nearest that the format has, seen with decoders that share nothing with the encoders."""
    where = f"sim:{size},fps=0,frame=77,seed=5"
    truth = rgb(f"{where},format=XR24")
    red, green, blue = truth[..., 0], truth[..., 1], truth[..., 2]
    seen = channels_of(f"{where},format={code}")
    if "r" in seen:
        half_a_step = {"RG16": (255 / 62, 255 / 126, 255 / 62), "XR30": (255 / 2046,) * 3, "XB30": (255 / 2046,) * 3}
        for name, expected, tolerance in zip("rgb", (red, green, blue), half_a_step.get(code, (0, 0, 0)), strict=True):
            assert np.abs(seen[name] - expected).max() <= tolerance + 1e-9, name
        assert np.all(seen.get("a", 0) == (255 if code.startswith("A") else 0))
        assert np.all(seen.get("x", 0) == 0)
        return
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    if code == "C8":
        assert np.abs(seen["grey"] - grey).max() <= 0.51
        return
    step = 0.25 if code == "P010" else 1
    rows = 2 if code in ("NV12", "P010") else 1
    assert np.abs(seen["y"] - (16 + grey * 219 / 255)).max() <= 0.51 * step
    for name, colour, share in (("cb", blue, 1 - 0.114), ("cr", red, 1 - 0.299)):
        expected = paired(128 + (colour - grey) / 2 / share * 224 / 255, rows)
        assert np.abs(seen[name] - expected).max() <= 0.51 * step, name


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("code", CODES)
def test_every_layout_holds_the_same_bytes(code: str, tiling: str) -> None:
    """Tiled memory holds the same picture, and a wider stride leaves it alone."""
    plain = channels_of(f"sim:150x90,fps=0,format={code}")
    for option in ("", ",stride=2048"):
        tiled = channels_of(f"sim:150x90,fps=0,format={code},modifier={tiling}{option}")
        assert all(np.array_equal(plain[name], tiled[name]) for name in plain)


@pytest.mark.parametrize("tiling", ["LINEAR", "X_TILED", "Yf_TILED"])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("buffers", [1, 3])
def test_drawing_only_what_moved_leaves_nothing_behind(code: str, tiling: str, buffers: int) -> None:
    """After 40 frames the memory is what it would be if the last frame had been drawn alone."""
    where = f"sim:165x101,format={code},modifier={tiling},buffers={buffers}"
    moved = raw(f"{where},step=1", queries=41)
    assert np.array_equal(moved, raw(f"{where},fps=0,frame=40"))
    assert not np.array_equal(moved, raw(f"{where},fps=0,frame=39"))


@pytest.mark.parametrize("via", ["both", "dmabuf", "region"])
def test_every_way_gives_the_same_bytes(via: str) -> None:
    """The region and the dma-buf are the same memory."""
    truth = raw("sim:100x70,fps=0")
    with opened(f"sim:100x70,fps=0,via={via}") as source:
        surface = shown(source)
        if via != "region":
            assert np.array_equal(dmabuf_bytes(source, surface), truth)
        if via != "dmabuf":
            assert np.array_equal(region_bytes(source, surface), truth)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("size", ["64x64", "71x64", "72x65", "192x100", "321x201", "1366x768"])
def test_the_counter_can_be_read_in_every_format(code: str, size: str) -> None:
    """All 32 bits of the frame number come out of every format."""
    for frame in (0, 1, 0x5A5A5A5A, 0xFFFFFFFF):
        channels = channels_of(f"sim:{size},fps=0,frame={frame},format={code}")
        assert read_counter(luma_of(channels)) == frame


def test_the_counter_can_be_read_from_any_array() -> None:
    """The order of colours, an alpha channel, wider numbers and a single channel make no difference."""
    pixels = rgb("sim:200x120,fps=0,frame=1234")
    four = np.concatenate([pixels[..., ::-1], np.full((120, 200, 1), 255)], axis=-1)
    for array in (pixels, four, four.astype(np.uint8), (pixels * 257).astype(np.uint16), pixels[..., 1]):
        assert read_counter(array) == 1234


def test_a_picture_without_a_counter_is_refused() -> None:
    """Too small, black, or damaged: read_counter says so rather than invent a number."""
    with pytest.raises(ValueError, match="63x64"):
        read_counter(rgb("sim:63x64,fps=0"))
    with pytest.raises(ValueError, match="marker"):
        read_counter(rgb("sim:64x64,fps=0,fault=all-black"))
    pixels = rgb("sim:640x480,fps=0,frame=1")
    strip = pixels[-20:, 60:120]
    strip[:] = 255 - strip
    with pytest.raises(ValueError, match="CRC"):
        read_counter(pixels)


def test_a_frame_depends_on_size_seed_and_number_alone() -> None:
    """The same again is the same, any difference in them is another picture."""
    truth = raw("sim:160x120,fps=0,frame=3,seed=4")
    for same in ("fps=0,frame=3,seed=4", "step=1,frame=3,seed=4,buffers=2,cursor=on,via=region"):
        assert np.array_equal(raw(f"sim:160x120,{same}"), truth)
    for other in ("sim:160x120,fps=0,frame=4,seed=4", "sim:160x120,fps=0,frame=3,seed=5"):
        assert not np.array_equal(raw(other), truth)


@given(width=st.integers(1, 700), height=st.integers(1, 500), frame=st.integers(0, 1 << 40), data=st.data())
def test_any_part_can_be_drawn_alone(width: int, height: int, frame: int, data: st.DataObject) -> None:
    """A part of the picture is that part of the whole, at every size, and what moves lies inside."""
    picture = BarsPicture(width, height, seed=frame % 7)
    whole = picture.render(Area(0, 0, width, height), frame)
    assert np.all(whole >> 24 == 255)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    part = picture.render(Area(left, top, right, bottom), frame)
    assert np.array_equal(part, whole[top:bottom, left:right])
    after = picture.render(Area(0, 0, width, height), frame + 1)
    after_areas = picture.moving(frame + 1)
    for area in (*picture.moving(frame), *after_areas):
        assert area.left >= 0
        assert area.top >= 0
        whole[area.top : area.bottom, area.left : area.right] = 0
        after[area.top : area.bottom, area.left : area.right] = 0
    assert np.array_equal(whole, after)


@pytest.mark.parametrize("size", ["3x2", "40x30", "64x64", "320x200", "1920x1080"])
def test_two_frames_in_a_row_differ(size: str) -> None:
    """Something moves at every size that has room for it."""
    assert not np.array_equal(raw(f"sim:{size},fps=0,frame=0"), raw(f"sim:{size},fps=0,frame=1"))


def test_the_bars_are_those_of_a_test_card() -> None:
    """From left to right grey, yellow, cyan, green, magenta, red and blue, at three quarters."""
    pixels = rgb("sim:700x400,fps=0")
    expected = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)]
    columns = pixels[:200, 50::100]
    assert np.array_equal(np.median(columns, axis=0), np.array(expected) * 191)


def test_all_black_is_black_in_every_format() -> None:
    """The fault `all-black` reports a surface, and every pixel of it is black."""
    for code in CODES:
        channels = channels_of(f"sim:20x10,fault=all-black,format={code}")
        assert set(np.unique(luma_of(channels))) == {16.0 if "y" in channels else 0.0}


def test_the_pointers_tip_is_at_its_hot_spot() -> None:
    """The cursor is opaque at its hot spot, transparent in its corner, and black wherever it is in between."""
    with opened("sim:320x200,cursor=on,fps=0") as source:
        cursor = shown(source, PlaneType.CURSOR)
        channels = decoded(region_bytes(source, cursor), cursor)
    assert (cursor.width, cursor.height, cursor.modifier, fourcc_name(cursor.fourcc)) == (64, 64, 0, "AR24")
    assert (cursor.x_hot, cursor.y_hot) == (6, 4)
    alpha = channels["a"]
    assert (alpha[4, 6], alpha[0, 0]) == (255, 0)
    assert channels["r"].max() == 255
    assert not channels["r"][alpha < 255].any()


# clips


def frames_of(channels: int) -> Bytes:
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (3, 20, 30, channels), np.uint8)


def test_a_clip_of_ones_own_is_shown(tmp_path: Path) -> None:
    """Frames of B, G, R, A come out as they are, in their own size, one after the other and again."""
    frames = frames_of(4)
    mmap_ninja.numpy.from_ndarray(tmp_path / "a,b", frames)
    where = f"sim:clip={str(tmp_path / 'a,b').replace(',', ',,')},format=AR24,step=1"
    with opened(where) as source:
        for number in range(5):
            surface = shown(source)
            assert (surface.width, surface.height) == (30, 20)
            assert np.array_equal(region_bytes(source, surface).reshape(20, 30, 4), frames[number % 3])


def test_a_clip_may_be_rgb(tmp_path: Path) -> None:
    """Frames of R, G, B are shown in those colours, opaque."""
    frames = frames_of(3)
    mmap_ninja.numpy.from_ndarray(tmp_path, frames)
    assert np.array_equal(rgb(f"sim:clip={tmp_path},fps=0"), frames[0])
    assert np.all(channels_of(f"sim:clip={tmp_path},fps=0,format=AR24")["a"] == 255)


def test_a_clip_of_one_frame_stands_still(tmp_path: Path) -> None:
    """One frame is a clip too."""
    mmap_ninja.numpy.from_ndarray(tmp_path, frames_of(3)[:1])
    assert np.array_equal(raw(f"sim:clip={tmp_path},step=1", queries=9), raw(f"sim:clip={tmp_path}"))


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (np.zeros((2, 4, 4, 4), np.float32), "float32"),
        (np.zeros((2, 4, 4, 2), np.uint8), r"shape \(2, 4, 4, 2\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((1, 1, 16385, 3), np.uint8), "16385x1"),
    ],
)
def test_an_array_that_is_no_clip_is_refused(tmp_path: Path, frames: npt.NDArray[np.generic], what: str) -> None:
    """The error says what the directory holds, and how to make one that is right."""
    mmap_ninja.numpy.from_ndarray(tmp_path, frames)
    with pytest.raises(LocatorError, match=what) as caught, opened(f"sim:clip={tmp_path}"):
        pass
    assert "from_ndarray" in caught.value.hint


def test_a_missing_clip_is_refused_and_not_made(tmp_path: Path) -> None:
    """mmap-ninja makes a directory that it cannot find; a locator must not."""
    missing = tmp_path / "missing"
    with pytest.raises(LocatorError, match="no directory"), opened(f"sim:clip={missing}"):
        pass
    assert not missing.exists()
    with pytest.raises(LocatorError, match=r"data\.ninja"), opened(f"sim:clip={tmp_path}"):
        pass


def test_a_clip_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """A file that is shorter than its shape says must not become SIGBUS."""
    mmap_ninja.numpy.from_ndarray(tmp_path, frames_of(4))
    with (tmp_path / "data.ninja").open("r+b") as data:
        data.truncate(1000)
    with pytest.raises(LocatorError, match="cannot be opened"), opened(f"sim:clip={tmp_path}"):
        pass


def test_a_stride_that_is_too_small_for_a_clip_is_refused(tmp_path: Path) -> None:
    """The size is known only once the clip is open; the stride is checked then."""
    mmap_ninja.numpy.from_ndarray(tmp_path, frames_of(4))
    with pytest.raises(LocatorError, match="stride"), opened(f"sim:clip={tmp_path},stride=100"):
        pass
