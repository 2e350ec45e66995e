"""Command lines of VMMs: real ones, and any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.host.vmm import Vm, parse_command_line, parse_qemu

REAL: list[dict[str, Any]] = json.loads((Path(__file__).parent / "command_lines/real.json").read_text())
UUID = "44cc0626-3c4c-4d3a-9f5e-0123456789ab"
# what a process can have as a word: any bytes but NUL, as os.fsdecode makes them text
WORDS = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


def name_of(*words: str) -> str:
    found = parse_command_line(["qemu-system-x86_64", *words])
    assert found is not None
    return found.vm.name


def devices_of(*words: str) -> list[str]:
    found = parse_command_line(["qemu-system-x86_64", *words])
    assert found is not None
    return list(found.devices)


@pytest.mark.parametrize("line", REAL, ids=lambda line: str(line["what"]))
def test_a_real_command_line_is_understood(line: dict[str, Any]) -> None:
    """Name, UUID, aliases and devices of every kind that was found; each says where it is from."""
    found = parse_command_line(line["words"])
    assert found is not None
    vm = found.vm
    assert line["source"]
    assert line["expected"] == {
        "kind": vm.kind,
        "name": vm.name,
        "uuid": vm.uuid,
        "aliases": list(vm.aliases),
        "devices": list(found.devices),
    }


def test_every_kind_has_a_real_line() -> None:
    """The fixture has them all."""
    assert {line["expected"]["kind"] for line in REAL} == {"qemu", "cloud-hypervisor", "crosvm"}
    assert all(
        any(word in line["what"] for line in REAL) for word in ("libvirt", "KubeVirt", "Proxmox", "Nova", "plain")
    )


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-name", "guest=win10,debug-threads=on"], "win10"),
        (["-name", "win10,debug-threads=on"], "win10"),
        (["-name", "debug-threads=on,guest=win10"], "win10"),
        (["-name", "win10"], "win10"),
        (["--name", "win10"], "win10"),
        (["-name", "win10,process=qemu-win10"], "win10"),
        (["-name", "guest=a,,b,debug-threads=on"], "a,b"),
        (["-name", "a,,b=c"], "a,b=c"),
        (["-name", "guest=a=b"], "a=b"),
        (["-name", "guest=,,"], ","),
        (["-name", "one", "-name", "two"], "two"),
        (["-name", "one", "-name", "debug-threads=on"], "one"),
        (["-name", "guest=Größe \U0001f5a5 1"], "Größe \U0001f5a5 1"),
        (["-name", ""], ""),
        (["-name"], ""),
        (["-append", "-name", "-name", "real"], "real"),
        (["-append", "root=/dev/vda -name evil"], ""),
        (["name", "no option"], ""),
    ],
)
def test_a_name_is_read_as_qemu_reads_it(words: list[str], name: str) -> None:
    """util/qemu-option.c: an implied key for the first element, commas doubled, the last one counts."""
    assert name_of(*words) == name


@pytest.mark.parametrize(
    "program",
    [
        "qemu-system-x86_64",
        "/usr/bin/qemu-system-aarch64",
        "/usr/libexec/qemu-kvm",
        "/usr/bin/kvm",
        "kvm-spice",
        "qemu",
        ".qemu-system-x86_64-wrapped",
        "./qemu-system-x86_64-9.2",
    ],
)
def test_qemus_many_names(program: str) -> None:
    """Distributions, Proxmox, RHEL, NixOS."""
    found = parse_command_line([program, "-name", "a"])
    assert found is not None
    assert (found.vm.kind, found.vm.name) == ("qemu", "a")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["bash", "-c", "qemu-system-x86_64 -name a"],
        ["sudo", "qemu-system-x86_64"],
        ["qemu-img", "convert"],
        ["qemu-nbd"],
        ["qemu-ga"],
        ["kvm-ok"],
        ["crosvm", "stop", "/run/a.sock"],
        ["python3", "-m", "mdevdisplay"],
        ["\udcff\udcfe"],
    ],
)
def test_others_are_no_vmms(argv: list[str]) -> None:
    """Tools of the same families, wrappers, and this program."""
    assert parse_command_line(argv) is None


@pytest.mark.parametrize(
    ("device", "names"),
    [
        (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}", [UUID]),
        (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}/", [UUID]),
        (f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID.upper()}", [UUID]),
        (f"driver=vfio-pci-nohotplug,id=a,sysfsdev=/sys/devices/x/{UUID},ramfb=on", [UUID]),
        (f'{{"driver":"vfio-pci-nohotplug","sysfsdev":"/sys/bus/mdev/devices/{UUID}","ramfb":true}}', [UUID]),
        ("vfio-pci,host=1:2.3", ["0000:01:02.3"]),
        ("vfio-pci,host=10000:e1:00.0", ["10000:e1:00.0"]),
        ('{"driver":"vfio-pci","host":"0000:41:00.4"}', ["0000:41:00.4"]),
        ("vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:41:00.4", ["0000:41:00.4"]),
        ("vfio-pci,fd=23,iommufd=iommufd0", []),
        (f"vfio-ap,sysfsdev=/sys/bus/mdev/devices/{UUID}", []),
        ("vfio-pci,host=zz", []),
        ("vfio-pci,sysfsdev=/sys/bus/mdev/devices/not-one", []),
        ("vfio-pci", []),
        ("virtio-vga,host=01:00.0", []),
        ("{", []),
        ('{"driver":', []),
        ('["vfio-pci"]', []),
        ('{"driver":["vfio-pci"],"host":7}', []),
        ("{" * 5000, []),
        ('{"a":' * 5000, []),
        ("[" * 100_000, []),
    ],
)
def test_devices_are_those_that_are_passed_through(device: str, names: list[str]) -> None:
    """Plain and JSON, by path and by address; what is no PCI device of VFIO's, or no sense at all, names nothing."""
    assert devices_of("-device", device) == names


def test_a_device_named_twice_is_one() -> None:
    """In order, each once."""
    words = ["-device", "vfio-pci,host=02:00.0", "-device", "vfio-pci,host=01:00.0", "-device", "vfio-pci,host=02:00.0"]
    assert devices_of(*words) == ["0000:02:00.0", "0000:01:00.0"]


def test_libvirts_cloud_hypervisor_has_the_name_in_its_socket() -> None:
    """As in libvirt's src/ch/ch_monitor.c: /run/libvirt/ch/NAME-socket; others' sockets are aliases."""
    line = ["cloud-hypervisor", "--api-socket", "/run/libvirt/ch/win10-socket", "--platform", f"uuid={UUID}"]
    found = parse_command_line(line)
    assert found is not None
    assert (found.vm.name, found.vm.uuid) == ("win10", UUID)
    plain = parse_command_line(["cloud-hypervisor", "--api-socket=path=/tmp/guest.sock"])
    assert plain is not None
    assert plain.vm.matches("guest")
    assert plain.vm.matches("/tmp/guest.sock")


def test_a_vm_answers_to_what_it_is_called() -> None:
    """Name and aliases letter for letter, the UUID in any case, nothing else."""
    vm = Vm(name="win10", uuid=UUID, kind="qemu", aliases=("101",))
    assert all(vm.matches(text) for text in ("win10", "101", UUID, UUID.upper()))
    assert not any(vm.matches(text) for text in ("", "Win10", "win1", "10", UUID[:-1]))
    assert not Vm().matches("")


@given(argv=st.lists(WORDS, max_size=12))
def test_any_words_are_a_command_line(argv: list[str]) -> None:
    """Never an exception."""
    parse_command_line(argv)
    parse_qemu(argv)


OPTIONS = st.sampled_from(
    ["-name", "--name", "-id", "-uuid", "-smbios", "-device", "--device", "--vfio", "--api-socket", "--platform", "-s"]
)
VALUES = st.one_of(
    WORDS,
    st.text('{}[]",:=guestdrivervfio-pci0123', max_size=60),
    st.sampled_from(["guest=", "driver=vfio-pci,host=", "vfio-pci,sysfsdev=", "type=1,uuid=", "path="]).flatmap(
        lambda start: WORDS.map(lambda rest: start + rest)
    ),
)


@given(
    program=st.sampled_from(["qemu-kvm", "cloud-hypervisor", "crosvm"]),
    pairs=st.lists(st.tuples(OPTIONS, VALUES), max_size=10),
)
def test_any_options_of_a_vmm_are_understood_or_left(program: str, pairs: list[tuple[str, str]]) -> None:
    """A VMM with whatever options is one still; what its devices are called is a UUID or an address."""
    found = parse_command_line([program, "run", *(word for pair in pairs for word in pair)])
    assert found is not None
    assert found.vm.kind == {"qemu-kvm": "qemu"}.get(program, program)
    assert len(set(found.devices)) == len(found.devices)
    assert all(set(name) <= set("0123456789abcdef-:.") for name in found.devices)
    assert "" not in found.vm.aliases


@given(
    name=WORDS.filter(bool),
    form=st.sampled_from(["guest={},debug-threads=on", "{},debug-threads=on", "{}", "process=x,guest={}", "guest={}"]),
)
def test_any_name_comes_back(name: str, form: str) -> None:
    """Whatever is written as QEMU wants it, with commas doubled; a bare name with = before its first comma is none."""
    bare = form.startswith("{}")
    text = form.format(name.replace(",", ",,"))
    if not (bare and "=" in name.partition(",")[0]):
        assert name_of("-S", "-name", text, "-m", "4G") == name


def test_thousands_of_words_are_read_in_no_time() -> None:
    """Forty devices among them are found; nothing grows with the square of the length."""
    words = ["-device", "virtio-net-pci,netdev=a" + ",x=y" * 50] * 5000
    for number in range(40):
        words += ["-device", f"vfio-pci,host=00:{number % 32:02x}.{number // 32}"]
    assert len(devices_of(*words)) == 40
    assert name_of("-name", "," * 1_000_001) == "," * 500_000
