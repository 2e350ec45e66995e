"""A VFIO device by its descriptor: info, regions, planes, dma-bufs, EDID.

A descriptor of a VFIO device is power over its VM. This class can query, map and read; it has no way to write,
reset or set interrupts, on one's own device either. On a borrowed device it lets through only what is known to be
harmless, here and nowhere else (`Device.ioctl`, `Device.pread`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import MappingProxyType

import attrs

from mdevdisplay._ioctl import bound_ioctl, ioctl
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import DriverError, MdevDisplayError, NotPermitted, PluginError, from_oserror, translated
from mdevdisplay.region import Mappable
from mdevdisplay.source import Identity, Source
from mdevdisplay.surface import PlaneType, RegionInfo, SurfaceInfo
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.edid import HEADER_SIZE, Edid, decode_edid, decode_header
from mdevdisplay.vfio.gfx import DmaBufCache, GfxKind, ProbeAnswer, plane_query, probe
from mdevdisplay.vfio.quirks import quirks_of
from mdevdisplay.vfio.regions import get_region_info

__all__ = ["Device", "DeviceSummary", "ReadOnlyAccess", "RegisterRange"]

_HARMLESS = frozenset(
    {
        uapi.VFIO_DEVICE_GET_INFO,
        uapi.VFIO_DEVICE_GET_REGION_INFO,
        uapi.VFIO_DEVICE_QUERY_GFX_PLANE,
    }
)

_NEVER = MappingProxyType(
    {
        uapi.VFIO_DEVICE_SET_IRQS: "VFIO_DEVICE_SET_IRQS",
        uapi.VFIO_DEVICE_RESET: "VFIO_DEVICE_RESET",
        uapi.VFIO_DEVICE_PCI_HOT_RESET: "VFIO_DEVICE_PCI_HOT_RESET",
        uapi.VFIO_DEVICE_IOEVENTFD: "VFIO_DEVICE_IOEVENTFD",
        uapi.VFIO_DEVICE_FEATURE: "VFIO_DEVICE_FEATURE",
        uapi.VFIO_DEVICE_BIND_IOMMUFD: "VFIO_DEVICE_BIND_IOMMUFD",
        uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT: "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
        uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT: "VFIO_DEVICE_DETACH_IOMMUFD_PT",
    }
)
"""Requests that change a device, or may: nobody who reads a display needs one."""

_REQUEST = 0xFFFFFFFF
"""The kernel looks at 32 bits of a request number, and CPython drops the others."""

_MOST_REGIONS = 64
_FILE_END = (1 << 63) - 1
"""The largest position in a file; a region beyond it cannot be read."""


@attrs.frozen
class RegisterRange:
    """Bytes of a region that are safe to read while a VM uses the device."""

    region: int
    offset: int
    size: int


@attrs.frozen(kw_only=True)
class ReadOnlyAccess:
    """What a backend needs on a borrowed device beyond querying and mapping.

    Attributes:
        registers: ranges that may be read with pread.
        ioctls: request numbers that change nothing. Those of VFIO that change a device are refused, whoever declares
            them.
    """

    registers: tuple[RegisterRange, ...] = ()
    ioctls: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class DeviceSummary:
    """VFIO_DEVICE_GET_INFO: flags and counts. A display's region may lie beyond ``num_regions``."""

    flags: int
    num_regions: int
    num_irqs: int


class Device(Source):
    """An open VFIO device. Not thread-safe; the framework calls it from one thread at a time.

    Attributes:
        quirks: what is special about its driver.
        last_probe: what the latest probe came to: the driver's answer, or the error; None before the first.
    """

    def __init__(self, fd: int, locator: str, identity: Identity | None = None, *, borrowed: bool = False) -> None:
        """Take over ``fd``: it is closed with the object, or here if this fails, and made close-on-exec.

        Args:
            fd: a VFIO device descriptor that answers (a cdev must be bound first).
            locator: how the user named it.
            identity: what sysfs says of it; decides which quirks apply.
            borrowed: whether a VMM owns the device.
        """
        try:
            with translated(locator, f"taking over descriptor {fd}"):
                os.set_inheritable(fd, False)
            super().__init__(locator, identity, borrowed=borrowed)
            self._fd = fd
            self.last_probe: ProbeAnswer | MdevDisplayError | None = None
            self.quirks = quirks_of(self.identity)
            self.cursor_sign_lost = self.quirks.cursor_sign_lost
            self._allowed = ReadOnlyAccess()
            self._regions: dict[int, RegionInfo | None] = {}
            query = bound_ioctl(fd)
            self._asks: dict[GfxKind, dict[PlaneType, Callable[[], SurfaceInfo | None]]] = {
                kind: {plane: plane_query(query, plane, kind, self.quirks, locator) for plane in PlaneType}
                for kind in GfxKind
            }
            self._dmabufs = DmaBufCache(partial(ioctl, fd), self.quirks, locator, borrowed=borrowed)
        except BaseException:
            self._closed = True
            with suppress(OSError):
                os.close(fd)
            raise

    def fileno(self) -> int:
        """Return the descriptor; raises `Closed` after close()."""
        self.check_open()
        return self._fd

    def allow(self, access: ReadOnlyAccess) -> None:
        """Let a backend read what it declared as harmless (hook ``readonly_access``).

        Raises:
            PluginError: an ioctl among them changes a device.
        """
        for request in access.ioctls:
            if request & _REQUEST in _NEVER:
                raise PluginError(
                    f"declared ioctl 0x{request:x} ({_NEVER[request & _REQUEST]}) as harmless, and it is not",
                    device=self.locator,
                )
        self._allowed = access

    def _raw_ioctl(self, request: int, buffer: bytearray) -> int:
        self.check_open()
        return ioctl(self._fd, request, buffer)

    def ioctl(self, request: int, buffer: bytearray) -> int:
        """Call an ioctl and return its result.

        Raises:
            NotPermitted: the request changes a device; it is GET_GFX_DMABUF; or the device is borrowed and the request
                is not known to be harmless.
            OSError: as the kernel says.
        """
        request &= _REQUEST
        if request in _NEVER:
            raise NotPermitted(
                f"ioctl 0x{request:x} ({_NEVER[request]}) may change the device, which is only read here",
                device=self.locator,
                hint="a backend needs no such request to read a display",
                cause="read-only",
            )
        self.check_open()
        if request == uapi.VFIO_DEVICE_GET_GFX_DMABUF:
            raise NotPermitted(
                f"ioctl 0x{request:x} (VFIO_DEVICE_GET_GFX_DMABUF) twice for one id corrupts the kernel's memory with "
                "some drivers",
                device=self.locator,
                hint="call get_dmabuf(), which keeps to one each",
                cause="use-get-dmabuf",
            )
        if self.borrowed and not self._may_call(request):
            raise NotPermitted(
                f"ioctl 0x{request:x} is not among those that are safe on a VM's device",
                device=self.locator,
                hint="a backend declares what it needs in its readonly_access hook",
                cause="borrowed-read-only",
            )
        return ioctl(self._fd, request, buffer)

    def _may_call(self, request: int) -> bool:
        return request in _HARMLESS or request in self._allowed.ioctls

    def pread(self, region: RegionInfo, offset: int, size: int) -> bytes:
        """Read registers. Never pixels: mdpy ignores the position, mbochs reads two pages off.

        Raises:
            NotPermitted: the device is borrowed and the range was not declared.
            DriverError: the range leaves the region, or the driver reads short.
        """
        self.check_open()
        if offset < 0 or size < 1 or offset + size > region.size or region.offset + region.size > _FILE_END:
            raise DriverError(
                f"bytes {offset} to {offset + size} are outside region {region.index} of {region.size} bytes "
                f"at 0x{region.offset:x}",
                device=self.locator,
            )
        if self.borrowed and not self._may_read(region, offset, size):
            raise NotPermitted(
                f"reading bytes {offset} to {offset + size} of region {region.index} is not known to be harmless "
                "while a VM uses the device",
                device=self.locator,
                hint="a backend declares what it needs in its readonly_access hook",
                cause="borrowed-read-only",
            )
        with translated(self.locator, f"reading {size} bytes of region {region.index} at {offset}"):
            data = os.pread(self._fd, size, region.offset + offset)
        if len(data) != size:
            raise DriverError(
                f"reading {size} bytes of region {region.index} at {offset} gave {len(data)}", device=self.locator
            )
        return data

    def _may_read(self, region: RegionInfo, offset: int, size: int) -> bool:
        if region.index == uapi.VFIO_PCI_CONFIG_REGION_INDEX or _is_edid(region):
            return True
        return any(
            allowed.region == region.index
            and allowed.offset <= offset
            and offset + size <= allowed.offset + allowed.size
            for allowed in self._allowed.registers
        )

    def info(self) -> DeviceSummary:
        """Ask VFIO_DEVICE_GET_INFO."""
        buffer = bytearray(16)
        request = uapi.vfio_device_info.from_buffer(buffer)
        request.argsz = len(buffer)
        with translated(self.locator, "VFIO_DEVICE_GET_INFO", "is this a VFIO device, and a cdev bound?"):
            self.ioctl(uapi.VFIO_DEVICE_GET_INFO, buffer)
        return DeviceSummary(flags=request.flags, num_regions=request.num_regions, num_irqs=request.num_irqs)

    def region(self, index: int) -> RegionInfo | None:
        """Return a region, or None where the driver has none of that number; asked once a device.

        Do not compare the index with ``info().num_regions``: mdpy's display is region 16 of 9.
        """
        if index not in self._regions:
            self.check_open()
            self._regions[index] = get_region_info(self._raw_ioctl, index, self.locator)
        return self._regions[index]

    def regions(self) -> Iterator[RegionInfo]:
        """Yield the regions that the device counts and answers for."""
        for index in range(min(self.info().num_regions, _MOST_REGIONS)):
            region = self.region(index)
            if region is not None:
                yield region

    def probe(self, kind: GfxKind) -> ProbeAnswer:
        """Ask whether the driver hands planes out as dma-bufs or in a region."""
        self.check_open()
        try:
            self.last_probe = answer = probe(self._raw_ioctl, kind, self.locator)
        except MdevDisplayError as error:
            self.last_probe = error
            raise
        return answer

    def query_plane(self, plane: PlaneType, kind: GfxKind) -> SurfaceInfo | None:
        """Ask what a plane shows now; None for nothing. See `mdevdisplay.vfio.gfx.plane_query`."""
        try:
            ask = self._asks[kind][plane]
        except KeyError:
            self.check_open()
            raise
        return ask()

    def get_dmabuf(self, surface: SurfaceInfo) -> DmaBuf:
        """Return the dma-buf of a surface, the caller's own. See `mdevdisplay.vfio.gfx.DmaBufCache`."""
        self.check_open()
        return self._dmabufs.get(surface)

    def mappable(self, index: int, *, pixel_offset: int = 0) -> Mappable:
        """Return a region as memory to map.

        Raises:
            DriverError: the device has no such region, or it cannot be mapped.
        """
        region = self.region(index)
        if region is None or not region.mappable:
            what = "does not exist" if region is None else "cannot be mapped"
            raise DriverError(
                f"region {index}, where the display should be, {what}",
                device=self.locator,
                hint="the driver's plane info and region info contradict each other; report both",
            )
        return Mappable(fd=self.fileno(), offset=region.offset, size=region.size, pixel_offset=pixel_offset)

    def read_edid(self) -> Edid | None:
        """Read the EDID region; None where the device has none.

        Raises:
            DriverError: the registers contradict each other.
        """
        region = next((entry for entry in self.regions() if _is_edid(entry)), None)
        if region is None:
            return None
        if self.quirks.edid_room > region.size:
            region = attrs.evolve(region, size=self.quirks.edid_room)
        # the driver takes aligned 4-byte accesses to the registers only
        registers = b"".join(self.pread(region, offset, 4) for offset in range(0, HEADER_SIZE, 4))
        raw, problem = decode_header(registers, region.size)
        if problem:
            raise DriverError(f"the EDID region makes no sense: {problem}", device=self.locator)
        blob = self.pread(region, raw.edid_offset, raw.edid_size) if raw.edid_size else b""
        return decode_edid(raw, blob)

    def _release(self) -> None:
        """Close dma-bufs before the device: mbochs frees what they point to with the device."""
        fd, self._fd = self._fd, -1
        self._asks.clear()  # they know the number, which may soon be another file's
        try:
            self._dmabufs.close()
        finally:
            try:
                os.close(fd)
            except OSError as error:
                raise from_oserror(error, device=self.locator, doing="closing the device") from error


def _is_edid(region: RegionInfo) -> bool:
    return (region.type, region.subtype) == (uapi.VFIO_REGION_TYPE_GFX, uapi.VFIO_REGION_SUBTYPE_GFX_EDID)
