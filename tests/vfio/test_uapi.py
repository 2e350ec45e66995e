"""The mirror of linux/vfio.h, held to the header by a C compiler and to the literal numbers besides."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from mdevdisplay import dmabuf
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.gfx import GfxKind

HEADER = Path("/usr/include/linux/vfio.h")

STRUCTS = {
    name: value
    for name, value in vars(uapi).items()
    if name.startswith("vfio_") and isinstance(value, type) and issubclass(value, ctypes.Structure)
}
CONSTANTS = {name: value for name, value in vars(uapi).items() if name.startswith("VFIO_") and isinstance(value, int)}
NEWER = {("vfio_device_gfx_plane_info", "reserved")}
"""Named since Linux 6.7 only; before, its bytes are padding."""
LATER = {"VFIO_DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_ATTACH_IOMMUFD_PT", "VFIO_DEVICE_DETACH_IOMMUFD_PT"}
"""Since Linux 6.6 only."""
LATER_STRUCTS = {"vfio_device_bind_iommufd": "VFIO_DEVICE_BIND_IOMMUFD"}
"""Structures that came with a request; the real kernel of the lab holds them where the header is older."""
GROWN = ["vfio_device_info"]
"""Later headers add members behind those that we ask for; argsz says which version is meant."""


def members(struct: type[ctypes.Structure]) -> list[str]:
    """The names of a structure's members in C: an anonymous union's are the structure's own."""
    names: list[str] = []
    for name, kind, *_ in struct._fields_:
        if name in getattr(struct, "_anonymous_", ()):
            names += [member for member, *_ in kind._fields_]  # type: ignore[union-attr]
        else:
            names.append(name)
    return names


def c_program() -> str:
    """A program that prints every size, offset, member size and number."""
    lines = []
    for name, struct in STRUCTS.items():
        if name in LATER_STRUCTS:
            lines.append(f"\n#ifdef {LATER_STRUCTS[name]}\n")
        lines.append(f'printf("sizeof {name} %zu\\n", sizeof(struct {name}));')
        for member in members(struct):
            if (name, member) in NEWER:
                continue
            lines.append(f'printf("offsetof {name}.{member} %zu\\n", offsetof(struct {name}, {member}));')
            lines.append(f'printf("sizeof {name}.{member} %zu\\n", sizeof(((struct {name} *)0)->{member}));')
        if name in LATER_STRUCTS:
            lines.append("\n#endif\n")
    numbers = {name: f'printf("{name} %lld\\n", (long long)({name}));' for name in CONSTANTS}
    lines += [f"\n#ifdef {name}\n{line}\n#endif\n" if name in LATER else line for name, line in numbers.items()]
    lines.append('printf("DMA_BUF_IOCTL_SYNC %lld\\n", (long long)(DMA_BUF_IOCTL_SYNC));')
    lines.append(
        'printf("start %lld\\nend %lld\\n", (long long)(DMA_BUF_SYNC_READ | DMA_BUF_SYNC_START),'
        " (long long)(DMA_BUF_SYNC_READ | DMA_BUF_SYNC_END));"
    )
    body = "\n    ".join(lines)
    return (
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/vfio.h>\n#include <linux/dma-buf.h>\n"
        f"int main(void)\n{{\n    {body}\n    return 0;\n}}\n"
    )


def mirrored() -> dict[str, int]:
    """The same facts as Python has them."""
    facts = dict(CONSTANTS)
    for name, struct in STRUCTS.items():
        facts[f"sizeof {name}"] = ctypes.sizeof(struct)
        for member in members(struct):
            if (name, member) not in NEWER:
                field = getattr(struct, member)
                facts[f"offsetof {name}.{member}"] = field.offset
                facts[f"sizeof {name}.{member}"] = field.size
    facts["DMA_BUF_IOCTL_SYNC"] = dmabuf.DMA_BUF_IOCTL_SYNC
    facts["start"] = int.from_bytes(dmabuf._SYNC_START_READ, "little")
    facts["end"] = int.from_bytes(dmabuf._SYNC_END_READ, "little")
    return facts


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the C compiler says about the header that is installed."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None and not HEADER.exists():
        pytest.skip("neither a C compiler nor linux/vfio.h is installed (Debian: gcc, linux-libc-dev)")
    assert compiler, "linux/vfio.h is installed and no C compiler: install gcc"
    assert HEADER.exists(), "a C compiler is installed and linux/vfio.h is not: install linux-libc-dev"
    folder = tmp_path_factory.mktemp("uapi")
    (folder / "uapi.c").write_text(c_program())
    subprocess.run([compiler, "-Werror", "-o", folder / "uapi", folder / "uapi.c"], check=True, timeout=60)
    output = subprocess.run([folder / "uapi"], check=True, capture_output=True, text=True, timeout=60).stdout
    return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in output.splitlines())}


def test_every_size_offset_and_number_is_the_compilers(compiled: dict[str, int]) -> None:
    """Nothing in the mirror differs from the header, and nothing was left out of the comparison."""
    python = mirrored()
    for name in GROWN:
        assert compiled.pop(f"sizeof {name}") >= python.pop(f"sizeof {name}")
    for name in LATER - set(compiled):
        del python[name]
    for struct, request in LATER_STRUCTS.items():
        if request not in compiled:
            python = {name: value for name, value in python.items() if struct not in name}
    assert compiled == python
    assert len(compiled) > 80


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VFIO_GET_API_VERSION", 0x3B64),
        ("VFIO_CHECK_EXTENSION", 0x3B65),
        ("VFIO_SET_IOMMU", 0x3B66),
        ("VFIO_GROUP_GET_STATUS", 0x3B67),
        ("VFIO_GROUP_SET_CONTAINER", 0x3B68),
        ("VFIO_GROUP_UNSET_CONTAINER", 0x3B69),
        ("VFIO_GROUP_GET_DEVICE_FD", 0x3B6A),
        ("VFIO_DEVICE_GET_INFO", 0x3B6B),
        ("VFIO_DEVICE_GET_REGION_INFO", 0x3B6C),
        ("VFIO_DEVICE_SET_IRQS", 0x3B6E),
        ("VFIO_DEVICE_RESET", 0x3B6F),
        ("VFIO_DEVICE_PCI_HOT_RESET", 0x3B71),
        ("VFIO_DEVICE_QUERY_GFX_PLANE", 0x3B72),
        ("VFIO_DEVICE_GET_GFX_DMABUF", 0x3B73),
        ("VFIO_DEVICE_IOEVENTFD", 0x3B74),
        ("VFIO_DEVICE_FEATURE", 0x3B75),
        ("VFIO_DEVICE_BIND_IOMMUFD", 0x3B76),
        ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 0x3B77),
        ("VFIO_DEVICE_DETACH_IOMMUFD_PT", 0x3B78),
        ("VFIO_GFX_PLANE_TYPE_PROBE", 1),
        ("VFIO_GFX_PLANE_TYPE_DMABUF", 2),
        ("VFIO_GFX_PLANE_TYPE_REGION", 4),
        ("VFIO_REGION_TYPE_GFX", 1),
        ("VFIO_REGION_SUBTYPE_GFX_EDID", 1),
        ("VFIO_REGION_INFO_CAP_TYPE", 2),
        ("VFIO_PCI_CONFIG_REGION_INDEX", 7),
        ("VFIO_PCI_NUM_REGIONS", 9),
        ("VFIO_TYPE1_IOMMU", 1),
        ("VFIO_TYPE1v2_IOMMU", 3),
        ("HOTSPOT_UNKNOWN", 0xFFFFFFFF),
    ],
)
def test_a_number_is_the_interfaces(name: str, value: int) -> None:
    """The literal number, so that this holds on a machine without a compiler too."""
    assert getattr(uapi, name) == value


@pytest.mark.parametrize(
    ("name", "size", "offsets"),
    [
        (
            "vfio_device_gfx_plane_info",
            64,
            {
                "argsz": 0,
                "flags": 4,
                "drm_plane_type": 8,
                "drm_format": 12,
                "drm_format_mod": 16,
                "width": 24,
                "height": 28,
                "stride": 32,
                "size": 36,
                "x_pos": 40,
                "y_pos": 44,
                "x_hot": 48,
                "y_hot": 52,
                "region_index": 56,
                "dmabuf_id": 56,
                "reserved": 60,
            },
        ),
        (
            "vfio_region_gfx_edid",
            24,
            {"edid_offset": 0, "edid_max_size": 4, "edid_size": 8, "max_xres": 12, "max_yres": 16, "link_state": 20},
        ),
        (
            "vfio_region_info",
            32,
            {"argsz": 0, "flags": 4, "index": 8, "cap_offset": 12, "size": 16, "offset": 24},
        ),
        ("vfio_info_cap_header", 8, {"id": 0, "version": 2, "next": 4}),
        ("vfio_region_info_cap_type", 16, {"header": 0, "type": 8, "subtype": 12}),
        ("vfio_device_info", 16, {"argsz": 0, "flags": 4, "num_regions": 8, "num_irqs": 12}),
        ("vfio_group_status", 8, {"argsz": 0, "flags": 4}),
    ],
)
def test_a_structure_has_the_interfaces_layout(name: str, size: int, offsets: dict[str, int]) -> None:
    """Literal size and offsets; the plane's union is at 56, where drivers stop copying 4 bytes later."""
    struct = STRUCTS[name]
    assert ctypes.sizeof(struct) == size
    assert {member: getattr(struct, member).offset for member in members(struct)} == offsets


def test_the_kinds_are_the_flags() -> None:
    """GfxKind is what is sent; the two values are the header's."""
    assert {kind.name: int(kind) for kind in GfxKind} == {"DMABUF": 2, "REGION": 4}
