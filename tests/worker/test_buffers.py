"""Memory that two processes map: lent, given back, made anew, and never overwritten while somebody looks."""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels.holdings import eventually, holdings, nothing_new_since, shared_mappings
from pixels.memfd import sealed_memfd

from mdevdisplay.errors import DriverError
from mdevdisplay.worker.buffers import HUGE, Buffer, MappedBuffers, NeedBytes, SharedBuffers, SharedMapping
from mdevdisplay.worker.wire import BadMessage


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = holdings()
    yield
    assert eventually(lambda: nothing_new_since(before))


def made(buffers: SharedBuffers, size: int) -> Buffer:
    buffer, fd = buffers.make(size, "dev")
    os.close(fd)
    return buffer


def test_both_sides_see_the_same_bytes() -> None:
    """What the worker writes is in the program's array; both closed the descriptor."""
    buffers, mapped = SharedBuffers(), MappedBuffers()
    buffer, fd = buffers.make(5000, "dev")
    mapped.add(buffer.number, fd)
    os.close(fd)
    mapped.use(buffer.number)
    mapped.take(5000).data[:] = 9
    array = buffers.lend(buffer)
    assert (array[:5000] == 9).all()
    assert not array[5000:].any()
    assert array.size == buffer.size == 8192


def test_a_buffer_keeps_the_note_of_what_it_holds() -> None:
    """The worker knows of each buffer what it wrote there last, so that it has to write only what changed."""
    buffers, mapped = SharedBuffers(), MappedBuffers()
    numbers = []
    for _ in range(2):
        buffer, fd = buffers.make(4096, "dev")
        mapped.add(buffer.number, fd)
        os.close(fd)
        numbers.append(buffer.number)
    for number in numbers:
        mapped.use(number)
        assert mapped.take(100).storage.holds is None
        mapped.take(100).storage.holds = (1, number)
    for number in numbers:
        mapped.use(number)
        assert mapped.take(4096).storage.holds == (1, number)


def test_a_buffer_cannot_be_truncated() -> None:
    """A mapping of it would raise SIGBUS: nobody may shrink it, nor make it larger than was checked."""
    buffer, fd = SharedBuffers().make(100, "dev")
    for size in (0, 100, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == seals
    os.close(fd)
    assert buffer.size == 4096


def test_a_buffer_comes_back_with_its_last_view() -> None:
    """However the view was made; until then another one is made."""
    buffers = SharedBuffers()
    buffer = made(buffers, 4096)
    view = buffers.lend(buffer)[10:20].view(np.uint16)
    gc.collect()
    assert buffers.take(4096) is None
    del view
    gc.collect()
    assert buffers.take(4096) is buffer


def test_sizes_are_kept_beside_each_other() -> None:
    """Screen and cursor; a small picture does not get the screen's buffer."""
    buffers = SharedBuffers()
    large, small = made(buffers, 1 << 20), made(buffers, 4096)
    buffers.give_back(large)
    buffers.give_back(small)
    assert buffers.take(4000) is small
    assert buffers.take(4000) is None
    assert buffers.take(1 << 20) is large


def test_idle_buffers_are_few() -> None:
    """The longest unused goes first; the worker is told which, once."""
    buffers = SharedBuffers(keep=2)
    several = [made(buffers, 4096) for _ in range(4)]
    for buffer in several:
        buffers.give_back(buffer)
    buffers.forget(made(buffers, 4096))
    assert buffers.dropped() == [5, 1, 2]
    assert buffers.dropped() == []
    del several, buffer
    assert len(shared_mappings("mdevdisplay-frame")) == 2


def test_arrays_outlive_their_buffers() -> None:
    """A frame is readable when display, connection and worker are long gone."""
    buffers = SharedBuffers()
    array = buffers.lend(made(buffers, 4096))
    array[:] = 3
    del buffers
    gc.collect()
    assert (array == 3).all()


def test_memory_that_cannot_be_had_is_an_error() -> None:
    """As any of the system's; nothing is left."""
    with pytest.raises(DriverError, match="shared memory"):
        SharedBuffers().make(1 << 62, "dev")


@pytest.mark.parametrize("size", [1, 4096, HUGE - 1, HUGE, 2 * HUGE, 3 * HUGE + 5])
def test_mappings_begin_at_a_huge_page(size: int) -> None:
    """So both processes can map huge pages; collapsing into them changes no byte."""
    fd = sealed_memfd("mdevdisplay-frame")
    os.ftruncate(fd, 4 * HUGE)
    mapping = SharedMapping(fd, size)
    os.close(fd)
    array = np.asarray(mapping)
    assert array.__array_interface__["data"][0] % HUGE == 0
    array[:] = np.arange(size, dtype=np.uint64).astype(np.uint8)
    mapping.collapse()
    assert array.size == size
    assert (array == np.arange(size, dtype=np.uint64).astype(np.uint8)).all()


def test_captures_go_on_while_huge_pages_are_made() -> None:
    """After some captures into one buffer, beside them."""
    buffers, mapped = SharedBuffers(), MappedBuffers()
    buffer, fd = buffers.make(3 * HUGE, "dev")
    mapped.add(buffer.number, fd)
    os.close(fd)
    array = buffers.lend(buffer)
    for turn in range(40):
        mapped.use(buffer.number)
        mapped.take(3 * HUGE).data[:] = turn
        assert (array == turn).all()


def test_a_worker_refuses_what_is_no_buffer() -> None:
    """Memory that can shrink, an empty one, a number twice; it says how much it needs."""
    mapped = MappedBuffers()
    unsealed = os.memfd_create("x", os.MFD_CLOEXEC)
    empty = sealed_memfd("empty")
    fd = sealed_memfd("mdevdisplay-frame")
    os.ftruncate(fd, 4096)
    for wrong in (unsealed, empty):
        with pytest.raises(BadMessage):
            mapped.add(1, wrong)
    mapped.add(1, fd)
    with pytest.raises(BadMessage):
        mapped.add(1, fd)
    with pytest.raises(BadMessage):
        mapped.use(2)
    mapped.use(1)
    with pytest.raises(NeedBytes) as caught:
        mapped.take(4097)
    assert caught.value.size == 4097
    mapped.use(0)
    with pytest.raises(NeedBytes):
        mapped.take(1)
    mapped.drop(1)
    mapped.drop(1)
    for number in (unsealed, empty, fd):
        os.close(number)


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=40))
def test_live_buffers_never_overlap(steps: list[tuple[int, bool]]) -> None:
    """Whatever is taken and dropped in whatever order and size."""
    buffers = SharedBuffers()
    kept: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = []
    for number, (pages, drop) in enumerate(steps):
        array = buffers.lend(buffers.take(pages * 4096) or made(buffers, pages * 4096))
        array[:] = number
        kept.append((number, array))
        if drop:
            kept.pop(len(kept) // 2)
        del array
        buffers.dropped()
    assert all((array == number % 256).all() for number, array in kept)
