"""True dma-bufs of the kernel's own exporters, read through llvmpipe; and which GPU has exported one."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gpu_pictures import expected_rgb, expected_yuv
from lab_support import device_mappings, device_of, open_descriptors, set_mode
from mesa import use
from pixels.memfd import sealed_memfd

import mdevdisplay
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import NotMappable
from mdevdisplay.formats import fourcc, lookup
from mdevdisplay.gpu.importer import GpuImporter, importer_for
from mdevdisplay.gpu.render_nodes import exporting_node, render_nodes
from mdevdisplay.host import HostRoot
from mdevdisplay.surface import SurfaceInfo

# include/uapi/linux/udmabuf.h, include/uapi/linux/dma-heap.h, include/uapi/linux/dma-buf.h
UDMABUF_CREATE = 0x40187542
UDMABUF_FLAGS_CLOEXEC = 1
DMA_HEAP_IOCTL_ALLOC = 0xC0184800
DMA_BUF_IOCTL_SYNC = 0x40086200
START, END, WRITE = 0, 4, 2


def udmabuf(size: int) -> int:
    """Pages of a memfd as a dma-buf."""
    memory = sealed_memfd("pages")
    os.truncate(memory, size)
    device = os.open("/dev/udmabuf", os.O_RDWR | os.O_CLOEXEC)
    fd: int = fcntl.ioctl(
        device, UDMABUF_CREATE, bytearray(struct.pack("=IIQQ", memory, UDMABUF_FLAGS_CLOEXEC, 0, size))
    )
    os.close(device)
    os.close(memory)
    return fd


def from_heap(size: int) -> int:
    """Pages of the system heap."""
    heap = os.open("/dev/dma_heap/system", os.O_RDWR | os.O_CLOEXEC)
    request = bytearray(struct.pack("=QIIQ", size, 0, os.O_RDWR | os.O_CLOEXEC, 0))
    fcntl.ioctl(heap, DMA_HEAP_IOCTL_ALLOC, request)
    os.close(heap)
    return int(struct.unpack("=QIIQ", request)[1])


EXPORTERS: dict[str, Callable[[int], int]] = {"udmabuf": udmabuf, "system": from_heap}
each_exporter = pytest.mark.parametrize("exporter", EXPORTERS)


@pytest.fixture(scope="module", autouse=True)
def software_renderer() -> None:
    use()


@pytest.fixture
def importer() -> Iterator[GpuImporter]:
    with GpuImporter(None) as importer:
        yield importer


def make(exporter: str, code: str, width: int, height: int, padding: int = 0) -> DmaBuf:
    layout = lookup(fourcc(code))
    assert layout is not None
    stride = layout.minimum_stride(width) + padding
    size = -(-stride * layout.rows(height) // 4096) * 4096
    surface = SurfaceInfo(fourcc=layout.fourcc, width=width, height=height, stride=stride, size=size)
    return DmaBuf(EXPORTERS[exporter](size), surface)


def fill(dmabuf: DmaBuf, seed: int) -> np.ndarray:
    """Draw random bytes as a device would; return the elements of the picture."""
    data = np.random.default_rng(seed).integers(0, 256, dmabuf.size, np.uint8)
    with mmap.mmap(dmabuf.fileno(), dmabuf.size, mmap.MAP_SHARED) as memory:
        fcntl.ioctl(dmabuf.fileno(), DMA_BUF_IOCTL_SYNC, struct.pack("=Q", START | WRITE))
        memory[:] = data.tobytes()
        fcntl.ioctl(dmabuf.fileno(), DMA_BUF_IOCTL_SYNC, struct.pack("=Q", END | WRITE))
    surface = dmabuf.surface
    layout = lookup(surface.fourcc)
    assert layout is not None
    rows = data[: surface.stride * layout.rows(surface.height)].reshape(-1, surface.stride)
    used = np.ascontiguousarray(rows[:, : layout.minimum_stride(surface.width)])
    return used.view(layout.dtype).reshape(layout.raw_shape(surface.width, surface.height))


@each_exporter
@pytest.mark.parametrize("code", ["XR24", "AB24", "RG16", "XR30"])
@pytest.mark.parametrize(("width", "height", "padding"), [(61, 47, 12), (640, 480, 0)])
def test_random_pixels_come_back(
    importer: GpuImporter, exporter: str, code: str, width: int, height: int, padding: int
) -> None:
    """Every channel of every pixel, and what is drawn later shows without another import."""
    with make(exporter, code, width, height, padding) as dmabuf:
        assert dmabuf.exporter == exporter
        target = np.empty((height, width, 4), np.uint8)
        for seed in (1, 2):
            raw = fill(dmabuf, seed)
            importer.read(dmabuf, target)
            assert np.array_equal(target, expected_rgb(code, raw))
        assert importer.images == 1


@each_exporter
@pytest.mark.parametrize("code", ["NV12", "YUYV"])
def test_yuv_comes_back(importer: GpuImporter, exporter: str, code: str) -> None:
    """Two memory planes in one dma-buf, and two pixels in four bytes."""
    with make(exporter, code, 320, 240) as dmabuf:
        raw = fill(dmabuf, 3)
        target = np.empty((240, 320, 4), np.uint8)
        importer.read(dmabuf, target)
        assert np.abs(target - expected_yuv(code, raw, 320, 240)).max() < 0.502


def kept_by_the_kernel() -> int:
    """How many dma-bufs there are in this machine, as the kernel counts them."""
    text = Path("/sys/kernel/debug/dma_buf/bufinfo").read_text(encoding="ascii")
    return int(text.rsplit("Total ", 1)[1].split()[0])


@each_exporter
def test_the_kernel_has_every_buffer_back(importer: GpuImporter, exporter: str) -> None:
    """Fifty buffers are read and forgotten; no descriptor, no mapping and no dma-buf is left."""
    with make(exporter, "XR24", 64, 64) as dmabuf:
        target = np.empty((64, 64, 4), np.uint8)
        importer.read(dmabuf, target)
        importer.forget(dmabuf.key)
    before, count = open_descriptors(), kept_by_the_kernel()
    for seed in range(50):
        with make(exporter, "XR24", 64, 64) as dmabuf:
            raw = fill(dmabuf, seed)
            importer.read(dmabuf, target)
            assert np.array_equal(target, expected_rgb("XR24", raw))
            assert kept_by_the_kernel() == count + 1
        assert kept_by_the_kernel() == count + 1, "the image holds the buffer"
        importer.forget(dmabuf.key)
        assert kept_by_the_kernel() == count
    assert open_descriptors() == before
    assert device_mappings() == []


@pytest.mark.by_group
def test_a_dmabuf_that_cannot_be_mapped_is_refused_by_the_software_renderer(make_mdev: Callable[[str], str]) -> None:
    """A dma-buf of mbochs belongs to no GPU, and no CPU can map it: the driver's answer is an error that says so."""
    with mdevdisplay.open(make_mdev("mbochs-medium")) as display:
        set_mode(device_of(display), 640, 480)
        with (
            display.dmabuf() as dmabuf,
            importer_for(dmabuf, parent=device_of(display).identity.parent, device=display.locator) as importer,
        ):
            with pytest.raises(NotMappable, match=r"mapping a dma-buf of mbochs for llvmpipe.*EACCES") as caught:
                importer.read(dmabuf, np.empty((480, 640, 4), np.uint8))
            assert caught.value.cause == "import-refused"
            assert importer.images == 0


def test_a_node_that_is_no_gpus_exports_nothing_to_us() -> None:
    """The render node of vgem has no driver bound to it, so that its buffers are the processor's to read."""
    [vgem] = [node for node in render_nodes(HostRoot()) if node.path.exists()]
    assert (vgem.name, vgem.driver) == ("renderD128", "")
    assert exporting_node("vgem", "", HostRoot()) is None


def test_the_software_renderer_never_takes_the_place_of_a_gpu() -> None:
    """EGL offers llvmpipe for a node that it has no GPU's driver for; that is noticed and refused."""
    [vgem] = render_nodes(HostRoot())
    with pytest.raises(NotMappable, match="the GPU of renderD128 was asked for and EGL gives llvmpipe") as caught:
        GpuImporter(vgem)
    assert caught.value.cause == "no-egl"


WITHOUT_PRIVILEGES = """
import os
from mesa import use
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.importer import GpuImporter
from mdevdisplay.gpu.render_nodes import render_nodes
from mdevdisplay.host import HostRoot

use()
egl.library()  # from where only root can read
[vgem] = render_nodes(HostRoot())
vgem.path.chmod(0o600)
os.setgroups([])
os.setresuid(65534, 65534, 65534)
try:
    GpuImporter(vgem)
except MdevDisplayError as error:
    print(error)
"""


def test_a_render_node_that_may_not_be_opened_is_named() -> None:
    """The kernel refuses it to who is neither root nor in its group; the message says which node."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGES],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=100,
    )
    assert "opening /dev/dri/renderD128 failed: EACCES" in done.stdout
