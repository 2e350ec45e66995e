"""What comes out of a driver or a worker that answers anything is a right picture or an error of ours, and no more.

What `run` and `talk` check by themselves: every frame is compared with pixels that are worked out one by one, every
error is ours and names the device, no comparison leaves its memory, no buffer is larger than the memory that there is,
and no mapping and no descriptor is left. fuzz/plane_to_rgb.py does the same, guided by what it reaches.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hostile.choices import Choices
from hostile.driver import KINDS, Case, Event, Memory, Step, case_of, check_pixels, run
from hostile.guards import Guards
from hostile.planes import CODES, MODIFIERS, NUMBERS, Plane, sound
from hostile.puppet import talk
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels.memfd import sealed_memfd

from mdevdisplay import Blank, Frame, FrameFlags, PlaneType
from mdevdisplay._mapping import PAGE, Mapping
from mdevdisplay.errors import BadSurface, MdevDisplayError, NotMappable
from mdevdisplay.formats import X_TILED, Y_TILED, YF_TILED, fourcc
from mdevdisplay.pixels.compare import address
from mdevdisplay.surface import SurfaceInfo

SEEDS = Path(__file__).parent.parent / "fuzz" / "seeds"
BOTH = ("region_cap", "intel_gvt")
MEMORY = 1 << 16
CODES_SHOWN = tuple(code for code in CODES if code not in ("C8", "ACME"))


def display(plane: Plane, kind: str = "region_cap", *, size: int = MEMORY, sealed: bool = True, **more: Any) -> Case:
    """A display whose primary plane says this, in memory of one size."""
    memory = Memory(size=size, sealed=sealed)
    case = Case(kind=kind, memories=(memory,) * 3, primary=plane.encoded(), steps=(Step(),))
    return attrs.evolve(case, **more)


def seen(case: Case) -> Frame | Blank | MdevDisplayError | None:
    """What the first look came to."""
    return run(case)[0]


# anything at all


@settings(max_examples=400)
@given(st.binary(max_size=500))
def test_a_driver_that_answers_anything(data: bytes) -> None:
    run(case_of(Choices(data)))


@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_a_worker_that_answers_anything(data: bytes) -> None:
    talk(Choices(data))


@pytest.mark.parametrize("name", sorted(path.name for path in SEEDS.iterdir()))
def test_where_the_fuzzer_begins(name: str) -> None:
    """Each input gives frames: they are the way in that a fuzzer would have to find."""
    choices = Choices((SEEDS / name).read_bytes())
    if choices.number(3) == 3:
        assert talk(choices) > 1
    else:
        assert sum(isinstance(outcome, Frame) for outcome in run(case_of(choices))) > 3


@settings(max_examples=300)
@given(
    st.sampled_from(BOTH),
    st.sampled_from(CODES),
    st.sampled_from(MODIFIERS),
    st.tuples(*[st.sampled_from(NUMBERS)] * 4),
)
def test_nothing_is_allocated_for_memory_that_is_not_there(
    kind: str, code: str, modifier: int, numbers: tuple[int, int, int, int]
) -> None:
    """However large the numbers are: a few times the real memory, and what 512 by 512 tiles take."""
    width, height, stride, size = numbers
    plane = Plane(
        fourcc=fourcc(code), modifier=modifier, width=width, height=height, stride=stride, size=size, number=1
    )
    case = display(plane, kind)
    run(display(Plane(), kind))  # what is made once is there
    tracemalloc.start()
    try:
        run(case)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


# one thing at a time


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("field", ["fourcc", "width", "height", "size"])
def test_a_plane_without_pixels_is_blank(kind: str, field: str) -> None:
    assert isinstance(seen(display(attrs.evolve(Plane(), **{field: 0}), kind)), Blank)


WRONG = {
    "width 32768": (attrs.evolve(Plane(), width=32768), "not between 1 and 32767"),
    "width 65535": (attrs.evolve(Plane(), width=65535), "not between 1 and 32767"),
    "height 65535": (attrs.evolve(Plane(), height=65535), "not between 1 and 32767"),
    "both 65535": (attrs.evolve(Plane(), width=65535, height=65535, stride=262140, size=0xFFFFFFFF), "not between"),
    "all that is believed": (sound("XR24", 32767, 32767), "takes"),
    "stride 0": (attrs.evolve(Plane(), stride=0), "the stride is 0"),
    "stride 1 short": (attrs.evolve(Plane(), stride=31), "takes 32 bytes, the stride is 31"),
    "stride of half an element": (attrs.evolve(sound("RG16", 8, 8), stride=17, size=4096), "splits an element"),
    "stride of half a long": (attrs.evolve(sound("XR30", 8, 8), stride=34, size=4096), "splits an element"),
    "stride beyond the buffer": (attrs.evolve(Plane(), stride=1 << 20), "the size is 256"),
    "stride and size beyond it": (attrs.evolve(Plane(), stride=1 << 20, size=0xFFFFFFFF), "takes"),
    "the largest stride": (attrs.evolve(Plane(), stride=0xFFFFFFFF, size=0xFFFFFFFF), "takes"),
    "size 1": (attrs.evolve(Plane(), size=1), "the size is 1"),
    "size 1 short": (attrs.evolve(Plane(), size=255), "takes 256 bytes, the size is 255"),
    "X tiles of another stride": (attrs.evolve(Plane(), modifier=X_TILED, size=8192), "no multiple of the 512"),
    "Y tiles of another stride": (attrs.evolve(Plane(), modifier=Y_TILED, size=8192), "no multiple of the 128"),
    "Yf tiles of another stride": (attrs.evolve(Plane(), modifier=YF_TILED, size=8192), "no multiple of the 128"),
    "an unknown format of any size": (attrs.evolve(sound("ACME", 8, 8), size=0xFFFFFFFF), "takes|dma-buf has"),
    "no room for chroma": (attrs.evolve(sound("NV12", 9, 9), size=sound("NV12", 9, 9).size - 1), "the size is 139"),
}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("what", WRONG)
def test_numbers_that_do_not_add_up_are_refused(kind: str, what: str) -> None:
    plane, said = WRONG[what]
    with pytest.raises(BadSurface, match=said):
        raise seen(display(plane, kind))  # type: ignore[misc]


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("modifier", [0, X_TILED, Y_TILED, YF_TILED])
@pytest.mark.parametrize("code", CODES_SHOWN)
def test_memory_that_is_one_byte_short_is_refused(code: str, modifier: int, sealed: bool) -> None:
    """And shown where it is all there; tiled pictures need their last row of tiles."""
    plane = sound(code, 67, 35, modifier)
    short = seen(display(plane, size=plane.needed - 1, sealed=sealed))
    assert isinstance(short, BadSurface)
    assert isinstance(seen(display(plane, size=plane.needed, sealed=sealed)), Frame)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (5, 7), (1, 32767), (32767, 1), (65, 129)])
@pytest.mark.parametrize("code", CODES_SHOWN)
def test_odd_sizes_are_shown(kind: str, code: str, size: tuple[int, int]) -> None:
    plane = sound(code, *size)
    assert isinstance(seen(display(plane, kind, size=-(-plane.needed // PAGE) * PAGE)), Frame)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("stride", [33, 35, 4096, 0xFFFFFFFF])
def test_a_strange_stride_that_adds_up_is_kept_to(stride: int, cached: bool) -> None:
    """One that splits a pixel of four bytes too: its elements are bytes."""
    height = 1 if stride > 4096 else 9
    plane = attrs.evolve(Plane(), height=height, stride=stride)
    plane = attrs.evolve(plane, size=plane.needed)
    assert isinstance(seen(display(plane, cached=cached)), Frame)


REGIONS = {
    "it ends one byte early": (5, 255, 0),
    "it has no bytes": (5, 0, 0),
    "it begins behind the end": (5, MEMORY, MEMORY),
    "it begins off a page": (5, 4096, 100),
    "it begins beyond all files": (5, 4096, 1 << 63),
    "it ends where numbers end": (5, (1 << 64) - 1, (1 << 64) - 4096),
    "it cannot be mapped": (1, MEMORY, 0),
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("what", REGIONS)
def test_a_region_that_the_picture_is_not_in(what: str, sealed: bool) -> None:
    """Whether it is mapped or read. Only reading has no use for pages."""
    outcome = seen(display(Plane(number=0), region=REGIONS[what], sealed=sealed))
    if what == "it begins off a page" and not sealed:
        assert isinstance(outcome, Frame)
    else:
        assert isinstance(outcome, MdevDisplayError)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_region_that_ends_behind_its_file(sealed: bool) -> None:
    """What is there is not enough, whatever the driver says of the region."""
    plane = sound("XR24", 64, 32)
    outcome = seen(display(plane, region=(5, MEMORY, MEMORY - PAGE), sealed=sealed))
    assert isinstance(outcome, BadSurface)


@pytest.mark.parametrize("size", [(1 << 32) + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_region_that_says_more_than_there_is(size: int) -> None:
    """The picture is within what there really is, so it is shown."""
    assert isinstance(seen(display(Plane(), region=(5, size, 0))), Frame)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("query", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("then", [*CODES, "shorter", "tiled", "larger", "nothing", "wrong"])
def test_what_changes_between_query_and_copy(kind: str, then: str, query: int, cached: bool) -> None:
    """The frame is of the last answer; `run` compares it."""
    plane = sound("XR24", 70, 40)
    others = {
        "shorter": attrs.evolve(plane, height=39),
        "tiled": sound("XR24", 70, 40, Y_TILED),
        "larger": sound("XR24", 100, 130),
        "nothing": attrs.evolve(plane, width=0),
        "wrong": attrs.evolve(plane, width=0xFFFF),
    }
    other = others[then] if then in others else sound(then, 70, 40)
    change = Step(events=(Event(query=query, answer=other.encoded()),))
    case = display(plane, kind, cached=cached, steps=(Step(), change, Step(), Step(look="both"), Step(look="mapping")))
    outcomes = run(case)
    assert isinstance(outcomes[0], Frame)
    shown = {"nothing": Blank, "wrong": BadSurface}.get(then, Frame)
    assert isinstance(outcomes[2], shown if query <= 2 else Frame)
    now = outcomes[1]
    if shown is Frame and query <= 2:
        assert isinstance(now, Frame)
        assert (now.surface.fourcc, now.surface.modifier, now.width, now.height) == (
            other.fourcc,
            other.modifier,
            other.width,
            other.height,
        )


POKES = st.tuples(st.integers(0, MEMORY - 9), st.binary(min_size=1, max_size=9))
SAME_BYTES = {
    "X tiles": (sound("XR24", 100, 16, X_TILED), {"stride": 1024}),
    "Y tiles": (sound("RG16", 100, 40, Y_TILED), {"stride": 384}),
    "Yf tiles": (sound("AR24", 100, 30, YF_TILED), {"stride": 896}),
    "an unknown format": (sound("ACME", 40, 40), {"stride": 80, "width": 20, "height": 80}),
    "an unknown format of another size": (sound("ACME", 40, 40), {"size": MEMORY}),
    "tiles in a larger buffer": (sound("XR24", 100, 16, X_TILED), {"size": MEMORY}),
}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("what", SAME_BYTES)
def test_another_layout_of_the_same_bytes(what: str, cached: bool) -> None:
    """Nothing in memory changes; the picture does."""
    plane, changes = SAME_BYTES[what]
    one, other = (attrs.evolve(plane, **{"size": MEMORY // 2, **change}) for change in ({}, changes))
    back = [Step(events=(Event(answer=answer.encoded()),)) for answer in (other, one, other)]
    outcomes = run(display(one, cached=cached, steps=(Step(), *back)))
    assert all(isinstance(outcome, Frame) for outcome in outcomes)


@settings(max_examples=60)
@given(
    st.sampled_from(CODES_SHOWN),
    st.sampled_from([0, X_TILED, Y_TILED]),
    st.booleans(),
    st.lists(st.lists(POKES, max_size=3), max_size=6),
)
def test_what_a_guest_draws_is_seen(
    code: str, modifier: int, cached: bool, drawn: list[list[tuple[int, bytes]]]
) -> None:
    """Every look shows what is there then, and nothing changes outside of the damage. `run` compares both."""
    plane = sound(code, 120, 70, 0 if code in ("NV12", "P010") else modifier, padding=8)
    steps = [Step(events=tuple(Event(poke=poke) for poke in pokes)) for pokes in drawn]
    both = [attrs.evolve(step, look="both") for step in steps]
    outcomes = run(display(plane, cached=cached, steps=(Step(), *steps, *both)))
    assert all(isinstance(outcome, Frame) for outcome in outcomes)


@pytest.mark.parametrize("query", [0, 1, 2])
@pytest.mark.parametrize("room", [0, 1, 255, 4096, 4097])
def test_a_file_that_is_cut_off_meanwhile(room: int, query: int) -> None:
    """It is read, never mapped: an error, and the picture again once the bytes are back."""
    plane = sound("XR24", 64, 64)
    cut, back = Event(query=query, resize=room), Event(resize=MEMORY)
    steps = (Step(), Step(events=(cut,)), Step(), Step(look="mapping"), Step(events=(back,)))
    outcomes = run(display(plane, sealed=False, steps=steps))
    assert isinstance(outcomes[0], Frame)
    assert isinstance(outcomes[2], BadSurface)
    assert isinstance(outcomes[3], NotMappable)
    assert isinstance(outcomes[4], Frame)


CURSORS = {
    "at the corner": ({}, FrameFlags.NONE),
    "larger than the screen": ({"width": 90, "height": 90, "stride": 360, "size": 32400}, FrameFlags.NONE),
    "half off": ({"x": -5, "y": 30}, FrameFlags.NONE),
    "off to the right": ({"x": 64}, FrameFlags.NONE),
    "off to the left": ({"x": -8}, FrameFlags.NONE),
    "at the last number": ({"x": 0xFFFFFFFF, "y": 0xFFFFFFFF}, FrameFlags.NONE),
    "as far as numbers go": ({"x": 0x7FFFFFFF, "y": 0x80000000}, FrameFlags.NONE),
    "without width": ({"width": 0}, FrameFlags.NONE),
    "with a hot spot outside": ({"x_hot": 0xFFFFFFFE, "y_hot": 200}, FrameFlags.NONE),
    "of 4096 columns": ({"width": 4096, "height": 1, "stride": 16384, "size": 16384}, FrameFlags.CURSOR_MISSING),
    "of 65535 columns": ({"width": 65535}, FrameFlags.CURSOR_MISSING),
    "one byte short": ({"size": 255}, FrameFlags.CURSOR_MISSING),
    "in no memory": ({"number": 9}, FrameFlags.CURSOR_MISSING),
    "of a palette": ({"fourcc": fourcc("C8")}, FrameFlags.CURSOR_MISSING),
    "in unknown tiles": ({"modifier": 1 << 63}, FrameFlags.CURSOR_MISSING),
}


@pytest.mark.parametrize("what", CURSORS)
def test_cursors(what: str) -> None:
    """Drawn where they are, clipped, or missing by name; the screen is there in any case. `run` compares the pixels."""
    changes, flags = CURSORS[what]
    cursor = attrs.evolve(Plane(fourcc=fourcc("AR24"), number=2), **changes)
    case = display(sound("XR24", 64, 48), "intel_gvt", cursor=cursor.encoded(), steps=(Step(look="both"),))
    outcome = seen(case)
    assert isinstance(outcome, Frame)
    assert outcome.flags & ~FrameFlags.CURSOR_UNCERTAIN is flags


# what the tests stand on


def test_a_wrong_pixel_is_noticed() -> None:
    plane = sound("RG16", 9, 7)
    data = np.arange(plane.needed, dtype=np.uint8)
    surface = SurfaceInfo(fourcc=plane.fourcc, width=9, height=7, stride=plane.stride, size=plane.needed)
    raw = data.view("<u2").reshape(7, 9).copy()
    check_pixels(Frame(raw, surface), surface, data.tobytes())
    raw[6, 8] ^= 1
    with pytest.raises(AssertionError, match="at 8, 6"):
        check_pixels(Frame(raw, surface), surface, data.tobytes())


def test_an_access_beside_the_memory_is_noticed() -> None:
    """By a byte where it is compared, by a page where it is not."""
    with Guards() as guards:
        data = np.zeros(64, np.uint8)
        start = guards._address(data)
        assert guards._equal(start, start, 64)
        with pytest.raises(AssertionError, match="not within"):
            guards._equal(start, start + 1, 64)
        guards.may_need(1 << 18)
        buffer = guards.allocate(1 << 18)
        with pytest.raises(AssertionError, match="no memory has more"):
            guards.allocate((1 << 18) + 1)
        fd = sealed_memfd("guarded")
        mapping = Mapping(fd, 0, PAGE)
        (begin, size), *_ = guards.mapped.values()
        assert _untouchable(begin)
        assert _untouchable(begin + size - PAGE)
        assert _untouchable(address(buffer) + buffer.size)
        del mapping
        assert not guards.mapped


def _untouchable(place: int) -> bool:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, rights, *_ = line.split()
        first, last = (int(number, 16) for number in span.split("-"))
        if first <= place < last:
            return rights.startswith("---")
    return False


def test_every_kind_and_plane_is_reached() -> None:
    """The backends are those that are installed, and both planes are looked at."""
    assert all(isinstance(seen(display(Plane(), kind, region=None, registers=MEMORY - PAGE)), Frame) for kind in KINDS)
    cursor = display(Plane(), "intel_gvt", cursor=Plane(number=2).encoded(), steps=(Step(look="cursor"),))
    outcome = seen(cursor)
    assert isinstance(outcome, Frame)
    assert outcome.surface.plane is PlaneType.CURSOR
