"""The one call of mmap: mappings hold no descriptor, and detached views stay readable."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay._mapping import PAGE, Mapping, page_up


@pytest.fixture
def memory() -> Iterator[int]:
    """A memfd of three pages with a pattern."""
    fd = os.memfd_create("mapping-test")
    os.write(fd, bytes(range(256)) * (3 * PAGE // 256))
    yield fd
    with contextlib.suppress(OSError):  # a test may have closed it
        os.close(fd)


def _maps() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "mapping-test" in line]


def _descriptors() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.append(str(link.readlink()))
    return [name for name in found if "mapping-test" in name]


def test_a_mapping_shows_the_bytes_and_follows_them(memory: int) -> None:
    """It is shared: what the driver writes later is seen without a new mapping."""
    view = np.asarray(Mapping(memory, PAGE, PAGE))
    assert view.shape == (PAGE,)
    assert view.dtype == np.uint8
    assert bytes(view[:4]) == b"\0\1\2\3"
    os.pwrite(memory, b"\xff", PAGE)
    assert view[0] == 0xFF


def test_a_mapping_cannot_be_written(memory: int) -> None:
    """Neither NumPy nor the page tables allow it."""
    mapping = Mapping(memory, 0, PAGE)
    assert not np.asarray(mapping).flags.writeable
    assert _maps()[0].split()[1] == "r--s"


def test_a_mapping_holds_no_descriptor(memory: int) -> None:
    """Closing the descriptor leaves none behind, and the memory readable (gotcha 17: Python's own mmap keeps one)."""
    view = np.asarray(Mapping(memory, 0, PAGE))
    os.close(memory)
    assert _descriptors() == []
    assert view[3] == 3


def test_a_detached_view_reads_zeros_and_holds_nothing(memory: int) -> None:
    """detach() swaps zero pages in, in place: old views survive, the file is not mapped any more."""
    mapping = Mapping(memory, 0, 2 * PAGE)
    view = np.asarray(mapping)[10:]
    assert view.any()
    mapping.detach()
    assert _maps() == []
    assert view.size == 2 * PAGE - 10
    assert not view.any()


def test_the_memory_goes_with_the_last_view(memory: int) -> None:
    """The mapping lives as long as an array made from it, and no longer."""
    view = np.asarray(Mapping(memory, 0, PAGE))[100:200]
    gc.collect()
    assert len(_maps()) == 1
    del view
    gc.collect()
    assert _maps() == []


@pytest.mark.parametrize(
    ("offset", "size", "number"), [(0, 0, errno.EINVAL), (1, PAGE, errno.EINVAL), (0, 1 << 62, errno.ENOMEM)]
)
def test_the_kernels_refusal_is_an_oserror(memory: int, offset: int, size: int, number: int) -> None:
    """Empty, unaligned and enormous mappings fail with the kernel's errno, and nothing is unmapped by mistake."""
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        Mapping(memory, offset, size)
    assert caught.value.errno == number


def test_a_bad_descriptor_is_ebadf() -> None:
    """A descriptor that is not open is refused by the kernel."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(-1, 0, PAGE)


@given(st.integers(0, 1 << 40))
def test_pages_are_rounded_up(size: int) -> None:
    """page_up gives the least whole number of pages."""
    rounded = page_up(size)
    assert rounded % PAGE == 0
    assert 0 <= rounded - size < PAGE
