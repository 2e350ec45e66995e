"""The VFIO display interface, for authors of backends: public and sharp.

It takes descriptors and numbers; it knows neither /proc nor locators. `Device` is what a backend works with.
"""

from mdevdisplay.vfio.device import Device, DeviceSummary, ReadOnlyAccess, RegisterRange
from mdevdisplay.vfio.edid import Edid
from mdevdisplay.vfio.gfx import DmaBufCache, GfxKind, PlaneQuery, ProbeAnswer, decode_plane, same_memory
from mdevdisplay.vfio.quirks import Quirks, quirks_of

__all__ = [
    "Device",
    "DeviceSummary",
    "DmaBufCache",
    "Edid",
    "GfxKind",
    "PlaneQuery",
    "ProbeAnswer",
    "Quirks",
    "ReadOnlyAccess",
    "RegisterRange",
    "decode_plane",
    "quirks_of",
    "same_memory",
]
