"""The file for a bug report: what is in it, what is not, and how it comes to its place."""

from __future__ import annotations

import gzip
import io
import json
import os
import pwd
import re
import socket
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.helpers import here, here_json, run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mdevdisplay.diagnose import Ends, Found, Report, State, Step, bundle, diagnose
from mdevdisplay.diagnose.bundle import FOLDER, MOST, write_bundle
from mdevdisplay.diagnose.redaction import is_plain_name
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.host.root import HostRoot
from mdevdisplay.testing import FakeKernel, Mbochs, Mdpy, Nvidia

ALWAYS = ["README.txt", "report.json", "report.txt", "versions.json", "host.json", "device.json", "vmm.json"]
UUID = "c7a1e0de-5b3f-4f0e-9d55-0123456789ab"
PASSWORD = "hunter2secret"
NOWHERE = HostRoot(Path("/nowhere"))


def unpack(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle by name, after looking at what surrounds them."""
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        for member in members:
            assert member.isreg()
            assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (0o644, 0, 0, "", "")
            assert abs(member.mtime - time.time()) < 600
            tarfile.data_filter(member, "/nowhere")
        files = {member.name.removeprefix(f"{FOLDER}/"): _content(tar, member) for member in members}
    assert all(len(data) <= MOST for name, data in files.items() if not name.endswith(".png"))
    assert not any("/" in name for name in files)
    return files


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def text_of(files: dict[str, bytes]) -> str:
    """Return all that can be read in a bundle, JSON's escapes undone."""
    parts = []
    for name, data in files.items():
        if name.endswith(".json"):
            parts.append(json.dumps(json.loads(data), ensure_ascii=False))
        elif not name.endswith(".png"):
            parts.append(data.decode())
    return "\n".join(parts)


def made(path: Path, *reports: Report, **options: Any) -> dict[str, bytes]:
    """Write a bundle and return its files."""
    write_bundle(path, reports, **{"root": NOWHERE, **options})
    return unpack(path)


def report(*names: str, **changes: Any) -> Report:
    """Return a report of something that is not there."""
    facts: dict[str, Any] = {
        "locator": "",
        "verdict": "this host has nothing",
        "cause": "no-vgpu",
        "ends": Ends.BROKEN,
        "names": names,
        **changes,
    }
    return Report(**facts)


# --- what is in it ---


@pytest.mark.parametrize(
    ("locator", "status"),
    [
        ("sim:640x480", 0),
        ("sim:640x480,fault=all-black", 3),
        ("sim:640x480,fault=short-stride", 1),
        ("sim:640x480,fault=unknown-fourcc", 1),
        ("sim:640x480,fault=enotty", 1),
        ("sim:640x480,blank=on", 3),
        ("sim:no such option", 2),
        ("vm:nobody", 1),
        ("bare name", 2),
    ],
)
def test_the_command_writes_a_bundle_whatever_is_wrong(tmp_path: Path, locator: str, status: int) -> None:
    """Its exit status is that of the diagnosis, and its words are in the file too."""
    target = tmp_path / "bug.tar.gz"
    result = run("doctor", locator, "--bundle", target)
    assert (result.returncode, result.stderr) == (status, b"")
    files = unpack(target)
    assert list(files) == ALWAYS
    printed = result.stdout.decode().partition("\nwritten: ")[0]
    [reported] = json.loads(files["report.json"])["reports"]
    assert reported["exit_status"] == status
    if locator.startswith("sim:"):
        assert files["report.txt"].decode() == printed
        assert reported["locator"] == locator
    else:
        assert len(files["report.txt"].splitlines()) == len(printed.splitlines())
        assert locator.removeprefix("vm:") not in text_of(files)


def test_json_names_the_bundle(tmp_path: Path) -> None:
    """Beside the reports."""
    target = tmp_path / "bug.tar.gz"
    found = here_json("doctor", "sim:640x480", "--bundle", target)
    assert found["bundle"] == str(target)
    [listed] = json.loads(unpack(target)["report.json"])["reports"]
    assert [step["name"] for step in listed["steps"]] == [step["name"] for step in found["reports"][0]["steps"]]


def test_the_facts_of_info_are_in_it(tmp_path: Path) -> None:
    """Planes, format, modifier and stride of a display that could be opened."""
    files = made(tmp_path / "b.tgz", diagnose("sim:640x480,format=RG16,cursor=on"))
    [device] = json.loads(files["device.json"])["devices"]
    primary = device["display"]["planes"]["primary"]
    assert (primary["format"], primary["modifier"], primary["width"], primary["stride"]) == (
        "RG16",
        "LINEAR",
        640,
        1280,
    )
    assert device["display"]["planes"]["cursor"]["x"] is not None
    assert device["display"]["backend"]["name"] == "simulated"
    assert "region_cap" in {other["name"] for other in device["display"]["backend"]["others"]}


def test_versions_are_in_it(tmp_path: Path) -> None:
    """Of the program, what it stands on, and its backends, with those that could not be loaded."""
    versions = json.loads(made(tmp_path / "b.tgz", report())["versions.json"])
    assert re.fullmatch(r"3\.\d+\.\d+\S*", versions["python"]["version"])
    asked = {entry["name"]: entry["version"] for entry in versions["distributions"]}
    assert np.__version__ == asked["numpy"]
    assert {plugin["name"] for plugin in versions["plugins"]} >= {"simulated", "intel_gvt", "mbochs", "region_cap"}
    assert versions["hookspec_version"]
    assert versions["failures"] == []


def test_the_host_is_in_it_without_owners(kernel: FakeKernel, tmp_path: Path) -> None:
    """GPU modules and no others, security modules, groups, and modes of nodes."""
    kernel.add(Mdpy("vga"))
    root = kernel.path
    for name in ("vfio_pci", "kvmgt", "nvidia", "snd_hda_intel", "wireguard", "axfoo"):
        (root / "sys/module" / name).mkdir(parents=True)
    (root / "sys/module/nvidia/version").write_text("535.161.07\n")
    (root / "sys/kernel/security").mkdir(parents=True)
    (root / "sys/kernel/security/lsm").write_text("capability,yama,apparmor")
    (root / "proc/sys/kernel/yama").mkdir(parents=True)
    (root / "proc/sys/kernel/yama/ptrace_scope").write_text("1\n")
    (root / "proc/cmdline").write_text(
        "root=UUID=1234 intel_iommu=on i915.enable_gvt=1 luks.name=alices-laptop quiet\n"
    )
    host = json.loads(made(tmp_path / "b.tgz", report(), root=HostRoot(root))["host.json"])
    assert host["modules"] == [
        {"name": "kvmgt"},
        {"name": "nvidia", "version": "535.161.07"},
        {"name": "vfio_pci"},
    ]
    assert (host["lsm"], host["yama_ptrace_scope"], host["iommu_groups"]) == ("capability,yama,apparmor", "1", 1)
    assert host["kernel_parameters"] == ["intel_iommu=on", "i915.enable_gvt=1"]
    nodes = {node["name"]: node for node in host["nodes"]}
    assert nodes["dev/vfio/1"]["mode"].startswith("-rw")
    assert set(nodes["dev/vfio/1"]) == {"name", "mode", "owner", "group", "readable"}
    assert "missing" in nodes["dev/iommu"]


def test_a_vgpus_attributes_are_in_it(kernel: FakeKernel, tmp_path: Path) -> None:
    """Those of its type, its ids and NVIDIA's parameters, whatever bytes they have; none of them is too long."""
    driver = kernel.add(Nvidia())
    own = kernel.sysfs.device(driver)
    (own / "nvidia").mkdir(exist_ok=True)
    (own / "nvidia/vgpu_params").write_bytes(b"disable_vnc=1,\xff\0\x1b[31m" + b"x" * 100_000)
    found = diagnose(driver.name)
    [device] = json.loads(made(tmp_path / "b.tgz", found, root=HostRoot(kernel.path))["device.json"])["devices"]
    attributes = {entry["name"]: entry["value"] for entry in device["sysfs"]["attributes"]}
    assert attributes["nvidia/vgpu_params"].startswith("disable_vnc=1,")
    assert len(attributes["nvidia/vgpu_params"]) <= 4096
    assert {"vendor", "class"} <= set(attributes) or "mdev_type/device_api" in attributes
    assert device["sysfs"]["driver"] == driver.module


# --- names ---


def qemu(device: str) -> list[str]:
    """Return a command line with all that is nobody's business."""
    return [
        "/usr/bin/qemu-system-x86_64",
        *("-name", "guest=payroll-prod,debug-threads=on"),
        *("-uuid", UUID),
        *("-device", f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{device},display=off"),
        *("-device", "virtio-net-pci,netdev=n0,mac=52:54:00:ab:cd:ef"),
        *("-spice", f"port=5900,addr=10.9.8.7,password={PASSWORD},gl=on,rendernode=/dev/dri/renderD128"),
        *("-vnc", "10.9.8.7:1,password=on"),
        *("-qmp", "unix:/home/mallory/monitor.sock,server=on,wait=off"),
        *("-object", f"secret,id=s0,data={PASSWORD}"),
    ]


@pytest.mark.parametrize("with_names", [False, True])
def test_a_vm_without_and_with_names(kernel: FakeKernel, tmp_path: Path, *, with_names: bool) -> None:
    """What QEMU was told of displays is there; the rest of its command line is not, names or no names."""
    driver = kernel.add(Mdpy("vga"))
    vmm = kernel.vmm(driver, words=qemu(driver.name))
    other = kernel.add(Mdpy("xga"))
    kernel.vmm(other, name="somebody-else")
    target = tmp_path / "bug.tar.gz"
    options = ["--with-names"] if with_names else []
    result = here("doctor", "vm:payroll-prod", "--in-process", "--bundle", target, *options)
    assert result.exit_code == 3, result.output
    assert "payroll-prod" in result.output
    files = unpack(target)
    text = text_of(files)
    for gone in (PASSWORD, "52:54:00", "10.9.8.7", "netdev"):
        assert gone not in text
    for name in ("payroll-prod", driver.name, "mallory", "monitor.sock"):  # the socket is a step's evidence
        assert (name in text) is with_names
    [entry] = json.loads(files["vmm.json"])["vmms"]
    console = entry["console"]
    assert console["vgpus"][0]["display"] == "off"
    assert [viewer["kind"] for viewer in console["viewers"]] == ["spice", "vnc"]
    assert console["viewers"][0] == {"kind": "spice", "gl": True, "rendernode": "/dev/dri/renderD128"}
    [device] = json.loads(files["device.json"])["devices"]
    assert device["display"]["access"] == "borrowed"
    assert device["sysfs"]["type_name"] == driver.type_name
    if not with_names:
        assert entry["locator"] == device["locator"] == "vm:vm-1"
        assert device["display"]["name"] == device["sysfs"]["name"] == console["vgpus"][0]["name"]
    assert vmm.pid


def test_other_vms_in_a_hint_are_names_too(kernel: FakeKernel, tmp_path: Path) -> None:
    """An error that lists the VMs that there are tells of each."""
    kernel.vmm(kernel.add(Mdpy("vga")), name="somebody-else")
    target = tmp_path / "bug.tar.gz"
    result = here("doctor", "vm:nobody", "--in-process", "--bundle", target)
    assert "somebody-else" in result.output
    assert "somebody-else" not in text_of(unpack(target))


def test_the_host_and_its_user_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it, or ran sudo for it, and the machine by both its names; root is nobody's name."""
    entry = pwd.struct_passwd(("malloryx", "x", 1234, 1234, "Mallory Tester,,,", "/home/malloryx", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: entry)
    monkeypatch.setattr(socket, "gethostname", lambda: "secretbox.example.net")
    monkeypatch.setenv("SUDO_USER", "malloryx")
    evidence = "malloryx (Mallory Tester) on SecretBox, secretbox.example.net, as root: /home/malloryx/x"
    files = made(tmp_path / "b.tgz", report(steps=(Step(name="host", state=State.OK, evidence=(evidence,)),)))
    assert "user-1 (user-1) on host, host, as root: /home/user-1/path-1" in files["report.txt"].decode()
    assert not re.search("(?i)mallory|secretbox", text_of(files))


def test_an_edid_goes_without_its_serial_number(kernel: FakeKernel, tmp_path: Path) -> None:
    """Unless names are asked for."""
    driver = kernel.add(Mbochs())
    blob = bytearray(bytes.fromhex("00ffffffffffff00").ljust(128, b"\0"))
    blob[12:16] = b"SERI"
    blob[54:72] = b"\0\0\0\xff\0ALICES-SCREEN"
    blob[127] = -sum(blob) % 256
    driver.set_edid(bytes(blob))
    found = diagnose(driver.name)
    for with_names in (False, True):
        files = made(tmp_path / "b.tgz", found, root=HostRoot(kernel.path), with_names=with_names)
        edid = json.loads(files["device.json"])["devices"][0]["display"]["edid"]
        told = bytes.fromhex(edid["hex"])
        assert (edid["size"], edid["valid"], len(told)) == (128, True, 128)
        assert (b"ALICES" in told) is (b"SERI" in told) is with_names
        assert sum(told) % 256 == 0


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.text(min_size=3, max_size=20).filter(is_plain_name), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_no_name_of_a_report_survives_in_its_bundle(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], order: Any
) -> None:
    """In no file of it, as a word of its own, but where it is a word of ours."""
    names += [UUID, "0000:41:00.4"]
    words = [f"{before}{name}{after}" for name in names for before, after in (("vm:", "/1"), ("'", "'"), (" ", "…"))]
    words += [repr(name) for name in names]
    order.shuffle(words)
    found = Found(cause="device-busy", step="access", evidence=words[0], remedy=tuple(words), source=words[1])
    step = Step(name="access", state=State.BAD, evidence=tuple(words))
    full = report(*names, verdict=" and ".join(words), steps=(step,), findings=(found,), left_out=tuple(words))
    target = tmp_path_factory.mktemp("bundle") / "b.tgz"
    ours = text_of(made(target, report()))
    text = text_of(made(target, full))
    for name in names:
        word = rf"(?<!\w){re.escape(name)}(?!\w)"
        if not re.search(word, ours) and not re.fullmatch(
            r"(vm|device|uuid|ip|mac|user|serial|path)(-\d+)?|access", name
        ):
            assert not re.search(word, text)


# --- pixels ---


def test_pixels_are_in_it_if_asked_for(tmp_path: Path) -> None:
    """The picture with its cursor; without the option there is none, and the file says how to have it."""
    locator = "sim:320x200,cursor=on,fps=0"
    target = tmp_path / "b.tgz"
    assert here("doctor", locator, "--bundle", target).exit_code == 0
    files = unpack(target)
    assert "screen.png" not in files
    assert "--with-pixels puts it in" in files["README.txt"].decode()
    assert here("doctor", locator, "--bundle", target, "--with-pixels").exit_code == 0
    files = unpack(target)
    assert list(files) == [*ALWAYS, "screen.png"]
    with Image.open(io.BytesIO(files["screen.png"])) as picture:
        assert picture.size == (320, 200)
    assert "screen.png" in files["README.txt"].decode()


@pytest.mark.parametrize("locator", ["sim:320x200,blank=on", "sim:320x200,fault=unknown-fourcc", "vm:nobody"])
def test_a_picture_that_cannot_be_had_is_a_line_in_the_readme(tmp_path: Path, locator: str) -> None:
    """And no error."""
    files = made(tmp_path / "b.tgz", diagnose(locator), with_pixels=True)
    assert "screen.png" not in files
    readme = files["README.txt"].decode()
    assert re.search(r"(?m)^  screen.png, the picture of .*, is missing: .", readme)
    assert "nobody" not in readme


def test_a_driver_that_hung_is_not_asked_again(tmp_path: Path) -> None:
    """Or two of its queries would be under way, and each take as long."""
    found = diagnose("sim:320x200,fault=hang:3", timeout=0.3)
    assert "timed-out" in {each.cause for each in found.findings}
    files = made(tmp_path / "b.tgz", found)
    [device] = json.loads(files["device.json"])["devices"]
    assert device["display"] is None
    assert "not asked again" in device["left_out"]


def test_a_device_that_was_not_opened_stays_so(kernel: FakeKernel, tmp_path: Path) -> None:
    """What was left out of the diagnosis to be safe is left out here too."""
    driver = kernel.add(Mdpy("vga"))
    calls = len(kernel.calls)
    files = made(tmp_path / "b.tgz", report(locator=driver.name), root=HostRoot(kernel.path))
    assert len(kernel.calls) == calls
    [device] = json.loads(files["device.json"])["devices"]
    assert (device["display"], device["left_out"]) == (None, "the diagnosis did not open it")
    assert device["sysfs"]["driver"] == driver.module


# --- what comes from others ---


def test_nothing_in_it_steers_a_terminal(tmp_path: Path) -> None:
    """Text is escaped as on the terminal."""
    evil = "\x1b[2J\r\n\u202eevil\udcff\0"
    step = Step(name="host", state=State.OK, evidence=(evil,))
    files = made(tmp_path / "b.tgz", report(verdict=evil, steps=(step,), locator=f"vm:{evil}"), with_names=True)
    for name in ("report.txt", "README.txt"):
        assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]*", files[name].decode())
    assert json.loads(files["report.json"])["reports"][0]["verdict"] == evil


def test_files_are_bounded(tmp_path: Path) -> None:
    """What is too large is left out, and that is said; what fits stays and can be parsed."""
    found = Found(cause="device-busy", step="access", evidence="x" * 2000, remedy=())
    huge = report(locator="", findings=(found,) * 1000)
    step = Step(name="host", state=State.OK, evidence=("y" * 2000,) * 700)
    files = made(tmp_path / "b.tgz", report(verdict="the small one"), huge, report(steps=(step,)))
    listed = json.loads(files["report.json"])
    assert ([one["verdict"] for one in listed["reports"]], listed["left_out"]) == (["the small one"], 2)
    readme = files["README.txt"].decode()
    assert "report.json lacks 2 entries" in readme
    assert "report.txt is cut" in readme
    assert files["report.txt"].endswith(b"y\n")


def test_a_host_that_cannot_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the bundle is there all the same."""

    def fail(_: object) -> dict[str, Any]:
        raise RuntimeError("sysfs is on fire")

    monkeypatch.setattr(bundle, "host_facts", fail)
    files = made(tmp_path / "b.tgz", report())
    assert json.loads(files["host.json"])["error"] == "RuntimeError: sysfs is on fire"
    assert list(files) == ALWAYS


# --- how it comes to its place ---


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    """And replaces what was there, with nothing left beside it."""
    target = tmp_path / "b.tgz"
    target.write_text("older")
    target.chmod(0o666)
    made(target, report())
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["b.tgz"]


def test_its_wrapping_tells_no_name(tmp_path: Path) -> None:
    """A gzip header may have a file's name; this one has not, and tar has nobody's."""
    target = tmp_path / "payroll-prod.tar.gz"
    made(target, report())
    data = target.read_bytes()
    assert data[3] & 0x08 == 0
    assert b"payroll" not in data + gzip.decompress(data)


def link(path: Path) -> None:
    """Make a link to a file beside it."""
    (path.parent / "precious").write_text("precious")
    path.symlink_to("precious")


def dangling(path: Path) -> None:
    """Make a link to nothing."""
    path.symlink_to("new")


def socket_file(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as made_here:
        made_here.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [link, dangling, Path.mkdir, os.mkfifo, socket_file], ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, make: Any) -> None:
    """No link is followed, nothing is waited for, and nothing is left behind."""
    target = tmp_path / "b.tgz"
    make(target)
    before = {path.name: path.lstat().st_mode for path in tmp_path.iterdir()}
    with pytest.raises(MdevDisplayError, match="it is there and is") as error:
        write_bundle(target, [report()], root=NOWHERE)
    assert error.value.cause == "cannot-write"
    assert {path.name: path.lstat().st_mode for path in tmp_path.iterdir()} == before
    assert not (tmp_path / "precious").exists() or (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/b.tgz", "file/b.tgz", "b\0.tgz", "..", "x" * 300])
def test_what_cannot_be_written_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    """After the report, which is printed all the same."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MdevDisplayError) as error:
        write_bundle(tmp_path / name, [report()], root=NOWHERE)
    assert error.value.cause == "cannot-write"
    if "\0" not in name:
        result = run("doctor", "sim:320x200", "--bundle", tmp_path / name)
        assert result.returncode == 1
        assert b"[shown]" in result.stdout
        assert b"[cannot-write]" in result.stderr


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all."""
    target = tmp_path / "b.tgz"
    target.write_text("older")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(MdevDisplayError, match="No space left") as error:
        write_bundle(target, [report()], root=NOWHERE)
    assert (error.value.cause, error.value.errno) == ("cannot-write", 28)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tgz"]
    assert target.read_text() == "older"


@pytest.mark.parametrize("arguments", [("--with-names",), ("--with-pixels",), ("--bundle", "-")], ids=" ".join)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """The options are for a bundle, and a bundle is a file."""
    assert here("doctor", "sim:320x200", *arguments).exit_code == 2
    assert not Path("-").exists()


def test_a_name_that_is_empty_is_no_file() -> None:
    """It is not taken for none."""
    assert "[cannot-write]" in here("doctor", "sim:320x200", "--bundle", "").output
