#!/usr/bin/env python3
"""Show a display in a window that the GPU draws from the vGPU's own memory: no pixel passes through the CPU.

    pip install glfw PyOpenGL && gl_consumer.py vm:win10

Every buffer is imported once, as an EGLImage, and kept by its key: what the guest draws into it later is there without
another call. The GPU that draws the window must be able to read the buffer: for an Intel vGPU it is that very GPU.
Whether the picture changed is not asked, since telling takes reading. The cursor, a plane of its own, is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import os

os.environ["PYOPENGL_PLATFORM"] = "egl"  # before the imports: PyOpenGL looks for GLX otherwise

import glfw
from OpenGL import EGL
from OpenGL import GLES3 as GL
from OpenGL.EGL.EXT import image_dma_buf_import as dma
from OpenGL.EGL.KHR.image_base import eglCreateImageKHR, eglDestroyImageKHR
from OpenGL.GLES2.OES.EGL_image_external import GL_TEXTURE_EXTERNAL_OES as EXTERNAL

import mdevdisplay
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import GuestChangingMode, MdevDisplayError, NothingDisplayed
from mdevdisplay.surface import SurfaceInfo

PLANE0_MODIFIER_LO = 0x3443  # EGL_DMA_BUF_PLANE0_MODIFIER_LO_EXT, for which PyOpenGL has no name
KEPT = 8  # images: a guest that flips through ever more buffers must not fill the GPU's memory
VERTEX = """#version 300 es
out vec2 at;
void main() {  // one triangle that covers the window; the picture's first row is at the top
    at = vec2(gl_VertexID == 1 ? 2.0 : 0.0, gl_VertexID == 2 ? 2.0 : 0.0);
    gl_Position = vec4(2.0 * at.x - 1.0, 1.0 - 2.0 * at.y, 0.0, 1.0);
}"""
FRAGMENT = """#version 300 es
#extension GL_OES_EGL_image_external_essl3 : require
precision highp float;
uniform samplerExternalOES picture;  // converts YUV too
in vec2 at;
out vec4 colour;
void main() { colour = vec4(texture(picture, at).rgb, 1.0); }"""


class Images:
    """The imported buffers of one display, each an EGLImage and its texture. They belong to the current context."""

    def __init__(self) -> None:
        self.imports = 0
        self._egl = EGL.eglGetCurrentDisplay()
        self._known: dict[tuple[int, SurfaceInfo], tuple[object, int]] = {}
        if b"EGL_EXT_image_dma_buf_import_modifiers" not in EGL.eglQueryString(self._egl, EGL.EGL_EXTENSIONS).split():
            raise SystemExit("EGL cannot import dma-bufs into this window; it needs a GPU with DRI3 (X11), or Wayland")
        program = GL.glCreateProgram()
        for kind, source in ((GL.GL_VERTEX_SHADER, VERTEX), (GL.GL_FRAGMENT_SHADER, FRAGMENT)):
            shader = GL.glCreateShader(kind)
            GL.glShaderSource(shader, source)
            GL.glCompileShader(shader)
            GL.glAttachShader(program, shader)
        GL.glLinkProgram(program)
        GL.glUseProgram(program)

    def draw(self, display: mdevdisplay.Display) -> SurfaceInfo | None:
        """Draw what is shown, as large as the viewport; return None where that is nothing."""
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        try:
            with display.dmabuf() as buffer:
                GL.glBindTexture(EXTERNAL, self._texture(buffer))
                GL.glDrawArrays(GL.GL_TRIANGLES, 0, 3)
                return buffer.surface
        except (NothingDisplayed, GuestChangingMode):
            return None

    def _texture(self, buffer: DmaBuf) -> int:
        """Return the texture of a buffer, which is imported unless it was shown lately."""
        key = buffer.key, buffer.surface  # a buffer may show pictures of several sizes, one after the other
        found = self._known.pop(key, None) or self._import(buffer)
        self._known[key] = found  # now the last in the order
        if len(self._known) > KEPT:
            image, texture = self._known.pop(next(iter(self._known)))
            GL.glDeleteTextures(1, [texture])
            eglDestroyImageKHR(self._egl, image)
        return found[1]

    def _import(self, buffer: DmaBuf) -> tuple[object, int]:
        surface = buffer.surface
        size = {EGL.EGL_WIDTH: surface.width, EGL.EGL_HEIGHT: surface.height}
        wanted = size | {dma.EGL_LINUX_DRM_FOURCC_EXT: buffer.fourcc}
        if surface.width >= 1280 or surface.height > 576:  # heeded for YUV alone; BT.601 otherwise
            wanted[dma.EGL_YUV_COLOR_SPACE_HINT_EXT] = dma.EGL_ITU_REC709_EXT
        for number, plane in enumerate(buffer.planes):
            first, modifier = dma.EGL_DMA_BUF_PLANE0_FD_EXT + 3 * number, PLANE0_MODIFIER_LO + 2 * number
            wanted |= {first: plane.fd, first + 1: plane.offset, first + 2: plane.stride}
            wanted |= {modifier: buffer.modifier & 0xFFFFFFFF, modifier + 1: buffer.modifier >> 32}
        flat = [int(number) for pair in wanted.items() for number in pair]
        attributes = (ctypes.c_int32 * (len(flat) + 1))(*flat, EGL.EGL_NONE)
        try:
            image = eglCreateImageKHR(self._egl, EGL.EGL_NO_CONTEXT, dma.EGL_LINUX_DMA_BUF_EXT, None, attributes)
        except EGL.EGLError as error:
            raise SystemExit(f"the GPU does not import {surface.describe()}: {error.err}") from error
        # PyOpenGL has this too, but asks a desktop OpenGL for it
        address = EGL.eglGetProcAddress(b"glEGLImageTargetTexture2DOES")
        texture = GL.glGenTextures(1)
        GL.glBindTexture(EXTERNAL, texture)
        ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_void_p)(address)(EXTERNAL, image)
        self.imports += 1
        return image, texture  # the image holds the memory: the descriptors may be closed


def show(display: mdevdisplay.Display) -> None:
    """Draw into a window, once for every frame of the monitor that it is on, until it is closed."""
    glfw.init()  # says itself why it cannot
    hints = {glfw.CLIENT_API: glfw.OPENGL_ES_API, glfw.CONTEXT_CREATION_API: glfw.EGL_CONTEXT_API}
    for hint, value in (hints | {glfw.CONTEXT_VERSION_MAJOR: 3}).items():
        glfw.window_hint(hint, value)
    size = 1280, 720
    try:
        window = glfw.create_window(*size, f"{display.locator} - mdevdisplay", None, None)
        if not window:
            raise SystemExit("no window can be opened here, or none with OpenGL ES 3 by EGL")
        glfw.make_context_current(window)
        images = Images()
        while not glfw.window_should_close(window):
            GL.glViewport(0, 0, *glfw.get_framebuffer_size(window))
            surface = images.draw(display)
            glfw.swap_buffers(window)
            glfw.poll_events()
            if surface is not None and size != (surface.width, surface.height):
                size = surface.width, surface.height
                glfw.set_window_size(window, *size)
        print(f"{images.imports} buffers imported")
    finally:
        glfw.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="Show a display in a window, drawn by the GPU without a copy.")
    parser.add_argument("locator", help="as for mdevdisplay: vm:NAME, a UUID")
    try:
        with mdevdisplay.open(parser.parse_args().locator, timeout=5, isolated=None) as display:
            show(display)
    except MdevDisplayError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
