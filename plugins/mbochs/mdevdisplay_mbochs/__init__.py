"""Backend for the kernel's mbochs sample: the worked example of a vendor's own backend.

mbochs offers dma-bufs that no CPU can map (its mmap insists on a flag that the kernel takes away from a read-only
descriptor), but the same pixels lie in region 0, its video memory. Where they start there is in the VBE registers of
region 2 (samples/vfio-mdev/mbochs.c, mbochs_check_framebuffer).
"""

from __future__ import annotations

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import BadSurface
from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.region import Mappable
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.vfio import Device, GfxKind, ReadOnlyAccess, RegisterRange

HOOKSPEC_VERSION = (1, 0)

_VRAM_REGION = 0
_MMIO_REGION = 2
_VBE_BASE = 0x500
_VBE_X_OFFSET = 8
_VBE_Y_OFFSET = 9
_BYTES_PER_PIXEL = 4


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match a device of the mbochs driver that answers the dma-buf probe."""
    if not isinstance(source, Device) or source.identity.vendor != "mbochs":
        return Refusal("not an mbochs device")
    answer = source.probe(GfxKind.DMABUF)
    return Match(100, f"driver mbochs, {answer.text}") if answer.supported else Refusal(answer.text)


@hookimpl
def readonly_access() -> ReadOnlyAccess:
    """Reading the two VBE registers of the display's start changes nothing."""
    return ReadOnlyAccess(registers=(RegisterRange(_MMIO_REGION, _register(_VBE_X_OFFSET), 4),))


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
    """Return region 0 with the start of the picture as the VBE registers have it now."""
    registers = source.region(_MMIO_REGION)
    if registers is None:
        raise BadSurface("the device has no region 2 with its VBE registers", device=source.locator)
    # the driver answers reads of exactly two bytes
    x, y = (
        int.from_bytes(source.pread(registers, _register(number), 2), "little")
        for number in (_VBE_X_OFFSET, _VBE_Y_OFFSET)
    )
    start = y * surface.stride + x * _BYTES_PER_PIXEL
    return source.mappable(_VRAM_REGION, pixel_offset=start)


def _register(number: int) -> int:
    return _VBE_BASE + 2 * number
