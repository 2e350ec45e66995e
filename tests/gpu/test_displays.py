"""Displays whose dma-bufs cannot be mapped, read by llvmpipe: the whole way, in programs of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mesa
import pytest

REFUSED = "via=dmabuf,fault=dmabuf-part-page"


def run(code: str, *arguments: str, software: bool = True, mesa25: bool = True) -> str:
    """Run Python with our Mesa, or without, and return what it prints."""
    environment = {**os.environ, "MDEVDISPLAY_GPU": "software" if software else ""}
    if mesa25:
        environment |= mesa.environment()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout


SAME = f"""
import sys
import numpy as np
import mdevdisplay

size, isolated = sys.argv[1], sys.argv[2] == "isolated"
with (
    mdevdisplay.open(f"sim:{{size}},fps=0,cursor=on,frame=3") as mapped,
    mdevdisplay.open(f"sim:{{size}},fps=0,cursor=on,frame=3,{REFUSED}", isolated=isolated, timeout=60) as display,
):
    one, other = mapped.capture(), display.capture()
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.to_ndarray("rgb24"), other.to_ndarray("rgb24"))
    assert other.raw.shape == (*one.pixels.shape[:2], 4)
    assert other.surface.format == one.surface.format
    assert display.capture(mdevdisplay.PlaneType.CURSOR).pixels[..., 3].any()
    print(display.readability().way)
"""


@pytest.mark.parametrize("isolated", ["isolated", "here"])
@pytest.mark.parametrize("size", ["320x200", "320x200,format=XR30", "321x77,format=RG16", "65x64,format=AB24"])
def test_a_picture_that_cannot_be_mapped_is_the_one_that_can(size: str, isolated: str) -> None:
    """Mapped by the CPU or read back by the GPU: the same pixels, in-process and isolated."""
    assert run(SAME, size, isolated).strip() == "import"


FOLLOWED = f"""
import os, sys
import numpy as np
import mdevdisplay

def held():
    return len(os.listdir("/proc/self/fd"))

isolated = sys.argv[1] == "isolated"
with mdevdisplay.open("sim:step=2,modes=320x200/200x320,mode_every=40,{REFUSED}", isolated=isolated) as display:
    picture, sizes, damaged, before = None, set(), 0, 0
    with display.frames(max_fps=1000) as stream:
        for count, frame in enumerate(stream):
            if not frame:
                continue
            if picture is None or picture.shape != frame.pixels.shape:
                picture = np.zeros_like(frame.pixels)
            for rect in frame.damage:
                place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
                picture[place] = frame.pixels[place]
            assert np.array_equal(picture, frame.pixels)
            damaged += frame.changed_tiles.sum()
            sizes.add((frame.width, frame.height))
            if count == 100:
                before = held()
            if count == 300:
                break
    assert sizes == {{(320, 200), (200, 320)}}, sizes
    assert damaged < 300 * 15
    assert held() <= before + 4, (held(), before)
print("fine")
"""


@pytest.mark.parametrize("isolated", ["isolated", "here"])
def test_what_a_gpu_reads_is_followed(isolated: str) -> None:
    """Damage adds up to the picture over changes of mode and flips of buffers, and no descriptor is left behind."""
    assert run(FOLLOWED, isolated).strip() == "fine"


LET_GO = f"""
import os, signal, time
import mdevdisplay

def buffers():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{{fd}}"))
        except OSError:
            pass
    return sum("mdevdisplay-simulated" in link for link in links)

with mdevdisplay.open("sim:320x200,{REFUSED}", isolated=True) as display:
    frame = display.capture()
    assert buffers() > 0
    os.kill(display._reader.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while buffers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert buffers() == 0
    assert frame.pixels.any()
print("fine")
"""


def test_buffers_are_let_go_with_the_worker() -> None:
    """Nobody calls the display meanwhile: the VM that a worker ended with must not be kept from starting again."""
    assert run(LET_GO).strip() == "fine"


UNREADABLE = f"""
import sys
import mdevdisplay

for options in ("format=C8", "modifier=0x0100000000000004"):
    with mdevdisplay.open(f"sim:321x201,{{options}},{REFUSED}", isolated=sys.argv[1] == "isolated") as display:
        found = display.readability()
        assert found.way == "", found
        try:
            display.capture()
        except mdevdisplay.MdevDisplayError as error:
            assert error.cause == found.cause, (error.cause, found)
print("fine")
"""


@pytest.mark.parametrize("isolated", ["isolated", "here"])
def test_what_the_gpu_refuses_is_not_readable(isolated: str) -> None:
    """Saying how pixels can be had and having them agree."""
    assert run(UNREADABLE, isolated).strip() == "fine"


WHY_NOT = f"""
import sys
import mdevdisplay
from mdevdisplay.errors import NotMappable

with mdevdisplay.open("sim:320x200,{REFUSED}", isolated=sys.argv[1] == "isolated") as display:
    try:
        display.capture()
    except NotMappable as error:
        print(error.cause, error)
    assert display.readability().way == ""
    display.dmabuf().close()  # it can still be handed on
"""


@pytest.mark.parametrize("isolated", ["isolated", "here"])
def test_what_no_gpu_has_exported_is_refused_with_both_reasons(isolated: str) -> None:
    """Without the variable for tests: neither a CPU nor a GPU can read it, and why."""
    said = run(WHY_NOT, isolated, software=False)
    assert said.startswith("no-render-node ")
    assert "whole pages" in said
    assert "no GPU of this host has exported it" in said


def test_info_says_that_a_gpu_reads_and_why() -> None:
    """The way and the reason stand in the text and in the JSON."""
    program = "import sys; from mdevdisplay.cli import main; sys.argv = ['mdevdisplay', *sys.argv[1:]]; main()"
    locator = f"sim:320x200,{REFUSED}"
    assert "read back by the GPU that exported it: the picture takes 256000 bytes" in run(program, "info", locator)
    planes = json.loads(run(program, "info", locator, "--json"))["display"]["planes"]
    assert planes["primary"]["read_by"] == "import"
    assert "whole pages" in planes["primary"]["not_mapped_because"]
