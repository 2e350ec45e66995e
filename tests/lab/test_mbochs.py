"""mbochs: dma-bufs that no CPU can map, the same pixels in region 0, modes set without a guest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lab_support import (
    VideoMemory,
    device_mappings,
    device_of,
    has_cloexec,
    open_descriptors,
    run_cli,
    set_mode,
    set_vbe,
)

import mdevdisplay
from mdevdisplay.dmabuf import exporter_of
from mdevdisplay.errors import NotMappable, TooManyBuffers
from mdevdisplay.vfio import Device, uapi

TYPES = {"mbochs-small": 4 << 20, "mbochs-medium": 16 << 20, "mbochs-large": 64 << 20}
EDID_LIMITS = {"mbochs-small": (800, 600), "mbochs-medium": (1920, 1440), "mbochs-large": (0, 0)}
# width, height, virtual width, x, y
MODES = [
    (800, 600, 800, 0, 0),
    (640, 480, 1024, 0, 0),
    (640, 480, 1024, 384, 32),
    (1024, 768, 1024, 0, 200),
    (1366, 768, 1366, 0, 0),
    (800, 600, 1366, 100, 3),
    (1920, 1080, 2048, 64, 5),
]

_ioctls: list[tuple[int, int]] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "fcntl.ioctl" and arguments[1] == uapi.VFIO_DEVICE_GET_GFX_DMABUF:
        _ioctls.append((arguments[1], int.from_bytes(bytes(arguments[2]), "little")))


sys.addaudithook(_record)


@pytest.fixture
def gets() -> list[tuple[int, int]]:
    """Every GET_GFX_DMABUF of the test, as Python's audit hook sees it."""
    _ioctls.clear()
    return _ioctls


def bytes_taken(mode: tuple[int, int, int, int, int]) -> int:
    width, height, virtual, x, y = mode
    return ((y + height - 1) * virtual + x + width) * 4


def random_rows(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width * 4), np.uint8)


@pytest.mark.parametrize("kind", TYPES)
def test_pixels_are_exact_in_every_mode_and_at_every_offset(kind: str, make_mdev: Callable[[str], str]) -> None:
    """One open display follows seven modes, among them sizes that are no multiple of a page; every byte is right."""
    before = open_descriptors()
    with mdevdisplay.open(make_mdev(kind)) as display:
        assert display.backend.name == "mbochs"
        device = device_of(display)
        memory = VideoMemory(device, 0)
        followed = 0
        for seed, mode in enumerate(MODES):
            if bytes_taken(mode) > TYPES[kind]:
                continue
            width, height, virtual, x, y = mode
            set_mode(device, width, height, virt_width=virtual, x=x, y=y)
            pixels = random_rows(width, height, seed)
            memory.draw((y * virtual + x) * 4, virtual * 4, pixels)
            frame = display.capture()
            assert (frame.width, frame.height, frame.surface.stride) == (width, height, virtual * 4)
            assert np.array_equal(frame.raw.reshape(height, width * 4), pixels), mode
            assert not frame.flags
            followed += 1
        memory.close()
    assert followed >= 4
    assert open_descriptors() == before
    assert device_mappings() == []


def test_the_first_query_of_a_mode_fails_and_nobody_notices(make_mdev: Callable[[str], str]) -> None:
    """The driver really answers ENOMEM to the first query of a new mode, and surface() does not show it."""
    with mdevdisplay.open(make_mdev("mbochs-medium")) as display:
        device = device_of(display)
        query = bytearray(struct.pack("<III", 64, uapi.VFIO_GFX_PLANE_TYPE_DMABUF, 1).ljust(64, b"\0"))
        set_mode(device, 640, 480)
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            fcntl.ioctl(device.fileno(), uapi.VFIO_DEVICE_QUERY_GFX_PLANE, query)
        for number, (width, height) in enumerate([(800, 600), (1024, 768), (1366, 768)], start=2):
            set_mode(device, width, height)
            surface = display.surface()
            assert surface is not None
            assert (surface.width, surface.height, surface.dmabuf_id) == (width, height, number)


def test_without_a_mode_nothing_is_displayed(make_mdev: Callable[[str], str]) -> None:
    """A device that no guest has touched: exit status 3, and the API's value for it."""
    name = make_mdev("mbochs-small")
    result = run_cli("screenshot", name, "-o", "-")
    assert result.returncode == 3
    assert b"[nothing-displayed]" in result.stderr
    assert result.stdout == b""
    with mdevdisplay.open(name) as display:
        assert display.surface() is None
        with pytest.raises(mdevdisplay.NothingDisplayed):
            display.capture()
        assert not next(display.frames())


def test_waiting_for_a_mode(make_mdev: Callable[[str], str]) -> None:
    """--wait ends with 3 when nothing comes; capture(wait=…) returns as soon as a mode is set."""
    name = make_mdev("mbochs-small")
    assert run_cli("screenshot", name, "-o", "-", "--wait", "0.5").returncode == 3
    with mdevdisplay.open(name) as display:
        stream = display.frames(max_fps=20)
        assert not next(stream)
        set_mode(device_of(display), 320, 200)
        assert display.capture(wait=5).width == 320
        assert next(stream)
        set_vbe(device_of(display), enable=0)
        assert not next(stream)


def test_dmabufs_are_handed_out_once_a_buffer(make_mdev: Callable[[str], str], gets: list[tuple[int, int]]) -> None:
    """Each is close-on-exec and the exporter's; the driver is asked once for each, however often it is wanted."""
    before = open_descriptors()
    with mdevdisplay.open(make_mdev("mbochs-medium")) as display:
        device = device_of(display)
        keys = set()
        for turn in range(3):
            for width, height in [(640, 480), (800, 600)]:
                set_mode(device, width, height)
                with display.dmabuf() as buffer:
                    assert has_cloexec(buffer.fileno())
                    assert exporter_of(buffer.fileno()) == "mbochs"
                    assert buffer.size == width * height * 4
                    assert (buffer.planes[0].stride, buffer.modifier) == (width * 4, 0)
                    with pytest.raises(NotMappable):
                        buffer.map()
                    keys.add((turn, buffer.key))
        assert len({key for _, key in keys}) == 2
        assert Counter(gets) == {(uapi.VFIO_DEVICE_GET_GFX_DMABUF, 1): 1, (uapi.VFIO_DEVICE_GET_GFX_DMABUF, 2): 1}
    assert open_descriptors() == before


def test_the_dmabuf_backend_says_what_to_do(make_mdev: Callable[[str], str]) -> None:
    """Forced, it names the exporter whose buffers neither CPU nor GPU reads, and the backend that reads the pixels."""
    name = make_mdev("mbochs-small")
    with mdevdisplay.open(name) as display:
        set_mode(device_of(display), 640, 480)
    result = run_cli("screenshot", name, "--backend", "intel_gvt", "-o", "-")
    assert result.returncode == 1
    assert b"exported by mbochs failed: EINVAL" in result.stderr
    assert b"--backend mbochs" in result.stderr
    assert b"[no-render-node]" in result.stderr
    facts = json.loads(run_cli("info", name, "--backend", "intel_gvt", "--json").stdout)["display"]
    assert facts["planes"]["primary"]["read_by"] == ""
    assert "--backend mbochs" in facts["planes"]["primary"]["not_readable_because"]
    assert run_cli("screenshot", name, "-o", "-").returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["mbochs", "intel_gvt"])
def test_a_guest_that_pans_meets_the_cap(
    backend: str, make_mdev: Callable[[str], str], gets: list[tuple[int, int]]
) -> None:
    """5,000 framebuffers: pixels go on, dma-bufs end with a cause of their own long before EMFILE, nothing leaks."""
    before = open_descriptors()
    with mdevdisplay.open(make_mdev("mbochs-large"), backend=backend) as display:
        device = device_of(display)
        set_mode(device, 64, 64, virt_width=1024)
        memory = VideoMemory(device, 0)
        memory.draw(0, 4096, np.arange(5100, dtype=np.uint32).repeat(1).view(np.uint8).reshape(5100, 4))
        memory.close()
        handed = refused = 0
        for y in range(5000):
            set_vbe(device, y_offset=y)
            try:
                display.dmabuf().close()
                handed += 1
            except TooManyBuffers:
                refused += 1
            if backend == "mbochs" and y % 10 == 0:
                frame = display.capture()
                assert int(frame.raw.view("<u4")[0, 0, 0]) == y
        assert handed == 256
        assert refused == 5000 - 256
        assert max(Counter(gets).values()) == 1
        assert len(open_descriptors()) < len(before) + 300
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", TYPES)
def test_the_edid_region(kind: str, make_mdev: Callable[[str], str]) -> None:
    """Found by its capability, with sizes, limits and link state; a blob that a VMM wrote is read back."""
    with mdevdisplay.open(make_mdev(kind)) as display:
        edid = display.edid()
        assert edid is not None
        assert (edid.blob, edid.max_size, edid.link_up) == (b"", 1024, None), "nobody has set a link state yet"
        assert (edid.max_xres, edid.max_yres) == EDID_LIMITS[kind]
        device = device_of(display)
        region = _edid_region(device)
        blob = bytes.fromhex("00ffffffffffff00") + bytes(119)
        blob += bytes([-sum(blob) % 256])
        (offset,) = struct.unpack("<I", os.pread(device.fileno(), 4, region.offset))
        os.pwrite(device.fileno(), struct.pack("<I", 2), region.offset + 20)
        down = display.edid()
        assert down is not None
        assert down.link_up is False
        os.pwrite(device.fileno(), blob, region.offset + offset)
        os.pwrite(device.fileno(), struct.pack("<I", len(blob)), region.offset + 8)
        os.pwrite(device.fileno(), struct.pack("<I", 1), region.offset + 20)
        edid = display.edid()
        assert edid is not None
        assert (edid.blob, edid.valid, edid.link_up) == (blob, True, True)


def _edid_region(device: Device) -> mdevdisplay.RegionInfo:
    return next(region for region in device.regions() if (region.type, region.subtype) == (1, 1))


def test_regions_of_the_driver(make_mdev: Callable[[str], str]) -> None:
    """The driver's own numbers: ten regions, video memory first, its capability chain read whole."""
    with mdevdisplay.open(make_mdev("mbochs-small")) as display:
        device = device_of(display)
        assert device.info().num_regions == 10
        memory = device.region(0)
        assert memory is not None
        assert (memory.size, memory.offset, memory.mappable) == (4 << 20, 12288, True)
        assert _edid_region(device).index == 9
        assert _edid_region(device).capabilities == (uapi.VFIO_REGION_INFO_CAP_TYPE,)
        assert device.region(63) is None
