"""How QEMU reads its command line: options, comma lists and JSON objects, and the VFIO device that one names.

Pure parsing of another process's words: any bytes, any length, never an exception. Words are text as `os.fsdecode`
makes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "VFIO_DRIVERS",
    "base_name",
    "is_qemu",
    "json_members",
    "json_object",
    "option_pairs",
    "pci_address",
    "qemu_options",
    "sysfs_name",
    "vfio_name",
]

VFIO_DRIVERS = ("vfio-pci", "vfio-pci-nohotplug")
"""The VFIO devices that may be displays; vfio-ap, -ccw and -platform devices are none."""

_QEMU = re.compile(r"\.?(qemu-system-[\w.-]+|qemu-kvm[\w.-]*|kvm(-spice)?|qemu|qemu-x86)")
"""QEMU's names: its own, RHEL's, Proxmox' and Debian's, and those of the wrappers that NixOS makes of them."""

_PCI = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_KEY_END = re.compile("[=,]")
_LONGEST_JSON = 1 << 16


def is_qemu(program: str) -> bool:
    """Return whether a program's name, without its folder, is one of QEMU's."""
    return _QEMU.fullmatch(program.removesuffix("-wrapped")) is not None


def base_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rpartition("/")[2]


def qemu_options(
    argv: Sequence[str], valued: Collection[str], flags: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield the options of interest with their values; QEMU takes one dash or two, and the value as its own word.

    The guest kernel's command line is anybody's text, and skipped.

    Args:
        argv: the command line, the program first.
        valued: names of options with a value, without dashes.
        flags: names of options without one; "" is yielded as theirs.
    """
    words = iter(argv[1:])
    for word in words:
        option = word[2:] if word.startswith("--") else word[1:] if word.startswith("-") else ""
        if option in valued or option == "append":
            value = next(words, None)
            if value is not None and option in valued:
                yield option, value
        elif option in flags:
            yield option, ""


def option_pairs(text: str, implied: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of QEMU's comma lists, as util/qemu-option.c reads them.

    A comma in a value is doubled. A first element without ``=`` is the value of the implied key.
    """
    place, first = 0, True
    while place < len(text):
        found = _KEY_END.search(text, place)
        stop = found.start() if found else len(text)
        if text[stop : stop + 1] == "=":
            key = text[place:stop]
            value, place = _value(text, stop + 1)
            yield key, value
        elif first and implied:
            value, place = _value(text, place)
            yield implied, value
        else:  # a flag
            yield text[place:stop], "on"
            place = stop + 1
        first = False


def _value(text: str, place: int) -> tuple[str, int]:
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


def json_members(text: str) -> dict[str, Any]:
    """Return the members of a JSON object; nothing for what is none, or is too long to be a device."""
    import json

    if len(text) > _LONGEST_JSON:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def json_object(text: str) -> dict[str, str]:
    """Return the text members of a JSON object; nothing for what is none, or is too long to be a device."""
    return {key: value for key, value in json_members(text).items() if isinstance(value, str)}


def vfio_name(device: Mapping[str, str]) -> str:
    """Return which device a ``-device`` passes through, as sysfs spells it; "" where its options do not say."""
    path, address = device.get("sysfsdev"), device.get("host")
    return sysfs_name(path) if path else pci_address(address) if address else ""


def sysfs_name(path: str) -> str:
    """Return the device that a path in sysfs names: its last part, if that is a UUID or a PCI address."""
    name = base_name(path)
    return name.lower() if _UUID.fullmatch(name) or _PCI.fullmatch(name) else ""


def pci_address(text: str) -> str:
    """Return a PCI address as sysfs spells it; QEMU takes ``1:2.3`` for ``0000:01:02.3``."""
    found = _PCI.fullmatch(text)
    if found is None:
        return ""
    domain, bus, slot, function = found.groups(default="0")
    return f"{int(domain, 16):04x}:{int(bus, 16):02x}:{int(slot, 16):02x}.{function}"
