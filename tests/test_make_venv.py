"""What a newcomer sees whose machine lacks something: `make demo` and `make test` begin with tools/make-venv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools/make-venv"


def python_that(folder: Path, *, venv: bool = True, new: bool = True) -> Path:
    """A python3 without its venv module, or of an older version."""
    fake = folder / "python3"
    body = f'#!/bin/sh\ncase "$*" in\n-V) echo "Python 3.9.2"; exit;;\n*version_info*) exit {0 if new else 1};;\n'
    body += f'*ensurepip*) exit {0 if venv else 1};;\nesac\nexec "{sys.executable}" "$@"\n'
    fake.write_text(body)
    fake.chmod(0o755)
    return fake


def make_venv(python: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), str(python), str(folder)], capture_output=True, text=True, timeout=100)


def test_no_python_at_all(tmp_path: Path) -> None:
    """The message names the version that is needed and the command that installs it."""
    result = make_venv("python-that-is-not-there", tmp_path / "venv")
    assert result.returncode == 1
    assert "Python 3.11" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    """The message names what is there and how to choose another."""
    result = make_venv(python_that(tmp_path, new=False), tmp_path / "venv")
    assert result.returncode == 1
    assert "Python 3.9.2" in result.stderr
    assert "make PYTHON=" in result.stderr


def test_no_venv_module(tmp_path: Path) -> None:
    """Debian splits it off; the message names its package."""
    result = make_venv(python_that(tmp_path, venv=False), tmp_path / "venv")
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("target", ["demo", "test", "check", "lab", "bench"])
def test_every_target_begins_there(target: str) -> None:
    """Without a virtual environment, make would run the script first for every target."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", target],
        cwd=SCRIPT.parent.parent,
        env=environment,  # the tests themselves may be run by make
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert plan.splitlines()[0].startswith("tools/make-venv python3 .venv")
