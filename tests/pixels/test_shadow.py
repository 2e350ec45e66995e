from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.formats import fourcc
from mdevdisplay.pixels import compare
from mdevdisplay.pixels import shadow as module
from mdevdisplay.pixels.bands import Bands
from mdevdisplay.pixels.shadow import Shadow, is_cached
from mdevdisplay.surface import SurfaceInfo
from pixels.sources import FakeSource, apply, changes, known, sources, tiles_changed
from pixels.surfaces import surface_of


def is_like(shadow: Shadow, source: FakeSource) -> bool:
    """Whether a copy has every byte of its source's stretches; what is behind the last tile is nobody's."""
    places = [slice(stretch.start, stretch.stop) for stretch in shadow.bands.stretches]
    return all(np.array_equal(shadow.data[place], source.bytes[place]) for place in places)


@pytest.mark.parametrize("cached", [True, False])
@given(data=st.data())
def test_a_shadow_follows_its_source(cached: bool, data: st.DataObject) -> None:
    """Any format, layout and change: the mask is right, the copy is equal to the last byte, and nothing is torn."""
    source = data.draw(sources(cached))
    shadow = Shadow(source)
    assert is_like(shadow, source)
    assert not shadow.torn
    for _ in range(data.draw(st.integers(1, 4))):
        before = source.bytes.copy()
        apply(source, data.draw(changes))
        assert shadow.fits(source)
        mask, torn = shadow.update(source)
        assert np.array_equal(mask, tiles_changed(before, source.bytes, source.layout))
        assert not torn
        assert is_like(shadow, source)


@given(sources(), changes)
def test_both_ways_say_the_same(source: FakeSource, changed: list[tuple[int, int]]) -> None:
    """Compared in place or staged."""
    direct = Shadow(source)
    other = FakeSource(source.layout, source.memory, source.start, cached=False)
    staged = Shadow(other)
    apply(source, changed)
    one, two = direct.update(source), staged.update(other)
    assert np.array_equal(one[0], two[0])
    assert one[1] == two[1]
    assert is_like(direct, source)
    assert is_like(staged, source)


@pytest.mark.parametrize("cached", [True, False])
def test_padding_and_undefined_bits_cost_one_look(cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no damage, and later looks find everything equal at the first comparison."""
    surface = surface_of("XR24", 100, 200, padding=8)
    source = FakeSource(surface, np.zeros(surface.needed, np.uint8), cached=cached)
    shadow = Shadow(source)
    source.bytes[400:408] = 9  # padding
    source.bytes[surface.stride * 70 + 3] = 9  # an X byte
    mask, torn = shadow.update(source)
    assert not mask.any()
    assert not torn
    monkeypatch.setattr(Bands, "changed", lambda *_: pytest.fail("it is looked at closely again"))
    mask, torn = shadow.update(source)
    assert not mask.any()
    assert not torn


@pytest.mark.parametrize("cached", [True, False])
def test_padding_beside_a_change_costs_one_look_too(cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pixels changed, the padding of their rows is taken over with them."""
    surface = surface_of("AR24", 200, 64, padding=8)
    source = FakeSource(surface, np.zeros(surface.needed, np.uint8), cached=cached)
    shadow = Shadow(source)
    source.bytes[800:810] = 9  # padding, and the first pixel of the next row
    mask, torn = shadow.update(source)
    assert np.argwhere(mask).tolist() == [[0, 0]]
    assert not torn
    monkeypatch.setattr(Bands, "changed", lambda *_: pytest.fail("it is looked at closely again"))
    assert not shadow.update(source)[0].any()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("height", [1, 64, 65, 130])
def test_the_last_row_ends_with_its_last_pixel(height: int, cached: bool) -> None:
    """What lies behind it is not the picture's: the memory may end there."""
    surface = surface_of("XR24", 10, height, padding=20)
    source = FakeSource(surface, np.zeros(surface.needed, np.uint8), cached=cached)
    shadow = Shadow(source)
    assert shadow.data.size == surface.stride * (height - 1) + 40
    source.bytes[-2] = 1
    assert shadow.update(source)[0].sum() == 1
    assert np.array_equal(shadow.data, source.bytes)


@pytest.mark.parametrize("cached", [True, False])
def test_an_unknown_format_is_all_or_nothing(cached: bool) -> None:
    """Any change is a change everywhere, none is none."""
    surface = SurfaceInfo(fourcc=fourcc("SIM0"), width=130, height=130, stride=600, size=80_000)
    source = FakeSource(surface, np.zeros(80_000, np.uint8), cached=cached)
    shadow = Shadow(source)
    assert not shadow.update(source)[0].any()
    source.bytes[79_999] = 1
    assert shadow.update(source)[0].all()
    assert not shadow.update(source)[0].any()


@pytest.mark.parametrize("code", ["XR24", "NV12"])
def test_a_wasteful_stride_is_not_kept(code: str) -> None:
    """A hostile stride of 1 MiB costs the rows' bytes, not the padding's; what is between the rows is no matter."""
    layout = known(surface_of(code, 70, 9))
    rows, length = layout.rows(9), layout.minimum_stride(70)
    surface = SurfaceInfo(fourcc=layout.fourcc, width=70, height=9, stride=1 << 20, size=rows << 20)
    source = FakeSource(surface, np.zeros(rows << 20, np.uint8))
    shadow = Shadow(source)
    assert shadow.data.size == rows * length
    source.bytes[(1 << 20) - 1] = 1
    assert not shadow.update(source)[0].any()
    source.bytes[(8 << 20) + length - 3] = 255
    mask, _ = shadow.update(source)
    assert np.argwhere(mask).tolist() == [[0, 1]]
    assert shadow.data[8 * length + length - 3] == 255


@pytest.mark.parametrize(
    "other",
    [
        surface_of("AR24", 64, 64),
        surface_of("XR24", 65, 64),
        surface_of("XR24", 64, 65),
        surface_of("XR24", 64, 64, padding=1),
        surface_of("XR24", 128, 64, modifier=0x0100000000000001),
    ],
)
def test_another_geometry_does_not_fit(other: SurfaceInfo) -> None:
    """What lies otherwise cannot be compared."""
    surface = surface_of("XR24", 64, 64)
    shadow = Shadow(FakeSource(surface, np.zeros(surface.size, np.uint8)))
    assert not shadow.fits(FakeSource(other, np.zeros(other.size, np.uint8)))
    assert shadow.fits(FakeSource(surface_of("XR24", 64, 64), np.ones(surface.size, np.uint8), 0))


# how often memory is read


def test_slow_memory_is_read_once() -> None:
    """One pass from front to back for every update, and nothing of it is looked at in place."""
    surface = surface_of("AR24", 100, 100)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8), cached=False)
    shadow = Shadow(source)
    for count in range(2, 6):
        assert source.mapping is not None
        source.mapping.data = np.zeros(0, np.uint8)  # whoever looks there finds nothing
        source.bytes[count] ^= 255
        assert shadow.update(source)[0].sum() == 1
        assert source.copies == source.brackets == count


def test_cached_memory_is_never_staged() -> None:
    """The first picture is copied, and from then on only what changed."""
    surface = surface_of("AR24", 100, 100)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    shadow = Shadow(source)
    where = shadow.data.__array_interface__["data"][0]
    for count in range(2, 6):
        source.bytes[count] ^= 255
        assert shadow.update(source)[0].sum() == 1
        assert source.brackets == count
        assert shadow.data.__array_interface__["data"][0] == where
    assert source.copies == 1


@pytest.mark.parametrize("cached", [True, False])
def test_which_it_is_is_measured_at_the_first_frame(cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for every mapping, of the picture's own bytes."""
    measured: list[int] = []

    def measure(live: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bool:
        measured.append(live.size)
        return cached

    monkeypatch.setattr(module, "is_cached", measure)
    surface = surface_of("XR24", 100, 100)
    source = FakeSource(surface, np.zeros(surface.size + 64, np.uint8), 64, cached=None)
    shadow = Shadow(source)
    assert source.mapping is not None
    assert source.mapping.cached is cached
    for _ in range(3):
        shadow.update(source)
    assert measured == [source.extent]
    assert source.copies == (1 if cached else 4)


def test_what_has_to_be_fetched_is_staged() -> None:
    """A source without a mapping, as a file that may be truncated or a GPU's memory."""
    surface = surface_of("XR24", 100, 100)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    source.mapping = None
    shadow = Shadow(source)
    source.bytes[0] = 1
    assert shadow.update(source)[0].sum() == 1
    assert source.copies == 2


@pytest.mark.parametrize(
    ("own", "theirs", "cached"),
    [
        ([1, 1, 1], [1, 1, 1], True),
        ([1, 1, 1], [3.9, 3.9, 3.9], True),
        ([1, 1, 1], [50, 50, 50], False),
        ([1, 1, 1], [4.1, 4.1, 4.1], False),
        ([1, 1, 1], [100, 100, 1], True),  # somebody else had the processor, or the pages were not there yet
        ([90, 90, 1], [50, 60, 70], False),
    ],
)
def test_memory_is_cached_where_it_is_about_as_fast_as_our_own(
    own: list[float], theirs: list[float], cached: bool
) -> None:
    """The quickest of three readings counts, of each; four times as long is slow."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for seconds in (*own, *theirs):
            yield now
            now += seconds
            yield now

    clock = ticks()
    assert is_cached(np.zeros(1 << 20, np.uint8), lambda: next(clock)) is cached


def test_ordinary_memory_is_cached() -> None:
    """Measured for real, in any size."""
    assert all(is_cached(np.zeros(size, np.uint8)) for size in (1 << 22, 1 << 17))
    assert is_cached(np.zeros(1, np.uint8)) in (True, False)


# a guest that draws meanwhile


class Meddler:
    """Changes a source whenever the code under test has compared or looked closely."""

    def __init__(self, source: FakeSource, patch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
        self.calls = 0
        self.act = act
        real_equal, real_changed = compare.equal, Bands.changed

        def equal(one: int, other: int, size: int) -> bool:
            result = real_equal(one, other, size)
            self.step()
            return result

        def changed(*arguments: object) -> object:
            result = real_changed(*arguments)  # type: ignore[arg-type]
            self.step()
            return result

        patch.setattr(module, "equal", equal)
        patch.setattr(Bands, "changed", changed)

    def step(self) -> None:
        self.calls += 1
        self.act(self.calls)


def test_what_never_stands_still_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A band that is drawn to all the time is copied three times, and flagged."""
    surface = surface_of("XR24", 64, 128)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    shadow = Shadow(source)

    def draw(count: int) -> None:
        source.bytes[0] = count % 251

    meddler = Meddler(source, monkeypatch, draw)
    source.bytes[0] = 255
    mask, torn = shadow.update(source)
    assert torn
    assert np.argwhere(mask).tolist() == [[0, 0]]
    meddler.act = lambda _: None
    mask, torn = shadow.update(source)
    assert not torn
    assert np.argwhere(mask).tolist() == [[0, 0]]
    assert np.array_equal(shadow.data, source.bytes)


def test_what_changes_once_meanwhile_is_not_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied again, and both changes are damage."""
    surface = surface_of("XR24", 128, 64)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    shadow = Shadow(source)

    def draw(count: int) -> None:
        if count == 2:
            source.bytes[300] = 1

    Meddler(source, monkeypatch, draw)
    source.bytes[0] = 255
    mask, torn = shadow.update(source)
    assert not torn
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1]]
    assert np.array_equal(shadow.data, source.bytes)


@pytest.mark.parametrize("lasting", [True, False])
def test_the_first_picture_is_verified_too(lasting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is drawn while all of it is copied: right in the end, and flagged where that has no end."""
    surface = surface_of("XR24", 64, 64)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))

    def draw(count: int) -> None:
        if lasting:
            source.bytes[0] = count % 251

    Meddler(source, monkeypatch, draw)
    source.fail_inside = lambda: source.bytes.__setitem__(slice(0, 4), 7)  # behind the copy's back
    shadow = Shadow(source)
    assert shadow.torn is lasting
    assert np.array_equal(shadow.data, source.bytes) is not lasting


@given(sources(), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2**32 - 1)), min_size=1, max_size=8), changes)
def test_nothing_is_copied_unnoticed(
    source: FakeSource, draws: list[tuple[int, int]], first: list[tuple[int, int]]
) -> None:
    """Whenever the guest draws: what differs in the copy afterwards is in the mask, and nothing is lost for good."""
    shadow = Shadow(source)

    def draw(count: int) -> None:
        for when, place in draws:
            if when == count:
                source.bytes[place % source.extent] ^= 0x11

    with pytest.MonkeyPatch.context() as patch:
        Meddler(source, patch, draw)
        apply(source, first)
        before = shadow.data.copy()
        mask, _ = shadow.update(source)
        assert not (tiles_changed(before, shadow.data, source.layout) & ~mask).any()
    before = shadow.data.copy()
    mask, torn = shadow.update(source)
    assert not torn
    assert np.array_equal(mask, tiles_changed(before, source.bytes, source.layout))
    assert is_like(shadow, source)


def test_a_guest_that_draws_all_the_time() -> None:
    """A thread draws while another follows: each mask tells what became of the copy, and in the end both are equal."""
    surface = surface_of("XR24", 640, 480)
    source = FakeSource(surface, np.zeros(surface.size, np.uint8))
    shadow = Shadow(source)
    ended = threading.Event()

    def draw() -> None:
        numbers = np.random.default_rng(0)
        while not ended.is_set():
            place = int(numbers.integers(0, source.extent - 5000))
            source.bytes[place : place + 5000] ^= 1

    guest = threading.Thread(target=draw)
    guest.start()
    try:
        for _ in range(150):
            before = shadow.data.copy()
            mask, _ = shadow.update(source)
            assert not (tiles_changed(before, shadow.data, surface) & ~mask).any()
    finally:
        ended.set()
        guest.join()
    shadow.update(source)
    assert np.array_equal(shadow.data, source.bytes)
