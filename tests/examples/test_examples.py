"""The programs in examples/, each run as its users run it, with somebody or something in front of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmap_ninja.numpy
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from mesa import environment

import mdevdisplay
from mdevdisplay_simulated import read_counter

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"

Pixels = npt.NDArray[np.uint8]


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program; a warning, as about a descriptor that was left open, is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", *map(str, command)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def captured(locator: str, *, cursor: bool = False) -> Pixels:
    """What a display shows, B, G, R, A."""
    with mdevdisplay.open(locator) as display:
        return display.capture(cursor=cursor).pixels


class TestGlConsumer:
    """The window is a renderbuffer of llvmpipe's; all else is the example, EGL and OpenGL ES."""

    def draw(self, locator: str, tmp_path: Path, *, turns: int) -> tuple[Pixels, str]:
        """Return what the window shows after so many turns, B, G, R, and what the example printed."""
        file = tmp_path / "window.npy"
        words = {"OFFSCREEN_TURNS": str(turns), "OFFSCREEN_FILE": str(file)}
        command = EXAMPLES / "gl_consumer.py", locator
        done = run(*command, PYTHONPATH=str(HERE / "offscreen"), **environment(), **words)
        assert (done.returncode, done.stderr) == (0, "")
        return np.load(file)[..., 2::-1], done.stdout

    @pytest.mark.parametrize("options", ["", "format=AR24,stride=2624", "format=XB24", "format=XR30"])
    def test_the_window_has_the_displays_pixels(self, options: str, tmp_path: Path) -> None:
        """Every pixel of the window, which took the size of the screen, is the display's."""
        locator = f"sim:640x480,fps=0,frame=7,via=dmabuf,{options}".rstrip(",")
        window, _ = self.draw(locator, tmp_path, turns=2)
        assert np.array_equal(window, captured(locator)[..., :3])

    def test_a_buffer_is_imported_once(self, tmp_path: Path) -> None:
        """What the guest draws into an imported buffer is shown without importing it again."""
        window, said = self.draw("sim:640x480,step=1,via=dmabuf,buffers=3", tmp_path, turns=40)
        number = read_counter(window)
        assert number >= 30
        assert np.array_equal(window, captured(f"sim:640x480,fps=0,frame={number}")[..., :3])
        assert "3 buffers" in said

    def test_a_guest_that_changes_its_mode_is_followed(self, tmp_path: Path) -> None:
        """Window and picture have the size of the newest mode."""
        modes = "modes=640x480/320x240/800x600,mode_every=4"
        window, _ = self.draw(f"sim:{modes},step=1,via=dmabuf,buffers=2", tmp_path, turns=24)
        height, width = window.shape[:2]
        expected = captured(f"sim:{width}x{height},fps=0,frame={read_counter(window)}")
        assert (width, height) != (640, 480)
        assert np.array_equal(window, expected[..., :3])

    def test_a_guest_that_never_uses_a_buffer_twice_is_shown(self, tmp_path: Path) -> None:
        """Old images make room for new ones, and the newest is what is drawn."""
        window, said = self.draw("sim:640x480,step=1,via=dmabuf,fault=new-id-every-query", tmp_path, turns=40)
        assert read_counter(window) >= 30
        assert "40 buffers" in said

    def test_a_blank_screen_is_black(self, tmp_path: Path) -> None:
        """It is waited for, in a black window."""
        window, _ = self.draw("sim:640x480,via=dmabuf,blank=on", tmp_path, turns=2)
        assert not window.any()

    def test_what_the_gpu_cannot_import_is_named(self, tmp_path: Path) -> None:
        """The GPU here, llvmpipe, knows no tiling: the example ends and says format, size and modifier."""
        words = {"OFFSCREEN_TURNS": "2", "OFFSCREEN_FILE": str(tmp_path / "window.npy")}
        command = EXAMPLES / "gl_consumer.py", "sim:640x480,via=dmabuf,modifier=X_TILED"
        done = run(*command, PYTHONPATH=str(HERE / "offscreen"), **environment(), **words)
        assert done.returncode == 1
        assert "does not import XR24 640x480" in done.stderr
        assert "I915_X_TILED" in done.stderr


class TestQtWindow:
    """A real window of Qt's, on its platform without a screen."""

    def look(self, *arguments: str, tmp_path: Path, times: int = 1, light: bool = True) -> tuple[Pixels, list[int]]:
        """Return what the window shows, B, G, R, and how many pixels were painted each time."""
        file = tmp_path / "window.npz"
        user = HERE / "qt_user.py", file, str(times), "light" if light else "dark"
        done = run(*user, EXAMPLES / "qt_window.py", *arguments, QT_QPA_PLATFORM="offscreen")
        said = done.stderr.replace("This plugin does not support propagateSizeHints()\n", "")  # Qt of its own platform
        assert (done.returncode, done.stdout, said) == (0, "", "")
        with np.load(file) as seen:
            return seen["screen"][..., :3], seen["painted"].tolist()

    @pytest.mark.parametrize(
        "options", ["format=XR24", "format=XB24", "format=RG16,stride=1600", "modifier=X_TILED,stride=3072"]
    )
    def test_the_window_has_the_displays_pixels(self, options: str, tmp_path: Path) -> None:
        """Painted from where they lie, or converted: every pixel is the display's."""
        locator = f"sim:720x560,fps=0,frame=7,{options}"
        window, _ = self.look(locator, tmp_path=tmp_path)
        assert np.array_equal(window, captured(locator)[..., :3])

    def test_only_what_changed_is_painted(self, tmp_path: Path) -> None:
        """After many pictures, some of which Qt was too busy to see, the window has every pixel of the newest."""
        window, painted = self.look("sim:720x560,step=2", "--max-fps=60", tmp_path=tmp_path, times=40)
        assert np.array_equal(window, captured(f"sim:720x560,fps=0,frame={read_counter(window)}")[..., :3])
        assert sum(area < 720 * 560 / 2 for area in painted) > 20

    def test_the_cursor_is_drawn(self, tmp_path: Path) -> None:
        """With --cursor, where it belongs."""
        still = "sim:720x560,fps=0,cursor=on,frame=20"
        window, _ = self.look(still, "--cursor", tmp_path=tmp_path)
        assert np.array_equal(window, captured(still, cursor=True)[..., :3])
        assert not np.array_equal(window, captured(still)[..., :3])

    def test_a_cursor_that_moves_leaves_no_trail(self, tmp_path: Path) -> None:
        """After many pictures all that differs from the screen without a cursor is as large as one cursor."""
        window, _ = self.look("sim:720x560,step=2,cursor=on", "--cursor", tmp_path=tmp_path, times=40)
        screen = captured(f"sim:720x560,fps=0,frame={read_counter(window)}")[..., :3]
        rows, columns = np.nonzero((window != screen).any(axis=2))
        assert 0 < np.ptp(rows) < 64
        assert 0 < np.ptp(columns) < 64

    def test_a_mode_change_resizes_the_window(self, tmp_path: Path) -> None:
        """The window always has the size of the screen."""
        window, _ = self.look("sim:modes=720x560/400x300,mode_every=5,fps=20", tmp_path=tmp_path, times=40)
        height, width = window.shape[:2]
        expected = captured(f"sim:{width}x{height},fps=0,frame={read_counter(window)}")
        assert np.array_equal(window, expected[..., :3])

    @pytest.mark.parametrize("options", ["blank=on", "format=C8", "fault=gone:2"])
    def test_a_window_without_a_picture_stays_open(self, options: str, tmp_path: Path) -> None:
        """A blank screen, a format that nobody decodes and a device that is gone: a dark window with a word."""
        window, painted = self.look(f"sim:720x560,fps=0,{options}", tmp_path=tmp_path, light=False)
        assert window.mean() < 20
        assert len(painted) < 10

    def test_a_device_that_is_not_there_is_one_line(self) -> None:
        """No window, and the reason."""
        done = run(EXAMPLES / "qt_window.py", "44cc0626-0000-4000-8000-000000000000", QT_QPA_PLATFORM="offscreen")
        assert done.returncode == 1
        assert "44cc0626" in done.stderr
        assert "Traceback" not in done.stderr


AREA = {"type": "match", "xpos": 200, "ypos": 100, "width": 160, "height": 90}


class TestWaitForPicture:
    """Needles as openQA writes them."""

    @pytest.fixture
    def scene(self) -> Pixels:
        """A screen of 640x480 with something everywhere, R, G, B."""
        return np.random.default_rng(4).integers(0, 256, (480, 640, 3), np.uint8)

    def clip(self, tmp_path: Path, *frames: Pixels) -> str:
        mmap_ninja.numpy.from_ndarray(tmp_path / "clip", np.stack(frames))
        return f"sim:clip={tmp_path / 'clip'}"

    def needle(self, tmp_path: Path, picture: Pixels, *areas: dict[str, Any], name: str = "needle") -> Path:
        PIL.Image.fromarray(picture).save(tmp_path / f"{name}.png")
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"area": areas, "properties": [], "tags": ["desktop"]}))
        return file

    def wait(self, locator: str, *needles: Path, seconds: int = 40) -> subprocess.CompletedProcess[str]:
        save = needles[0].with_name("last.png")
        return run(EXAMPLES / "wait_for_picture.py", locator, *needles, f"--timeout={seconds}", f"--save={save}")

    def test_a_picture_that_appears_later_is_waited_for(self, tmp_path: Path, scene: Pixels) -> None:
        """Exit status 0 at once when it is there, with the needle's name."""
        before = np.zeros_like(scene)
        needle = self.needle(tmp_path, scene, AREA, name="desktop-20261121")
        done = self.wait(f"{self.clip(tmp_path, before, scene)},fps=1", needle)
        assert (done.returncode, done.stdout, done.stderr) == (0, "desktop-20261121 is there\n", "")
        assert not (tmp_path / "last.png").exists()

    def test_a_picture_that_never_appears_fails_with_the_last_one_saved(self, tmp_path: Path, scene: Pixels) -> None:
        """Exit status 1, the similarity, and what was there instead."""
        locator = self.clip(tmp_path, scene[::-1])
        done = self.wait(locator, self.needle(tmp_path, scene, AREA), seconds=1)
        assert done.returncode == 1
        assert "needle is not there: 0.0 %" in done.stderr
        with PIL.Image.open(tmp_path / "last.png") as saved:
            assert np.array_equal(np.asarray(saved), scene[::-1])

    @pytest.mark.parametrize(("away", "margin", "status"), [(30, 50, 0), (30, 10, 1), (51, 50, 1), (-50, 50, 0)])
    def test_an_area_may_have_moved_by_its_margin(
        self, away: int, margin: int, status: int, tmp_path: Path, scene: Pixels
    ) -> None:
        """Found up to the margin away from its place, and no further."""
        locator = self.clip(tmp_path, np.roll(scene, (away // 2, away), axis=(0, 1)))
        needle = self.needle(tmp_path, scene, AREA | {"margin": margin})
        assert self.wait(locator, needle, seconds=1 if status else 40).returncode == status

    @pytest.mark.parametrize(("match", "status"), [(96, 1), (80, 0)])
    def test_the_threshold_is_the_areas_own(self, match: int, status: int, tmp_path: Path, scene: Pixels) -> None:
        """Brightness that is off by 8 everywhere is a mean square of 64: openQA's 83.7 %."""
        darker = scene // 2 + 60
        needle = self.needle(tmp_path, darker, AREA | {"match": match})
        done = self.wait(self.clip(tmp_path, darker + 8), needle, seconds=1 if status else 40)
        assert done.returncode == status
        assert ("83.7 %" in done.stderr) == (status == 1)

    def test_every_area_must_match(self, tmp_path: Path, scene: Pixels) -> None:
        """One of two is not enough."""
        shown = scene.copy()
        shown[300:] = 0
        other = {"type": "match", "xpos": 0, "ypos": 400, "width": 64, "height": 64}
        needle = self.needle(tmp_path, scene, AREA, other)
        assert self.wait(self.clip(tmp_path, shown), needle, seconds=1).returncode == 1

    def test_an_excluded_area_may_show_anything(self, tmp_path: Path, scene: Pixels) -> None:
        """Such as a clock in the middle of an area that is to match."""
        shown = scene.copy()
        shown[120:150, 220:300] = 255
        exclude = {"type": "exclude", "xpos": 219, "ypos": 119, "width": 82, "height": 32}
        locator = self.clip(tmp_path, shown)
        assert self.wait(locator, self.needle(tmp_path, scene, AREA, exclude)).returncode == 0
        assert self.wait(locator, self.needle(tmp_path, scene, AREA), seconds=1).returncode == 1

    def test_one_of_several_needles_is_enough(self, tmp_path: Path, scene: Pixels) -> None:
        """The one that is there is named."""
        needles = [
            self.needle(tmp_path, picture, AREA, name=name) for name, picture in [("one", scene[::-1]), ("two", scene)]
        ]
        assert self.wait(self.clip(tmp_path, scene), *needles).stdout == "two is there\n"

    def test_a_screen_of_another_size_does_not_match(self, tmp_path: Path, scene: Pixels) -> None:
        """The areas would lie elsewhere."""
        needle = self.needle(tmp_path, scene, AREA)
        assert self.wait(self.clip(tmp_path, scene[:479]), needle, seconds=1).returncode == 1

    def test_a_blank_screen_fails_without_a_picture(self, tmp_path: Path, scene: Pixels) -> None:
        """There is none to save."""
        done = self.wait("sim:640x480,blank=on", self.needle(tmp_path, scene, AREA), seconds=1)
        assert done.returncode == 1
        assert "nothing was displayed" in done.stderr
        assert not (tmp_path / "last.png").exists()

    @pytest.mark.parametrize(
        "area",
        [
            AREA | {"type": "ocr"},
            AREA | {"type": "exclude"},
            AREA | {"xpos": 600},
            AREA | {"width": 0},
            AREA | {"ypos": -1},
            {"width": "x"},
        ],
    )
    def test_a_needle_that_is_none_is_wrong_usage(self, area: dict[str, Any], tmp_path: Path, scene: Pixels) -> None:
        """Exit status 2 names the file; nothing is waited for."""
        done = self.wait("sim:", self.needle(tmp_path, scene, area))
        assert done.returncode == 2
        assert "needle.json is no needle" in done.stderr

    def test_a_device_that_is_not_there_is_one_line(self, tmp_path: Path, scene: Pixels) -> None:
        """Exit status 1 and the reason."""
        done = self.wait("44cc0626-0000-4000-8000-000000000000", self.needle(tmp_path, scene, AREA))
        assert done.returncode == 1
        assert "44cc0626" in done.stderr
        assert "Traceback" not in done.stderr
