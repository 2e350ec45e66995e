"""The contract: its version, its hooks and their documentation."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points

import pluggy
import pytest

from mdevdisplay import hookspecs
from mdevdisplay.hookspecs import GROUP, VERSION, Specification, hookimpl

HOOKS = {
    "probe": ["source"],
    "get_surface_info": ["source", "plane", "output"],
    "create_dmabuf": ["source", "surface"],
    "query_region": ["source", "surface"],
    "list_devices": [],
    "open_locator": ["locator"],
    "wait_update": ["source", "timeout"],
    "decode": ["surface", "buffer"],
    "diagnose": ["source"],
    "readonly_access": ["source"],
    "close_source": ["source"],
}
"""Version 1.0. Add to it; a change of what is there is a new major version."""


def _declared() -> dict[str, list[str]]:
    return {
        name: [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
        for name, value in vars(Specification).items()
        if not name.startswith("_")
    }


def test_version_1_has_these_hooks_with_these_arguments() -> None:
    """Renaming, removing or reordering would break every backend out there."""
    assert VERSION[0] == 1
    declared = _declared()
    for name, arguments in HOOKS.items():
        assert declared[name][: len(arguments)] == arguments
    assert VERSION == (1, 0)
    assert declared == HOOKS


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_is_a_documented_first_result_hook(name: str) -> None:
    """One backend answers, and the docstring starts with a sentence."""
    function = getattr(Specification, name)
    assert getattr(function, f"{GROUP}_spec")["firstresult"] is True
    text = inspect.getdoc(function)
    assert text is not None
    assert text.splitlines()[0].endswith(".")
    assert "return" in function.__annotations__


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_of_the_specification_itself_does_nothing(name: str) -> None:
    """It is a declaration: who calls it by mistake is told."""
    with pytest.raises(NotImplementedError):
        getattr(Specification(), name)(*HOOKS[name])


def test_a_backend_may_take_fewer_arguments() -> None:
    """Pluggy accepts an implementation without the arguments that it does not want."""

    class Few:
        @hookimpl
        def get_surface_info(self, plane: object) -> None:
            """Take one of three."""

    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Specification)
    manager.register(Few())
    manager.check_pending()


def test_the_marker_and_the_entry_points_share_a_name() -> None:
    """A backend finds everything under one word, and our own are found the same way."""
    assert GROUP == hookspecs.hookspec.project_name == hookimpl.project_name == "mdevdisplay"
    assert {point.name for point in entry_points(group=GROUP)} >= {"intel_gvt", "region_cap", "mbochs", "simulated"}
