"""What a VMM's command line says: which VM it runs, and which host devices the VM was given.

Pure parsing. A command line is another process's word: any bytes, any length, never an exception. Words are text as
`os.fsdecode` makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import attrs

__all__ = ["Vm", "VmmCommand", "parse_command_line", "parse_qemu"]

_QEMU = re.compile(r"\.?(qemu-system-[\w.-]+|qemu-kvm[\w.-]*|kvm(-spice)?|qemu|qemu-x86)")
"""QEMU's names: its own, RHEL's, Proxmox' and Debian's, and those of the wrappers that NixOS makes of them."""

_PCI = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_DISPLAY_DRIVERS = ("vfio-pci", "vfio-pci-nohotplug")  # vfio-ap, -ccw and -platform devices are none
_LONGEST_JSON = 1 << 16


@attrs.frozen(kw_only=True)
class Vm:
    """A virtual machine, as its VMM's command line and libvirt name it.

    Attributes:
        name: its name, or "" where nobody gave it one.
        uuid: its UUID in lower case, or "".
        kind: its VMM: ``qemu``, ``cloud-hypervisor``, ``crosvm``, or "" for a process that is no VMM we know.
        aliases: what else it is called: Proxmox' number, the name in OpenStack, the command where it has no name.
    """

    name: str = ""
    uuid: str = ""
    kind: str = ""
    aliases: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """Return whether a text is its name, an alias or its UUID, letter for letter."""
        return bool(text) and (text in (self.name, *self.aliases) or text.lower() == self.uuid)


@attrs.frozen(kw_only=True)
class VmmCommand:
    """What the command line of a VMM says.

    Attributes:
        vm: the virtual machine.
        devices: the UUIDs and PCI addresses of VFIO devices that it names, as sysfs spells them. What was plugged in or
            out later, or came from a file (``-readconfig``), is not seen.
    """

    vm: Vm
    devices: tuple[str, ...] = ()


def parse_command_line(argv: Sequence[str]) -> VmmCommand | None:
    """Return what a command line says, or None where it is no VMM's that we know."""
    if not argv:
        return None
    program = _base(argv[0])
    if _is_qemu(program):
        return parse_qemu(argv)
    if program.startswith("cloud-hypervisor"):
        return _parse_cloud_hypervisor(argv)
    if program == "crosvm" and "run" in argv[1:]:
        return _parse_crosvm(argv)
    return None


def _is_qemu(program: str) -> bool:
    return _QEMU.fullmatch(program.removesuffix("-wrapped")) is not None


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


# --- QEMU ---


def parse_qemu(argv: Sequence[str]) -> VmmCommand:
    """Return what QEMU's command line says, whatever the program is called."""
    name = number = uuid = smbios_uuid = ""
    kubevirt = False
    devices: list[str] = []
    for option, value in _qemu_options(argv):
        if option == "name":
            name = dict(_qemu_pairs(value, "guest")).get("guest", name)
        elif option == "id":  # Proxmox' own
            number = value
        elif option == "uuid":
            uuid = value
        elif option == "smbios":
            table = dict(_qemu_pairs(value, ""))
            if table.get("type") == "1":  # Proxmox tells the guest its UUID this way alone
                smbios_uuid = table.get("uuid", smbios_uuid)
                kubevirt = kubevirt or table.get("manufacturer") == "KubeVirt"
        elif option == "device":
            devices += _qemu_device(value)
    aliases = [number]
    if kubevirt:
        aliases.append(name.partition("_")[2])  # NAMESPACE_NAME, neither of which may have an underscore
    if not name:
        aliases.append(_base(argv[0]) if argv else "")
    vm = Vm(name=name, uuid=_uuid(uuid) or _uuid(smbios_uuid), kind="qemu", aliases=_distinct(aliases, name))
    return VmmCommand(vm=vm, devices=_distinct(devices))


def _qemu_options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options that matter here with their values; QEMU takes one dash or two, and the value as its own word.

    The guest kernel's command line is anybody's text, and skipped.
    """
    words = iter(argv[1:])
    for word in words:
        option = word[2:] if word.startswith("--") else word[1:] if word.startswith("-") else ""
        if option in ("name", "id", "uuid", "smbios", "device", "append"):
            value = next(words, None)
            if value is not None and option != "append":
                yield option, value


def _qemu_pairs(text: str, implied: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of QEMU's comma lists, as util/qemu-option.c reads them.

    A comma in a value is doubled. A first element without ``=`` is the value of the implied key.
    """
    place, first = 0, True
    while place < len(text):
        stop = _first_of(text, "=,", place)
        if text[stop : stop + 1] == "=":
            key = text[place:stop]
            value, place = _qemu_value(text, stop + 1)
            yield key, value
        elif first and implied:
            value, place = _qemu_value(text, place)
            yield implied, value
        else:  # a flag
            yield text[place:stop], "on"
            place = stop + 1
        first = False


def _qemu_value(text: str, place: int) -> tuple[str, int]:
    """Return the value that begins at a place, with doubled commas made single, and where the next element begins."""
    parts: list[str] = []
    while True:
        stop = text.find(",", place)
        if stop < 0:
            return "".join([*parts, text[place:]]), len(text)
        parts.append(text[place:stop])
        if text[stop + 1 : stop + 2] != ",":
            return "".join(parts), stop + 1
        parts.append(",")
        place = stop + 2


def _first_of(text: str, characters: str, place: int) -> int:
    found = [stop for character in characters if (stop := text.find(character, place)) >= 0]
    return min(found, default=len(text))


def _qemu_device(value: str) -> list[str]:
    options = _json_object(value) if value.startswith("{") else dict(_qemu_pairs(value, "driver"))
    if options.get("driver") not in _DISPLAY_DRIVERS:
        return []
    path, address = options.get("sysfsdev"), options.get("host")
    name = _sysfs_name(path) if path else _pci_address(address) if address else ""
    return [name] if name else []


def _json_object(text: str) -> dict[str, str]:
    """Return the text members of a JSON object; nothing for what is none, or is too long to be a device."""
    import json

    if len(text) > _LONGEST_JSON:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


# --- cloud-hypervisor ---


def _parse_cloud_hypervisor(argv: Sequence[str]) -> VmmCommand:
    """Return what cloud-hypervisor's command line says; devices added over its API are not seen."""
    name = uuid = socket = ""
    devices: list[str] = []
    for option, value in _long_options(argv, several=("device",)):
        table = _plain_pairs(value, "path")
        if option == "device":
            devices.append(_sysfs_name(table.get("path", "")))
        elif option == "platform":
            uuid = table.get("uuid", uuid)
        elif option == "api-socket":
            socket = table.get("path", "")
    path = PurePosixPath(socket)
    if path.parent.name == "ch" and path.name.endswith("-socket"):  # libvirt's: /run/libvirt/ch/NAME-socket
        name = path.name.removesuffix("-socket")
    aliases = [socket, path.stem, "" if name else _base(argv[0])]
    vm = Vm(name=name, uuid=_uuid(uuid), kind="cloud-hypervisor", aliases=_distinct(aliases, name))
    return VmmCommand(vm=vm, devices=_distinct(devices))


# --- crosvm ---


def _parse_crosvm(argv: Sequence[str]) -> VmmCommand:
    name = socket = ""
    devices: list[str] = []
    for option, value in _long_options(argv, short={"-s": "socket"}):
        if option == "vfio":
            devices.append(_sysfs_name(_plain_pairs(value, "path").get("path", "")))
        elif option == "name":
            name = value
        elif option == "socket":
            socket = _plain_pairs(value, "path").get("path", "")
    aliases = [socket, PurePosixPath(socket).stem, "" if name else _base(argv[0])]
    vm = Vm(name=name, kind="crosvm", aliases=_distinct(aliases, name))
    return VmmCommand(vm=vm, devices=_distinct(devices))


# --- what these two share ---


def _long_options(
    argv: Sequence[str], *, several: Sequence[str] = (), short: dict[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield options and values of ``--name value`` and ``--name=value``; those in ``several`` take all that follow."""
    option = ""
    for word in argv[1:]:
        if word.startswith("--"):
            option, equals, value = word[2:].partition("=")
            if equals:
                yield option, value
                option = option if option in several else ""
        elif short and word in short:
            option = short[word]
        elif option:
            yield option, word
            option = option if option in several else ""


def _plain_pairs(text: str, implied: str) -> dict[str, str]:
    """Return the keys and values of a comma list without escapes."""
    pairs = {}
    for place, element in enumerate(text.split(",")):
        key, equals, value = element.partition("=")
        if equals:
            pairs[key] = value
        elif place == 0:
            pairs[implied] = key
    return pairs


def _sysfs_name(path: str) -> str:
    """Return the device that a path in sysfs names: its last part, if that is a UUID or a PCI address."""
    name = _base(path)
    return name.lower() if _UUID.fullmatch(name) or _PCI.fullmatch(name) else ""


def _pci_address(text: str) -> str:
    """Return a PCI address as sysfs spells it; QEMU takes ``1:2.3`` for ``0000:01:02.3``."""
    found = _PCI.fullmatch(text)
    if found is None:
        return ""
    domain, bus, slot, function = found.groups(default="0")
    return f"{int(domain, 16):04x}:{int(bus, 16):02x}:{int(slot, 16):02x}.{function}"


def _uuid(text: str) -> str:
    """Return a UUID in lower case, or "" for what is none."""
    return text.lower() if _UUID.fullmatch(text) else ""


def _distinct(names: Sequence[str], *without: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name and name not in without))
