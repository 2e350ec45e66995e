"""How each format is read by a GPU, and which formats and modifiers one imports."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import attrs

from mdevdisplay.errors import UnsupportedFormat, UnsupportedModifier
from mdevdisplay.formats import INVALID, LINEAR, fourcc, fourcc_name, modifier_name
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.context import Context
from mdevdisplay.surface import SurfaceInfo

__all__ = ["PlanePart", "Reading", "Supported", "reading_of"]

_MOST = 1024


@attrs.frozen
class PlanePart:
    """One memory plane as a texture: its format and its size in texels."""

    fourcc: int
    width: int
    height: int


@attrs.frozen
class Reading:
    """How a surface is read.

    Attributes:
        shader: how its textures become colours, see `mdevdisplay.gpu.drawing`; "" for a framebuffer directly on the
            texture.
        parts: the texture of each memory plane.
        opaque: whether the fourth byte comes out undefined and becomes 255.
    """

    shader: str
    parts: tuple[PlanePart, ...]
    opaque: bool = False


@attrs.frozen
class _Part:
    """One memory plane: its own format, and its size against that of the picture."""

    code: str
    across: Callable[[int], int] = lambda width: width
    down: Callable[[int], int] = lambda height: height


def _half(side: int) -> int:
    return (side + 1) // 2


def _pairs(width: int) -> int:
    return width + width % 2


# format: shader, memory planes, opaque. What differs from the plain case, and why:
# - X formats are imported with the undefined byte as alpha: Mesa reads those back several times faster, at best with a
#   memcpy.
# - 565 and 10 bits are drawn: glReadPixels need not round to the nearest (Mesa repeats bits), and 10 bits need not be
#   renderable.
# - RGB888 is imported by its bytes, since few drivers import it as it is.
# - YUV is imported as plain channels, and our own shaders say what they mean: EGL's hints for that are hints, and
#   llvmpipe imports nothing that has a second memory plane.
_READINGS: dict[int, tuple[str, tuple[_Part, ...], bool]] = {
    fourcc("AR24"): ("", (_Part("AR24"),), False),
    fourcc("AB24"): ("", (_Part("AB24"),), False),
    fourcc("XR24"): ("", (_Part("AR24"),), True),
    fourcc("XB24"): ("", (_Part("AB24"),), True),
    fourcc("RG16"): ("RGB", (_Part("RG16"),), False),
    fourcc("XR30"): ("RGB", (_Part("XR30"),), False),
    fourcc("XB30"): ("RGB", (_Part("XB30"),), False),
    fourcc("RG24"): ("RG24", (_Part("R8", lambda width: 3 * width),), False),
    fourcc("YUYV"): ("YUYV", (_Part("GR88", _pairs),), False),
    fourcc("YVYU"): ("YVYU", (_Part("GR88", _pairs),), False),
    fourcc("UYVY"): ("UYVY", (_Part("GR88", _pairs),), False),
    fourcc("VYUY"): ("VYUY", (_Part("GR88", _pairs),), False),
    fourcc("NV12"): ("NV12", (_Part("R8"), _Part("GR88", _half, _half)), False),
    fourcc("P010"): ("P010", (_Part("R16"), _Part("GR32", _half, _half)), False),
}


def reading_of(surface: SurfaceInfo) -> Reading | None:
    """Return how a surface is read; None for a format that no shader here knows, and for C8, which has no palette."""
    known = _READINGS.get(surface.fourcc)
    if known is None:
        return None
    shader, parts, opaque = known
    sizes = (PlanePart(fourcc(part.code), part.across(surface.width), part.down(surface.height)) for part in parts)
    return Reading(shader, tuple(sizes), opaque=opaque)


class Supported:
    """What one EGL display imports. Each format is asked for once.

    Attributes:
        modifiers: whether modifiers are passed. Without EGL_EXT_image_dma_buf_import_modifiers none is, and only linear
            buffers are imported.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.modifiers = "EGL_EXT_image_dma_buf_import_modifiers" in context.extensions
        self._formats = _ask_formats(context.display) if self.modifiers else frozenset[int]()
        self._known: dict[int, frozenset[int]] = {}

    def find(self, surface: SurfaceInfo) -> Reading:
        """Return how a surface is read.

        Raises:
            UnsupportedFormat: the GPU does not import the format, or nobody says what its colours are (C8).
            UnsupportedModifier: it does not import the format in this layout.
        """
        reading = reading_of(surface)
        codes = {part.fourcc for part in reading.parts} if reading else set()
        if reading is None or (self.modifiers and not codes <= self._formats):
            raise UnsupportedFormat(
                f"{self._context.renderer} does not import {fourcc_name(surface.fourcc)}",
                device=self._context.device,
                hint="let the guest use XR24; the dma-buf itself can be handed on",
            )
        known = frozenset.intersection(*map(self._modifiers_of, codes))
        if surface.modifier == INVALID or surface.modifier not in known:
            layouts = ", ".join(modifier_name(value) for value in sorted(known)) or "none that can be read back"
            raise UnsupportedModifier(
                f"{self._context.renderer} imports {fourcc_name(surface.fourcc)} as {layouts}, not as "
                f"{modifier_name(surface.modifier)}",
                device=self._context.device,
                hint="a newer driver of this GPU may; the dma-buf itself can be handed on",
            )
        return reading

    def _modifiers_of(self, code: int) -> frozenset[int]:
        if code not in self._known:
            self._known[code] = _ask_modifiers(self._context.display, code) if self.modifiers else frozenset((LINEAR,))
        return self._known[code]


def _ask_formats(display: int) -> frozenset[int]:
    found = (ctypes.c_int * _MOST)()
    count = ctypes.c_int()
    if not egl.library().eglQueryDmaBufFormatsEXT(display, _MOST, found, count):
        return frozenset()
    return frozenset(code & 0xFFFFFFFF for code in found[: max(0, count.value)])


def _ask_modifiers(display: int, code: int) -> frozenset[int]:
    """Return the modifiers that make an ordinary texture; an external one has no framebuffer and no texelFetch.

    A driver that lists none for a format that it does list knows no layout but the linear one by name.
    """
    found = (ctypes.c_uint64 * _MOST)()
    external = (ctypes.c_uint * _MOST)()
    count = ctypes.c_int()
    call = egl.library()
    if not call.eglQueryDmaBufModifiersEXT(display, ctypes.c_int(code).value, _MOST, found, external, count):
        return frozenset()
    many = max(0, count.value)
    if not many:
        return frozenset((LINEAR,))
    return frozenset(value for value, only in zip(found[:many], external[:many], strict=True) if not only)
