"""The backend of docs/decoders.md, installed from the page as it stands, decodes its pictures."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from pixels.holdings import holdings, nothing_new_since

import mdevdisplay
from mdevdisplay.errors import BadSurface, DriverError, UnsupportedModifier
from mdevdisplay.surface import SurfaceInfo

PAGE = (Path(__file__).parent.parent / "docs/decoders.md").read_text()


def block(language: str) -> str:
    """The one code block of a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the backend, as pip would install it."""
    project = tomllib.loads(block("toml"))["project"]
    ((name, module),) = project["entry-points"]["mdevdisplay"].items()
    (tmp_path / f"{module}.py").write_text(block("python"))
    metadata = tmp_path / f"{module}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[mdevdisplay]\n{name} = {module}\n")
    return tmp_path


@pytest.fixture
def backend(folder: Path) -> Iterator[ModuleType]:
    """The backend's module, installed in this process."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    mdevdisplay.backends.cache_clear()
    try:
        yield importlib.import_module("mdevdisplay_acme_blocks")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("mdevdisplay_acme_blocks", None)
        mdevdisplay.backends.cache_clear()


def write_blocks(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture, (height, width, 4) uint8, pixel by pixel, as the page describes the layout."""
    height, width, _ = picture.shape
    across, down = (width + 3) // 4, (height + 3) // 4
    memory = bytearray(os.urandom(across * down * 64))
    for y in range(height):
        for x in range(width):
            start = ((y // 4 * across + x // 4) * 16 + y % 4 * 4 + x % 4) * 4
            memory[start : start + 4] = picture[y, x].tobytes()
    path.write_bytes(width.to_bytes(4, "little") + height.to_bytes(4, "little") + bytes(memory))


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (61, 47), (1, 1), (3, 4)])
def test_noise_comes_out_as_it_was_drawn(
    backend: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    height: int,
    isolated: bool,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder))  # for the worker
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)
    write_blocks(folder / "picture.blocks", picture)
    with mdevdisplay.open(f"blocks:{folder}/picture.blocks", isolated=isolated) as display:
        frame = display.capture()
    assert isinstance(frame, mdevdisplay.Frame)
    assert np.array_equal(frame.pixels[..., :3], picture[..., :3])
    assert (frame.pixels[..., 3] == 255).all()


def test_a_buffer_that_is_too_small_is_a_bad_surface(backend: ModuleType, folder: Path) -> None:
    write_blocks(folder / "picture.blocks", np.zeros((5, 5, 4), np.uint8))
    with mdevdisplay.open(f"blocks:{folder}/picture.blocks") as display:
        surface = display.surface()
    with pytest.raises(BadSurface, match="its blocks take 256 bytes, and there are 255"):
        backend.decode(surface, np.zeros(255, np.uint8))
    assert backend.decode(surface, np.zeros(256, np.uint8)).shape == (5, 5, 4)


def test_what_is_not_its_own_is_refused_by_name(
    backend: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blocks(folder / "picture.blocks", np.zeros((5, 5, 4), np.uint8))
    monkeypatch.setattr(
        backend, "SurfaceInfo", lambda **numbers: SurfaceInfo(**{**numbers, "modifier": 0x0200_0000_0000_0005})
    )
    with mdevdisplay.open(f"blocks:{folder}/picture.blocks") as display:
        frame = display.capture()
    assert isinstance(frame, mdevdisplay.Frame)
    with pytest.raises(UnsupportedModifier, match="AMD:0x0200000000000005"):
        _ = frame.pixels


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", DriverError), (b"1234567", DriverError), (bytes(8), BadSurface), (b"\1\0\0\0" * 2, BadSurface)],
)
def test_files_that_are_none_leave_nothing_open(
    backend: ModuleType, folder: Path, content: bytes, error: type[Exception]
) -> None:
    (folder / "picture.blocks").write_bytes(content)
    before = holdings()
    with pytest.raises(error), mdevdisplay.open(f"blocks:{folder}/picture.blocks") as display:
        display.capture()
    assert nothing_new_since(before)


def test_the_commands_of_the_page_run(folder: Path) -> None:
    """They write a picture and make a PNG file of it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-euc", block("sh")],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "a file of Acme blocks" in result.stdout
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
