"""Intel's own code for tiled pictures, from its graphics memory library, compiled for the tests.

Debian's package libigdgmm-dev has the source among its headers.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Gmmlib"]

SOURCE = Path("/usr/include/igdgmm/GmmLib/Utility/CpuSwizzleBlt/CpuSwizzleBlt.c")


class _Masks(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_int), ("z", ctypes.c_int)]


class _Surface(ctypes.Structure):
    """CPU_SWIZZLE_BLT_SURFACE."""

    _fields_ = [
        ("base", ctypes.c_void_p),
        ("pitch", ctypes.c_int),
        ("height", ctypes.c_int),
        ("swizzle", ctypes.POINTER(_Masks)),
        ("x", ctypes.c_int),
        ("y", ctypes.c_int),
        ("z", ctypes.c_int),
        ("element_pitch", ctypes.c_int),
        ("element_size", ctypes.c_int),
    ]


class Gmmlib:
    """The compiled library.

    Args:
        folder: where to put it.
    """

    def __init__(self, folder: Path) -> None:
        assert SOURCE.exists(), f"there is no {SOURCE}: apt-get install libigdgmm-dev"
        target = folder / "libswizzle.so"
        flags = ["-shared", "-fPIC", "-O1", "-msse4.1", "-w", "-include", "limits.h"]
        subprocess.run(["gcc", *flags, "-o", target, SOURCE], check=True, timeout=60)
        self._library = ctypes.CDLL(str(target))

    def to_tiles(self, picture: npt.NDArray[np.uint8], tiles: npt.NDArray[np.uint8], stride: int, name: str) -> None:
        """Draw a picture, (rows, bytes) uint8, into tiles, (n,) uint8 that begin at a multiple of 16 bytes.

        Args:
            picture: its rows follow each other.
            tiles: whole rows of tiles.
            stride: bytes from row to row, as a driver would report it.
            name: of the layout, such as ``INTEL_TILE_YF_32``.
        """
        masks = _Masks.in_dll(self._library, name)
        rows, width = picture.shape
        source = _Surface(base=picture.ctypes.data, pitch=width, height=rows)
        target = _Surface(
            base=tiles.ctypes.data, pitch=stride, height=tiles.size // stride, swizzle=ctypes.pointer(masks)
        )
        assert picture.flags.c_contiguous
        assert tiles.ctypes.data % 16 == 0
        assert rows <= target.height
        assert width <= stride
        self._library.CpuSwizzleBlt(ctypes.byref(target), ctypes.byref(source), width, rows)
