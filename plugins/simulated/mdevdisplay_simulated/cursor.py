"""The mouse pointer: its picture and where it is."""

from __future__ import annotations

import numpy as np

from mdevdisplay_simulated.counter import Strip
from mdevdisplay_simulated.picture import Area, Words, bounce

__all__ = ["HOT", "SIZE", "Pointer", "position"]

SIZE = 64
"""Width and height in pixels: the least of the cursor planes that GVT-g reports (64, 128, 256)."""

HOT = (6, 4)
"""The tip, from the left and from the top: not the corner, so that a reader that leaves it out is found out."""

_SCALE = 2
# X is black, o white, . nothing
_ARROW = """
X...........
XX..........
XoX.........
XooX........
XoooX.......
XooooX......
XoooooX.....
XooooooX....
XoooooooX...
XooooooooX..
XoooooXXXXX.
XooXooX.....
XoX.XooX....
XX..XooX....
X....XooX...
.....XooX...
......XX....
"""
_INK = {".": 0x00000000, "X": 0xFF000000, "o": 0xFFFFFFFF}
# black, so that it is the same with alpha multiplied in or not
_SHADOW = 0x60000000


class Pointer:
    """A white arrow with a soft edge of shadow, on a transparent ground, which wanders about the screen.

    Its colours are the same whether a reader takes them as multiplied by alpha or not.
    """

    width = SIZE
    height = SIZE

    def __init__(self) -> None:
        rows = _ARROW.split()
        arrow = np.array([[_INK[ink] for ink in row] for row in rows], np.uint32).repeat(_SCALE, 0).repeat(_SCALE, 1)
        self._words = np.zeros((SIZE, SIZE), np.uint32)
        height, width = arrow.shape
        for shift, colour in ((3, _SHADOW), (0, None)):
            left, top = HOT[0] + shift, HOT[1] + shift
            place = self._words[top : top + height, left : left + width]
            ink = arrow != 0
            place[ink] = arrow[ink] if colour is None else colour

    def moving(self, frame: int) -> tuple[Area, ...]:  # noqa: ARG002
        """Return nothing: the plane moves, its picture does not."""
        return ()

    def render(self, area: Area, frame: int) -> Words:  # noqa: ARG002
        """Return an area of the arrow."""
        return self._words[area.top : area.bottom, area.left : area.right].copy()


def position(frame: int, width: int, height: int) -> tuple[int, int]:
    """Return where the plane's left top corner is: the tip stays on the screen, the plane off the frame counter."""
    strip = Strip.of(width, height)
    lowest = strip.y - SIZE if strip is not None and strip.y >= SIZE else height - 1 - HOT[1]
    return bounce(frame * 5 + width * 2 // 3, width - 1 - HOT[0]), bounce(frame * 3 + height // 3, lowest)
