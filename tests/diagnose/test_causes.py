"""The table of causes, the errors that name its ids, and the page that is made from it."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdevdisplay import errors
from mdevdisplay.cli.failure import exit_status
from mdevdisplay.diagnose.causes import BY_ID, CAUSES, STEPS, Cause, Ends
from mdevdisplay.diagnose.page import render
from mdevdisplay.errors import MdevDisplayError

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "mdevdisplay").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
KINDS = [
    kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, MdevDisplayError)
]
NAMES = {
    "locator",
    "it",
    "vm",
    "vmid",
    "parameters",
    "pid",
    "device",
    "group",
    "parent",
    "holder",
    "picture",
    "colour",
    "seconds",
    "count",
}


def named_causes(path: Path) -> Iterator[str]:
    """The ids that a module gives to ``cause``: as a keyword, as an attribute, or as a class's own."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "cause":
            yield from texts(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(getattr(target, "attr", getattr(target, "id", "")) == "cause" for target in targets):
                yield from texts(node.value)


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value


@pytest.mark.parametrize("path", [path for path in CORE if "diagnose" not in path.parts], ids=str)
def test_every_id_that_an_error_names_is_in_the_table(path: Path) -> None:
    missing = sorted(set(named_causes(path)) - BY_ID.keys())
    assert not missing


def test_every_kind_of_error_has_a_cause_in_the_table_that_ends_as_the_command_line_does() -> None:
    for kind in KINDS:
        assert BY_ID[kind.cause].ends.value == exit_status(kind("something")), kind


def test_plugins_name_causes_of_the_table_or_of_their_own() -> None:
    for path in PLUGINS:
        for name in named_causes(path):
            own = path.parts[-2].removeprefix("mdevdisplay_")
            assert name in BY_ID or name.startswith(own), (path, name)


def test_every_cause_of_the_table_is_named_somewhere() -> None:
    """By an error, a probe or a finding: a cause that nothing can come to is a promise that nobody keeps."""
    elsewhere = [path for path in (*CORE, *PLUGINS) if path.name != "causes.py"]
    words = {word for path in elsewhere for word in re.findall(r'"([a-z0-9-]+)"', path.read_text())}
    assert not sorted(BY_ID.keys() - words)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_a_cause_is_complete(cause: Cause) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cause.id)
    assert cause.step in STEPS
    assert cause.verdict
    assert not cause.verdict.endswith(".")
    assert cause.meaning.endswith(".")
    assert cause.remedy or cause.ends is not Ends.SEEN or cause.step == "program"
    assert cause.explains <= BY_ID.keys()
    for text in (cause.verdict, cause.aside, *cause.remedy):
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        assert fields <= NAMES, text


def test_ids_are_distinct() -> None:
    assert len(BY_ID) == len(CAUSES)


def test_the_page_is_made_from_the_table() -> None:
    """`python -m mdevdisplay.diagnose.page > docs/screen-is-black.md` after a change."""
    assert (ROOT / "docs/screen-is-black.md").read_text() == render()


def test_the_page_has_every_cause_once_as_a_heading() -> None:
    headings = re.findall(r"^### (.+)$", render(), re.MULTILINE)
    assert sorted(headings) == sorted(BY_ID)


def test_an_errors_text_ends_where_the_doctor_starts() -> None:
    """The id stands between what happened and what to do."""
    error = errors.DeviceBusy("opening /dev/vfio/7 failed: EBUSY", device="vm:a", hint="wait")
    assert str(error) == "vm:a: opening /dev/vfio/7 failed: EBUSY [device-busy]; wait"
