"""A third party's backend, installed as its users install it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples/mdevdisplay-acme"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed by pip beside mdevdisplay."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", str(target), str(EXAMPLE)),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return {**os.environ, "PYTHONPATH": str(target)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdevdisplay", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def acme_file(path: Path, width: int, height: int, pixels: bytes) -> Path:
    path.write_bytes(struct.pack("<4sIII", b"ACME", width, height, width * 4) + pixels)
    return path


def test_it_is_listed_with_its_distribution(environment: dict[str, str]) -> None:
    """`plugins` shows name, distribution, version of the hooks, and the hooks."""
    plugins = json.loads(run(environment, "plugins", "--json").stdout)["plugins"]
    acme = next(plugin for plugin in plugins if plugin["name"] == "acme")
    assert (acme["distribution"], acme["version"], acme["hookspec_version"]) == ("mdevdisplay-acme", "1.0", [1, 0])
    assert set(acme["hooks"]) == {"open_locator", "probe", "get_surface_info", "query_region"}


def test_its_pixels_come_out_exactly(environment: dict[str, str], tmp_path: Path) -> None:
    """A screenshot of the vendor's own scheme has the vendor's pixels."""
    pixels = np.random.default_rng(3).integers(0, 256, (48, 64, 4), np.uint8)
    file = acme_file(tmp_path / "fb.acme", 64, 48, pixels.tobytes())
    result = run(environment, "screenshot", f"acme:{file}", "-o", str(tmp_path / "fb.png"))
    assert result.returncode == 0, result.stderr
    with PIL.Image.open(tmp_path / "fb.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels[..., 2::-1])


def test_a_blank_file_displays_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """A width of 0 is a plane that shows nothing: exit status 3."""
    file = acme_file(tmp_path / "fb.acme", 0, 0, b"")
    assert run(environment, "screenshot", f"acme:{file}", "-o", "-").returncode == 3


def test_a_file_that_is_too_short_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """The framework compares the header's numbers with the real file and says both; it never maps such a file."""
    file = acme_file(tmp_path / "fb.acme", 640, 480, bytes(1000))
    result = run(environment, "screenshot", f"acme:{file}", "-o", "-")
    assert result.returncode == 1
    assert "takes 1228800 bytes, the file has 1000" in result.stderr
    assert "[bad-surface]" in result.stderr


@pytest.mark.parametrize("locator", ["acme:", "acme:/nowhere"])
def test_a_wrong_locator_says_what_is_right(environment: dict[str, str], locator: str) -> None:
    """The plugin's own errors reach the user."""
    result = run(environment, "info", locator)
    assert result.returncode in (1, 2)
    assert locator in result.stderr
