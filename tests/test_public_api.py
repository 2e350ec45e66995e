from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mdevdisplay
from mdevdisplay import errors

HEAVY = ("numpy", "PIL", "pluggy", "attr", "click", "rich", "textual_image", "isal", "mmap_ninja", "ctypes", "asyncio")


def in_a_fresh_interpreter(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_every_public_name_is_there() -> None:
    """All of __all__ can be used, is listed by dir(), and is the object of its home module."""
    for name in mdevdisplay.__all__:
        value = getattr(mdevdisplay, name)
        home = importlib.import_module(f"mdevdisplay.{mdevdisplay._HOME[name]}")
        assert value is getattr(home, name)
        assert name in dir(mdevdisplay)


def test_the_lazy_table_is_all() -> None:
    """What is announced and what is loaded on first use are the same names, in order and once each."""
    assert sorted(set(mdevdisplay.__all__)) == mdevdisplay.__all__ == sorted(mdevdisplay._HOME)


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are the lazy table again, home by home."""
    tree = ast.parse(Path(inspect.getfile(mdevdisplay)).read_text(encoding="utf-8"))
    seen: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mdevdisplay."):
            assert node.module is not None
            seen.update({alias.name: node.module.removeprefix("mdevdisplay.") for alias in node.names})
    assert seen == mdevdisplay._HOME


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """As with any module, so that hasattr() and tab completion work."""
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        getattr(mdevdisplay, "opne")  # noqa: B009
    assert not hasattr(mdevdisplay, "numpy")


def test_every_public_name_is_documented() -> None:
    """Each class and function that a program may use says what it does."""
    for name in mdevdisplay.__all__:
        if name == "hookimpl":  # pluggy's own object
            continue
        assert inspect.getdoc(getattr(mdevdisplay, name)), name


@pytest.mark.parametrize(
    "module",
    ["aio", "display", "dmabuf", "errors", "formats", "hookspecs", "reader", "region", "source", "stream", "surface"],
)
def test_the_public_names_of_a_module_are_all_there(module: str) -> None:
    """Each module's __all__ holds names that it has."""
    loaded = importlib.import_module(f"mdevdisplay.{module}")
    for name in loaded.__all__:
        assert hasattr(loaded, name)


def test_every_error_has_a_cause_of_its_own() -> None:
    """Causes are how programs tell errors apart: short, stable, one a class."""
    kinds = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
    assert all(issubclass(kind, errors.MdevDisplayError) for kind in kinds)
    causes = [kind.cause for kind in kinds]
    assert len(set(causes)) == len(causes)
    assert all(cause == cause.lower() and " " not in cause for cause in causes)


def test_importing_costs_next_to_nothing() -> None:
    """`import mdevdisplay` loads none of the libraries below it, and no module of its own."""
    code = f"""
import sys
before = set(sys.modules)
import mdevdisplay
new = set(sys.modules) - before
print(sorted(name for name in new if name.split('.')[0] in {HEAVY!r} or name.startswith('mdevdisplay.')))
"""
    assert in_a_fresh_interpreter(code).strip() == "[]"


def test_importing_everything_leaves_the_program_alone() -> None:
    """No signal handler, no logging, no thread, no changed hook, no descriptor: a guest in other people's programs."""
    code = """
import logging, os, signal, sys, threading, warnings
def state():
    return (
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        list(logging.getLogger().handlers), logging.getLogger().level, logging.lastResort is not None,
        [thread.name for thread in threading.enumerate()],
        sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__,
        sys.stdout is sys.__stdout__,
        sorted(os.listdir('/proc/self/fd')), os.environ.copy(), os.getcwd(), list(warnings.filters)[-5:],
    )
import numpy, PIL.Image
before = state()
import mdevdisplay, mdevdisplay.cli, mdevdisplay.aio, mdevdisplay.testing
for name in mdevdisplay.__all__:
    getattr(mdevdisplay, name)
mdevdisplay.backends()
after = state()
for one, other in zip(before, after):
    assert one == other, (one, other)
assert not [name for name in logging.root.manager.loggerDict if name.startswith('mdevdisplay')
            and logging.getLogger(name).handlers]
assert 'click' not in sys.modules or 'mdevdisplay.cli' in sys.modules
"""
    in_a_fresh_interpreter(code)


def test_the_api_needs_no_click_and_no_rich() -> None:
    """A program that captures frames never loads what only the command line needs."""
    code = """
import sys, mdevdisplay
for name in mdevdisplay.__all__:
    getattr(mdevdisplay, name)
with mdevdisplay.open('sim:64x64') as display:
    display.capture().to_png()
print([name for name in ('click', 'rich', 'textual_image', 'mmap_ninja', 'mdevdisplay.cli', 'mdevdisplay.testing')
       if name in sys.modules])
"""
    assert in_a_fresh_interpreter(code).strip() == "[]"


def test_a_name_is_looked_up_once() -> None:
    """After its first use a lazy name is an ordinary attribute."""
    mdevdisplay.Rect  # noqa: B018
    assert "Rect" in vars(mdevdisplay)
