"""Finding backends, isolating bad ones, choosing one a device, typed calls to it."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdevdisplay import _manager
from mdevdisplay._manager import Backend, Manager, load
from mdevdisplay.errors import (
    AmbiguousBackend,
    BadSurface,
    Closed,
    DeviceGone,
    DriverError,
    LocatorError,
    MdevDisplayError,
    NotADisplay,
    NotPermitted,
    PluginError,
    UnknownBackend,
)
from mdevdisplay.formats import fourcc
from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.host import open_device
from mdevdisplay.region import Mappable
from mdevdisplay.source import DeviceInfo, Finding, Identity, Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.testing import FakeKernel, Mdpy, Mtty, Nvidia
from mdevdisplay.vfio import Device, ReadOnlyAccess, RegisterRange, uapi

_numbers = itertools.count()
SURFACE = SurfaceInfo(fourcc=fourcc("XR24"), width=64, height=64, stride=256, size=16384)
HEAD = "from mdevdisplay.hookspecs import hookimpl\nfrom mdevdisplay.surface import Match, Refusal\n"
GOOD = (
    HEAD
    + """
@hookimpl
def probe(source):
    return Match(50, "good")

@hookimpl
def get_surface_info(source, plane, output):
    return None
"""
)


class Site:
    """A folder of installed distributions, on sys.path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(
        self, name: str, source: str, *, distribution: str = "", version: str = "1.0", metadata: bool = True
    ) -> str:
        """Install a distribution with one backend module; returns the module's name."""
        module = f"site_module_{next(_numbers)}"
        (self.path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = self.path / f"{(distribution or name).replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        if metadata:
            text = f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(text)
        (folder / "entry_points.txt").write_text(f"[mdevdisplay]\n{name} = {module}\n")
        return module

    def points(self) -> list[EntryPoint]:
        """What importlib.metadata finds here."""
        return [
            point
            for found in distributions(path=[str(self.path)])
            for point in found.entry_points.select(group="mdevdisplay")
        ]

    def load(self) -> Manager:
        return load(self.points())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def source() -> Iterator[Source]:
    with Source("test:", Identity(mdev_type="acme-1")) as source:
        yield source


def entry(**plugins: object) -> list[EntryPoint]:
    """Make entry points of objects by hand."""
    points = []
    for name, plugin in plugins.items():
        module = f"object_module_{next(_numbers)}"
        sys.modules[module] = plugin  # type: ignore[assignment]
        points.append(EntryPoint(name=name, value=module, group="mdevdisplay"))
    return points


def ours() -> list[EntryPoint]:
    """The project's own backends."""
    found = entry_points(group="mdevdisplay")
    return [point for point in found if point.dist is not None and point.dist.name == "mdevdisplay"]


def managed(**plugins: object) -> Manager:
    """Load objects as backends."""
    return load(entry(**plugins))


@pytest.fixture(autouse=True)
def object_modules() -> Iterator[None]:
    """Forget the objects after each test."""
    yield
    for name in [name for name in sys.modules if name.startswith("object_module_")]:
        del sys.modules[name]


class Probing:
    """A backend that answers the probe with what it was given."""

    def __init__(self, answer: object = Match(50, "good")) -> None:
        self.answer = answer
        self.probed = 0

    @hookimpl
    def probe(self, source: Source) -> object:
        self.probed += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @hookimpl
    def get_surface_info(self, source: Source, plane: PlaneType, output: int) -> SurfaceInfo | None:
        return SURFACE


class TestLoading:
    def test_a_backend_is_loaded_with_name_and_origin(self, site: Site) -> None:
        """Name, distribution, version, hook spec version and hooks are known."""
        site.install("acme", GOOD, distribution="mdevdisplay-acme", version="2.5")
        manager = site.load()
        (plugin,) = manager.plugins
        assert manager.failures == ()
        assert (plugin.name, plugin.distribution, plugin.version) == ("acme", "mdevdisplay-acme", "2.5")
        assert plugin.hookspec_version == (1, 0)
        assert plugin.hooks == ("probe", "get_surface_info")

    def test_installed_backends_are_found_by_their_entry_points(self, site: Site) -> None:
        """load() without arguments finds ours and anyone's in the same group."""
        site.install("acme", GOOD, distribution="mdevdisplay-acme")
        manager = load()
        assert {"acme", "intel_gvt", "mbochs", "region_cap"} <= {plugin.name for plugin in manager.plugins}
        assert manager.get("acme").distribution == "mdevdisplay-acme"
        assert manager.get("intel_gvt").distribution == "mdevdisplay"
        assert [plugin.name for plugin in manager.plugins] == sorted(plugin.name for plugin in manager.plugins)

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
            ("def broken(:", "SyntaxError"),
            ("raise RuntimeError('no GPU here')", "RuntimeError: no GPU here"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("", "it implements no hook; are its functions marked with @hookimpl?"),
            (
                HEAD + "@hookimpl\ndef prob(source): return Match(1, 'x')\n",
                "it implements a hook that does not exist: prob",
            ),
            (HEAD + "@hookimpl\ndef probe(source, colour): return Match(1, 'x')\n", "colour"),
            (
                HEAD + "@hookimpl\ndef get_surface_info(source, *, output): pass\n",
                "its get_surface_info takes output by keyword only",
            ),
            (
                HEAD + "@hookimpl\ndef get_surface_info(source, colour=1, output=0): pass\n",
                "its get_surface_info takes colour, which the hook has not, before arguments that it has",
            ),
            (GOOD + "HOOKSPEC_VERSION = (2, 0)\n", "written for version 2 of the hooks, this is 1"),
            (GOOD + "HOOKSPEC_VERSION = (0, 9)\n", "written for version 0 of the hooks, this is 1"),
            (GOOD + "HOOKSPEC_VERSION = '1.0'\n", "its HOOKSPEC_VERSION is '1.0', not two numbers"),
            (GOOD + "HOOKSPEC_VERSION = 1\n", "HOOKSPEC_VERSION"),
            (GOOD + "HOOKSPEC_VERSION = (1,)\n", "HOOKSPEC_VERSION"),
        ],
    )
    def test_a_bad_backend_is_reported_and_the_others_load(self, site: Site, source: str, reason: str) -> None:
        """Whatever is wrong with one, it is named with its distribution and reason, and its neighbour works."""
        site.install("bad", source, distribution="mdevdisplay-bad")
        site.install("good", GOOD)
        manager = site.load()
        assert [plugin.name for plugin in manager.plugins] == ["good"]
        (failure,) = manager.failures
        assert (failure.name, failure.distribution) == ("bad", "mdevdisplay-bad")
        assert reason in failure.reason

    def test_a_newer_minor_version_is_loaded(self, site: Site) -> None:
        """A minor version adds and breaks nobody."""
        site.install("newer", GOOD + "HOOKSPEC_VERSION = (1, 9)\n")
        (plugin,) = site.load().plugins
        assert plugin.hookspec_version == (1, 9)

    @pytest.mark.parametrize(
        "newer",
        ["@hookimpl\ndef set_edid(source, blob): pass\n", "@hookimpl\ndef diagnose(source, timeout): return []\n"],
    )
    def test_what_a_newer_version_brought_asks_for_an_update(self, site: Site, newer: str) -> None:
        """It is not misspelt: we are too old for it. Written for our own version it is misspelt."""
        site.install("newer", GOOD + "HOOKSPEC_VERSION = (1, 7)\n" + newer)
        site.install("ours", GOOD + newer)
        newer_failure, ours_failure = site.load().failures
        assert newer_failure.reason == "it was written for 1.7 of the hooks, this is 1.0: update mdevdisplay"
        assert "update" not in ours_failure.reason

    def test_a_newer_backend_without_hooks_has_none(self, site: Site) -> None:
        """An update would not help it."""
        site.install("newer", "HOOKSPEC_VERSION = (1, 7)\n")
        (failure,) = site.load().failures
        assert failure.reason.startswith("it implements no hook")

    def test_our_own_backend_keeps_its_name(self, site: Site) -> None:
        """A stranger called intel_gvt is not loaded, whatever its place on sys.path; both are reported."""
        site.install("intel_gvt", GOOD, distribution="aaa-dummy")
        manager = load()
        assert manager.get("intel_gvt").distribution == "mdevdisplay"
        (failure,) = [entry for entry in manager.failures if entry.name == "intel_gvt"]
        assert failure.distribution == "aaa-dummy"
        assert failure.reason == "the name 'intel_gvt' is taken by mdevdisplay; its authors must choose another"

    @pytest.mark.parametrize("backwards", [False, True])
    def test_of_two_strangers_the_first_by_name_is_loaded(self, site: Site, backwards: bool) -> None:
        """The order does not depend on where they were found."""
        site.install("acme", GOOD, distribution="zeta")
        site.install("acme", GOOD, distribution="alpha")
        points = sorted(site.points(), key=lambda point: str(point.dist and point.dist.name), reverse=backwards)
        manager = load(points)
        assert [plugin.distribution for plugin in manager.plugins] == ["alpha"]
        assert [(entry.distribution, "taken by alpha" in entry.reason) for entry in manager.failures] == [
            ("zeta", True)
        ]

    def test_a_name_stays_taken_by_a_backend_that_failed(self, site: Site) -> None:
        """The second one does not step in silently for a broken first."""
        site.install("acme", "import no_such_module_anywhere", distribution="alpha")
        site.install("acme", GOOD, distribution="zeta")
        manager = site.load()
        assert manager.plugins == ()
        assert {entry.distribution for entry in manager.failures} == {"alpha", "zeta"}

    def test_a_distribution_without_metadata_does_not_stop_the_others(self, site: Site) -> None:
        """A half removed distribution has no name: its backend loads as of unknown origin."""
        site.install("acme", GOOD, distribution="half-gone", metadata=False)
        site.install("acme", GOOD, distribution="whole")
        manager = site.load()
        assert [plugin.distribution for plugin in manager.plugins] == ["unknown"]
        assert [entry.distribution for entry in manager.failures] == ["whole"]

    def test_a_backend_may_be_an_object(self) -> None:
        """An entry point may name anything with marked functions; without a distribution it is of unknown origin."""
        (plugin,) = managed(acme=Probing()).plugins
        assert (plugin.distribution, plugin.version) == ("unknown", "")

    def test_arguments_may_be_left_out_and_reordered(self, source: Source) -> None:
        """A hook takes what it wants by name; the framework's order does not matter."""
        seen: list[object] = []

        class Odd:
            @hookimpl
            def probe(self) -> Match:
                return Match(1, "no arguments")

            @hookimpl
            def get_surface_info(self, output: int, source: Source) -> None:
                seen.extend([output, source])

        managed(odd=Odd()).choose(source).get_surface_info(PlaneType.PRIMARY, 3)
        assert seen == [3, source]

    def test_arguments_with_defaults_are_passed(self, source: Source) -> None:
        """A default does not hide an argument: pluggy itself would leave it out."""
        seen: list[object] = []

        class Defaults:
            @hookimpl
            def probe(self) -> Match:
                return Match(1, "good")

            @hookimpl
            def get_surface_info(
                self, source: Source, output: int = 0, plane: PlaneType = PlaneType.CURSOR, colour: int = 7
            ) -> None:
                seen.append((source, output, plane, colour))

        managed(acme=Defaults()).choose(source).get_surface_info(PlaneType.PRIMARY, 3)
        assert seen == [(source, 3, PlaneType.PRIMARY, 7)]

    def test_a_hook_that_takes_everything_is_called_itself(self, source: Source) -> None:
        """No call in between, with defaults or without."""

        class Defaults(Probing):
            @hookimpl
            def get_surface_info(
                self, source: Source, plane: PlaneType = PlaneType.PRIMARY, output: int = 0, colour: int = 7
            ) -> None: ...

        for plugin in (Probing(), Defaults()):
            assert managed(acme=plugin).choose(source).hook == plugin.get_surface_info

    def test_the_hooks_are_the_specifications(self) -> None:
        """No list of hook names is kept twice."""
        assert _manager.HOOKS[:4] == ("probe", "get_surface_info", "create_dmabuf", "query_region")
        assert len(_manager.HOOKS) == 11


class TestChoosing:
    def test_the_highest_score_wins(self, source: Source) -> None:
        """100 a vendor's own, 50 by dma-buf, 40 by region; the others' reasons are kept."""
        manager = managed(
            own=Probing(Match(100, "mine")), dmabuf=Probing(Match(50, "a dma-buf")), other=Probing(Refusal("not mine"))
        )
        backend = manager.choose(source)
        assert (backend.name, backend.match) == ("own", Match(100, "mine"))
        assert backend.refusals == {"dmabuf": "score 50: a dma-buf", "other": "not mine"}

    def test_each_backend_is_probed_once(self, source: Source) -> None:
        """Choosing asks every backend one time."""
        plugins = {name: Probing(Match(10 * number, "x")) for number, name in enumerate("abc", 1)}
        managed(**plugins).choose(source)
        assert [plugin.probed for plugin in plugins.values()] == [1, 1, 1]

    def test_an_equal_best_score_is_an_error_that_names_both(self, source: Source) -> None:
        """Guessing would depend on the order of sys.path; the hint says how to choose."""
        manager = managed(
            a=Probing(Match(50, "x")), b=Probing(Match(50, "y")), c=Probing(Match(10, "z")), d=Probing(Match(10, "z"))
        )
        with pytest.raises(AmbiguousBackend, match="a and b both claim the device with a score of 50") as caught:
            manager.choose(source)
        assert "--backend a or --backend b" in caught.value.hint
        assert caught.value.device == "test:"

    def test_an_equal_lower_score_is_none(self, source: Source) -> None:
        """Only the best has to be alone."""
        manager = managed(a=Probing(Match(50, "x")), b=Probing(Match(10, "y")), c=Probing(Match(10, "z")))
        assert manager.choose(source).name == "a"

    def test_a_backend_can_be_forced(self, source: Source) -> None:
        """Only that one is probed, and ambiguity is over."""
        a, b = Probing(), Probing()
        assert managed(a=a, b=b).choose(source, "b").name == "b"
        assert (a.probed, b.probed) == (0, 1)

    def test_a_forced_backend_may_still_refuse(self, source: Source) -> None:
        """Its reason is the error."""
        with pytest.raises(NotADisplay, match="a: not mine"):
            managed(a=Probing(Refusal("not mine")), b=Probing()).choose(source, "a")

    def test_an_unknown_backend_is_named_with_those_installed(self, source: Source) -> None:
        """A typo is answered with the list."""
        with pytest.raises(UnknownBackend, match="there is no backend 'intel'") as caught:
            managed(intel_gvt=Probing(), region_cap=Probing()).choose(source, "intel")
        assert caught.value.hint == "installed are: intel_gvt, region_cap"

    def test_a_backend_that_did_not_load_says_why(self, site: Site) -> None:
        """Asking for it by name gives the reason of its failure."""
        site.install("acme", "raise RuntimeError('no GPU here')", distribution="mdevdisplay-acme")
        with pytest.raises(UnknownBackend, match="acme of mdevdisplay-acme was not loaded: RuntimeError: no GPU here"):
            site.load().get("acme")

    def test_no_match_lists_every_reason(self, source: Source) -> None:
        """The message says what the device is and what each backend answered."""
        with pytest.raises(NotADisplay) as caught:
            managed(b=Probing(Refusal("no REGION")), a=Probing(Refusal("no DMABUF"))).choose(source)
        assert caught.value.message == (
            "this device (acme-1) is not a display that any backend can read (a: no DMABUF; b: no REGION)"
        )

    def test_no_backend_at_all_says_so(self, source: Source) -> None:
        """An empty installation is explained."""
        with pytest.raises(NotADisplay, match="no backend is loaded"):
            managed().choose(source)

    def test_a_raising_probe_does_not_stop_the_others(self, source: Source) -> None:
        """The broken neighbour becomes a reason among the others."""
        backend = managed(bad=Probing(ZeroDivisionError("oops")), good=Probing()).choose(source)
        assert backend.name == "good"
        assert "probe of backend bad" in backend.refusals["bad"]
        assert "raised ZeroDivisionError: oops" in backend.refusals["bad"]

    @pytest.mark.parametrize("answer", [None, True, 50, "yes", Match])
    def test_a_probe_of_the_wrong_type_is_the_backends_fault(self, source: Source, answer: object) -> None:
        """Anything but a Match or a Refusal is reported, and never taken for one."""
        backend = managed(bad=Probing(answer), good=Probing()).choose(source)
        assert backend.name == "good"
        assert f"returned a {type(answer).__name__}, not a Match or a Refusal" in backend.refusals["bad"]
        with pytest.raises(NotADisplay, match="bad: probe of backend bad"):
            managed(bad=Probing(answer)).choose(source)

    def test_the_devices_own_error_comes_before_the_refusals(self, source: Source) -> None:
        """Where asking the device failed, that is the news, not that nobody matched."""
        gone = DeviceGone("it went away", device="test:")
        with pytest.raises(DeviceGone) as caught:
            managed(a=Probing(gone), b=Probing(Refusal("not mine")), c=Probing(ValueError("x"))).choose(source)
        assert caught.value is gone

    def test_an_oserror_of_a_probe_is_the_backends_fault(self, source: Source) -> None:
        """Of a file of its own, say: no news of the device."""
        with pytest.raises(NotADisplay, match=r"probe of backend a .* raised OSError: \[Errno 16\] busy"):
            managed(a=Probing(OSError(16, "busy")), b=Probing(Refusal("not mine"))).choose(source)

    @pytest.mark.parametrize("error", [OSError(19, "gone"), FileNotFoundError(2, "no"), DeviceGone("?"), KeyError("x")])
    @pytest.mark.parametrize("name", ["acme", "zeta"])
    def test_a_stranger_does_not_hide_that_it_is_no_display(
        self, kernel: FakeKernel, name: str, error: Exception
    ) -> None:
        """A serial port answers ENOTTY to the real backends: what a vendor's probe raises beside them is a reason."""
        manager = load([*ours(), *entry(**{name: Probing(error)})])
        with open_device(kernel.add(Mtty()).name) as device, pytest.raises(NotADisplay) as caught:
            manager.choose(device)
        assert "answered ENOTTY" in caught.value.message
        assert f"{name}: " in caught.value.message

    @pytest.mark.parametrize("name", ["acme", "zeta"])
    def test_a_device_that_does_not_answer_is_the_news(self, kernel: FakeKernel, name: str) -> None:
        """The framework's own question failed: that error, whatever a stranger raises besides."""
        manager = load([*ours(), *entry(**{name: Probing(DriverError("something else"))})])
        driver = kernel.add(Mdpy())
        with open_device(driver.name) as device:
            driver.vanish()
            with pytest.raises(DeviceGone, match=f"{driver.name}: QUERY_GFX_PLANE with PROBE"):
                manager.choose(device)

    def test_a_backend_that_asks_in_its_own_way_is_believed(self, kernel: FakeKernel) -> None:
        """Where nobody asked by Device.probe, what it raises is all that there is."""
        with open_device(kernel.add(Mdpy()).name) as device, pytest.raises(NotPermitted, match="of its own"):
            managed(acme=Probing(NotPermitted("of its own"))).choose(device)

    def test_a_backend_without_the_two_hooks_cannot_be_chosen(self, source: Source) -> None:
        """One that only lists devices is no candidate."""

        class Lister:
            @hookimpl
            def list_devices(self) -> list[DeviceInfo]:
                return []

        with pytest.raises(NotADisplay, match="lister: it has no probe or no get_surface_info hook"):
            managed(lister=Lister()).choose(source)

    @pytest.mark.parametrize("hook", ["probe", "get_surface_info"])
    def test_one_of_the_two_hooks_is_not_enough(self, source: Source, hook: str) -> None:
        """Half a backend is told so instead of failing later."""

        class Half:
            pass

        setattr(Half, hook, getattr(Probing, hook))
        with pytest.raises(NotADisplay, match="half: it has no probe or no get_surface_info hook"):
            managed(half=Half()).choose(source)

    def test_a_device_without_a_driver_is_matched_by_nobody(self, kernel: FakeKernel) -> None:
        """The real backends on a real source of a kind that none knows."""
        with Source("rec:1") as source, pytest.raises(NotADisplay, match="intel_gvt: not a VFIO device"):
            load().choose(source)
        assert kernel.calls == []


class Full(Probing):
    """A backend whose hooks return what a test puts there."""

    def __init__(self, **results: Any) -> None:
        super().__init__(Match(100, "full"))
        self.results = results
        self.closed: list[Source] = []

    def _give(self, hook: str) -> Any:
        result = self.results.get(hook)
        if isinstance(result, Exception):
            raise result
        return result() if callable(result) else result

    @hookimpl
    def get_surface_info(self, source: Source, plane: PlaneType, output: int) -> Any:
        return self._give("get_surface_info")

    @hookimpl
    def create_dmabuf(self, source: Source, surface: SurfaceInfo) -> Any:
        return self._give("create_dmabuf")

    @hookimpl
    def query_region(self, source: Source, surface: SurfaceInfo) -> Any:
        return self._give("query_region")

    @hookimpl
    def decode(self, surface: SurfaceInfo, buffer: object) -> Any:
        return self._give("decode")

    @hookimpl
    def diagnose(self, source: Source) -> Any:
        return self._give("diagnose")

    @hookimpl
    def list_devices(self) -> Any:
        return self._give("list_devices")

    @hookimpl
    def open_locator(self, locator: str) -> Any:
        return self._give("open_locator")

    @hookimpl
    def readonly_access(self, source: Source) -> Any:
        return self._give("readonly_access")

    @hookimpl
    def close_source(self, source: Source) -> None:
        self.closed.append(source)
        self._give("close_source")


def generator(*values: object, fail: Exception | None = None) -> Callable[[], Iterator[object]]:
    """A hook written as a generator, that may fail half way."""

    def generate() -> Iterator[object]:
        yield from values
        if fail is not None:
            raise fail

    return generate


CALLS: dict[str, Callable[[Backend], object]] = {
    "get_surface_info": lambda backend: backend.get_surface_info(PlaneType.PRIMARY, 0),
    "create_dmabuf": lambda backend: backend.create_dmabuf(SURFACE),
    "query_region": lambda backend: backend.query_region(SURFACE),
    "decode": lambda backend: backend.decode(SURFACE, np.zeros(4, np.uint8)),
    "diagnose": lambda backend: backend.diagnose(),
}


class TestTypedCalls:
    @pytest.mark.parametrize("hook", sorted(CALLS))
    def test_a_raising_hook_is_the_backends_fault(self, source: Source, hook: str) -> None:
        """Its name, its distribution and what it raised are in the message; the original error is kept."""
        error = KeyError("boom")
        backend = managed(acme=Full(**{hook: error})).choose(source)
        with pytest.raises(PluginError, match=f"test:: {hook} of backend acme .* raised KeyError: 'boom'") as caught:
            CALLS[hook](backend)
        assert caught.value.__cause__ is error
        assert "--backend" in caught.value.hint

    @pytest.mark.parametrize("hook", sorted(CALLS))
    def test_an_error_of_ours_comes_through(self, source: Source, hook: str) -> None:
        """A backend may raise any MdevDisplayError; it is not wrapped, and the device is filled in."""
        error = BadSurface("the numbers")
        error.__cause__ = cause = KeyError("why")
        with pytest.raises(BadSurface, match="test:: the numbers") as caught:
            CALLS[hook](managed(acme=Full(**{hook: error})).choose(source))
        assert caught.value is error
        assert caught.value.__cause__ is cause

    @pytest.mark.parametrize("hook", sorted(CALLS))
    def test_a_device_that_is_named_stays(self, source: Source, hook: str) -> None:
        """A backend knows better."""
        with pytest.raises(BadSurface, match="acme:1: the numbers"):
            CALLS[hook](managed(acme=Full(**{hook: BadSurface("the numbers", device="acme:1")})).choose(source))

    @pytest.mark.parametrize("hook", sorted(CALLS))
    def test_an_oserror_is_translated(self, source: Source, hook: str) -> None:
        """By its errno, naming hook and backend."""
        with pytest.raises(DeviceGone, match=f"{hook} of backend acme failed: ENODEV"):
            CALLS[hook](managed(acme=Full(**{hook: OSError(19, "gone")})).choose(source))

    @pytest.mark.parametrize(
        ("hook", "result", "words"),
        [
            ("get_surface_info", {"width": 3}, "returned a dict, not a SurfaceInfo"),
            ("create_dmabuf", 7, "returned a int, not a DmaBuf or None"),
            ("query_region", (1, 2), "returned a tuple, not a Mappable or None"),
            ("decode", b"pixels", "returned a bytes, not a ndarray or None"),
            ("decode", np.zeros((64, 64, 3), np.uint8), r"returned \(64, 64, 3\) uint8, not \(64, 64, 4\) uint8"),
            ("decode", np.zeros((64, 64, 4), np.float32), r"returned \(64, 64, 4\) float32"),
            ("diagnose", None, "returned a NoneType, not a list of Finding"),
            ("diagnose", 7, "returned a int, not a list of Finding"),
            ("diagnose", ["black"], "returned a str among its Findings"),
            ("diagnose", generator("black"), "returned a str among its Findings"),
            ("diagnose", generator(fail=KeyError("half way")), "raised KeyError: 'half way'"),
        ],
    )
    def test_a_wrong_return_type_is_the_backends_fault(
        self, source: Source, hook: str, result: object, words: str
    ) -> None:
        """What a backend returns is checked where it comes in, and never reaches a reader."""
        backend = managed(acme=Full(**{hook: result})).choose(source)
        with pytest.raises(PluginError, match=words):
            CALLS[hook](backend)

    def test_right_answers_come_through(self, source: Source) -> None:
        """Each hook's result is what the caller gets."""
        mappable, finding = Mappable(fd=0, offset=0, size=1), Finding(cause="c", evidence="e")
        pixels = np.zeros((64, 64, 4), np.uint8)
        full = Full(
            get_surface_info=SURFACE,
            query_region=mappable,
            decode=pixels,
            diagnose=generator(finding),
        )
        backend = managed(acme=full).choose(source)
        assert backend.get_surface_info(PlaneType.PRIMARY, 0) is SURFACE
        assert backend.get_surface_info(PlaneType.PRIMARY, 0) is SURFACE
        assert backend.query_region(SURFACE) is mappable
        assert backend.create_dmabuf(SURFACE) is None
        assert backend.decode(SURFACE, np.zeros(1, np.uint8)) is pixels
        assert backend.diagnose() == (finding,)
        assert backend.can_decode

    def test_optional_hooks_may_be_missing(self, source: Source) -> None:
        """A backend with just the two hooks has no dma-buf, no region, and no findings."""
        backend = managed(small=Probing()).choose(source)
        assert backend.create_dmabuf(SURFACE) is None
        assert backend.query_region(SURFACE) is None
        assert backend.decode(SURFACE, np.zeros(1, np.uint8)) is None
        assert backend.diagnose() == ()
        assert not backend.can_decode
        assert (backend.map_hint, backend.region_hint) == ("", "")

    def test_hints_are_the_drivers(self, kernel: FakeKernel) -> None:
        """What to do where a region cannot be mapped: NVIDIA's is special."""
        with open_device(kernel.add(Nvidia(pci=True)).name) as device:
            assert "display=on" in managed(acme=Probing()).choose(device).region_hint
        with open_device(kernel.add(Mdpy()).name) as device:
            assert managed(acme=Probing()).choose(device).region_hint == ""

    def test_a_plane_that_shows_nothing_is_none(self, source: Source) -> None:
        """None is an answer, not a fault."""
        assert managed(acme=Full()).choose(source).get_surface_info(PlaneType.CURSOR, 0) is None

    def test_a_backend_is_not_called_after_its_source_was_closed(self) -> None:
        """One that does not look whether its source is open cannot reach another file by an old number."""
        full = Full(get_surface_info=SURFACE)
        with Source("test:") as source:
            backend = managed(acme=full).choose(source)
            assert backend.get_surface_info(PlaneType.PRIMARY, 0) is SURFACE
        with pytest.raises(Closed, match="test:"):
            backend.get_surface_info(PlaneType.PRIMARY, 0)

    def test_the_backend_is_told_when_its_source_closes(self) -> None:
        """close_source runs once, before the source is released."""
        full = Full()
        source = Source("test:")
        managed(acme=full).choose(source)
        source.after_release(lambda: full.closed.append(source))
        source.close()
        assert full.closed == [source, source]

    def test_a_raising_close_source_still_lets_go(self) -> None:
        """Everything is released, then the backend's fault is reported."""
        steps: list[str] = []
        source = Source("test:")
        managed(acme=Full(close_source=KeyError("x"))).choose(source)
        source.after_release(lambda: steps.append("released"))
        with pytest.raises(PluginError, match="close_source of backend acme"):
            source.close()
        assert steps == ["released"]

    def test_declared_access_reaches_a_vfio_device(self, kernel: FakeKernel) -> None:
        """readonly_access is asked once the backend is chosen, and widens what a borrowed device lets through."""
        driver = kernel.add(Mdpy())
        access = ReadOnlyAccess(registers=(RegisterRange(0, 0, 64),))
        with Device(kernel.lend(driver), "vm:x", borrowed=True) as device:
            region = device.region(0)
            assert region is not None
            with pytest.raises(MdevDisplayError, match="not known to be harmless"):
                device.pread(region, 0, 64)
            managed(acme=Full(readonly_access=access)).choose(device)
            assert len(device.pread(region, 0, 64)) == 64

    def test_a_dangerous_declaration_is_a_fault(self, kernel: FakeKernel) -> None:
        """Nobody may declare a reset as harmless; on one's own device neither."""
        access = ReadOnlyAccess(ioctls=(uapi.VFIO_DEVICE_RESET,))
        with (
            open_device(kernel.add(Mdpy()).name) as device,
            pytest.raises(
                PluginError, match=r"readonly_access of backend acme .* declared ioctl 0x3b6f .VFIO_DEVICE_RESET"
            ),
        ):
            managed(acme=Full(readonly_access=access)).choose(device)

    def test_a_wrong_declaration_is_a_fault_and_allows_nothing(self, kernel: FakeKernel) -> None:
        """Anything but a ReadOnlyAccess stops the backend from being used."""
        driver = kernel.add(Mdpy())
        with (
            open_device(driver.name) as device,
            pytest.raises(PluginError, match=r"readonly_access of backend acme .* returned a dict"),
        ):
            managed(acme=Full(readonly_access={})).choose(device)


class TestListingAndLocators:
    def test_devices_of_all_backends_are_listed_with_their_backend(self) -> None:
        """Each line says who lists it; a hook may be a generator."""
        devices, errors = managed(
            a=Full(list_devices=[DeviceInfo(locator="a:1")]),
            b=Full(list_devices=generator(DeviceInfo(locator="b:1"), DeviceInfo(locator="b:2"))),
        ).list_devices()
        assert [(device.locator, device.backend) for device in devices] == [("a:1", "a"), ("b:1", "b"), ("b:2", "b")]
        assert errors == []

    @pytest.mark.parametrize(
        ("result", "words"),
        [
            (KeyError("boom"), "raised KeyError: 'boom'"),
            (generator(DeviceInfo(locator="x"), fail=KeyError("half way")), "raised KeyError: 'half way'"),
            (generator(fail=OSError(13, "no")), "EACCES"),
            (None, "returned a NoneType, not a list of DeviceInfo"),
            (["a:1"], "returned a str among its DeviceInfos"),
        ],
    )
    def test_a_backend_that_fails_to_list_hides_no_other(self, result: object, words: str) -> None:
        """Its error is handed out beside the others' devices; half of a list is none."""
        devices, errors = managed(
            bad=Full(list_devices=result), good=Full(list_devices=[DeviceInfo(locator="g:1")])
        ).list_devices()
        assert [device.locator for device in devices] == ["g:1"]
        (error,) = errors
        assert words in str(error)

    def test_a_locator_is_opened_by_whose_scheme_it_is(self) -> None:
        """The first backend that returns a source has it; None means: not mine."""
        with Source("b:1") as mine:
            manager = managed(a=Full(), b=Full(open_locator=mine), c=Full(open_locator=KeyError("never asked")))
            assert manager.open_locator("b:1") is mine

    def test_nobodys_locator_is_none(self) -> None:
        """Backends without the hook, and those that decline."""
        assert managed(a=Full(), b=Probing()).open_locator("x:1") is None

    def test_a_wrong_locator_of_its_own_scheme_stops_the_search(self) -> None:
        """The backend's name is the scheme: LocatorError says what is right, whatever the others would answer."""
        error = LocatorError("a: wants a number")
        with Source("b:1") as other, pytest.raises(LocatorError, match="a:x: a: wants a number") as caught:
            managed(a=Full(open_locator=error), b=Full(open_locator=other)).open_locator("a:x")
        assert caught.value is error

    @pytest.mark.parametrize("error", [KeyError("boom"), DriverError("no"), LocatorError("zeta wants a number")])
    def test_what_is_wrong_with_the_locator_comes_first(self, error: Exception) -> None:
        """A stranger that fails at every locator, named before or after, hides neither our word nor another's."""
        for name in ("aaa", "zeta"):
            manager = load([*ours(), *entry(**{name: Full(open_locator=error)})])
            with pytest.raises(LocatorError, match="sim:"):
                manager.open_locator("sim:colour=blue")
            source = manager.open_locator("sim:64x64")
            assert source is not None
            source.close()

    def test_the_only_one_that_failed_is_heard(self) -> None:
        """A scheme need not be the backend's name."""
        error = LocatorError("wants a number")
        with pytest.raises(LocatorError) as caught:
            managed(acme=Full(open_locator=error), b=Full(), c=Full()).open_locator("vgpu:x")
        assert caught.value is error

    @pytest.mark.parametrize("failing", [KeyError("boom"), DriverError("no"), LocatorError("no"), 7])
    def test_a_failing_backend_hides_no_other_locator(self, failing: object) -> None:
        """The error comes out only if nobody else opens it."""
        with Source("b:1") as mine:
            assert managed(a=Full(open_locator=failing), b=Full(open_locator=mine)).open_locator("b:1") is mine
        with pytest.raises((PluginError, DriverError, LocatorError)):
            managed(a=Full(open_locator=failing), b=Full()).open_locator("b:1")

    def test_closed_is_not_a_fault(self, source: Source) -> None:
        """A backend that finds its source closed raises Closed through check_open."""
        backend = managed(acme=Full(get_surface_info=source.check_open)).choose(source)
        source.close()
        with pytest.raises(Closed):
            backend.get_surface_info(PlaneType.PRIMARY, 0)
