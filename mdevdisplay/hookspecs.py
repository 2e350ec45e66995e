"""The contract between mdevdisplay and a backend.

A backend is a module (or object) found through the entry-point group ``mdevdisplay``. It marks its functions with
`hookimpl` and implements `probe`, `get_surface_info` and one or both of `create_dmabuf` and `query_region`; the rest
is optional. It may take fewer arguments than a hook has, by name.

Threads: the hooks of one source are called one at a time, possibly from different threads. A hook may block, since
callers set deadlines; it must not start a second request to a device whose first has not come back.

Errors: raise `mdevdisplay.errors`; an OSError is translated by its errno; anything else is reported as a fault of the
backend, by its name.

Versions: `VERSION` is (major, minor). A backend says which it was written for by ``HOOKSPEC_VERSION = (1, 0)`` at the
top of its module; without it 1.0 is assumed. Another major version is not loaded. A newer minor version adds hooks or
arguments with defaults and breaks nobody; a backend that uses what its newer minor version added is not loaded by an
older mdevdisplay.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pluggy

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.region import Mappable
from mdevdisplay.source import DeviceInfo, Finding, Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay.vfio.device import ReadOnlyAccess

__all__ = ["GROUP", "VERSION", "Specification", "hookimpl", "hookspec"]

GROUP = "mdevdisplay"
"""The entry-point group of backends, and the name of the pluggy project."""

VERSION = (1, 0)
"""The version of this contract."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Specification:
    """The hooks, documented where they are declared; docs/hooks.md explains them with examples."""

    @hookspec(firstresult=True)
    def probe(self, source: Source) -> Match | Refusal:
        """Say whether this backend can read the source, and how well it suits.

        Called once an open source, for every backend. It must not change the device, and should ask the driver
        rather than guess from names. Whatever it raises is a reason of this backend only, unless the device itself
        failed to answer.

        Args:
            source: an open source of any kind; refuse a kind that you do not know.

        Returns:
            Match(100, …) for a vendor's own backend, 50 by dma-buf, 40 by region; or Refusal with the reason.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def get_surface_info(self, source: Source, plane: PlaneType, output: int) -> SurfaceInfo | None:
        """Say what a plane shows now. Called for every frame, twice.

        Args:
            source: a source that this backend matched.
            plane: which plane; VFIO drivers have PRIMARY and CURSOR.
            output: the number of the output, from 0; VFIO drivers have only 0.

        Returns:
            The surface; the same object as long as nothing changed. None where the plane shows nothing, or does not
            exist: neither is an error.

        Raises:
            BadSurface: the driver's numbers contradict each other.
            GuestChangingMode: the driver could not decode the plane although it was asked again.
            DeviceGone: the device is no more.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def create_dmabuf(self, source: Source, surface: SurfaceInfo) -> DmaBuf | None:
        """Return the dma-buf of a surface.

        Args:
            source: a source that this backend matched.
            surface: what get_surface_info returned last for it.

        Returns:
            A DmaBuf that the caller owns and closes; give away a duplicate of what you keep, with the same key. None
            where this surface is no dma-buf.

        Raises:
            TooManyBuffers: a cap was met.
            DriverError: the driver refused.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def query_region(self, source: Source, surface: SurfaceInfo) -> Mappable | None:
        """Return the memory of a surface that a CPU can map for reading.

        Called when the surface has changed, not for every frame: it is remembered for each plane.

        Args:
            source: a source that this backend matched.
            surface: what get_surface_info returned last for it.

        Returns:
            Where to map; its descriptor stays yours and must live as long as the source. None where this surface is
            in no such memory.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def list_devices(self) -> Iterable[DeviceInfo]:
        """Return the devices that only this backend knows of; the host's mdevs are listed without it.

        It must not open or touch a device. Empty where there are none.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def open_locator(self, locator: str) -> Source | None:
        """Open a locator of this backend's own scheme (``scheme:rest``).

        Returns:
            An open source that the caller closes; None where the scheme is not this backend's.

        Raises:
            LocatorError: the scheme is this backend's and the rest is wrong; say what is right.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def wait_update(self, source: Source, timeout: float) -> bool:
        """Wait until the source announces a change, at most ``timeout`` seconds.

        A source that announces is not polled: its surfaces are asked for once after every announcement. Implement it
        only for a source that announces every change, of its planes' pixels, geometry and position. A change that comes
        while nobody waits is announced by the next call. A backend that has it for some of its sources only returns
        True after a moment for the others, which so are polled.

        Returns:
            True as soon as something changed since the last True, False after the timeout.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def decode(self, surface: SurfaceInfo, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Decode pixels of a format or modifier that the framework does not know.

        Args:
            surface: what the buffer shows.
            buffer: (n,) uint8, read-only: the bytes from the first pixel on, at least ``surface.size`` of them or as
                many as the buffer has.

        Returns:
            (height, width, 4) uint8 in the order B, G, R, A, a new array; None where it is not yours.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def diagnose(self, source: Source) -> Iterable[Finding]:
        """Return what this backend knows about why the device shows nothing or wrong pixels. Safe on a running VM."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def readonly_access(self, source: Source) -> ReadOnlyAccess:
        """Declare the register ranges and ioctls that you use and that change nothing on a device in use.

        On a borrowed source everything else is refused. Requests that change a device, such as VFIO_DEVICE_RESET, are
        refused on every source, and may not be declared. Called once, right after this backend was chosen.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def close_source(self, source: Source) -> None:
        """Drop what this backend keeps for a source. Called once, before the source is closed."""
        raise NotImplementedError
