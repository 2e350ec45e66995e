"""See what a virtual GPU is showing.

    import mdevdisplay
    with mdevdisplay.open("sim:") as display:
        display.capture().save("shot.png")

Every name is loaded when it is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost as much as Python's own start
if TYPE_CHECKING:
    from mdevdisplay.aio import AsyncDisplay, aopen
    from mdevdisplay.backend_info import BackendInfo
    from mdevdisplay.connecting import backends
    from mdevdisplay.display import Display, devices, open, open_fd  # noqa: A004 - the name that people expect
    from mdevdisplay.dmabuf import DmaBuf
    from mdevdisplay.errors import MdevDisplayError, NothingDisplayed, TimedOut, VmGone
    from mdevdisplay.formats import fourcc, fourcc_name, modifier_name
    from mdevdisplay.hookspecs import hookimpl
    from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
    from mdevdisplay.source import DeviceInfo, Identity, Source
    from mdevdisplay.surface import Match, PlaneType, Rect, Refusal, RegionInfo, SurfaceInfo

_HOME = {
    "AsyncDisplay": "aio",
    "BackendInfo": "backend_info",
    "Blank": "pixels.frame",
    "DeviceInfo": "source",
    "Display": "display",
    "DmaBuf": "dmabuf",
    "Frame": "pixels.frame",
    "FrameFlags": "pixels.frame",
    "Identity": "source",
    "Match": "surface",
    "MdevDisplayError": "errors",
    "NothingDisplayed": "errors",
    "PlaneType": "surface",
    "Rect": "surface",
    "Refusal": "surface",
    "RegionInfo": "surface",
    "Source": "source",
    "SurfaceInfo": "surface",
    "TimedOut": "errors",
    "VmGone": "errors",
    "aopen": "aio",
    "backends": "connecting",
    "devices": "display",
    "fourcc": "formats",
    "fourcc_name": "formats",
    "hookimpl": "hookspecs",
    "modifier_name": "formats",
    "open": "display",
    "open_fd": "display",
}

__version__ = "0.1.0"

__all__ = [
    "AsyncDisplay",
    "BackendInfo",
    "Blank",
    "DeviceInfo",
    "Display",
    "DmaBuf",
    "Frame",
    "FrameFlags",
    "Identity",
    "Match",
    "MdevDisplayError",
    "NothingDisplayed",
    "PlaneType",
    "Rect",
    "Refusal",
    "RegionInfo",
    "Source",
    "SurfaceInfo",
    "TimedOut",
    "VmGone",
    "aopen",
    "backends",
    "devices",
    "fourcc",
    "fourcc_name",
    "hookimpl",
    "modifier_name",
    "open",
    "open_fd",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
