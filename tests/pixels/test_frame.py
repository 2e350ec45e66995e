from __future__ import annotations

import io
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from mdevdisplay import Blank, Frame, FrameFlags, PlaneType, SurfaceInfo
from mdevdisplay.errors import UnsupportedFormat
from mdevdisplay.formats import fourcc

Bytes = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 6, 4


def frame_of(code: str = "XR24", plane: PlaneType = PlaneType.PRIMARY, **options: object) -> Frame:
    """A frame of random bytes in a format of four bytes a pixel."""
    surface = SurfaceInfo(
        plane=plane, fourcc=fourcc(code), width=WIDTH, height=HEIGHT, stride=WIDTH * 4, size=WIDTH * HEIGHT * 4
    )
    raw = np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    return Frame(raw, surface, **options)  # type: ignore[arg-type]


def test_pixels_are_made_once() -> None:
    """The second use of pixels costs nothing."""
    frame = frame_of()
    assert frame.pixels is frame.pixels


def test_pixels_of_ar24_are_the_raw_ones() -> None:
    """What is B, G, R, A already is not copied."""
    frame = frame_of("AR24")
    assert frame.pixels is frame.raw


@pytest.mark.parametrize(
    ("name", "order"), [("bgra", [0, 1, 2, 3]), ("rgba", [2, 1, 0, 3]), ("bgr24", [0, 1, 2]), ("rgb24", [2, 1, 0])]
)
@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize("code", ["XR24", "AR24", "AB24"])
def test_arrays_in_every_order(name: str, order: list[int], code: str, seen_before: bool) -> None:
    """PyAV's names give the channels in that order, in new memory, whether pixels was used before or not."""
    frame = frame_of(code)
    expected = frame_of(code).pixels[..., order]
    if seen_before:
        assert frame.pixels.shape == (HEIGHT, WIDTH, 4)
    array = frame.to_ndarray(name)
    np.testing.assert_array_equal(array, expected)
    assert not np.shares_memory(array, frame.raw)
    assert not np.shares_memory(array, frame.pixels)
    assert array.flags.writeable


def test_rgb24_is_the_default() -> None:
    """As with PyAV's to_ndarray(format="rgb24")."""
    np.testing.assert_array_equal(frame_of().to_ndarray(), frame_of().to_ndarray("rgb24"))


def test_another_format_is_refused_with_those_there_are() -> None:
    """A misspelt format names the right ones."""
    with pytest.raises(ValueError, match="bgra, rgba, rgb24, bgr24"):
        frame_of().to_ndarray("rgb")


def test_a_screen_has_no_alpha() -> None:
    """Nothing lies behind a screen: its picture is RGB, also where its format has alpha."""
    image = frame_of("AR24").to_image()
    assert image.mode == "RGB"
    assert image.size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(np.asarray(image), frame_of("AR24").to_ndarray("rgb24"))


def test_a_cursor_keeps_its_alpha() -> None:
    """A cursor's picture is RGBA."""
    frame = frame_of("AR24", PlaneType.CURSOR)
    assert frame.to_image().mode == "RGBA"
    with PIL.Image.open(io.BytesIO(frame.to_png())) as image:
        np.testing.assert_array_equal(np.asarray(image), frame.to_ndarray("rgba"))


@pytest.mark.parametrize("name", ["shot.png", "shot.PNG", "shot", "shot.bmp", "shot.tiff", "shot.webp"])
def test_save_takes_the_kind_from_the_name(tmp_path: Path, name: str) -> None:
    """PNG and any other kind that Pillow writes, PNG where the name says nothing; str and Path alike."""
    frame = frame_of()
    target = tmp_path / name
    frame.save(str(target) if name.endswith("g") else target)
    with PIL.Image.open(target) as image:
        kind = target.suffix.lstrip(".").upper() or "PNG"
        assert image.format == kind
        if kind != "WEBP":
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frame.to_ndarray())


def test_save_refuses_what_nobody_writes(tmp_path: Path) -> None:
    """An ending that Pillow does not know is refused, and leaves nothing behind."""
    with pytest.raises(ValueError, match="xyz"):
        frame_of().save(tmp_path / "shot.xyz")
    assert not list(tmp_path.iterdir())


def test_a_blank_is_false_and_a_frame_is_true() -> None:
    """`if frame:` tells a picture from a moment without one."""
    assert not Blank(serial=1, timestamp=0.0)
    assert frame_of()


def test_a_blank_is_a_value() -> None:
    """Two blanks of the same moment are equal, and a blank cannot be changed."""
    blank = Blank(serial=1, timestamp=2.0)
    assert blank == Blank(serial=1, timestamp=2.0)
    with pytest.raises(AttributeError):
        blank.serial = 2  # type: ignore[misc]


def test_a_frame_says_what_it_is() -> None:
    """Its repr has serial, format and size, for whoever debugs a front end."""
    frame = frame_of(serial=12, flags=FrameFlags.TORN)
    text = repr(frame)
    assert "12" in text
    assert "XR24 6x4" in text
    assert "TORN" in text
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)


def test_flags_are_false_where_nothing_is_wrong() -> None:
    """`if frame.flags:` asks whether anything is wrong."""
    assert not frame_of().flags
    assert frame_of(flags=FrameFlags.TORN).flags


def test_frames_can_be_watched() -> None:
    """A cache may hold a frame weakly."""
    frame = frame_of()
    reference = weakref.ref(frame)
    assert reference() is frame
    del frame
    assert reference() is None


# a backend's own formats


def test_decoded_pixels_are_the_frames() -> None:
    """What a backend made of a format of its own is what every use of the frame shows; raw stays as it was."""
    made = np.full((HEIGHT, WIDTH, 4), 9, np.uint8)
    frame = frame_of("XR30", pixels=made)
    assert frame.pixels is made
    assert (frame.to_ndarray("rgb24") == 9).all()
    assert (frame.to_ndarray("rgba") == 9).all()
    assert frame.raw.tobytes() == frame_of("XR30").raw.tobytes()


def test_what_nobody_decodes_is_refused_by_name() -> None:
    """The refusal names the format and the device."""
    frame = frame_of("XR30", device="sim:")
    for use in (lambda: frame.pixels, frame.to_ndarray, frame.to_image, frame.to_png):
        with pytest.raises(UnsupportedFormat, match="XR30") as caught:
            use()
        assert caught.value.device == "sim:"
    assert frame.raw.size == HEIGHT * WIDTH * 4
