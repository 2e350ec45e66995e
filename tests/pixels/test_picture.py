from __future__ import annotations

from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdevdisplay.errors import DriverError
from mdevdisplay.formats import LINEAR, fourcc
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.pixels.picture import LivePicture
from mdevdisplay.pixels.pool import FramePool
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from pixels.sources import Bytes, FakeSource, apply, changes, is_straight, known, rows_of, sources, tiles_changed
from pixels.surfaces import surface_of

FAILURE = DriverError("the driver has failed")


def fail() -> NoReturn:
    raise FAILURE


def pixels_in(raw: Raw, surface: SurfaceInfo) -> Bytes:
    """Return the rows of a frame, undefined bits zero; all bytes where nobody knows where the rows are."""
    data = np.ascontiguousarray(raw).reshape(-1).view(np.uint8)
    if not is_straight(surface):
        return data.copy()
    if surface.modifier != LINEAR:
        return rows_of(data, surface)
    layout = known(surface)
    packed = SurfaceInfo(
        fourcc=surface.fourcc,
        width=surface.width,
        height=surface.height,
        stride=layout.minimum_stride(surface.width),
        size=data.size,
    )
    return rows_of(data, packed)


def expected_of(source: FakeSource) -> Bytes:
    return rows_of(source.bytes, source.layout) if is_straight(source.layout) else source.bytes.copy()


def still(code: str = "AR24", width: int = 200, height: int = 130, *, cached: bool = True) -> FakeSource:
    surface = surface_of(code, width, height, padding=4)
    return FakeSource(surface, np.zeros(surface.needed, np.uint8), cached=cached)


def test_serials_count_pictures_and_moments_without_one() -> None:
    """Equal pictures have equal serials, whatever happened to padding; a blank moment is one serial."""
    live, source = LivePicture(), still()
    assert live.serial == 0
    serials = []
    for place in (None, None, 0, None, 803, None):  # 803 is padding
        if place is not None:
            source.bytes[place] ^= 1
        live.look(source.layout, source)
        serials.append(live.serial)
    assert serials == [1, 1, 2, 2, 2, 2]
    live.blank()
    live.blank()
    assert live.serial == 3
    live.look(source.layout, source)
    assert live.serial == 4


def test_what_a_plane_shows_includes_where() -> None:
    """A cursor that moves is another picture, without damage of its own."""
    live, source = LivePicture(), still()
    places: tuple[dict[str, int], ...] = ({}, {"x": 5}, {"x": 5}, {"x": 5, "x_hot": 1, "y_hot": 2})
    serials = []
    for place in places:
        surface = SurfaceInfo(
            plane=PlaneType.CURSOR, fourcc=fourcc("AR24"), width=200, height=130, stride=816, size=816 * 130, **place
        )
        live.look(surface, source)
        serials.append(live.serial)
    assert serials == [1, 2, 2, 3]
    assert live.damage.rects_since(1) == ()


def test_damage_since_a_serial() -> None:
    """The first picture is all damage; then what changed; after a pause, or in another size, all again."""
    live, source = LivePicture(), still()
    live.look(source.layout, source)
    assert live.damage.rects_since(0) == (Rect(0, 0, 200, 130),)
    source.bytes[0] = 1
    live.look(source.layout, source)
    assert live.damage.rects_since(1) == (Rect(0, 0, 64, 64),)
    assert live.damage.rects_since(2) == ()
    live.blank()
    assert live.damage.rects_since(0) == ()
    live.look(source.layout, source)
    assert live.damage.rects_since(2) == (Rect(0, 0, 200, 130),)
    other = still(width=100)
    live.look(other.layout, other)
    assert live.damage.rects_since(4) == (Rect(0, 0, 100, 130),)


def test_the_other_buffer_of_a_guest_is_compared_too() -> None:
    """A guest that flips between two buffers of one geometry: what differs between them is the damage."""
    live, one, two = LivePicture(), still(), still()
    two.bytes[0] = 1
    for number, source in enumerate((one, two, one, two)):
        live.look(source.layout, source)
        assert live.damage.rects_since(number) == ((Rect(0, 0, 64, 64),) if number else (Rect(0, 0, 200, 130),))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("where", ["before", "inside"])
def test_an_error_leaves_no_half_picture(cached: bool, where: str) -> None:
    """An update that fails counts for nothing; the next one has changed everywhere, and is right."""
    live, source = LivePicture(), still(cached=cached)
    live.look(source.layout, source)
    source.bytes[:] = 1
    if where == "before":
        source.fail = fail
    else:
        source.fail_inside = fail
        source.mapping = None  # fetched, half of it
    with pytest.raises(DriverError):
        live.look(source.layout, source)
    source.fail = source.fail_inside = lambda: None
    with pytest.raises(ValueError, match="no picture"):
        live.copy(FramePool())
    live.look(source.layout, source)
    assert live.damage.rects_since(1) == (Rect(0, 0, 200, 130),)
    assert (live.copy(FramePool()) == 1).all()
    source.bytes[0] = 2
    live.look(source.layout, source)
    assert live.damage.rects_since(live.serial - 1) == (Rect(0, 0, 64, 64),)


def test_a_picture_that_never_stands_still_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """look() says so, of the first picture and of later ones."""
    from mdevdisplay.pixels import shadow

    live, source = LivePicture(), still()
    assert not live.look(source.layout, source)

    def equal(*_: int) -> bool:
        source.bytes[0] ^= 1
        return False

    with monkeypatch.context() as patch:
        patch.setattr(shadow, "equal", equal)
        assert live.look(source.layout, source)
        assert LivePicture().look(source.layout, source)
    assert not live.look(source.layout, source)


def test_a_frame_is_read_only_and_in_the_formats_shape() -> None:
    """As `Format.raw_shape` says; tiled ones as they lie."""
    live, pool = LivePicture(), FramePool()
    for code, modifier, shape in (
        ("AR24", 0, (40, 100, 4)),
        ("P010", 0, (60, 100)),
        ("AR24", 0x0100000000000002, None),
    ):
        surface = surface_of(code, 100, 40, modifier=modifier, padding=0 if modifier else 2)
        source = FakeSource(surface, np.zeros(surface.size, np.uint8))
        live.look(surface, source)
        raw = live.copy(pool)
        assert not raw.flags.writeable
        assert raw.shape == (shape or (surface.size,))


def test_a_used_buffer_takes_only_what_changed() -> None:
    """What the buffer holds already is not copied again: a mark that is put there stays."""
    live, pool, source = LivePicture(), FramePool(), still()
    live.look(source.layout, source)
    first = live.copy(pool)
    del first
    (storage,) = pool._free
    storage.data.reshape(130, 800)[:] = 77
    source.bytes[816 * 70] = 5  # the tile in the second row, first column
    live.look(source.layout, source)
    raw = live.copy(pool).reshape(130, 800)
    assert (raw[64:128, :256] != 77).all()
    assert (raw[:64] == 77).all()
    assert (raw[64:, 256:] == 77).all()
    assert (raw[128:] == 77).all()


def test_a_buffer_of_another_picture_is_not_trusted() -> None:
    """Two planes share a pool, and a plane has one picture after the other: serials alone do not say what it holds."""
    pool = FramePool()
    one, two = LivePicture(), LivePicture()
    here, there = still(), still()
    there.bytes[:] = 9
    for _ in range(3):
        for live, source, value in ((one, here, 0), (two, there, 9)):
            live.look(source.layout, source)
            assert (live.copy(pool) == value).all()
    one.blank()
    here.bytes[:] = 3
    one.look(here.layout, here)
    assert (one.copy(pool) == 3).all()


def test_a_copy_that_fails_leaves_a_buffer_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while one plane's picture is copied over another's: what the buffer holds then is neither."""
    pool = FramePool()
    one, two = LivePicture(), LivePicture()
    here, there = still(), still()
    one.look(here.layout, here)
    two.look(there.layout, there)
    one.copy(pool)

    def interrupted(_: object, target: Bytes, *__: object) -> NoReturn:
        target[: target.size // 2] = 5
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mdevdisplay.pixels.bands.Bands.copy_packed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two.copy(pool)
    assert not one.copy(pool).any()


class Guest:
    """A plane of its own, one mode after the other, and what somebody keeps of it."""

    def __init__(self, first: FakeSource) -> None:
        self.live = LivePicture()
        self.source = first
        self.held: list[tuple[Raw, bytes]] = []

    def look(self, pool: FramePool) -> None:
        before, since = self.live.serial, expected_of(self.source)
        self.live.look(self.source.layout, self.source)
        raw = self.live.copy(pool)
        assert np.array_equal(pixels_in(raw, self.source.layout), since), before
        self.held.append((raw, raw.tobytes()))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("change", "change", "change", "drop", "drop", "blank", "mode", "fail", "other")),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40)
@given(st.data(), STEPS)
def test_frames_are_the_source_and_stay_what_they_were(data: st.DataObject, steps: list[tuple[str, int]]) -> None:
    """Whatever changes, is held and is dropped: a frame is the picture of its moment, and never changes later."""
    pool = FramePool(keep=2)
    guests = [Guest(data.draw(sources(None, 100))), Guest(data.draw(sources(False, 100)))]
    guest = guests[0]
    for what, number in steps:
        if what == "change":
            apply(guest.source, data.draw(changes))
        elif what == "drop" and guest.held:
            del guest.held[number % len(guest.held)]
        elif what == "blank":
            guest.live.blank()
        elif what == "mode":
            guest.source = data.draw(sources(bool(number % 2), 100))
        elif what == "fail":
            guest.source.fail = fail
            with pytest.raises(DriverError):
                guest.look(pool)
            guest.source.fail = lambda: None
        elif what == "other":
            guest = guests[number % 2]
        guest.look(pool)
        for other in guests:
            assert all(raw.tobytes() == kept for raw, kept in other.held)


@settings(max_examples=50)
@given(st.data(), st.lists(changes, min_size=1, max_size=6), st.booleans())
def test_damage_adds_up(data: st.DataObject, steps: list[list[tuple[int, int]]], cached: bool) -> None:
    """What changed after any serial is what differs between the pictures, or was in between."""
    source = data.draw(sources(cached))
    live = LivePicture()
    live.look(source.layout, source)
    history = [(live.serial, source.bytes.copy())]
    for step in steps:
        apply(source, step)
        live.look(source.layout, source)
        for serial, then in history:
            differ = tiles_changed(then, source.bytes, source.layout)
            assert not (differ & ~live.damage.since(serial)).any()
        last_serial, last = history[-1]
        changed = tiles_changed(last, source.bytes, source.layout)
        assert np.array_equal(live.damage.since(last_serial), changed)
        assert (live.serial == last_serial) is not bool(changed.any())
        history.append((live.serial, source.bytes.copy()))
