from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pixels.vendor import install

from cli.helpers import environment, here, run
from cli.terminal import Terminal
from mdevdisplay.testing import FakeKernel, Mdpy

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="needs bash")
SIM = ["sim:", "sim:640x480", "sim:1280x720", "sim:1920x1080", "sim:3840x2160"]


OFFERED = {
    "mdevdisplay ": ["completion", "doctor", "info", "list", "plugins", "screenshot", "stream", "watch"],
    "mdevdisplay sc": ["screenshot"],
    "mdevdisplay info ": SIM,
    "mdevdisplay info sim:": ["", "640x480", "1280x720", "1920x1080", "3840x2160"],
    "mdevdisplay info sim:19": ["1920x1080"],
    "mdevdisplay info 'sim:19": ["sim:1920x1080"],
    "mdevdisplay info nothing": [],
    "mdevdisplay watch sim: --plane ": ["primary", "cursor", "overlay"],
    "mdevdisplay stream 'sim:19": ["sim:1920x1080"],
    "mdevdisplay stream sim: --format ": ["ppm", "y4m", "raw"],
    "mdevdisplay info sim: --backend r": ["region_cap"],
    "mdevdisplay screenshot sim: -o sh": [],
    "mdevdisplay info 'unfinished": [],
}
"""What bash is offered at the end of a line: only what follows the last colon, as it wants it."""


def replies(*lines: str, **variables: str) -> list[list[str]]:
    """Return what bash would offer at the end of each line: its own words and colons, our own function."""
    script = """
source <(mdevdisplay completion bash)
compopt() { :; }  # bash has it only while it completes
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE}
    _mdevdisplay_completion
    printf '%s\n' "${COMPREPLY[@]}" ===
done
"""
    assert BASH is not None
    result = subprocess.run(
        [BASH, "--norc", "--noprofile", "-c", script, "bash", *lines],
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=60,
    )
    assert result.stderr == ""
    blocks = result.stdout.split("===\n")[:-1]
    return [[reply for reply in block.splitlines() if reply] for block in blocks]


@needs_bash
def test_what_bash_is_offered() -> None:
    """Commands, locators, options and their values."""
    found = dict(zip(OFFERED, replies(*OFFERED), strict=True))
    assert found == {line: [word for word in words if word] for line, words in OFFERED.items()}


@needs_bash
def test_devices_of_the_host_are_offered(kernel: FakeKernel) -> None:
    """UUIDs as sysfs spells them."""
    device = kernel.add(Mdpy("vga"))
    offered = replies(f"mdevdisplay screenshot {device.name[:5]}", MDEVDISPLAY_HOST_ROOT=str(kernel.path))
    assert offered == [[device.name]]


EVIL = [
    {"locator": "acme:fine,é-1.2"},
    {"locator": "acme:\x1b[2J"},
    {"locator": "acme:two words"},
    {"locator": "acme:two\nlines"},
    {"locator": "acme:$(reboot)"},
    {"locator": "acme:;reboot"},
    {"locator": "acme:\u202e"},
]


@pytest.mark.parametrize(
    ("shell", "words", "offered"),
    [
        ("bash", {"COMP_LINE": "mdevdisplay info ac"}, ["acme:fine,é-1.2"]),
        (
            "zsh",
            {"COMP_WORDS": "mdevdisplay info ac", "COMP_CWORD": "2"},
            ["plain", "acme\\:fine,é-1.2", "\\x1b[31m\\nred"],
        ),
        (
            "fish",
            {"COMP_WORDS": "mdevdisplay info ac", "COMP_CWORD": "ac"},
            ["plain,acme:fine,é-1.2\t\\x1b[31m\\nred"],
        ),
    ],
)
def test_words_of_devices_cannot_steer_the_terminal(
    tmp_path: Path, shell: str, words: dict[str, str], offered: list[str]
) -> None:
    """Types are written out; a locator that is not one plain word for a shell is not offered."""
    install(tmp_path)
    env = environment(
        PYTHONPATH=str(tmp_path),
        ACME_NAME="\x1b[31m\nred",
        ACME_DEVICES=json.dumps(EVIL),
        _MDEVDISPLAY_COMPLETE=f"{shell}_complete",
        **words,
    )
    result = run(env=env)
    assert result.returncode == 0
    assert result.stderr == b""
    assert result.stdout.decode().splitlines() == offered


@needs_bash
def test_completion_is_silent_and_never_fails(tmp_path: Path) -> None:
    """Whatever is on the line, and whatever backend is broken, a shell sees no error."""
    (tmp_path / "mdevdisplay_red.py").write_text("raise RuntimeError('red')")
    metadata = tmp_path / "mdevdisplay_red-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mdevdisplay-red\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mdevdisplay]\nred = mdevdisplay_red\n")
    assert replies("mdevdisplay info sim:19", PYTHONPATH=str(tmp_path)) == [["1920x1080"]]


@needs_bash
def test_tab_in_a_real_shell(kernel: FakeKernel, tmp_path: Path) -> None:
    """An interactive bash: TAB completes a simulated display, a UUID, an option, a quoted locator and a file."""
    device = kernel.add(Mdpy("vga"))
    (tmp_path / "holiday.png").touch()
    env = environment(TERM="xterm", HISTFILE=os.devnull, MDEVDISPLAY_HOST_ROOT=str(kernel.path))
    shell = Terminal([str(BASH), "--norc", "--noprofile", "-i"], env, columns=200)
    try:
        shell.child.sendline(
            "bind 'set enable-bracketed-paste off'; source <(mdevdisplay completion bash); PS1='READY> '"
        )
        shell.wait_for(lambda: shell.line.startswith("READY> "))
        for typed, completed in (
            ("mdevdisplay info sim:19", "mdevdisplay info sim:1920x1080 "),
            (f"mdevdisplay info {device.name[:6]}", f"mdevdisplay info {device.name} "),
            ("mdevdisplay screenshot sim: --back", "mdevdisplay screenshot sim: --backend "),
            ("mdevdisplay info 'sim:38", "mdevdisplay info 'sim:3840x2160' "),
            (
                f"mdevdisplay screenshot sim: -o {tmp_path}/ho",
                f"mdevdisplay screenshot sim: -o {tmp_path}/holiday.png ",
            ),
        ):
            shell.child.send(f"{typed}\t")
            shell.wait_for(lambda expected=f"READY> {completed}": shell.line == expected.ljust(200))  # type: ignore[misc]
            assert shell.screen.cursor.x == len(f"READY> {completed}")
            shell.child.sendcontrol("u")
            shell.wait_for(lambda: shell.line.rstrip() == "READY>")
    finally:
        shell.child.close(force=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_printed(shell: str) -> None:
    """Each shell has its script, which calls this very program."""
    result = here("completion", shell)
    assert result.exit_code == 0
    assert "_MDEVDISPLAY_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout
    interpreter = shutil.which(shell)
    if interpreter is not None:
        checked = subprocess.run([interpreter, "-n"], input=result.stdout, text=True, capture_output=True)
        assert checked.returncode == 0
        assert checked.stderr == ""


def test_another_shell_is_wrong_usage() -> None:
    """Those that there are get named."""
    result = run("completion", "csh")
    assert result.returncode == 2
    assert b"bash" in result.stderr
