"""What QEMU's command line says about where its console shows what: vGPUs, other video cards, and who looks at them.

Pure parsing. A command line is another process's word: any bytes, any length, never an exception. Words are text as
`os.fsdecode` makes it. What a configuration file says (``-readconfig``), and what changed later by the monitor, is not
seen.

Sources: QEMU's system/vl.c (options, the default card, the default viewer), hw/vfio/pci.c (a vGPU's properties),
system/qdev-monitor.c (aliases, ``-global``), chardev/char.c (``-qmp unix:``), util/qemu-option.c (comma lists).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import attrs

from mdevdisplay.host.processes import Process
from mdevdisplay.host.qemu_options import (
    VFIO_DRIVERS,
    base_name,
    is_qemu,
    json_members,
    option_pairs,
    qemu_options,
    vfio_name,
)

__all__ = ["Console", "VgpuSetting", "Viewer", "console_of", "parse_console"]

_VALUED = (
    *("device", "set", "global", "vga", "machine", "M", "display", "vnc", "spice"),
    *("qmp", "qmp-pretty", "mon", "chardev", "add-fd"),
)
_FLAGS = ("nodefaults", "nographic", "sdl", "curses", "S")

_NO_DEFAULT_CARD = frozenset(
    [
        *("VGA", "isa-vga", "cirrus-vga", "isa-cirrus-vga", "vmware-svga", "qxl-vga", "virtio-vga", "ati-vga"),
        *("vhost-user-vga", "virtio-vga-gl", "virtio-vga-rutabaga"),
    ]
)
"""Each of these, as a ``-device`` or in a ``-global``, keeps QEMU from adding a card (default_list in system/vl.c)."""

_CARDS = _NO_DEFAULT_CARD | {
    *("secondary-vga", "bochs-display", "qxl", "sm501", "apple-gfx-pci", "apple-gfx-mmio"),
    *("virtio-gpu-pci", "virtio-gpu-device", "virtio-gpu-ccw", "virtio-gpu-gl-pci", "virtio-gpu-gl-device"),
    *("virtio-gpu-rutabaga-pci", "virtio-gpu-rutabaga-device", "vhost-user-gpu-pci", "vhost-user-gpu"),
}
_ALIASES = {
    "virtio-gpu": "virtio-gpu-pci",
    "virtio-gpu-gl": "virtio-gpu-gl-pci",
    "virtio-gpu-rutabaga": "virtio-gpu-rutabaga-pci",
}
_VGA = {
    "std": "VGA",
    "cirrus": "cirrus-vga",
    "vmware": "vmware-svga",
    "virtio": "virtio-vga",
    "qxl": "qxl-vga",
    "tcx": "sun-tcx",
    "cg3": "cgthree",
    "xenfb": "xenfb",
    "none": "",
}
"""The devices that the values of ``-vga`` stand for; QEMU compares beginnings (select_vgahw in system/vl.c)."""

_X86 = ("x86_64", "i386", "amd64", "x86")
_BARE_MACHINES = ("virt", "microvm", "none", "isapc", "xenpv", "x-remote", "nitro", "s390", "sbsa")
"""Beginnings of the names of machines without a place for the card of ``-vga``; isapc's are of no use to a vGPU."""

_TRUE = ("on", "yes", "true", "y")
_FALSE = ("off", "no", "false", "n")
_DISPLAY = ("on", "off", "auto")


@attrs.frozen(kw_only=True)
class VgpuSetting:
    """How QEMU was told to show one VFIO device.

    Attributes:
        name: the device's UUID or PCI address as sysfs spells it; "" where it was given by a descriptor.
        display: ``on``: QEMU makes a console of it, or does not start; ``auto``: a console if the device can;
            ``off``, QEMU's default (``DEFINE_PROP_ON_OFF_AUTO("display", VFIOPCIDevice, display, ON_OFF_AUTO_OFF)`` in
            hw/vfio/pci.c): no console shows it.
        ramfb: whether the firmware draws into a ramfb until the guest's driver starts, which needs ``display=on``.
        driver: QEMU's name of the device: ``vfio-pci``, or ``vfio-pci-nohotplug`` as ramfb needs it.
        index: its place among the VM's VFIO devices, from 0.
    """

    name: str
    display: str = "off"
    ramfb: bool = False
    driver: str = "vfio-pci"
    index: int = 0


@attrs.frozen(kw_only=True)
class Viewer:
    """A way to look at QEMU's console.

    Attributes:
        kind: ``vnc``, ``spice``, ``gtk``, ``sdl``, ``cocoa``, ``curses``, ``dbus``, ``spice-app``, ``egl-headless``
            (draws for VNC or SPICE) or another word of ``-display``; ``none`` where QEMU was told to have none;
            ``default`` where nothing was asked for: a window if QEMU was built with one, else VNC on localhost.
        gl: whether it draws by OpenGL, which dma-bufs need.
        rendernode: the render node that it was told to use, or "".
    """

    kind: str
    gl: bool = False
    rendernode: str = ""


@attrs.frozen(kw_only=True)
class Console:
    """What a QEMU command line says about its console.

    Attributes:
        vgpus: its VFIO PCI devices, in order; a display or not is not known here.
        cards: its other video devices by QEMU's names, in the order in which it makes them.
        ramfb: whether it has a ramfb of its own (``-device ramfb``).
        viewers: the ways to look at its console; never empty.
        starts_paused: ``-S``: it waits for a ``cont``, which libvirt sends as a matter of course.
        qmp: paths of the unix sockets where its QMP monitors listen, as QEMU sees them.
        qmp_waits: those of these at which QEMU waits for a first client before it makes the VM.
        monitored: a QMP monitor has a descriptor that it was given: somebody, libvirt for one, holds the other end.
        given_files: descriptors were passed with ``-add-fd``: QEMU closes those not in use when its last monitor client
            leaves (monitor_fdset_cleanup in monitor/fds.c).
    """

    vgpus: tuple[VgpuSetting, ...] = ()
    cards: tuple[str, ...] = ()
    ramfb: bool = False
    viewers: tuple[Viewer, ...] = (Viewer(kind="default"),)
    starts_paused: bool = False
    qmp: tuple[str, ...] = ()
    qmp_waits: tuple[str, ...] = ()
    monitored: bool = False
    given_files: bool = False


def console_of(process: Process) -> Console | None:
    """Return what a process's command line says about QEMU's console, or None where it is no QEMU."""
    words = process.command_line()
    # a wrapper may have started it under any first word
    return parse_console(words) or parse_console((process.program(), *words[1:]))


def parse_console(argv: Sequence[str]) -> Console | None:
    """Return what a command line says about QEMU's console, or None where the program is no QEMU."""
    program = base_name(argv[0]) if argv else ""
    if not is_qemu(program):
        return None
    found = list(qemu_options(argv, _VALUED, _FLAGS))
    devices = _devices(found)
    settings = _globals(found)
    names = [_ALIASES.get(driver, driver) for driver in (device.get("driver", "") for device in devices)]
    cards = [name for name in names if name in _CARDS]
    card = _own_card(program, found, {*cards, *(driver for driver, _, _ in settings)})
    listening = list(_listening(found))
    flags = {option for option, _ in found}
    return Console(
        vgpus=tuple(_vgpus(devices, settings)),
        cards=(card, *cards) if card else tuple(cards),
        ramfb="ramfb" in names,
        viewers=_viewers(found),
        starts_paused="S" in flags,
        qmp=tuple(dict.fromkeys(path for path, _ in listening)),
        qmp_waits=tuple(dict.fromkeys(path for path, waits in listening if waits)),
        monitored=any("fd" in chardev for chardev in _monitors(found)),
        given_files="add-fd" in flags,
    )


def _members(text: str, implied: str) -> dict[str, str]:
    """Return the keys and values of an option in either spelling; booleans of JSON become on and off."""
    if not text.startswith("{"):
        return dict(option_pairs(text, implied))
    return _texts(json_members(text))


def _texts(members: Mapping[str, Any]) -> dict[str, str]:
    words = {key: "on" if value else "off" for key, value in members.items() if isinstance(value, bool)}
    return {**words, **{key: value for key, value in members.items() if isinstance(value, str)}}


# --- devices ---


def _devices(found: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the options of every ``-device``, with what a later ``-set device.ID.KEY=VALUE`` made of them."""
    devices: list[dict[str, str]] = []
    by_id: dict[str, dict[str, str]] = {}
    for option, value in found:
        if option == "device":
            device = _members(value, "driver")
            devices.append(device)
            if "id" in device and not value.startswith("{"):  # QEMU does not know -set for the JSON ones
                by_id.setdefault(device["id"], device)
        elif option == "set":
            place, equals, text = value.partition("=")
            group, _, rest = place.partition(".")
            identifier, _, key = rest.partition(".")
            if equals and group == "device" and identifier in by_id:
                by_id[identifier][key] = text
    return devices


def _globals(found: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return driver, property and value of every ``-global``: DRIVER.KEY=VALUE, or all three as a comma list."""
    settings = []
    for option, value in found:
        if option != "global":
            continue
        place, equals, text = value.partition("=")
        driver, dot, key = place.partition(".")
        if not (equals and dot):
            pairs = dict(option_pairs(value, ""))
            driver, key, text = (pairs.get(name, "") for name in ("driver", "property", "value"))
        settings.append((driver, key, text))
    return settings


def _vgpus(devices: Sequence[Mapping[str, str]], settings: Sequence[tuple[str, str, str]]) -> Iterator[VgpuSetting]:
    """Yield the VFIO devices; a ``-global`` for vfio-pci also counts for vfio-pci-nohotplug, which is derived of it."""
    common = {
        driver: {key: text for of, key, text in settings if of in ("vfio-pci", driver)} for driver in VFIO_DRIVERS
    }
    for index, device in enumerate(device for device in devices if device.get("driver") in VFIO_DRIVERS):
        driver = device["driver"]
        values = {**common[driver], **device}
        display = values.get("display", "")
        yield VgpuSetting(
            name=vfio_name(device),
            display=display if display in _DISPLAY else "off",
            ramfb=values.get("ramfb", "off") in _TRUE,
            driver=driver,
            index=index,
        )


def _own_card(program: str, found: Sequence[tuple[str, str]], drivers: set[str]) -> str:
    """Return the card that QEMU adds without a ``-device``, or "": the one of ``-vga``, or else its machine's own.

    PCs of before QEMU 2.2 have a Cirrus of their own, which is told as VGA like those of the others.
    """
    asked = [value for option, value in found if option == "vga"]
    machine = _machine(found)
    if machine.startswith(_BARE_MACHINES):
        return ""
    if asked:
        return next((device for word, device in _VGA.items() if asked[-1].startswith(word)), "")
    if any(option == "nodefaults" for option, _ in found) or drivers & _NO_DEFAULT_CARD:
        return ""
    return "VGA" if _adds_vga(program, machine) else ""


def _machine(found: Sequence[tuple[str, str]]) -> str:
    """Return the machine's name, or "" for the default one."""
    machine = ""
    for option, value in found:
        if option in ("machine", "M"):
            machine = dict(option_pairs(value, "type")).get("type", machine)
    return machine


def _adds_vga(program: str, machine: str) -> bool:
    """Return whether a machine that is not bare has a VGA card of its own: PCs have, and IBM's pseries."""
    architecture = program.removesuffix("-wrapped").partition("qemu-system-")[2]
    if not architecture or architecture.startswith(_X86):  # kvm, qemu-kvm: of this host
        return True
    return machine.startswith("pseries") or (architecture.startswith("ppc64") and not machine)


# --- viewers ---


def _viewers(found: Sequence[tuple[str, str]]) -> tuple[Viewer, ...]:
    """Return the last local display and every remote one; a remote one stands in for the default."""
    local = Viewer(kind="default")
    remote: list[Viewer] = []
    spice = vnc = False
    for option, value in found:
        if option == "display" and not value.startswith("vnc"):
            local = _local(_members(value, "type"))
        elif option in ("sdl", "curses"):  # until QEMU 6.2
            local = Viewer(kind=option)
        elif option == "nographic":
            local = Viewer(kind="none")
        elif option == "spice" and not spice:
            spice = True
            remote.append(_with_gl("spice", _members(value, "")))
        elif option in ("vnc", "display"):
            vnc = True
            address = value if option == "vnc" else value.removeprefix("vnc").removeprefix("=")
            if dict(option_pairs(address, "vnc")).get("vnc", "") != "none":  # that one listens nowhere
                remote.append(Viewer(kind="vnc"))
    if local.kind == "default" and (spice or vnc):
        local = Viewer(kind="none")
    shown = () if local.kind == "none" else (local,)
    return (*shown, *remote) or (Viewer(kind="none"),)


def _local(members: Mapping[str, str]) -> Viewer:
    kind = members.get("type", "")
    viewer = _with_gl(kind or "default", members)
    return attrs.evolve(viewer, gl=True) if kind == "egl-headless" else viewer


def _with_gl(kind: str, members: Mapping[str, str]) -> Viewer:
    gl = members.get("gl", "off")  # on, off, core or es
    return Viewer(kind=kind, gl=gl not in _FALSE, rendernode=members.get("rendernode", ""))


# --- QMP ---


def _listening(found: Sequence[tuple[str, str]]) -> Iterator[tuple[str, bool]]:
    """Yield the paths where QMP monitors listen, and whether QEMU waits there for a first client."""
    for chardev in _monitors(found):
        path = chardev.get("path", "")
        server = chardev.get("server", "off") in _TRUE
        if chardev.get("backend") == "socket" and path and server and chardev.get("abstract", "off") not in _TRUE:
            yield path, "nowait" not in chardev and chardev.get("wait", "on") not in _FALSE


def _monitors(found: Sequence[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Yield the character device of every QMP monitor."""
    chardevs = {}
    for option, value in found:
        if option == "chardev":
            chardev = _chardev(value)
            chardevs[chardev.get("id", "")] = chardev
    for option, value in found:
        if option in ("qmp", "qmp-pretty"):
            kind, _, rest = value.partition(":")
            if kind == "unix":
                yield {"backend": "socket", **dict(option_pairs(rest, "path"))}
            elif kind == "chardev":
                yield chardevs.get(rest, {})
        elif option == "mon":
            monitor = _members(value, "chardev")
            if monitor.get("mode") == "control":
                yield chardevs.get(monitor.get("chardev", ""), {})


def _chardev(value: str) -> dict[str, str]:
    """Return a character device's options, flat; QAPI's ChardevOptions nest them (qapi/char.json)."""
    if not value.startswith("{"):
        return dict(option_pairs(value, "backend"))
    members = json_members(value)
    backend = _object(members.get("backend"))
    data = _object(backend.get("data"))
    address = _object(data.get("addr"))
    where = _texts(_object(address.get("data")))
    if address.get("type") == "fd":
        where = {"fd": where.get("str", "")}
    kind = {"backend": backend["type"]} if isinstance(backend.get("type"), str) else {}
    return dict(chain.from_iterable(part.items() for part in (_texts(members), kind, _texts(data), where)))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
