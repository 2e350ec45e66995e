"""`mdevdisplay stream`, read by ffmpeg."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pexpect
import pytest

import mdevdisplay
from cli.helpers import PROGRAM, environment, run
from mdevdisplay_simulated import read_counter

Pixels = npt.NDArray[np.uint8]

AS_RGB = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
LEVELS = 4
"""By how many of 256 levels a colour may be off that went through YCbCr and back."""


def decode(data: bytes, *options: str) -> Pixels:
    """Return every frame that ffmpeg reads, (frames, height, width, 3) R, G, B; it may have nothing to complain of."""
    found = subprocess.run(
        ["ffmpeg", "-v", "warning", *options, "-i", "-", "-fps_mode", "passthrough", "-f", "framehash", "-"],
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert found.stderr == b""
    sizes = {line.split(b":")[1].strip() for line in found.stdout.splitlines() if line.startswith(b"#dimensions")}
    width, height = map(int, sizes.pop().split(b"x"))
    result = subprocess.run(
        ["ffmpeg", "-v", "error", *options, "-i", "-", *AS_RGB],
        input=data,
        capture_output=True,
        timeout=60,
    )
    assert result.stderr == b""
    return np.frombuffer(result.stdout, np.uint8).reshape(-1, height, width, 3)


def raw_options(size: str) -> list[str]:
    return ["-f", "rawvideo", "-pixel_format", "bgra", "-video_size", size, "-framerate", "30"]


def streamed(*arguments: str, status: int = 0) -> tuple[bytes, str]:
    """Return what was written, and what was said."""
    result = run("stream", *arguments)
    assert result.returncode == status, result.stderr
    return result.stdout, result.stderr.decode()


def shown(locator: str, *, cursor: bool = False) -> Pixels:
    """Return what a display shows, R, G, B."""
    with mdevdisplay.open(locator) as display:
        return display.capture(cursor=cursor).to_ndarray("rgb24")


def difference(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def ppm_frames(data: bytes) -> list[Pixels]:
    """Return the pictures of PPM files in a row."""
    frames = []
    while data:
        kind, size, most, rest = data.split(b"\n", 3)
        assert (kind, most) == (b"P6", b"255")
        width, height = map(int, size.split())
        frames.append(np.frombuffer(rest[: width * height * 3], np.uint8).reshape(height, width, 3))
        data = rest[width * height * 3 :]
    return frames


@contextmanager
def streaming(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run it beside the test, in a process group of its own."""
    process = subprocess.Popen(
        [PROGRAM, "stream", *map(str, arguments)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


# what ffmpeg reads


@pytest.mark.parametrize(
    "locator", ["sim:320x200,fps=0", "sim:321x75,fps=0,format=RG16,seed=4", "sim:64x64,fps=0,fault=all-black"]
)
def test_ffmpeg_reads_the_colours_of_y4m(locator: str) -> None:
    """Every frame, with the colours that capture() has but for a few levels, of even and odd sizes."""
    frames = decode(streamed(locator, "--frames", "3", "--fps", "60")[0])
    assert len(frames) == 3
    for frame in frames:
        assert difference(frame, shown(locator)) <= LEVELS


def test_ffmpeg_knows_rate_and_range_of_y4m() -> None:
    """The header says all: 29.97 frames a second as a fraction, 4:4:4, full range."""
    data, said = streamed("sim:64x64", "--format", "y4m", "--frames", "2", "--fps", "29.97")
    assert said == ""
    result = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-of", "default=noprint_wrappers=1", "-"],
        input=data,
        capture_output=True,
        timeout=60,
    )
    facts = dict(line.split("=", 1) for line in result.stdout.decode().splitlines())
    assert (facts["codec_name"], facts["width"], facts["height"]) == ("rawvideo", "64", "64")
    assert facts["r_frame_rate"] == "2997/100"
    assert facts["sample_aspect_ratio"] == "1:1"
    assert facts["pix_fmt"] in ("yuvj444p", "yuv444p")
    assert facts["color_range"] == "pc"


def test_ffmpeg_reads_ppm_and_raw_exactly() -> None:
    """Not a level off, and not a frame more or less."""
    locator = "sim:320x200,fps=0"
    data, said = streamed(locator, "--format", "ppm", "--frames", "4", "--fps", "60")
    assert said == ""
    frames = decode(data, "-f", "image2pipe", "-c:v", "ppm")
    assert len(frames) == 4
    assert all(difference(frame, shown(locator)) == 0 for frame in frames)
    data, said = streamed(locator, "--format", "raw", "--frames", "4", "--fps", "60")
    assert said == f"mdevdisplay: {locator}: raw video: bgra, 320x200, 60 frames a second\n"
    assert len(data) == 4 * 320 * 200 * 4
    frames = decode(data, *raw_options("320x200"))
    assert len(frames) == 4
    assert all(difference(frame, shown(locator)) == 0 for frame in frames)


def test_a_pipe_to_ffmpeg(tmp_path: Path) -> None:
    """A real shell, a real pipe, a lossless file that ffmpeg made of a picture that moves; each frame is whole."""
    script = (
        "set -o pipefail; mdevdisplay stream sim:320x200 --seconds 1.5 --fps 20 | "
        f"ffmpeg -v error -i - -c:v ffv1 {tmp_path}/video.mkv"
    )
    result = subprocess.run(["bash", "-c", script], capture_output=True, env=environment(), timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    frames = decode((tmp_path / "video.mkv").read_bytes())
    assert len(frames) == 30
    numbers = [read_counter(frame) for frame in frames]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 5
    for number in (numbers[0], numbers[-1]):
        assert difference(frames[numbers.index(number)], shown(f"sim:320x200,fps=0,frame={number}")) <= LEVELS


def test_ffmpeg_that_takes_two_frames() -> None:
    """`-frames:v 2` is enough for it, and nobody complains."""
    script = "mdevdisplay stream sim:320x200 | ffmpeg -v error -i - -frames:v 2 -f framehash -; echo ${PIPESTATUS[0]}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    assert len(lines) == 3
    assert lines[2] == "0"


# time


def test_a_second_has_as_many_frames_as_were_asked_for() -> None:
    """Also of a picture that does not change, and of a driver that takes longer than a frame to answer."""
    for locator in ("sim:64x64,fps=0", "sim:64x64,fault=hang:0.3"):
        begin = time.monotonic()
        data, _ = streamed(locator, "--format", "raw", "--seconds", "1", "--fps", "25")
        assert len(data) == 25 * 64 * 64 * 4
        assert time.monotonic() - begin > 0.95  # a burst of frames is no video


def test_a_reader_that_pauses_gets_every_frame_of_the_time() -> None:
    """What it missed is made up for with the pictures of then, none of them before its time, and then goes on live."""
    arguments = ("sim:64x64,fps=20", "--format", "raw", "--fps", "20", "--seconds", "5")
    with streaming(*arguments, stdout=subprocess.PIPE) as process:
        time.sleep(3)
        data = process.stdout.read()  # type: ignore[union-attr]
        assert process.wait(60) == 0
    frames = np.frombuffer(data, np.uint8).reshape(-1, 64, 64, 4)
    assert len(frames) == 100
    numbers = [read_counter(frame) for frame in frames]
    assert numbers == sorted(numbers)
    assert max(number - numbers[0] - place for place, number in enumerate(numbers)) < 15
    assert numbers[-1] - numbers[0] > 60


def test_a_reader_that_pauses_for_long_is_told() -> None:
    """More than 5 seconds are not made up for in one burst: the rest is left out, and one line says so."""
    arguments = ("sim:160x120,fps=10", "--format", "raw", "--fps", "10", "--seconds", "9")
    with streaming(*arguments, stdout=subprocess.PIPE) as process:
        time.sleep(8)
        data = process.stdout.read()  # type: ignore[union-attr]
        assert process.wait(60) == 0
        said = process.stderr.read().decode().splitlines()  # type: ignore[union-attr]
    frames = len(data) / (160 * 120 * 4)
    assert frames == int(frames)
    assert 50 <= frames < 90
    assert ["left out" in line for line in said] == [False, True]


def test_changes_alone() -> None:
    """--changes is one frame for each picture: one of a still one, never the same twice of a moving one."""
    still, _ = streamed("sim:64x64,fps=0", "--format", "ppm", "--changes", "--seconds", "0.5")
    assert [read_counter(frame) for frame in ppm_frames(still)] == [0]
    moving, _ = streamed("sim:64x64,step=2", "--format", "ppm", "--changes", "--frames", "12", "--fps", "100")
    numbers = [read_counter(frame) for frame in ppm_frames(moving)]
    assert len(numbers) == 12
    assert numbers == sorted(set(numbers))
    arguments = ("sim:64x64,step=2", "--format", "raw", "--changes", "--frames", "3", "--fps", "100")
    raw, said = streamed(*arguments, "--seconds", "1e12")
    assert len(raw) == 3 * 64 * 64 * 4
    assert said.endswith("bgra, 64x64, a frame for each change\n")


# sizes


def modes(number: int) -> Pixels:
    return shown(f"sim:modes=64x64/96x48,mode_every=3,fps=0,frame={number}")


def test_another_mode_goes_to_the_top_left() -> None:
    """Cropped or padded with black to the first picture's size; a line for each change."""
    locator = "sim:modes=64x64/96x48,mode_every=3,step=2"
    data, said = streamed(locator, "--format", "raw", "--changes", "--frames", "10", "--fps", "50")
    frames = np.frombuffer(data, np.uint8).reshape(10, 64, 64, 4)[..., 2::-1]
    expected = {}
    for number in range(200):
        picture = modes(number)
        canvas = np.zeros((64, 64, 3), np.uint8)
        canvas[: picture.shape[0], : min(64, picture.shape[1])] = picture[:, :64]
        expected[canvas.tobytes()] = picture.shape[:2]
    sizes = [expected[frame.tobytes()] for frame in frames]
    assert set(sizes) == {(64, 64), (48, 96)}
    changes = [new for old, new in itertools.pairwise(sizes) if old != new]
    lines = said.splitlines()[1:]
    assert lines == [
        f"mdevdisplay: {locator}: the picture is "
        + ("64x64 now" if new == (64, 64) else "96x48 now, cropped and padded with black to 64x64")
        for new in changes
    ]


def test_a_size_of_ones_own() -> None:
    """--size is that of every frame, ffmpeg reads all of them, and a line says what becomes of the picture."""
    locator = "sim:64x64,fps=0"
    data, said = streamed(locator, "--size", "100x30", "--frames", "2")
    assert said == f"mdevdisplay: {locator}: the picture is 64x64 now, cropped and padded with black to 100x30\n"
    frames = decode(data)
    assert frames.shape == (2, 30, 100, 3)
    assert difference(frames[1][:, :64], shown(locator)[:30]) <= LEVELS
    assert frames[1][:, 64:].max() <= LEVELS
    data, _ = streamed(locator, "--size", "32x80", "--frames", "1", "--format", "ppm")
    assert [frame.shape for frame in ppm_frames(data)] == [(80, 32, 3)]


def test_ppm_has_each_picture_in_its_own_size() -> None:
    """A change of mode is no news there."""
    locator = "sim:modes=64x64/96x48,mode_every=3,step=2"
    data, said = streamed(locator, "--format", "ppm", "--frames", "12", "--fps", "50")
    assert said == ""
    frames = ppm_frames(data)
    assert len(frames) == 12
    assert {frame.shape for frame in frames} == {(64, 64, 3), (48, 96, 3)}
    expected = {modes(number).tobytes() for number in range(200)}
    assert all(frame.tobytes() in expected for frame in frames)


# nothing displayed


def test_a_dark_screen_is_black() -> None:
    """In the size of the picture before, and the picture comes back by itself."""
    data, said = streamed(
        "sim:64x64,blank=3-8/20,step=2", "--format", "ppm", "--changes", "--frames", "30", "--fps", "99"
    )
    frames = ppm_frames(data)
    assert said == ""
    assert {frame.shape for frame in frames} == {(64, 64, 3)}
    dark = [not frame.any() for frame in frames]
    first = dark.index(True)
    assert first > 0
    assert False in dark[first:]
    decoded = decode(streamed("sim:64x64,blank=3-8/20,step=2", "--frames", "30", "--fps", "99")[0])
    assert len(decoded) == 30
    assert sum(frame.max() <= LEVELS for frame in decoded) > 0


def test_a_screen_that_is_dark_at_first(tmp_path: Path) -> None:
    """Status 3 and no file; --wait waits for a picture; with --size there is black until then."""
    result = run("stream", "sim:64x64,blank=on", "-o", tmp_path / "never.y4m")
    assert result.returncode == 3
    assert b"[nothing-displayed]" in result.stderr
    assert not list(tmp_path.iterdir())
    late = "sim:64x64,blank=0-4,step=1"
    data, _ = streamed(late, "--wait", "60", "--format", "ppm", "--frames", "1")
    assert read_counter(ppm_frames(data)[0]) >= 5
    data, _ = streamed(late, "--size", "64x64", "--format", "raw", "--fps", "50", "--frames", "20")
    frames = np.frombuffer(data, np.uint8).reshape(20, 64, 64, 4)
    assert (frames[..., 3] == 255).all()
    assert not frames[0][..., :3].any()
    assert read_counter(frames[-1]) >= 5
    assert run("stream", "sim:64x64,blank=on", "--wait", "0.1").returncode == 3


# planes, processes


def test_the_cursor_is_drawn() -> None:
    """--cursor is what capture(cursor=True) has, --plane cursor the cursor alone."""
    locator = "sim:320x200,fps=0,cursor=on"
    data, _ = streamed(locator, "--cursor", "--format", "ppm", "--frames", "2")
    with_cursor = shown(locator, cursor=True)
    assert difference(with_cursor, shown(locator)) > 0
    assert all(difference(frame, with_cursor) == 0 for frame in ppm_frames(data))
    data, said = streamed(locator, "--plane", "cursor", "--format", "raw", "--frames", "1")
    assert "bgra, 64x64" in said
    assert 0 in np.frombuffer(data, np.uint8)[3::4]


def test_a_process_of_its_own_reads_the_same() -> None:
    """--isolated changes nothing in what is written."""
    arguments = ("sim:320x200,fps=0,cursor=on", "--cursor", "--format", "raw", "--frames", "2")
    assert streamed(*arguments, "--isolated") == streamed(*arguments)


# its end


def test_a_reader_that_went_away_is_the_end() -> None:
    """Status 0 and not a word, also where no change would be written for long."""
    for arguments in (["sim:640x480"], ["sim:64x64,fps=0", "--format", "ppm", "--changes"]):
        with streaming(*arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""


@pytest.mark.parametrize("extra", [[], ["--isolated"], ["--changes"]])
def test_control_c_ends_it_after_a_whole_frame(tmp_path: Path, extra: list[str]) -> None:
    """Status 0, not a word, as the whole group of processes gets it from a terminal."""
    target = tmp_path / "video"
    with streaming("sim:320x200", "--format", "ppm", "-o", target, *extra) as process:
        end = time.monotonic() + 60
        while not target.exists() or target.stat().st_size < 1_000_000:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    size = len(b"P6\n320 200\n255\n") + 320 * 200 * 3
    assert target.stat().st_size % size == 0


def test_a_second_control_c_ends_it_at_once() -> None:
    """Nobody has to wait for a reader that stopped reading."""
    with streaming("sim:640x480", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(10)
        time.sleep(0.5)  # the pipe is full
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1


def test_control_c_in_the_background_is_not_heard() -> None:
    """A script's `mdevdisplay stream … &` is started with SIGINT ignored, and stays so."""
    script = "mdevdisplay stream sim:64x64 --seconds 2 -o /dev/null & sleep 1; kill -INT $!; wait $!"
    begin = time.monotonic()
    result = subprocess.run(["bash", "-c", script], capture_output=True, env=environment(), timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    assert time.monotonic() - begin > 1.9


def test_the_devices_end_is_an_error_after_what_was_written() -> None:
    """Status 1 with its cause; all that was written is whole."""
    data, said = streamed("sim:64x64,fault=gone:20", "--format", "ppm", status=1)
    assert len(ppm_frames(data)) > 1
    assert said.splitlines()[0].endswith("[device-gone]")
    data, said = streamed("sim:64x64,fault=gone:20", "--format", "ppm", "--isolated", "--changes", status=1)
    assert ppm_frames(data)
    assert said.splitlines()[0].endswith("[device-gone]")


def test_pixels_that_cannot_be_converted_are_an_error() -> None:
    """With their cause, and nothing written, not even a header."""
    data, said = streamed("sim:64x64,format=C8", status=1)
    assert data == b""
    assert said.splitlines()[0].endswith("[unsupported-format]")


# where it goes


def test_a_file_is_written_from_its_beginning(tmp_path: Path) -> None:
    """What it had before is gone; a pipe with a name stays one."""
    target = tmp_path / "video.ppm"
    target.write_bytes(b"x" * 1_000_000)
    assert run("stream", "sim:64x64,fps=0", "--format", "ppm", "--frames", "1", "-o", target).returncode == 0
    assert difference(ppm_frames(target.read_bytes())[0], shown("sim:64x64,fps=0")) == 0
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with streaming("sim:64x64,fps=0", "--format", "ppm", "--frames", "2", "-o", fifo) as process:
        assert len(ppm_frames(fifo.read_bytes())) == 2
        assert process.wait(60) == 0
    assert fifo.is_fifo()


@pytest.mark.parametrize("target", ["", ".", "missing/video", "file/video"])
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, target: str) -> None:
    """With the reason; status 1."""
    (tmp_path / "file").touch()
    result = run("stream", "sim:64x64", "-o", target, cwd=tmp_path)
    assert result.returncode == 1
    assert b"cannot write" in result.stderr
    assert b"[cannot-write]" in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_full_disk_is_an_error() -> None:
    """Of standard output and of a file; a closed standard output too."""
    with Path("/dev/full").open("wb") as full:
        result = run("stream", "sim:64x64", stdout=full)
    assert result.returncode == 1
    assert b"No space left on device [no-output]" in result.stderr
    result = run("stream", "sim:64x64", "-o", "/dev/full")
    assert result.returncode == 1
    assert b"No space left on device [cannot-write]" in result.stderr
    closed = subprocess.run(
        ["bash", "-c", "mdevdisplay stream sim:64x64 >&-"], capture_output=True, env=environment(), timeout=60
    )
    assert closed.returncode == 1
    assert b"[no-output]" in closed.stderr


@pytest.mark.parametrize("arguments", [[], ["-o", "/dev/tty"]])
def test_a_terminal_is_spared(arguments: list[str]) -> None:
    """Wrong usage, by whatever name it is called, and not one byte of video."""
    child = pexpect.spawn(PROGRAM, ["stream", "sim:64x64", *arguments], env=environment(), timeout=30)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert b"A terminal cannot show video" in child.before
    assert b"YUV4MPEG2" not in child.before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--changes"], b"--format ppm or raw"),
        (["--format", "y4m", "--changes"], b"--format ppm or raw"),
        (["--format", "avi"], b"avi"),
        (["--cursor", "--plane", "cursor"], b"--plane cursor"),
        (["--cursor", "--plane", "overlay"], b"--plane overlay"),
        (["--fps", "0"], b"--fps"),
        (["--fps", "241"], b"--fps"),
        (["--fps", "nan"], b"--fps"),
        (["--seconds", "inf"], b"--seconds"),
        (["--timeout", "nan"], b"--timeout"),
        (["--wait", "nan"], b"--wait"),
        (["--frames", "0"], b"--frames"),
        (["--seconds", "0"], b"--seconds"),
        (["--size", "0x10"], b"--size"),
        (["--size", "20000x10"], b"--size"),
        (["--size", "10"], b"--size"),
        (["--size", "1\u0661x10"], b"--size"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_opened(tmp_path: Path, arguments: list[str], word: bytes) -> None:
    """Status 2, with the option that is wrong, and no file."""
    result = run("stream", "sim:64x64", *arguments, "-o", tmp_path / "video")
    assert result.returncode == 2
    assert word in result.stderr
    assert not list(tmp_path.iterdir())
