"""Backend for the kernel's mbochs sample: the worked example of a vendor's own backend.

mbochs offers dma-bufs that no CPU can map (its mmap insists on a flag that the kernel takes away from a read-only
descriptor), but the same pixels lie in region 0, its video memory. Where they start there is in the VBE registers of
region 2 (samples/vfio-mdev/mbochs.c, mbochs_check_framebuffer).
"""

from __future__ import annotations

import time

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import BadSurface, GuestChangingMode
from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.region import Mappable
from mdevdisplay.source import Finding, Source
from mdevdisplay.surface import Match, PlaneType, Refusal, RegionInfo, SurfaceInfo
from mdevdisplay.vfio import Device, GfxKind, ReadOnlyAccess, RegisterRange

HOOKSPEC_VERSION = (1, 0)

_VRAM_REGION = 0
_MMIO_REGION = 2
_VBE_BASE = 0x500
_VBE_X_RESOLUTION = 1
_VBE_Y_RESOLUTION = 2
_VBE_BITS_PER_PIXEL = 3
_VBE_ENABLE = 4
_VBE_X_OFFSET = 8
_VBE_Y_OFFSET = 9
_BYTES_PER_PIXEL = 4
_BACK_OFF = (0.0, 0.002, 0.005, 0.010, 0.020, 0.040)
"""Seconds before each look at the registers: a guest that flips three buffers at 60 Hz is back after 50 ms."""


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match a device of the mbochs driver that answers the dma-buf probe."""
    if not isinstance(source, Device) or source.identity.vendor != "mbochs":
        return Refusal("not an mbochs device")
    answer = source.probe(GfxKind.DMABUF)
    return Match(100, f"driver mbochs, {answer.text}") if answer.supported else Refusal(answer.text)


@hookimpl
def readonly_access() -> ReadOnlyAccess:
    """Reading the VBE registers of the mode and of the display's start changes nothing."""
    return ReadOnlyAccess(
        registers=(
            RegisterRange(_MMIO_REGION, _register(_VBE_X_RESOLUTION), 8),
            RegisterRange(_MMIO_REGION, _register(_VBE_X_OFFSET), 4),
        )
    )


@hookimpl
def get_surface_info(source: Device, plane: PlaneType, output: int) -> SurfaceInfo | None:
    """Query the primary plane; mbochs has no other."""
    if output or plane is not PlaneType.PRIMARY:
        return None
    return source.query_plane(plane, GfxKind.DMABUF)


@hookimpl
def create_dmabuf(source: Device, surface: SurfaceInfo) -> DmaBuf:
    """Return the surface's dma-buf, to be handed on; it cannot be mapped."""
    return source.get_dmabuf(surface)


@hookimpl
def query_region(source: Device, surface: SurfaceInfo) -> Mappable:
    """Return region 0 with the start of the picture, from the VBE registers.

    The registers are the guest's and may be another mode's by now. So they are believed only if they are the same
    before and after a query that answers this surface.
    """
    registers = source.region(_MMIO_REGION)
    if registers is None:
        raise BadSurface("the device has no region 2 with its VBE registers", device=source.locator)
    for delay in _BACK_OFF:
        time.sleep(delay)
        before = _start(source, registers)
        # by value: once another surface was seen, the same answer is another object; mbochs never gives an id again
        if source.query_plane(PlaneType.PRIMARY, GfxKind.DMABUF) == surface and _start(source, registers) == before:
            x, y = before
            return source.mappable(_VRAM_REGION, pixel_offset=y * surface.stride + x * _BYTES_PER_PIXEL)
    raise GuestChangingMode(
        f"the guest shows another framebuffer than {surface.describe()}, {len(_BACK_OFF)} times",
        device=source.locator,
        hint="it is setting a mode or flipping buffers; try again",
    )


@hookimpl
def diagnose(source: Device) -> list[Finding]:
    """Say by the VBE registers why the plane shows nothing (mbochs_check_framebuffer); nothing where it shows."""
    registers = source.region(_MMIO_REGION)
    if registers is None or source.query_plane(PlaneType.PRIMARY, GfxKind.DMABUF) is not None:
        return []
    width, height, bits, enable = (
        _read(source, registers, number)
        for number in (_VBE_X_RESOLUTION, _VBE_Y_RESOLUTION, _VBE_BITS_PER_PIXEL, _VBE_ENABLE)
    )
    told = f"VBE registers: {width}x{height}, {bits} bits per pixel, ENABLE 0x{enable:02x}"
    if enable & 1:
        cause = "plane-not-ready"
        told += "; the driver hands out 32 bits per pixel and at least 64x64, inside its video memory"
    else:
        cause = "plane-disabled" if width and height else "guest-driver-not-loaded"
    return [Finding(cause=cause, evidence=told, explains=("nothing-displayed",))]


def _start(source: Device, registers: RegionInfo) -> tuple[int, int]:
    """Return X_OFFSET and Y_OFFSET."""
    return _read(source, registers, _VBE_X_OFFSET), _read(source, registers, _VBE_Y_OFFSET)


def _read(source: Device, registers: RegionInfo, number: int) -> int:
    """Return a VBE register; the driver answers reads of exactly two bytes."""
    return int.from_bytes(source.pread(registers, _register(number), 2), "little")


def _register(number: int) -> int:
    return _VBE_BASE + 2 * number
