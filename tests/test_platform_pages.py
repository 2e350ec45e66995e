"""docs/{libvirt,proxmox,openstack,kubevirt}.md: every command says whether it was run, and ours are right."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs
import click
import pytest

from mdevdisplay.cli import cli
from mdevdisplay.host import HostRoot
from mdevdisplay.host.libvirt import read_domains
from mdevdisplay.host.locate import host_name
from mdevdisplay.host.vmm import parse_command_line

DOCS = Path(__file__).parent.parent / "docs"
SAMPLES = Path(__file__).parent / "host/command_lines/real.json"
NO_COMMANDS = ("xml", "yaml", "dockerfile")
MARKS = {"sh run": "# run", "sh not-run": "# not run"}


@attrs.frozen(kw_only=True)
class Platform:
    """What a page's VM is: a real command line of that platform, with the page's names in it.

    Attributes:
        page: the page's name.
        sample: how the command line's description begins, in tests/host/command_lines/real.json.
        names: what is replaced in it.
        devices: mediated devices that the page's VM has and the command line has not.
        domain: the fields that libvirt's run-time state adds, if it is the host's.
    """

    page: str
    sample: str
    names: dict[str, str] = attrs.Factory(dict)
    devices: tuple[str, ...] = ()
    domain: str = ""

    @property
    def text(self) -> str:
        return (DOCS / self.page).read_text()

    @property
    def words(self) -> list[str]:
        """The command line."""
        samples = [entry for entry in json.loads(SAMPLES.read_text()) if entry["what"].startswith(self.sample)]
        (entry,) = samples
        words: list[str] = entry["words"]
        for old, new in self.names.items():
            assert any(old in word for word in words)
            words = [word.replace(old, new) for word in words]
        for device in self.devices:
            words += ["-device", f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{device}"]
        return words


PLATFORMS = [
    Platform(
        page="libvirt.md",
        sample="libvirt 7 on RHEL 7",
        names={
            "xxx": "win10",
            "daf2c139-4991-4079-9b8a-b4c98fc675e0": "8e6f0b1c-4f0c-4f6c-9a55-3f1f6c1b2a10",
            "4bca2ed2-bf47-4a06-af38-103c5c22d1c6": "44cc0626-7e37-4b6c-a5b0-1e2ae6b9ea3e",
        },
        domain="<title>Reception desk</title>",
    ),
    Platform(
        page="proxmox.md",
        sample="Proxmox 5",
        names={"101": "100", "Win10-Video": "win10-pve"},
        devices=("00000000-0000-0000-0000-000000000100", "00000001-0000-0000-0000-000000000100"),
    ),
    Platform(
        page="openstack.md",
        sample="Nova on RHEL",
        names={
            "instance-00000028": "instance-0000001a",
            "48888226-7b6b-415c-bcf7-b278ba0bca62": "5294f726-33d5-472a-bef1-9e19bb41626d",
        },
        devices=("44cc0626-7e37-4b6c-a5b0-1e2ae6b9ea3e",),
        domain="<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>"
        "<nova:name>reception</nova:name></nova:instance></metadata>",
    ),
    Platform(
        page="kubevirt.md",
        sample="KubeVirt's virt-launcher with a vGPU",
        names={"ubuntu-22-gpu": "win10"},
    ),
]

each_page = pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.page)


# --- reading a page ---


def blocks(text: str) -> list[tuple[str, str]]:
    """Every fenced block: its info string and what is in it."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def of_kind(text: str, kind: str) -> list[str]:
    return [body for info, body in blocks(text) if info == kind]


def prose(text: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```[^\n]*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every line in a block of commands; lines that a backslash joins are one."""
    for info, body in blocks(text):
        if info in MARKS:
            for line in body.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def our_commands(text: str) -> Iterator[list[str]]:
    """What follows ``mdevdisplay`` in every command, without redirections; kubectl's namespace is none."""
    for words in command_lines(text):
        for place, word in enumerate(words):
            if word == "mdevdisplay" and words[place - 1] != "-n":
                yield [word for word in words[place + 1 :] if not word.startswith(">")]
                break
    for inline in re.findall(r"`mdevdisplay ([^`]+)`", prose(text)):
        yield shlex.split(inline)


def parsed(words: list[str]) -> click.Context:
    """Read a command's words as mdevdisplay would, without running it; wrong ones are a `click.UsageError`."""
    outer = click.Context(cli, info_name="mdevdisplay")
    command = cli.get_command(outer, words[0])
    if command is None:
        raise click.UsageError(f"no such command: {words[0]}")
    return command.make_context(words[0], words[1:], parent=outer)


def locators(text: str) -> set[str]:
    """Every locator in commands, and in the first column of the table of locators."""
    (table,) = re.findall(r"^\| locator \| is \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows: list[str] = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(rows) == table.count("\n")
    given = [parsed(words).params.get("locator") for words in our_commands(text)]
    return {*rows, *(locator for locator in given if locator is not None)}


def slug(heading: str) -> str:
    """A heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# --- the YAML that the pages keep to: block mappings and lists, [flow, lists], plain scalars ---


class NotOurYaml(ValueError):
    """It is no YAML, or more of it than these pages use."""


def read_yaml(text: str) -> object:
    lines = [(len(line) - len(line.lstrip(" ")), line.strip()) for line in text.splitlines() if line.strip()]
    if "\t" in text:
        raise NotOurYaml("a tab")
    value, rest = _node(lines, lines[0][0])
    if rest:
        raise NotOurYaml(rest[0][1])
    return value


Lines = list[tuple[int, str]]


def _node(lines: Lines, indent: int) -> tuple[object, Lines]:
    return _list(lines, indent) if lines[0][1].startswith("- ") else _mapping(lines, indent)


def _list(lines: Lines, indent: int) -> tuple[object, Lines]:
    items = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        item, lines = _node([(indent + 2, lines[0][1][2:]), *lines[1:]], indent + 2)
        items.append(item)
    return items, lines


def _mapping(lines: Lines, indent: int) -> tuple[object, Lines]:
    found: dict[str, object] = {}
    while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
        match = re.fullmatch(r"([\w./-]+):(?: (\S.*))?", lines[0][1])
        if match is None or match[1] in found:
            raise NotOurYaml(lines[0][1])
        lines = lines[1:]
        if match[2] is not None:
            found[match[1]] = _scalar(match[2])
        elif lines and lines[0][0] > indent:
            found[match[1]], lines = _node(lines, lines[0][0])
        else:
            raise NotOurYaml(f"{match[1]} has no value")
    if lines and lines[0][0] > indent:
        raise NotOurYaml(lines[0][1])
    return found, lines


def _scalar(text: str) -> object:
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(item.strip()) for item in text[1:-1].split(",")]
    if not re.fullmatch(r"[\w./-]+", text):
        raise NotOurYaml(text)
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


# --- the tests ---


@each_page
def test_every_block_of_commands_says_whether_it_was_run(platform: Platform) -> None:
    """In its info string for machines and in its first line for people; every other block is no command."""
    found = blocks(platform.text)
    assert {info for info, _ in found} & MARKS.keys()
    assert {info for info, _ in found} <= {*MARKS, *NO_COMMANDS}
    for info, body in found:
        if info in MARKS:
            assert re.match(rf"{MARKS[info]}\b", body), body


@each_page
def test_the_marks_are_explained_at_the_top(platform: Platform) -> None:
    """The first paragraph says what both marks mean, and where those that were run have been."""
    first = platform.text.split("\n\n")[1]
    assert all(f"`{mark}`" in first for mark in MARKS.values())
    assert "lab/README.md" in first


@each_page
def test_no_command_stands_outside_of_a_marked_block(platform: Platform) -> None:
    """Markdown's other blocks, by indentation, could not be marked."""
    assert not re.search(r"^(    |\t)", prose(platform.text), re.MULTILINE)


@each_page
def test_our_commands_exist_with_these_options(platform: Platform) -> None:
    """Each command of mdevdisplay's is read by mdevdisplay itself; doctor is among them."""
    commands = list(our_commands(platform.text))
    for words in commands:
        assert parsed(words).info_name == words[0]
    assert {"doctor", "list", "screenshot"} <= {words[0] for words in commands}


@pytest.mark.parametrize("words", ["docter vm:a", "doctor vm:a --bundel x", "doctor vm:a b", "screenshot vm:a --wait"])
def test_a_command_that_does_not_exist_would_be_found(words: str) -> None:
    """The test above can fail."""
    with pytest.raises(click.UsageError):
        parsed(words.split())


@each_page
def test_every_locator_names_the_pages_vm_or_its_device(platform: Platform, tmp_path: Path) -> None:
    """What is read of that platform's command line, and of libvirt's state, answers to each locator of the page."""
    command = parse_command_line(platform.words)
    assert command is not None
    if platform.domain:
        folder = tmp_path / "run/libvirt/qemu"
        folder.mkdir(parents=True)
        named = f"<name>{command.vm.name}</name><uuid>{command.vm.uuid}</uuid>{platform.domain}"
        (folder / "a.xml").write_text(f"<domstatus pid='42'><domain>{named}<devices/></domain></domstatus>")
    domain = read_domains(HostRoot(tmp_path), {42}).get(42)
    found = locators(platform.text)
    assert len(found) >= 4
    for locator in found:
        if locator.startswith("vm:"):
            text = locator.removeprefix("vm:")
            assert command.vm.matches(text) or (domain is not None and text in domain.others), locator
        else:
            assert host_name(locator) in command.devices, locator


@each_page
def test_xml_is_well_formed(platform: Platform) -> None:
    """Every piece of XML is one element, complete."""
    for body in of_kind(platform.text, "xml"):
        ET.fromstring(body)


@pytest.mark.parametrize("page", ["libvirt.md", "openstack.md"])
def test_the_pages_have_xml(page: str) -> None:
    """The example has display and ramfb for libvirt, which Nova does not write."""
    (body,) = of_kind((DOCS / page).read_text(), "xml")
    (device,) = ET.fromstring(f"<x>{body}</x>").iter("hostdev")
    expected = "on" if page == "libvirt.md" else None
    assert (device.get("display"), device.get("ramfb")) == (expected, expected)


def test_yaml_is_what_the_text_says_of_it() -> None:
    """The VM has a display with ramfb; the reader has the host's processes, and the least rights are five."""
    machine, readers, least = (read_yaml(body) for body in of_kind((DOCS / "kubevirt.md").read_text(), "yaml"))
    gpu = {
        "name": "vgpu",
        "deviceName": "nvidia.com/GRID_T4-2Q",
        "virtualGPUOptions": {"display": {"enabled": True, "ramFB": {"enabled": True}}},
    }
    assert at(machine, "spec", "template", "spec", "domain", "devices", "gpus") == [gpu]
    pod = at(readers, "spec", "template", "spec")
    assert at(pod, "hostPID") is True
    assert at(pod, "containers", 0, "securityContext") == {"privileged": True}
    assert at(least, "securityContext", "capabilities") == {
        "drop": ["ALL"],
        "add": ["SYS_PTRACE", "DAC_READ_SEARCH", "SETUID", "SETGID", "SETPCAP"],
    }


def at(value: object, *path: str | int) -> object:
    """What lies at a path in maps and lists."""
    for step in path:
        if isinstance(step, int):
            assert isinstance(value, list)
            value = value[step]
        else:
            assert isinstance(value, dict)
            value = value[step]
    return value


@pytest.mark.parametrize(
    "text", ["a: 1\n   b: 2", "a:\n  b: 1\n c: 2", "a: 1\na: 2", "a:\n\tb: 1", "a:", "a b", "a: [b"]
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    """The reader above does not take everything."""
    with pytest.raises(NotOurYaml):
        read_yaml(text)


@each_page
def test_links_to_pages_lead_to_a_heading(platform: Platform) -> None:
    """Every link to a file of ours leads there, and one with an anchor to a heading of that page."""
    links = re.findall(r"\]\(([^):#]+)(?:#([^)]+))?\)", platform.text)
    assert len(links) > 5
    for page, anchor in links:
        assert (DOCS / page).is_file(), page
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}#{anchor}"
