from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from pixels.holdings import eventually
from pixels.vendor import install, installed

from cli.helpers import environment, here, here_json, run, run_json
from mdevdisplay import DeviceInfo
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia

FIELDS = ["locator", "parent", "mdev_type", "type_name", "driver", "vendor", "vm", "pid", "listed_by"]


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
    """UUIDs and parents as sysfs spells them, in order, with type and driver."""
    mdpy, nvidia = kernel.add(Mdpy("vga")), kernel.add(Nvidia())
    env = environment(MDEVDISPLAY_HOST_ROOT=str(kernel.path))
    result = run("list", env=env)
    lines = [line.split() for line in result.stdout.decode().splitlines()]
    assert lines == [
        ["LOCATOR", "PARENT", "TYPE", "DRIVER", "VM"],
        [mdpy.name, "mdpy", "mdpy-vga", "mdpy", "-"],
        [nvidia.name, "0000:41:00.0", "nvidia-63", "nvidia", "-"],
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
    for title in ("PARENT", "TYPE", "DRIVER"):
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
    busy = kernel.add(Gvt())
    gone = kernel.add(Nvidia())
    gone.gone = True
    devices = here_json("list", "--probe")["devices"]
    assert list(devices[0]) == [*FIELDS, "probe"]
    answers = [device["probe"] for device in devices]
    assert answers[0] == {"backend": "region_cap", "width": 640, "height": 480, "format": "XR24"}
    assert answers[1]["backend"] == "mbochs"
    assert answers[1]["error"]["cause"] == "nothing-displayed"
    assert answers[2]["backend"] == ""
    assert answers[2]["error"]["device"] == busy.name
    assert answers[3]["error"]["cause"] == "device-gone"
    text = here("list", "--probe")
    assert text.exit_code == 0
    for part in ("BACKEND", "SHOWS", "640x480 XR24", "nothing-displayed", "device-gone"):
        assert part in text.stdout


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


def test_devices_of_backends_are_listed_too(tmp_path: Path) -> None:
    """With the VM that uses one, its process and the backend that lists it."""
    with installed(tmp_path) as acme:
        acme.listed.append(DeviceInfo(locator="acme:1", vm="win10", pid=4242))
        assert "win10" in here("list").stdout
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
