"""The picture of one plane, followed from one look to the next: what it shows, what changed and since when."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels.damage import Damage, Mask
from mdevdisplay.pixels.layout import Raw, packed_size, plain_layout, raw_view
from mdevdisplay.pixels.pool import BufferPool
from mdevdisplay.pixels.shadow import PixelSource, Shadow
from mdevdisplay.surface import SurfaceInfo

__all__ = ["LivePicture"]

Bytes = npt.NDArray[np.uint8]

_numbers = itertools.count(1)


class LivePicture:
    """Follows one plane. Equal pictures have equal serials.

    Attributes:
        serial: counts what the plane showed: different pictures and blank moments, from 1; 0 before the first look.
        layout: how `raw` lies, or None while the plane shows nothing.
        damage: which tiles changed at which serial.
    """

    def __init__(self) -> None:
        self.serial = 0
        self.layout: SurfaceInfo | None = None
        self.damage = Damage()
        self._number = next(_numbers)
        self._blank = False
        self._shadow: Shadow | None = None
        self._place: tuple[object, ...] = ()

    def look(self, surface: SurfaceInfo, source: PixelSource) -> bool:
        """Bring the picture up to date.

        Args:
            surface: what the plane shows.
            source: where its pixels are.

        Returns:
            Whether it changed while it was copied.
        """
        shadow, self._shadow = self._shadow, None  # an exception leaves none: it may be half of each picture
        torn = False
        if shadow is not None and shadow.fits(source):
            mask, torn = shadow.update(source)
            place = _place(surface)
            if mask.any() or place != self._place:
                self.serial += 1
                self.damage.mark(mask, self.serial)
                self._place = place
        else:
            shadow = None  # its memory is used for the next
            shadow = Shadow(source)
            torn = shadow.torn
            self._number = next(_numbers)
            self.serial += 1
            self.damage.begin(surface.width, surface.height, self.serial)
            self._place = _place(surface)
        self._blank = False
        self.layout = source.layout
        self._shadow = shadow
        return torn

    def blank(self) -> None:
        """Note that the plane shows nothing, and let go of the picture."""
        if not self._blank:
            self.serial += 1
            self._blank = True
        self.forget()

    def forget(self) -> None:
        """Let go of the picture: the next one has changed everywhere."""
        self._shadow = None
        self.layout = None
        self.damage.begin(0, 0, self.serial)

    def copy(self, pool: BufferPool) -> Raw:
        """Return the picture as a copy in a buffer of the pool, read-only, rows packed.

        Only what changed since the buffer was used last is copied.
        """
        shadow, layout = self._shadow, self.layout
        if shadow is None or layout is None:
            raise ValueError("there is no picture to copy")
        plain = plain_layout(layout)
        size = packed_size(layout, shadow.data.size)
        lent = pool.take(size)
        holds = lent.storage.holds
        lent.storage.holds = None
        self._bring_up_to_date(lent.data, shadow, holds)
        lent.storage.holds = (self._number, self.serial)
        raw = raw_view(lent.data, 0, layout, 0 if plain is None else plain.minimum_stride(layout.width))
        raw.flags.writeable = False
        return raw

    def _bring_up_to_date(self, target: Bytes, shadow: Shadow, holds: tuple[int, int] | None) -> None:
        mask: Mask | None = None
        if holds is not None and holds[0] == self._number:
            mask = self.damage.since(holds[1])
            if not mask.any():
                return
        shadow.bands.copy_packed(target, shadow.data, mask)


def _place(surface: SurfaceInfo) -> tuple[object, ...]:
    """Return what may differ between two surfaces of the same pixels and is shown all the same."""
    return (surface.x, surface.y, surface.x_hot, surface.y_hot)
