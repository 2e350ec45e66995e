"""Backend for drivers that hand planes out as dma-bufs, as Intel GVT-g does.

By Xiaoguang Chen's and Tina Zhang's interface: QUERY_GFX_PLANE with the DMABUF flag, then GET_GFX_DMABUF. Any driver
that answers the probe is read, whoever made it. What is special about one driver is in `mdevdisplay.vfio.quirks`.
"""

from __future__ import annotations

import attrs

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.vfio import Device, GfxKind

HOOKSPEC_VERSION = (1, 0)

# reading a member of an enumeration costs a call, and these are read for every frame
_PRIMARY = PlaneType.PRIMARY
_OVERLAY = PlaneType.OVERLAY
_KIND = GfxKind.DMABUF

_STATE = "intel_gvt"


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match a VFIO device whose driver answers the dma-buf probe."""
    if not isinstance(source, Device):
        return Refusal("not a VFIO device")
    answer = source.probe(GfxKind.DMABUF)
    return Match(50, answer.text) if answer.supported else Refusal(answer.text)


@hookimpl
def get_surface_info(source: Device, plane: PlaneType, output: int) -> SurfaceInfo | None:
    """Query a plane; GVT-g shows the first enabled pipe only, and no overlay."""
    if output or plane is _OVERLAY:
        return None
    surface = source.query_plane(plane, _KIND)
    return surface if surface is None or plane is _PRIMARY else _cursor(source, surface)


def _cursor(source: Device, surface: SurfaceInfo) -> SurfaceInfo:
    """Distrust a hot spot outside the picture: the guest's driver writes it (PVINFO), or does not."""
    if (surface.x_hot or 0) < surface.width and (surface.y_hot or 0) < surface.height:
        return surface
    kept: tuple[SurfaceInfo, SurfaceInfo] | None = source.state.get(_STATE)
    if kept is None or kept[0] is not surface:  # the same answer must give the same object
        kept = source.state[_STATE] = (surface, attrs.evolve(surface, x_hot=None, y_hot=None))
    return kept[1]


@hookimpl
def create_dmabuf(source: Device, surface: SurfaceInfo) -> DmaBuf:
    """Return the surface's dma-buf: a duplicate of the one that the device keeps."""
    return source.get_dmabuf(surface)
