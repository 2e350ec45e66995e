"""``mdevdisplay doctor``: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from cli.helpers import here, here_json
from mdevdisplay.testing import FakeKernel, Mbochs, Mdpy

PIXELS = bytes(range(256)) * 16


@pytest.mark.parametrize(
    ("locator", "status", "cause"),
    [
        ("sim:320x200", 0, "shown"),
        ("sim:blank=on", 3, "nothing-displayed"),
        ("sim:fault=all-black", 3, "one-colour"),
        ("sim:fault=short-size", 1, "bad-surface"),
        ("sim:fault=nonsense", 2, "bad-locator"),
    ],
)
def test_the_verdict_is_the_first_line_and_the_exit_status(locator: str, status: int, cause: str) -> None:
    result = here("doctor", locator)
    assert result.exit_code == status, result.output
    first, empty, *_ = result.stdout.split("\n")
    assert first.endswith(f" [{cause}]")
    assert locator in first
    assert empty == ""
    assert result.stderr == ""


def test_not_permitted_is_four(kernel: FakeKernel) -> None:
    driver = kernel.add(Mdpy("vga"))
    kernel.refuse_open(str(driver.group), 13)
    result = here("doctor", driver.name)
    assert result.exit_code == 4
    assert "[not-permitted]" in result.stdout


def test_steps_then_what_to_do() -> None:
    """In that order, and the commands marked as such."""
    text = here("doctor", "sim:320x200,fault=unknown-fourcc").stdout
    places = [text.index(word) for word in ("\naccess ", "\ndriver ", "\nguest ", "\npixels ", "\nwhat to do\n")]
    assert places == sorted(places)
    assert "SIM0" in text[places[3] : places[4]]
    assert "unsupported-format" in text[places[4] :]


def test_what_to_do_is_said_once(kernel: FakeKernel) -> None:
    """Where a reason and what it explains want the same."""
    kernel.vmm(kernel.add(Mbochs()), name="win10")
    text = here("doctor", "--in-process", "vm:win10").stdout
    assert text.count("--wait 60") == 1
    assert "guest-driver-not-loaded" in text


def test_json_is_versioned_and_has_everything() -> None:
    result = here("doctor", "sim:320x200,fault=all-black", "--json")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert facts["version"] == 1
    assert (facts["cause"], facts["exit_status"]) == ("one-colour", 3)
    [report] = facts["reports"]
    assert report["verdict"] == facts["verdict"]
    assert [step["name"] for step in report["steps"]] == ["access", "driver", "guest", "pixels"]
    assert [step["state"] for step in report["steps"]] == ["ok", "note", "ok", "bad"]
    assert report["findings"][0]["cause"] == "one-colour"
    assert report["findings"][0]["evidence"] == "all 64000 pixels are #000000"
    assert report["left_out"] == []


def test_without_a_locator_the_host_and_every_device(kernel: FakeKernel) -> None:
    """The worst of all is the exit status."""
    good, empty = kernel.add(Mdpy("vga")), kernel.add(Mbochs())
    good.paint(PIXELS)
    kernel.vmm(good, name="win10")
    facts = here_json("doctor", "--in-process", status=3)
    assert [report["locator"] for report in facts["reports"]] == ["", good.name, empty.name]
    assert [report["cause"] for report in facts["reports"]] == ["host-ready", "shown", "no-vm"]
    assert facts["cause"] == "no-vm"
    text = here("doctor", "--in-process")
    assert text.exit_code == 3
    assert text.stdout.startswith("this host has 2 vGPUs [host-ready]\n")


def test_without_a_locator_on_a_host_without_vgpus(kernel: FakeKernel) -> None:
    assert kernel
    result = here("doctor")
    assert result.exit_code == 1
    assert result.stdout.startswith("this host has no mediated devices")


def test_names_cannot_steer_the_terminal(kernel: FakeKernel) -> None:
    """They come from VMs, and stand in the verdict, the evidence and the commands."""
    driver = kernel.add(Mbochs())
    kernel.vmm(driver, name="evil\x1b[2J\x9b31m")
    text = here("doctor", "--in-process", driver.name).stdout
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\\x1b[2J" in text


def test_watch_waits_for_a_change() -> None:
    result = here("doctor", "sim:320x200,fps=0", "--watch", "0.2")
    assert result.exit_code == 0
    assert "nothing in it changed for 0.2 s" in result.stdout.split("\n")[0]


@pytest.mark.parametrize("option", ["--with-names", "--with-pixels"])
def test_options_of_the_bundle_want_a_bundle(option: str) -> None:
    result = here("doctor", "sim:", option)
    assert result.exit_code == 2
    assert "--bundle" in result.stderr


@pytest.mark.parametrize("command", ["info", "screenshot"])
def test_errors_say_how_to_ask_the_doctor(command: str) -> None:
    result = here(command, "sim:fault=enotty", *(["-o", "-"] if command == "screenshot" else []))
    assert result.exit_code == 1
    assert "[not-a-display]" in result.stderr
    assert result.stderr.endswith("  more: mdevdisplay doctor sim:fault=enotty\n")


def test_a_bundle_that_cannot_be_written_costs_no_diagnosis() -> None:
    """The report is in the JSON all the same."""
    result = here("doctor", "sim:320x200", "--json", "--bundle", "/nowhere/at/all.tar.gz")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert facts["cause"] == "shown"
    assert facts["bundle_error"]["cause"] == "cannot-write"
