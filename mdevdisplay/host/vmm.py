"""What a VMM's command line says: which VM it runs, and which host devices the VM was given.

Pure parsing. A command line is another process's word: any bytes, any length, never an exception. Words are text as
`os.fsdecode` makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import attrs

from mdevdisplay.host.qemu_options import (
    VFIO_DRIVERS,
    base_name,
    is_qemu,
    json_object,
    option_pairs,
    qemu_options,
    sysfs_name,
    vfio_name,
)

__all__ = ["Vm", "VmmCommand", "parse_command_line", "parse_qemu"]

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_OPTIONS = ("name", "id", "uuid", "smbios", "device")  # QEMU's that name a VM and its devices; -id is Proxmox'


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
    program = base_name(argv[0])
    if is_qemu(program):
        return parse_qemu(argv)
    if program.startswith("cloud-hypervisor"):
        return _parse_cloud_hypervisor(argv)
    if program == "crosvm" and "run" in argv[1:]:
        return _parse_crosvm(argv)
    return None


# --- QEMU ---


def parse_qemu(argv: Sequence[str]) -> VmmCommand:
    """Return what QEMU's command line says, whatever the program is called."""
    name = number = uuid = smbios_uuid = ""
    kubevirt = False
    devices: list[str] = []
    for option, value in qemu_options(argv, _OPTIONS):
        if option == "name":
            name = dict(option_pairs(value, "guest")).get("guest", name)
        elif option == "id":  # Proxmox' own
            number = value
        elif option == "uuid":
            uuid = value
        elif option == "smbios":
            table = dict(option_pairs(value, ""))
            if table.get("type") == "1":  # Proxmox tells the guest its UUID this way alone
                smbios_uuid = table.get("uuid", smbios_uuid)
                kubevirt = kubevirt or table.get("manufacturer") == "KubeVirt"
        elif option == "device":
            devices += _qemu_device(value)
    aliases = [number]
    if kubevirt:
        aliases.append(name.partition("_")[2])  # NAMESPACE_NAME, neither of which may have an underscore
    if not name:
        aliases.append(base_name(argv[0]) if argv else "")
    vm = Vm(name=name, uuid=_uuid(uuid) or _uuid(smbios_uuid), kind="qemu", aliases=_distinct(aliases, name))
    return VmmCommand(vm=vm, devices=_distinct(devices))


def _qemu_device(value: str) -> list[str]:
    options = json_object(value) if value.startswith("{") else dict(option_pairs(value, "driver"))
    name = vfio_name(options) if options.get("driver") in VFIO_DRIVERS else ""
    return [name] if name else []


# --- cloud-hypervisor ---


def _parse_cloud_hypervisor(argv: Sequence[str]) -> VmmCommand:
    """Return what cloud-hypervisor's command line says; devices added over its API are not seen."""
    name = uuid = socket = ""
    devices: list[str] = []
    for option, value in _long_options(argv, several=("device",)):
        table = _plain_pairs(value, "path")
        if option == "device":
            devices.append(sysfs_name(table.get("path", "")))
        elif option == "platform":
            uuid = table.get("uuid", uuid)
        elif option == "api-socket":
            socket = table.get("path", "")
    path = PurePosixPath(socket)
    if path.parent.name == "ch" and path.name.endswith("-socket"):  # libvirt's: /run/libvirt/ch/NAME-socket
        name = path.name.removesuffix("-socket")
    aliases = [socket, path.stem, "" if name else base_name(argv[0])]
    vm = Vm(name=name, uuid=_uuid(uuid), kind="cloud-hypervisor", aliases=_distinct(aliases, name))
    return VmmCommand(vm=vm, devices=_distinct(devices))


# --- crosvm ---


def _parse_crosvm(argv: Sequence[str]) -> VmmCommand:
    name = socket = ""
    devices: list[str] = []
    for option, value in _long_options(argv, short={"-s": "socket"}):
        if option == "vfio":
            devices.append(sysfs_name(_plain_pairs(value, "path").get("path", "")))
        elif option == "name":
            name = value
        elif option == "socket":
            socket = _plain_pairs(value, "path").get("path", "")
    aliases = [socket, PurePosixPath(socket).stem, "" if name else base_name(argv[0])]
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


def _uuid(text: str) -> str:
    """Return a UUID in lower case, or "" for what is none."""
    return text.lower() if _UUID.fullmatch(text) else ""


def _distinct(names: Sequence[str], *without: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name and name not in without))
