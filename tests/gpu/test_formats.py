"""Every format and geometry, imported into llvmpipe, against what the pixels mean."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_pictures import RGB, YUV, expected_rgb, expected_yuv, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from mdevdisplay.formats import fourcc, lookup
from mdevdisplay.gpu.importer import GpuImporter
from mdevdisplay.pixels import yuv

sides = st.integers(1, 70)
paddings = st.integers(0, 40)
offsets = st.integers(0, 5000)


def unit(code: str) -> int:
    """Bytes of an element: strides and offsets that split one are refused before anything is imported."""
    layout = lookup(fourcc(code))
    assert layout is not None
    return int(layout.dtype[1])


@pytest.mark.parametrize("code", RGB)
@settings(max_examples=40)
@given(width=sides, height=sides, padding=paddings, offset=offsets, seed=st.integers(0, 1000))
def test_rgb_is_exact_whatever_the_geometry(
    importer: GpuImporter, code: str, width: int, height: int, padding: int, offset: int, seed: int
) -> None:
    """Odd sizes, strides and offsets; 8-bit channels as they are, others rounded to the nearest; X is 255."""
    with picture(code, width, height, padding=padding * unit(code), offset=offset * unit(code), seed=seed) as made:
        target = made.target
        importer.read(made.dmabuf, target)
        assert np.array_equal(target, expected_rgb(code, made.raw()))


@pytest.mark.parametrize("code", YUV)
@settings(max_examples=40)
@given(width=sides, height=sides, padding=paddings, offset=offsets, seed=st.integers(0, 1000))
def test_yuv_is_right_to_less_than_a_level_whatever_the_geometry(
    importer: GpuImporter, code: str, width: int, height: int, padding: int, offset: int, seed: int
) -> None:
    """Limited range and the chroma of a pixel's own block; 32-bit floats may round the other way at a half."""
    with picture(code, width, height, padding=padding * unit(code), offset=offset * unit(code), seed=seed) as made:
        target = made.target
        importer.read(made.dmabuf, target)
        assert np.abs(target - expected_yuv(code, made.raw(), width, height)).max() < 0.502


@pytest.mark.parametrize("code", YUV)
@pytest.mark.parametrize(("width", "height"), [(1280, 16), (1278, 16), (64, 576), (64, 577)])
def test_yuv_has_the_matrix_that_pictures_in_mapped_memory_have(
    importer: GpuImporter, code: str, width: int, height: int
) -> None:
    """Where the size changes the matrix, it does so as in the conversion by the CPU."""
    with picture(code, width, height, seed=height) as made:
        target = made.target
        importer.read(made.dmabuf, target)
        by_cpu = yuv.to_bgra(made.raw(), made.dmabuf.surface)
    difference = np.abs(target.astype(int) - by_cpu)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("code", [*RGB, *YUV])
def test_a_whole_screen_is_read(importer: GpuImporter, code: str) -> None:
    """1920x1080, padded rows: nothing is left as it was, and the last rows are right."""
    with picture(code, 1920, 1080, padding=256, offset=4096, page=True) as made:
        target = made.target
        importer.read(made.dmabuf, target)
        if code in RGB:
            assert np.array_equal(target, expected_rgb(code, made.raw()))
        else:
            assert np.abs(target - expected_yuv(code, made.raw(), 1920, 1080)).max() < 0.502


@pytest.mark.parametrize("code", [*RGB, *YUV])
def test_nothing_is_read_behind_the_last_page(importer: GpuImporter, code: str) -> None:
    """A picture that ends with its buffer's last page, where the next byte may be nobody's."""
    with picture(code, 128, 64) as made:
        assert made.data.size % 4096 == 0
        target = made.target
        importer.read(made.dmabuf, target)
        assert target[-1, -1, 3] == (made.raw()[-1, -1, 3] if code[0] == "A" else 255)
