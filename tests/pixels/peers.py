"""Other people's converters: pixman and libyuv, from Debian's libpixman-1-0 and libyuv0."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint16]

# pixman.h: PIXMAN_FORMAT(bits per pixel, type, a, r, g, b)
PIXMAN = {
    "a8r8g8b8": 0x20028888,
    "x8r8g8b8": 0x20020888,
    "a8b8g8r8": 0x20038888,
    "x8b8g8r8": 0x20030888,
    "r8g8b8": 0x18020888,
    "r5g6b5": 0x10020565,
    "x2r10g10b10": 0x20020AAA,
    "x2b10g10r10": 0x20030AAA,
}
_OP_SRC = 1

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


@cache
def _pixman() -> ctypes.CDLL:
    library = ctypes.CDLL("libpixman-1.so.0")
    library.pixman_image_create_bits.restype = _POINTER
    library.pixman_image_create_bits.argtypes = [ctypes.c_uint32, _INT, _INT, _POINTER, _INT]
    library.pixman_image_composite32.argtypes = [_INT, *[_POINTER] * 3, *[_INT] * 8]
    library.pixman_image_composite32.restype = None
    library.pixman_image_unref.argtypes = [_POINTER]
    return library


def by_pixman(data: Bytes, source: str, width: int, height: int, stride: int, target: str = "a8r8g8b8") -> Bytes:
    """Return (height, width, 4) bytes of the target format, made of rows of the source format.

    Rows of both are aligned to 4 bytes, as pixman wants them.
    """
    library = _pixman()
    assert data.size >= stride * height
    assert stride % 4 == 0
    result = np.zeros((height, width, 4), np.uint8)
    images = [
        library.pixman_image_create_bits(PIXMAN[source], width, height, data.ctypes.data, stride),
        library.pixman_image_create_bits(PIXMAN[target], width, height, result.ctypes.data, width * 4),
    ]
    assert all(images)
    library.pixman_image_composite32(_OP_SRC, images[0], None, images[1], *[0] * 6, width, height)
    for image in images:
        library.pixman_image_unref(image)
    return result


@cache
def _libyuv() -> ctypes.CDLL:
    return ctypes.CDLL("libyuv.so.0")


def _constants(matrix: str) -> ctypes.c_void_p:
    name = {"bt601": "kYuvI601Constants", "bt709": "kYuvH709Constants"}[matrix]
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(_libyuv(), name)))


def _call(function: str, planes: list[npt.NDArray[np.generic]], width: int, height: int, *more: object) -> Bytes:
    """Return B, G, R, A of what the function makes of contiguous planes, strides in elements."""
    result = np.zeros((height, width, 4), np.uint8)
    arguments: list[object] = []
    for plane in planes:
        assert plane.flags.c_contiguous
        arguments += [ctypes.c_void_p(plane.ctypes.data), _INT(plane.shape[1])]
    arguments += [ctypes.c_void_p(result.ctypes.data), _INT(width * 4), *more, _INT(width), _INT(height)]
    assert getattr(_libyuv(), function)(*arguments) == 0
    return result


def nv12_by_libyuv(luma: Bytes, chroma: Bytes, width: int, matrix: str) -> Bytes:
    """Convert (height, …) luma and (half the height, pairs of Cb and Cr)."""
    return _call("NV12ToARGBMatrix", [luma, chroma], width, luma.shape[0], _constants(matrix))


def p010_by_libyuv(luma: Words, chroma: Words, width: int, matrix: str) -> Bytes:
    """As `nv12_by_libyuv`, of 16 bits with 10 on top."""
    return _call("P010ToARGBMatrix", [luma, chroma], width, luma.shape[0], _constants(matrix))


def yuv422_by_libyuv(luma: Bytes, cb: Bytes, cr: Bytes, width: int, matrix: str) -> Bytes:
    """Convert three planes, Cb and Cr of half the width."""
    return _call("I422ToARGBMatrix", [luma, cb, cr], width, luma.shape[0], _constants(matrix))


def packed_by_libyuv(code: str, rows: Bytes, width: int) -> Bytes:
    """Convert (height, bytes of a row) of YUYV or UYVY by BT.601, the only matrix that libyuv has for them."""
    function = {"YUYV": "YUY2ToARGB", "UYVY": "UYVYToARGB"}[code]
    return _call(function, [rows], width, rows.shape[0])
