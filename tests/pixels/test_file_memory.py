from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import BadSurface, NotMappable
from mdevdisplay.formats import fourcc
from mdevdisplay.pixels.file_memory import FileMemory
from mdevdisplay.pixels.memory import SurfaceMemory
from mdevdisplay.region import Mappable, can_shrink
from mdevdisplay.surface import SurfaceInfo
from pixels.memfd import sealed_memfd

OFFSET = 24


def surface_of(code: str = "XR24", *, stride: int = 0) -> SurfaceInfo:
    pitch = stride or 32 * 4
    return SurfaceInfo(fourcc=fourcc(code), width=32, height=16, stride=pitch, size=pitch * 16)


class FileBackend:
    """A backend whose pixels begin at byte 24 of a file that anybody may truncate."""

    map_hint = region_hint = ""

    def __init__(self, path: Path, size: int) -> None:
        self.bytes = np.random.default_rng(5).integers(0, 256, size, np.uint8)
        path.write_bytes(self.bytes.tobytes())
        self.fd = os.open(path, os.O_RDWR)

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:
        return Mappable(fd=self.fd, offset=0, size=OFFSET + surface.size, pixel_offset=OFFSET)

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        raise AssertionError(surface)


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    return FileBackend(tmp_path / "pixels", OFFSET + 256 * 16)


def copy_of(memory: object) -> np.ndarray:
    assert isinstance(memory, FileMemory)
    assert memory.mapping is None
    target = np.empty(memory.extent, np.uint8)
    memory.copy_into(target)
    return target


@pytest.mark.parametrize("stride", [128, 132, 256])
def test_a_file_is_read(backend: FileBackend, stride: int) -> None:
    """Bytes come as they lie, up to the last row's last pixel; rows come out packed, whatever their stride."""
    memory = SurfaceMemory(backend).find(surface_of(stride=stride))
    assert isinstance(memory, FileMemory)
    assert np.array_equal(copy_of(memory), backend.bytes[OFFSET:][: 15 * stride + 128])
    rows = np.empty((16, 128), np.uint8)
    memory.copy_rows_into(rows)
    assert np.array_equal(rows, [backend.bytes[OFFSET + row * stride :][:128] for row in range(16)])
    os.close(backend.fd)


def test_an_unknown_layout_is_read_as_it_lies(backend: FileBackend) -> None:
    """A vendor's own format comes out byte for byte."""
    surface = surface_of("ACME")
    assert np.array_equal(copy_of(SurfaceMemory(backend).find(surface)), backend.bytes[OFFSET:][: surface.size])
    os.close(backend.fd)


def test_a_file_that_is_truncated_costs_an_error_and_no_signal(backend: FileBackend) -> None:
    """A mapping of it would kill the process; reading it says how much is left."""
    memory = SurfaceMemory(backend, "a device").find(surface_of())
    assert isinstance(memory, FileMemory)
    target = copy_of(memory)
    os.truncate(backend.fd, 100)
    said = r"a device: .*the file has 76"
    with pytest.raises(BadSurface, match=said):
        assert memory.extent  # nothing is allocated for what is not there
    with pytest.raises(BadSurface, match=said):
        memory.copy_into(target)
    with pytest.raises(BadSurface, match=said):
        memory.copy_rows_into(target.reshape(16, 128))
    os.close(backend.fd)


def test_there_is_nothing_to_look_at(backend: FileBackend) -> None:
    """map() is refused, and the message says what would make it safe."""
    with pytest.raises(NotMappable, match="F_SEAL_SHRINK"):
        SurfaceMemory(backend).find(surface_of()).view()
    os.close(backend.fd)


def test_what_can_shrink() -> None:
    """Files on disk and unsealed memfds can; sealed memfds, pipes and devices cannot."""
    sealed, unsealed = sealed_memfd("sealed"), os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    null = os.open(os.devnull, os.O_RDONLY)
    assert [can_shrink(fd) for fd in (sealed, unsealed, null)] == [False, True, False]
    for fd in (sealed, unsealed, null):
        os.close(fd)
