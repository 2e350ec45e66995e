from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from host.fake_processes import DEVICE, FakeProcesses
from pixels.holdings import eventually
from pixels.vendor import install, installed

from cli.helpers import PROGRAM, environment, here, here_json, run, run_json
from cli.terminal import Terminal
from mdevdisplay import DeviceInfo
from mdevdisplay.testing import FakeKernel, Mbochs, Mdpy, Nvidia

FIELDS = [
    "locator",
    "parent",
    "mdev_type",
    "type_name",
    "driver",
    "vendor",
    "vm",
    "vm_uuid",
    "pid",
    "state",
    "listed_by",
]
TITLES = ["LOCATOR", "PARENT", "TYPE", "BACKEND", "VM", "PID", "STATE"]
UUID = "48888226-7b6b-415c-bcf7-b278ba0bca62"


@pytest.fixture(autouse=True)
def _host(kernel: FakeKernel) -> None:
    """Every test has a host of its own."""


def test_a_host_without_devices_says_so() -> None:
    """An empty list is no error; for people it says what can be tried."""
    result = run("list")
    assert result.returncode == 0
    assert b"No virtual GPU" in result.stdout
    assert b"sim:" in result.stdout
    assert run_json("list") == {"version": 1, "devices": [], "errors": []}
    assert run_json("list", "--probe") == {"version": 1, "devices": [], "errors": []}


def test_devices_are_listed_from_sysfs_by_another_process(kernel: FakeKernel) -> None:
    """UUIDs and parents as sysfs spells them, in order, with type and state."""
    mdpy, nvidia = kernel.add(Mdpy("vga")), kernel.add(Nvidia())
    env = environment(MDEVDISPLAY_HOST_ROOT=str(kernel.path))
    result = run("list", env=env)
    lines = [line.split() for line in result.stdout.decode().splitlines()]
    assert lines == [
        TITLES,
        [mdpy.name, "mdpy", "mdpy-vga", "-", "-", "-", "unknown"],
        [nvidia.name, "0000:41:00.0", "nvidia-63", "-", "-", "-", "unknown"],
    ]
    first, second = run_json("list", env=env)["devices"]
    assert list(first) == FIELDS
    assert first["locator"] == mdpy.name
    assert first["vendor"] == "mdpy"
    assert second["type_name"] == "GRID P40-2B"
    assert second["pid"] is None
    assert not kernel.calls


def test_columns_are_aligned(kernel: FakeKernel) -> None:
    """Each column begins where its title does."""
    kernel.add(Mdpy("vga"))
    kernel.add(Nvidia())
    lines = here("list").stdout.splitlines()
    for title in TITLES[1:]:
        place = lines[0].index(title)
        assert all(line[place - 1] == " " and line[place] != " " for line in lines[1:])
    assert all(line == line.rstrip() for line in lines)


def test_listing_touches_no_device(kernel: FakeKernel) -> None:
    """Not one system call reaches a device, unless --probe is given."""
    kernel.add(Nvidia())
    here("list")
    here("list", "--json")
    assert not kernel.calls
    here("list", "--probe")
    assert kernel.calls


def test_probing_says_what_each_device_shows(kernel: FakeKernel) -> None:
    """Backend and picture size, or why not; one device's trouble does not hide the others."""
    kernel.add(Mdpy("vga"))
    kernel.add(Mbochs())
    gone = kernel.add(Nvidia())
    gone.gone = True
    devices = here_json("list", "--probe")["devices"]
    assert list(devices[0]) == [*FIELDS, "probe"]
    answers = [device["probe"] for device in devices]
    assert answers[0] == {"backend": "region_cap", "width": 640, "height": 480, "format": "XR24"}
    assert answers[1]["backend"] == "mbochs"
    assert answers[1]["error"]["cause"] == "nothing-displayed"
    assert answers[2]["backend"] == ""
    assert answers[2]["error"]["device"] == gone.name
    assert answers[2]["error"]["cause"] == "device-gone"
    text = here("list", "--probe")
    assert text.exit_code == 0
    lines = text.stdout.splitlines()
    assert lines[0].split() == [*TITLES, "MODE", "FORMAT", "ERROR"]
    assert lines[1].split()[3] == "region_cap"
    assert lines[1].split()[-3:] == ["640x480", "XR24", "-"]
    assert lines[2].split()[3] == "mbochs"
    assert lines[2].split()[7:10] == ["-", "-", "nothing-displayed:"]
    assert lines[3].split()[7:10] == ["-", "-", "device-gone:"]


def test_probing_without_trouble_has_no_column_for_it(kernel: FakeKernel) -> None:
    """Mode and format behind the usual ones, with the backend that was chosen."""
    device = kernel.add(Mdpy("vga"))
    titles, line = (text.split() for text in here("list", "--probe").stdout.splitlines())
    assert titles == [*TITLES, "MODE", "FORMAT"]
    assert line == [device.name, "mdpy", "mdpy-vga", "region_cap", "-", "-", "unknown", "640x480", "XR24"]


def test_probing_has_a_deadline(kernel: FakeKernel) -> None:
    """A device that hangs costs its timeout and is named."""
    device = kernel.add(Nvidia())
    device.show(64, 64)
    wait = threading.Event()
    device.stall = lambda _: wait.wait(60)
    [found] = here_json("list", "--probe", "--timeout", "0.05")["devices"]
    wait.set()
    assert found["probe"]["error"]["cause"] == "timed-out"
    assert eventually(lambda: not kernel.leaks())


def test_a_vm_is_listed_with_its_process(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, UUID, pid and state, from /proc, by another process; its name cannot steer the terminal."""
    held, free = kernel.add(Mdpy("vga")), kernel.add(Mbochs())
    processes = FakeProcesses(kernel.path, monkeypatch)
    words = [b"qemu-kvm", b"-name", b"guest=win\x1b[2J\xff10", b"-uuid", UUID.encode()]
    processes.add(4242, words, {20: DEVICE}, fdinfo={20: f"/sys/devices/x/{held.name}"})
    env = environment(MDEVDISPLAY_HOST_ROOT=str(kernel.path))
    text = run("list", env=env).stdout.decode()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[1].split()[4:] == ["win\\x1b[2J\\udcff10", "4242", "in", "use"]
    assert lines[2].split()[4:] == ["-", "-", "free"]
    first, second = run_json("list", env=env)["devices"]
    assert (first["vm"], first["vm_uuid"], first["pid"], first["state"]) == ("win\x1b[2J\udcff10", UUID, 4242, "in use")
    assert (second["locator"], second["pid"], second["state"]) == (free.name, None, "free")
    assert not kernel.calls


def test_devices_of_backends_are_listed_too(tmp_path: Path) -> None:
    """With the VM that uses one, its process and the backend that lists it."""
    with installed(tmp_path) as acme:
        acme.listed.append(DeviceInfo(locator="acme:1", vm="win10", pid=4242))
        line = here("list").stdout.splitlines()[1]
        assert line.split()[3:] == ["acme", "win10", "4242", "-"]
        [device] = here_json("list")["devices"]
    assert (device["vm"], device["pid"], device["listed_by"]) == ("win10", 4242, "acme")


def test_a_backend_that_cannot_list_is_named(kernel: FakeKernel, tmp_path: Path) -> None:
    """The others' devices are listed all the same; people are warned, and programs find it beside them."""
    device = kernel.add(Mdpy("vga"))
    with installed(tmp_path) as acme:
        acme.behaviour["list_devices"] = RuntimeError("\x1b[31mno lamp")
        result = here("list")
        assert result.exit_code == 0
        assert device.name in result.stdout
        warning = result.stderr.splitlines()[0]
        assert warning.startswith("mdevdisplay: list_devices of backend acme")
        assert warning.endswith("raised RuntimeError: \\x1b[31mno lamp [plugin-error]")
        for arguments in (["list"], ["list", "--probe"]):
            found = here_json(*arguments)
            assert [entry["locator"] for entry in found["devices"]] == [device.name]
            [error] = found["errors"]
            assert list(error) == ["cause", "message", "device", "hint", "errno", "exit_status"]
            assert error["cause"] == "plugin-error"
            assert "acme" in error["message"]


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in names that come from VMs and drivers are written out, in the table and in JSON."""
    install(tmp_path)
    evil = "win\x1b[31m10\x07\n\u202eX\x9b2J"
    env = environment(
        PYTHONPATH=str(tmp_path),
        ACME_NAME="\x1b]0;owned\x07",
        ACME_DEVICES=json.dumps([{"locator": "acme:1\x1b[2J", "vm": evil}]),
    )
    result = run("list", env=env)
    text = result.stdout.decode()
    assert result.returncode == 0
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert len(text.splitlines()) == 2
    assert "win\\x1b[31m10\\x07\\n\\u202eX\\x9b2J" in text
    assert "\\x1b]0;owned\\x07" in text
    [device] = run_json("list", env=env)["devices"]
    assert device["vm"] == evil


def test_probing_a_vendors_device_that_fails(tmp_path: Path) -> None:
    """A backend that breaks is a line in the list, by name, with its words made harmless."""
    install(tmp_path)
    env = environment(
        PYTHONPATH=str(tmp_path), ACME_NAME="\x1b[31mred", ACME_DEVICES=json.dumps([{"locator": "acme:!"}])
    )
    text = run("list", "--probe", env=env).stdout.decode()
    assert "plugin-error" in text
    assert "\x1b" not in text
    [device] = run_json("list", "--probe", env=env)["devices"]
    assert device["probe"]["error"]["cause"] == "plugin-error"
    assert "acme" in device["probe"]["error"]["message"]


# --- watching ---


class Follower:
    """``mdevdisplay list --watch`` into a pipe, read line by line."""

    def __init__(self, root: Path, *arguments: str) -> None:
        env = environment(MDEVDISPLAY_HOST_ROOT=str(root))
        command = [PROGRAM, "list", "--watch", *arguments]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.lines = self.process.stdout

    def interrupt(self) -> tuple[int, bytes]:
        """Press Ctrl-C; return the exit status and what came on standard error."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    started: list[Follower] = []
    yield started
    for follower in started:
        follower.process.kill()
        follower.process.communicate()


def test_watching_with_json_is_one_line_a_change(kernel: FakeKernel, followers: list[Follower]) -> None:
    """The keys are those of ``list --json``; what does not change is not said again; Ctrl-C ends it with status 0."""
    follower = Follower(kernel.path, "--json")
    followers.append(follower)
    assert json.loads(follower.lines.readline()) == {"version": 1, "devices": [], "errors": []}
    device = kernel.add(Mdpy("vga"))
    found: list[dict[str, object]] = []
    while not found or not found[-1]["mdev_type"]:  # it may be seen while it is half there
        entry = json.loads(follower.lines.readline())
        found = entry["devices"]
    assert list(found[0]) == FIELDS
    assert found[0]["locator"] == device.name
    device.vanish()
    while json.loads(follower.lines.readline())["devices"]:
        pass
    assert follower.interrupt() == (0, b"")


def test_watching_into_a_pipe_prints_the_table_at_each_change(kernel: FakeKernel, followers: list[Follower]) -> None:
    """A line between two tables."""
    device = kernel.add(Mdpy("vga"))
    follower = Follower(kernel.path)
    followers.append(follower)
    assert follower.lines.readline().split() == [title.encode() for title in TITLES]
    assert follower.lines.readline().startswith(device.name.encode())
    device.vanish()
    assert follower.lines.readline() == b"\n"
    lines = b""
    while b"No virtual GPU" not in lines:
        lines += follower.lines.readline()
    assert follower.interrupt() == (0, b"")


def test_watching_ends_with_its_reader(kernel: FakeKernel, followers: list[Follower]) -> None:
    """Though nothing changes and so nothing is written, as with ``| head -1``."""
    follower = Follower(kernel.path, "--json")
    followers.append(follower)
    follower.lines.readline()
    follower.lines.close()
    assert follower.process.wait(30) == 0
    assert follower.process.stderr is not None
    assert follower.process.stderr.read() == b""


def test_watching_a_terminal_draws_the_table_anew(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place, with names that cannot steer it; Ctrl-C leaves the last one and the cursor."""
    device = kernel.add(Mdpy("vga"))
    env = environment(MDEVDISPLAY_HOST_ROOT=str(kernel.path), TERM="xterm-256color")
    terminal = Terminal([PROGRAM, "list", "--watch"], env, columns=160)
    try:
        terminal.wait_for(lambda: device.name in terminal.screen.display[1])
        assert terminal.screen.display[0].split() == TITLES
        assert terminal.screen.display[1].split()[-1] == "unknown"
        path = f"/sys/devices/x/{device.name}"
        words = ["qemu-kvm", "-name", "guest=win\x1b]0;owned\x07[bold]"]
        FakeProcesses(kernel.path, monkeypatch).add(77, words, {20: DEVICE}, fdinfo={20: path})
        terminal.wait_for(lambda: "in use" in terminal.screen.display[1])
        assert terminal.screen.display[1].split()[4:6] == ["win\\x1b]0;owned\\x07[bold]", "77"]
        assert terminal.screen.display[2].strip() == ""
        assert b"owned\x07" not in terminal.raw
        device.vanish()
        terminal.wait_for(lambda: "No virtual GPU" in terminal.screen.display[0])
        terminal.child.sendintr()
        assert terminal.end() == 0
        assert not terminal.screen.cursor.hidden
        assert "Traceback" not in "".join(terminal.screen.display)
    finally:
        terminal.child.close(force=True)


def test_watching_does_not_probe() -> None:
    """It looks from outside; asking every device each second is refused."""
    for arguments in (["--watch", "--probe"], ["--watch", "--probe", "--json"]):
        assert run("list", *arguments).returncode == 2
