from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.pixels.pool import FramePool

SIZE = 1 << 16


def address(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_dropped_buffer_is_used_again() -> None:
    """The next frame of the same size costs no page faults: it lies where the last one lay."""
    pool = FramePool()
    buffer = pool.take(SIZE).data
    where = address(buffer)
    del buffer
    for _ in range(5):
        assert address(pool.take(SIZE).data) == where


def test_a_kept_buffer_is_never_handed_out() -> None:
    """However many frames follow, one that somebody keeps stays as it is."""
    pool = FramePool()
    kept = pool.take(SIZE).data
    kept[:] = 7
    for _ in range(20):
        pool.take(SIZE).data[:] = 9
    assert (kept == 7).all()


@pytest.mark.parametrize(
    "derive",
    [
        lambda buffer: buffer[10:20],
        lambda buffer: buffer.reshape(-1, 4)[::2, 1],
        lambda buffer: buffer.view(np.uint32),
        lambda buffer: memoryview(buffer)[5:],
        lambda buffer: np.ndarray((4, 4), np.uint8, buffer, 100, (16, 1)),
        lambda buffer: np.frombuffer(memoryview(buffer), np.uint16),
        lambda buffer: np.lib.stride_tricks.as_strided(buffer, (2, 2), (8, 1)),
    ],
)
def test_any_view_keeps_the_buffer(derive: Callable[..., object]) -> None:
    """The buffer is lent until the last view of it is gone, however it was made."""
    pool = FramePool()
    buffer = pool.take(SIZE).data
    where = address(buffer)
    view = derive(buffer)
    del buffer
    gc.collect()
    other = pool.take(SIZE).data
    assert address(other) != where
    del view
    gc.collect()
    assert address(pool.take(SIZE).data) == where


def test_a_storage_alone_lends_nothing() -> None:
    """Only the array lends the buffer: whoever keeps the note of what it holds does not keep others from using it."""
    pool = FramePool()
    lent = pool.take(SIZE)
    storage, where = lent.storage, address(lent.data)
    del lent
    gc.collect()
    assert address(pool.take(SIZE).data) == where
    assert storage.data.size == SIZE


def test_a_buffer_comes_back_with_the_note_of_what_it_holds() -> None:
    """A fresh buffer holds nothing known; a used one what its last user noted, and the bytes that were written."""
    pool = FramePool()
    lent = pool.take(SIZE)
    assert lent.storage.holds is None
    lent.storage.holds = (3, 7)
    lent.data[:] = 42
    del lent
    again = pool.take(SIZE)
    assert again.storage.holds == (3, 7)
    assert (again.data == 42).all()
    assert pool.take(SIZE).storage.holds is None


def test_screen_and_cursor_in_turn_each_have_their_buffer() -> None:
    """Two sizes that take turns cost two buffers, not a fresh one every time."""
    pool = FramePool()
    places = set()
    for _ in range(10):
        for size in (SIZE, SIZE // 4):
            buffer = pool.take(size).data
            assert buffer.shape == (size,)
            places.add(address(buffer))
            del buffer
    assert len(places) == 2


def test_buffers_of_an_old_mode_go_when_others_return() -> None:
    """A change of mode does not leave the old mode's buffers behind: those that were idle longest go first."""
    pool = FramePool(keep=3)
    several = [pool.take(SIZE) for _ in range(3)]
    del several
    assert [storage.data.size for storage in pool._free] == [SIZE] * 3
    several = [pool.take(SIZE // 2) for _ in range(3)]
    del several
    assert [storage.data.size for storage in pool._free] == [SIZE // 2] * 3


def test_buffers_are_kept_up_to_a_number() -> None:
    """Whoever held a hundred frames and drops them does not leave a hundred buffers behind."""
    pool = FramePool(keep=4)
    several = [pool.take(4096) for _ in range(100)]
    assert len({address(lent.data) for lent in several}) == 100
    del several
    assert len(pool._free) == 4


def test_the_last_buffer_outlives_the_pool() -> None:
    """A frame is readable and writable when the display and its pool are long gone."""
    pool = FramePool()
    buffer = pool.take(SIZE).data
    buffer[:] = 5
    del pool
    gc.collect()
    assert (buffer == 5).all()


def test_buffers_can_be_written() -> None:
    """A buffer is ours alone, bytes, in one piece."""
    buffer = FramePool().take(1000).data
    assert buffer.flags.writeable
    assert buffer.flags.c_contiguous
    assert buffer.dtype == np.uint8


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=60))
def test_live_buffers_never_overlap(steps: list[tuple[int, bool]]) -> None:
    """Whatever is taken and dropped in whatever order and size, no two live buffers share a byte."""
    pool = FramePool()
    kept: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = []
    for number, (pages, drop) in enumerate(steps):
        buffer = pool.take(pages * 4096).data
        assert buffer.size == pages * 4096
        buffer[:] = number
        kept.append((number, buffer))
        if drop:
            kept.pop(len(kept) // 2)
        del buffer
    assert all((buffer == number % 256).all() for number, buffer in kept)


def test_threads_share_a_pool() -> None:
    """Frames are dropped in whatever thread; nobody gets a buffer that another still has."""
    pool = FramePool()
    wrong: list[int] = []

    def use(mark: int) -> None:
        for _ in range(300):
            buffer = pool.take(8192).data
            buffer[:] = mark
            if not (buffer == mark).all():
                wrong.append(mark)
            del buffer

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
