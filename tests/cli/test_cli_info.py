from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pixels.vendor import install, installed

from cli.helpers import environment, here, here_json, run, run_json
from mdevdisplay.errors import DriverError
from mdevdisplay.region import Mappable
from mdevdisplay.source import Finding
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy

DISPLAY = [
    "locator",
    "name",
    "driver",
    "vendor",
    "mdev_type",
    "parent",
    "access",
    "isolated",
    "backend",
    "planes",
    "edid",
    "findings",
]
BACKEND = ["name", "distribution", "version", "score", "reason", "others"]
PLANE = [
    *("format", "format_name", "modifier", "modifier_number", "width", "height", "stride", "size", "offset", "x", "y"),
    *("x_hot", "y_hot", "dmabuf_id", "region_index", "read_by", "not_readable_because"),
    "not_mapped_because",
]
EDID = ["size", "max_size", "max_width", "max_height", "link", "valid", "hex"]
ERROR = ["cause", "message", "device", "hint", "errno", "exit_status"]


def test_a_display_is_described() -> None:
    """Device, backend and why not another, both planes, and how the pixels can be read."""
    result = run("info", "sim:1280x720,cursor=on,format=RG16,stride=4096")
    text = result.stdout.decode()
    assert result.returncode == 0
    assert result.stderr == b""
    for part in (
        "device   simulated owned\n",
        "simulated (score 100)",
        "not region_cap: not a VFIO device",
        "1280x720 RG16 (RGB565) LINEAR",
        "stride 4096, size",
        "readable through its region",
        "hotspot",
        "no EDID region",
    ):
        assert part in text


def test_the_json_has_every_field() -> None:
    """Version 1 of the schema, field by field: a program may rely on each."""
    found = run_json("info", "sim:1280x720,cursor=on,fault=all-black")
    assert list(found) == ["version", "display"]
    display = found["display"]
    assert list(display) == DISPLAY
    assert display["access"] == "owned"
    assert list(display["backend"]) == BACKEND
    assert display["backend"]["others"] == {
        "intel_gvt": "not a VFIO device",
        "mbochs": "not an mbochs device",
        "region_cap": "not a VFIO device",
    }
    assert list(display["planes"]) == ["primary", "cursor"]
    for plane in display["planes"].values():
        assert list(plane) == PLANE
    primary = display["planes"]["primary"]
    assert (primary["format"], primary["format_name"]) == ("XR24", "XRGB8888")
    assert (primary["modifier"], primary["modifier_number"]) == ("LINEAR", 0)
    assert (primary["width"], primary["height"], primary["stride"]) == (1280, 720, 5120)
    assert (primary["read_by"], primary["not_readable_because"], primary["not_mapped_because"]) == ("region", "", "")
    [finding] = display["findings"]
    assert list(finding) == ["cause", "evidence", "remedy"]


@pytest.mark.parametrize(
    ("options", "read_by", "why"),
    [
        ("via=dmabuf", "dma-buf", ""),
        ("via=region", "region", ""),
        ("via=dmabuf,fault=dmabuf-enodev", "", "ENODEV"),
        ("modifier=X_TILED", "region", ""),
        ("format=NV12", "region", ""),
        ("modifier=0x0100000000000004", "", "I915_Y_TILED_CCS"),
        ("modifier=Y_TILED,format=NV12", "", "I915_Y_TILED"),
        ("format=C8", "", "palette"),
        ("fault=unknown-fourcc", "", "SIM0"),
        ("fault=small-buffer", "", "bytes"),
    ],
)
def test_how_it_can_be_read_or_why_not(options: str, read_by: str, why: str) -> None:
    """A surface that cannot be read is a fact with a reason, not a failure of info."""
    plane = here_json("info", f"sim:128x64,{options}")["display"]["planes"]["primary"]
    assert plane["read_by"] == read_by
    assert why in plane["not_readable_because"]
    text = here("info", f"sim:128x64,{options}")
    assert text.exit_code == 0
    assert (f"readable through its {read_by}" if read_by else "not readable: ") in text.stdout


def test_what_a_backend_finds_has_lines_of_its_own() -> None:
    """Cause and evidence, and below them what to do, however long the cause is."""
    result = here("info", "sim:64x64,fault=all-black+hotspot-unknown,blank=on")
    lines = result.stdout.splitlines()
    found = [place for place, line in enumerate(lines) if line.startswith("finding  ")]
    assert [lines[place].split()[1] for place in found] == [
        "simulated-all-black:",
        "simulated-hotspot-unknown:",
        "simulated-blank:",
    ]
    assert lines[found[2]] == ("finding  simulated-blank: the locator asks for frames without a picture: blank=on")
    assert lines[found[2] + 1] == "         what to do: leave blank= out of the locator"
    for line in lines:
        assert line[8] == " "
        assert line[9] != " "


def test_nothing_displayed_is_a_fact() -> None:
    """A dark screen is described as one, with status 0."""
    assert here_json("info", "sim:64x64,blank=on")["display"]["planes"] == {"primary": None, "cursor": None}
    assert "nothing displayed" in here("info", "sim:64x64,blank=on").stdout


def test_a_plane_that_fails_is_a_fact() -> None:
    """The rest of the description comes all the same, with the error in its place."""
    display = here_json("info", "sim:64x64,fault=eio")["display"]
    error = display["planes"]["primary"]["error"]
    assert list(error) == ERROR
    assert error["cause"] == "driver-error"
    assert error["errno"] == 5
    text = here("info", "sim:64x64,fault=eio").stdout
    assert "[driver-error]" in text
    assert "EIO" in text


def test_a_real_drivers_device_is_described(kernel: FakeKernel) -> None:
    """Parent, type and region of an mdev as sysfs and its driver spell them."""
    device = kernel.add(Mdpy("vga"))
    display = here_json("info", device.name)["display"]
    assert (display["name"], display["mdev_type"], display["parent"]) == (device.name, "mdpy-vga", "mdpy")
    assert display["planes"]["primary"]["region_index"] == 16
    assert display["planes"]["cursor"] is None
    assert display["edid"] is None
    text = here("info", device.name).stdout
    assert "region 16" in text
    assert "mdpy, driver mdpy" in text


@pytest.mark.parametrize("spelling", ["{uuid}", "{upper}", "mdev_{under}", "mdev_{under}_0000_00_02_0"])
def test_locators_are_those_of_sysfs_and_libvirt(kernel: FakeKernel, spelling: str) -> None:
    """A UUID in any case, and libvirt's old and new names of it."""
    device = kernel.add(Mdpy("vga"))
    name = spelling.format(uuid=device.name, upper=device.name.upper(), under=device.name.replace("-", "_"))
    assert here_json("info", name)["display"]["name"] == device.name


def test_an_edid_is_described(kernel: FakeKernel) -> None:
    """Sizes, limits, link, whether it is valid, and its bytes."""
    device = kernel.add(Mbochs())
    device.set_mode(64, 64)
    blob = bytes.fromhex("00ffffffffffff00") + bytes(119)
    blob += bytes([-sum(blob) % 256])
    device.set_edid(blob)
    edid: dict[str, Any] = here_json("info", device.name)["display"]["edid"]
    assert list(edid) == EDID
    assert edid["valid"] is True
    assert bytes.fromhex(edid["hex"]) == blob
    assert "128 of 1024 bytes, valid" in here("info", device.name).stdout


def test_dmabuf_devices_say_what_to_do(kernel: FakeKernel) -> None:
    """GVT-g without its GPU: no CPU maps its buffers, no GPU is there, and the description says what can be done."""
    device = kernel.add(Gvt(needs_vm=False))
    device.show(128, 64, modifier=0x0100_0000_0000_0002)
    device.show_cursor(3, 4, hot=(1, 2))
    display = here_json("info", device.name)["display"]
    assert display["planes"]["primary"]["modifier"] == "I915_Y_TILED"
    assert display["planes"]["cursor"]["x_hot"] == 1
    assert display["planes"]["primary"]["dmabuf_id"] is not None
    why = display["planes"]["primary"]["not_readable_because"]
    assert "exported by i915 failed: ENODEV" in why
    assert "import the dma-buf on the same Intel GPU" in why
    assert "at 3,4, hotspot 1,2" in here("info", device.name).stdout


def test_a_backend_can_be_chosen() -> None:
    """--backend considers that one alone."""
    assert here_json("info", "sim:64x64", "--backend", "simulated")["display"]["backend"]["others"] == {}
    error = here_json("info", "sim:64x64", "--backend", "region_cap", status=1)["error"]
    assert error["cause"] == "not-a-display"


def test_words_of_drivers_and_backends_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """Names, reasons, findings, locators and errors are written out, on both outputs."""
    install(tmp_path)
    env = environment(PYTHONPATH=str(tmp_path), ACME_NAME="\x1b[31mred\r\n\x9b")
    for locator, status in (("acme:", 0), ("acme:!", 0), ("acme:\x1b[2J?", 2)):
        result = run("info", locator, env=env)
        assert result.returncode == status
        text = (result.stdout + result.stderr).decode()
        assert not set(text) & set("\x1b\r\x9b")
        assert "\\x1b[31mred\\r\\n\\x9b" in text
    assert run_json("info", "acme:", env=env)["display"]["name"] == "\x1b[31mred\r\n\x9b"


def test_a_file_that_is_only_read_is_said_to_be_one(tmp_path: Path) -> None:
    """A region that its owner could truncate is not mapped, and read all the same."""
    with installed(tmp_path) as acme, (tmp_path / "region").open("w+b") as file:
        file.truncate(4096)
        acme.behaviour["query_region"] = lambda *_: Mappable(fd=file.fileno(), offset=0, size=4096)
        assert here_json("info", "acme:")["display"]["planes"]["primary"]["read_by"] == "read"
        assert "readable as a file, which cannot be mapped" in here("info", "acme:").stdout


def test_causes_of_backends_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """The ids of findings and errors are a backend's words too."""
    with installed(tmp_path) as acme:
        acme.behaviour["diagnose"] = lambda _: [Finding(cause="\x1b[2Jx", evidence="lamp", remedy="\x9bwait")]
        text = here("info", "acme:")
        assert text.exit_code == 0
        assert "finding  \\x1b[2Jx: lamp\n         what to do: \\x9bwait\n" in text.stdout
        acme.behaviour["get_surface_info"] = DriverError("no", cause="\x1b[31mred")
        assert "[\\x1b[31mred]" in here("info", "acme:").stdout
        acme.behaviour["open_locator"] = DriverError("no", cause="\x1b[31mred")
        failed = here("info", "acme:")
        assert failed.exit_code == 1
        assert failed.stderr == "mdevdisplay: acme:: no [\\x1b[31mred]\n  more: mdevdisplay doctor acme:\n"
