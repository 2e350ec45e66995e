"""What the importer keeps, refuses and leaves alone, on llvmpipe."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import numpy as np
import pytest
from gpu_pictures import RGB, YUV, Picture, expected_rgb, picture
from pixels.holdings import holdings, nothing_new_since, shared_mappings
from pixels.memfd import sealed_memfd

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import BadSurface, Closed, DriverError, NotMappable, UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import INVALID, X_TILED, Y_TILED, fourcc
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.context import Context
from mdevdisplay.gpu.importer import GpuImporter, importer_for
from mdevdisplay.surface import SurfaceInfo


def shows(importer: GpuImporter, made: Picture, data: np.ndarray) -> bool:
    target = made.target
    importer.read(made.dmabuf, target)
    return np.array_equal(target, expected_rgb("XR24", made.raw(data)))


def test_a_memfd_is_read_by_the_processor() -> None:
    """What no GPU has exported is imported into llvmpipe, whatever the parent."""
    with (
        picture("XR24", 16, 16) as made,
        importer_for(made.dmabuf, parent="0000:00:02.0", device="sim:") as importer,
    ):
        assert importer.renderer.startswith("llvmpipe")
        assert shows(importer, made, made.data)


@pytest.mark.parametrize("code", ["XR24", "XR30", "NV12"])
def test_what_is_drawn_later_shows_without_another_import(importer: GpuImporter, code: str) -> None:
    """The image is of the memory, not a copy: each read shows what is there then."""
    with picture(code, 61, 47) as made:
        seen = []
        for value in (0, 255, 7):
            made.write(np.full_like(made.data, value))
            target = made.target
            importer.read(made.dmabuf, target)
            seen.append(target.copy())
        assert importer.images == 1
        assert not np.array_equal(seen[0], seen[1])
        assert not np.array_equal(seen[1], seen[2])


def test_a_buffer_is_read_after_its_descriptor_was_closed_and_lent_again(importer: GpuImporter) -> None:
    """The key is the buffer: another DmaBuf of the same one needs no import, and sees the same memory."""
    with picture("XR24", 32, 32) as made:
        with made.dmabuf.dup() as copy:
            assert shows(importer, Picture(copy, made.data), made.data)
        changed = made.data[::-1].copy()
        made.write(changed)
        assert shows(importer, made, changed)
        assert importer.images == 1


def test_another_layout_of_the_same_buffer_is_imported_anew(importer: GpuImporter) -> None:
    """A surface of the same buffer with another size is not read with the old one's."""
    with picture("XR24", 32, 32) as made:
        assert shows(importer, made, made.data)
        narrow = attrs.evolve(made.dmabuf.surface, width=16)
        with made.dmabuf.dup(narrow) as copy:
            assert shows(importer, Picture(copy, made.data), made.data)
        assert shows(importer, made, made.data)
        assert importer.images == 1


def test_two_buffers_stay_apart(importer: GpuImporter) -> None:
    """Reading one after the other in turns shows each one's own pixels."""
    with picture("XR24", 32, 32, seed=1) as one, picture("XR24", 64, 16, seed=2) as other:
        for _ in range(3):
            assert shows(importer, one, one.data)
            assert shows(importer, other, other.data)
        assert importer.images == 2


def test_at_most_eight_buffers_stay_imported_the_latest_read(importer: GpuImporter) -> None:
    """The ninth takes the place of the one that was read longest ago."""
    with ExitStack() as stack:
        many = [stack.enter_context(picture("XR24", 8, 8, seed=seed)) for seed in range(9)]
        for made in many[:8]:
            assert shows(importer, made, made.data)
        first_fd_mappings = shared_mappings("memfd:picture")
        assert len(first_fd_mappings) == 8
        assert shows(importer, many[0], many[0].data)
        assert shows(importer, many[8], many[8].data)
        assert importer.images == 8
        assert len(shared_mappings("memfd:picture")) == 8
        inode = os.fstat(many[1].dmabuf.fileno()).st_ino
        assert not any(line.split()[4] == str(inode) for line in shared_mappings("memfd:picture"))


def test_forget_lets_go_of_the_memory(importer: GpuImporter) -> None:
    """Nothing of the buffer is mapped or open once its image and its owner are gone; forgetting twice is nothing."""
    before = holdings()
    with picture("NV12", 64, 64) as made:
        importer.read(made.dmabuf, made.target)
        assert not nothing_new_since(before)
        importer.forget(made.dmabuf.key)
        importer.forget(made.dmabuf.key)
        assert importer.images == 0
        assert shared_mappings("memfd:picture") == []
        importer.read(made.dmabuf, made.target)
        importer.forget(made.dmabuf.key)
    assert nothing_new_since(before)


def test_close_lets_go_of_everything_and_refuses_the_next_read() -> None:
    """close() twice is nothing, a read after it is Closed; no descriptor and no mapping is left."""
    with GpuImporter(None):
        pass  # EGL's own display stays for the life of the process
    before = holdings()
    importer = GpuImporter(None, device="sim:")
    with picture("XR24", 64, 64) as made, picture("YUYV", 64, 64) as other:
        importer.read(made.dmabuf, made.target)
        importer.read(other.dmabuf, other.target)
        importer.close()
        importer.close()
        importer.forget(made.dmabuf.key)
        assert shared_mappings("memfd:picture") == []
        with pytest.raises(Closed, match="sim:"):
            importer.read(made.dmabuf, made.target)
    assert nothing_new_since(before)


def test_a_forgotten_importer_is_a_warning_and_lets_go() -> None:
    """Who drops an importer without close() is told; its memory is let go all the same."""
    importer = GpuImporter(None, device="sim:")
    with picture("XR24", 64, 64) as made:
        importer.read(made.dmabuf, made.target)
    with pytest.warns(ResourceWarning, match="'sim:'.* was not closed"):
        del importer
    assert shared_mappings("memfd:picture") == []


def resident() -> int:
    """Bytes of this process in memory, without what is mapped from files."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_thousands_of_buffers_and_modes_leave_nothing(importer: GpuImporter) -> None:
    """Buffers come and go in every size and format; memory, descriptors, mappings and images stay flat."""

    def play(rounds: int) -> None:
        for number in range(rounds):
            code = (*RGB, *YUV)[number % 14]
            with picture(code, 16 + number % 7 * 24, 16 + number % 5 * 20, seed=number) as made:
                importer.read(made.dmabuf, made.target)
                importer.read(made.dmabuf, made.target)
                if number % 3:
                    importer.forget(made.dmabuf.key)

    play(500)
    before, size = holdings(), resident()
    images = importer.images
    play(3000)
    assert importer.images <= max(8, images)
    assert len(shared_mappings("memfd:picture")) <= 16
    assert len(holdings().descriptors) <= len(before.descriptors) + 16
    assert resident() - size < 4 << 20


def test_importers_that_come_and_go_leave_nothing() -> None:
    """A context is made and destroyed two hundred times: memory and descriptors stay flat."""

    def play(rounds: int) -> None:
        for _ in range(rounds):
            with picture("RG16", 16, 16) as made, GpuImporter(None) as importer:
                importer.read(made.dmabuf, made.target)

    play(20)
    before, size = holdings(), resident()
    play(200)
    assert nothing_new_since(before)
    assert resident() - size < 8 << 20


def test_any_thread_may_read_one_after_the_other(importer: GpuImporter) -> None:
    """The context is nobody's between two calls."""
    found: list[bool] = []
    with picture("XR30", 32, 32) as made:
        expected = expected_rgb("XR30", made.raw())

        def read() -> None:
            target = made.target
            importer.read(made.dmabuf, target)
            found.append(np.array_equal(target, expected))

        for _ in range(5):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        read()
    assert found == [True] * 6


def test_two_importers_read_in_two_threads_at_once() -> None:
    """Displays do not share a context, and neither sees the other's pixels."""
    wrong: list[int] = []

    def read(seed: int) -> None:
        with picture("XR24", 200, 100, seed=seed) as made, GpuImporter(None) as importer:
            wrong.extend(seed for _ in range(200) if not shows(importer, made, made.data))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@contextmanager
def context_of_somebody_else() -> Iterator[int]:
    theirs = Context(None, "")
    with theirs.current():
        yield egl.library().eglGetCurrentContext()
    theirs.close()


def test_the_context_of_the_calling_thread_is_its_own_again(importer: GpuImporter) -> None:
    """A program that draws in this thread finds its context and its API as they were, errors included."""
    call = egl.library()
    api = call.eglQueryAPI()
    with picture("XR24", 8, 8) as made, picture("XR24", 128, 8, modifier=X_TILED) as tiled:
        importer.read(made.dmabuf, made.target)
        assert call.eglGetCurrentContext() is None
        assert call.eglQueryAPI() == api
        with context_of_somebody_else() as theirs:
            assert shows(importer, made, made.data)
            assert call.eglGetCurrentContext() == theirs
            with pytest.raises(UnsupportedModifier):
                importer.read(tiled.dmabuf, tiled.target)
            assert call.eglGetCurrentContext() == theirs


def test_a_context_that_another_thread_uses_is_refused(importer: GpuImporter) -> None:
    """Two calls at once are not served: the second says what EGL says, and the first goes on."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with importer._open().current():
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    with picture("XR24", 8, 8) as made:
        with pytest.raises(DriverError, match="EGL_BAD_ACCESS") as caught:
            importer.read(made.dmabuf, made.target)
        leave.set()
        thread.join()
        assert caught.value.cause == "gpu-failed"
        assert shows(importer, made, made.data)


def test_a_forked_child_is_refused_and_closes_without_touching_egl(importer: GpuImporter) -> None:
    """In the child read() is Closed and close() only forgets; the parent's importer works on."""
    with picture("XR24", 8, 8) as made:
        assert shows(importer, made, made.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, which are llvmpipe's here
            child = os.fork()
        if child == 0:
            status = 1
            try:
                importer.read(made.dmabuf, made.target)
            except Closed as error:
                status = 2 if "fork" in str(error) else 1
                importer.close()
                importer.close()
                status += importer.images
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert shows(importer, made, made.data)


def test_what_may_shrink_is_not_imported_into_the_processor(importer: GpuImporter) -> None:
    """The software renderer would map it, and reading behind the new end would be SIGBUS."""
    fd = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, 4096)
    surface = SurfaceInfo(fourcc=fourcc("XR24"), width=16, height=16, stride=64, size=4096)
    with DmaBuf(fd, surface) as dmabuf:
        with pytest.raises(NotMappable, match="F_SEAL_SHRINK"):
            importer.read(dmabuf, np.zeros((16, 16, 4), np.uint8))
        assert importer.images == 0


@pytest.mark.parametrize("code", ["XR24", "RG16", "NV12"])
def test_what_cannot_be_mapped_is_not_given_to_the_software_renderer(importer: GpuImporter, code: str) -> None:
    """Mesa would leak a mapping or die; a memfd by a descriptor that may only be read stands for such a buffer."""
    with picture(code, 64, 64) as made:
        readable = os.open(f"/proc/self/fd/{made.dmabuf.fileno()}", os.O_RDONLY)
        dmabuf = DmaBuf(readable, made.dmabuf.surface)
        with dmabuf, pytest.raises(NotMappable, match=r"sim:.*mapping a dma-buf of a memfd for.*EACCES") as caught:
            importer.read(dmabuf, made.target)
        assert caught.value.cause == "import-refused"
        assert importer.images == 0


@pytest.mark.parametrize("modifier", [X_TILED, Y_TILED, INVALID])
def test_a_layout_that_the_renderer_does_not_know_is_refused_by_name(importer: GpuImporter, modifier: int) -> None:
    """A tiled buffer is never read as if it were linear, and INVALID never passed on."""
    with picture("XR24", 128, 32, modifier=modifier) as made:
        target = made.target
        with pytest.raises(UnsupportedModifier, match=r"sim:.*llvmpipe.*as LINEAR, not as (I915_[XY]_TILED|INVALID)"):
            importer.read(made.dmabuf, target)
        assert (target == 0xA5).all()


@pytest.mark.parametrize("code", ["C8", "ZZZZ", "R8"])
def test_a_format_without_known_colours_is_refused_by_name(importer: GpuImporter, code: str) -> None:
    """C8 has no palette; what is not in our table has no meaning to us even where the driver imports it."""
    fd = sealed_memfd("picture")
    os.truncate(fd, 4096)
    surface = SurfaceInfo(fourcc=fourcc(code), width=16, height=16, stride=64, size=4096)
    with DmaBuf(fd, surface) as dmabuf, pytest.raises(UnsupportedFormat, match=f"does not import {code}"):
        importer.read(dmabuf, np.zeros((16, 16, 4), np.uint8))


@pytest.mark.parametrize(("width", "height"), [(1, 32767), (32767, 1)])
def test_a_side_longer_than_a_texture_is_refused_with_the_limit(importer: GpuImporter, width: int, height: int) -> None:
    """The report says how long a side may be."""
    with (
        picture("XR24", width, height) as made,
        pytest.raises(BadSurface, match=r"at most 16384 texels a side, and this takes 32767"),
    ):
        importer.read(made.dmabuf, made.target)


@pytest.mark.parametrize("side", [16384, 1])
def test_the_longest_side_is_read(importer: GpuImporter, side: int) -> None:
    """The limit itself is no error, nor is a single pixel."""
    for width, height in ((side, 1), (1, side)):
        with picture("XR24", width, height) as made:
            assert shows(importer, made, made.data)


@pytest.mark.parametrize(
    "target",
    [
        np.zeros((8, 9, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((8, 8, 4), np.int8),
        np.zeros((8, 16, 4), np.uint8)[:, ::2],
        np.frombuffer(bytes(256), np.uint8).reshape(8, 8, 4),
    ],
)
def test_a_target_that_does_not_fit_is_refused(importer: GpuImporter, target: np.ndarray) -> None:
    """Wrong shape, wrong type, rows with gaps, read-only: nothing is written anywhere."""
    with picture("XR24", 8, 8) as made, pytest.raises(ValueError, match=r"of shape \(8, 8, 4\)"):
        importer.read(made.dmabuf, target)


def test_what_opengl_noted_of_somebody_else_is_an_error_once(importer: GpuImporter) -> None:
    """A failure of the GPU drops the image and is told; the next read imports again and works."""
    with picture("XR24", 8, 8) as made:
        assert shows(importer, made, made.data)
        with importer._open().current():
            egl.library().glBindTexture(0xFFFF, ctypes.c_uint(0))
        with pytest.raises(DriverError, match=r"sim:.*reading an imported buffer back.*0x500"):
            importer.read(made.dmabuf, made.target)
        assert importer.images == 0
        assert shows(importer, made, made.data)
