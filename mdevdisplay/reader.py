"""Reading one open source: every step that reaches the driver, for one thread at a time and without deadlines.

`mdevdisplay.display` and `mdevdisplay.aio` put a lane around it.
"""

from __future__ import annotations

import time

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay._manager import Backend
from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import (
    Closed,
    GuestChangingMode,
    MdevDisplayError,
    NothingDisplayed,
    UnsupportedFormat,
)
from mdevdisplay.pixels import convert
from mdevdisplay.pixels.file_memory import FileMemory
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.pixels.layout import raw_view
from mdevdisplay.pixels.memory import PixelMemory, SurfaceMemory
from mdevdisplay.pixels.pool import BufferPool, FramePool
from mdevdisplay.source import Finding, Identity, Source
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.edid import Edid

__all__ = ["Readability", "Reader", "nothing_displayed"]

_TRIES = 3


@attrs.frozen(kw_only=True)
class Readability:
    """How a surface's pixels can be had.

    Attributes:
        way: ``"region"`` or ``"dma-buf"`` for a mapping, ``"read"`` for a file that could be truncated under a mapping,
            or ``""`` where they cannot.
        reason: why not, with what to do; "" where they can.
    """

    way: str
    reason: str = ""


class Reader:
    """One source with its backend: surfaces, copies, mappings. Not thread-safe.

    Attributes:
        source: what is read.
        backend: its backend.
        output: the number of the output.
        pool: where the buffers of frames come from.
    """

    def __init__(self, source: Source, backend: Backend, *, output: int = 0, pool: BufferPool | None = None) -> None:
        """Take over an open source; close() closes it. Frames lie in buffers of ``pool``, None for ordinary memory."""
        self.source = source
        self.backend = backend
        self.output = output
        self._memory = SurfaceMemory(backend, source.locator)
        self.pool = pool or FramePool()
        self._serial = 0
        # registered after the backend's clean-ups, so run before them: maps and dma-bufs go first
        source.on_close(self._memory.close)

    @property
    def locator(self) -> str:
        """How the display was named."""
        return self.source.locator

    @property
    def identity(self) -> Identity:
        """Driver, vendor, type and parent of the device."""
        return self.source.identity

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the device."""
        return self.source.borrowed

    @property
    def lost(self) -> bool:
        """Whether the device's owner has ended."""
        return self.source.lost

    @property
    def backend_info(self) -> BackendInfo:
        """The chosen backend, as a value."""
        return self.backend.info()

    def surface(self, plane: PlaneType) -> SurfaceInfo | None:
        """Return what a plane shows now, or None."""
        return self.backend.get_surface_info(plane, self.output)

    def shown(self, plane: PlaneType) -> SurfaceInfo:
        """Return what a plane shows now; raises `NothingDisplayed` for nothing."""
        surface = self.surface(plane)
        if surface is None:
            raise nothing_displayed(plane, self.source.locator)
        return surface

    def pin(self, plane: PlaneType) -> PixelMemory | FileMemory:
        """Return where the plane's pixels can be read now, and keep a dma-buf mapped until `unpin`."""
        memory = self._memory.find(self.shown(plane))
        memory.view()  # refuses what can only be read
        self._memory.pin(memory)
        return memory

    def unpin(self, memory: PixelMemory | FileMemory) -> None:
        """Let go what `pin` returned."""
        self._memory.unpin(memory)

    def capture(self, plane: PlaneType) -> Frame:
        """Copy a plane, anew if it changed meanwhile; raises `NothingDisplayed` for nothing."""
        tries = 1
        surface = self.shown(plane)
        buffer = self._copy(surface)
        after = self.surface(plane)
        while after is not None and not _same_pixels(surface, after) and tries < _TRIES:
            tries += 1
            surface = after
            buffer = self._copy(surface)
            after = self.surface(plane)
        layout = surface.format
        stride = layout.minimum_stride(surface.width) if layout is not None else 0
        return Frame(
            raw_view(buffer, 0, surface, stride),
            surface,
            pixels=self._decoded(surface, buffer),
            serial=self._next_serial(),
            timestamp=time.monotonic(),
            flags=FrameFlags.NONE if after is not None and _same_pixels(surface, after) else FrameFlags.TORN,
            device=self.source.locator,
        )

    def _decoded(self, surface: SurfaceInfo, buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        """Return what the backend makes of a format of its own; None for one that the framework converts."""
        if convert.is_decodable(surface) or not self.backend.can_decode:
            return None
        flat = buffer.view()
        flat.flags.writeable = False
        return self.backend.decode(surface, flat)

    def _copy(self, surface: SurfaceInfo) -> npt.NDArray[np.uint8]:
        memory = self._memory.find(surface)
        buffer = self.pool.take(memory.size)
        memory.copy_into(buffer)
        return buffer

    def picture(self, plane: PlaneType) -> Frame | Blank:
        """Return a frame, or a `Blank` where the plane shows nothing."""
        try:
            return self.capture(plane)
        except NothingDisplayed:
            return Blank(serial=self._next_serial(), timestamp=time.monotonic())

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def dmabuf(self, plane: PlaneType) -> DmaBuf:
        """Return the plane's dma-buf, the caller's own; raises `UnsupportedFormat` where there is none."""
        buffer = self.backend.create_dmabuf(self.shown(plane))
        if buffer is None:
            raise UnsupportedFormat(
                f"backend {self.backend.name} reads this device through a region; it has no dma-buf",
                device=self.source.locator,
                hint="use map() or capture()",
                cause="no-dmabuf",
            )
        return buffer

    def edid(self) -> Edid | None:
        """Return the device's EDID region, or None where it has none."""
        return self.source.read_edid() if isinstance(self.source, Device) else None

    def readability(self, plane: PlaneType) -> Readability:
        """Say how the pixels of a plane can be had, or why not; raises `NothingDisplayed` for nothing."""
        surface = self.shown(plane)
        try:
            memory = self._memory.find(surface)
            if not self._decodes(memory):
                convert.check_decodable(surface)
        except (GuestChangingMode, Closed):
            raise
        except MdevDisplayError as error:
            return Readability(way="", reason=f"{error.message}; {error.hint}" if error.hint else error.message)
        return Readability(way=memory.way)

    def _decodes(self, memory: PixelMemory | FileMemory) -> bool:
        """Whether the backend decodes a format that is not ours: only trying tells."""
        if convert.is_decodable(memory.surface) or not self.backend.can_decode:
            return False
        buffer = self.pool.take(memory.size)
        memory.copy_into(buffer)
        return self._decoded(memory.surface, buffer) is not None

    def findings(self) -> tuple[Finding, ...]:
        """Return what the backend itself knows about the state of the device."""
        return self.backend.diagnose()

    def interrupt(self) -> None:
        """Do nothing: a call that is inside the kernel cannot be interrupted."""

    def close(self) -> None:
        """Drop mappings, dma-bufs and the source, in this order. Idempotent."""
        self.source.close()


def nothing_displayed(plane: PlaneType, device: str) -> NothingDisplayed:
    """Return the error for a plane that shows nothing."""
    return NothingDisplayed(
        f"the {plane.name.lower()} plane shows nothing",
        device=device,
        hint="no guest has set a mode yet, its driver is not loaded, or it switched its screen off; wait for "
        "it with capture(wait=…) or --wait",
    )


def _same_pixels(one: SurfaceInfo, other: SurfaceInfo) -> bool:
    """Whether two answers name the same pixels; a cursor that only moved does."""
    return one is other or one == attrs.evolve(other, x=one.x, y=one.y, x_hot=one.x_hot, y_hot=one.y_hot)
