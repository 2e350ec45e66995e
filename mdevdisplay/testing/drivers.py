# ruff: noqa: ARG002 - a driver is called with everything that the kernel has, wanted or not
"""Fakes of the drivers that exist, with their traps: each does to a caller what the real one was seen or read to do.

The facts are those of samples/vfio-mdev/{mdpy,mbochs,mtty}.c, drivers/gpu/drm/i915/gvt and NVIDIA's vgpu-vfio.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
from ctypes import sizeof

import attrs

from mdevdisplay.formats import fourcc, tiling
from mdevdisplay.surface import PlaneType
from mdevdisplay.testing.driver import Driver, Region, Scripted, type_capability
from mdevdisplay.testing.files import DmaBufFile, UserMemory, failure
from mdevdisplay.vfio import uapi

__all__ = ["Gvt", "Mbochs", "Mdpy", "Mtty", "Nvidia", "PreGfx", "Scripted"]

_PAGE = mmap.PAGESIZE
_XRGB8888 = fourcc("XR24")
_READ = uapi.VFIO_REGION_INFO_FLAG_READ
_WRITE = uapi.VFIO_REGION_INFO_FLAG_WRITE
_MMAP = uapi.VFIO_REGION_INFO_FLAG_MMAP
_PROBE = uapi.VFIO_GFX_PLANE_TYPE_PROBE
_DMABUF = uapi.VFIO_GFX_PLANE_TYPE_DMABUF
_REGION = uapi.VFIO_GFX_PLANE_TYPE_REGION
_Plane = uapi.vfio_device_gfx_plane_info


def _pages(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE


def _only(plane: _Plane, kind: int) -> bool:
    """Check the flags as the interface wants it, and say whether it is a probe."""
    if plane.flags == _PROBE | kind:
        return True
    if plane.flags != kind:
        raise failure(errno.EINVAL)
    return False


class Mtty(Driver):
    """A serial port: a mediated device that is no display, so every display ioctl is ENOTTY."""

    module = "mtty"
    mdev_type = "mtty-1"
    type_name = "Single port serial"
    parent = "virtual/mtty/mtty"
    config_ids = (0x4348, 0x3253)


class _Kvmgt(Driver):
    """What all versions of Intel's driver share."""

    module = "intel_vgpu_mdev"
    mdev_type = "i915-GVTg_V5_4"
    type_name = "GVTg_V5_4"
    parent = "pci0000:00/0000:00:02.0"
    config_ids = (0x8086, 0x5912)


class PreGfx(_Kvmgt):
    """kvmgt before Linux 4.16: its ioctl function ends with ``return 0``, whatever was asked."""

    def dispatch(self, request: int, user: UserMemory) -> int:
        """Answer GET_INFO and GET_REGION_INFO, and 0 to everything else."""
        if request in (uapi.VFIO_DEVICE_GET_INFO, uapi.VFIO_DEVICE_GET_REGION_INFO):
            return super().dispatch(request, user)
        return 0


class Mdpy(Driver):
    """The mdpy sample: one constant mode in a region.

    Traps: region 16 of 9; the size is the memory's, a power of two; every plane type answers the primary plane;
    reading ignores the position.
    """

    module = "mdpy"
    parent = "virtual/mdpy/mdpy"
    config_ids = (0x1B36, 0x000F)
    display_region = 16

    def __init__(self, kind: str = "xga", *, name: str = "") -> None:
        """Make a device of type ``vga``, ``xga`` or ``hd``."""
        super().__init__(name)
        self.width, self.height = {"vga": (640, 480), "xga": (1024, 768), "hd": (1920, 1080)}[kind]
        self.mdev_type, self.type_name = f"mdpy-{kind}", f"MDPY_{kind}"
        self.stride = self.width * 4
        self.size = 1 << (self.stride * self.height - 1).bit_length()
        display = Region(_PAGE, self.size, _READ | _WRITE | _MMAP)
        self.own_regions = {
            uapi.VFIO_PCI_BAR0_REGION_INDEX: display,
            uapi.VFIO_PCI_CONFIG_REGION_INDEX: Region(0, 0xFF),
            self.display_region: display,
        }

    def paint(self, data: bytes, offset: int = 0) -> None:
        """Change the picture's memory."""
        self.write(_PAGE + offset, data)

    def query(self, plane: _Plane) -> None:
        """Answer the same for every plane type."""
        if _only(plane, _REGION):
            return
        plane.drm_format, plane.drm_format_mod = _XRGB8888, 0
        plane.width, plane.height, plane.stride, plane.size = self.width, self.height, self.stride, self.size
        plane.region_index = self.display_region
        plane.x_pos = plane.y_pos = plane.x_hot = plane.y_hot = 0

    def pread(self, size: int, offset: int) -> bytes:
        """Read the first bytes of the memory, wherever one reads."""
        if offset >= _PAGE and offset + size <= _PAGE + self.size:
            return self.read(_PAGE, size)
        return super().pread(size, offset)


_VBE_REGISTERS = ("id", "width", "height", "bpp", "enable", "bank", "virt_width", "virt_height", "x", "y", "memory")


class Mbochs(Driver):
    """The mbochs sample: dma-bufs over video memory, an EDID region, and its bugs.

    Traps: ENOMEM for the first query of each mode; GET_REGION_INFO takes 32 to 48 bytes; dma-bufs are read-only,
    without close-on-exec, and no mapping of them succeeds; VBE registers answer reads of two bytes only, EDID
    registers of four; region 0 reads two pages off. A second GET_GFX_DMABUF of an id in one open of the device, one
    while a VMM displays it, and a dma-buf that outlives the device are violations: they corrupt the kernel's memory.

    Attributes:
        gets: how often each id was fetched since the device was opened.
    """

    module = "mbochs"
    mdev_type = "mbochs-small"
    type_name = "small"
    parent = "virtual/mbochs/mbochs"
    config_ids = (0x1234, 0x1111)
    num_regions = 10
    edid_region = 9
    _mmio, _edid, _vram = _PAGE, 2 * _PAGE, 3 * _PAGE

    def __init__(self, *, memory: int = 4 << 20, name: str = "") -> None:
        """Make a device with ``memory`` bytes of video memory, showing nothing."""
        super().__init__(name)
        self.memory = memory
        self.own_regions = {
            uapi.VFIO_PCI_BAR0_REGION_INDEX: Region(self._vram, memory, _READ | _WRITE | _MMAP),
            uapi.VFIO_PCI_BAR2_REGION_INDEX: Region(self._mmio, _PAGE),
            uapi.VFIO_PCI_CONFIG_REGION_INDEX: Region(0, 0xFF),
            self.edid_region: Region(
                self._edid,
                _PAGE,
                capabilities=type_capability(uapi.VFIO_REGION_TYPE_GFX, uapi.VFIO_REGION_SUBTYPE_GFX_EDID),
            ),
        }
        self.vbe: dict[str, int] = dict.fromkeys(_VBE_REGISTERS, 0)
        self.edid = uapi.vfio_region_gfx_edid(_PAGE // 2, 1024, 0, 1920, 1080, uapi.VFIO_DEVICE_GFX_LINK_STATE_UP)
        self.edid_blob = bytearray(1024)
        self.gets: dict[int, int] = {}
        self._modes: dict[tuple[int, int, int, int], int] = {}
        self._ids = itertools.count(1)
        self._exported: dict[int, DmaBufFile] = {}

    def set_mode(self, width: int, height: int, *, x: int = 0, y: int = 0, virt_width: int = 0, bpp: int = 32) -> None:
        """Write the VBE registers as a guest's driver does; ``x`` and ``y`` are the start of the picture."""
        self.vbe.update(width=width, height=height, x=x, y=y, virt_width=virt_width, bpp=bpp, enable=0x41)

    def blank(self) -> None:
        """Switch the display off."""
        self.vbe["enable"] = 0

    def set_edid(self, blob: bytes) -> None:
        """Plug in a monitor."""
        self.edid_blob[: len(blob)] = blob
        self.edid.edid_size = len(blob)

    def paint(self, data: bytes, offset: int = 0) -> None:
        """Change the picture's memory, from the start of the mode that is set."""
        start = self._mode()
        self.write(self._vram + (start[3] if start is not None else 0) + offset, data)

    def _mode(self) -> tuple[int, int, int, int] | None:
        """Return (width, height, stride, offset), or None for no framebuffer (mbochs_check_framebuffer)."""
        vbe = self.vbe
        if not vbe["enable"] & 1 or vbe["bpp"] != 32 or vbe["width"] < 64 or vbe["height"] < 64:
            return None
        stride = max(vbe["virt_width"], vbe["width"]) * 4
        offset = vbe["x"] * 4 + vbe["y"] * stride
        if offset + stride * vbe["height"] > self.memory:
            return None
        return vbe["width"], vbe["height"], stride, offset

    def query(self, plane: _Plane) -> None:
        """Answer the primary plane; ENOMEM once a mode."""
        if _only(plane, _DMABUF):
            return
        plane.drm_format_mod = plane.x_pos = plane.y_pos = plane.x_hot = plane.y_hot = 0
        mode = self._mode() if plane.drm_plane_type == PlaneType.PRIMARY else None
        if mode is None:
            plane.drm_format = plane.width = plane.height = plane.stride = plane.size = plane.dmabuf_id = 0
            return
        if mode not in self._modes:
            self._modes[mode] = next(self._ids)  # allocated, and the result dropped
            raise failure(errno.ENOMEM)
        plane.drm_format = _XRGB8888
        plane.width, plane.height, plane.stride, _ = mode
        plane.size = plane.stride * plane.height
        plane.dmabuf_id = self._modes[mode]

    def get_dmabuf(self, dmabuf_id: int) -> int:
        """Return a read-only descriptor without close-on-exec."""
        mode = next((mode for mode, known in self._modes.items() if known == dmabuf_id), None)
        if mode is None:
            raise failure(errno.ENOENT)
        if mode[3] % _PAGE:
            raise failure(errno.EINVAL)
        if self.gets.get(dmabuf_id):
            self.kernel.violate(f"a second GET_GFX_DMABUF of id {dmabuf_id}: mbochs frees its pages twice")
        if self.lent:
            self.kernel.violate(f"GET_GFX_DMABUF of id {dmabuf_id} while a VMM may display it too: use after free")
        self.gets[dmabuf_id] = self.gets.get(dmabuf_id, 0) + 1
        file = self._exported.get(dmabuf_id)
        if file is None:
            label = f"dma-buf {dmabuf_id} of {self.name}"
            file = DmaBufFile(label, mode[1] * mode[2], self.kernel, mmap_errno=errno.EINVAL, exporter="mbochs")
            self._exported[dmabuf_id] = file
        return self.kernel.export(file, flags=os.O_RDONLY, cloexec=False)

    def released(self) -> None:
        """Free everything with the last descriptor, as the driver does; a dma-buf that is still open is a violation."""
        super().released()
        for file in self._exported.values():
            if self.kernel.descriptors_of(file):
                self.kernel.violate(f"{file.label} outlives the device, which has freed its pages")
            self.kernel.forget(file)
        self.gets.clear()
        self._modes.clear()
        self._exported.clear()

    def get_region_info(self, user: UserMemory) -> int:
        """Take 32 to 48 bytes, and leave garbage in those that it does not fill (before Linux 6.19)."""
        info = uapi.vfio_region_info.from_buffer_copy(user.read(32))
        size = info.argsz
        region = self.region(info.index)
        if not 32 <= size <= 48 or region is None:
            raise failure(errno.EINVAL)
        info.flags, info.offset, info.size = region.flags, region.offset, region.size
        if region.capabilities:
            info.argsz, info.cap_offset = 48, 32
            info.flags |= uapi.VFIO_REGION_INFO_FLAG_CAPS
        user.write((bytes(info) + (region.capabilities or b"\xa5" * 16))[:size])
        return 0

    def pread(self, size: int, offset: int) -> bytes:
        """Read in pieces of 4, 2 and 1 bytes, as the driver's read function splits them; EFAULT outside."""
        if not any(region.holds(offset, size) for region in self.own_regions.values()):
            raise failure(errno.EFAULT)
        done = b""
        while len(done) < size:
            position, left = offset + len(done), size - len(done)
            piece = next(piece for piece in (4, 2, 1) if left >= piece and position % piece == 0)
            done += self._piece(piece, position)
        return done

    def _piece(self, size: int, offset: int) -> bytes:
        if self._mmio <= offset < self._edid:
            register = (offset - self._mmio - 0x500) // 2
            if size == 2 and 0 <= register < len(_VBE_REGISTERS):
                return self.vbe[_VBE_REGISTERS[register]].to_bytes(2, "little")
            return bytes(size)
        if self._edid <= offset < self._vram:
            return self._edid_piece(size, offset - self._edid)
        if offset >= self._vram:
            self.kernel.violate("region 0 was read: mbochs reads two pages off, and past its pages at the end")
            return self.read(min(offset + 2 * _PAGE, self.memory_size - size), size)
        return self.read(offset, size)

    def _edid_piece(self, size: int, offset: int) -> bytes:
        if offset >= _PAGE // 2:
            return bytes(self.edid_blob[offset - _PAGE // 2 :][:size]).ljust(size, b"\0")
        if size != 4 or offset + 4 > sizeof(self.edid):
            return b"\xa5" * size  # the driver's own stack
        return bytes(self.edid)[offset : offset + 4]


@attrs.define(eq=False)
class _Framebuffer:
    """What a GVT-g guest scans out: where it lies in graphics memory, and how."""

    address: int
    width: int
    height: int
    stride: int
    fourcc: int
    modifier: int
    x: int = 0
    y: int = 0
    x_hot: int = 0
    y_hot: int = 0

    @property
    def size(self) -> int:
        tile = tiling(self.modifier)
        rows = tile.height if tile is not None else 1
        return self.stride * (-(-self.height // rows) * rows)


@attrs.define(eq=False)
class _Exposed:
    """An intel_vgpu_dmabuf_obj: one id, alive until its descriptors are closed."""

    key: tuple[int, ...]
    number: int
    file: DmaBufFile
    fetched: bool = False


class Gvt(_Kvmgt):
    """Intel GVT-g, Linux 4.16 and later.

    Traps: opening wants a KVM VM of the opener's own process (ESRCH); a plane that is off leaves the caller's bytes
    as they are; transient EINVAL and EFAULT (`answer_next`); sizes in pages before Linux 5.2; ids are given again once
    their dma-bufs are closed; an unknown hot spot is 0xffffffff; dma-bufs cannot be mapped (ENODEV); the EDID region
    says 128 bytes and has its blob at 2048.
    """

    num_regions = 11
    edid_region = 10

    def __init__(self, *, needs_vm: bool = True, pages: bool = False, name: str = "") -> None:
        """Make a vGPU whose display is off.

        Args:
            needs_vm: be opened only beside a KVM VM of the same process, as the real one does.
            pages: report plane sizes in pages, as before Linux 5.2.
            name: its UUID.
        """
        super().__init__(name)
        self.needs_vm = needs_vm
        self.pages = pages
        self.primary: _Framebuffer | None = None
        self.cursor: _Framebuffer | None = None
        self.edid = uapi.vfio_region_gfx_edid(2048, 128, 128, 1920, 1200, uapi.VFIO_DEVICE_GFX_LINK_STATE_UP)
        self.edid_blob = bytes(128)
        capabilities = type_capability(uapi.VFIO_REGION_TYPE_GFX, uapi.VFIO_REGION_SUBTYPE_GFX_EDID)
        self.own_regions = {
            uapi.VFIO_PCI_BAR0_REGION_INDEX: Region(0, 16 << 20),
            uapi.VFIO_PCI_CONFIG_REGION_INDEX: Region(7 << 40, 256),
            self.edid_region: Region(10 << 40, 128, capabilities=capabilities),
        }
        self._exposed: list[_Exposed] = []
        self._contents: dict[tuple[int, int], DmaBufFile] = {}

    def open_device(self) -> None:
        """Refuse without a KVM VM (kvmgt.c, intel_vgpu_open_device)."""
        super().open_device()
        if self.needs_vm and not self.has_vm:
            raise failure(errno.ESRCH)

    def show(
        self,
        width: int,
        height: int,
        *,
        code: str = "XR24",
        modifier: int = 0,
        stride: int = 0,
        address: int = 0x100000,
    ) -> None:
        """Scan out a framebuffer at an address of graphics memory."""
        pitch = stride or width * 4
        tile = tiling(modifier)
        if tile is not None and not stride:
            pitch = -(-pitch // tile.width) * tile.width
        self.primary = _Framebuffer(address, width, height, pitch, fourcc(code), modifier)

    def show_cursor(
        self, x: int = 0, y: int = 0, *, size: int = 64, hot: tuple[int, int] | None = None, address: int = 0x80000
    ) -> None:
        """Show a cursor; without a hot spot the driver says 0xffffffff."""
        x_hot, y_hot = hot or (uapi.HOTSPOT_UNKNOWN, uapi.HOTSPOT_UNKNOWN)
        self.cursor = _Framebuffer(address, size, size, size * 4, fourcc("AR24"), 0, x, y, x_hot, y_hot)

    def blank(self) -> None:
        """Switch both planes off."""
        self.primary = self.cursor = None

    def paint(self, data: bytes, offset: int = 0) -> None:
        """Change the memory of the framebuffer that is shown; visible in the dma-bufs that were made of it."""
        if self.primary is None:
            raise RuntimeError("show() something first")
        fd = self.kernel.export(self._content(self.primary))
        try:
            self.kernel.real.pwrite(fd, data, offset)
        finally:
            self.kernel.real.close(fd)

    def query(self, plane: _Plane) -> None:
        """Answer the primary or the cursor plane; anything else is EINVAL."""
        if _only(plane, _DMABUF):
            return
        shown = {PlaneType.PRIMARY: self.primary, PlaneType.CURSOR: self.cursor}
        if plane.drm_plane_type not in list(shown):
            raise failure(errno.EINVAL)
        buffer = shown[PlaneType(plane.drm_plane_type)]
        if buffer is None:
            return  # -ENODEV inside, 0 to the caller, whose bytes stay as they were
        if buffer.address % _PAGE:
            raise failure(errno.EFAULT)
        plane.drm_format, plane.drm_format_mod = buffer.fourcc, buffer.modifier
        plane.width, plane.height, plane.stride = buffer.width, buffer.height, buffer.stride
        plane.size = _pages(buffer.size) if self.pages else buffer.size
        plane.x_pos, plane.y_pos, plane.x_hot, plane.y_hot = buffer.x, buffer.y, buffer.x_hot, buffer.y_hot
        plane.dmabuf_id = self._expose(buffer).number

    def _content(self, buffer: _Framebuffer) -> DmaBufFile:
        """Return the memory at an address: the same for every dma-buf of it."""
        key = (buffer.address, _pages(buffer.size) * _PAGE)
        if key not in self._contents:
            label = f"dma-buf at 0x{buffer.address:x} of {self.name}"
            self._contents[key] = DmaBufFile(label, key[1], self.kernel, mmap_errno=errno.ENODEV, exporter="i915")
        return self._contents[key]

    def _expose(self, buffer: _Framebuffer) -> _Exposed:
        """Find the object of a framebuffer or make one, with the lowest id that is free (idr_alloc)."""
        self._exposed = [
            entry for entry in self._exposed if not entry.fetched or self.kernel.descriptors_of(entry.file)
        ]
        key = (buffer.address, buffer.size, buffer.modifier, buffer.fourcc, buffer.width, buffer.height)
        for entry in self._exposed:
            if entry.key == key:
                return entry
        taken = {entry.number for entry in self._exposed}
        number = next(number for number in itertools.count(1) if number not in taken)
        entry = _Exposed(key, number, self._content(buffer))
        self._exposed.append(entry)
        return entry

    def get_dmabuf(self, dmabuf_id: int) -> int:
        """Return a descriptor of a new dma-buf over the framebuffer's memory."""
        for entry in self._exposed:
            if entry.number == dmabuf_id:
                entry.fetched = True
                return self.kernel.export(entry.file)
        raise failure(errno.EINVAL)

    def released(self) -> None:
        """Forget every id with the last descriptor."""
        super().released()
        self._exposed.clear()

    def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
        """Refuse: only the aperture could be mapped, and it has no region here."""
        raise failure(errno.EINVAL)

    def pread(self, size: int, offset: int) -> bytes:
        """Read config space and EDID; every inner error is EFAULT."""
        position = offset - (10 << 40)
        if position >= 0:
            return self._read_edid(size, position)
        if not self.own_regions[uapi.VFIO_PCI_CONFIG_REGION_INDEX].holds(offset, size):
            raise failure(errno.EFAULT)
        return self.read(offset, size)

    def _read_edid(self, size: int, position: int) -> bytes:
        blob = position - self.edid.edid_offset
        if blob >= 0 and blob + size <= self.edid.edid_size:
            return self.edid_blob[blob : blob + size]
        if blob < 0 and position % 4 == 0 and position + size <= sizeof(self.edid):
            return bytes(self.edid)[position : position + size]
        raise failure(errno.EFAULT)


class Nvidia(Driver):
    """NVIDIA's vgpu-vfio: the console in a region.

    Traps: region 9 of 9; the plane type and unknown flags are ignored, unknown ioctls EINVAL; modifier, position and
    hot spot stay as the caller sent them; mapping is EINVAL beyond the surface, while anybody maps it already and
    before it was allocated; reading the console is EFAULT. A slow query is a `stall`.

    Attributes:
        mapped_elsewhere: whether another process, such as QEMU with display=on, has the one mapping.
    """

    module = "nvidia"
    mdev_type = "nvidia-63"
    type_name = "GRID P40-2B"
    parent = "pci0000:40/0000:40:01.0/0000:41:00.0"
    config_ids = (0x10DE, 0x1B38)
    unknown_ioctl = errno.EINVAL
    console_region = 9
    console_size = 16 << 20

    def __init__(self, name: str = "", *, pci: bool = False) -> None:
        """Make a vGPU, or with ``pci`` a virtual function, whose console is not there yet."""
        super().__init__(name, pci=pci)
        if pci:
            self.mdev_type, self.parent = "", "pci0000:40/0000:40:01.0"
        self.width = self.height = self.stride = self.fourcc = self.size = 0
        self.mapped_elsewhere = False
        self.own_regions = {
            uapi.VFIO_PCI_CONFIG_REGION_INDEX: Region(7 << 40, 256),
            self.console_region: Region(self.console_region << 40, self.console_size, _READ | _WRITE | _MMAP),
        }

    def show(self, width: int, height: int, *, code: str = "XR24", stride: int = 0) -> None:
        """Show a console; its surface is as large as the picture."""
        depth = {"C8": 1, "RG16": 2, "RG24": 3, "XR24": 4}[code]
        self.width, self.height, self.fourcc = width, height, fourcc(code)
        self.stride = stride or width * depth
        self.size = self.stride * height

    def blank(self) -> None:
        """Show nothing: the answer keeps its format."""
        self.width = self.height = self.stride = self.size = 0

    def paint(self, data: bytes, offset: int = 0) -> None:
        """Change the console's memory."""
        self.write((self.console_region << 40) + offset, data)

    def query(self, plane: _Plane) -> None:
        """Look at the REGION flag only."""
        if not plane.flags & _REGION:
            raise failure(errno.EINVAL)
        if plane.flags & _PROBE:
            return
        plane.drm_format = self.fourcc or _XRGB8888
        plane.width, plane.height, plane.stride, plane.size = self.width, self.height, self.stride, self.size
        plane.region_index = self.console_region

    def mmap(self, offset: int, length: int, prot: int, flags: int) -> None:
        """Let the console be mapped once, and not beyond its surface."""
        super().mmap(offset, length, prot, flags)
        if length > _pages(self.size) * _PAGE or self.mapped_elsewhere or self.kernel.mappings_of(self):
            raise failure(errno.EINVAL)

    def pread(self, size: int, offset: int) -> bytes:
        """Read config space; the console is EFAULT."""
        if offset >= self.console_region << 40:
            raise failure(errno.EFAULT)
        return super().pread(size, offset)
