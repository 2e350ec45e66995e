"""mdpy: a constant mode in a region, with a number beyond the device's own count."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from lab_support import VideoMemory, device_mappings, device_of, open_descriptors, run_cli

import mdevdisplay

MODES = {"mdpy-vga": (640, 480), "mdpy-xga": (1024, 768), "mdpy-hd": (1920, 1080)}
each_type = pytest.mark.parametrize("kind", MODES)


def gradient(width: int, height: int) -> np.ndarray:
    """What mdpy_reset() draws: every row one grey, from black down to almost white."""
    grey = (np.arange(height) * 255 // height).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None], (height, width, 3))


@each_type
def test_list_shows_it_without_touching_it(kind: str, make_mdev: Callable[[str], str]) -> None:
    """The list has its type, parent and driver, and works while the device is open elsewhere."""
    name = make_mdev(kind)
    with mdevdisplay.open(name):
        listed = json.loads(run_cli("list", "--json").stdout)["devices"]
    assert [entry["locator"] for entry in listed] == [name]
    assert (listed[0]["mdev_type"], listed[0]["parent"], listed[0]["driver"]) == (kind, "mdpy", "mdpy")


@each_type
def test_info_describes_it(kind: str, make_mdev: Callable[[str], str]) -> None:
    """Info has the mode, the stride, the region's number, the backend and why the other one was refused."""
    name = make_mdev(kind)
    width, height = MODES[kind]
    facts = json.loads(run_cli("info", name, "--json").stdout)["display"]
    plane = facts["planes"]["primary"]
    assert (plane["format"], plane["width"], plane["height"], plane["stride"]) == ("XR24", width, height, width * 4)
    assert (plane["region_index"], plane["read_by"], plane["modifier"]) == (16, "region", "LINEAR")
    assert facts["planes"]["cursor"] is None
    assert facts["backend"]["name"] == "region_cap"
    assert "EINVAL" in facts["backend"]["others"]["intel_gvt"]
    assert facts["edid"] is None
    assert facts["access"] == "owned"


@each_type
def test_screenshot_is_the_gradient_of_the_driver(kind: str, make_mdev: Callable[[str], str]) -> None:
    """A fresh device shows the gradient that the driver draws at reset, exactly."""
    name = make_mdev(kind)
    shot = run_cli("screenshot", name, "-o", "-")
    assert shot.returncode == 0, shot.stderr
    if out := os.environ.get("LAB_OUT"):
        Path(out, f"{kind}.png").write_bytes(shot.stdout)
    picture = PIL.Image.open(io.BytesIO(shot.stdout))
    assert np.array_equal(np.asarray(picture), gradient(*MODES[kind]))


@each_type
def test_random_pixels_come_back_byte_for_byte(kind: str, make_mdev: Callable[[str], str]) -> None:
    """What was written through a mapping is what a frame, a view and another process's PNG show."""
    name = make_mdev(kind)
    width, height = MODES[kind]
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, 4), np.uint8)
    before = open_descriptors()
    with mdevdisplay.open(name) as display:
        memory = VideoMemory(device_of(display), 16)
        memory.draw(0, width * 4, pixels.reshape(height, width * 4))
        memory.close()
        frame = display.capture()
        assert np.array_equal(frame.raw, pixels)
        assert np.array_equal(frame.pixels[..., :3], pixels[..., :3])
        assert (frame.pixels[..., 3] == 255).all()
        assert not frame.flags
        with display.map() as view:
            assert np.array_equal(view, pixels)
            assert view.strides[0] == {"mdpy-vga": 2560, "mdpy-xga": 4096, "mdpy-hd": 7680}[kind]
            kept = view
    assert not kept.any(), "a view that outlives the display shows zeros"
    assert np.array_equal(frame.raw, pixels), "a frame that outlives the display stays as it was"
    assert open_descriptors() == before
    assert device_mappings() == []
    shot = PIL.Image.open(io.BytesIO(run_cli("screenshot", name, "-o", "-").stdout))
    assert np.array_equal(np.asarray(shot), pixels[..., 2::-1])


def test_an_unchanged_display_gives_the_same_surface(make_mdev: Callable[[str], str]) -> None:
    """The same answer of the driver is the same object, and the size is the driver's power of two."""
    with mdevdisplay.open(make_mdev("mdpy-xga")) as display:
        first = display.surface()
        assert first is not None
        assert display.surface() is first
        assert first.size == 4 << 20
        assert display.surface(mdevdisplay.PlaneType.CURSOR) is None


def test_the_dmabuf_backend_refuses_it(make_mdev: Callable[[str], str]) -> None:
    """Forced on a region display, the dma-buf backend says what the driver answered."""
    result = run_cli("screenshot", make_mdev("mdpy-vga"), "--backend", "intel_gvt", "-o", "-")
    assert result.returncode == 1
    assert b"PROBE+DMABUF answered EINVAL" in result.stderr


def test_list_probe_asks_every_device(make_mdev: Callable[[str], str]) -> None:
    """--probe has each device's mode, or the cause why it cannot be asked."""
    names = {make_mdev("mdpy-vga"): "640x480", make_mdev("mdpy-hd"): "1920x1080"}
    serial, blank = make_mdev("mtty-1"), make_mdev("mbochs-small")
    listed = {
        entry["locator"]: entry["probe"] for entry in json.loads(run_cli("list", "--probe", "--json").stdout)["devices"]
    }
    for name, mode in names.items():
        assert f"{listed[name]['width']}x{listed[name]['height']}" == mode
    assert listed[serial]["error"]["cause"] == "not-a-display"
    assert listed[blank]["error"]["cause"] == "nothing-displayed"


def test_screenshot_all_takes_one_of_each(make_mdev: Callable[[str], str], tmp_path: object) -> None:
    """--all writes a PNG for each device that shows something, and says which does not."""
    vga, hd, blank = make_mdev("mdpy-vga"), make_mdev("mdpy-hd"), make_mdev("mbochs-small")
    result = run_cli("screenshot", "--all", "-o", str(tmp_path))
    assert result.returncode == 1
    for name, size in ((vga, (640, 480)), (hd, (1920, 1080))):
        with PIL.Image.open(f"{tmp_path}/{name}.png") as picture:
            assert picture.size == size
    assert blank.encode() in result.stderr
    assert b"nothing-displayed" in result.stderr
