"""The VFIO display interface, for authors of backends: public and sharp.

It takes descriptors and numbers; it knows neither /proc nor locators. `Device` is what a backend works with.
"""

from mdevdisplay.vfio.device import Device, DeviceSummary, ReadOnlyAccess, RegisterRange
from mdevdisplay.vfio.edid import Edid
from mdevdisplay.vfio.gfx import DmaBufCache, GfxKind, ProbeAnswer, decode_plane, plane_query, same_memory
from mdevdisplay.vfio.quirks import Quirks, quirks_of

__all__ = [
    "Device",
    "DeviceSummary",
    "DmaBufCache",
    "Edid",
    "GfxKind",
    "ProbeAnswer",
    "Quirks",
    "ReadOnlyAccess",
    "RegisterRange",
    "decode_plane",
    "plane_query",
    "quirks_of",
    "same_memory",
]
