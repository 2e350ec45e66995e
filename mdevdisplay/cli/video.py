"""Pictures as video for other programs: PPM files in a row, YUV4MPEG2, or bare B, G, R, A.

YUV4MPEG2 is written in 4:4:4, so that text keeps its colours, as BT.601 in full range: the conversion of JPEG, which
Pillow makes. Its header says ``XCOLORRANGE=FULL``, which FFmpeg reads. It has no word for the matrix; FFmpeg takes
BT.601 where none is named.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mdevdisplay.pixels.frame import Frame

__all__ = ["FORMATS", "Encoder", "Size", "fit", "ppm_image", "y4m_frame", "y4m_header"]

Pixels: TypeAlias = npt.NDArray[np.uint8]
Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

FORMATS = ("ppm", "y4m", "raw")
_BLACK = (0, 0, 0, 255)


def fit(pixels: Pixels, size: Size) -> Pixels:
    """Return (height, width, channels) of a size: the pixels at the top left, cropped or padded with black."""
    width, height = size
    if pixels.shape[:2] == (height, width):
        return pixels
    canvas = black(size, pixels.shape[2])
    inside = pixels[:height, :width]
    canvas[: inside.shape[0], : inside.shape[1]] = inside
    return canvas


def black(size: Size, channels: int) -> Pixels:
    """Return (height, width, channels) of opaque black."""
    width, height = size
    canvas = np.zeros((height, width, channels), np.uint8)
    canvas[:] = _BLACK[:channels]
    return canvas


def ppm_image(rgb: Pixels) -> bytes:
    """Return a PPM file, P6, of (height, width, 3) R, G, B."""
    height, width, _ = rgb.shape
    return b"P6\n%d %d\n255\n" % (width, height) + rgb.tobytes()


def y4m_header(size: Size, rate: Fraction) -> bytes:
    """Return how a YUV4MPEG2 stream begins: its size, frames a second, and square pixels that are not interlaced."""
    width, height = size
    form = (width, height, rate.numerator, rate.denominator)
    return b"YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C444 XCOLORRANGE=FULL\n" % form


def y4m_frame(rgb: Pixels) -> bytes:
    """Return one frame of a YUV4MPEG2 stream, of (height, width, 3) R, G, B: the planes Y, Cb and Cr."""
    import PIL.Image

    planes = PIL.Image.fromarray(rgb).convert("YCbCr").split()
    return b"".join([b"FRAME\n", *(plane.tobytes() for plane in planes)])


class Encoder:
    """Turns pictures into the bytes of a stream. A picture that comes again is not converted again.

    Attributes:
        size: that of every frame; None where each has its picture's own.
    """

    def __init__(self, kind: str, rate: Fraction, size: Size | None) -> None:
        """Write one of `FORMATS`."""
        self.size = size
        self._kind = kind
        self._rate = rate
        self._last_size = size
        self._serial: int | None = None
        self._bytes = b""

    def begin(self) -> bytes:
        """Return what comes before the first frame."""
        if self._kind != "y4m":
            return b""
        if self.size is None:
            raise ValueError("a YUV4MPEG2 stream has one size")
        return y4m_header(self.size, self._rate)

    def encode(self, picture: Frame | None, serial: int) -> bytes:
        """Return a frame of video.

        Args:
            picture: what is shown, or None for black, as large as the picture before.
            serial: its serial number; equal ones mean equal pictures.

        Raises:
            ValueError: black was to be as large as the first picture, before there was one.
            UnsupportedModifier, UnsupportedFormat: the pixels cannot be converted.
        """
        if serial != self._serial:
            self._serial = None  # what fails leaves nothing
            self._bytes = self._encode(self._pixels(picture))
            self._serial = serial
        return self._bytes

    def _pixels(self, picture: Frame | None) -> Pixels:
        raw = self._kind == "raw"
        if picture is None:
            if self._last_size is None:
                raise ValueError("black has no size before the first picture")
            return black(self._last_size, 4 if raw else 3)
        pixels = picture.pixels if raw else picture.to_ndarray("rgb24")
        if self.size is not None:
            return fit(pixels, self.size)
        self._last_size = (picture.width, picture.height)
        return pixels

    def _encode(self, pixels: Pixels) -> bytes:
        if self._kind == "ppm":
            return ppm_image(pixels)
        return y4m_frame(pixels) if self._kind == "y4m" else pixels.tobytes()
