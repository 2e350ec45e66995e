"""Running the command line as people and programs do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing

from mdevdisplay.cli import cli

PROGRAM = str(Path(sys.executable).with_name("mdevdisplay"))


def environment(**changes: str) -> dict[str, str]:
    """Return an environment with a UTF-8 locale and a host without devices."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MDEVDISPLAY_", "_MDEVDISPLAY_"))}
    kept.pop("NO_COLOR", None)
    kept.pop("FORCE_COLOR", None)
    path = f"{Path(PROGRAM).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "MDEVDISPLAY_HOST_ROOT": "/nowhere", **changes}


def run(
    *arguments: str | Path,
    prefix: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Any = subprocess.PIPE,
    close_fds: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run the installed program in a process of its own."""
    return subprocess.run(
        [*prefix, PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=env or environment(),
        cwd=cwd,
        timeout=60,
        close_fds=close_fds,
    )


def run_json(*arguments: str | Path, status: int = 0, **options: Any) -> dict[str, Any]:
    """Run the program with --json and return what it printed: nothing else, and nothing on standard error."""
    result = run(*arguments, "--json", **options)
    assert result.returncode == status, result.stderr
    assert result.stderr == b""
    assert result.stdout.isascii()
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["version"] == 1
    return found


def here(*arguments: str | Path) -> click.testing.Result:
    """Run the command line in this process, where a fake kernel is seen."""
    return click.testing.CliRunner().invoke(
        cli, [str(argument) for argument in arguments], prog_name="mdevdisplay", catch_exceptions=False
    )


def here_json(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """Run it in this process with --json and return what it printed."""
    result = here(*arguments, "--json")
    assert result.exit_code == status, result.output
    assert result.stderr == ""
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["version"] == 1
    return found


def powerless() -> tuple[str, ...] | None:
    """Return a prefix that makes file modes count for this user; None where there is none."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    return (setpriv, "--bounding-set=-all", "--inh-caps=-all", "--") if setpriv else None
