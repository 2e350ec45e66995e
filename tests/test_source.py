"""A Source: identity, clean-up order, and what happens when nobody closes it."""

from __future__ import annotations

import gc
import warnings
from functools import partial

import pytest

from mdevdisplay.errors import Closed
from mdevdisplay.source import DeviceInfo, Identity, Source


class Recorded(Source):
    """A source that writes down what happens to it."""

    def __init__(self, steps: list[str], locator: str = "test:", *, borrowed: bool = False) -> None:
        super().__init__(locator, borrowed=borrowed)
        self.steps = steps

    def _release(self) -> None:
        self.steps.append("release")


def test_closing_runs_backends_first_and_groups_last() -> None:
    """on_close clean-ups in reverse, then the device, then after_release ones in reverse (gotcha 19)."""
    steps: list[str] = []
    source = Recorded(steps)
    source.state["intel_gvt"] = object()
    for name in ("first", "second"):
        source.on_close(partial(steps.append, f"close {name}"))
        source.after_release(partial(steps.append, f"after {name}"))
    source.close()
    assert steps == ["close second", "close first", "release", "after second", "after first"]
    assert source.state == {}
    assert source.closed


def test_closing_twice_releases_once() -> None:
    """close() is idempotent."""
    steps: list[str] = []
    source = Recorded(steps)
    source.close()
    source.close()
    assert steps == ["release"]


def test_a_failing_clean_up_keeps_no_other_from_running() -> None:
    """The first error comes out at the end, after everything was let go."""
    steps: list[str] = []
    source = Recorded(steps)

    def fail(text: str) -> None:
        raise RuntimeError(text)

    source.on_close(lambda: fail("second"))
    source.on_close(lambda: fail("first"))
    source.after_release(lambda: steps.append("after"))
    with pytest.raises(RuntimeError, match="first"):
        source.close()
    assert steps == ["release", "after"]
    assert source.closed


def test_a_closed_source_says_so() -> None:
    """check_open raises Closed with the locator from then on."""
    with Recorded([], "vm:win10") as source:
        source.check_open()
    with pytest.raises(Closed, match="vm:win10: the device was closed before"):
        source.check_open()


def test_a_forgotten_source_warns_and_is_closed() -> None:
    """Nobody closed it: a ResourceWarning names it, and what it holds is let go all the same."""
    steps: list[str] = []
    held = [Recorded(steps, "vm:win10")]
    with pytest.warns(ResourceWarning, match="vm:win10: a source was not closed"):
        held.clear()
    assert steps == ["release"]


def test_a_closed_source_goes_silently() -> None:
    """No warning for one that was closed."""
    source = Recorded([])
    source.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del source
        gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_source_is_closed_even_where_the_warning_is_an_error() -> None:
    """With ``-W error`` the warning raises inside __del__; the device is let go before that is seen."""
    steps: list[str] = []
    source = Recorded(steps)
    del source
    gc.collect()
    assert steps == ["release"]


@pytest.mark.parametrize(
    ("borrowed", "closed", "text"),
    [(False, False, "owned"), (True, False, "borrowed"), (True, True, "closed")],
)
def test_a_source_shows_what_it_is(borrowed: bool, closed: bool, text: str) -> None:
    """Its repr has the locator and whether it is owned, borrowed or closed."""
    source = Recorded([], "fd:7", borrowed=borrowed)
    if closed:
        source.close()
    assert repr(source) == f"<Recorded 'fd:7' {text}>"
    source.close()


def test_a_device_of_a_list_knows_its_vendor() -> None:
    """The vendor's key comes from the identity; unknown is empty."""
    assert DeviceInfo(locator="x", identity=Identity(vendor="i915")).vendor == "i915"
    assert DeviceInfo(locator="x").vendor == ""
