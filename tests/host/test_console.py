"""What command lines say about QEMU's console: real ones, QEMU's own rules, and any other words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.host.console import Console, VgpuSetting, Viewer, parse_console

REAL: list[dict[str, Any]] = json.loads((Path(__file__).parent / "command_lines/real.json").read_text())
UUID = "44cc0626-3c4c-4d3a-9f5e-0123456789ab"
MDEV = f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{UUID}"
WORDS = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
DEFAULT = (Viewer(kind="default"),)
NONE = (Viewer(kind="none"),)
VNC = (Viewer(kind="vnc"),)


def parse(*words: str, program: str = "/usr/bin/qemu-system-x86_64") -> Console:
    found = parse_console([program, *words])
    assert found is not None
    return found


def cards(*words: str, program: str = "qemu-system-x86_64") -> list[str]:
    return list(parse(*words, program=program).cards)


def setting(*words: str) -> tuple[str, bool, str]:
    [vgpu] = parse(*words).vgpus
    return vgpu.display, vgpu.ramfb, vgpu.driver


# --- whole command lines ---


def real(what: str) -> Console | None:
    [line] = [line for line in REAL if what in line["what"]]
    return parse_console(line["words"])


@pytest.mark.parametrize("line", REAL, ids=lambda line: str(line["what"]))
def test_real_command_lines_are_qemus_or_none(line: dict[str, Any]) -> None:
    """The devices are those that vmm.py finds; a QEMU always has a viewer."""
    found = parse_console(line["words"])
    assert (found is not None) == (line["expected"]["kind"] == "qemu")
    if found is not None:
        assert [vgpu.name for vgpu in found.vgpus] == line["expected"]["devices"]
        assert found.viewers


def test_libvirt_with_a_vgpu_that_no_console_shows() -> None:
    """RHEL 7 with libvirt 7: display=off, and the monitor is libvirt's."""
    assert real("mediated device in the plain form") == Console(
        vgpus=(VgpuSetting(name="4bca2ed2-bf47-4a06-af38-103c5c22d1c6"),), viewers=DEFAULT, starts_paused=True
    )
    found = real("libvirt on SUSE")
    assert found is not None
    assert (found.monitored, found.starts_paused, found.cards, found.qmp) == (False, True, (), ())


def test_libvirts_json_form_shows_it() -> None:
    """An SR-IOV vGPU with display on, and QEMU's own card as the line says nothing else."""
    found = real("SR-IOV vGPU with display")
    assert found is not None
    assert found.vgpus == (VgpuSetting(name="0000:b1:00.4", display="on"),)


def test_proxmox_listens_for_qmp() -> None:
    """A socket of its own for every VM, a VNC server on another, no card besides the vGPU."""
    found = real("Proxmox 6")
    assert found == Console(
        vgpus=(VgpuSetting(name="00000000-0000-0000-0000-000000000100"),),
        viewers=VNC,
        qmp=("/var/run/qemu-server/100.qmp",),
    )


def test_the_gvt_g_script_shows_it_by_egl_headless() -> None:
    """With ramfb, and VNC to look at."""
    found = real("the driver named a second time")
    assert found == Console(
        vgpus=(
            VgpuSetting(
                name="a297db4a-f4c2-11e6-90f6-d3b88d6c9525", display="on", ramfb=True, driver="vfio-pci-nohotplug"
            ),
        ),
        viewers=(Viewer(kind="egl-headless", gl=True), Viewer(kind="vnc")),
    )


def test_openstacks_other_card() -> None:
    """Nova's default is a Cirrus besides whatever is passed through."""
    found = real("Nova on RHEL")
    assert found is not None
    assert found.cards == ("cirrus-vga",)


def test_plain_qemu_with_every_default() -> None:
    """A VGA, and a window or VNC."""
    assert parse() == Console(cards=("VGA",), viewers=DEFAULT)
    found = real("options with two dashes")
    assert found == Console(cards=("VGA",), viewers=VNC)


LIBVIRT_9 = [
    *("-name", "guest=win10,debug-threads=on", "-S", "-machine", "pc-q35-7.2,usb=off,dump-guest-core=off"),
    *("-no-user-config", "-nodefaults", "-chardev", "socket,id=charmonitor,fd=33,server=on,wait=off"),
    *("-mon", "chardev=charmonitor,id=monitor,mode=control", "-rtc", "base=utc", "-no-shutdown"),
    *("-device", '{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true}'),
    *("-spice", "port=0,disable-ticketing=on,image-compression=off,gl=on,rendernode=/dev/dri/by-path/a,,b-render"),
    *("-display", "egl-headless,rendernode=/dev/dri/renderD128"),
    *("-device", '{"driver":"qxl-vga","id":"video0","max_outputs":1,"ram_size":67108864,"bus":"pcie.0","addr":"0x1"}'),
    "-device",
    json.dumps(
        {
            "driver": "vfio-pci-nohotplug",
            "id": "hostdev0",
            "sysfsdev": f"/sys/bus/mdev/devices/{UUID}",
            "display": "on",
            "ramfb": True,
            "bus": "pci.4",
            "addr": "0x0",
        }
    ),
    *("-sandbox", "on,obsolete=deny", "-msg", "timestamp=on"),
]


def test_libvirt_of_today() -> None:
    """As src/qemu/qemu_command.c writes it: JSON devices, the monitor by a descriptor, SPICE and egl-headless."""
    assert parse(*LIBVIRT_9) == Console(
        vgpus=(VgpuSetting(name=UUID, display="on", ramfb=True, driver="vfio-pci-nohotplug"),),
        cards=("qxl-vga",),
        viewers=(
            Viewer(kind="egl-headless", gl=True, rendernode="/dev/dri/renderD128"),
            Viewer(kind="spice", gl=True, rendernode="/dev/dri/by-path/a,b-render"),
        ),
        starts_paused=True,
        monitored=True,
    )


def test_proxmox_8() -> None:
    """As qm showcmd writes it: a VGA besides, two monitors of which one is outgoing."""
    found = parse(
        *("-id", "104", "-name", "win10,debug-threads=on", "-no-shutdown", "-chardev"),
        "socket,id=qmp,path=/var/run/qemu-server/104.qmp,server=on,wait=off",
        *("-mon", "chardev=qmp,mode=control", "-chardev"),
        "socket,id=qmp-event,path=/var/run/qmeventd.sock,reconnect=5",
        *("-mon", "chardev=qmp-event,mode=control", "-daemonize", "-nodefaults"),
        *("-vnc", "unix:/var/run/qemu-server/104.vnc,password=on", "-device", "VGA,id=vga,bus=pcie.0,addr=0x1"),
        "-device",
        "vfio-pci,sysfsdev=/sys/bus/mdev/devices/00000000-0000-0000-0000-000000000104,id=hostpci0,bus=ich9-pcie-port-1",
        *("-machine", "type=q35+pve0"),
        program="/usr/bin/kvm",
    )
    assert found == Console(
        vgpus=(VgpuSetting(name="00000000-0000-0000-0000-000000000104"),),
        cards=("VGA",),
        viewers=VNC,
        qmp=("/var/run/qemu-server/104.qmp",),
    )


def test_kubevirt() -> None:
    """VNC on a socket in the pod; kubevirt/kubevirt#9593 has the form."""
    found = parse(
        *("-S", "-nodefaults", "-chardev", "socket,id=charmonitor,fd=20,server=on,wait=off"),
        *("-mon", "chardev=charmonitor,id=monitor,mode=control"),
        *("-vnc", "vnc=unix:/var/run/kubevirt-private/3a8f7b8c/virt-vnc,audiodev=audio1"),
        *("-device", "VGA,id=video0,vgamem_mb=16,bus=pcie.0,addr=0x1"),
        *("-device", f"{MDEV},id=ua-gpu-gpu1,display=on,ramfb=on"),
        program="/usr/libexec/qemu-kvm",
    )
    assert found == Console(
        vgpus=(VgpuSetting(name=UUID, display="on", ramfb=True),),
        cards=("VGA",),
        viewers=VNC,
        starts_paused=True,
        monitored=True,
    )


# --- programs ---


@pytest.mark.parametrize("argv", [[], [""], ["cloud-hypervisor"], ["bash", "-c", "qemu"], ["qemu-img"], ["\udcff"]])
def test_others_have_no_console(argv: list[str]) -> None:
    """Only QEMU's command line is read."""
    assert parse_console(argv) is None


# --- vGPUs ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-device", MDEV], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},display=off"], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},display=on"], ("on", False, "vfio-pci")),
        (["-device", f"{MDEV},display=auto"], ("auto", False, "vfio-pci")),
        (["-device", f"{MDEV},display=on,display=off"], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},display=nonsense"], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},display"], ("on", False, "vfio-pci")),
        (
            ["-device", f"{MDEV},driver=vfio-pci-nohotplug,display=on,ramfb=on"],
            ("on", True, "vfio-pci-nohotplug"),
        ),
        (["-device", f"{MDEV},ramfb=yes"], ("off", True, "vfio-pci")),
        (["-device", f"{MDEV},ramfb=off"], ("off", False, "vfio-pci")),
        (["-device", '{"driver":"vfio-pci","display":"on","ramfb":false}'], ("on", False, "vfio-pci")),
        (["-device", '{"driver":"vfio-pci","display":"auto","ramfb":"on"}'], ("auto", True, "vfio-pci")),
        (["-device", '{"driver":"vfio-pci","display":true,"ramfb":[1]}'], ("on", False, "vfio-pci")),
        (["-device", '{"driver":"vfio-pci","display":1}'], ("off", False, "vfio-pci")),
        # the wikis' way to have ramfb from libvirt
        (
            [
                *("-device", f"{MDEV},id=hostdev0,display=on", "-set", "device.hostdev0.ramfb=on"),
                *("-set", "device.hostdev0.driver=vfio-pci-nohotplug"),
            ],
            ("on", True, "vfio-pci-nohotplug"),
        ),
        (["-device", f"{MDEV},id=a", "-set", "device.b.display=on"], ("off", False, "vfio-pci")),
        (["-set", "device.a.display=on", "-device", f"{MDEV},id=a"], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},id=a", "-set", "drive.a.display=on"], ("off", False, "vfio-pci")),
        (["-device", f"{MDEV},id=a", "-set", "device.a"], ("off", False, "vfio-pci")),
        (
            ["-device", '{"driver":"vfio-pci","id":"a"}', "-set", "device.a.display=on"],
            ("off", False, "vfio-pci"),
        ),
        (["-device", MDEV, "-global", "vfio-pci.display=on"], ("on", False, "vfio-pci")),
        (
            ["-global", "vfio-pci.display=on", "-global", "vfio-pci.display=auto", "-device", MDEV],
            ("auto", False, "vfio-pci"),
        ),
        (["-global", "driver=vfio-pci,property=display,value=on", "-device", MDEV], ("on", False, "vfio-pci")),
        (["-global", "vfio-pci.display=on", "-device", f"{MDEV},display=off"], ("off", False, "vfio-pci")),
        (
            ["-global", "vfio-pci.display=on", "-device", "vfio-pci-nohotplug,host=01:00.0"],
            ("on", False, "vfio-pci-nohotplug"),
        ),
        (["-global", "vfio-pci-nohotplug.display=on", "-device", MDEV], ("off", False, "vfio-pci")),
        (["-global", "qxl-vga.display=on", "-global", "vfio-pci", "-device", MDEV], ("off", False, "vfio-pci")),
    ],
)
def test_a_vgpus_display_is_what_qemu_makes_of_it(words: list[str], expected: tuple[str, bool, str]) -> None:
    """Off is QEMU's default (hw/vfio/pci.c); the last word counts, -set is later, -global is for what says nothing."""
    assert setting(*words) == expected


def test_several_vgpus_keep_their_order() -> None:
    """Each with its own setting; one that came by a descriptor has no name."""
    found = parse(
        *("-device", "vfio-pci,host=01:00.0"),
        *("-device", f"{MDEV},display=on"),
        *("-device", "virtio-vga"),
        *("-device", "vfio-pci,fd=23,iommufd=iommufd0"),
        *("-device", "vfio-ap,sysfsdev=/x"),
    )
    assert [(vgpu.index, vgpu.name, vgpu.display) for vgpu in found.vgpus] == [
        (0, "0000:01:00.0", "off"),
        (1, UUID, "on"),
        (2, "", "off"),
    ]


# --- other cards ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [  # `info qtree` of QEMU 7.2 says the same of each but the last, which it refuses
        ("", ["VGA"]),
        ("-nodefaults", []),
        ("-nographic", ["VGA"]),
        ("-vga none", []),
        ("-vga std,retrace=dumb", ["VGA"]),
        ("-vga qxl", ["qxl-vga"]),
        ("-vga virtio", ["virtio-vga"]),
        ("-vga cirrus -vga std", ["VGA"]),
        ("-device bochs-display", ["VGA", "bochs-display"]),
        ("-device qxl-vga", ["qxl-vga"]),
        ("-device qxl", ["VGA", "qxl"]),
        ("-device virtio-gpu", ["VGA", "virtio-gpu-pci"]),
        ("-device virtio-vga -vga cirrus", ["cirrus-vga", "virtio-vga"]),
        ("-device secondary-vga", ["VGA", "secondary-vga"]),
        ("-device ati-vga", ["ati-vga"]),
        ("-nodefaults -vga cirrus", ["cirrus-vga"]),
        ("-global VGA.vgamem_mb=32", []),
        ("-global driver=VGA,property=vgamem_mb,value=32", []),
        ('-device {"driver":"VGA"}', ["VGA"]),
        ("-M q35", ["VGA"]),
        ("-M microvm", []),
        ("-M none", []),
        ("-M pc,graphics=off", ["VGA"]),
        ("-M x-remote", []),
        ("-machine q35 -machine graphics=off", ["VGA"]),
        ("-vga vmware", ["vmware-svga"]),
        ("-vga nonsense", []),
    ],
)
def test_the_cards_are_those_of_qemu(line: str, expected: list[str]) -> None:
    """Its own, unless -vga, -nodefaults or a VGA that was asked for says otherwise (system/vl.c, default_list)."""
    assert cards(*line.split()) == expected


@pytest.mark.parametrize(
    ("program", "line", "expected"),
    [
        ("kvm", "", ["VGA"]),
        ("qemu-kvm", "-machine pc-q35-rhel9.2.0", ["VGA"]),
        ("qemu-kvm", "-machine virt-rhel9.2.0", []),
        ("qemu-system-aarch64", "-M virt", []),
        ("qemu-system-aarch64", "-M virt -vga std", []),
        ("qemu-system-aarch64", "-M virt -device virtio-gpu-pci", ["virtio-gpu-pci"]),
        ("qemu-system-aarch64", "-M raspi3b", []),
        ("qemu-system-s390x", "-device virtio-gpu-ccw", ["virtio-gpu-ccw"]),
        ("qemu-system-ppc64", "", ["VGA"]),
        ("qemu-system-ppc64", "-M pseries-8.0", ["VGA"]),
        ("qemu-system-ppc64", "-M powernv9", []),
        (".qemu-system-x86_64-wrapped", "", ["VGA"]),
    ],
)
def test_other_machines_have_other_cards(program: str, line: str, expected: list[str]) -> None:
    """PCs and pseries have a card of their own."""
    assert cards(*line.split(), program=program) == expected


def test_a_ramfb_of_its_own_is_apart() -> None:
    """It is no card: it shows what the firmware or a driver of none other draws."""
    found = parse("-nodefaults", "-device", "ramfb")
    assert (found.cards, found.ramfb) == ((), True)
    assert not parse("-device", f"{MDEV},ramfb=on").ramfb


# --- viewers ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", DEFAULT),
        ("-nographic", NONE),
        ("-display none", NONE),
        ("-display gtk,gl=on", (Viewer(kind="gtk", gl=True),)),
        ("-display sdl,gl=es", (Viewer(kind="sdl", gl=True),)),
        ("-display sdl,gl=off", (Viewer(kind="sdl"),)),
        ("-display gtk -display none", NONE),
        ("-nographic -display gtk", (Viewer(kind="gtk"),)),
        ("-display gtk -nographic", NONE),
        ("-display cocoa", (Viewer(kind="cocoa"),)),
        ("-display curses", (Viewer(kind="curses"),)),
        ("-curses", (Viewer(kind="curses"),)),
        ("-sdl", (Viewer(kind="sdl"),)),
        ("-display egl-headless", (Viewer(kind="egl-headless", gl=True),)),
        (
            "-display egl-headless,rendernode=/dev/dri/renderD129 -vnc :1",
            (Viewer(kind="egl-headless", gl=True, rendernode="/dev/dri/renderD129"), *VNC),
        ),
        (
            '-display {"type":"egl-headless","rendernode":"/dev/dri/renderD129"}',
            (Viewer(kind="egl-headless", gl=True, rendernode="/dev/dri/renderD129"),),
        ),
        ('-display {"type":"gtk","gl":"on","full-screen":true}', (Viewer(kind="gtk", gl=True),)),
        ("-display dbus,p2p=yes,gl=on", (Viewer(kind="dbus", gl=True),)),
        ("-display spice-app", (Viewer(kind="spice-app"),)),
        ("-display default,gl=on", (Viewer(kind="default", gl=True),)),
        ("-display default -vnc :0", VNC),
        ("-display type=none", NONE),
        ("-vnc :0", VNC),
        ("-vnc :0 -vnc :1", VNC * 2),
        ("-display vnc=:0", VNC),
        ("-display vnc=:0 -display gtk", (Viewer(kind="gtk"), *VNC)),
        ("-vnc none", NONE),
        ("-vnc vnc=none,password=on", NONE),
        ("-display none -vnc :7", VNC),
        ("-spice port=5900", (Viewer(kind="spice"),)),
        (
            "-spice port=5900,gl=on,rendernode=/dev/dri/r -spice gl=off",
            (Viewer(kind="spice", gl=True, rendernode="/dev/dri/r"),),
        ),
        ("-vnc :0 -spice port=1", (*VNC, Viewer(kind="spice"))),
    ],
)
def test_the_viewers_are_those_of_qemu(line: str, expected: tuple[Viewer, ...]) -> None:
    """The last local one and every remote one; its default only where nothing else was asked for."""
    assert parse(*line.split()).viewers == expected


# --- QMP ---


@pytest.mark.parametrize(
    ("words", "qmp", "waits"),
    [
        (["-qmp", "unix:/run/q,server=on,wait=off"], ["/run/q"], []),
        (["-qmp", "unix:/run/q,server,nowait"], ["/run/q"], []),
        (["-qmp-pretty", "unix:/run/q,server=on,wait=off"], ["/run/q"], []),
        (["--qmp", "unix:/run/q,server=yes,wait=no"], ["/run/q"], []),
        (["-qmp", "unix:path=/run/q,server=on,wait=off"], ["/run/q"], []),
        (["-qmp", "unix:/run/a,,b,server=on,wait=off"], ["/run/a,b"], []),
        (["-qmp", "unix:/run/q,server=on"], ["/run/q"], ["/run/q"]),
        (["-qmp", "unix:/run/q,server=on,wait=on"], ["/run/q"], ["/run/q"]),
        (["-qmp", "unix:/run/q"], [], []),
        (["-qmp", "unix:/run/q,server=off"], [], []),
        (["-qmp", "unix:/run/q,server=on,wait=off,abstract=on"], [], []),
        (["-qmp", "tcp:localhost:4444,server=on,wait=off"], [], []),
        (["-qmp", "stdio"], [], []),
        (["-monitor", "unix:/run/q,server,nowait"], [], []),
        (
            ["-qmp", "unix:/run/a,server,nowait", "-qmp", "unix:/run/b,server,nowait", "-qmp", "unix:/run/a,server"],
            ["/run/a", "/run/b"],
            ["/run/a"],
        ),
        (
            ["-chardev", "socket,id=m,path=/run/q,server=on,wait=off", "-mon", "chardev=m,mode=control"],
            ["/run/q"],
            [],
        ),
        (["-mon", "m,mode=control", "-chardev", "socket,path=/run/q,id=m,server,nowait"], ["/run/q"], []),
        (["-chardev", "socket,id=m,path=/run/q,server=on,wait=off", "-qmp", "chardev:m"], ["/run/q"], []),
        (["-chardev", "socket,id=m,path=/run/q,server=on", "-mon", "chardev=m,mode=readline"], [], []),
        (["-chardev", "socket,id=m,path=/run/q,server=on", "-mon", "chardev=m"], [], []),
        (["-chardev", "socket,id=m,path=/run/q,server=on"], [], []),
        (["-chardev", "pipe,id=m,path=/run/q,server=on", "-mon", "chardev=m,mode=control"], [], []),
        (["-mon", "chardev=m,mode=control"], [], []),
        (
            [
                "-chardev",
                '{"id":"m","backend":{"type":"socket","data":{"addr":{"data":{"path":"/q"}},"server":true,"wait":false}}}',
                *("-mon", '{"chardev":"m","mode":"control"}'),
            ],
            ["/q"],
            [],
        ),
    ],
)
def test_the_monitors_are_those_that_listen(words: list[str], qmp: list[str], waits: list[str]) -> None:
    """On a path, in the control mode, as a server; QEMU waits for a first client unless it was told not to."""
    found = parse(*words)
    assert (list(found.qmp), list(found.qmp_waits)) == (qmp, waits)
    assert not found.monitored


@pytest.mark.parametrize(
    "chardev",
    [
        "socket,id=m,fd=30,server=on,wait=off",
        '{"id":"m","backend":{"type":"socket","data":{"addr":{"type":"fd","data":{"str":"30"}},"server":true}}}',
    ],
)
def test_a_monitor_by_a_descriptor_is_somebodys(chardev: str) -> None:
    """As libvirt does today; there is nothing to connect to."""
    found = parse("-chardev", chardev, "-mon", "chardev=m,id=monitor,mode=control")
    assert (found.monitored, found.qmp) == (True, ())
    assert not parse("-chardev", chardev).monitored


def test_other_flags() -> None:
    """Paused from the start; descriptors that were handed over."""
    assert parse("-S").starts_paused
    assert not parse("-append", "-S").starts_paused
    assert parse("-add-fd", "fd=3,set=1").given_files
    assert not parse().given_files


# --- any words ---


@given(argv=st.lists(WORDS, max_size=12))
def test_any_words_are_a_command_line(argv: list[str]) -> None:
    """Never an exception."""
    parse_console(argv)


OPTIONS = st.sampled_from(
    [
        *("-device", "-set", "-global", "-vga", "-M", "-machine", "-display", "-vnc", "-spice", "-nographic", "-S"),
        *("-qmp", "-qmp-pretty", "-mon", "-chardev", "-add-fd", "-nodefaults", "-sdl", "-append"),
    ]
)
VALUES = st.one_of(
    WORDS,
    st.text('{}[]",:=.vfio-pcidisplay0123', max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["driver", "id", "display", "backend", "data", "addr", "type", "path", "chardev"]), inner
        ),
    ).map(json.dumps),
    st.sampled_from(["vfio-pci,display=", "driver=vfio-pci,id=", "unix:", "socket,id=m,path=", "m,mode="]).flatmap(
        lambda start: WORDS.map(lambda rest: start + rest)
    ),
)


@given(pairs=st.lists(st.tuples(OPTIONS, VALUES), max_size=12))
def test_any_options_are_understood_or_left(pairs: list[tuple[str, str]]) -> None:
    """What comes out is of the kinds that are promised."""
    found = parse(*(word for pair in pairs for word in pair))
    assert found.viewers
    assert [vgpu.index for vgpu in found.vgpus] == list(range(len(found.vgpus)))
    assert all(vgpu.display in ("on", "off", "auto") and vgpu.ramfb in (False, True) for vgpu in found.vgpus)
    assert set(found.qmp_waits) <= set(found.qmp)
    assert "" not in (*found.cards, *found.qmp, *(viewer.kind for viewer in found.viewers))


@given(
    display=st.sampled_from(["on", "off", "auto", None]),
    ramfb=st.sampled_from([True, False, None]),
    identifier=WORDS.filter(bool),
)
def test_both_spellings_say_the_same(display: str | None, ramfb: bool | None, identifier: str) -> None:
    """Key and value, or JSON."""
    members = {"driver": "vfio-pci-nohotplug", "sysfsdev": f"/sys/bus/mdev/devices/{UUID}", "id": identifier}
    if display is not None:
        members["display"] = display
    typed: dict[str, object] = dict(members) if ramfb is None else {**members, "ramfb": ramfb}
    if ramfb is not None:
        members["ramfb"] = "on" if ramfb else "off"
    pairs = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in members.items())
    plain, typed_form = parse("-device", pairs), parse("-device", json.dumps(typed))
    assert plain == typed_form
    assert plain.vgpus == (
        VgpuSetting(name=UUID, display=display or "off", ramfb=bool(ramfb), driver="vfio-pci-nohotplug"),
    )


@given(path=WORDS.filter(bool))
def test_any_path_of_a_monitor_comes_back(path: str) -> None:
    """With commas doubled."""
    doubled = path.replace(",", ",,")
    assert parse("-qmp", f"unix:path={doubled},server=on,wait=off").qmp == (path,)
    assert parse("-chardev", f"socket,id=m,path={doubled},server=on", "-mon", "m,mode=control").qmp == (path,)


@pytest.mark.parametrize(
    "words",
    [
        ["-device", "a," * 1_000_000],
        ["-device", "," * 2_000_001],
        ["-device", "a=" * 1_000_000],
        ["-vnc", ":0"] * 150_000 + ["-spice", "port=1"] * 100_000,
        ["-device", "vfio-pci"] * 100_000 + ["-global", "vfio-pci.display=on"] * 60_000,
        ["-device", "vfio-pci,id=a"] * 70_000 + ["-set", "device.a.b=c"] * 70_000,
        ["-chardev", "socket,id=a,fd=1"] * 60_000 + ["-mon", "a,mode=control"] * 60_000,
        ["-device", "{" * 1_000_000],
        ["-chardev", '{"backend":' * 5000, "-mon", "a,mode=control"],
    ],
    ids=lambda words: f"{words[0]} {words[1][:12]}",
)
def test_enormous_command_lines_are_read(words: list[str]) -> None:
    """The kernel allows 6 MiB; nothing grows with the square of it (the suite's limit for a test is 120 s)."""
    assert parse(*words).viewers
