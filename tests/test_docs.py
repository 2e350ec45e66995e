"""The documents say what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mdevdisplay import hookspecs

ROOT = Path(__file__).parent.parent


def specified() -> dict[str, str]:
    """Every hook's signature as it stands in hookspecs.py, without self."""
    tree = ast.parse(Path(hookspecs.__file__).read_text())
    (spec,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Specification")
    signatures = {}
    for node in spec.body:
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None
            arguments = ast.unparse(node.args).removeprefix("self").removeprefix(", ")
            signatures[node.name] = f"def {node.name}({arguments}) -> {ast.unparse(node.returns)}"
    return signatures


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    """docs/hooks.md has a heading for each hook, in the same order, with the signature of hookspecs.py below it."""
    text = (ROOT / "docs/hooks.md").read_text()
    documented = dict(re.findall(r"^### (\w+)\n\n```python\n(.+?)\n```", text, re.MULTILINE))
    assert documented == specified()


def test_the_hookspec_version_is_documented() -> None:
    """docs/hooks.md names the version that the code has."""
    assert f"now {'.'.join(map(str, hookspecs.VERSION))}." in (ROOT / "docs/hooks.md").read_text()


@pytest.mark.parametrize("name", ["pyproject.toml", "mdevdisplay_acme.py"])
def test_the_plugin_of_the_guide_is_the_one_in_examples(name: str) -> None:
    """docs/writing-a-plugin.md shows the example's files letter by letter."""
    shown = re.findall(r"```(?:toml|python)\n(.*?)```", (ROOT / "docs/writing-a-plugin.md").read_text(), re.DOTALL)
    assert (ROOT / "examples/mdevdisplay-acme" / name).read_text() in shown


def test_relative_links_lead_somewhere() -> None:
    """No document links to a file that is not there."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/*.md"), *ROOT.glob("lab/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    """The README's example is a program that works."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")


def test_the_readmes_commands_exist() -> None:
    """Every subcommand and every make target that the README names is there."""
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"^    mdevdisplay (\w+)", text, re.MULTILINE))
    help_text = subprocess.run(
        [sys.executable, "-m", "mdevdisplay", "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    assert commands
    assert all(f"\n  {name} " in help_text for name in commands)
    targets = set(re.findall(r"make (demo|test|check|lab|bench)\b", text))
    assert targets == {"demo", "test", "check", "lab", "bench"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
