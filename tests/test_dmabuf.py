"""A dma-buf: who owns its descriptors, how much of it can be mapped, and how a read is bracketed."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

import pytest

from mdevdisplay.dmabuf import DMA_BUF_IOCTL_SYNC, DmaBuf, exporter_of, new_key
from mdevdisplay.errors import BadSurface, Closed, DriverError, NotMappable
from mdevdisplay.formats import fourcc
from mdevdisplay.surface import SurfaceInfo
from mdevdisplay.testing import DmaBufFile, FakeKernel

PAGE = mmap.PAGESIZE
START_READ, END_READ = (1).to_bytes(8, "little"), (5).to_bytes(8, "little")


def surface(width: int = 64, height: int = 64, *, size: int = 0) -> SurfaceInfo:
    return SurfaceInfo(
        fourcc=fourcc("XR24"), width=width, height=height, stride=width * 4, size=size or width * height * 4
    )


def exported(kernel: FakeKernel, size: int, *, mmap_errno: int = 0, cloexec: bool = True) -> int:
    """A descriptor of a new dma-buf."""
    return kernel.export(DmaBufFile("dma-buf", size, kernel, mmap_errno=mmap_errno), cloexec=cloexec)


def test_a_dmabuf_closes_the_descriptor_it_took(kernel: FakeKernel) -> None:
    """It owns what it was given; close() is idempotent."""
    buffer = DmaBuf(exported(kernel, 4 * PAGE), surface())
    buffer.close()
    buffer.close()
    assert kernel.calls.releases() == ["close dma-buf"]
    assert len(kernel.calls.of("close")) == 1


def test_a_descriptor_is_made_close_on_exec(kernel: FakeKernel) -> None:
    """Mbochs exports without it (gotcha 17): a child process must not keep the buffer."""
    fd = exported(kernel, 4 * PAGE, cloexec=False)
    assert os.get_inheritable(fd)
    with DmaBuf(fd, surface()) as buffer:
        assert not os.get_inheritable(fd)
        with buffer.dup() as twin:
            assert not os.get_inheritable(twin.fileno())


def test_a_duplicate_is_an_owner_of_its_own_with_the_same_key(kernel: FakeKernel) -> None:
    """Closing one leaves the other open, and an importer knows both for the same buffer."""
    with DmaBuf(exported(kernel, 4 * PAGE), surface()) as buffer:
        twin = buffer.dup()
    assert twin.key == buffer.key
    assert twin.fileno() != -1
    assert os.fstat(twin.fileno()).st_size == 4 * PAGE
    with pytest.raises(Closed):
        buffer.fileno()
    twin.close()
    assert [call.last for call in kernel.calls.of("close")] == [False, True]


def test_a_duplicate_may_show_another_surface(kernel: FakeKernel) -> None:
    """The cache hands a kept buffer out with the surface of the latest query."""
    moved = surface(32, 32)
    with DmaBuf(exported(kernel, 4 * PAGE), surface()) as buffer, buffer.dup(moved) as twin:
        assert twin.surface is moved


def test_two_buffers_have_two_keys() -> None:
    """Keys never come twice in a process, and 0 is none."""
    keys = [new_key() for _ in range(100)]
    assert len(set(keys)) == 100
    assert 0 not in keys


def test_running_out_of_descriptors_closes_what_was_made(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second of two duplicates fails, the first is not leaked."""
    nv12 = SurfaceInfo(fourcc=fourcc("NV12"), width=64, height=64, stride=64, size=64 * 96)
    real, left = fcntl.fcntl, [1]

    def limited(fd: int, command: int, *arguments: int) -> int:
        if command == fcntl.F_DUPFD_CLOEXEC:
            if not left:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            left.pop()
        return real(fd, command, *arguments)

    with DmaBuf([exported(kernel, PAGE), exported(kernel, 2 * PAGE)], nv12, device="d") as buffer:
        monkeypatch.setattr(fcntl, "fcntl", limited)
        with pytest.raises(DriverError, match="duplicating a dma-buf failed: EMFILE") as caught:
            buffer.dup()
        assert len(kernel.leaks()) == 2
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize("size", [0, 1, PAGE, 64 * 64 * 4 - 1])
def test_a_buffer_smaller_than_its_picture_is_refused_and_closed(kernel: FakeKernel, size: int) -> None:
    """The true size is asked by seeking to the end (gotcha 14); the descriptor is not leaked."""
    with pytest.raises(BadSurface, match=f"takes 16384 bytes, the dma-buf has {size}"):
        DmaBuf(exported(kernel, size), surface(), device="d")
    assert kernel.leaks() == []


def test_the_true_size_counts_and_not_the_report(kernel: FakeKernel) -> None:
    """A driver that rounds its report up is believed only as far as its buffer goes."""
    with DmaBuf(exported(kernel, 16384), surface(size=1 << 30)) as buffer:
        assert buffer.size == 16384
        assert os.lseek(buffer.fileno(), 0, os.SEEK_CUR) == 0


def test_a_buffer_that_cannot_be_measured_is_believed() -> None:
    """Where seeking is refused the report is all there is."""
    fd, other = os.pipe()
    os.close(other)
    with DmaBuf(fd, surface(size=20000)) as buffer:
        assert buffer.size == 20000


@pytest.mark.parametrize("count", [0, 3])
def test_one_descriptor_or_one_a_plane(kernel: FakeKernel, count: int) -> None:
    """Any other number makes no sense, and leaks nothing."""
    with pytest.raises(BadSurface, match=f"{count} descriptors for 1 memory planes"):
        DmaBuf([exported(kernel, 16384) for _ in range(count)], surface())
    assert kernel.leaks() == []


@pytest.mark.parametrize(("sizes", "words"), [((8191, 12288), "plane 0 takes 8192"), ((8192, 12223), "plane 1 takes")])
def test_each_of_several_descriptors_is_measured(kernel: FakeKernel, sizes: tuple[int, int], words: str) -> None:
    """Up to the end of its own memory plane; nothing is leaked."""
    nv12 = SurfaceInfo(fourcc=fourcc("NV12"), width=64, height=64, stride=128, size=128 * 96)
    assert nv12.needed == 12224
    with pytest.raises(BadSurface, match=words):
        DmaBuf([exported(kernel, size) for size in sizes], nv12, device="d")
    assert kernel.leaks() == []


@pytest.mark.parametrize("bad", [0, 1])
def test_a_descriptor_that_is_not_open_is_an_error_of_ours(kernel: FakeKernel, bad: int) -> None:
    """EBADF with the device, and the other descriptor is closed."""
    nv12 = SurfaceInfo(fourcc=fourcc("NV12"), width=64, height=64, stride=128, size=128 * 96)
    fds = [exported(kernel, 12288), 999_999]
    with pytest.raises(DriverError, match="d: taking over descriptor 999999 of a dma-buf failed: EBADF"):
        DmaBuf(fds[::-1] if bad else fds, nv12, device="d")
    assert kernel.leaks() == []


def test_every_descriptor_is_closed_even_if_one_fails(kernel: FakeKernel) -> None:
    """The first error comes out at the end."""
    nv12 = SurfaceInfo(fourcc=fourcc("NV12"), width=64, height=64, stride=128, size=128 * 96)
    buffer = DmaBuf([exported(kernel, 12288), exported(kernel, 12288)], nv12, device="d")
    os.close(buffer.fds[0])
    with pytest.raises(DriverError, match="d: closing a dma-buf failed: EBADF"):
        buffer.close()
    assert kernel.leaks() == []
    buffer.close()


def test_planes_are_what_an_importer_wants(kernel: FakeKernel) -> None:
    """Descriptor, offset and stride of each memory plane; one descriptor serves them all."""
    nv12 = SurfaceInfo(fourcc=fourcc("NV12"), width=64, height=64, stride=128, size=128 * 96, modifier=0)
    with DmaBuf(exported(kernel, 128 * 96), nv12) as buffer:
        fd = buffer.fileno()
        assert [(plane.fd, plane.offset, plane.stride) for plane in buffer.planes] == [(fd, 0, 128), (fd, 8192, 128)]
        assert (buffer.fourcc, buffer.modifier) == (nv12.fourcc, 0)
    with DmaBuf([exported(kernel, 8192), exported(kernel, 12288)], nv12) as buffer:
        assert [plane.fd for plane in buffer.planes] == list(buffer.fds)


def test_only_whole_pages_are_mapped(kernel: FakeKernel) -> None:
    """dma_buf_mmap_internal compares with size >> 12 (gotcha 5): the rest of a page is left out."""
    with DmaBuf(exported(kernel, 5 * PAGE + 100), surface()) as buffer, buffer.map() as region:
        assert region.size == 5 * PAGE
    assert [(call.offset, call.size) for call in kernel.calls.of("mmap")] == [(0, 5 * PAGE)]


def test_a_picture_that_ends_in_part_of_a_page_cannot_be_mapped(kernel: FakeKernel) -> None:
    """800x600, tightly packed: the last 3,584 bytes are out of reach, and mmap is not tried (gotcha 5)."""
    shown = surface(800, 600)
    with (
        DmaBuf(exported(kernel, shown.size), shown, device="d") as buffer,
        pytest.raises(NotMappable, match=r"takes 1920000 bytes and only 1916928 of the dma-buf's 1920000") as caught,
    ):
        buffer.map()
    assert caught.value.hint.startswith("import it in the GPU")
    assert kernel.calls.of("mmap") == []


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EACCES])
def test_an_exporter_that_refuses_is_not_mappable(kernel: FakeKernel, number: int) -> None:
    """GVT-g says ENODEV, mbochs EINVAL (gotcha 6): the same error, with the errno and the driver's own hint."""
    with (
        DmaBuf(exported(kernel, 16384, mmap_errno=number), surface(), device="d") as buffer,
        pytest.raises(NotMappable) as caught,
    ):
        buffer.map(hint="on the same Intel GPU")
    assert caught.value.errno == number
    assert caught.value.hint == "on the same Intel GPU"
    assert caught.value.device == "d"


def test_a_read_is_bracketed(kernel: FakeKernel) -> None:
    """START|READ before the first byte, END|READ after the last."""
    with DmaBuf(exported(kernel, 16384), surface()) as buffer:
        buffer.begin_read()
        buffer.end_read()
    assert [(call.request, call.sent) for call in kernel.calls.of("ioctl")] == [
        (DMA_BUF_IOCTL_SYNC, START_READ),
        (DMA_BUF_IOCTL_SYNC, END_READ),
    ]
    assert DMA_BUF_IOCTL_SYNC == 0x40086200


def test_a_memfd_has_nothing_to_synchronise(kernel: FakeKernel) -> None:
    """A memfd that stands in for a dma-buf answers ENOTTY, which is fine."""
    fd = os.memfd_create("plain")
    os.ftruncate(fd, 16384)
    with DmaBuf(fd, surface()) as buffer:
        buffer.begin_read()
        buffer.end_read()
    assert kernel.calls == []


class Syncing(DmaBufFile):
    """A dma-buf whose exporter fails the first synchronisations."""

    def __init__(self, kernel: FakeKernel, number: int, times: int) -> None:
        super().__init__("dma-buf", 16384, kernel)
        self.number, self.times = number, times

    def ioctl(self, request: int, user: object) -> int:
        if self.times:
            self.times -= 1
            raise OSError(self.number, "")
        return 0


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR])
def test_a_busy_synchronisation_is_tried_again(kernel: FakeKernel, number: int) -> None:
    """EAGAIN and EINTR mean: once more."""
    with DmaBuf(kernel.export(Syncing(kernel, number, 3)), surface()) as buffer:
        buffer.begin_read()
    assert [call.errno for call in kernel.calls.of("ioctl")] == [number, number, number, 0]


def test_a_failed_synchronisation_is_an_error(kernel: FakeKernel) -> None:
    """Anything else from the exporter is DriverError with its errno."""
    with (
        DmaBuf(kernel.export(Syncing(kernel, errno.EIO, 1)), surface(), device="d") as buffer,
        pytest.raises(DriverError, match="synchronising") as caught,
    ):
        buffer.begin_read()
    assert caught.value.errno == errno.EIO


def test_a_closed_dmabuf_can_only_say_so(kernel: FakeKernel) -> None:
    """Every use after close() is Closed, never a system call on a descriptor that may be another's by now."""
    buffer = DmaBuf(exported(kernel, 16384), surface(), device="d")
    buffer.close()
    for use in (buffer.fileno, buffer.map, buffer.dup, buffer.begin_read, lambda: buffer.planes):
        with pytest.raises(Closed, match="d: the dma-buf was closed before"):
            use()
    assert repr(buffer).endswith("closed>")


def test_a_forgotten_dmabuf_warns_and_is_closed(kernel: FakeKernel) -> None:
    """A ResourceWarning with the device, and no leaked descriptor."""
    held = [DmaBuf(exported(kernel, 16384), surface(), device="vm:win10")]
    with pytest.warns(ResourceWarning, match="vm:win10: a dma-buf was not closed"):
        held.clear()
    assert kernel.leaks() == []


def test_a_memfd_has_no_exporter(kernel: FakeKernel) -> None:
    """Fdinfo names the exporter of a true dma-buf; anything else, and anything gone, has none."""
    with DmaBuf(exported(kernel, 16384), surface()) as buffer:
        assert buffer.exporter == ""
    assert exporter_of(999_999) == ""


def test_the_exporter_is_in_fdinfo(kernel: FakeKernel) -> None:
    """By the name of its module."""
    fd = kernel.export(DmaBufFile("dma-buf", 16384, kernel, exporter="i915"))
    with DmaBuf(fd, surface()) as buffer:
        assert buffer.exporter == "i915"
