"""YUV to RGB: YUYV and its kin, NV12 and P010, in limited range, by BT.601 or BT.709.

No driver says which matrix a guest's plane is meant for. Where the caller does not say, it is guessed as mpv does
(``mp_csp_guess_colorspace``): BT.709 from 1280 columns or above 576 rows, else BT.601; GStreamer's default for video of
unknown colours draws the line at the same 576 rows. Limited range is what both assume, and the default of the kernel's
plane property COLOR_RANGE in i915.

Each chroma sample holds for the whole block of pixels that share it, 2x1 or 2x2, without interpolation: a screen has
hard edges, and a pixel depends on nothing outside of its block. Results are rounded to the nearest and clipped to 0 to
255; the arithmetic is exact enough for that to hold for every combination of values.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.formats import fourcc
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.surface import SurfaceInfo

__all__ = ["FOURCCS", "Matrix", "check_matrix", "default_matrix", "to_bgra", "to_rgb"]

if TYPE_CHECKING:
    from fractions import Fraction

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float64]

Matrix = Literal["bt601", "bt709"]
"""Which weights red, green and blue have in the luma: ITU-R BT.601's or BT.709's."""

_RED_AND_BLUE: dict[Matrix, tuple[str, str]] = {"bt601": ("0.299", "0.114"), "bt709": ("0.2126", "0.0722")}

_PACKED = {fourcc(code): code for code in ("YUYV", "YVYU", "UYVY", "VYUY")}
_TWO_PLANES = {fourcc("NV12"): 8, fourcc("P010"): 10}

FOURCCS = frozenset({*_PACKED, *_TWO_PLANES})
"""What can be converted here."""

_BAND = 1 << 15
"""Chroma samples that are converted at a time, so that what lies between stays in the CPU's cache."""

_ROUNDING = 0.5 + 2.0**-40
"""Half a level, and more than the arithmetic errs by; no sum that is not a half is that near to one."""


def default_matrix(width: int, height: int) -> Matrix:
    """Return the matrix that a picture of this size is taken to be in, see the module."""
    return "bt709" if width >= 1280 or height > 576 else "bt601"


def check_matrix(matrix: str | None) -> None:
    """Raise ValueError where it is neither None nor the name of a matrix."""
    if matrix is not None and matrix not in _RED_AND_BLUE:
        raise ValueError(f"no matrix {matrix!r}; there are {', '.join(get_args(Matrix))}")


def to_bgra(raw: Raw, surface: SurfaceInfo, matrix: Matrix | None = None) -> Pixels:
    """Return (height, width, 4) uint8 B, G, R, 255, a new array.

    Args:
        raw: `Format.raw_shape` elements of one of `FOURCCS`.
        surface: format and size.
        matrix: the weights, or None for the `default_matrix` of the size.
    """
    opaque = np.full((surface.height, surface.width), 0xFFFFFFFF, np.uint32)
    pixels = opaque.view(np.uint8).reshape(surface.height, surface.width, 4)
    _convert(raw, surface, matrix, pixels[..., 2::-1])
    return pixels


def to_rgb(raw: Raw, surface: SurfaceInfo, matrix: Matrix | None = None) -> Pixels:
    """Return (height, width, 3) uint8 R, G, B, a new array; see `to_bgra`."""
    pixels = np.empty((surface.height, surface.width, 3), np.uint8)
    _convert(raw, surface, matrix, pixels)
    return pixels


@attrs.frozen(eq=False)
class _Samples:
    """The samples of a picture: luma (height, width), Cb and Cr one for every 2 columns and ``rows`` rows.

    Samples have ``bits`` bits, ``unused`` ones below them.
    """

    luma: Raw
    cb: Raw
    cr: Raw
    rows: int
    bits: int = 8
    unused: int = 0


def _samples(raw: Raw, surface: SurfaceInfo) -> _Samples:
    height, width = surface.height, surface.width
    order = _PACKED.get(surface.fourcc)
    if order is None:
        bits = _TWO_PLANES[surface.fourcc]
        chroma = raw[height:]
        return _Samples(
            luma=raw[:height, :width],
            cb=chroma[:, 0::2],
            cr=chroma[:, 1::2],
            rows=2,
            bits=bits,
            unused=0 if bits == 8 else 16 - bits,
        )
    luma = order.index("Y")
    chroma = raw[..., 1 - luma]
    first, second = chroma[:, 0::2], chroma[:, 1::2]
    cb, cr = (first, second) if order.index("U") < order.index("V") else (second, first)
    return _Samples(luma=raw[:, :width, luma], cb=cb, cr=cr, rows=1)


@attrs.frozen(eq=False)
class _Weights:
    """What samples add to 8-bit levels of red, green and blue; chroma by tables of every value.

    The level of luma is luma * scale + base, a half for rounding included.
    """

    scale: float
    base: float
    cr_to_red: Levels
    cb_to_green: Levels
    cr_to_green: Levels
    cb_to_blue: Levels


@cache
def _weights(matrix: Matrix, bits: int) -> _Weights:
    from fractions import Fraction  # brings decimal with it: 1 MB that only YUV is worth

    red, blue = map(Fraction, _RED_AND_BLUE[matrix])
    green = 1 - red - blue
    step = 1 << bits - 8
    luma = Fraction(255, 219 * step)  # black is 16 and white 235, at 8 bits
    chroma = Fraction(255, 224 * step)  # 16 to 240, around 128

    def table(weight: Fraction) -> Levels:
        return np.array([float(chroma * weight * (value - 128 * step)) for value in range(256 * step)])

    return _Weights(
        scale=float(luma),
        base=float(-16 * step * luma) + _ROUNDING,
        cr_to_red=table(2 * (1 - red)),
        cb_to_green=table(-2 * (1 - blue) * blue / green),
        cr_to_green=table(-2 * (1 - red) * red / green),
        cb_to_blue=table(2 * (1 - blue)),
    )


def _convert(raw: Raw, surface: SurfaceInfo, matrix: Matrix | None, rgb: Pixels) -> None:
    """Write red, green and blue of every pixel into (height, width, 3)."""
    samples = _samples(raw, surface)
    weights = _weights(matrix or default_matrix(surface.width, surface.height), samples.bits)
    height, width = samples.cb.shape
    band = max(1, _BAND // width)
    for top in range(0, height, band):
        cb = samples.cb[top : top + band] >> samples.unused
        cr = samples.cr[top : top + band] >> samples.unused
        shares = (
            weights.cr_to_red.take(cr),
            weights.cb_to_green.take(cb) + weights.cr_to_green.take(cr),
            weights.cb_to_blue.take(cb),
        )
        first, last = top * samples.rows, (top + band) * samples.rows
        # the pixels at one place of every block are a picture of the size of the chroma
        for row in range(samples.rows):
            for column in range(2):
                place = (slice(first + row, last, samples.rows), slice(column, None, 2))
                luma = samples.luma[place] >> samples.unused
                light = np.multiply(luma, weights.scale, dtype=np.float64)
                light += weights.base
                _mix(light, shares, rgb[place])


def _mix(light: Levels, shares: tuple[Levels, Levels, Levels], rgb: Pixels) -> None:
    """Add the chroma's shares to the luma's levels, cut the fraction off, and clip."""
    height, width = light.shape  # an odd edge has one row or column less than the chroma
    black, white = np.zeros(light.shape, np.int16), np.full(light.shape, 255, np.int16)
    for channel, share in enumerate(shares):
        levels = (light + share[:height, :width]).astype(np.int16)
        # with two arrays NumPy is three times as fast as with numbers or clip()
        np.maximum(levels, black, out=levels)
        np.minimum(levels, white, out=levels)
        np.copyto(rgb[..., channel], levels, casting="unsafe")
