from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pexpect
import pytest
from pixels.holdings import eventually

import mdevdisplay
import mdevdisplay.cli
from cli.helpers import PROGRAM, environment, here, here_json, powerless, run
from mdevdisplay.cli.output import printable
from mdevdisplay.testing import FakeKernel, Mdpy, Nvidia

COMMANDS = ["completion", "doctor", "info", "list", "plugins", "screenshot", "stream", "watch"]
ERROR = ["cause", "message", "device", "hint", "errno", "exit_status"]


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


# help


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(flag: str) -> None:
    """Commands with a line each, what a locator is, and the exit status."""
    result = run(flag)
    text = result.stdout.decode()
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command}" in text
    assert "LOCATOR" in text
    assert "4 not permitted" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Usage, a sentence, and every option with a word on it."""
    result = here(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: mdevdisplay {command}" in result.stdout
    loaded = mdevdisplay.cli.cli.get_command(click.Context(mdevdisplay.cli.cli), command)
    assert loaded is not None
    assert (loaded.help or "").split("\n")[0].endswith(".")
    for parameter in loaded.params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", ""), parameter.name
            assert parameter.opts[-1] in result.stdout


def test_every_module_with_a_command_is_one() -> None:
    """A command that is written and not named would be forgotten in silence."""
    modules = {module.name for module in pkgutil.iter_modules(mdevdisplay.cli.__path__)}
    helpers = {"beat", "failure", "film", "options", "output", "sink", "video"}
    assert modules - helpers == set(COMMANDS)
    assert mdevdisplay.cli.cli.list_commands(click.Context(mdevdisplay.cli.cli)) == COMMANDS


def test_no_command_is_wrong_usage_with_help() -> None:
    """Whoever types the bare name sees what there is."""
    result = here()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_the_version_is_told() -> None:
    """Name and number."""
    assert run("--version").stdout.decode().split() == ["mdevdisplay,", "version", mdevdisplay.__version__]


def test_python_dash_m_is_the_same_program() -> None:
    """It even calls itself so."""
    result = subprocess.run(
        [sys.executable, "-m", "mdevdisplay", "--help"], capture_output=True, env=environment(), timeout=60
    )
    assert result.stdout == run("--help").stdout
    assert result.returncode == 0
    other = subprocess.run(
        [sys.executable, "-m", "mdevdisplay", "info", "nonsense"], capture_output=True, env=environment(), timeout=60
    )
    assert other.returncode == 2
    assert other.stderr == run("info", "nonsense").stderr


# cost


def loaded_by(*arguments: str) -> set[str]:
    code = f"""
import contextlib, io, json, sys
sys.argv = ['mdevdisplay', *{list(arguments)!r}]
from mdevdisplay.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    try:
        main()
    except SystemExit:
        pass
print(json.dumps(sorted(sys.modules)))
"""
    return set(json.loads(python(code)))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_costs_nothing(arguments: list[str]) -> None:
    """Neither NumPy, Pillow, rich nor pluggy is loaded, and no command."""
    modules = loaded_by(*arguments)
    assert not modules & {"numpy", "PIL", "rich", "pluggy", "attr", "textual_image", "isal", "ctypes", "asyncio"}
    assert not {name for name in modules if name.startswith("mdevdisplay.cli.")}


def test_commands_load_what_they_need_and_no_more() -> None:
    """Only watch loads rich; nothing but a picture file loads Pillow."""
    for arguments in (["list"], ["info", "sim:64x64"], ["plugins"]):
        modules = loaded_by(*arguments)
        assert not modules & {"rich", "textual_image", "PIL", "asyncio", "mdevdisplay.aio", "mdevdisplay.testing"}


# exit status


def test_status_0_is_success() -> None:
    """What was asked for was done."""
    for arguments in (["list"], ["plugins"], ["info", "sim:64x64"], ["completion", "bash"]):
        assert here(*arguments).exit_code == 0


@pytest.mark.parametrize(
    ("locator", "cause"),
    [
        ("sim:64x64,fault=gone:0", "device-gone"),
        ("sim:64x64,fault=enotty", "not-a-display"),
        ("00000000-0000-4000-8000-00000000beef", "no-such-device"),
        ("0000:41:00.4", "no-such-device"),
    ],
)
def test_status_1_is_an_error(locator: str, cause: str) -> None:
    """Whatever is wrong with the device or the host, with its cause, what to do, and who knows more."""
    result = here("info", locator)
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"mdevdisplay: {locator}: ")
    assert lines[0].endswith(f"[{cause}]")
    assert lines[-1] == f"  more: mdevdisplay doctor {locator}"
    assert [line[:14] for line in lines[1:-1]] in ([], ["  what to do: "])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["info"],
        ["info", "nonsense"],
        ["info", "sim:", "sim:"],
        ["info", "sim:0x0"],
        ["info", "sim:64x64,colour=red"],
        ["info", "sim:", "--backend", "nobody"],
        ["info", "sim:", "--timeout", "0"],
        ["info", "sim:", "--timeout", "-1"],
        ["info", "sim:", "--timeout", "soon"],
        ["screenshot", "sim:", "--wait", "-1"],
        ["screenshot", "sim:", "--plane", "sprite"],
        ["list", "sim:"],
        ["watch"],
    ],
)
def test_status_2_is_wrong_usage(arguments: list[str]) -> None:
    """What can be told from the words alone is the caller's to change."""
    result = here(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_status_3_is_nothing_displayed(tmp_path: Path) -> None:
    """A dark screen is told from an error."""
    assert run("screenshot", "sim:64x64,blank=on", cwd=tmp_path).returncode == 3


def test_status_4_is_not_permitted(tmp_path: Path) -> None:
    """A device node that this user may not open, with what gives the permission; a real refusal of the kernel's."""
    prefix = powerless()
    if prefix is None:
        pytest.skip("needs setpriv, since root may open anything")
    kernel = FakeKernel(tmp_path / "host")
    with kernel:
        device = kernel.add(Mdpy("vga"))
        for node in (tmp_path / "host/dev/vfio").iterdir():
            node.chmod(0)
        env = environment(MDEVDISPLAY_HOST_ROOT=str(tmp_path / "host"))
        result = run("info", device.name, prefix=prefix, env=env)
        assert result.returncode == 4
        assert b"[not-permitted]" in result.stderr
        assert b"EACCES" in result.stderr
        assert b"chown" in result.stderr
        found = json.loads(run("info", device.name, "--json", prefix=prefix, env=env).stdout)
        assert found["error"]["exit_status"] == 4
        assert found["error"]["errno"] == 13


@pytest.mark.parametrize(
    ("number", "status", "cause"), [(13, 4, "not-permitted"), (1, 4, "not-permitted"), (16, 1, "device-busy")]
)
def test_the_status_of_a_refused_group(kernel: FakeKernel, number: int, status: int, cause: str) -> None:
    """EACCES and EPERM are permission, EBUSY is not."""
    device = kernel.add(Mdpy("vga"))
    kernel.refuse_open(str(device.group), number)
    error = here_json("info", device.name, status=status)["error"]
    assert (error["cause"], error["errno"]) == (cause, number)


def test_a_host_without_vfio_says_what_to_load(kernel: FakeKernel) -> None:
    """Nothing behind /dev/vfio/vfio: the modules to load are named."""
    device = kernel.add(Mdpy("vga"))
    kernel.iommu_types.clear()
    result = here("info", device.name)
    assert result.exit_code == 1
    assert "[no-vfio]" in result.stderr
    assert "modprobe" in result.stderr


def test_a_container_without_nodes_says_to_pass_them_in(kernel: FakeKernel) -> None:
    """A VFIO driver has the device, so VFIO is loaded and its nodes are missing."""
    device = kernel.add(Mdpy("vga"))
    kernel.remove_vfio()
    result = here("info", device.name)
    assert result.exit_code == 1
    assert "[no-node]" in result.stderr
    assert "pass the node in" in result.stderr


# errors as JSON


@pytest.mark.parametrize(
    ("arguments", "cause", "status"),
    [
        (["info", "nonsense"], "bad-locator", 2),
        (["info", "sim:64x64", "--backend", "nobody"], "unknown-backend", 2),
        (["info", "sim:64x64,fault=answers-all"], "not-a-display", 1),
        (["screenshot", "sim:64x64,blank=on"], "nothing-displayed", 3),
        (["screenshot", "sim:64x64,fault=eio"], "driver-error", 1),
        (["screenshot", "sim:64x64,fault=einval-forever"], "guest-changing-mode", 1),
        (["screenshot", "sim:64x64,fault=short-size"], "bad-surface", 1),
        (["screenshot", "sim:64x64,format=NV12", "-o", "/nowhere/x.png"], "cannot-write", 1),
    ],
)
def test_errors_are_json_too(arguments: list[str], cause: str, status: int) -> None:
    """With --json a program gets the error where it expects the answer, with a stable cause; position is no matter."""
    for order in (arguments, [arguments[0], "--json", *arguments[1:]]):
        result = here(*order, *(["--json"] if "--json" not in order else []))
        found = json.loads(result.stdout)
        assert result.stderr == ""
        assert result.exit_code == status
        assert list(found) == ["version", "error"]
        assert found["version"] == 1
        assert list(found["error"]) == ERROR
        assert found["error"]["cause"] == cause
        assert found["error"]["exit_status"] == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "--json"], "Missing argument 'LOCATOR'."),
        (["info", "--json", "sim:", "sim:"], "Got unexpected extra argument (sim:)"),
        (["info", "sim:", "--timeout", "soon", "--json"], "Invalid value for '--timeout': 'soon' is not a valid float"),
        (["info", "sim:", "--json", "--timeout"], "Option '--timeout' requires an argument."),
        (["info", "--colour", "--json"], "No such option '--colour'."),
        (["screenshot", "--json"], "Give a LOCATOR, or --all."),
        (["screenshot", "sim:", "--json", "-o", "-"], "--json and -o - both want standard output."),
        (["screenshot", "sim:", "--plane", "sprite", "--json"], "Invalid value for '--plane'"),
        (["watch", "sim:", "--json"], "No such option '--json'."),
        (["nonsense", "--json"], "No such command 'nonsense'."),
        (["--nonsense", "--json"], "No such option '--nonsense'."),
        (["--json"], "No such option '--json'."),
    ],
)
def test_wrong_usage_is_json_too(arguments: list[str], message: str) -> None:
    """Whatever is wrong with the words, and wherever it is found."""
    result = here(*arguments)
    assert result.stderr == ""
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert list(found) == ["version", "error"]
    error = found["error"]
    assert list(error) == ERROR
    assert error["message"].startswith(message)
    assert "--help`" in error["hint"]
    assert (error["cause"], error["device"], error["errno"], error["exit_status"]) == ("usage", "", None, 2)


# manners


def test_colour_is_for_terminals_only() -> None:
    """Bold on a terminal, plain text in a pipe."""
    assert b"\x1b" not in run("plugins").stdout
    child = pexpect.spawn(PROGRAM, ["plugins"], env=environment(TERM="xterm"), timeout=30)
    child.expect(pexpect.EOF)
    child.close()
    assert b"\x1b[1m" in child.before


@pytest.mark.parametrize("arguments", [["list", "--json"], ["info", "sim:64x64"]])
def test_output_that_goes_nowhere_is_an_error(arguments: list[str]) -> None:
    """A full disk and a closed standard output: one error, status 1, no traceback."""
    with Path("/dev/full").open("wb") as full:
        result = run(*arguments, stdout=full)
    assert result.returncode == 1
    assert b"No space left on device" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    closed = subprocess.run(
        ["bash", "-c", f"mdevdisplay {' '.join(arguments)} >&-"], capture_output=True, env=environment(), timeout=60
    )
    assert closed.returncode == 1
    assert b"[no-output]" in closed.stderr
    assert len(closed.stderr.splitlines()) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["info", "--help"]])
def test_help_that_goes_nowhere_is_an_error(arguments: list[str]) -> None:
    """As any other output."""
    with Path("/dev/full").open("wb") as full:
        result = run(*arguments, stdout=full)
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert lines[0].endswith("No space left on device [no-output]")
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("arguments", "status"), [(["info", "nonsense"], 2), (["info"], 2), (["screenshot", "sim:64x64,blank=on"], 3)]
)
def test_errors_never_land_on_standard_output(arguments: list[str], status: int) -> None:
    """With standard error closed nothing is printed; the status is left."""
    command = f"mdevdisplay {' '.join(arguments)} 2>&-"
    result = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, env=environment(), timeout=60)
    assert result.returncode == status
    assert result.stdout == b""


def test_an_error_with_nowhere_to_go_keeps_its_status() -> None:
    """JSON that cannot be written is said on standard error instead; without that, the status is left."""
    with Path("/dev/full").open("wb") as full:
        result = run("info", "nonsense", "--json", stdout=full)
    assert result.returncode == 2
    assert b"bad-locator" in result.stderr
    silent = subprocess.run(["bash", "-c", "mdevdisplay info nonsense >&- 2>&-"], env=environment(), timeout=60)
    assert silent.returncode == 2


def test_a_reader_that_went_away_is_no_news() -> None:
    """`| head -1` is quiet."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for arguments in (["info", "sim:64x64"], ["--help"]):
            result = run(*arguments, stdout=writer)
            assert result.stderr == b""
            assert result.returncode == 1
    finally:
        os.close(writer)


def test_control_c_ends_a_command_that_waits(tmp_path: Path) -> None:
    """Quietly and at once, without a traceback."""
    process = subprocess.Popen(
        [PROGRAM, "screenshot", "sim:64x64,blank=on", "--wait", "600", "-o", tmp_path / "never.png"],
        env=environment(),
        stderr=subprocess.PIPE,
    )
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip() == b"Aborted!"


def test_a_hung_driver_does_not_keep_the_program() -> None:
    """The command ends with its error while the driver still hangs."""
    begin = time.monotonic()
    result = run("info", "sim:64x64,fault=hang:600", "--timeout", "0.2")
    assert result.returncode == 1
    assert b"[timed-out]" in result.stderr
    assert time.monotonic() - begin < 60


def test_a_real_drivers_hang_is_an_error(kernel: FakeKernel) -> None:
    """A driver that hangs in the probe."""
    device = kernel.add(Nvidia())
    wait = threading.Event()
    device.stall = lambda _: wait.wait(60)
    error = here_json("info", device.name, "--timeout", "0.05", status=1)["error"]
    wait.set()
    assert error["cause"] == "timed-out"
    assert eventually(lambda: not kernel.leaks())


# names that cannot steer a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Gr\u00fc\u00dfe \u65e5\u672c", "Gr\u00fc\u00dfe \u65e5\u672c"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\tb\nc\rd\0", "a\\tb\\nc\\rd\\x00"),
        ("\u202eevil", "\\u202eevil"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\u2028\u00a0", "\\u2028\\xa0"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\x7f", "\\x7f"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    """Everything that is not to be seen is shown as its escape; what people write stays."""
    assert printable(text) == shown
    printable(text).encode("utf-8")
