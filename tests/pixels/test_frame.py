from __future__ import annotations

import io
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from mdevdisplay import Blank, Frame, FrameFlags, PlaneType, SurfaceInfo
from mdevdisplay.errors import UnsupportedFormat, VmGone
from mdevdisplay.formats import fourcc
from mdevdisplay.surface import Rect

Bytes = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 6, 4


def frame_of(code: str = "XR24", plane: PlaneType = PlaneType.PRIMARY, **options: object) -> Frame:
    """A frame of random bytes in a format of four bytes a pixel."""
    surface = SurfaceInfo(
        plane=plane, fourcc=fourcc(code), width=WIDTH, height=HEIGHT, stride=WIDTH * 4, size=WIDTH * HEIGHT * 4
    )
    raw = np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    raw.flags.writeable = False  # as a display's frames have it
    return Frame(raw, surface, **options)  # type: ignore[arg-type]


def test_pixels_are_made_once() -> None:
    """The second use of pixels costs nothing."""
    frame = frame_of()
    assert frame.pixels is frame.pixels


@pytest.mark.parametrize("code", ["XR24", "AR24", "AB24"])
def test_pixels_are_ours_to_draw_on(code: str) -> None:
    """What is drawn on them stays, shows in every use of the frame, and leaves the driver's own pixels alone."""
    frame = frame_of(code)
    frame.pixels[1, 2] = (10, 20, 30, 40)
    assert frame.pixels[1, 2].tolist() == [10, 20, 30, 40]
    assert frame.to_ndarray("rgb24")[1, 2].tolist() == [30, 20, 10]
    assert frame.raw.tobytes() == frame_of(code).raw.tobytes()
    assert not np.shares_memory(frame.pixels, frame.raw)


def test_drawing_on_the_pixels_leaves_raw_alone() -> None:
    """Also where the driver's own layout is B, G, R, A already."""
    raw = np.random.default_rng(6).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    frame = Frame(raw, frame_of("AR24").surface)
    before = raw.copy()
    assert np.array_equal(frame.pixels, before)
    frame.pixels[:] = 0
    assert np.array_equal(frame.raw, before)


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


def test_a_blank_says_why() -> None:
    """A plane that shows nothing has no error; a VM that is away has one, and its stable id."""
    assert Blank(serial=1, timestamp=0.0).error is None
    assert Blank(serial=1, timestamp=0.0).cause == ""
    gone = VmGone("the VM ended", device="vm:win10")
    blank = Blank(serial=1, timestamp=0.0, error=gone)
    assert blank.error is gone
    assert blank.cause == gone.cause == "vm-gone"
    assert not blank


def test_a_frame_alone_is_all_damage() -> None:
    """One that follows no other has changed everywhere: a rectangle of the whole picture, not of whole tiles."""
    frame = frame_of()
    assert frame.changed_tiles.tolist() == [[True]]
    assert frame.damage == (Rect(0, 0, WIDTH, HEIGHT),)


def test_the_same_picture_with_other_flags() -> None:
    """marked() adds flags and takes the damage away; what was made of the picture is not made again."""
    frame = frame_of(serial=5, flags=FrameFlags.TORN, device="sim:", timestamp=2.0)
    pixels = frame.pixels
    other = frame.marked(FrameFlags.STALE)
    assert other.flags == FrameFlags.TORN | FrameFlags.STALE
    assert other.damage == ()
    assert (other.serial, other.device, other.timestamp, other.surface) == (5, "sim:", 2.0, frame.surface)
    assert other.raw is frame.raw
    np.testing.assert_array_equal(other.pixels, pixels)
    assert frame.flags is FrameFlags.TORN
    assert frame.damage == (Rect(0, 0, WIDTH, HEIGHT),)


def test_the_same_picture_with_another_serial() -> None:
    """evolve() changes what it is told and nothing else."""
    frame = frame_of(serial=5, flags=FrameFlags.TORN, device="sim:", changed=np.zeros((1, 1), np.bool_))
    other = frame.evolve(serial=9)
    assert (other.serial, frame.serial) == (9, 5)
    assert (other.flags, other.device, other.damage) == (FrameFlags.TORN, "sim:", ())
    assert other.raw is frame.raw


def test_an_overlay_shows_in_every_use_and_not_in_raw() -> None:
    """The cursor is drawn over pixels, arrays and pictures, once; raw is the plane alone."""

    class Spot:
        drawn = 0

        def over(self, pixels: Bytes) -> Bytes:
            self.drawn += 1
            target = pixels.copy()
            target[0, 0] = (1, 2, 3, 255)
            return target

    spot = Spot()
    frame = frame_of("AR24", overlay=spot)
    assert frame.to_ndarray("rgb24")[0, 0].tolist() == [3, 2, 1]
    assert frame.pixels[0, 0].tolist() == [1, 2, 3, 255]
    assert frame.to_image().getpixel((0, 0)) == (3, 2, 1)
    np.testing.assert_array_equal(frame.pixels.reshape(-1, 4)[1:], frame_of("AR24").pixels.reshape(-1, 4)[1:])
    assert spot.drawn == 1
    assert frame.raw.tobytes() == frame_of("AR24").raw.tobytes()


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
    frame = frame_of("ACME", pixels=made)
    frame.pixels[0, 0] = 1
    assert (frame.pixels[0, 0] == 1).all()
    assert (made == 9).all()
    frame = frame.evolve(serial=2)
    assert (frame.to_ndarray("rgb24") == 9).all()
    assert (frame.to_ndarray("rgba") == 9).all()
    assert frame.raw.tobytes() == frame_of("ACME").raw.tobytes()


@pytest.mark.parametrize("code", ["ACME", "C8"])
def test_what_nobody_decodes_is_refused_by_name(code: str) -> None:
    """The refusal names the format and the device."""
    frame = frame_of(code, device="sim:")
    for use in (lambda: frame.pixels, frame.to_ndarray, frame.to_image, frame.to_png):
        with pytest.raises(UnsupportedFormat, match=code) as caught:
            use()
        assert caught.value.device == "sim:"
    assert frame.raw.size == HEIGHT * WIDTH * 4
