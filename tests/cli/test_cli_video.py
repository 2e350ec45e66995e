"""Frames of video as bytes, and when each is due."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from gate import Gate
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.cli.beat import MOST_LATE, Beat
from mdevdisplay.cli.film import MOST_NOTES, Film, Timing, write_changes, write_steadily
from mdevdisplay.cli.sink import ReaderGone, Sink
from mdevdisplay.cli.video import Encoder, fit, ppm_image, y4m_frame, y4m_header
from mdevdisplay.errors import DeviceGone, MdevDisplayError, UnsupportedFormat
from mdevdisplay.formats import fourcc
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.stream import FrameStream
from mdevdisplay.surface import PlaneType, SurfaceInfo

RATES = st.fractions(Fraction(1, 10), 240, max_denominator=1001)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def frame_of(width: int, height: int, serial: int = 1, *, value: int = 0, code: str = "XR24") -> Frame:
    """Return a frame of one colour, which was taken now."""
    surface = SurfaceInfo(
        plane=PlaneType.PRIMARY,
        fourcc=fourcc(code),
        modifier=0,
        width=width,
        height=height,
        stride=width * 4,
        size=width * height * 4,
    )
    raw = np.full((height, width, 4), value, np.uint8)
    return Frame(raw, surface, serial=serial, timestamp=time.monotonic())


# pixels


@given(SIZES, SIZES, st.sampled_from([3, 4]))
def test_a_picture_is_cropped_or_padded_at_the_right_and_below(
    old: tuple[int, int], new: tuple[int, int], channels: int
) -> None:
    """What both sizes have is the picture, the rest is opaque black."""
    pixels = np.random.default_rng(1).integers(1, 256, (old[1], old[0], channels), np.uint8)
    fitted = fit(pixels, new)
    assert fitted.shape == (new[1], new[0], channels)
    width, height = min(old[0], new[0]), min(old[1], new[1])
    assert np.array_equal(fitted[:height, :width], pixels[:height, :width])
    for rest in (fitted[height:], fitted[:, width:]):
        assert (rest == [0, 0, 0, 255][:channels]).all()


@given(SIZES)
def test_a_ppm_is_what_pillow_reads(size: tuple[int, int]) -> None:
    """Every pixel of it, and not a byte more."""
    rgb = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = io.BytesIO(ppm_image(rgb))
    with PIL.Image.open(data) as image:
        assert np.array_equal(np.asarray(image), rgb)
    assert data.read() == b""


@given(SIZES)
def test_a_frame_of_y4m_has_three_whole_planes(size: tuple[int, int]) -> None:
    """4:4:4 in full range: the equations of JPEG, rounded down."""
    rgb = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = y4m_frame(rgb)
    assert data.startswith(b"FRAME\n")
    planes = np.frombuffer(data, np.uint8, offset=6).reshape(3, size[1], size[0]).astype(float)
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = [luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402]
    assert np.abs(planes - np.clip(expected, 0, 255)).max() < 1.5


def test_the_header_of_y4m_is_exact() -> None:
    """Size, rate as a fraction, progressive, square pixels, 4:4:4 in full range."""
    header = y4m_header((640, 480), Fraction(30000, 1001))
    assert header == b"YUV4MPEG2 W640 H480 F30000:1001 Ip A1:1 C444 XCOLORRANGE=FULL\n"


def test_black_before_the_first_picture_has_no_size() -> None:
    """Nor has a stream of one size that does not know it: both are errors, not guesses."""
    with pytest.raises(ValueError, match="before the first picture"):
        Encoder("ppm", Fraction(30), None).encode(None, 1)
    with pytest.raises(ValueError, match="one size"):
        Encoder("y4m", Fraction(30), None).begin()


def test_a_picture_that_comes_again_is_the_same_bytes() -> None:
    """By its number, so that nothing is converted twice; what cannot be converted is refused every time."""
    encoder = Encoder("ppm", Fraction(30), None)
    first = encoder.encode(frame_of(4, 2, 1, value=9), 1)
    assert encoder.encode(frame_of(4, 2, 1, value=9), 1) is first
    assert encoder.encode(None, 2) == b"P6\n4 2\n255\n" + bytes(24)
    for _ in range(2):
        with pytest.raises(UnsupportedFormat):
            encoder.encode(frame_of(4, 2, 3, code="C8"), 3)
    assert encoder.encode(frame_of(4, 2, 2, value=9), 2) == first


# time


@given(RATES, st.floats(0, 1e6), st.integers(1, 500))
def test_frames_are_due_at_a_constant_rate(rate: Fraction, first: float, count: int) -> None:
    """Frame N is due N / rate after the first moment and half a frame at most, whatever N is: nothing adds up."""
    beat = Beat(rate, first)
    for _ in range(count):
        beat.written(beat.due)
    assert beat.count == count
    assert beat.left_out == 0
    late = beat.due - first - count / float(rate)
    assert -1e-6 <= late <= min(0.02, 0.5 / float(rate)) + 1e-6


@given(RATES, st.lists(st.floats(0, 60), max_size=30))
def test_what_is_late_is_made_up_for_within_bounds(rate: Fraction, delays: list[float]) -> None:
    """After any delay the next frame is at most the bound late; frames and those left out add up to the time."""
    beat = Beat(rate, 0.0)
    now = 0.0
    for written, delay in enumerate(delays, start=1):
        now = max(now, beat.due) + delay
        before = beat.left_out
        beat.written(now)
        assert beat.due >= now - MOST_LATE - 1e-6
        assert beat.count == written + beat.left_out
        if beat.left_out > before:  # never more than needed
            assert beat.due <= now - MOST_LATE + float(1 / rate) + 1e-6


# looking and writing


class Pipe:
    """A pipe with somebody who reads all of it."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self._data = b""
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        with open(reader, "rb") as file:
            self._data = file.read()

    def read(self) -> bytes:
        os.close(self.writer)
        self._thread.join(30)
        return self._data


@pytest.fixture
def event() -> Iterator[int]:
    """A descriptor that is readable after Ctrl-C: never, here."""
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def test_a_driver_that_hangs_does_not_stop_the_video(gate: Gate, event: int) -> None:
    """The last picture is written again while a look takes as long as it takes."""
    pipe = Pipe()
    first = frame_of(2, 1)

    def look(last: Frame | Blank | None) -> Frame | Blank:
        gate()
        return last or first

    film = Film("sim:", Encoder("raw", Fraction(200), (2, 1)), Sink(pipe.writer), 20)
    with FrameStream(look, 200, repeat=True) as stream:
        write_steadily(stream, film, first, Timing(rate=Fraction(200), seconds=None), (event, pipe.writer))
        assert stream.statistics.looks == 0  # it hangs still
        gate.open()
    assert pipe.read() == first.pixels.tobytes() * 20


def test_pictures_between_two_frames_are_left_out(event: int) -> None:
    """Each frame shows the newest picture of its moment."""
    pipe = Pipe()
    serial = 0

    def look(_: Frame | Blank | None) -> Frame | Blank:
        nonlocal serial
        serial += 1
        return frame_of(1, 1, serial, value=min(serial, 255))

    film = Film("sim:", Encoder("raw", Fraction(10), (1, 1)), Sink(pipe.writer), 4)
    with FrameStream(look, 200, repeat=True) as stream:
        write_steadily(stream, film, frame_of(1, 1, 0), Timing(rate=Fraction(10), seconds=None), (event, pipe.writer))
        looks = stream.statistics.looks
    shown = list(pipe.read()[::4])
    assert len(shown) == 4
    assert shown == sorted(shown)
    assert shown[0] == 0
    assert looks > 4 or shown[3] == 0  # unless this machine was too busy to look


@pytest.mark.parametrize("changes", [False, True])
def test_an_error_of_the_display_ends_it_after_what_was_written(event: int, changes: bool) -> None:
    """Both ways of writing raise it."""
    pipe = Pipe()

    def look(_: Frame | Blank | None) -> Frame | Blank:
        raise DeviceGone("it went", device="sim:")

    def write(stream: FrameStream) -> None:
        film = Film("sim:", Encoder("raw", Fraction(50), (1, 1)), Sink(pipe.writer), None)
        ends = (event, pipe.writer)
        if changes:
            write_changes(stream, film, frame_of(1, 1), None, ends)
        else:
            write_steadily(stream, film, frame_of(1, 1), Timing(rate=Fraction(50), seconds=None), ends)

    with FrameStream(look, 50) as stream, pytest.raises(DeviceGone):
        write(stream)
    data = pipe.read()
    assert data
    assert len(data) % 4 == 0


def test_notes_about_sizes_are_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    """A guest that changes its mode with every frame does not fill a log."""
    pipe = Pipe()
    film = Film("sim:", Encoder("raw", Fraction(50), (2, 2)), Sink(pipe.writer), None)
    for serial in range(3 * MOST_NOTES):
        film.write(frame_of(1 + serial % 2, 2, serial))
    assert len(pipe.read()) == 3 * MOST_NOTES * 16
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == MOST_NOTES
    assert lines[0] == "mdevdisplay: sim:: the picture is 1x2 now, padded with black to 2x2"
    assert lines[1] == "mdevdisplay: sim:: the picture is 2x2 now"
    assert lines[-1].endswith("no more is said of that")


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Whoever shares the pipe may have made it so."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(range(256)) * 4000
    thread = threading.Thread(target=Sink(writer).write, args=(data,), daemon=True)
    thread.start()
    read = b""
    while len(read) < len(data):
        read += os.read(reader, 1 << 16)
    thread.join(30)
    assert read == data
    os.close(reader)
    with pytest.raises(ReaderGone):
        Sink(writer).write(b"more")
    os.close(writer)


def test_a_file_without_room_names_itself() -> None:
    """The error has the file, the errno and a cause."""
    with Path("/dev/full").open("wb") as full, pytest.raises(MdevDisplayError) as caught:
        Sink(full.fileno(), Path("video.y4m")).write(b"x")
    assert caught.value.cause == "cannot-write"
    assert caught.value.errno == 28
    assert "'video.y4m'" in str(caught.value)
