"""Finding backends, isolating the bad ones, choosing one a device, and typed calls to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import pluggy

from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import (
    AmbiguousBackend,
    Closed,
    LocatorError,
    MdevDisplayError,
    NotADisplay,
    PluginError,
    UnknownBackend,
    from_oserror,
)
from mdevdisplay.hookspecs import GROUP, VERSION, Specification
from mdevdisplay.region import Mappable
from mdevdisplay.source import DeviceInfo, Finding, Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.vfio.device import Device, ReadOnlyAccess

__all__ = ["Backend", "LoadFailure", "Manager", "Plugin", "load"]

T = TypeVar("T")
_OWN_DISTRIBUTION = "mdevdisplay"
HOOKS = tuple(name for name in vars(Specification) if not name.startswith("_"))


@attrs.frozen(kw_only=True)
class LoadFailure:
    """A backend that is installed and was not loaded."""

    name: str
    distribution: str
    reason: str


@attrs.frozen(kw_only=True, eq=False)
class Plugin:
    """A loaded backend: its entry point's name, where it comes from, and the hooks that it implements."""

    point: EntryPoint
    hookspec_version: tuple[int, int]
    implementations: dict[str, Callable[..., Any]] = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """The backend's name: its entry point's."""
        return self.point.name

    @property
    def distribution(self) -> str:
        """The name of the distribution that brings it."""
        return _origin(self.point)[0]

    @property
    def version(self) -> str:
        """The version of that distribution."""
        return _origin(self.point)[1]

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of its hooks, in the specification's order."""
        return tuple(name for name in HOOKS if name in self.implementations)

    def call(self, hook: str, *arguments: Any, device: str = "") -> Any:
        """Call a hook that the plugin has; whatever it raises is one of our errors, with the plugin's name."""
        return self._isolated(hook, device, self.implementations[hook], *arguments)

    def call_all(self, hook: str, kind: type[T], *arguments: Any, device: str = "") -> list[T]:
        """Call a hook that returns several values, which may be a generator, and check each."""
        values = self.call(hook, *arguments, device=device)
        if not isinstance(values, Iterable):
            raise self.fault(hook, f"returned a {type(values).__name__}, not a list of {kind.__name__}", device)
        collected: list[T] = self._isolated(hook, device, list, values)
        for value in collected:
            if not isinstance(value, kind):
                raise self.fault(hook, f"returned a {type(value).__name__} among its {kind.__name__}s", device)
        return collected

    def _isolated(self, hook: str, device: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MdevDisplayError as error:
            error.device = error.device or device
            raise
        except Exception as error:
            # the framework's own way to probe a device raises errors of ours: an OSError there is the backend's
            if isinstance(error, OSError) and hook != "probe":
                raise from_oserror(error, device=device, doing=f"{hook} of backend {self.name}") from error
            raise self.fault(hook, f"raised {type(error).__name__}: {error}", device) from error

    def fault(self, hook: str, what: str, device: str = "") -> PluginError:
        """Return the error for a broken promise."""
        return PluginError(
            f"{hook} of backend {self.name} ({self.distribution} {self.version}) {what}",
            device=device,
            hint=f"report it to the authors of {self.distribution}, or choose another backend with --backend",
        )


class Backend:
    """The backend that was chosen for one source, with its hooks bound.

    Attributes:
        plugin: the chosen plugin.
        source: what it reads.
        match: its answer to probe.
        refusals: what every other backend answered, by name.
        hook: the backend's get_surface_info itself, for `Display.surface`, which is to cost little more than an ioctl.
            Whoever calls it passes what it returns to `checked` and what it raises to `reraise`.
    """

    def __init__(self, plugin: Plugin, source: Source, match: Match, refusals: dict[str, str]) -> None:
        self.plugin = plugin
        self.source = source
        self.match = match
        self.refusals = refusals
        self.hook = plugin.implementations["get_surface_info"]
        if isinstance(source, Device) and "readonly_access" in plugin.implementations:
            access = self._typed("readonly_access", ReadOnlyAccess, source)
            try:
                source.allow(access)
            except PluginError as error:
                raise plugin.fault("readonly_access", error.message, source.locator) from error
        source.on_close(self._unbind)
        if "close_source" in plugin.implementations:
            source.on_close(lambda: plugin.call("close_source", source, device=source.locator))

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.plugin.name

    def info(self) -> BackendInfo:
        """Return what there is to know of it as a value."""
        return BackendInfo(
            name=self.name,
            distribution=self.plugin.distribution,
            version=self.plugin.version,
            match=self.match,
            refusals=dict(self.refusals),
        )

    def _unbind(self) -> None:
        def closed(*_: object) -> None:
            self.source.check_open()
            raise Closed("the display was closed before", device=self.source.locator, hint="open it again")

        self.hook = closed

    def get_surface_info(self, plane: PlaneType, output: int = 0) -> SurfaceInfo | None:
        """Say what a plane shows now; None for nothing."""
        try:
            return self.checked(self.hook(self.source, plane, output))
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            self.reraise(error)

    def checked(self, surface: Any) -> SurfaceInfo | None:
        """Return what `hook` returned, if it may return it."""
        if surface is not None and not isinstance(surface, SurfaceInfo):
            what = f"returned a {type(surface).__name__}, not a SurfaceInfo"
            raise self.plugin.fault("get_surface_info", what, self.source.locator)
        return surface

    def reraise(self, error: Exception) -> NoReturn:
        """Raise one of our errors, with the device in it, for what `hook` raised."""
        device = self.source.locator
        if isinstance(error, MdevDisplayError):
            error.device = error.device or device
            raise error
        if isinstance(error, OSError):
            raise from_oserror(error, device=device, doing=f"get_surface_info of backend {self.name}") from error
        raise self.plugin.fault("get_surface_info", f"raised {type(error).__name__}: {error}", device) from error

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        """Return the surface's dma-buf, the caller's own; None where the backend has none for it."""
        return self._optional("create_dmabuf", DmaBuf, self.source, surface)

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:
        """Return the surface's mappable memory; None where the backend has none for it."""
        return self._optional("query_region", Mappable, self.source, surface)

    def decode(self, surface: SurfaceInfo, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Let the backend decode a format of its own; None where it does not."""
        pixels: npt.NDArray[np.uint8] | None = self._optional("decode", np.ndarray, surface, buffer)
        expected = (surface.height, surface.width, 4)
        if pixels is not None and (pixels.shape != expected or pixels.dtype != np.uint8):
            what = f"returned {pixels.shape} {pixels.dtype}, not {expected} uint8"
            raise self.plugin.fault("decode", what, self.source.locator)
        return pixels

    @property
    def map_hint(self) -> str:
        """What to do where the driver's dma-bufs cannot be mapped."""
        return self.source.quirks.map_hint if isinstance(self.source, Device) else ""

    @property
    def region_hint(self) -> str:
        """What to do where the driver's region cannot be mapped."""
        return self.source.quirks.region_hint if isinstance(self.source, Device) else ""

    @property
    def can_decode(self) -> bool:
        """Whether the backend decodes formats of its own."""
        return "decode" in self.plugin.implementations

    @property
    def can_wait(self) -> bool:
        """Whether the backend announces changes."""
        return "wait_update" in self.plugin.implementations

    def wait_update(self, timeout: float) -> bool:
        """Wait for the source to announce a change; only where `can_wait`."""
        self.source.check_open()
        return self._typed("wait_update", bool, self.source, timeout)

    def diagnose(self) -> tuple[Finding, ...]:
        """Return what the backend itself knows about the state of the device."""
        self.source.check_open()
        if "diagnose" not in self.plugin.implementations:
            return ()
        return tuple(self.plugin.call_all("diagnose", Finding, self.source, device=self.source.locator))

    def _typed(self, hook: str, kind: type[T], *arguments: Any) -> T:
        result = self.plugin.call(hook, *arguments, device=self.source.locator)
        if not isinstance(result, kind):
            what = f"returned a {type(result).__name__}, not a {kind.__name__}"
            raise self.plugin.fault(hook, what, self.source.locator)
        return result

    def _optional(self, hook: str, kind: type[T], *arguments: Any) -> T | None:
        if hook not in self.plugin.implementations:
            return None
        result = self.plugin.call(hook, *arguments, device=self.source.locator)
        if result is not None and not isinstance(result, kind):
            what = f"returned a {type(result).__name__}, not a {kind.__name__} or None"
            raise self.plugin.fault(hook, what, self.source.locator)
        return result


@attrs.frozen(kw_only=True)
class Manager:
    """The loaded backends and those that could not be loaded."""

    plugins: tuple[Plugin, ...]
    failures: tuple[LoadFailure, ...]

    def get(self, name: str) -> Plugin:
        """Return a backend by name.

        Raises:
            UnknownBackend: it is not installed, or did not load; the message says which.
        """
        for plugin in self.plugins:
            if plugin.name == name:
                return plugin
        broken = next((entry for entry in self.failures if entry.name == name), None)
        known = ", ".join(plugin.name for plugin in self.plugins) or "none"
        if broken is not None:
            raise UnknownBackend(
                f"backend {name} of {broken.distribution} was not loaded: {broken.reason}",
                hint=f"the others are: {known}",
            )
        raise UnknownBackend(f"there is no backend {name!r}", hint=f"installed are: {known}")

    def open_locator(self, locator: str) -> Source | None:
        """Ask each backend whether the locator's scheme is its own; None where it is nobody's.

        What a backend raises counts only if nobody else opens the locator: one bad backend must not stand in the way of
        all others. Only a LocatorError for the scheme of the backend's own name ends the search.

        Raises:
            MdevDisplayError: nobody opens it, and a backend failed: the LocatorError of one before other errors.
        """
        scheme = locator.partition(":")[0]
        failures: list[tuple[Plugin, MdevDisplayError]] = []
        for plugin in self.plugins:
            if "open_locator" not in plugin.implementations:
                continue
            try:
                source = plugin.call("open_locator", locator, device=locator)
            except MdevDisplayError as error:
                if isinstance(error, LocatorError) and plugin.name == scheme:
                    raise
                failures.append((plugin, error))
                continue
            if isinstance(source, Source):
                return source
            if source is not None:
                fault = plugin.fault("open_locator", f"returned a {type(source).__name__}, not a Source", locator)
                failures.append((plugin, fault))
        if failures:
            raise _most_telling(failures)
        return None

    def list_devices(self) -> tuple[list[DeviceInfo], list[MdevDisplayError]]:
        """Return what the backends list, and the errors of those that failed."""
        found: list[DeviceInfo] = []
        errors: list[MdevDisplayError] = []
        for plugin in self.plugins:
            if "list_devices" not in plugin.implementations:
                continue
            try:
                listed = plugin.call_all("list_devices", DeviceInfo)
            except MdevDisplayError as error:
                errors.append(error)
            else:
                found.extend(attrs.evolve(device, backend=plugin.name) for device in listed)
        return found, errors

    def choose(self, source: Source, backend: str | None = None) -> Backend:
        """Probe the backends once and bind the best one to the source.

        Args:
            source: an open source.
            backend: the name of the only one to consider.

        Raises:
            UnknownBackend: there is no backend of that name.
            NotADisplay: every backend refused; the message has their reasons.
            AmbiguousBackend: two share the best score.
            MdevDisplayError: none matched, and asking the device failed.
        """
        candidates = self.plugins if backend is None else (self.get(backend),)
        matches: list[tuple[Plugin, Match]] = []
        refusals: dict[str, str] = {}
        failures: list[MdevDisplayError] = []
        for plugin in candidates:
            if "probe" not in plugin.implementations or "get_surface_info" not in plugin.implementations:
                refusals[plugin.name] = "it has no probe or no get_surface_info hook"
                continue
            try:
                answer = plugin.call("probe", source, device=source.locator)
                if not isinstance(answer, Match | Refusal):
                    what = f"returned a {type(answer).__name__}, not a Match or a Refusal"
                    raise plugin.fault("probe", what, source.locator)
            except MdevDisplayError as error:
                refusals[plugin.name] = error.message
                failures.append(error)
                continue
            if isinstance(answer, Refusal):
                refusals[plugin.name] = answer.reason
            else:
                matches.append((plugin, answer))
        if not matches:
            raise _no_match(source, refusals, failures)
        matches.sort(key=lambda entry: -entry[1].score)
        (best, match), *rest = matches
        if rest and rest[0][1].score == match.score:
            raise AmbiguousBackend(
                f"the backends {best.name} and {rest[0][0].name} both claim the device with a score of {match.score}",
                device=source.locator,
                hint=f"choose one: --backend {best.name} or --backend {rest[0][0].name}",
            )
        refusals.update({plugin.name: f"score {other.score}: {other.reason}" for plugin, other in rest})
        return Backend(best, source, match, refusals)


def _most_telling(failures: list[tuple[Plugin, MdevDisplayError]]) -> MdevDisplayError:
    """Return one of several errors: what is wrong with the locator first, then our own backends' before strangers'."""
    if len(failures) == 1:
        return failures[0][1]
    return min(
        failures,
        key=lambda entry: (not isinstance(entry[1], LocatorError), entry[0].distribution != _OWN_DISTRIBUTION),
    )[1]


def _no_match(source: Source, refusals: dict[str, str], failures: list[MdevDisplayError]) -> MdevDisplayError:
    """Return the device's own error, or else `NotADisplay` with every reason.

    What a VFIO device answered last is believed before what backends say of it: where its driver said no, an error that
    some backend raised is only that backend's reason.
    """
    asked = source.last_probe if isinstance(source, Device) else None
    if isinstance(asked, MdevDisplayError):
        return asked
    own = [error for error in failures if not isinstance(error, PluginError)]
    if own and asked is None:
        return own[0]
    what = source.identity.mdev_type or source.identity.driver
    of = f" ({what})" if what else ""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(refusals.items()))
    return NotADisplay(
        f"this device{of} is not a display that any backend can read ({reasons or 'no backend is loaded'})",
        device=source.locator,
        hint="see `mdevdisplay plugins`; a vendor's own device needs its vendor's backend",
    )


def load(found: Iterable[EntryPoint] | None = None) -> Manager:
    """Load every installed backend, each on its own, in the order of their names.

    A backend is not loaded, and listed as failed with the reason, where it cannot be imported, has a hook that does
    not exist or has wrong arguments, was written for another major version of the hooks, or has a name that is taken:
    the project's own backends keep their names, among others the first distribution by name does.

    Args:
        found: the entry points; None for those of the group ``mdevdisplay``.
    """
    points = entry_points(group=GROUP) if found is None else found
    by_name: dict[str, list[EntryPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    plugins: list[Plugin] = []
    failures: list[LoadFailure] = []
    for name in sorted(by_name):
        point, *others = _by_precedence(by_name[name])
        failures += [_taken(other, point) for other in others]
        try:
            plugins.append(_load_one(point))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a vendor's import may raise anything
            reason = str(error) if isinstance(error, _Rejected) else f"{type(error).__name__}: {error}"
            failures.append(LoadFailure(name=name, distribution=_origin(point)[0], reason=reason))
    return Manager(plugins=tuple(plugins), failures=tuple(failures))


def _by_precedence(points: list[EntryPoint]) -> list[EntryPoint]:
    """Sort entry points of one name. Where a distribution comes from is read only if it matters: it takes 10 ms."""
    if len(points) == 1:
        return points
    return sorted(points, key=lambda point: (_origin(point)[0] != _OWN_DISTRIBUTION, _origin(point)))


def _taken(point: EntryPoint, by: EntryPoint) -> LoadFailure:
    reason = f"the name {point.name!r} is taken by {_origin(by)[0]}; its authors must choose another"
    return LoadFailure(name=point.name, distribution=_origin(point)[0], reason=reason)


class _Rejected(Exception):
    """A backend that can be imported and breaks the contract."""


def _origin(point: EntryPoint) -> tuple[str, str]:
    distribution = point.dist
    if distribution is None or not distribution.metadata["Name"]:  # half removed: no metadata
        return "unknown", ""
    return distribution.name, distribution.version


def _load_one(point: EntryPoint) -> Plugin:
    module = point.load()
    written_for = getattr(module, "HOOKSPEC_VERSION", (1, 0))
    if not (isinstance(written_for, tuple) and [type(number) for number in written_for] == [int, int]):
        raise _Rejected(f"its HOOKSPEC_VERSION is {written_for!r}, not two numbers such as (1, 0)")
    if written_for[0] != VERSION[0]:
        raise _Rejected(f"it was written for version {written_for[0]} of the hooks, this is {VERSION[0]}")
    try:
        implementations = _implementations(module, point.name)
    except (_Rejected, pluggy.PluginValidationError) as error:
        if (written_for[0], written_for[1]) <= VERSION:
            raise
        theirs, ours = (".".join(map(str, version)) for version in (written_for, VERSION))
        raise _Rejected(f"it was written for {theirs} of the hooks, this is {ours}: update mdevdisplay") from error
    if not implementations:
        raise _Rejected("it implements no hook; are its functions marked with @hookimpl?")
    return Plugin(
        point=point,
        hookspec_version=(written_for[0], written_for[1]),
        implementations=implementations,
    )


def _implementations(module: object, name: str) -> dict[str, Callable[..., Any]]:
    # a manager of its own: one plugin's broken hook can neither run nor stop another's
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Specification)
    manager.register(module, name)
    implementations: dict[str, Callable[..., Any]] = {}
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec():
            raise _Rejected(f"it implements a hook that does not exist: {caller.name}")
        implementation = caller.get_hookimpls()[-1]
        implementations[caller.name] = _positional(caller.name, implementation)
    return implementations


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _positional(hook: str, implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """Return the function itself where it takes all arguments in order, else one that drops or reorders them.

    An argument with a default gets its value too, where the hook has it; pluggy by itself leaves it out.
    """
    full = tuple(name for name in inspect.signature(getattr(Specification, hook)).parameters if name != "self")
    function: Callable[..., Any] = implementation.function
    taken = (*implementation.argnames, *implementation.kwargnames)
    if taken[: len(full)] == full:
        return function
    parameters = inspect.signature(function).parameters
    hidden = [name for name in full if name in parameters and parameters[name].kind not in _BY_PLACE]
    if hidden:
        raise _Rejected(f"its {hook} takes {', '.join(hidden)} by keyword only; arguments are passed by position")
    wanted = [name for name in taken if name in full]
    if list(taken[: len(wanted)]) != wanted:
        strange = next(name for name in taken if name not in full)
        raise _Rejected(f"its {hook} takes {strange}, which the hook has not, before arguments that it has")
    places = [full.index(name) for name in wanted]

    def call(*arguments: Any) -> Any:
        return function(*(arguments[place] for place in places))

    return call
