"""What a real host refuses: no display, busy, no permission, gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_support import MDEVS, device_of, let_everybody_execute, open_descriptors, remove_mdev, run_cli

import mdevdisplay
from mdevdisplay.errors import DeviceBusy, DeviceNotFound, NotADisplay

NOBODY = 65534


@pytest.mark.parametrize("kind", ["mtty-1", "mtty-2"])
def test_a_serial_port_is_not_a_display(kind: str, make_mdev: Callable[[str], str]) -> None:
    """A device without a display is named as such, with its type, by every command."""
    name = make_mdev(kind)
    before = open_descriptors()
    with pytest.raises(NotADisplay, match=kind):
        mdevdisplay.open(name)
    assert open_descriptors() == before
    for command in (["info", name], ["screenshot", name, "-o", "-"]):
        result = run_cli(*command)
        assert result.returncode == 1
        assert f"({kind}) is not a display".encode() in result.stderr
        assert b"[not-a-display]" in result.stderr


@pytest.mark.by_group
def test_a_group_opens_once(make_mdev: Callable[[str], str]) -> None:
    """Who has the device does not open it twice; another process attaches to it; afterwards it is free again."""
    name = make_mdev("mdpy-vga")
    with mdevdisplay.open(name):
        with pytest.raises(DeviceBusy, match="opens only once"):
            mdevdisplay.open(name)
        result = run_cli("screenshot", name, "-o", "-", "--json")
        assert result.returncode == 2
        result = run_cli("info", name, "--json")
        assert result.returncode == 0, result.stdout
        assert json.loads(result.stdout)["display"]["access"] == "borrowed"
    with mdevdisplay.open(name) as display:
        assert display.surface() is not None


@pytest.mark.by_group
def test_a_group_without_its_device_is_busy(make_mdev: Callable[[str], str]) -> None:
    """A process that has the group open and not the device: nothing to attach to, and nothing to open."""
    name = make_mdev("mdpy-vga")
    group = (MDEVS / name / "iommu_group").resolve().name
    fd = os.open(f"/dev/vfio/{group}", os.O_RDWR)
    result = run_cli("info", name, "--json")
    os.close(fd)
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["cause"] == "device-busy"


@pytest.mark.by_group
def test_an_unprivileged_user_is_not_permitted(make_mdev: Callable[[str], str]) -> None:
    """Without rights on the node: exit status 4 and what to do; with them, the same user sees the picture."""
    name = make_mdev("mdpy-vga")
    group = (MDEVS / name / "iommu_group").resolve().name
    let_everybody_execute(sys.executable)
    result = run_cli("screenshot", name, "-o", "-", user=NOBODY)
    assert result.returncode == 4
    assert f"/dev/vfio/{group}".encode() in result.stderr
    assert b"[not-permitted]" in result.stderr
    assert b"chown" in result.stderr
    os.chown(f"/dev/vfio/{group}", NOBODY, -1)
    result = run_cli("screenshot", name, "-o", "-", user=NOBODY)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"\x89PNG")


def test_a_device_that_vanishes_between_list_and_open(make_mdev: Callable[[str], str]) -> None:
    """It was listed, it was removed, and opening it says so."""
    name = make_mdev("mdpy-vga")
    assert name in {device.locator for device in mdevdisplay.devices()}
    assert remove_mdev(name)
    with pytest.raises(DeviceNotFound, match="no mediated device"):
        mdevdisplay.open(name)
    assert run_cli("info", name).returncode == 1


def test_a_closed_display_lets_the_device_go(make_mdev: Callable[[str], str]) -> None:
    """With a frame and a view still held, the device can be removed and made anew at once."""
    name = make_mdev("mdpy-xga")
    display = mdevdisplay.open(name)
    frame = display.capture()
    with display.map() as view:
        display.close()
    assert remove_mdev(name)
    assert not (MDEVS / name).exists()
    assert frame.raw.any()
    assert not view.any()
    create = Path("/sys/class/mdev_bus/mdpy/mdev_supported_types/mdpy-vga/create")
    create.write_text(name)
    with mdevdisplay.open(name) as again:
        assert again.capture().width == 640


@pytest.mark.by_group
def test_no_vfio_nodes(make_mdev: Callable[[str], str]) -> None:
    """In a mount namespace where /dev/vfio is empty, as in a container, the error says that the node is missing."""
    name = make_mdev("mdpy-vga")
    script = f"mount -t tmpfs none /dev/vfio && exec {sys.executable} -m mdevdisplay info {name}"
    result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, timeout=60, check=False)
    assert result.returncode == 1
    assert b"[no-node]" in result.stderr
    assert b"in a container, pass the node in" in result.stderr


def test_the_libvirt_name_of_a_device(make_mdev: Callable[[str], str]) -> None:
    """mdev_UUID and mdev_UUID_PARENT open the same device as the UUID."""
    name = make_mdev("mdpy-vga")
    for spelling in (f"mdev_{name.replace('-', '_')}", f"mdev_{name.replace('-', '_')}_mdpy", name.upper()):
        with mdevdisplay.open(spelling) as display:
            assert device_of(display).identity.name == name


def test_by_which_way_it_was_opened(make_mdev: Callable[[str], str], request: pytest.FixtureRequest) -> None:
    """By its cdev where its group has no node: the link of the descriptor names it."""
    name = make_mdev("mdpy-vga")
    with mdevdisplay.open(name) as display:
        link = str(Path(f"/proc/self/fd/{device_of(display).fileno()}").readlink())
        assert not display.borrowed
        by_cdev = "cdev" in request.node.name
        assert link.startswith("/dev/vfio/devices/vfio" if by_cdev else "anon_inode:[vfio-device]")
        # another process borrows it, and knows which device it is
        facts = json.loads(run_cli("info", f"pid:{os.getpid()}", "--json").stdout)["display"]
        assert (facts["access"], facts["name"]) == ("borrowed", name)
