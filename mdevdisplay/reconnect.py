"""A reader that opens its display anew when the VM comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import attrs

from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import (
    Closed,
    DeviceBusy,
    DeviceGone,
    DeviceNotFound,
    LocatorError,
    MdevDisplayError,
    TimedOut,
    VmGone,
    WorkerDied,
)
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.reader import Readability
from mdevdisplay.reading import DisplayReader
from mdevdisplay.source import Finding, Identity
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.edid import Edid

__all__ = ["ReconnectingReader", "check_returns"]

T = TypeVar("T")
_Kind = tuple[PlaneType, bool]
"""A plane, and whether the cursor is drawn over it."""


class Connect(Protocol):
    """Opens a display; with ``must_attach`` only one that a VM has."""

    def __call__(self, *, must_attach: bool) -> DisplayReader:
        """Return its reader."""
        ...


_AWAY = (DeviceNotFound, DeviceGone, DeviceBusy, LocatorError, TimedOut, WorkerDied)
"""What opening raises while the VM is away, or not all there yet."""
_STEP = 0.5
"""Seconds between two attempts to open the display anew."""


def check_returns(locator: str) -> None:
    """Raise `LocatorError` for a locator that names one process or one descriptor: neither comes back."""
    if locator.partition(":")[0] in ("pid", "fd"):
        raise LocatorError(
            "names one process or one descriptor, which does not come back",
            device=locator,
            hint="to reconnect name the device by its UUID, or the VM: vm:NAME",
        )


class ReconnectingReader:
    """Stands for one display whose VM may end and start again. Calls in between raise `VmGone`.

    Serial numbers go on counting. Not thread-safe, like every reader.
    """

    def __init__(self, connect: Connect) -> None:
        """Open the display with ``connect``, now and whenever it is gone; what it raises now is raised.

        What was borrowed once is never opened for oneself later, since the VM could not start again then.
        """
        self._connect = connect
        self._reader: DisplayReader | None = connect(must_attach=False)
        self._known = self._reader
        # by plane, with the cursor or without
        self._serials: dict[_Kind, int] = {}
        self._bases: dict[_Kind, int] = {}
        self._theirs: dict[_Kind, Frame | Blank] = {}
        self._ours: dict[_Kind, Frame | Blank] = {}
        self._away_as: dict[_Kind, Blank] = {}
        self._next_try = 0.0
        self._why = ""
        self._failure: MdevDisplayError | None = None
        self._closed = False

    @property
    def locator(self) -> str:
        """How the display was named."""
        return self._known.locator

    @property
    def identity(self) -> Identity:
        """Driver, vendor, type and parent of the device, as they were last."""
        return self._known.identity

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the device."""
        return self._known.borrowed

    @property
    def backend_info(self) -> BackendInfo:
        """The backend that was chosen last."""
        return self._known.backend_info

    @property
    def last(self) -> DisplayReader:
        """The reader of the moment, or the one before the VM ended."""
        return self._known

    @property
    def reader(self) -> DisplayReader:
        """The reader of the moment; raises `VmGone` where there is none."""
        return self._reader or self._open_anew()

    def surface(self, plane: PlaneType) -> SurfaceInfo | None:
        """Return what a plane shows now, or None."""
        return self._call(lambda reader: reader.surface(plane))

    def look(self, plane: PlaneType, last: Frame | Blank | None = None, *, cursor: bool = False) -> Frame | Blank:
        """Return what a plane shows, or a `Blank` while the VM is away."""
        kind = (plane, cursor)
        try:
            return self._call(lambda reader: self._look(reader, kind, last))
        except (DeviceGone, WorkerDied) as error:
            away = self._away_as.get(kind)
            if away is not None and away.cause == error.cause:
                same = isinstance(last, Blank) and (last.serial, last.cause) == (away.serial, away.cause)
                return last if same and last is not None else attrs.evolve(away, error=error)
            away = Blank(serial=self._serials.get(kind, 0) + 1, timestamp=time.monotonic(), error=error)
            self._serials[kind] = away.serial
            self._bases[kind] = self._bases.get(kind, 0) + 1  # a number that is none of the reader's
            self._away_as[kind] = away
            return away

    def _look(self, reader: DisplayReader, kind: _Kind, last: Frame | Blank | None) -> Frame | Blank:
        """Look with one reader, whose serials begin at 1: they are counted on from where the last reader's ended."""
        plane, cursor = kind
        base = self._bases.setdefault(kind, self._serials.get(kind, 0))
        known = self._theirs.get(kind) if _is_same(last, self._ours.get(kind)) else None
        if known is None and isinstance(last, Frame) and last.serial > base and not _is_stale(last):
            known = last.evolve(serial=last.serial - base)  # another stream's: for its damage
        picture = reader.look(plane, known, cursor=cursor)
        self._away_as.pop(kind, None)
        if known is not None and picture is known and last is not None:
            return last
        self._theirs[kind] = picture
        ours = picture if not base else _counted_on(picture, base)
        self._ours[kind] = ours
        self._serials[kind] = ours.serial
        return ours

    def damage_since(self, plane: PlaneType, serial: int, *, cursor: bool = False) -> tuple[Rect, ...]:
        """Return what changed after a serial: everything, where it was another run's of the VM."""
        base = self._bases.get((plane, cursor), 0)
        return self._call(lambda reader: reader.damage_since(plane, max(0, serial - base), cursor=cursor))

    @property
    def announces(self) -> bool:
        """Never: the VM's end and return are not announced."""
        return False

    def wait_update(self, seen: int) -> int:
        """Return at once: it is polled."""
        return seen + 1

    def pin(self, plane: PlaneType) -> Any:
        """Return pinned memory, with the reader that it belongs to."""
        return self._call(lambda reader: _Pinned(reader, reader.pin(plane)))

    def unpin(self, memory: Any) -> None:
        """Let go what `pin` returned."""
        memory.reader.unpin(memory.memory)

    def dmabuf(self, plane: PlaneType) -> DmaBuf:
        """Return the plane's dma-buf, the caller's own."""
        return self._call(lambda reader: reader.dmabuf(plane))

    def edid(self) -> Edid | None:
        """Return the device's EDID region, or None."""
        return self._call(lambda reader: reader.edid())

    def readability(self, plane: PlaneType) -> Readability:
        """Say how the pixels of a plane can be had."""
        return self._call(lambda reader: reader.readability(plane))

    def findings(self) -> tuple[Finding, ...]:
        """Return what the backend knows about the device's state."""
        return self._call(lambda reader: reader.findings())

    def interrupt(self) -> None:
        """Let a call that waits for another process fail at once."""
        reader = self._reader
        if reader is not None:
            reader.interrupt()

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self._closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _call(self, call: Callable[[DisplayReader], T]) -> T:
        reader = self.reader
        try:
            return call(reader)
        except DeviceGone as error:
            self._why = error.message
            self._reader = None
            self._failure = None
            self._next_try = time.monotonic() + _STEP
            with suppress(MdevDisplayError):
                reader.close()
            raise

    def _open_anew(self) -> DisplayReader:
        if self._closed:
            raise Closed("the display was closed before", device=self.locator, hint="open it again")
        if time.monotonic() < self._next_try:
            raise self._failure.with_traceback(None) if self._failure else self._away()
        self._next_try = time.monotonic() + _STEP
        try:
            self._reader = self._known = self._connect(must_attach=self._known.borrowed)
        except _AWAY as error:
            self._failure = error if error.cause == "ambiguous-vm" else None
            if self._failure is not None:
                raise
            self._why = error.message
            raise self._away() from error
        except MdevDisplayError as error:  # waiting does not help: no permission, no backend
            self._failure = error
            raise
        self._bases = dict(self._serials)
        self._theirs.clear()
        self._ours.clear()
        return self._reader

    def _away(self) -> VmGone:
        return VmGone(
            f"the VM has not come back yet: {self._why}",
            device=self.locator,
            hint="the display is opened anew as soon as it has",
        )


def _counted_on(picture: Frame | Blank, base: int) -> Frame | Blank:
    if isinstance(picture, Blank):
        return attrs.evolve(picture, serial=picture.serial + base)
    return picture.evolve(serial=picture.serial + base)


def _is_same(last: Frame | Blank | None, ours: Frame | Blank | None) -> bool:
    return last is not None and ours is not None and last.serial == ours.serial and not _is_stale(last)


def _is_stale(picture: Frame | Blank) -> bool:
    return isinstance(picture, Frame) and FrameFlags.STALE in picture.flags


class _Pinned:
    """Pinned memory, with the reader that it belongs to: the VM may come back with another."""

    def __init__(self, reader: DisplayReader, memory: Any) -> None:
        self.reader = reader
        self.memory = memory

    def view(self) -> Any:
        return self.memory.view()
