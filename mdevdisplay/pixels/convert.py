"""From a driver's own pixels to B, G, R, A or to R, G, B; exact for 8 bits, correctly rounded for RGB565.

DRM names a format from its most significant bits down, so XRGB8888 lies in memory as B, G, R, X. X bytes are undefined
and become 255.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import LINEAR, fourcc, fourcc_name, modifier_name
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.surface import SurfaceInfo

__all__ = ["check_decodable", "is_decodable", "to_bgra", "to_rgb"]

Pixels = npt.NDArray[np.uint8]
_ALPHA = np.uint32(0xFF000000)


def _bgrx(raw: Raw) -> Pixels:
    words: npt.NDArray[np.uint32] = np.bitwise_or(raw.view("<u4")[..., 0], _ALPHA)
    return words.view(np.uint8).reshape(raw.shape)


def _bgra(raw: Raw) -> Pixels:
    return raw


def _swapped(raw: Raw, *, opaque: bool) -> Pixels:
    pixels = np.empty(raw.shape, np.uint8)
    pixels[..., 0] = raw[..., 2]
    pixels[..., 1] = raw[..., 1]
    pixels[..., 2] = raw[..., 0]
    pixels[..., 3] = 255 if opaque else raw[..., 3]
    return pixels


def _bgr(raw: Raw) -> Pixels:
    pixels = np.empty((*raw.shape[:2], 4), np.uint8)
    pixels[..., :3] = raw
    pixels[..., 3] = 255
    return pixels


@cache
def _rgb565_table() -> npt.NDArray[np.uint32]:
    """All 65,536 RGB565 values as BGRA words, each channel rounded to the nearest of 0 to 255."""
    value = np.arange(65536, dtype=np.uint32)
    blue = ((value & 31) * 255 + 15) // 31
    green = ((value >> 5 & 63) * 255 + 31) // 63
    red = ((value >> 11) * 255 + 15) // 31
    return (_ALPHA | red << 16 | green << 8 | blue).astype(np.uint32)


def _rgb565(raw: Raw) -> Pixels:
    return _rgb565_table()[raw].view(np.uint8).reshape((*raw.shape, 4))


_TO_BGRA: dict[int, Callable[[Raw], Pixels]] = {
    fourcc("XR24"): _bgrx,
    fourcc("AR24"): _bgra,
    fourcc("XB24"): lambda raw: _swapped(raw, opaque=True),
    fourcc("AB24"): lambda raw: _swapped(raw, opaque=False),
    fourcc("RG24"): _bgr,
    fourcc("RG16"): _rgb565,
}

# formats whose raw elements hold the three colours as bytes: where R, G, B are
_BYTE_ORDER: dict[int, tuple[int, int, int]] = {
    fourcc("XR24"): (2, 1, 0),
    fourcc("AR24"): (2, 1, 0),
    fourcc("XB24"): (0, 1, 2),
    fourcc("AB24"): (0, 1, 2),
    fourcc("RG24"): (2, 1, 0),
}


def is_decodable(surface: SurfaceInfo) -> bool:
    """Whether the framework itself can convert these pixels."""
    return surface.modifier == LINEAR and surface.fourcc in _TO_BGRA


def check_decodable(surface: SurfaceInfo, device: str = "") -> None:
    """Refuse by name what cannot be converted.

    Raises:
        UnsupportedModifier: the memory layout is not linear.
        UnsupportedFormat: the fourcc is unknown or not converted yet.
    """
    if surface.modifier != LINEAR:
        name = modifier_name(surface.modifier)
        shown = name if "0x" in name else f"{name} (0x{surface.modifier:016x})"
        raise UnsupportedModifier(
            f"the pixels are laid out as {shown}, which is not decoded",
            device=device,
            hint="hand the dma-buf to a GPU (Display.dmabuf), or install a backend that decodes it",
        )
    if surface.fourcc not in _TO_BGRA:
        known = ", ".join(fourcc_name(code) for code in _TO_BGRA)
        layout = surface.format
        name = f"{fourcc_name(surface.fourcc)} ({layout.name})" if layout else fourcc_name(surface.fourcc)
        raise UnsupportedFormat(
            f"the pixel format {name} is not converted; {known} are",
            device=device,
            hint="frame.raw has the bytes as they are; a backend can decode formats of its own",
        )


def to_bgra(raw: Raw, surface: SurfaceInfo, device: str = "") -> Pixels:
    """Return (height, width, 4) uint8, always B, G, R, A; AR24 comes back as it is, everything else as a new array.

    Args:
        raw: packed pixels in the layout of the surface's format.
        surface: format and modifier.
        device: the locator for messages.

    Raises:
        UnsupportedModifier, UnsupportedFormat: see `check_decodable`.
    """
    check_decodable(surface, device)
    return _TO_BGRA[surface.fourcc](raw)


def to_rgb(raw: Raw, surface: SurfaceInfo, device: str = "") -> Pixels:
    """Return (height, width, 3) uint8, R, G, B, a new array."""
    check_decodable(surface, device)
    order = _BYTE_ORDER.get(surface.fourcc)
    return bgra_to_rgb(_TO_BGRA[surface.fourcc](raw)) if order is None else _pick(raw, order)


def bgra_to_rgb(pixels: Pixels) -> Pixels:
    """Return (height, width, 3) uint8, R, G, B, from (height, width, 4) B, G, R, A."""
    return _pick(pixels, (2, 1, 0))


def _pick(source: Raw, order: tuple[int, ...]) -> Pixels:
    # channel by channel: three times as fast as fancy indexing
    target = np.empty((*source.shape[:2], len(order)), np.uint8)
    for place, channel in enumerate(order):
        target[..., place] = source[..., channel]
    return target


def bgra_to_rgba(pixels: Pixels) -> Pixels:
    """Return (height, width, 4) uint8, R, G, B, A."""
    return _pick(pixels, (2, 1, 0, 3))
