"""What a display asks of its reader: in this process, in another, or one that is opened anew when its VM returns."""

from __future__ import annotations

from typing import Any, Protocol

from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.reader import Readability
from mdevdisplay.source import Finding, Identity
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.edid import Edid

__all__ = ["DisplayReader", "Viewable"]


class Viewable(Protocol):
    """Pinned pixels."""

    def view(self) -> Raw:
        """Return them without a copy."""
        ...


class DisplayReader(Protocol):
    """One display's operations, for one thread at a time and without deadlines; see `mdevdisplay.reader.Reader`."""

    @property
    def locator(self) -> str:
        """How the display was named."""
        ...

    @property
    def identity(self) -> Identity:
        """Driver, vendor, type and parent of the device."""
        ...

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the device."""
        ...

    @property
    def backend_info(self) -> BackendInfo:
        """The chosen backend."""
        ...

    def surface(self, plane: PlaneType) -> SurfaceInfo | None:
        """Return what a plane shows now, or None."""
        ...

    def look(self, plane: PlaneType, last: Frame | Blank | None = None, *, cursor: bool = False) -> Frame | Blank:
        """Return what a plane shows, with the cursor or without; ``last`` itself where it is still that."""
        ...

    def damage_since(self, plane: PlaneType, serial: int, *, cursor: bool = False) -> tuple[Rect, ...]:
        """Return what changed after a serial."""
        ...

    @property
    def announces(self) -> bool:
        """Whether the source announces its changes."""
        ...

    def wait_update(self, seen: int) -> int:
        """Wait a moment for more announcements than ``seen``; return how many there have been."""
        ...

    def pin(self, plane: PlaneType) -> Any:
        """Return a `Viewable` that is valid until `unpin`."""
        ...

    def unpin(self, memory: Any) -> None:
        """Let go what `pin` returned."""
        ...

    def dmabuf(self, plane: PlaneType) -> DmaBuf:
        """Return the plane's dma-buf, the caller's own."""
        ...

    def edid(self) -> Edid | None:
        """Return the device's EDID region, or None."""
        ...

    def readability(self, plane: PlaneType) -> Readability:
        """Say how the pixels of a plane can be had."""
        ...

    def findings(self) -> tuple[Finding, ...]:
        """Return what the backend knows about the device's state."""
        ...

    def interrupt(self) -> None:
        """Let a call that waits for another process fail at once; from any thread, and `close` has to follow."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
