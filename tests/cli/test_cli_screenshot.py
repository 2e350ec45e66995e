from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import pexpect
import PIL.Image
import pytest
from pixels.vendor import install, installed

import mdevdisplay
from cli.helpers import PROGRAM, environment, here, here_json, powerless, run, run_json
from mdevdisplay.cli.screenshot import file_name
from mdevdisplay.formats import fourcc
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia
from mdevdisplay_simulated import read_counter

ENTRY = ["locator", "file", "width", "height", "format", "stride", "modifier", "flags"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frame_number(data: bytes | Path) -> int:
    with PIL.Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        return read_counter(np.asarray(image))


def in_a_tiny_file_system(folder: Path, size: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command with a full-size tmpfs mounted on a folder, in a namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare -rm: user and mount namespaces")
    script = f'mount -t tmpfs -o size={size} none "{folder}" && cd "{folder}" && {command}'
    return subprocess.run(
        [unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment(), timeout=60
    )


# files


def test_a_screenshot_is_a_picture_file(folder: Path) -> None:
    """The file has what was displayed, and one line says so."""
    result = run("screenshot", "sim:320x200,frame=7,fps=0", "-o", "shot.png", cwd=folder)
    assert result.returncode == 0
    assert result.stderr == b""
    assert result.stdout == b"shot.png: 320x200 XR24\n"
    assert frame_number(folder / "shot.png") == 7
    with PIL.Image.open(folder / "shot.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (320, 200))
    assert names_in(folder) == ["shot.png"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.bmp", "BMP"), ("a.JPG", "JPEG"), ("a.webp", "WEBP"), ("noending", "PNG")]
)
def test_the_ending_says_which_kind(folder: Path, name: str, kind: str) -> None:
    """Any kind that Pillow writes, PNG where there is no ending."""
    assert here("screenshot", "sim:320x200,fps=0", "--output", name).exit_code == 0
    with PIL.Image.open(folder / name) as image:
        assert image.format == kind


@pytest.mark.parametrize(
    ("locator", "name"),
    [
        ("sim:", "sim.png"),
        ("sim:320x200,fps=0", "sim-320x200-fps-0.png"),
        ("44cc0626-0000-4000-8000-000000000000", "44cc0626-0000-4000-8000-000000000000.png"),
        ("0000:41:00.4", "0000-41-00.4.png"),
        ("acme:../../etc/passwd", "acme-..-..-etc-passwd.png"),
        ("..", "screenshot.png"),
        ("/", "screenshot.png"),
    ],
)
def test_a_locator_makes_a_file_name(locator: str, name: str) -> None:
    """Safe everywhere: no separator, no leading dot, never empty."""
    assert file_name(locator) == name
    assert Path(name).name == name


def test_without_a_name_the_locator_is_one(folder: Path) -> None:
    """A screenshot needs no -o."""
    assert here("screenshot", "sim:64x64,fps=0").exit_code == 0
    assert (folder / "sim-64x64-fps-0.png").is_file()


def test_the_json_has_every_field(folder: Path) -> None:
    """Version 1 of the schema, and nothing else on standard output."""
    found = run_json("screenshot", "sim:64x64,fps=0,fault=torn", "-o", folder / "a.png")
    assert list(found) == ["version", "screenshot"]
    entry = found["screenshot"]
    assert list(entry) == ENTRY
    assert entry["file"] == str(folder / "a.png")
    assert (entry["width"], entry["format"], entry["stride"], entry["modifier"]) == (64, "XR24", 256, 0)
    assert entry["flags"] == ["torn"]
    assert here_json("screenshot", "sim:64x64,fps=0", "-o", folder / "a.png")["screenshot"]["flags"] == []
    assert "torn" in here("screenshot", "sim:64x64,fault=torn", "-o", folder / "a.png").stdout


def test_a_cursor_can_be_shot(folder: Path) -> None:
    """--plane cursor is a picture with alpha; --plane overlay shows nothing here."""
    assert here("screenshot", "sim:64x64,cursor=on", "--plane", "cursor", "-o", "c.png").exit_code == 0
    with PIL.Image.open(folder / "c.png") as image:
        assert image.mode == "RGBA"
        assert np.asarray(image)[..., 3].min() == 0
    assert here("screenshot", "sim:64x64", "--plane", "cursor").exit_code == 3
    assert here("screenshot", "sim:64x64", "--plane", "overlay").exit_code == 3
    assert here("screenshot", "sim:64x64", "--plane", "sprite").exit_code == 2


def test_the_cursor_is_drawn_over_the_screen(folder: Path) -> None:
    """--cursor is what capture(cursor=True) has, for the primary plane alone."""
    locator = "sim:320x200,cursor=on,fps=0"
    result = here("screenshot", locator, "--cursor", "-o", "a.png")
    assert (result.exit_code, result.stdout) == (0, "a.png: 320x200 XR24\n")
    with mdevdisplay.open(locator) as display, PIL.Image.open(folder / "a.png") as image:
        assert np.array_equal(np.asarray(image), display.capture(cursor=True).to_ndarray())
        assert not np.array_equal(np.asarray(image), display.capture().to_ndarray())
    for plane in ("cursor", "overlay"):
        result = here("screenshot", locator, "--cursor", "--plane", plane, "-o", "b.png")
        assert result.exit_code == 2
        assert f"--plane {plane}" in result.stderr
    assert names_in(folder) == ["a.png"]


def test_a_cursor_that_is_not_right_is_said(folder: Path) -> None:
    """In words, for one display and for all, and as a flag in JSON; the screen is shot all the same."""
    lost = "sim:64x64,cursor=on,fault=cursor-sign-lost"
    assert here("screenshot", lost, "--cursor", "-o", "a.png").stdout == "a.png: 64x64 XR24, cursor uncertain\n"
    assert here("screenshot", lost, "-o", "a.png").stdout == "a.png: 64x64 XR24\n"
    (folder / "backend").mkdir()
    with installed(folder / "backend") as acme:
        acme.listed.append(mdevdisplay.DeviceInfo(locator="acme:", identity=mdevdisplay.Identity(name="acme")))

        def with_cursor(source: mdevdisplay.Source, plane: PlaneType, _: int) -> SurfaceInfo:
            surface: SurfaceInfo = source.surface  # type: ignore[attr-defined]
            return surface if plane is PlaneType.PRIMARY else attrs.evolve(surface, plane=plane, fourcc=fourcc("C8"))

        acme.behaviour["get_surface_info"] = with_cursor
        assert here("screenshot", "acme:", "--cursor", "-o", "a.png").stdout == "a.png: 16x8 ACME, cursor missing\n"
        assert (
            here("screenshot", "--all", "--cursor", "-o", "all").stdout == "all/acme.png: 16x8 ACME, cursor missing\n"
        )
        shot = here_json("screenshot", "acme:", "--cursor", "-o", "a.png")["screenshot"]
        assert shot["flags"] == ["cursor_missing"]


def test_waiting_for_a_picture(folder: Path) -> None:
    """--wait looks again until the guest shows something; without it a dark screen is status 3."""
    locator = "sim:64x64,blank=0-4,step=1"
    result = run("screenshot", locator, "-o", "w.png", cwd=folder)
    assert result.returncode == 3
    assert b"nothing-displayed" in result.stderr
    assert b"--wait" in result.stderr
    assert not list(folder.iterdir())
    assert run("screenshot", locator, "-o", "w.png", "--wait", "60", cwd=folder).returncode == 0
    assert frame_number(folder / "w.png") >= 5
    assert run("screenshot", "sim:64x64,blank=on", "--wait", "0.1", cwd=folder).returncode == 3


def test_a_driver_that_hangs_costs_its_timeout(folder: Path) -> None:
    """--timeout bounds the whole command's patience with a driver: here two seconds of hanging are not waited for."""
    error = run_json("screenshot", "sim:64x64,fault=hang:600", "--timeout", "0.2", cwd=folder, status=1)["error"]
    assert error["cause"] == "timed-out"


# writing


def test_an_existing_file_is_replaced_whole(folder: Path) -> None:
    """Whoever reads the file sees the old picture or the new one; mode and link stay as they were."""
    target = folder / "shot.png"
    target.write_bytes(b"old")
    target.chmod(0o640)
    (folder / "link.png").symlink_to("shot.png")
    with target.open("rb") as old:
        assert here("screenshot", "sim:64x64,fps=0,frame=3", "-o", "link.png").exit_code == 0
        assert old.read() == b"old"
    assert (folder / "link.png").is_symlink()
    assert frame_number(target) == 3
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names_in(folder) == ["link.png", "shot.png"]


def test_a_new_file_has_the_mode_that_the_umask_says(folder: Path) -> None:
    """As if it had been written in place."""
    old = os.umask(0o027)
    try:
        assert here("screenshot", "sim:64x64", "-o", "shot.png").exit_code == 0
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((folder / "shot.png").stat().st_mode) == 0o640


def test_a_pipe_is_written_into_and_stays_a_pipe(folder: Path) -> None:
    """A name that is no regular file, a named pipe here, a device elsewhere, is never replaced by one."""
    fifo = folder / "pipe.png"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert here("screenshot", "sim:64x64,fps=0,frame=9", "-o", fifo).exit_code == 0
    reader.join(30)
    assert frame_number(read[0]) == 9
    assert fifo.is_fifo()
    assert names_in(folder) == ["pipe.png"]


@pytest.mark.parametrize("target", ["", ".", "..", "/", "missing/shot.png", "folder", "shot.xyz", "shot.png/shot.png"])
def test_what_cannot_be_written_is_an_error_that_names_it(folder: Path, target: str) -> None:
    """An error with the name and the reason, no traceback, and nothing left behind."""
    (folder / "folder").mkdir()
    (folder / "shot.png").write_bytes(b"old")
    result = here("screenshot", "sim:64x64", "-o", target)
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "cannot-write" in result.stderr
    error = here_json("screenshot", "sim:64x64", "-o", target, status=1)["error"]
    assert error["cause"] == "cannot-write"
    assert names_in(folder) == ["folder", "shot.png"]
    assert (folder / "shot.png").read_bytes() == b"old"
    assert not names_in(folder / "folder")


def test_a_folder_that_must_not_be_written(folder: Path) -> None:
    """Permission denied is an error with status 1; 4 is for devices."""
    prefix = powerless()
    if prefix is None:
        pytest.skip("needs setpriv, since root may write anywhere")
    locked = folder / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    result = run("screenshot", "sim:64x64", "-o", locked / "shot.png", prefix=prefix)
    assert result.returncode == 1
    assert b"Permission denied" in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert not list(locked.iterdir())


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_a_full_disk_leaves_the_old_picture(folder: Path, kind: str) -> None:
    """The old file stays whole, no half of a new one is left, and the error says why."""
    command = (
        f"echo old > shot.{kind}; mdevdisplay screenshot sim:3840x2160,seed=5 -o shot.{kind}; "
        f"echo status $?; cat shot.{kind}; ls -A"
    )
    result = in_a_tiny_file_system(folder, "8k", command)
    assert result.stdout.splitlines() == ["status 1", "old", f"shot.{kind}"]
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


# standard output


def test_a_picture_on_standard_output() -> None:
    """`-o -` is a PNG for the next program and nothing else."""
    result = run("screenshot", "sim:320x200,frame=11,fps=0", "-o", "-")
    assert result.returncode == 0
    assert result.stderr == b""
    assert frame_number(result.stdout) == 11


def test_a_pipe_to_another_program(folder: Path) -> None:
    """A real shell, a real pipe, a real decoder on its other end."""
    decode = "import sys, PIL.Image; print(PIL.Image.open(sys.stdin.buffer).size)"
    script = f"mdevdisplay screenshot sim:320x200 -o - | python -c '{decode}'"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    assert result.stdout == "(320, 200)\n"
    assert result.stderr == ""
    assert not list(folder.iterdir())


def test_a_terminal_is_spared() -> None:
    """A terminal cannot show a PNG: wrong usage, and not one byte of it."""
    child = pexpect.spawn(PROGRAM, ["screenshot", "sim:64x64", "-o", "-"], env=environment(), timeout=30)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert b"A terminal cannot show a PNG" in child.before
    assert b"PNG\r\n\x1a" not in child.before


def test_json_and_a_picture_do_not_share_standard_output() -> None:
    """Both want it, so the two together are wrong usage."""
    assert here_json("screenshot", "sim:64x64", "-o", "-", status=2)["error"]["cause"] == "usage"


def test_a_full_standard_output_is_an_error() -> None:
    """/dev/full takes nothing: one error, no traceback, and no complaint of Python's at its end."""
    for arguments in (["screenshot", "sim:64x64", "-o", "-"], ["screenshot", "sim:1920x1080,seed=3", "-o", "-"]):
        with Path("/dev/full").open("wb") as full:
            result = run(*arguments, stdout=full)
        assert result.returncode == 1
        lines = result.stderr.decode().splitlines()
        assert "No space left on device" in lines[0]
        assert len(lines) == 2


def test_a_closed_standard_output_is_an_error() -> None:
    """`>&-` leaves nothing to write to."""
    script = "mdevdisplay screenshot sim:64x64 -o - >&-"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment(), timeout=60)
    assert result.returncode == 1
    assert "cannot write to standard output" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_reader_that_went_away_is_no_news(closed_pipe: int) -> None:
    """A broken pipe ends the program quietly."""
    for arguments in (["screenshot", "sim:64x64", "-o", "-"], ["screenshot", "sim:1920x1080", "-o", "-"]):
        result = run(*arguments, stdout=closed_pipe)
        assert result.stderr == b""
        assert result.returncode == 1


def test_a_reader_that_takes_ten_bytes() -> None:
    """`| head -c 10` gets ten bytes, and nobody complains."""
    script = "mdevdisplay screenshot sim:3840x2160,seed=5 -o - | head -c 10"
    result = subprocess.run(["bash", "-c", script], capture_output=True, env=environment(), timeout=60)
    assert result.stdout == b"\x89PNG\r\n\x1a\n\0\0"
    assert result.stderr == b""


# every display


def test_every_display_of_a_host(kernel: FakeKernel, tmp_path: Path) -> None:
    """--all makes a file for each device into a new folder; one that fails does not keep the others from theirs."""
    mdpy = kernel.add(Mdpy("vga"))
    dark = kernel.add(Mbochs())
    folder = tmp_path / "new/shots"
    result = here("screenshot", "--all", "-o", folder)
    assert result.exit_code == 1
    assert names_in(folder) == [f"{mdpy.name}.png"]
    assert f"{mdpy.name}.png: 640x480 XR24" in result.stdout
    assert f"mdevdisplay: {dark.name}: the primary plane shows nothing [nothing-displayed]" in result.stderr
    found = here_json("screenshot", "--all", "-o", folder, status=1)
    assert list(found) == ["version", "screenshots", "errors"]
    assert found["errors"] == []
    one, other = found["screenshots"]
    assert list(one) == ENTRY
    assert list(other) == ["locator", "error"]
    assert other["error"]["cause"] == "nothing-displayed"


def test_where_all_are_alike_the_status_says_how(kernel: FakeKernel, tmp_path: Path) -> None:
    """0 for all good, 3 for nothing displayed anywhere, 4 for none permitted, 3 for no device at all."""
    result = here("screenshot", "--all", "-o", tmp_path)
    assert result.exit_code == 3
    assert "No virtual GPU" in result.stderr
    assert here_json("screenshot", "--all", "-o", tmp_path, status=3)["screenshots"] == []
    mdpy = kernel.add(Mdpy("vga"))
    assert here("screenshot", "--all", "-o", tmp_path).exit_code == 0
    kernel.refuse_open("vfio", 13)
    assert here("screenshot", "--all", "-o", tmp_path).exit_code == 4
    kernel.refuse_open("vfio", 0)
    kernel.remove(mdpy)
    kernel.add(Mbochs())
    kernel.add(Nvidia())
    assert here("screenshot", "--all", "-o", tmp_path).exit_code == 3


def test_a_file_that_cannot_be_written_does_not_stop_the_others(kernel: FakeKernel, tmp_path: Path) -> None:
    """A picture that finds no place is that device's error."""
    one, other = kernel.add(Mdpy("vga")), kernel.add(Mdpy("xga"))
    (tmp_path / f"{one.name}.png").mkdir()
    found = here_json("screenshot", "--all", "-o", tmp_path, status=1)["screenshots"]
    assert found[0]["error"]["cause"] == "cannot-write"
    assert (tmp_path / f"{other.name}.png").is_file()


def test_a_backend_that_cannot_list_its_displays_is_an_error(kernel: FakeKernel, tmp_path: Path) -> None:
    """Not every display has its picture then, and the status says so; the others have theirs."""
    device = kernel.add(Mdpy("vga"))
    with installed(tmp_path) as acme:
        acme.behaviour["list_devices"] = RuntimeError("no lamp")
        result = here("screenshot", "--all", "-o", tmp_path / "shots")
        assert result.exit_code == 1
        assert "list_devices of backend acme" in result.stderr
        assert names_in(tmp_path / "shots") == [f"{device.name}.png"]
        found = here_json("screenshot", "--all", "-o", tmp_path / "shots", status=1)
        assert [entry["locator"] for entry in found["screenshots"]] == [device.name]
        assert [error["cause"] for error in found["errors"]] == ["plugin-error"]


def test_all_wants_a_folder_and_no_locator(tmp_path: Path) -> None:
    """Wrong usage is said before any device is touched."""
    (tmp_path / "file").write_bytes(b"")
    assert here("screenshot", "--all").exit_code == 2
    assert here("screenshot", "--all", "-o", "-").exit_code == 2
    assert here("screenshot", "sim:", "--all", "-o", tmp_path).exit_code == 2
    assert here("screenshot").exit_code == 2
    assert here_json("screenshot", "--all", "-o", tmp_path / "file", status=1)["error"]["cause"] == "cannot-write"


def test_what_no_cpu_can_read_is_an_error_with_a_remedy(kernel: FakeKernel, folder: Path) -> None:
    """GVT-g's dma-bufs without its GPU: the error says what can be done, and no file is made."""
    device = kernel.add(Gvt(needs_vm=False))
    device.show(128, 64)
    result = here("screenshot", device.name)
    assert result.exit_code == 1
    assert "[no-render-node]" in result.stderr
    assert "import the dma-buf on the same Intel GPU" in result.stderr
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".png") == []


def test_words_of_devices_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Locators, names of files and errors are written out, with --all too."""
    install(tmp_path)
    env = environment(
        PYTHONPATH=str(tmp_path),
        ACME_NAME="\x1b[31mred",
        ACME_DEVICES='[{"locator": "acme:\\u001b[2J!"}, {"locator": "acme:\\u001b[2J"}]',
    )
    for arguments in (
        ["acme:!"],
        ["acme:\x1b[2J?"],
        ["acme:", "-o", "\x1b[31m.png"],
        ["acme:", "-o", "\x1b[31m/x.png"],
        ["--all", "-o", tmp_path / "\x1b[31m"],
    ):
        result = run("screenshot", *arguments, env=env, cwd=tmp_path)
        assert b"\x1b" not in result.stdout + result.stderr
        assert b"\\x1b[" in result.stdout + result.stderr
