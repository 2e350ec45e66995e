"""The test picture: colour bars, ramps, a bouncing ball, a frame counter for people and one for programs.

Frame N depends on the size, the seed and N alone. Any part of it can be drawn without the rest, so a new frame costs
only what has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay_simulated.counter import Strip, cells_of
from mdevdisplay_simulated.font import ADVANCE, HEIGHT, text_mask

__all__ = ["Area", "BarsPicture", "BlackPicture", "Picture", "Words", "bounce"]

Words = npt.NDArray[np.uint32]
"""Pixels as numbers 0xAARRGGBB: the bytes B, G, R, A."""


@attrs.frozen
class Area:
    """A part of the picture: from (left, top) up to (right, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    def overlap(self, other: Area) -> Area | None:
        """Return what two areas share, or None."""
        left, right = max(self.left, other.left), min(self.right, other.right)
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        return Area(left, top, right, bottom) if left < right and top < bottom else None

    def around(self, other: Area) -> Area:
        """Return the least area that holds both."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Area(left, top, max(self.right, other.right), max(self.bottom, other.bottom))


class Picture(Protocol):
    """Something that can be displayed.

    Attributes:
        width: pixels in a row.
        height: rows.
    """

    width: int
    height: int

    def moving(self, frame: int) -> tuple[Area, ...]:
        """Return what differs from other frames: everything outside is the same in all of them."""
        ...

    def render(self, area: Area, frame: int) -> Words:
        """Draw an area of a frame: (height, width) words, a new array."""
        ...


class BlackPicture:
    """Nothing but black."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height

    def moving(self, frame: int) -> tuple[Area, ...]:  # noqa: ARG002
        """Nothing moves."""
        return ()

    def render(self, area: Area, frame: int) -> Words:  # noqa: ARG002
        """Return opaque black."""
        return np.full((area.bottom - area.top, area.right - area.left), 0xFF000000, np.uint32)


def _rgb(value: int) -> np.uint32:
    return np.uint32(0xFF000000 | value)


def _mix(one: int, other: int, part: float) -> int:
    """Return a colour between two."""
    parts = [round((one >> place & 255) * (1 - part) + (other >> place & 255) * part) << place for place in (0, 8, 16)]
    return sum(parts)


_BARS = (0xBFBFBF, 0xBFBF00, 0x00BFBF, 0x00BF00, 0xBF00BF, 0xBF0000, 0x0000BF)  # 75 %
_CASTELLATION = (0x0000BF, 0x131313, 0xBF00BF, 0x131313, 0x00BFBF, 0x131313, 0xBFBFBF)
_PANEL = 0x12161E
_LINE = 0x2A3342
_TEXT = 0xF2F5F9
_FAINT = 0x8B98AB
_CELL_ON, _CELL_OFF = 0xF2F5F9, 0x232B38
_ACCENTS = (0xFF6B5E, 0xFF9F43, 0xFFD166, 0x9BDE5A, 0x2FD6A3, 0x36C5F0, 0x5B8DEF, 0x9B7BFF, 0xE06CFF, 0xFF6FB1)
_DIGITS = 6


def _scrambled(seed: int) -> int:
    """Return 64 well-mixed bits of a seed (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    value = (seed + 1) * 0x9E3779B97F4A7C15 & mask
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31


@attrs.frozen(eq=False)
class _Stripe:
    """Rows that are all alike."""

    top: int
    bottom: int
    row: Words


@attrs.frozen(eq=False)
class _Sprite:
    """Pixels at a place.

    Where they do not cover it whole they are multiplied by their alpha, and ``through`` is (height, width, 1) uint16,
    from 0 to 255: how much of the ground comes through.
    """

    left: int
    top: int
    pixels: Words
    through: npt.NDArray[np.uint16] | None = None

    @property
    def area(self) -> Area:
        """Return where it lies."""
        height, width = self.pixels.shape
        return Area(self.left, self.top, self.left + width, self.top + height)

    def paint(self, target: Words, area: Area) -> None:
        """Paint what of it falls into ``area``, which ``target`` holds."""
        part = self.area.overlap(area)
        if part is None:
            return
        rows = slice(part.top - self.top, part.bottom - self.top)
        columns = slice(part.left - self.left, part.right - self.left)
        place = target[part.top - area.top : part.bottom - area.top, part.left - area.left : part.right - area.left]
        if self.through is None:
            place[:] = self.pixels[rows, columns]
            return
        # no copy: the rows of a view can be split into bytes
        ground = place.view(np.uint8).reshape(*place.shape, 4)
        faded = (ground * self.through[rows, columns] + np.uint16(127)) // np.uint16(255)
        place[:] = self.pixels[rows, columns]
        ground += faded.astype(np.uint8)


def _even(number: float) -> int:
    """Round down to an even number, so that 4:2:0 keeps edges sharp."""
    return int(number) // 2 * 2


def bounce(step: int, room: int) -> int:
    """Return where something is that goes from 0 to ``room`` and back, one pixel a step."""
    if room < 1:
        return 0
    step %= 2 * room
    return min(step, 2 * room - step)


class BarsPicture:
    """The test picture, with colour bars and all, of one size and seed."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.width = width
        self.height = height
        self._seed = seed
        self._random = _scrambled(seed)
        self._accent = _ACCENTS[self._random % len(_ACCENTS)]
        self._strip = Strip.of(width, height)
        self._panel_top = height
        if self._strip is not None:
            self._panel_top = min(_even(height * 0.70), _even(self._strip.y - 10))
        self._bars_bottom = self.height if height < 8 else _even(height * 0.54)
        self._stripes = list(self._draw_stripes())
        self._sprites: list[_Sprite] = []
        self._digits: tuple[int, int, Words] | None = None
        if self._strip is not None:
            self._draw_panel(self._strip)
        self._ball = self._draw_ball()
        self._current: tuple[int, tuple[_Sprite, ...]] = (-1, ())

    def moving(self, frame: int) -> tuple[Area, ...]:
        """Return where the ball, the digits and the cells are."""
        return tuple(sprite.area for sprite in self._moving(frame))

    def render(self, area: Area, frame: int) -> Words:
        """Draw an area of a frame."""
        words = np.empty((area.bottom - area.top, area.right - area.left), np.uint32)
        for stripe in self._stripes:
            top, bottom = max(stripe.top, area.top), min(stripe.bottom, area.bottom)
            if top < bottom:
                words[top - area.top : bottom - area.top] = stripe.row[area.left : area.right]
        for sprite in self._sprites:
            sprite.paint(words, area)
        for sprite in self._moving(frame):
            sprite.paint(words, area)
        return words

    # what stands still

    def _draw_stripes(self) -> Iterator[_Stripe]:
        width, height = self.width, self.height
        bars, castellation = self._blocks(_BARS), self._blocks(_CASTELLATION)
        yield _Stripe(0, self._bars_bottom, bars)
        if self._bars_bottom == height:
            return
        edges = [self._bars_bottom, _even(height * 0.59)]
        if self._strip is None:
            edges = [self._bars_bottom, self._bars_bottom]
        yield _Stripe(edges[0], edges[1], castellation)
        panel = self._panel_top
        ramps = [0xFFFFFF, 0xFF0000, 0x00FF00, 0x0000FF]
        parts = [0.0, 0.4, 0.6, 0.8, 1.0]
        top = edges[1]
        tops = [top + _even((panel - top) * part) for part in parts[:-1]] + [panel]
        for number, colour in enumerate(ramps):
            yield _Stripe(tops[number], tops[number + 1], self._ramp(colour))
        if panel < height:
            line = max(1, height // 360)
            yield _Stripe(panel, min(panel + line, height), np.full(width, _rgb(self._accent), np.uint32))
            yield _Stripe(min(panel + line, height), height, np.full(width, _rgb(_PANEL), np.uint32))

    def _blocks(self, colours: tuple[int, ...]) -> Words:
        """Return a row of equal blocks of colour, which begin on even pixels."""
        edges = [_even(self.width * number / len(colours)) for number in range(len(colours))]
        row = np.empty(self.width, np.uint32)
        for edge, colour in zip(edges, colours, strict=True):
            row[edge:] = _rgb(colour)
        return row

    def _ramp(self, colour: int) -> Words:
        """Return a row from black to a colour."""
        levels = (np.arange(self.width) * 255 // max(self.width - 1, 1)).astype(np.uint32)
        return levels * np.uint32(colour & 0x010101) | np.uint32(0xFF000000)

    def _draw_panel(self, strip: Strip) -> None:
        """Draw name, size, seed and the pattern of the seed, as far as there is room."""
        unit = min(self.width / 1920, self.height / 1080)
        top, bottom = self._panel_top, strip.y
        if unit < 0.15:
            scale = max(1, min((self.width - 4) // (_DIGITS * ADVANCE), (bottom - top - 2) // HEIGHT))
            self._place_digits(self.width - _DIGITS * ADVANCE * scale - 2, top + 3, scale)
            return
        margin = strip.x or 2 * strip.cell
        room = bottom - top
        title, small, digits = (max(1, round(size * unit)) for size in (8, 4, 14))
        # the seed's pattern, then the text beside it
        block = max(1, int(room * 0.70 / 8))
        pattern_top = _even(top + (room - 8 * block) / 2)
        self._sprites.append(_Sprite(margin, pattern_top, self._pattern(block)))
        left = _even(margin + 8 * block + margin)
        lines = ((title, _TEXT, "mdevdisplay"), (small, _FAINT, "simulated display"), (small, _FAINT, self._facts()))
        gap = max(2, round(14 * unit))
        y = _even(top + (room - sum(HEIGHT * scale for scale, _, _ in lines) - gap * 2) / 2)
        for scale, colour, text in lines:
            self._sprites.append(_Sprite(left, y, self._text(text, scale, colour)))
            y += HEIGHT * scale + gap
        label = self._text("frame", small, _FAINT)
        height = digits * HEIGHT + gap + small * HEIGHT
        y = _even(top + (room - height) / 2)
        x = self.width - margin - _DIGITS * ADVANCE * digits + digits
        self._sprites.append(_Sprite(x, y, label))
        self._place_digits(x, y + small * HEIGHT + gap, digits)

    def _facts(self) -> str:
        return f"{self.width}x{self.height} seed {self._seed}"

    def _text(self, text: str, scale: int, colour: int) -> Words:
        return np.where(text_mask(text, scale), _rgb(colour), _rgb(_PANEL))

    def _pattern(self, block: int) -> Words:
        """Return 8x8 blocks, mirrored left to right, whose bits and colour are the seed's."""
        bits = np.array([self._random >> place & 1 for place in range(8, 40)], np.bool_).reshape(8, 4)
        cells = np.concatenate([bits, bits[:, ::-1]], axis=1)
        shades = np.linspace(0, 0.55, 8)
        rows = np.array([_rgb(_mix(self._accent, _PANEL, float(shade))) for shade in shades], np.uint32)
        return np.where(cells, rows[:, None], _rgb(_LINE)).repeat(block, 0).repeat(block, 1)

    def _place_digits(self, left: int, top: int, scale: int) -> None:
        glyphs = self._text("0123456789", scale, _TEXT)
        self._digits = (left, top, glyphs.reshape(glyphs.shape[0], 10, -1))

    # what moves

    def _moving(self, frame: int) -> tuple[_Sprite, ...]:
        if self._current[0] != frame:
            self._current = (frame, tuple(self._draw_moving(frame)))
        return self._current[1]

    def _draw_moving(self, frame: int) -> Iterator[_Sprite]:
        left, top = self._ball_place(frame)
        yield _Sprite(left, top, self._ball.pixels, self._ball.through)
        if self._digits is not None:
            left, top, glyphs = self._digits
            chosen = [int(digit) for digit in f"{frame % 10**_DIGITS:0{_DIGITS}}"]
            yield _Sprite(left, top, glyphs[:, chosen].reshape(glyphs.shape[0], -1))
        if self._strip is not None:
            yield _Sprite(self._strip.x, self._strip.y, self._cells(self._strip, frame))

    def _cells(self, strip: Strip, frame: int) -> Words:
        colours = np.where(cells_of(frame), _rgb(_CELL_ON), _rgb(_CELL_OFF)).reshape(strip.rows, 1, strip.columns, 1)
        cells = np.empty((strip.rows, strip.cell, strip.columns, strip.cell), np.uint32)
        cells[:] = colours
        gap = strip.cell // 8
        if gap:
            cells[:, -gap:] = _rgb(_PANEL)
            cells[:, :, :, -gap:] = _rgb(_PANEL)
        return cells.reshape(strip.height, strip.width)

    def _ball_place(self, frame: int) -> tuple[int, int]:
        size = self._ball.pixels.shape[0]
        x = frame * max(1, self.width // 240) + (self._random >> 40 & 0xFFF) * self.width // 0xFFF
        y = frame * max(1, self._bars_bottom // 116) + (self._random >> 52 & 0xFFF) * self._bars_bottom // 0xFFF
        return bounce(x, self.width - size), bounce(y, self._bars_bottom - size)

    def _draw_ball(self) -> _Sprite:
        """Draw a shaded ball with a dark rim, which stands out from every bar."""
        size = max(1, min(self.width, self._bars_bottom) // 5)
        middle = (size - 1) / 2
        axis = np.arange(size) - middle
        distance = np.hypot(axis[:, None], axis[None, :])
        light = np.hypot(axis[:, None] + size * 0.16, axis[None, :] + size * 0.16) / max(size * 0.62, 1)
        shade = np.clip(light, 0, 1) ** 1.5
        rim = np.clip((distance - (size / 2 - max(1.0, size * 0.045))) + 0.5, 0, 1)
        cover = np.rint(np.clip(size / 2 - distance + 0.5, 0, 1) * 255) if size > 2 else np.full((size, size), 255.0)
        pixels = np.empty((size, size, 4), np.uint8)
        bright, dark = _mix(0xFFFFFF, self._accent, 0.1), _mix(self._accent, 0x000000, 0.25)
        for place in range(3):
            here, there = bright >> 8 * place & 255, dark >> 8 * place & 255
            level = (here + (there - here) * shade) * (1 - rim) + 10 * rim
            pixels[..., place] = level * cover / 255
        pixels[..., 3] = cover
        return _Sprite(0, 0, pixels.view(np.uint32)[..., 0], (255 - cover).astype(np.uint16)[..., None])
