from __future__ import annotations

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mdevdisplay
from mdevdisplay.hookspecs import GROUP

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FOLDERS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir() and not path.name.startswith("."))
ENTRY_POINTS: dict[str, str] = PROJECT["project"]["entry-points"][GROUP]
WHEEL: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_folders_of_plugins_are_the_entry_points() -> None:
    """A plugin that is written and not announced would be forgotten in silence."""
    assert sorted(ENTRY_POINTS) == FOLDERS
    assert {name: f"mdevdisplay_{name}" for name in FOLDERS} == ENTRY_POINTS


def test_the_wheel_has_the_core_and_every_plugin() -> None:
    """What is announced is shipped."""
    assert sorted(WHEEL) == sorted(["mdevdisplay", *(f"plugins/{name}/mdevdisplay_{name}" for name in FOLDERS)])


@pytest.mark.parametrize("package", WHEEL)
def test_every_package_is_there_and_typed(package: str) -> None:
    """A shipped package exists, can be imported, and says that it has types (PEP 561)."""
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()
    assert importlib.import_module(Path(package).name).__file__


@pytest.mark.parametrize("name", FOLDERS)
def test_a_plugins_folder_is_no_package(name: str) -> None:
    """Nothing may be imported as `plugins.…` or by a plugin's bare name."""
    assert not (ROOT / "plugins/__init__.py").exists()
    assert not (ROOT / "plugins" / name / "__init__.py").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_every_plugin_explains_itself(name: str) -> None:
    """The module of a plugin says what it reads and how."""
    assert (importlib.import_module(f"mdevdisplay_{name}").__doc__ or "").strip()


def test_tools_know_every_package() -> None:
    """Linter, coverage and import contracts watch each package that is shipped."""
    packages = sorted(Path(package).name for package in WHEEL)
    tool = PROJECT["tool"]
    assert sorted(tool["coverage"]["run"]["source_pkgs"]) == packages
    assert sorted(tool["importlinter"]["root_packages"]) == packages
    assert sorted(tool["ruff"]["src"]) == sorted([".", *(f"plugins/{name}" for name in FOLDERS)])
    backends = sorted(package for package in packages if package != "mdevdisplay")
    for contract in tool["importlinter"]["contracts"]:
        for key in ("forbidden_modules", "modules", "source_modules"):
            named = [module for module in contract.get(key, []) if module.startswith("mdevdisplay_")]
            assert not named or sorted(named) == backends, contract["name"]


def test_the_version_is_the_projects() -> None:
    """`mdevdisplay.__version__`, pyproject.toml and the installed metadata agree."""
    assert mdevdisplay.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("mdevdisplay") == mdevdisplay.__version__


def test_the_installed_entry_points_are_those_of_the_project() -> None:
    """The checkout that is tested is the one that is installed."""
    found = importlib.metadata.entry_points(group=GROUP)
    own = {point.name: point.value for point in found if point.dist is not None and point.dist.name == "mdevdisplay"}
    assert own == ENTRY_POINTS


@pytest.mark.parametrize("requirement", PROJECT["project"]["dependencies"])
def test_every_dependency_is_used(requirement: str) -> None:
    """Nothing is asked for that no shipped module imports."""
    name = re.split(r"[^A-Za-z0-9-]", requirement)[0]
    module = {"pillow": "PIL"}.get(name, name.replace("-", "_"))
    sources = (path for package in WHEEL for path in (ROOT / package).rglob("*.py"))
    importing = re.compile(rf"^\s*(import|from) {module}\b", re.MULTILINE)
    assert any(importing.search(path.read_text(encoding="utf-8")) for path in sources)
