from __future__ import annotations

import os
import tracemalloc
from contextlib import closing
from fractions import Fraction

import attrs
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdevdisplay.formats import fourcc
from mdevdisplay.pixels.cursor import Placement, compose, is_primary_again, place, rects_touched
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay_simulated import SimulatedSource

Pixels = npt.NDArray[np.uint8]


def cursor_surface(
    x: int = 0, y: int = 0, *, width: int = 64, height: int = 64, hot: tuple[int, int] | None = (6, 4)
) -> SurfaceInfo:
    x_hot, y_hot = hot or (None, None)
    return SurfaceInfo(
        plane=PlaneType.CURSOR,
        fourcc=fourcc("AR24"),
        width=width,
        height=height,
        stride=width * 4,
        size=width * 4 * height,
        x=x & 0xFFFFFFFF,
        y=y & 0xFFFFFFFF,
        x_hot=x_hot,
        y_hot=y_hot,
        dmabuf_id=7,
    )


def picture(width: int, height: int, seed: int = 0, alpha: int | None = None) -> Pixels:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    # a quarter of the pixels each: transparent, opaque, and the rest in between
    kind = np.random.default_rng(seed + 1).integers(0, 4, (height, width))
    pixels[kind == 0, 3] = 0
    pixels[kind == 1, 3] = 255
    if alpha is not None:
        pixels[..., 3] = alpha
    return pixels


def exactly_over(ink: Pixels, ground: Pixels) -> list[int]:
    """One pixel by the formula in exact numbers, rounded to the nearest."""
    alpha = Fraction(int(ink[3]), 255)
    colours = [alpha * int(ink[n]) + (1 - alpha) * int(ground[n]) for n in range(3)]
    return [round(value) for value in [*colours, (alpha + (1 - alpha) * Fraction(int(ground[3]), 255)) * 255]]


# where it lies


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 80), st.integers(1, 80))
@example(-63, -63, 64, 64)
@example(-64, 0, 64, 64)
@example(0, 99, 64, 64)
@example(100, 0, 64, 64)
def test_the_rectangle_is_where_the_image_and_the_screen_overlap(x: int, y: int, width: int, height: int) -> None:
    """The image begins at the reported position, and just its pixels on the screen are in the rectangle."""
    placement = place(cursor_surface(x, y, width=width, height=height), 100, 90)
    assert (placement.x, placement.y, placement.width, placement.height) == (x, y, width, height)
    columns = [column for column in range(x, x + width) if 0 <= column < 100]
    rows = [row for row in range(y, y + height) if 0 <= row < 90]
    if columns and rows:
        assert placement.rect == Rect(columns[0], rows[0], len(columns), len(rows))
    else:
        assert placement.rect is None


def test_a_position_is_the_image_s_corner_and_the_pointer_is_a_hotspot_further() -> None:
    """As i915 writes CURPOS and QEMU draws: the hotspot does not move the image."""
    placement = place(cursor_surface(30, 40, hot=(6, 4)), 100, 100)
    assert (placement.x, placement.y) == (30, 40)
    assert placement.pointer == (36, 44)


def test_a_position_that_is_the_pointer_s_begins_the_image_a_hotspot_before_it() -> None:
    """The other convention: the tip is at the position, and at the corner the image begins off the screen."""
    placement = place(cursor_surface(2, 1, hot=(6, 4)), 100, 100, position_is_hotspot=True)
    assert (placement.x, placement.y, placement.pointer) == (-4, -3, (2, 1))
    assert placement.rect == Rect(0, 0, 60, 61)
    assert not placement.uncertain


@pytest.mark.parametrize("hot", [None, (64, 0), (0, 64), (1064, 1064), (0xFFFFFFFE, 0)])
def test_a_hotspot_that_cannot_be_is_unknown(hot: tuple[int, int] | None) -> None:
    """Without one the image is placed as if it were 0,0, and there is no pointer; it matters in one convention only."""
    surface = cursor_surface(70, 70, hot=hot)
    at_corner = place(surface, 100, 100)
    at_tip = place(surface, 100, 100, position_is_hotspot=True)
    assert (at_corner.hotspot, at_corner.pointer, at_corner.uncertain) == (None, None, False)
    assert (at_tip.x, at_tip.y, at_tip.pointer, at_tip.uncertain) == (70, 70, None, True)


def test_half_a_hotspot_is_none() -> None:
    """A driver that knows only one of the two numbers knows no point."""
    assert place(attrs.evolve(cursor_surface(), x_hot=None), 100, 100).hotspot is None
    assert place(attrs.evolve(cursor_surface(), y_hot=None), 100, 100).hotspot is None


def test_the_upper_half_of_the_32_bit_numbers_is_negative() -> None:
    """Two's complement: what a driver that keeps the sign writes into the kernel's unsigned field."""
    placement = place(cursor_surface(0x80000000, 0x7FFFFFFF), 100, 100)
    assert (placement.x, placement.y) == (-(2**31), 2**31 - 1)
    assert place(cursor_surface(0xFFFFFFFF, 0xFFFFFFF0), 100, 100).rect == Rect(0, 0, 63, 48)


@pytest.mark.parametrize(
    ("x", "y", "hot", "uncertain"),
    [
        (0, 0, (6, 4), False),
        (6, 0, (6, 4), True),
        (0, 4, (6, 4), True),
        (7, 5, (6, 4), False),
        (7, 4, (6, 4), True),
        (1, 1, (0, 0), False),
        (63, 0, None, True),
        (0, 63, None, True),
        (64, 64, None, False),
        (-3, -2, (6, 4), False),
        (-3, 2, (6, 4), True),
    ],
)
def test_a_lost_sign_is_told_from_the_hotspot_or_the_size(
    x: int, y: int, hot: tuple[int, int] | None, uncertain: bool
) -> None:
    """A tip on the screen lets the image begin a hotspot off it at most; without a hotspot, all but one pixel."""
    surface = cursor_surface(x, y, hot=hot)
    assert place(surface, 1000, 1000).uncertain is uncertain
    assert not place(surface, 1000, 1000, sign_lost=False).uncertain


@given(st.integers(-63, 1000), st.integers(-63, 1000), st.integers(0, 63), st.integers(0, 63), st.booleans())
def test_what_is_certain_is_right(x: int, y: int, x_hot: int, y_hot: int, known: bool) -> None:
    """GVT-g's magnitude of any position with the tip on the screen: where we are certain, it had no minus."""
    x, y = max(x, -x_hot), max(y, -y_hot)
    reported = cursor_surface(abs(x), abs(y), hot=(x_hot, y_hot) if known else None)
    placement = place(reported, 1920, 1080)
    assert placement.uncertain or (placement.x, placement.y) == (x, y)


def test_the_simulated_lost_sign_is_uncertain() -> None:
    """The simulated driver that loses the sign as GVT-g does gives a placement that says so."""
    with closing(SimulatedSource("sim:320x240,cursor=on,fault=cursor-sign-lost")) as source:
        surface = source.query_plane(PlaneType.CURSOR)
    assert surface is not None
    assert place(surface, 320, 240).uncertain


U32 = st.integers(0, 0xFFFFFFFF)
SIDE = st.sampled_from([1, 2, 64, 256, 4096, 32767])


@given(U32, U32, SIDE, SIDE, st.none() | st.tuples(U32, U32), st.sampled_from([0, 1, 640, 32767]), st.booleans())
@example(0xFFFFFFFF, 0xFFFFFFFF, 32767, 32767, None, 1, False)
@example(0x80000000, 0x7FFFFFFF, 32767, 32767, (0, 0), 640, True)
def test_whatever_is_reported_is_placed(
    x: int, y: int, width: int, height: int, hot: tuple[int, int] | None, screen: int, tip: bool
) -> None:
    """No 32-bit number makes an exception, and a rectangle is always on the screen and within the image."""
    surface = cursor_surface(x, y, width=width, height=height, hot=hot)
    placement = place(surface, screen, screen, position_is_hotspot=tip)
    rect = placement.rect
    if rect is None:
        return
    assert 0 <= rect.x < rect.x + rect.width <= screen
    assert 0 <= rect.y < rect.y + rect.height <= screen
    assert placement.x <= rect.x
    assert rect.x + rect.width <= placement.x + width
    assert placement.y <= rect.y
    assert rect.y + rect.height <= placement.y + height


# how it is drawn

SIZES = st.integers(1, 24)
CASES = st.tuples(
    st.tuples(SIZES, SIZES), st.tuples(SIZES, SIZES), st.tuples(st.integers(-26, 26), st.integers(-26, 26))
)


@given(CASES, st.integers(0, 1000), st.booleans())
@example(((4, 4), (24, 24), (-10, -10)), 0, True)
@example(((8, 8), (3, 3), (-2, -2)), 0, True)
@example(((8, 8), (3, 3), (7, 7)), 0, True)
@example(((8, 8), (3, 3), (8, 0)), 0, True)
def test_every_pixel_is_the_formula_s_or_untouched(
    case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], seed: int, opaque: bool
) -> None:
    """Any sizes and any edge: inside the placement exact arithmetic, rounded to the nearest; outside no change."""
    (width, height), (w, h), (x, y) = case
    before = picture(width, height, seed, alpha=255 if opaque else None)
    ink = picture(w, h, seed + 50)
    placement = place(cursor_surface(x, y, width=w, height=h, hot=None), width, height)
    screen = before.copy()
    drawn = compose(screen, ink, placement)
    changed = np.zeros((height, width), np.bool_)
    for row in range(height):
        for column in range(width):
            inside = 0 <= row - y < h and 0 <= column - x < w
            if inside:
                expected = exactly_over(ink[row - y, column - x], before[row, column])
            else:
                expected = before[row, column].tolist()
            assert screen[row, column].tolist() == expected
            changed[row, column] = inside and bool(ink[row - y, column - x, 3])
    if not changed.any():
        assert drawn is None
        return
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert drawn == Rect(int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1), (
        "just what was drawn, without the transparent border"
    )
    if opaque:
        assert (screen[..., 3] == 255).all()


def test_every_colour_with_every_alpha_is_rounded_to_the_nearest() -> None:
    """All 256 colours by all 256 alphas, over several grounds: no rounding is off by one."""
    ink = np.zeros((256, 256, 4), np.uint8)
    ink[..., 0] = np.arange(256)
    ink[..., 3] = np.arange(256)[:, None]
    placement = place(cursor_surface(width=256, height=256), 256, 256)
    for ground in (0, 1, 127, 128, 254, 255):
        screen = np.full((256, 256, 4), ground, np.uint8)
        screen[..., 3] = 255
        compose(screen, ink, placement)
        for alpha in range(256):
            exact = [round(Fraction(c * alpha + ground * (255 - alpha), 255)) for c in range(256)]
            assert screen[alpha, :, 0].tolist() == exact


@given(CASES, st.integers(0, 1000))
def test_pillow_draws_the_same(case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], seed: int) -> None:
    """Pillow's alpha_composite takes straight alpha too, and agrees to within its own rounding."""
    (width, height), (w, h), (x, y) = case
    screen, ink = picture(width, height, seed, alpha=255), picture(w, h, seed + 50)
    layer = PIL.Image.new("RGBA", (width, height))
    layer.paste(PIL.Image.fromarray(ink), (x, y))
    theirs = np.asarray(PIL.Image.alpha_composite(PIL.Image.fromarray(screen), layer)).astype(int)
    compose(screen, ink, place(cursor_surface(x, y, width=w, height=h), width, height))
    assert np.abs(theirs - screen).max() <= 1


@given(CASES, st.integers(0, 1000))
def test_colours_multiplied_by_alpha_already_are_only_added(
    case: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], seed: int
) -> None:
    """As KMS planes are by default; a colour above its alpha, which is no right one, stops at 255."""
    (width, height), (w, h), (x, y) = case
    before, ink = picture(width, height, seed), picture(w, h, seed + 50)
    screen = before.copy()
    placement = place(cursor_surface(x, y, width=w, height=h), width, height)
    compose(screen, ink, placement, premultiplied=True)
    for row in range(height):
        for column in range(width):
            expected = [int(value) for value in before[row, column]]
            if 0 <= row - y < h and 0 <= column - x < w:
                own = [int(value) for value in ink[row - y, column - x]]
                expected = [
                    min(255, c + round(Fraction(s * (255 - own[3]), 255))) for c, s in zip(own, expected, strict=True)
                ]
            assert screen[row, column].tolist() == expected


def test_a_screen_whose_alpha_is_rubbish_is_opaque_all_the_same() -> None:
    """An AR24 screen of a guest that never writes alpha: the shadow darkens what is there, nothing shines through."""
    screen = np.full((1, 1, 4), (200, 100, 50, 0), np.uint8)
    ink = np.full((1, 1, 4), (0, 0, 0, 51), np.uint8)
    compose(screen, ink, place(cursor_surface(width=1, height=1), 1, 1))
    assert screen.tolist() == [[[160, 80, 40, 51]]]


def test_a_screen_of_any_strides_is_drawn_on() -> None:
    """Rows with padding, upside down and every second pixel: only what the view shows is written."""
    memory = picture(40, 30, alpha=255)
    before = memory.copy()
    view, ink = memory[20:4:-1, 2:38:2], picture(8, 8, 9)
    expected = np.ascontiguousarray(view)
    placement = place(cursor_surface(3, 5, width=8, height=8), view.shape[1], view.shape[0])
    drawn = compose(view, ink, placement)
    assert drawn == compose(expected, ink, placement)
    np.testing.assert_array_equal(view, expected)
    view[...] = before[20:4:-1, 2:38:2]
    np.testing.assert_array_equal(memory, before)


@pytest.mark.parametrize("shape", [(0, 0, 4), (0, 64, 4), (64, 0, 4)])
def test_a_cursor_with_no_pixels_draws_nothing(shape: tuple[int, int, int]) -> None:
    """The image went between the query and the copy."""
    screen = picture(80, 80)
    before = screen.copy()
    assert compose(screen, np.zeros(shape, np.uint8), place(cursor_surface(), 80, 80)) is None
    np.testing.assert_array_equal(screen, before)


def test_pictures_of_other_sizes_than_were_placed_are_clipped() -> None:
    """The mode or the cursor changed between the query and the copy: the pictures in hand decide."""
    placement = place(cursor_surface(10, 10), 640, 480)
    ink = np.full((32, 16, 4), 255, np.uint8)
    assert compose(np.zeros((480, 640, 4), np.uint8), ink, placement) == Rect(10, 10, 16, 32)
    assert compose(np.zeros((20, 12, 4), np.uint8), ink, placement) == Rect(10, 10, 2, 10)
    assert compose(np.zeros((5, 5, 4), np.uint8), ink, placement) is None
    assert compose(np.zeros((0, 5, 4), np.uint8), ink, placement) is None


def test_a_huge_cursor_costs_little_memory() -> None:
    """A cursor as wide and as high as is believed, over a screen as wide: no more than a few MiB at a time."""
    one_pixel = np.full((1, 1, 4), (10, 20, 30, 128), np.uint8)
    ink = np.broadcast_to(one_pixel, (32767, 32767, 4))
    for shape in ((1080, 1920, 4), (2, 32767, 4), (1024, 2, 4)):
        screen = np.zeros(shape, np.uint8)
        placement = place(cursor_surface(-5, -5, width=32767, height=32767), shape[1], shape[0])
        tracemalloc.start()
        try:
            drawn = compose(screen, ink, placement)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert drawn == Rect(0, 0, min(shape[1], 32762), shape[0])
        assert (screen[:, : drawn.width] == (5, 10, 15, 128)).all()
        assert peak < 8 << 20


@pytest.mark.parametrize(
    ("screen", "cursor"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)),
        (np.zeros((4, 4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8)),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 16), np.uint8)),
        (np.broadcast_to(np.uint8(0), (4, 4, 4)), np.zeros((4, 4, 4), np.uint8)),
    ],
)
def test_what_is_no_picture_is_refused(screen: Pixels, cursor: Pixels) -> None:
    """Three channels, wide elements, no channels, or a screen that cannot be written."""
    with pytest.raises(ValueError, match=r"screen|cursor"):
        compose(screen, cursor, place(cursor_surface(width=4, height=4), 4, 4))


def simulated_pixels(source: SimulatedSource, plane: PlaneType) -> tuple[SurfaceInfo, Pixels]:
    surface = source.query_plane(plane)
    assert surface is not None
    memory = source.mappable(surface)
    assert memory is not None
    data = os.pread(memory.fd, memory.size, memory.offset)[memory.pixel_offset :]
    size = surface.stride * surface.height
    return surface, np.frombuffer(data[:size], np.uint8).reshape(surface.height, surface.width, 4).copy()


def test_the_simulated_arrow_s_tip_is_drawn_where_it_points() -> None:
    """The tip of the drawn arrow is black, lies a hotspot inside the plane, and nothing is left of it or above."""
    with closing(SimulatedSource("sim:320x240,cursor=on,via=region")) as source:
        primary, screen = simulated_pixels(source, PlaneType.PRIMARY)
        surface, ink = simulated_pixels(source, PlaneType.CURSOR)
    screen[..., 3] = 255
    before = screen.copy()
    placement = place(surface, primary.width, primary.height, sign_lost=False)
    assert placement.pointer is not None
    x, y = placement.pointer
    assert compose(screen, ink, placement) is not None
    assert screen[y, x].tolist() == [0, 0, 0, 255]
    assert (before[y : y + 8, x : x + 8] != screen[y : y + 8, x : x + 8]).any()
    np.testing.assert_array_equal(screen[:y], before[:y])
    np.testing.assert_array_equal(screen[:, :x], before[:, :x])


# is there one


def primary_surface(region_index: int | None = 9) -> SurfaceInfo:
    return SurfaceInfo(
        fourcc=fourcc("XR24"), width=640, height=480, stride=2560, size=1228800, region_index=region_index
    )


def test_a_primary_plane_that_answers_twice_is_no_cursor() -> None:
    """As with mdpy and NVIDIA: the same memory at the same place is the primary plane, whatever its type says."""
    primary = primary_surface()
    assert is_primary_again(attrs.evolve(primary, plane=PlaneType.CURSOR), primary)
    assert not is_primary_again(cursor_surface(), primary)
    assert not is_primary_again(None, primary)
    assert not is_primary_again(cursor_surface(), None)


def test_planes_that_name_no_memory_are_one_where_all_is_equal() -> None:
    """A backend with memory of its own gives neither id: the same size alone makes no primary plane."""
    primary = primary_surface(region_index=None)
    assert is_primary_again(attrs.evolve(primary, plane=PlaneType.CURSOR), primary)
    assert not is_primary_again(attrs.evolve(primary, plane=PlaneType.CURSOR, x=5), primary)
    assert not is_primary_again(attrs.evolve(primary, plane=PlaneType.CURSOR, fourcc=fourcc("AR24")), primary)


# what is to be painted again

PLACES = st.none() | st.builds(
    lambda x, y, side: place(cursor_surface(x, y, width=side, height=side), 60, 50),
    st.integers(-30, 70),
    st.integers(-30, 70),
    st.integers(1, 24),
)


@given(PLACES, PLACES, st.booleans())
def test_a_move_touches_just_where_it_was_and_where_it_is(
    before: Placement | None, after: Placement | None, repainted: bool
) -> None:
    """The rectangles cover both and no pixel else; nothing where nothing moved and nothing was painted."""
    covered = np.zeros((50, 60), np.bool_)
    wanted = np.zeros((50, 60), np.bool_)
    rects = rects_touched(before, after, repainted=repainted)
    for rect in rects:
        covered[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = True
    for placement in (before, after):
        if placement is not None and placement.rect is not None and (repainted or before != after):
            x, y = max(placement.x, 0), max(placement.y, 0)
            wanted[y : placement.y + placement.height, x : placement.x + placement.width] = True
    np.testing.assert_array_equal(covered, wanted)
    assert len(rects) <= 2
    assert len(set(rects)) == len(rects)


def test_a_cursor_that_only_got_its_hotspot_is_not_painted_again() -> None:
    """What was learnt of the tip moves no pixel; a slide along the edge moves all of them."""
    unknown, known = (place(cursor_surface(-5, 9, hot=hot), 50, 50) for hot in (None, (6, 4)))
    assert rects_touched(unknown, known) == ()
    assert rects_touched(known, known, repainted=True) == (Rect(0, 9, 50, 41),)
    whole, part = (place(cursor_surface(x, 9), 50, 50) for x in (-5, -20))
    assert rects_touched(whole, part) == rects_touched(part, whole) == (Rect(0, 9, 50, 41),), "one lies in the other"
    huge = [place(cursor_surface(x, 0, width=300, height=300), 50, 50) for x in (-100, -101)]
    assert rects_touched(*huge) == (Rect(0, 0, 50, 50),), "the same rectangle, with other pixels in it"


def test_restoring_the_touched_rectangles_and_drawing_anew_equals_a_fresh_picture() -> None:
    """How a live view follows the pointer: over many moves, on and off every edge, no trace stays."""
    ground, ink = picture(60, 50, alpha=255), picture(16, 16, 3)
    live, last = ground.copy(), None
    for step in np.random.default_rng(5).integers(-20, 64, (60, 2)).tolist():
        placement = place(cursor_surface(*step, width=16, height=16), 60, 50)
        for rect in rects_touched(last, placement):
            area = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            live[area] = ground[area]
        compose(live, ink, placement)
        fresh = ground.copy()
        compose(fresh, ink, placement)
        np.testing.assert_array_equal(live, fresh)
        last = placement
