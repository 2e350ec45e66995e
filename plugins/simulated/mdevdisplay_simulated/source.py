"""An open simulated display, read as a real device is: through the framework's own plane query and dma-buf cache."""

from __future__ import annotations

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import DeviceNotFound, from_oserror
from mdevdisplay.region import Mappable
from mdevdisplay.source import Identity, Source
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.vfio import DmaBufCache, GfxKind, ProbeAnswer, Quirks, plane_query, same_memory
from mdevdisplay.vfio.gfx import probe
from mdevdisplay_simulated.memory import UDMABUF
from mdevdisplay_simulated.options import Options, parse

__all__ = ["SimulatedSource"]


class SimulatedSource(Source):
    """A simulated display.

    Attributes:
        options: what is simulated.
        driver: what answers the ioctls.
        kind: how it hands its planes out; the dma-buf where it offers both.
    """

    def __init__(self, locator: str) -> None:
        """Open a ``sim:`` locator.

        Raises:
            LocatorError: an option is wrong; the message says what is right.
            DeviceNotFound: ``udmabuf=on`` and this host has no udmabuf.
        """
        from mdevdisplay_simulated.driver import SimulatedDriver  # with the drawing, which listing devices needs not

        self.options = parse(locator)
        try:
            self.driver = SimulatedDriver(self.options, locator)
        except OSError as error:
            if self.options.udmabuf == "on":
                raise from_oserror(
                    error,
                    device=locator,
                    doing=f"option udmabuf=on: making a dma-buf with {UDMABUF}",
                    hint="load the kernel's udmabuf module, or leave udmabuf=on out",
                    kind=DeviceNotFound,
                ) from error
            raise from_oserror(error, device=locator, doing="making the simulated display's memory") from error
        identity = Identity(name="simulated", driver="simulated", vendor="simulated")
        super().__init__(locator, identity)
        self.kind = GfxKind.REGION if self.options.via == "region" else GfxKind.DMABUF
        quirks = _quirks(self.options)
        self.cursor_sign_lost = quirks.cursor_sign_lost
        self._queries = {
            plane: plane_query(self.driver.ioctl, plane, self.kind, quirks, locator)
            for plane in (PlaneType.PRIMARY, PlaneType.CURSOR)
        }
        self._dmabufs = DmaBufCache(self.driver.ioctl, quirks, locator)
        self._primary: SurfaceInfo | None = None

    def probe(self) -> ProbeAnswer:
        """Ask the driver as a real one is asked."""
        self.check_open()
        return probe(self.driver.ioctl, self.kind, self.locator)

    def query_plane(self, plane: PlaneType) -> SurfaceInfo | None:
        """Ask what a plane shows now; None for nothing."""
        if self._closed:
            self.check_open()
        surface = self._queries[plane]()
        if plane is PlaneType.PRIMARY:
            self._primary = surface
        elif surface is not None and self._is_primary(surface):
            return None
        return surface

    def _is_primary(self, surface: SurfaceInfo) -> bool:
        """Whether a cursor is the primary plane again, as mdpy and NVIDIA answer."""
        primary = self._primary or self.query_plane(PlaneType.PRIMARY)
        return primary is not None and same_memory(surface, primary)

    def get_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:
        """Return the dma-buf of a surface, the caller's own; None where it has none."""
        self.check_open()
        return None if surface.dmabuf_id is None else self._dmabufs.get(surface)

    def mappable(self, surface: SurfaceInfo) -> Mappable | None:
        """Return the memory of a surface; None where only its dma-buf is offered, or it is in no memory any more."""
        self.check_open()
        if surface.region_index is not None:
            return self.driver.region(surface.region_index)
        if self.options.via == "dmabuf" or surface.dmabuf_id is None:
            return None
        return self.driver.memory_of(surface.dmabuf_id)

    def _release(self) -> None:
        try:
            self._dmabufs.close()
        finally:
            self.driver.close()


def _quirks(options: Options) -> Quirks:
    """Return the quirks that go with the faults, as the framework's table has them for the real drivers."""
    names = [name for name, _ in options.faults]
    return Quirks(
        get_once="get-once" in names,
        size_in_pages="size-in-pages" in names,
        cursor_sign_lost="cursor-sign-lost" in names,
    )
