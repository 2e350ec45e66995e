"""The command line and running VMs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import mdevdisplay
from cli.helpers import here, here_json, run_json
from mdevdisplay.cli import watch
from mdevdisplay.errors import VmGone
from mdevdisplay.host import attach, trace_layers
from mdevdisplay.pixels.frame import Blank
from mdevdisplay.testing import FakeKernel, Mdpy
from mdevdisplay.testing.vmm import FakeVmm


@pytest.fixture
def vmm(kernel: FakeKernel) -> FakeVmm:
    """A VM called win10 with a display."""
    return kernel.vmm(kernel.add(Mdpy("vga")), name="win10")


def test_info_says_that_it_is_borrowed(vmm: FakeVmm) -> None:
    """Owned or borrowed, and by which process it is read."""
    facts = here_json("info", "vm:win10", "--in-process")["display"]
    assert (facts["access"], facts["isolated"]) == ("borrowed", False)
    assert facts["planes"]["primary"]["width"] == 640
    assert vmm.pid


def test_a_screenshot_of_a_vm(vmm: FakeVmm, tmp_path: Path) -> None:
    """By its name, into a file."""
    target = tmp_path / "shot.png"
    result = here("screenshot", "vm:win10", "--in-process", "-o", str(target))
    assert result.exit_code == 0, result.output
    assert target.read_bytes().startswith(b"\x89PNG")
    assert vmm.pid


def test_a_vms_device_is_isolated_unless_asked_otherwise(
    kernel: FakeKernel, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device of a VM; not one that is free."""
    asked: list[str] = []

    class Remote:
        def __init__(self, locator: str, **_: object) -> None:
            asked.append(locator)
            raise mdevdisplay.MdevDisplayError("enough")

    monkeypatch.setattr("mdevdisplay.worker.client.RemoteReader", Remote)
    free = kernel.add(Mdpy("xga"))
    uuid = next(iter(vmm.fds))
    for locator in ("vm:win10", uuid, f"pid:{vmm.pid}", "win10"):
        here("info", locator)
    assert asked == ["vm:win10", uuid, f"pid:{vmm.pid}", "win10"]
    assert here("info", free.name).exit_code == 0
    assert here("info", "sim:").exit_code == 0
    assert len(asked) == 4


def test_an_isolated_display_on_request() -> None:
    """A real worker reads the simulated display."""
    facts = run_json("info", "sim:640x480", "--isolated")["display"]
    assert facts["isolated"]
    assert facts["backend"]["name"] == "simulated"


def test_not_permitted_is_status_four(kernel: FakeKernel, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reason and a remedy."""
    scope = kernel.path / "proc/sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    scope.write_text("3\n")

    def refuse(pidfd: int, fd: int) -> int:
        number = errno.EBADF if pidfd < 0 else errno.EPERM
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(attach, "duplicate_from", refuse)
    monkeypatch.setattr(trace_layers, "duplicate_from", refuse)
    error = here_json("info", "vm:win10", "--in-process", status=4)["error"]
    assert (error["cause"], error["errno"]) == ("trace-yama-3", errno.EPERM)
    assert vmm.pid


@pytest.mark.parametrize(
    ("locator", "status", "cause"),
    [
        ("vm:none", 1, "no-such-vm"),
        ("pid:4194303", 1, "no-such-vm"),
        ("pid:x", 2, "bad-locator"),
        ("fd:x", 2, "bad-locator"),
        ("unix:/nowhere/at/all", 1, "bad-hand-over"),
        ("nobody", 2, "bad-locator"),
    ],
)
def test_what_is_not_there(kernel: FakeKernel, locator: str, status: int, cause: str) -> None:
    """Each has its cause and its status."""
    error = here_json("info", locator, "--in-process", status=status)["error"]
    assert error["cause"] == cause
    assert error["hint"]


def test_what_cannot_come_back_is_wrong_usage(kernel: FakeKernel) -> None:
    """A process ends once."""
    result = CliRunner().invoke(watch.command, ["pid:1", "--reconnect"])
    assert result.exit_code == 2


def test_watching_says_what_it_waits_for() -> None:
    """A VM that is away is not the same as a dark screen."""
    away = VmGone("the VM has not come back yet", device="sim:")
    with mdevdisplay.open("sim:640x480") as display, Path(os.devnull).open("w") as nowhere:
        for error, words in ((away, "waiting for the VM to come back"), (None, "nothing displayed")):
            console = Console(width=100, height=10, record=True, file=nowhere)
            console.print(watch._page(display, Blank(serial=1, timestamp=0, error=error)))
            assert words in console.export_text()
