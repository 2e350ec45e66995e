"""From a driver's own pixels to B, G, R, A or to R, G, B: which conversion a surface takes, or why there is none.

DRM names a format from its most significant bits down, so XRGB8888 lies in memory as B, G, R, X. Eight-bit channels are
exact, others rounded to the nearest of 0 to 255. X bits and bytes are undefined: alpha is 255. Alpha is straight, as it
lies in memory. YUV is in limited range, by BT.601 or BT.709: see `mdevdisplay.pixels.yuv`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import LINEAR, fourcc, fourcc_name, modifier_name
from mdevdisplay.pixels import channels, levels, yuv
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.pixels.tiling import can_straighten, check_tiling, is_tiled, to_linear
from mdevdisplay.pixels.yuv import Matrix
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Matrix", "bgra_to_rgb", "bgra_to_rgba", "check_decodable", "is_decodable", "to_bgra", "to_rgb"]

Pixels = npt.NDArray[np.uint8]

_RGB_TO_BGRA: dict[int, Callable[[Raw], Pixels]] = {
    fourcc("XR24"): channels.opaque,
    fourcc("AR24"): lambda raw: raw,
    fourcc("XB24"): lambda raw: channels.rgb_to_bgra(raw, alpha=False),
    fourcc("AB24"): lambda raw: channels.rgb_to_bgra(raw, alpha=True),
    fourcc("RG24"): channels.with_alpha,
    fourcc("RG16"): levels.rgb565,
    fourcc("XR30"): levels.rgb30,
    fourcc("XB30"): levels.bgr30,
}

# formats whose raw elements hold the three colours as bytes: where R, G, B are
_BYTE_ORDER: dict[int, tuple[int, int, int]] = {
    fourcc("XR24"): (2, 1, 0),
    fourcc("AR24"): (2, 1, 0),
    fourcc("XB24"): (0, 1, 2),
    fourcc("AB24"): (0, 1, 2),
    fourcc("RG24"): (2, 1, 0),
}

_DECODABLE = (*_RGB_TO_BGRA, *sorted(yuv.FOURCCS))


def _becomes_rows(surface: SurfaceInfo) -> bool:
    """Whether `_rows` can make rows of the surface's layout."""
    return surface.modifier == LINEAR or can_straighten(surface)


def _rows(raw: Raw, surface: SurfaceInfo, device: str) -> Raw:
    """Return the pixels as rows of the format's elements, `Format.raw_shape`."""
    layout = surface.format
    if surface.modifier == LINEAR or layout is None:
        return raw
    rows = to_linear(raw, surface, device=device)
    return rows.view("<" + layout.dtype).reshape(layout.raw_shape(surface.width, surface.height))


def is_decodable(surface: SurfaceInfo) -> bool:
    """Whether the framework itself can convert these pixels."""
    return _becomes_rows(surface) and surface.fourcc in _DECODABLE


def check_decodable(surface: SurfaceInfo, device: str = "") -> None:
    """Refuse by name what cannot be converted.

    Raises:
        UnsupportedModifier: the memory layout is neither linear nor a tiling that is straightened here.
        UnsupportedFormat: the fourcc is unknown, or its pixels mean nothing without a palette.
    """
    if is_tiled(surface.modifier):
        check_tiling(surface, device)
    elif surface.modifier != LINEAR:
        name = modifier_name(surface.modifier)
        shown = name if "0x" in name else f"{name} (0x{surface.modifier:016x})"
        raise UnsupportedModifier(
            f"the pixels are laid out as {shown}, which is not decoded",
            device=device,
            hint="hand the dma-buf to a GPU (Display.dmabuf), or install a backend that decodes it",
        )
    if surface.fourcc in _DECODABLE:
        return
    layout = surface.format
    name = f"{fourcc_name(surface.fourcc)} ({layout.name})" if layout else fourcc_name(surface.fourcc)
    if surface.fourcc == fourcc("C8"):
        raise UnsupportedFormat(
            f"the pixels are {name}, numbers of colours in a palette, and no driver hands the palette out",
            device=device,
            hint="set the guest to a mode of more than 256 colours; frame.raw has the numbers",
        )
    known = ", ".join(fourcc_name(code) for code in _DECODABLE)
    raise UnsupportedFormat(
        f"the pixel format {name} is not converted; {known} are",
        device=device,
        hint="frame.raw has the bytes as they are; a backend can decode formats of its own",
    )


def to_bgra(raw: Raw, surface: SurfaceInfo, device: str = "", *, matrix: Matrix | None = None) -> Pixels:
    """Return (height, width, 4) uint8, always B, G, R, A; AR24 comes back as it is, everything else as a new array.

    Args:
        raw: pixels in the layout of the surface's format, packed or not; they are only read.
        surface: format and modifier.
        device: the locator for messages.
        matrix: ``"bt601"`` or ``"bt709"`` for YUV, where the caller knows; None chooses by the size, see
            `mdevdisplay.pixels.yuv`. RGB formats have no use for it.

    Raises:
        ValueError: there is no such matrix.
        UnsupportedModifier, UnsupportedFormat: see `check_decodable`.
    """
    yuv.check_matrix(matrix)
    check_decodable(surface, device)
    rows = _rows(raw, surface, device)
    if surface.fourcc in yuv.FOURCCS:
        return yuv.to_bgra(rows, surface, matrix)
    return _RGB_TO_BGRA[surface.fourcc](rows)


def to_rgb(raw: Raw, surface: SurfaceInfo, device: str = "", *, matrix: Matrix | None = None) -> Pixels:
    """Return (height, width, 3) uint8, R, G, B, a new array; arguments and errors are those of `to_bgra`."""
    yuv.check_matrix(matrix)
    check_decodable(surface, device)
    rows = _rows(raw, surface, device)
    if surface.fourcc in yuv.FOURCCS:
        return yuv.to_rgb(rows, surface, matrix)
    order = _BYTE_ORDER.get(surface.fourcc)
    return bgra_to_rgb(_RGB_TO_BGRA[surface.fourcc](rows)) if order is None else channels.picked(rows, order)


def bgra_to_rgb(pixels: Pixels) -> Pixels:
    """Return (height, width, 3) uint8, R, G, B, from (height, width, 4) B, G, R, A; a new array."""
    return channels.picked(pixels, (2, 1, 0))


def bgra_to_rgba(pixels: Pixels) -> Pixels:
    """Return (height, width, 4) uint8, R, G, B, A, from (height, width, 4) B, G, R, A; a new array."""
    return channels.picked(pixels, (2, 1, 0, 3))
