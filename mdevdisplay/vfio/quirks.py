"""What is special about single drivers, as a table; facts and sources in the project's ABI notes and docs/scope.md."""

from __future__ import annotations

import attrs

from mdevdisplay.source import Identity

__all__ = ["Quirks", "quirks_of", "quirks_of_exporter"]


@attrs.frozen(kw_only=True)
class Quirks:
    """How one driver differs.

    Attributes:
        get_once: GET_GFX_DMABUF may be called once per id and open, the descriptor is kept until close. mbochs
            re-installs one struct file without taking a reference (samples/vfio-mdev/mbochs.c,
            mbochs_get_gfx_dmabuf), so a second GET is a use after free in the kernel.
        get_when_borrowed: whether GET is safe while a VMM uses the device too.
        keep: how many dma-bufs are kept open for reuse, the least recently used goes first.
        size_in_pages: plane sizes may be pages: GVT-g before Linux 5.2.
        edid_room: bytes of the EDID region that can be read although it says less. GVT-g registers it with the 128
            bytes of the blob, which lies at 2048 (kvmgt.c, intel_gvt_set_edid).
        wants_kvm: it opens a device only beside a KVM VM of the same process (kvmgt.c, intel_vgpu_open_device: ESRCH).
        cursor_sign_lost: it reports a cursor's position as a magnitude (gvt/dmabuf.c, vgpu_get_plane_info copies x_pos
            and not x_sign).
        bus_master_tells: whether the bus master bit of the PCI command register says that a guest's driver has taken
            the device. The kernel's samples have no DMA and keep the register as it was made.
        map_hint: what to do where its dma-buf cannot be mapped.
        region_hint: what to do where its region cannot be mapped.
        known: whether these are the quirks of the device's driver; without a name they cannot be.
    """

    get_once: bool = False
    get_when_borrowed: bool = True
    keep: int = 8
    size_in_pages: bool = False
    edid_room: int = 0
    wants_kvm: bool = False
    cursor_sign_lost: bool = False
    bus_master_tells: bool = True
    map_hint: str = ""
    region_hint: str = ""
    known: bool = True


_BY_VENDOR = {
    "i915": Quirks(
        size_in_pages=True,
        edid_room=4096,
        wants_kvm=True,
        cursor_sign_lost=True,
        map_hint="i915 never lets a CPU map a vGPU's framebuffer: import the dma-buf on the same Intel GPU",
    ),
    "mbochs": Quirks(
        get_once=True,
        get_when_borrowed=False,
        bus_master_tells=False,
        map_hint="the mbochs driver refuses every mapping of its dma-bufs; use --backend mbochs, which reads the "
        "same pixels from region 0, or hand the dma-buf on",
    ),
    "mdpy": Quirks(bus_master_tells=False),
    "nvidia": Quirks(
        # vgpu_add_phys_mapping refuses a second mapping of the console, whoever has the first
        region_hint="NVIDIA's driver allows one mapping of a vGPU's console, and QEMU's display=on takes it: switch "
        "that off, or end the other reader",
    ),
}

_NONE = Quirks()
_UNKNOWN = Quirks(get_when_borrowed=False, cursor_sign_lost=True, bus_master_tells=False, known=False)


def quirks_of(identity: Identity) -> Quirks:
    """Return the quirks of the driver behind a device; none for one that is not in the table.

    Where nothing says which driver it is, it may be any, mbochs too.
    """
    if identity.vendor:
        return _BY_VENDOR.get(identity.vendor, _NONE)
    return _BY_VENDOR.get(identity.driver, _UNKNOWN)


def quirks_of_exporter(name: str) -> Quirks:
    """Return the quirks of the driver that exported a dma-buf, by the name in its fdinfo (a kernel module's)."""
    return _BY_VENDOR.get(name, _NONE)
