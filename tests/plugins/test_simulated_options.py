"""The locator of the simulated display."""

from __future__ import annotations

import shlex
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mdevdisplay_simulated as plugin
from mdevdisplay.errors import LocatorError
from mdevdisplay.formats import FORMATS, LINEAR, X_TILED, Y_TILED, YF_TILED, fourcc, fourcc_name
from mdevdisplay_simulated import FAULTS
from mdevdisplay_simulated.options import OPTIONS, Blank, Options, parse


def test_the_bare_scheme_is_full_hd() -> None:
    """`sim:` alone is 1920x1080 XR24 at 30 frames a second, offered both ways, without a cursor."""
    options = parse("sim:")
    assert options == Options()
    assert (options.modes, fourcc_name(options.fourcc), options.via) == (((1920, 1080),), "XR24", "both")
    assert (options.cursor, options.fps, options.seed, options.faults) == (False, 30, 0, ())


def test_all_options_together() -> None:
    """Every option reaches its field."""
    text = (
        "sim:1280x720,format=ar24,stride=8192,modifier=x_tiled,via=region,udmabuf=off,cursor=on,step=2,frame=5,seed=7,"
        "buffers=3,blank=10-19/60,fault=einval:4+hang:0.25+all-black"
    )
    assert parse(text) == Options(
        modes=((1280, 720),),
        fourcc=fourcc("AR24"),
        stride=8192,
        modifier=X_TILED,
        via="region",
        udmabuf="off",
        cursor=True,
        step=2,
        frame=5,
        seed=7,
        buffers=3,
        blank=Blank(10, 19, 60),
        faults=(("einval", 4), ("hang", 0.25), ("all-black", 0)),
    )


def test_the_size_has_a_name_too() -> None:
    """`size=` may stand anywhere, its bare value only in front."""
    assert parse("sim:seed=1,size=640x480") == parse("sim:640x480,seed=1")
    with pytest.raises(LocatorError, match="is not NAME=VALUE"):
        parse("sim:seed=1,640x480")


def test_a_shell_takes_a_locator_as_it_is() -> None:
    """No character of it is special to a shell."""
    text = "sim:modes=800x600/640x480,mode_every=9,modifier=0x9,fps=29.97,blank=1-2/3,fault=einval:4+torn"
    assert parse(text).locator == text
    assert shlex.quote(text) == text


@pytest.mark.parametrize(
    ("text", "option", "right"),
    [
        ("sim:0x600", "size", "from 1 to 16384"),
        ("sim:800x16385", "size", "from 1 to 16384"),
        ("sim:800", "size", "WIDTHxHEIGHT"),
        ("sim:,seed=1", "size", "WIDTHxHEIGHT"),
        ("sim:modes=800x600/", "modes", "1920x1080/800x600"),
        ("sim:modes=" + "/".join(["8x8"] * 65), "modes", "up to 64 sizes"),
        ("sim:800x600,mode_every=5", "mode_every", "modes="),
        ("sim:format=ZZ99", "format", "XR24, AR24"),
        ("sim:stride=100", "stride", "at least 7680"),
        ("sim:8x8,stride=33,format=RG16", "stride", "multiple of 2"),
        ("sim:stride=2147483648", "stride", "smaller stride"),
        ("sim:modifier=X_TILED,stride=7681", "stride", "multiple of 512"),
        ("sim:modifier=Z_TILED", "modifier", "Yf_TILED"),
        ("sim:modifier=0x11112222333344445", "modifier", "64-bit"),
        ("sim:via=ether", "via", "both, dmabuf or region"),
        ("sim:udmabuf=yes", "udmabuf", "auto, on or off"),
        ("sim:cursor=1", "cursor", "on or off"),
        ("sim:fps=fast", "fps", "0 to 1000"),
        ("sim:fps=1001", "fps", "0 to 1000"),
        ("sim:fps=-1", "fps", "0 to 1000"),
        ("sim:step=0", "step", "from 1"),
        ("sim:frame=x", "frame", "first frame"),
        ("sim:seed=-1", "seed", "0 to 4294967295"),
        ("sim:seed=" + "9" * 5000, "seed", "0 to 4294967295"),
        ("sim:seed=\N{ARABIC-INDIC DIGIT ONE}", "seed", "0 to 4294967295"),
        ("sim:buffers=17", "buffers", "1 to 16"),
        ("sim:blank=9-3", "blank", "FIRST-LAST"),
        ("sim:blank=0-9/9", "blank", "cycle above LAST"),
        ("sim:clip=", "clip", "from_ndarray"),
        ("sim:fault=nonsense", "fault", "enomem-once"),
        ("sim:fault=eio:3", "fault", "enomem-once"),
        ("sim:fault=einval:", "fault", "einval:QUERIES"),
        ("sim:fault=einval:x", "fault", "einval:QUERIES"),
        ("sim:fault=new-id-every-query:0", "fault", "new-id"),
        ("sim:fault=eio+eio", "fault", "each once"),
        ("sim:seed=1,seed=2", "seed", "once"),
        ("sim:colour=red", "colour", "format, stride"),
        ("sim:640x480,size=8x8", "size", "once"),
        ("sim:640x480,modes=8x8", "modes", "one size"),
        ("sim:640x480,clip=x", "clip", "size of its own"),
        ("sim:modes=640x480,clip=x", "clip", "size of its own"),
        ("sim:fps=3,step=2", "step", "clock or the queries"),
        ("sim:seed=\0", "NUL", "leave it out"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right(text: str, option: str, right: str) -> None:
    """The error names the option, and its hint says what is right."""
    with pytest.raises(LocatorError) as caught:
        plugin.open_locator(text)
    assert option in caught.value.message
    assert right in caught.value.hint
    assert caught.value.device == text


def test_other_schemes_are_not_ours() -> None:
    """Only `sim:` is; anything else is left to the others."""
    assert [plugin.open_locator(text) for text in ("sim", "simulated:", "vm:win10", "")] == [None] * 4


_TOKENS = st.sampled_from([*OPTIONS, *FAULTS, *"=,:+/-x.01", ",,", "64", "99999", "on", "off", "0x9", "XR24"])


@given(st.one_of(st.text(), st.lists(_TOKENS, max_size=14).map("".join)))
@example("0x0")
@example("1x1,")
@example("1x1,=")
@example(",,")
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Nothing but a LocatorError comes of a wrong locator, and a right one survives its own spelling."""
    try:
        options = parse("sim:" + text)
    except LocatorError:
        return
    assert parse(options.locator) == options


def _faults() -> st.SearchStrategy[tuple[tuple[str, float], ...]]:
    def with_value(name: str) -> st.SearchStrategy[tuple[str, float]]:
        fault = FAULTS[name]
        values = st.integers(fault.least, min(fault.most, 99)) if fault.argument else st.just(0)
        return st.tuples(st.just(name), values)

    names = st.lists(st.sampled_from(list(FAULTS)), unique=True, max_size=4)
    return names.flatmap(lambda chosen: st.tuples(*map(with_value, chosen)))


_SIZE = st.tuples(st.integers(1, 16384), st.integers(1, 16384))
_BLANK = st.one_of(
    st.none(),
    st.just(Blank()),
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(1, 9)).map(
        lambda numbers: Blank(numbers[0], sum(numbers[:2]), sum(numbers))
    ),
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda numbers: Blank(numbers[0], sum(numbers), 0)),
)


@st.composite
def _options(draw: st.DrawFn) -> Options:
    chosen: dict[str, Any] = {
        "modes": draw(st.lists(_SIZE, min_size=1, max_size=5).map(tuple)),
        "mode_every": draw(st.integers(1, 1000)),
        "fourcc": draw(st.sampled_from(list(FORMATS))),
        "modifier": draw(st.sampled_from([LINEAR, X_TILED, Y_TILED, YF_TILED, 9, (1 << 64) - 1])),
        "via": draw(st.sampled_from(["both", "dmabuf", "region"])),
        "udmabuf": draw(st.sampled_from(["auto", "on", "off"])),
        "cursor": draw(st.booleans()),
        "frame": draw(st.integers(0, (1 << 32) - 1)),
        "seed": draw(st.integers(0, (1 << 32) - 1)),
        "buffers": draw(st.integers(1, 16)),
        "blank": draw(_BLANK),
        "faults": draw(_faults()),
    }
    if draw(st.booleans()):
        chosen["step"] = draw(st.integers(1, 99))
    else:
        chosen["fps"] = draw(st.integers(0, 1_000_000)) / 1000
    if draw(st.booleans()):
        chosen |= {
            "modes": (),
            "mode_every": 50,
            "clip": draw(st.text(st.characters(exclude_characters="\0"), min_size=1)),
        }
    elif draw(st.booleans()):
        chosen["stride"] = 1 << 16
    return Options(**chosen)


@given(_options())
def test_options_survive_their_own_spelling(options: Options) -> None:
    """What `Options.locator` writes, `parse` reads as the same."""
    assert parse(options.locator) == options


def test_the_spelling_leaves_out_what_is_the_default() -> None:
    """A locator is as short as it can be."""
    assert parse("sim:1920x1080,format=XR24,via=both,fps=30,fault=einval:3").locator == "sim:fault=einval"
    assert attrs.evolve(Options(), seed=3).locator == "sim:seed=3"


@pytest.mark.parametrize(
    ("blank", "frames"),
    [("on", range(12)), ("off", []), ("3-5", [3, 4, 5]), ("0-1/4", [0, 1, 4, 5, 8, 9]), ("7-7", [7])],
)
def test_blank_says_which_frames_show_nothing(blank: str, frames: list[int]) -> None:
    """FIRST-LAST is once, with a cycle again and again; both ends belong to it."""
    chosen = parse(f"sim:blank={blank}").blank
    assert [frame for frame in range(12) if chosen is not None and frame in chosen] == list(frames)
