"""Backend for drivers that show a plane in a region that can be mapped, as NVIDIA vGPU and mdpy do.

By Kirti Wankhede's proposal: QUERY_GFX_PLANE with the REGION flag, then the region that it names. The driver gives
a drm_format there too, as Gerd Hoffmann asked for.
"""

from __future__ import annotations

from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.region import Mappable
from mdevdisplay.source import Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.vfio import Device, GfxKind, same_memory

HOOKSPEC_VERSION = (1, 0)

# reading a member of an enumeration costs a call, and these are read for every frame
_PRIMARY = PlaneType.PRIMARY
_OVERLAY = PlaneType.OVERLAY
_KIND = GfxKind.REGION


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match a VFIO device whose driver answers the region probe."""
    if not isinstance(source, Device):
        return Refusal("not a VFIO device")
    answer = source.probe(GfxKind.REGION)
    return Match(40, answer.text) if answer.supported else Refusal(answer.text)


@hookimpl
def get_surface_info(source: Device, plane: PlaneType, output: int) -> SurfaceInfo | None:
    """Query a plane. mdpy and NVIDIA ignore the plane's type: a cursor that lies where the primary does is none."""
    if plane is _PRIMARY and not output:
        return source.query_plane(plane, _KIND)
    if output or plane is _OVERLAY:
        return None
    surface, primary = source.query_plane(plane, _KIND), source.query_plane(_PRIMARY, _KIND)
    return None if surface is None or primary is None or same_memory(surface, primary) else surface


@hookimpl
def query_region(source: Device, surface: SurfaceInfo) -> Mappable | None:
    """Return the region that the plane lies in; its number may be beyond the device's own count."""
    if surface.region_index is None:
        return None
    return source.mappable(surface.region_index)
