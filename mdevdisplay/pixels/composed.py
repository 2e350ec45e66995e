"""The screen with its cursor: two planes as one picture."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import Closed, DeviceGone, MdevDisplayError, TimedOut, WorkerDied
from mdevdisplay.pixels.cursor import Placement, compose, is_primary_again, place, rects_touched
from mdevdisplay.pixels.damage import Damage, Mask, tiles_touched
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.surface import PlaneType, Rect

__all__ = ["ComposedPicture"]

Picture = Frame | Blank
Pixels = npt.NDArray[np.uint8]

_LARGEST = 2048
"""The most pixels along a cursor's side; drivers have 256 at most, and a hostile one could report 32767."""


@attrs.frozen(eq=False)
class _Cursor:
    """A cursor to be drawn, as one state of it: an overlay of a frame."""

    pixels: Pixels
    placement: Placement
    serial: int

    def over(self, pixels: Pixels) -> Pixels:
        """Return the pixels with the cursor drawn over them; in place where they may be written."""
        target = pixels if pixels.flags.writeable else pixels.copy()
        compose(target, self.pixels, self.placement)
        return target


class ComposedPicture:
    """Follows the primary plane and the cursor plane as one picture, with serials and damage of its own."""

    def __init__(self, look: Callable[[PlaneType, Picture | None], Picture], *, sign_lost: bool) -> None:
        """Take both planes with ``look``; ``sign_lost`` says that the driver's positions are magnitudes."""
        self._look = look
        self._sign_lost = sign_lost
        self._primary: Picture | None = None
        self._pointer: Picture | None = None
        self._cursor: _Cursor | None = None
        self._flags = FrameFlags.NONE
        self._serial = 0
        self._damage = Damage()

    def look(self, last: Picture | None = None) -> Picture:
        """Return the screen with its cursor; ``last`` itself where it is still that."""
        before = self._primary
        primary = self._look(PlaneType.PRIMARY, before)
        if isinstance(primary, Blank):
            return self._blank(primary, last)
        cursor, flags = self._look_at_cursor(primary)
        changed = self._changed(before, primary, cursor)
        if changed is None or changed.any() or flags != self._flags:
            self._serial += 1
            if changed is None:
                self._damage.begin(primary.width, primary.height, self._serial)
            else:
                self._damage.mark(changed, self._serial)
        self._primary, self._cursor, self._flags = primary, cursor, flags
        passing = FrameFlags.STALE if FrameFlags.TORN in primary.flags else FrameFlags.STALE | FrameFlags.TORN
        if isinstance(last, Frame) and last.serial == self._serial and not last.flags & passing:
            return last
        return self._frame(primary, cursor, flags, last)

    def damage_since(self, serial: int) -> tuple[Rect, ...]:
        """Return the rectangles that changed after a serial."""
        return self._damage.rects_since(serial)

    def _blank(self, primary: Blank, last: Picture | None) -> Blank:
        if primary is not self._primary:
            self._serial += 1
            self._damage.begin(0, 0, self._serial)
        self._primary, self._cursor = primary, None
        if isinstance(last, Blank) and last.serial == self._serial:
            return last
        return attrs.evolve(primary, serial=self._serial)

    def _look_at_cursor(self, primary: Frame) -> tuple[_Cursor | None, FrameFlags]:
        try:
            pointer = self._look(PlaneType.CURSOR, self._pointer)
            self._pointer = pointer
            if isinstance(pointer, Blank) or is_primary_again(pointer.surface, primary.surface):
                return None, FrameFlags.NONE
            if max(pointer.width, pointer.height) > _LARGEST:
                return None, FrameFlags.CURSOR_MISSING
            placement = place(pointer.surface, primary.width, primary.height, sign_lost=self._sign_lost)
            flags = FrameFlags.CURSOR_UNCERTAIN if placement.uncertain else FrameFlags.NONE
            return _Cursor(pointer.pixels, placement, pointer.serial), flags
        except (DeviceGone, Closed, TimedOut, WorkerDied):
            raise
        except MdevDisplayError:  # the screen is worth showing all the same
            self._pointer = None
            return None, FrameFlags.CURSOR_MISSING

    def _changed(self, before: Picture | None, primary: Frame, cursor: _Cursor | None) -> Mask | None:
        """Return the tiles that changed since the last look; None for all of them."""
        if not isinstance(before, Frame) or (before.width, before.height) != (self._damage.width, self._damage.height):
            return None
        if (before.width, before.height) != (primary.width, primary.height):
            return None
        old = self._cursor
        repainted = old is not None and cursor is not None and old.serial != cursor.serial
        rects = rects_touched(
            None if old is None else old.placement, None if cursor is None else cursor.placement, repainted=repainted
        )
        mask = tiles_touched(rects, primary.width, primary.height)
        return mask if primary is before else mask | primary.changed_tiles

    def _frame(self, primary: Frame, cursor: _Cursor | None, flags: FrameFlags, last: Picture | None) -> Frame:
        pixels = primary.decoded
        if cursor is not None and pixels is not None:
            pixels = cursor.over(pixels.copy())
        return Frame(
            primary.raw,
            primary.surface,
            serial=self._serial,
            timestamp=time.monotonic(),
            flags=primary.flags | flags,
            device=primary.device,
            pixels=pixels,
            changed=self._damage.since(last.serial) if isinstance(last, Frame) else None,
            overlay=cursor,
        )
