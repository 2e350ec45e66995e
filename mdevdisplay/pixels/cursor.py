"""Where the cursor's image lies on the screen, and how it is drawn there. Pure: pictures and numbers, no driver.

A reported position is the plane's top left corner, not the pointer's. i915 of the guest writes the plane's corner to
CURPOS (intel_cursor.c, intel_cursor_position), GVT-g hands that register on (fb_decoder.c,
intel_vgpu_decode_cursor_plane), and QEMU draws the image there (ui/egl-headless.c, egl_scanout_flush) or adds the
hotspot where a protocol wants the pointer (ui/spice-display.c, qemu_spice_create_cursor_update). See docs/cursor.md.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.gfx import same_memory

__all__ = ["Placement", "compose", "is_primary_again", "place", "rects_touched"]

Pixels = npt.NDArray[np.uint8]

_SIGN = 1 << 31
_BAND = 1 << 13
"""Pixels that are blended at a time: their 16-bit sums stay in a core's cache, however large the cursor is."""


@attrs.frozen(kw_only=True)
class Placement:
    """Where a cursor's image lies on a screen.

    Attributes:
        x: the image's left edge in pixels from the screen's left; negative where it begins off the screen.
        y: its top edge from the screen's top.
        width: the whole image's, in pixels, on the screen or not.
        height: the same.
        rect: the part of the screen that the image covers; None where it is wholly off the screen.
        hotspot: the pointer's tip in pixels from the image's left and top, or None where it is not known.
        uncertain: the report does not tell where the image is: its minus may have got lost, or the hotspot that it
            is to be placed by is unknown. The image is then where the report says, taken as it is.
    """

    x: int
    y: int
    width: int
    height: int
    rect: Rect | None
    hotspot: tuple[int, int] | None = None
    uncertain: bool = False

    @property
    def pointer(self) -> tuple[int, int] | None:
        """The pixel of the screen that the pointer points at, or None where the hotspot is not known."""
        return None if self.hotspot is None else (self.x + self.hotspot[0], self.y + self.hotspot[1])


def place(
    surface: SurfaceInfo,
    screen_width: int,
    screen_height: int,
    *,
    position_is_hotspot: bool = False,
    sign_lost: bool = True,
) -> Placement:
    """Say where a cursor lies on a screen.

    A hotspot outside the image counts as unknown: GVT-g's guest writes it, or does not.

    Args:
        surface: the cursor's plane as its driver reported it. A position from 2**31 on is a negative one: the
            kernel's fields are u32, and who keeps the sign can only write it as two's complement.
        screen_width: the primary plane's, in pixels.
        screen_height: the same.
        position_is_hotspot: the position is that of the pointer's tip; the image then begins a hotspot to the left
            of it and above. No driver that we know reports so.
        sign_lost: the position is a magnitude, as GVT-g's (dmabuf.c, vgpu_get_plane_info copies x_pos and leaves
            x_sign out). False for a backend that keeps the sign.
    """
    hotspot = _hotspot(surface)
    hot_x, hot_y = hotspot or (0, 0)
    x, y = _signed(surface.x), _signed(surface.y)
    if position_is_hotspot:
        # the tip is on the screen, so its position has no sign to lose
        x, y = x - hot_x, y - hot_y
        uncertain = hotspot is None
    else:
        # the tip is on the screen, so the image begins at most a hotspot left of it; else something of it is seen
        most_x, most_y = (hot_x, hot_y) if hotspot else (surface.width - 1, surface.height - 1)
        uncertain = sign_lost and (0 < x <= most_x or 0 < y <= most_y)
    return Placement(
        x=x,
        y=y,
        width=surface.width,
        height=surface.height,
        rect=_clipped(x, y, surface.width, surface.height, screen_width, screen_height),
        hotspot=hotspot,
        uncertain=uncertain,
    )


def _hotspot(surface: SurfaceInfo) -> tuple[int, int] | None:
    x, y = surface.x_hot, surface.y_hot
    if x is None or y is None or not (0 <= x < surface.width and 0 <= y < surface.height):
        return None
    return x, y


def _signed(position: int) -> int:
    return position - 2 * _SIGN if position >= _SIGN else position


def _clipped(x: int, y: int, width: int, height: int, screen_width: int, screen_height: int) -> Rect | None:
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, screen_width), min(y + height, screen_height)
    return Rect(left, top, right - left, bottom - top) if left < right and top < bottom else None


def compose(screen: Pixels, cursor: Pixels, placement: Placement, *, premultiplied: bool = False) -> Rect | None:
    """Draw a cursor onto a screen, in place, and return the rectangle that was drawn, without its transparent border.

    Colours are ``c * a + s * (255 - a)`` over 255, rounded to the nearest. The screen counts as opaque whatever its
    alpha says, since nothing lies behind it; its alpha becomes ``a + s * (255 - a) / 255``, so 255 stays 255. The real
    sizes of both pictures hold, should the placement have been made for others.

    Args:
        screen: (H, W, 4) uint8, B, G, R, A, writable; any strides.
        cursor: (h, w, 4) uint8, B, G, R, A, in other memory.
        placement: from `place`.
        premultiplied: the cursor's colours are multiplied by its alpha already: ``c + s * (255 - a) / 255``, and at
            most 255.

    Returns:
        The rectangle, or None where nothing was to be drawn: the cursor is off the screen, transparent or empty.

    Raises:
        ValueError: a picture is not (height, width, 4) uint8, or the screen is read-only.
    """
    for name, picture in (("screen", screen), ("cursor", cursor)):
        if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
            raise ValueError(f"the {name} is {picture.dtype} {picture.shape}, not uint8 (height, width, 4)")
    if not screen.flags.writeable:
        raise ValueError("the screen is read-only, and a cursor is drawn in place")
    width, height = min(placement.width, cursor.shape[1]), min(placement.height, cursor.shape[0])
    covered = _clipped(placement.x, placement.y, width, height, screen.shape[1], screen.shape[0])
    if covered is None:
        return None
    ink = _cut(cursor, covered, placement.x, placement.y)
    # with colours multiplied already, a pixel of alpha 0 still adds its colour
    drawn = _trimmed(ink if premultiplied else ink[..., 3:], covered)
    if drawn is None:
        return None
    ink, ground = _cut(cursor, drawn, placement.x, placement.y), _cut(screen, drawn, 0, 0)
    rows = max(1, _BAND // drawn.width)
    for top in range(0, drawn.height, rows):
        band = slice(top, top + rows)
        ground[band] = _over(ground[band], ink[band], premultiplied=premultiplied)
    return drawn


def _cut(picture: Pixels, rect: Rect, x: int, y: int) -> Pixels:
    """Return the part of a picture that a rectangle of the screen shows, the picture's corner being at x, y."""
    top, left = rect.y - y, rect.x - x
    return picture[top : top + rect.height, left : left + rect.width]


def _trimmed(ink: Pixels, covered: Rect) -> Rect | None:
    """Return the rectangle of the screen that encloses all that is not zero."""
    rows = np.flatnonzero(ink.any(axis=(1, 2)))
    columns = np.flatnonzero(ink.any(axis=(0, 2)))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    return Rect(covered.x + left, covered.y + top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)


def _over(ground: Pixels, ink: Pixels, *, premultiplied: bool) -> Pixels:
    """Return ink over ground, in 16 bits: no sum is above 255 * 255."""
    # repeated for each colour: NumPy is slow where it broadcasts over an axis of four
    alpha = np.repeat(ink[..., 3:], 4, axis=2).astype(np.uint16)
    sums: npt.NDArray[np.uint16] = ground * (255 - alpha)
    if premultiplied:
        added: Pixels = np.minimum(_over_255(sums) + ink, 255).astype(np.uint8)
        return added
    # the alpha of what is drawn weighs as a colour of 255 would
    front = ink.astype(np.uint16)
    front[..., 3] = 255
    front *= alpha
    sums += front
    return _over_255(sums).astype(np.uint8)


def _over_255(sums: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Divide by 255 in place, to the nearest: (n + 127) // 255 for every n up to 255 * 255, without a division."""
    sums += 128
    sums += sums >> 8
    sums >>= 8
    return sums


def is_primary_again(cursor: SurfaceInfo | None, primary: SurfaceInfo | None) -> bool:
    """Whether a cursor's answer is the primary plane's: mdpy and NVIDIA ignore which plane is asked for.

    There is no cursor then. Backends that know it of their driver compare by `mdevdisplay.vfio.same_memory`, as this
    does; surfaces that name no memory are one where they are equal in everything but the plane's type.
    """
    if cursor is None or primary is None:
        return False
    if cursor.dmabuf_id is None and cursor.region_index is None:
        return attrs.evolve(cursor, plane=PlaneType.PRIMARY) == attrs.evolve(primary, plane=PlaneType.PRIMARY)
    return same_memory(cursor, primary)


def rects_touched(before: Placement | None, after: Placement | None, *, repainted: bool = False) -> tuple[Rect, ...]:
    """Return what of the screen is to be painted again when the cursor moves, appears or goes.

    Args:
        before: where the cursor was drawn last; None where there was none.
        after: where it is now; None where there is none.
        repainted: its image changed too, so that it is drawn anew where it has not moved.

    Returns:
        No rectangle, one or two. Two may overlap; one that lies inside the other is left out.
    """
    old, new = (None if place is None else place.rect for place in (before, after))
    if before is None or after is None or old is None or new is None:
        return tuple(rect for rect in (old, new) if rect is not None)
    if not repainted and (before.x, before.y, old) == (after.x, after.y, new):
        return ()
    if _inside(old, new):
        return (new,)
    return (old,) if _inside(new, old) else (old, new)


def _inside(inner: Rect, outer: Rect) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.x + inner.width <= outer.x + outer.width
        and inner.y + inner.height <= outer.y + outer.height
    )
