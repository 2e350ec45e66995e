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
from mdevdisplay.pixels.composed import ComposedPicture
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.pixels.gpu_memory import GpuBuffers, GpuMemory
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.pixels.memory import Memory, SurfaceMemory
from mdevdisplay.pixels.picture import LivePicture
from mdevdisplay.pixels.pool import FramePool
from mdevdisplay.pixels.shadow import PixelSource
from mdevdisplay.source import Finding, Identity, Source
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo, same_pixels
from mdevdisplay.vfio.device import Device
from mdevdisplay.vfio.edid import Edid
from mdevdisplay.vfio.guest import guest_findings

__all__ = ["WAIT_SLICE", "Readability", "Reader", "nothing_displayed", "unreadable"]

WAIT_SLICE = 0.05
"""Seconds that a source which announces its changes is waited for at a time: others may want the display too."""
_TRIES = 3


@attrs.frozen(kw_only=True)
class Readability:
    """How a surface's pixels can be had.

    Attributes:
        way: ``"region"`` or ``"dma-buf"`` for a mapping, ``"read"`` for a file that could be truncated under a mapping,
            ``"import"`` for a GPU that reads them back, or ``""`` where they cannot.
        cause: the stable id of why not, or "".
        reason: why not, with what to do; why they are not mapped where a GPU reads them; "" else.
    """

    way: str
    reason: str = ""
    cause: str = ""


class Reader:
    """One source with its backend: surfaces, copies, mappings. Not thread-safe.

    Attributes:
        source: what is read.
        backend: its backend.
        output: the number of the output.
        looked_at: the surface of every plane's picture.
    """

    def __init__(self, source: Source, backend: Backend, *, output: int = 0, imports: bool = True) -> None:
        """Take over an open source; close() closes it. With ``imports`` a GPU reads what a CPU cannot map."""
        self.source = source
        self.backend = backend
        self.output = output
        gpu = GpuBuffers(source.locator, source.identity.parent) if imports else None
        self._memory = SurfaceMemory(backend, source.locator, gpu)
        self._pool = FramePool()
        self._live = {plane: LivePicture() for plane in PlaneType}
        self._announced = 0
        self._composed = ComposedPicture(self._look, sign_lost=source.cursor_sign_lost)
        self.looked_at: dict[PlaneType, SurfaceInfo] = {}
        # registered after the backend's clean-ups, so run before them: maps and dma-bufs go first
        source.on_close(self._memory.close)
        source.on_close(self._forget)

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

    def pin(self, plane: PlaneType) -> Memory:
        """Return where the plane's pixels can be read now, and keep a dma-buf mapped until `unpin`."""
        memory = self._memory.find(self.shown(plane))
        memory.view()  # refuses what can only be read
        self._memory.pin(memory)
        return memory

    def unpin(self, memory: Memory) -> None:
        """Let go what `pin` returned."""
        self._memory.unpin(memory)

    def look(self, plane: PlaneType, last: Frame | Blank | None = None, *, cursor: bool = False) -> Frame | Blank:
        """Return what a plane shows, copied anew if it changed meanwhile; ``last`` itself where it is still that.

        With ``cursor`` the primary plane is shown with the cursor drawn over it.
        """
        return self._composed.look(last) if cursor else self._look(plane, last)

    def _look(self, plane: PlaneType, last: Frame | Blank | None) -> Frame | Blank:
        live = self.live(plane)
        try:
            torn = self.refresh(plane)
        except NothingDisplayed:
            live.blank()
            if isinstance(last, Blank) and last.serial == live.serial:
                return last
            return Blank(serial=live.serial, timestamp=time.monotonic())
        passing = FrameFlags.STALE if torn else FrameFlags.STALE | FrameFlags.TORN
        if isinstance(last, Frame) and last.serial == live.serial and not last.flags & passing:
            return last
        return self._frame(plane, torn=torn, last=last)

    def live(self, plane: PlaneType) -> LivePicture:
        """Return what is known of the picture of a plane."""
        return self._live[plane]

    def refresh(self, plane: PlaneType) -> bool:
        """Bring the picture of a plane up to date; return whether it is torn.

        Raises:
            NothingDisplayed: the plane shows nothing.
        """
        surface = self.shown(plane)
        for _ in range(_TRIES):
            torn = self._live[plane].look(surface, self._memory.find(surface))
            self.looked_at[plane] = surface
            after = self.surface(plane)
            if after is None:
                return True
            if same_pixels(surface, after):
                return torn
            surface = after
        return True

    def _frame(self, plane: PlaneType, *, torn: bool, last: Frame | Blank | None) -> Frame:
        live, surface = self._live[plane], self.looked_at[plane]
        raw = live.copy(self._pool)
        return Frame(
            raw,
            surface,
            pixels=self.decoded(plane, raw),
            serial=live.serial,
            timestamp=time.monotonic(),
            flags=FrameFlags.TORN if torn else FrameFlags.NONE,
            device=self.source.locator,
            changed=live.damage.since(last.serial) if isinstance(last, Frame) else None,
        )

    def damage_since(self, plane: PlaneType, serial: int, *, cursor: bool = False) -> tuple[Rect, ...]:
        """Return the rectangles of a plane that changed after a serial."""
        if cursor:
            return self._composed.damage_since(serial)
        return self._live[plane].damage.rects_since(serial)

    def decoded(self, plane: PlaneType, raw: Raw) -> npt.NDArray[np.uint8] | None:
        """Return what the backend makes of a format of its own, or a GPU of any; None for one that we convert."""
        surface, live = self.looked_at[plane], self._live[plane]
        if live.layout is not surface:
            return raw
        if convert.is_decodable(surface) or not self.backend.can_decode:
            return None
        return self.backend.decode(surface, raw.reshape(-1).view(np.uint8))

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
                convert.check_decodable(memory.layout)
            if isinstance(memory, GpuMemory):
                memory.importer.check(surface)
        except (GuestChangingMode, Closed):
            raise
        except MdevDisplayError as error:
            return unreadable(error)
        return Readability(way=memory.way, reason=memory.why if isinstance(memory, GpuMemory) else "")

    def _decodes(self, memory: PixelSource) -> bool:
        """Whether the backend decodes a format that is not ours: only trying tells."""
        surface = memory.layout
        if convert.is_decodable(surface) or not self.backend.can_decode:
            return False
        buffer = np.empty(memory.extent, np.uint8)
        with memory.reading():
            memory.copy_into(buffer)
        buffer.flags.writeable = False
        return self.backend.decode(surface, buffer) is not None

    @property
    def announces(self) -> bool:
        """Whether the source announces its changes, so that it need not be polled."""
        return self.backend.can_wait

    def wait_update(self, seen: int) -> int:
        """Wait a moment for more announcements than ``seen``; return how many there have been."""
        if self._announced == seen:
            begin = time.monotonic()
            if self.backend.wait_update(WAIT_SLICE):
                self._announced += 1
            else:  # a backend that does not wait must not make us spin
                time.sleep(max(0.0, begin + WAIT_SLICE - time.monotonic()))
        return self._announced

    def findings(self) -> tuple[Finding, ...]:
        """Return what the backend itself, and else the device's configuration, tell about its state."""
        told = self.backend.diagnose()
        if not isinstance(self.source, Device) or any(finding.explains for finding in told):
            return told
        try:
            shown = self.surface(PlaneType.PRIMARY)
        except MdevDisplayError:
            return told
        return told if shown is not None else told + guest_findings(self.source)

    def _forget(self) -> None:
        for live in self._live.values():
            live.forget()

    def interrupt(self) -> None:
        """Do nothing: a call that is inside the kernel cannot be interrupted."""

    def close(self) -> None:
        """Drop mappings, dma-bufs and the source, in this order. Idempotent."""
        self.source.close()


def unreadable(error: MdevDisplayError) -> Readability:
    """Return how pixels can be had that an error keeps from being read: not at all."""
    reason = f"{error.message}; {error.hint}" if error.hint else error.message
    return Readability(way="", reason=reason, cause=error.cause)


def nothing_displayed(plane: PlaneType, device: str) -> NothingDisplayed:
    """Return the error for a plane that shows nothing."""
    return NothingDisplayed(
        f"the {plane.name.lower()} plane shows nothing",
        device=device,
        hint="no guest has set a mode yet, its driver is not loaded, or it switched its screen off; wait for "
        "it with capture(wait=…) or --wait",
    )
