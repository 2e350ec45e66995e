from __future__ import annotations

import itertools
from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdevdisplay.errors import (
    BadSurface,
    Closed,
    DeviceGone,
    DriverError,
    GuestChangingMode,
    MdevDisplayError,
    NotMappable,
    TimedOut,
    WorkerDied,
)
from mdevdisplay.formats import fourcc
from mdevdisplay.pixels.composed import ComposedPicture
from mdevdisplay.pixels.damage import Damage, full_mask, grid, tiles_touched
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
PRIMARY, CURSOR = PlaneType.PRIMARY, PlaneType.CURSOR
WIDTH, HEIGHT = 300, 200


@attrs.define(eq=False)
class Plane:
    """What one plane shows, with the serials and the damage that a reader counts."""

    kind: PlaneType
    pixels: Pixels | None
    x: int = 0
    y: int = 0
    hot: tuple[int, int] | None = (0, 0)
    serial: int = 1
    code: str = "AR24"
    flags: FrameFlags = FrameFlags.NONE
    error: MdevDisplayError | None = None
    decoded: Pixels | None = None
    damage: Damage = attrs.field(factory=Damage)

    @property
    def shown(self) -> Pixels:
        """What it shows, which is something."""
        assert self.pixels is not None
        return self.pixels

    def __attrs_post_init__(self) -> None:
        self.show(self.pixels)

    def show(self, pixels: Pixels | None) -> None:
        """Show another picture, all of it changed, or None for nothing."""
        self.serial += 1
        self.pixels = pixels
        height, width = (0, 0) if pixels is None else pixels.shape[:2]
        self.damage.begin(width, height, self.serial)

    def draw(self, rect: Rect, value: int) -> None:
        self.shown[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] ^= np.uint8(value)
        self.serial += 1
        self.damage.mark(tiles_touched([rect], self.damage.width, self.damage.height), self.serial)

    def move(self, x: int, y: int) -> None:
        if (x, y) != (self.x, self.y):
            self.serial += 1
            self.x, self.y = x, y

    def look(self, last: Frame | Blank | None) -> Frame | Blank:
        if self.error is not None:
            raise self.error
        if last is not None and last.serial == self.serial and bool(last) is (self.pixels is not None):
            return last
        if self.pixels is None:
            return Blank(serial=self.serial, timestamp=0.0)
        height, width = self.pixels.shape[:2]
        raw = self.pixels.copy()
        raw.flags.writeable = False
        hot_x, hot_y = self.hot or (None, None)
        surface = SurfaceInfo(
            plane=self.kind,
            fourcc=fourcc(self.code),
            width=width,
            height=height,
            stride=width * 4,
            size=width * height * 4,
            x=self.x % (1 << 32),
            y=self.y % (1 << 32),
            x_hot=hot_x,
            y_hot=hot_y,
        )
        changed = self.damage.since(last.serial) if isinstance(last, Frame) else None
        return Frame(raw, surface, serial=self.serial, changed=changed, flags=self.flags, pixels=self.decoded)


@attrs.define(eq=False)
class Screen:
    """Two planes, and the picture that is composed of them."""

    primary: Plane
    cursor: Plane
    sign_lost: bool = False
    composed: ComposedPicture = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.composed = ComposedPicture(self._look, sign_lost=self.sign_lost)

    def _look(self, plane: PlaneType, last: Frame | Blank | None) -> Frame | Blank:
        return (self.primary if plane is PRIMARY else self.cursor).look(last)

    def look(self, last: Frame | Blank | None = None) -> Frame:
        picture = self.composed.look(last)
        assert isinstance(picture, Frame)
        return picture

    def expected(self) -> Pixels:
        """Return the screen with its cursor, pixel by pixel."""
        screen = self.primary.shown.astype(np.int64)
        height, width = screen.shape[:2]
        if self.cursor.pixels is None or self.cursor.error is not None:
            return self.primary.shown
        for row, column in np.ndindex(*self.cursor.pixels.shape[:2]):
            y, x = self.cursor.y + row, self.cursor.x + column
            if 0 <= y < height and 0 <= x < width:
                ink = self.cursor.pixels[row, column].astype(np.int64)
                alpha = int(ink[3])
                ink[3] = 255
                screen[y, x] = (2 * (ink * alpha + screen[y, x] * (255 - alpha)) + 255) // 510
        return screen.astype(np.uint8)

    def covered(self) -> Mask:
        """Return the tiles that the cursor's image lies on."""
        mask = np.zeros(grid(WIDTH, HEIGHT), np.bool_)
        if self.cursor.pixels is not None and self.cursor.error is None:
            height, width = self.cursor.pixels.shape[:2]
            for row, column in np.ndindex(*mask.shape):
                left, top = column * 64, row * 64
                right, bottom = min(left + 64, WIDTH), min(top + 64, HEIGHT)
                mask[row, column] = (
                    self.cursor.x < right
                    and self.cursor.x + width > left
                    and self.cursor.y < bottom
                    and self.cursor.y + height > top
                )
        return mask


def image(width: int, height: int, seed: int = 0, *, alpha: int | None = None) -> Pixels:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    if alpha is not None:
        pixels[..., 3] = alpha
    return pixels


@pytest.fixture
def screen() -> Screen:
    return Screen(Plane(PRIMARY, image(WIDTH, HEIGHT, 1, alpha=255)), Plane(CURSOR, image(16, 16, 2), 10, 10))


def test_the_cursor_is_drawn_over_the_screen(screen: Screen) -> None:
    """Straight alpha, and the primary plane's raw pixels stay what they are."""
    frame = screen.look()
    assert np.array_equal(frame.pixels, screen.expected())
    assert np.array_equal(frame.raw, screen.primary.shown)
    assert frame.surface.plane is PRIMARY
    assert frame.flags is FrameFlags.NONE
    assert frame.changed_tiles.all()


def test_equal_pictures_are_the_same_frame(screen: Screen) -> None:
    """Nothing changed, nothing new; and serials do not move."""
    first = screen.look()
    assert screen.look(first) is first
    other = screen.look()
    assert other is not first
    assert other.serial == first.serial
    assert screen.look(first) is first


def test_a_cursor_that_moves_damages_where_it_was_and_where_it_is(screen: Screen) -> None:
    """The tiles that its image touches before and after, no others."""
    first = screen.look()
    before = screen.covered()
    screen.cursor.move(250, 150)
    second = screen.look(first)
    assert second.serial == first.serial + 1
    assert np.array_equal(second.changed_tiles, before | screen.covered())
    assert set(screen.composed.damage_since(first.serial)) == {Rect(0, 0, 64, 64), Rect(192, 128, 108, 64)}
    assert np.array_equal(second.pixels, screen.expected())
    assert np.array_equal(first.pixels[150:166, 250:266], second.raw[150:166, 250:266]), "the first one is kept"


def test_only_the_cursors_image_changes(screen: Screen) -> None:
    """Its own tiles, and the primary plane's frame is not copied anew."""
    first = screen.look()
    screen.cursor.show(image(16, 16, 9))
    second = screen.look(first)
    assert np.array_equal(second.changed_tiles, screen.covered())
    assert second.raw is first.raw
    assert np.array_equal(second.pixels, screen.expected())


def test_the_cursor_goes_and_comes(screen: Screen) -> None:
    """Without it the screen is as it is."""
    frame = screen.look()
    covered = screen.covered()
    pixels, screen.cursor.pixels = screen.cursor.pixels, None
    screen.cursor.show(None)
    frame = screen.look(frame)
    assert np.array_equal(frame.changed_tiles, covered)
    assert np.array_equal(frame.pixels, screen.primary.shown)
    screen.cursor.show(pixels)
    frame = screen.look(frame)
    assert np.array_equal(frame.changed_tiles, covered)
    assert np.array_equal(frame.pixels, screen.expected())


def test_a_cursor_that_moves_off_the_screen_changes_nothing_more(screen: Screen) -> None:
    """Equal pictures have equal serials."""
    screen.cursor.move(-100, 10)
    first = screen.look()
    screen.cursor.move(-200, 20)
    assert screen.look(first) is first


@pytest.mark.parametrize(
    "error",
    [
        BadSurface("numbers"),
        DriverError("EIO"),
        NotMappable("no"),
        GuestChangingMode("now"),
    ],
)
def test_a_cursor_that_cannot_be_read_is_missing_and_the_screen_comes(screen: Screen, error: MdevDisplayError) -> None:
    """The flag says so, as long as it lasts; that it begins and ends is a change."""
    first = screen.look()
    covered = screen.covered()
    screen.cursor.error = error
    without = screen.look(first)
    assert without.flags is FrameFlags.CURSOR_MISSING
    assert np.array_equal(without.changed_tiles, covered)
    assert np.array_equal(without.pixels, screen.primary.shown)
    assert screen.look(without) is without
    screen.cursor.error = None
    again = screen.look(without)
    assert again.flags is FrameFlags.NONE
    assert np.array_equal(again.changed_tiles, covered)
    assert np.array_equal(again.pixels, screen.expected())


def test_a_flag_alone_is_a_change(screen: Screen) -> None:
    """A cursor that was hidden, and now cannot be read: nothing is drawn otherwise, and the consumer hears of it."""
    screen.cursor.show(None)
    first = screen.look()
    screen.cursor.error = BadSurface("numbers")
    second = screen.look(first)
    assert (second.flags, second.damage) == (FrameFlags.CURSOR_MISSING, ())
    assert second.serial == first.serial + 1
    screen.cursor.error = None
    assert screen.look(second).flags is FrameFlags.NONE


def test_a_cursor_that_cannot_be_decoded_or_is_far_too_large_is_missing(screen: Screen) -> None:
    """A format that nobody knows, and an image of 2049 pixels."""
    screen.cursor.code = "SIM0"
    assert screen.look().flags is FrameFlags.CURSOR_MISSING
    screen.cursor.code = "AR24"
    screen.cursor.show(image(2049, 1))
    assert screen.look().flags is FrameFlags.CURSOR_MISSING
    screen.cursor.show(image(2048, 1))
    assert screen.look().flags is FrameFlags.NONE


@pytest.mark.parametrize("error", [DeviceGone("x"), Closed("x"), TimedOut("x"), WorkerDied("x")])
def test_what_is_wrong_with_the_device_is_no_missing_cursor(screen: Screen, error: MdevDisplayError) -> None:
    """It is raised, and nothing is lost by it: the next frame has all that changed meanwhile."""
    first = screen.look()
    screen.cursor.error = error
    screen.primary.draw(Rect(100, 100, 3, 3), 5)
    with pytest.raises(type(error)):
        screen.look(first)
    screen.cursor.error = None
    screen.primary.draw(Rect(200, 0, 3, 3), 5)
    second = screen.look(first)
    assert set(second.damage) == {Rect(64, 64, 64, 64), Rect(192, 0, 64, 64)}


def test_a_screen_that_cannot_be_read_is_an_error(screen: Screen) -> None:
    """As without a cursor."""
    screen.primary.error = GuestChangingMode("now")
    with pytest.raises(GuestChangingMode):
        screen.look()


def test_a_blank_screen_is_blank_whatever_the_cursor(screen: Screen) -> None:
    """One serial for the whole time; afterwards everything has changed."""
    first = screen.look()
    pixels = screen.primary.pixels
    screen.primary.show(None)
    blank = screen.composed.look(first)
    assert isinstance(blank, Blank)
    assert blank.serial == first.serial + 1
    assert screen.composed.look(blank) is blank
    assert screen.composed.damage_since(0) == ()
    screen.primary.show(pixels)
    again = screen.look(blank)
    assert again.serial == blank.serial + 1
    assert again.changed_tiles.all()
    assert screen.composed.damage_since(first.serial) == (Rect(0, 0, WIDTH, HEIGHT),)


def test_another_mode_has_changed_everywhere(screen: Screen) -> None:
    """Larger, smaller, and of another shape with as many tiles."""
    frame = screen.look()
    for width, height in ((400, 200), (100, 100), (100, 70)):
        screen.primary.show(image(width, height, alpha=255))
        frame = screen.look(frame)
        assert np.array_equal(frame.changed_tiles, full_mask(width, height))
        assert np.array_equal(frame.pixels, screen.expected())


@pytest.mark.parametrize(("sign_lost", "flags"), [(True, FrameFlags.CURSOR_UNCERTAIN), (False, FrameFlags.NONE)])
def test_a_place_that_may_be_wrong_is_flagged(sign_lost: bool, flags: FrameFlags) -> None:
    """Near the left and upper edge, where the driver loses the sign; that it begins and ends is a change."""
    screen = Screen(Plane(PRIMARY, image(WIDTH, HEIGHT, 1)), Plane(CURSOR, image(16, 16), 100, 100), sign_lost)
    screen.cursor.hot = (8, 8)
    first = screen.look()
    assert first.flags is FrameFlags.NONE
    screen.cursor.move(4, 100)
    assert screen.look(first).flags is flags


def test_the_flags_of_the_screen_stay(screen: Screen) -> None:
    """A torn primary plane is a torn picture, whatever the cursor."""
    screen.primary.flags = FrameFlags.TORN
    screen.cursor.error = BadSurface("numbers")
    assert screen.look().flags is FrameFlags.TORN | FrameFlags.CURSOR_MISSING


def test_a_stale_frame_is_replaced(screen: Screen) -> None:
    """After a time without pictures the same one again is a new frame, without the flag and without damage."""
    first = screen.look()
    stale = first.marked(FrameFlags.STALE)
    fresh = screen.look(stale)
    assert fresh is not stale
    assert fresh.flags is FrameFlags.NONE
    assert fresh.serial == first.serial
    assert fresh.damage == ()


def test_an_unknown_format_keeps_what_a_backend_decoded(screen: Screen) -> None:
    """The cursor is drawn over the backend's pixels."""
    screen.primary.code = "SIM0"
    screen.primary.decoded = image(WIDTH, HEIGHT, 5, alpha=255)
    frame = screen.look()
    screen.primary.pixels = screen.primary.decoded
    assert np.array_equal(frame.pixels, screen.expected())


def test_drawing_on_a_frame_does_not_draw_on_the_next(screen: Screen) -> None:
    """`pixels` are the consumer's, also where a backend decoded them and there is no cursor."""
    screen.primary.code = "SIM0"
    expected = image(WIDTH, HEIGHT, 5, alpha=255)
    screen.primary.decoded = expected.copy()
    pixels = screen.cursor.shown
    screen.cursor.show(None)
    frame = screen.look()
    frame.pixels[:] = 0
    assert np.array_equal(screen.look().pixels, expected)
    screen.cursor.show(pixels)
    screen.primary.pixels = expected
    assert np.array_equal(screen.look(frame).pixels, screen.expected())


ACTIONS: dict[str, Callable[[Screen, int], None]] = {
    "still": lambda _screen, _: None,
    "move": lambda screen, number: screen.cursor.move(number % 400 - 50, number // 400 % 300 - 50),
    "draw": lambda screen, number: screen.primary.draw(Rect(number % 290, number // 290 % 190, 10, 10), 3),
    "image": lambda screen, number: screen.cursor.show(image(1 + number % 20, 1 + number // 20 % 20, number)),
    "hide": lambda screen, _: screen.cursor.show(None),
    "missing": lambda screen, _: setattr(screen.cursor, "error", BadSurface("numbers")),
    "found": lambda screen, _: setattr(screen.cursor, "error", None),
}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(0, 1 << 20)), min_size=1, max_size=15))
def test_damage_adds_up_and_serials_tell(steps: list[tuple[str, int]]) -> None:
    """Any history: frames are right, the damage of each turns the last into it, later damage covers all between."""
    screen = Screen(Plane(PRIMARY, image(WIDTH, HEIGHT, 1, alpha=255)), Plane(CURSOR, image(16, 16, 2), 10, 10))
    frame = screen.look()
    canvas = frame.pixels.copy()
    history = [(frame.serial, canvas.copy())]
    for (what, number), other in zip(steps, itertools.cycle((False, False, True))):
        ACTIONS[what](screen, number)
        if other:
            screen.look()  # somebody else looks too
        last, frame = frame, screen.look(frame)
        expected = screen.expected()
        assert np.array_equal(frame.pixels, expected)
        if not np.array_equal(expected, canvas):
            assert frame.serial > last.serial
        if frame is not last:
            for rect in frame.damage:
                place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
                canvas[place] = frame.pixels[place]
        assert np.array_equal(canvas, expected)
        for serial, then in history:
            pixels = then.copy()
            for rect in screen.composed.damage_since(serial):
                place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
                pixels[place] = expected[place]
            assert np.array_equal(pixels, expected)
        history.append((frame.serial, canvas.copy()))
