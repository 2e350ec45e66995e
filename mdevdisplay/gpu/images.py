"""One imported buffer: an EGLImage and a texture for each memory plane, and the way from there to pixels."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from mdevdisplay.dmabuf import DmaBuf, DmaBufPlane
from mdevdisplay.errors import BadSurface, NotMappable
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.context import Context
from mdevdisplay.gpu.drawing import Drawing
from mdevdisplay.gpu.support import PlanePart, Reading
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Image", "layout_of"]

_U32 = 0xFFFFFFFF
_OPAQUE = np.uint32(0xFF000000)


def layout_of(surface: SurfaceInfo) -> tuple[object, ...]:
    """Return what an image depends on besides its buffer."""
    return surface.fourcc, surface.modifier, surface.width, surface.height, surface.planes()


class Image:
    """A buffer's picture in the GPU. Made, read and closed with the context current.

    Attributes:
        layout: see `layout_of`.
    """

    def __init__(
        self,
        context: Context,
        dmabuf: DmaBuf,
        reading: Reading,
        *,
        drawing: Drawing,
        modifiers: bool,
    ) -> None:
        """Import a buffer; its descriptors are needed no more afterwards.

        Args:
            context: where to.
            dmabuf: the buffer.
            reading: how it is read.
            drawing: draws what needs to be drawn.
            modifiers: whether the modifier is passed on.

        Raises:
            NotMappable: the driver refuses the buffer; cause ``import-refused``.
            BadSurface: it is larger than the GPU's textures can be.
            DriverError: the GPU failed.
        """
        surface = dmabuf.surface
        self.layout = layout_of(surface)
        self._context = context
        self._drawing = drawing
        self._shader = reading.shader
        self._opaque = reading.opaque
        self._width, self._height = surface.width, surface.height
        self._images: list[int] = []
        self._textures: list[int] = []
        self._framebuffer = ctypes.c_uint()
        longest = max(max(part.width, part.height) for part in reading.parts)
        if longest > context.most:
            raise BadSurface(
                f"reported {surface.describe()}: {context.renderer} reads at most {context.most} texels a side, and "
                f"this takes {longest}",
                device=context.device,
                hint="let the guest use a smaller mode; report the numbers if it has not set such a mode",
            )
        try:
            for plane, part in zip(dmabuf.planes, reading.parts, strict=True):
                if not self._add(plane, part, surface.modifier if modifiers else None):
                    raise self._refused(dmabuf)
            if not self._shader and not self._frame():
                raise self._refused(dmabuf)
        except BaseException:
            self.close()
            raise

    def _add(self, plane: DmaBufPlane, part: PlanePart, modifier: int | None) -> bool:
        """Make the texture of one memory plane; False if the driver refuses."""
        fd, offset, pitch, low, high = egl.PLANE_0
        wanted = {
            egl.WIDTH: part.width,
            egl.HEIGHT: part.height,
            egl.LINUX_DRM_FOURCC_EXT: part.fourcc,
            fd: plane.fd,
            offset: plane.offset,
            pitch: plane.stride,
        }
        if modifier is not None:
            wanted |= {low: modifier & _U32, high: modifier >> 32}
        flat = [ctypes.c_int(number).value for pair in wanted.items() for number in pair]
        attributes = (ctypes.c_int * (len(flat) + 1))(*flat, egl.NONE)
        call = egl.library()
        image = call.eglCreateImageKHR(self._context.display, None, egl.LINUX_DMA_BUF_EXT, None, attributes)
        if not image:
            return False
        self._images.append(image)
        texture = ctypes.c_uint()
        call.glGenTextures(1, texture)
        self._textures.append(texture.value)
        call.glBindTexture(egl.TEXTURE_2D, texture)
        call.glTexParameteri(egl.TEXTURE_2D, egl.TEXTURE_MIN_FILTER, egl.NEAREST)
        call.glTexParameteri(egl.TEXTURE_2D, egl.TEXTURE_MAG_FILTER, egl.NEAREST)
        call.glEGLImageTargetTexture2DOES(egl.TEXTURE_2D, image)
        self._context.check("making a texture of an imported buffer")
        return True

    def _frame(self) -> bool:
        """Make a framebuffer directly on the texture; False if the driver cannot."""
        call = egl.library()
        call.glGenFramebuffers(1, self._framebuffer)
        call.glBindFramebuffer(egl.FRAMEBUFFER, self._framebuffer)
        call.glFramebufferTexture2D(egl.FRAMEBUFFER, egl.COLOR_ATTACHMENT0, egl.TEXTURE_2D, self._textures[0], 0)
        return bool(call.glCheckFramebufferStatus(egl.FRAMEBUFFER) == egl.FRAMEBUFFER_COMPLETE)

    def _refused(self, dmabuf: DmaBuf) -> NotMappable:
        return NotMappable(
            f"{self._context.renderer} cannot import {dmabuf.surface.describe()} of {dmabuf.exporter or 'a memfd'}: "
            f"{egl.library().error()}",
            device=self._context.device,
            hint="hand the dma-buf on to a program that takes it, or let the guest use another mode",
            cause="import-refused",
        )

    def read(self, target: npt.NDArray[np.uint8]) -> None:
        """Copy the pixels as they are now into (height, width, 4) uint8: B, G, R, A.

        Raises:
            DriverError: the GPU failed.
        """
        call = egl.library()
        if self._shader:
            order = egl.RGBA
            self._drawing.draw(self._shader, self._textures, self._width, self._height)
        else:
            order = egl.BGRA_EXT
            call.glBindFramebuffer(egl.FRAMEBUFFER, self._framebuffer)
        into = ctypes.c_void_p(target.ctypes.data)
        call.glReadPixels(0, 0, self._width, self._height, order, egl.UNSIGNED_BYTE, into)
        self._context.check("reading an imported buffer back")
        if self._opaque:
            target.view("<u4")[...] |= _OPAQUE

    def close(self) -> None:
        """Let go of the buffer. Idempotent."""
        call = egl.library()
        call.glDeleteFramebuffers(1, self._framebuffer)
        self._framebuffer.value = 0
        while self._textures:
            call.glDeleteTextures(1, ctypes.c_uint(self._textures.pop()))
        while self._images:
            call.eglDestroyImageKHR(self._context.display, self._images.pop())
