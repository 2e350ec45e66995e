"""Values travel as they are, and what comes from a worker is checked before it is one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay import BackendInfo, Identity, Match, PlaneType, SurfaceInfo, errors
from mdevdisplay.errors import (
    BadSurface,
    Closed,
    DriverError,
    MdevDisplayError,
    NotPermitted,
    TimedOut,
    VmGone,
    WorkerDied,
)
from mdevdisplay.formats import FORMATS
from mdevdisplay.reader import Readability
from mdevdisplay.source import Finding
from mdevdisplay.vfio.edid import Edid
from mdevdisplay.worker import values, wire
from mdevdisplay.worker.wire import BadMessage

WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def travelled(body: dict[str, Any]) -> dict[str, Any]:
    return wire.decode(wire.encode(body))


@st.composite
def surfaces(draw: st.DrawFn) -> SurfaceInfo:
    layout = draw(st.sampled_from(list(FORMATS.values())))
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    item = int(layout.dtype[1])
    stride = -(-layout.minimum_stride(width) // item) * item + item * draw(st.integers(0, 5))
    return SurfaceInfo(
        plane=draw(st.sampled_from(PlaneType)),
        fourcc=layout.fourcc,
        width=width,
        height=height,
        stride=stride,
        size=stride * layout.rows(height) + draw(st.integers(0, 99)),
        offset=item * draw(st.integers(0, 99)),
        x=draw(st.integers(0, 0xFFFFFFFF)),
        x_hot=draw(st.none() | st.integers(0, 64)),
        dmabuf_id=draw(st.none() | st.integers(0, 0xFFFFFFFF)),
        region_index=draw(st.none() | st.integers(0, 99)),
    )


@given(surfaces())
def test_surfaces_travel(surface: SurfaceInfo) -> None:
    """Whatever they are."""
    body = travelled({"surface": values.surface_to(surface)})
    assert values.surface_from(body, "surface", "dev") == surface


def test_a_surface_that_does_not_add_up_names_its_device() -> None:
    """The numbers are in the message, as where a driver reports them."""
    body = values.surface_to(SurfaceInfo(fourcc=1, width=1, height=1, stride=4, size=4))
    with pytest.raises(BadSurface, match="40000") as caught:
        values.surface_from({"surface": {**(body or {}), "width": 40000}}, "surface", "dev")
    assert caught.value.device == "dev"


def test_no_surface_travels() -> None:
    """None is what it was."""
    assert values.surface_from({"surface": values.surface_to(None)}, "surface", "dev") is None


FIELDS = ("plane", "fourcc", "modifier", "width", "height", "stride", "size", "offset", "x", "x_hot", "dmabuf_id")


@given(surfaces(), st.dictionaries(st.sampled_from(FIELDS), WILD))
def test_surfaces_are_checked(surface: SurfaceInfo, wild: dict[str, Any]) -> None:
    """Whatever a worker puts into one, it is a surface that its own class accepts, or refused."""
    body = values.surface_to(surface)
    assert body is not None
    try:
        found = values.surface_from({"surface": body | wild}, "surface", "dev")
    except BadMessage:
        return
    except BadSurface:
        return
    assert isinstance(found, SurfaceInfo)
    assert isinstance(found.plane, PlaneType)
    assert all(type(getattr(found, name)) in (int, type(None)) for name in ("width", "x_hot", "dmabuf_id"))


PARSERS = [
    lambda body: values.surface_from(body, "value", "dev"),
    lambda body: values.error_from(body, "value", "dev"),
    lambda body: values.edid_from(body, "value"),
    lambda body: values.readability_from(body, "value"),
    lambda body: values.findings_from(body, "value"),
    lambda body: values.identity_from(body, "value"),
    lambda body: values.backend_from(body, "value"),
    lambda body: values.number(body, "value"),
    lambda body: values.text(body, "value"),
    lambda body: values.boolean(body, "value"),
]

NAMES = ["class", "message", "hint", "cause", "errno", "blob", "max_size", "way", "reason", "refusals", "score", "name"]


@pytest.mark.parametrize("parse", PARSERS)
@given(
    value=WILD | st.dictionaries(st.sampled_from(NAMES), WILD) | st.lists(st.dictionaries(st.sampled_from(NAMES), WILD))
)
def test_nonsense_is_refused_by_one_error(parse: Any, value: Any) -> None:
    """A value comes out or BadMessage, never another error."""
    with suppress(BadMessage, BadSurface):
        parse({"value": value})


CLASSES = [
    kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, MdevDisplayError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_travels(kind: type[MdevDisplayError]) -> None:
    """Class, message, hint, cause and errno; the device is the one that was asked for.

    But closing a display is this side's: a worker that says so must not end a stream as if it had been.
    """
    error = kind("what", device="fd:7", hint="do", cause="because", errno=5)
    found = values.error_from(travelled({"error": values.error_to(error)}), "error", "dev")
    assert type(found) is (WorkerDied if kind is Closed else kind)
    assert (found.message, found.hint, found.cause, found.errno) == ("what", "do", "because", 5)
    assert found.device == "dev"


def test_the_causes_of_classes_are_their_own() -> None:
    """Without one of its own an error has its class's."""
    found = values.error_from({"error": values.error_to(VmGone("gone"))}, "error", "dev")
    assert found.cause == "vm-gone"
    assert found.errno is None
    assert isinstance(values.error_from({"error": values.error_to(TimedOut("x"))}, "error", ""), TimeoutError)


def test_errors_of_other_classes() -> None:
    """A class of a backend's own is the nearest of ours; anything else is an error with its class in the message."""

    class Own(DriverError):
        pass

    assert type(values.error_from({"e": values.error_to(Own("x"))}, "e", "")) is DriverError
    found = values.error_from({"e": values.error_to(ZeroDivisionError("by zero"))}, "e", "")
    assert type(found) is MdevDisplayError
    assert found.message == "ZeroDivisionError: by zero"
    body = {"class": "os.system", "message": "x", "hint": ""}
    assert type(values.error_from({"e": body}, "e", "")) is MdevDisplayError


def test_long_texts_are_cut() -> None:
    """An error fits into a message, and says that something is missing."""
    found = values.error_from(travelled({"e": values.error_to(NotPermitted("x" * 99999))}), "e", "")
    assert len(found.message) <= 2000
    assert found.message.endswith("…")


def test_other_values_travel() -> None:
    """EDID, readability, findings, identity and backend."""
    edid = Edid(blob=bytes(range(256)) * 128, max_size=32768, max_xres=1920, max_yres=0, link_up=None)
    assert values.edid_from(travelled({"v": values.edid_to(edid)}), "v") == edid
    assert values.edid_from({"v": values.edid_to(None)}, "v") is None
    readability = Readability(way="", reason="none")
    assert values.readability_from(travelled({"v": values.readability_to(readability)}), "v") == readability
    findings = tuple(Finding(cause=str(number), evidence="é", remedy="") for number in range(3))
    assert values.findings_from(travelled({"v": values.findings_to(findings)}), "v") == findings
    identity = Identity(name="a", driver="b", vendor="c", mdev_type="d", parent="e")
    assert values.identity_from(travelled({"v": values.identity_to(identity)}), "v") == identity
    backend = BackendInfo(name="a", distribution="b", version="1", match=Match(50, "r"), refusals={"x": "y"})
    assert values.backend_from(travelled({"v": values.backend_to(backend)}), "v") == backend


def test_many_findings_are_cut() -> None:
    """To as many as a message has room for."""
    findings = tuple(Finding(cause="x" * 9999, evidence="x" * 9999, remedy="x" * 9999) for _ in range(99))
    assert len(values.findings_from(travelled({"v": values.findings_to(findings)}), "v")) == 16


@pytest.mark.parametrize(
    "edid",
    [
        {"blob": "!", "max_size": 1, "max_xres": 0, "max_yres": 0},
        {"blob": "AAAA" * 12000, "max_size": 1, "max_xres": 0, "max_yres": 0},
        {"blob": "", "max_size": -1, "max_xres": 0, "max_yres": 0},
        {"blob": "", "max_size": 1, "max_xres": 0, "max_yres": 0, "link_up": 1},
    ],
)
def test_a_bad_edid_is_refused(edid: dict[str, Any]) -> None:
    """Not base64, too long, or with numbers that are none."""
    with pytest.raises(BadMessage):
        values.edid_from({"v": edid}, "v")
