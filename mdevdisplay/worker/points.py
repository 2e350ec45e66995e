"""The entry points of the backends, found by the program and told to its worker.

Finding them takes importlib.metadata, which brings the parsers of mail, zip archives and URLs along: 2.5 MB and a
quarter of a worker's start. In a worker a stand-in takes the module's place that knows this one answer; whatever else
a backend asks of it is answered by the real one.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["Point", "find_points", "install_points"]

GROUP = "mdevdisplay"
_NAME = "importlib.metadata"


class _Distribution:
    """What is asked of a distribution."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.metadata = {"Name": name, "Version": version}


class Point:
    """An entry point: a name, the module or object that it means, and the distribution that brings it."""

    def __init__(self, name: str, value: str, distribution: str, version: str) -> None:
        self.name = name
        self.value = value
        self.group = GROUP
        self.dist = _Distribution(distribution, version)

    def load(self) -> Any:
        """Import it."""
        module, _, attributes = self.value.partition(":")
        found: Any = import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            found = getattr(found, attribute)
        return found


@cache
def _find(path: tuple[str, ...]) -> list[list[str]]:  # noqa: ARG001 - another path has other distributions
    from importlib.metadata import entry_points

    origins: dict[int, tuple[str, str]] = {}
    points = list(entry_points(group=GROUP))
    found = []
    for point in points:
        dist = point.dist
        if id(dist) not in origins:
            known = dist is not None and bool(dist.metadata["Name"])
            origins[id(dist)] = (dist.name, dist.version) if known and dist is not None else ("unknown", "")
        found.append([point.name, point.value.partition("[")[0].strip(), *origins[id(dist)]])
    return found


def find_points() -> list[list[str]]:
    """Return name, value, distribution and version of every installed backend; looked for once a sys.path."""
    return _find(tuple(sys.path))


def install_points(points: list[list[str]]) -> None:
    """Let importlib.metadata know these entry points, without importing it. For a worker, before anything else."""
    module = ModuleType(_NAME, "Stands in for the real module, see mdevdisplay.worker.points.")
    module.__dict__["EntryPoint"] = Point
    module.__dict__["entry_points"] = partial(_entry_points, [Point(*entry) for entry in points])
    module.__dict__["__getattr__"] = _from_the_real_one
    sys.modules[_NAME] = module
    import importlib

    importlib.__dict__["metadata"] = module


def _entry_points(points: list[Point], **params: Any) -> Any:
    if params == {"group": GROUP}:
        return points
    return _from_the_real_one("entry_points")(**params)


def _from_the_real_one(name: str) -> Any:
    if name.startswith("__"):  # the import system asks for these
        raise AttributeError(name)
    return getattr(_real(), name)


@cache
def _real() -> ModuleType:
    import importlib

    stand_in = sys.modules.pop(_NAME)
    try:
        return import_module(_NAME)
    finally:
        sys.modules[_NAME] = stand_in
        importlib.__dict__["metadata"] = stand_in
