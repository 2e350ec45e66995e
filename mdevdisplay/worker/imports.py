"""What a worker cannot map, read by a GPU in this process: the worker has no rights to a render node.

The worker hands out dma-bufs, never the device itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import DriverError, GuestChangingMode, MdevDisplayError, NotMappable, UnsupportedFormat
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.pixels.gpu_memory import GpuBuffers, GpuMemory
from mdevdisplay.pixels.picture import LivePicture
from mdevdisplay.pixels.pool import FramePool
from mdevdisplay.reader import Readability, unreadable
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo, same_pixels

__all__ = ["Imports"]

_TRIES = 3


class Imports:
    """The planes of one display that a GPU reads. Not thread-safe."""

    def __init__(
        self,
        locator: str,
        parent: Callable[[], str],
        surface: Callable[[PlaneType], SurfaceInfo | None],
        dmabuf: Callable[[PlaneType], DmaBuf],
    ) -> None:
        """Ask for the device's parent, for surfaces and for dma-bufs with three functions."""
        self._locator = locator
        self._parent = parent
        self._gpu: GpuBuffers | None = None
        self._surface = surface
        self._dmabuf = dmabuf
        self._pool = FramePool()
        self._refused: dict[PlaneType, tuple[SurfaceInfo, NotMappable]] = {}
        self._live: dict[PlaneType, LivePicture] = {}

    def reads(self, plane: PlaneType) -> bool:
        """Whether the plane still shows what was refused to be mapped, so that the worker need not try again."""
        if plane not in self._refused:
            return False
        surface = self._surface(plane)
        if surface is not None and same_pixels(surface, self._refused[plane][0]):
            return True
        del self._refused[plane]
        return False

    def refuse(self, plane: PlaneType, error: NotMappable) -> None:
        """Note that the worker could not map a plane."""
        surface = self._surface(plane)
        if surface is not None:
            self._refused[plane] = (surface, error)

    def look(self, plane: PlaneType, last: Frame | Blank | None, base: int) -> Frame | Blank:
        """Return what a plane shows; serials begin behind ``base``."""
        live = self._live.setdefault(plane, LivePicture())
        live.serial = max(live.serial, base)
        surface, torn = self._refresh(plane, live)
        passing = FrameFlags.STALE if torn else FrameFlags.STALE | FrameFlags.TORN
        if isinstance(last, Frame) and last.serial == live.serial and not last.flags & passing:
            return last
        raw = live.copy(self._pool)
        return Frame(
            raw,
            surface,
            pixels=raw,
            serial=live.serial,
            timestamp=time.monotonic(),
            flags=FrameFlags.TORN if torn else FrameFlags.NONE,
            device=self._locator,
            changed=live.damage.since(last.serial) if isinstance(last, Frame) else None,
        )

    def _refresh(self, plane: PlaneType, live: LivePicture) -> tuple[SurfaceInfo, bool]:
        """Bring a picture up to date; return what it shows, and whether it is torn."""
        for _ in range(_TRIES - 1):
            memory = self._memory(plane)
            torn = live.look(memory.surface, memory)
            after = self._surface(plane)
            if after is None:
                return memory.surface, True
            if same_pixels(memory.surface, after):
                return memory.surface, torn
        memory = self._memory(plane)
        live.look(memory.surface, memory)
        after = self._surface(plane)
        return memory.surface, after is None or not same_pixels(memory.surface, after)

    def damage_since(self, plane: PlaneType, serial: int) -> tuple[Rect, ...] | None:
        """Return the rectangles that changed after a serial; None for a plane that no GPU reads."""
        return self._live[plane].damage.rects_since(serial) if plane in self._live else None

    def serial(self, plane: PlaneType) -> int:
        """Return the serial of the plane's last picture; 0 where there was none."""
        return self._live[plane].serial if plane in self._live else 0

    def forget(self, plane: PlaneType) -> None:
        """Let go of a plane's picture: the worker reads it again, or it shows nothing."""
        self._live.pop(plane, None)
        self._refused.pop(plane, None)

    def readability(self, plane: PlaneType) -> Readability:
        """Say how a plane that was refused can be had."""
        try:
            memory = self._memory(plane)
            memory.importer.check(memory.surface)
            return Readability(way="import", reason=memory.why)
        except MdevDisplayError as error:
            return unreadable(error)

    def _memory(self, plane: PlaneType) -> GpuMemory:
        if self._gpu is None:
            self._gpu = GpuBuffers(self._locator, self._parent())
        refused = self._refused.get(plane)
        if refused is None:  # it went dark, or flipped, right after it was refused
            raise GuestChangingMode("the plane changed while it was read", device=self._locator, hint="try again")
        try:
            dmabuf = self._dmabuf(plane)
        except (UnsupportedFormat, DriverError) as error:  # there is none, or it is none: the first refusal says more
            first = refused[1]
            raise NotMappable(first.message, device=self._locator, hint=first.hint, errno=first.errno) from error
        return self._gpu.find(dmabuf.surface, dmabuf, refused[1])

    def close(self) -> None:
        """Let go of everything. Idempotent; frames that somebody keeps stay readable."""
        self._live.clear()
        self._refused.clear()
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None
