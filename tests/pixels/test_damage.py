from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.pixels.damage import Damage, Mask, full_mask, grid, rectangles, runs, tiles_touched
from mdevdisplay.surface import Rect

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, int, int]:
    """A mask, and the width and height of a picture that has it."""
    rows, columns = draw(SHAPES)
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)))
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    width = columns * 64 - draw(st.integers(0, 63))
    return mask, width, rows * 64 - draw(st.integers(0, 63))


def pixels_of(mask: Mask, width: int, height: int) -> Mask:
    """Return (height, width) bool: the pixels of the tiles."""
    return mask.repeat(64, 0).repeat(64, 1)[:height, :width]


@given(masks())
def test_rectangles_cover_the_tiles_and_nothing_else(picture: tuple[Mask, int, int]) -> None:
    """Every pixel of a changed tile lies in exactly one rectangle, any other in none; all lie in the picture."""
    mask, width, height = picture
    covered = np.zeros((height, width), np.uint8)
    for rect in rectangles(mask, width, height):
        assert rect.x + rect.width <= width
        assert rect.y + rect.height <= height
        covered[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] += 1
    assert np.array_equal(covered, pixels_of(mask, width, height))


@given(masks())
def test_rectangles_are_no_more_than_runs(picture: tuple[Mask, int, int]) -> None:
    """Neighbours are merged: at most one rectangle for every run of tiles in a row, one for all where all changed."""
    mask, width, height = picture
    most = sum(len(row) for row in runs(mask))
    assert len(rectangles(mask, width, height)) <= most
    assert rectangles(full_mask(width, height), width, height) == (Rect(0, 0, width, height),)


def test_equal_runs_below_each_other_are_one_rectangle() -> None:
    """A column of changed tiles, interrupted once, is two rectangles; another beside it does not split it."""
    mask = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1]], np.bool_)
    assert set(rectangles(mask, 192, 256)) == {Rect(0, 0, 64, 128), Rect(128, 64, 64, 64), Rect(0, 192, 192, 64)}


@given(masks())
def test_runs_are_where_a_row_is_true(picture: tuple[Mask, int, int]) -> None:
    """First and last of every run, as one finds them by going along each row."""
    mask = picture[0]
    expected: list[list[tuple[int, int]]] = []
    for row in mask.tolist():
        expected.append([])
        begin = None
        for place, value in enumerate([*row, False]):
            if value and begin is None:
                begin = place
            elif not value and begin is not None:
                expected[-1].append((begin, place))
                begin = None
    assert runs(mask) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_tiles_touched_are_those_with_a_pixel_in_a_rectangle(width: int, height: int, data: st.DataObject) -> None:
    """Each tile with at least one pixel of a rectangle, no other."""
    places = []
    for _ in range(data.draw(st.integers(0, 3))):
        x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        places.append(Rect(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))))
    expected = np.zeros(grid(width, height), np.bool_)
    for rect in places:
        for y in range(rect.y, rect.y + rect.height):
            for x in {*range(rect.x, rect.x + rect.width, 64), rect.x + rect.width - 1}:
                expected[y // 64, x // 64] = True
    assert np.array_equal(tiles_touched(places, width, height), expected)


SIZES = st.tuples(st.integers(0, 200), st.integers(0, 200))
STEPS = st.lists(st.one_of(st.integers(0, 2**32 - 1), SIZES), min_size=1, max_size=20)
"""A change with its seed, or the size of a picture that begins anew."""


@given(STEPS)
def test_damage_since_any_serial_is_what_changed_after_it(steps: list[int | tuple[int, int]]) -> None:
    """Every serial of a random history against a plain record of it."""
    damage = Damage()
    record: list[Mask] = []  # what changed at serial 1, 2, …; what began anew has changed everywhere
    for serial, step in enumerate(steps, 1):
        if isinstance(step, tuple):
            damage.begin(*step, serial)
            record = [np.ones(grid(*step), np.bool_) for _ in range(serial)]
        else:
            mask = np.random.default_rng(step).random(grid(damage.width, damage.height)) < 0.3
            damage.mark(mask, serial)
            record.append(mask)
        for since in range(serial + 1):
            later = record[since:]
            expected = np.logical_or.reduce(later) if later else np.zeros(grid(damage.width, damage.height), np.bool_)
            assert np.array_equal(damage.since(since), expected)
            assert damage.rects_since(since) == rectangles(expected, damage.width, damage.height)


def test_a_long_history_takes_no_more_memory_than_a_short_one() -> None:
    """100,000 changes are remembered in 8 bytes a tile."""
    damage = Damage()
    damage.begin(640, 480, 1)
    mask = np.zeros(grid(640, 480), np.bool_)
    mask[3, 5] = True
    for serial in range(2, 100_000):
        damage.mark(mask, serial)
    sizes = [sys.getsizeof(value) for value in vars(damage).values()]
    assert sum(sizes) < 8 * 10 * 8 + 1024
    assert damage.rects_since(5) == (Rect(320, 192, 64, 64),)
    assert damage.rects_since(0) == (Rect(0, 0, 640, 480),)


def test_no_picture_has_no_damage() -> None:
    """Before the first look, and where the plane shows nothing."""
    damage = Damage()
    assert damage.rects_since(0) == ()
    damage.begin(100, 100, 1)
    damage.begin(0, 0, 2)
    assert damage.rects_since(0) == ()


@pytest.mark.parametrize(("size", "tiles"), [((1, 1), (1, 1)), ((64, 65), (2, 1)), ((32767, 129), (3, 512))])
def test_a_grid_has_a_tile_for_every_pixel(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    """Rows and columns, the last ones maybe not whole."""
    assert grid(*size) == tiles
