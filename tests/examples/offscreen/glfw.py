"""A stand-in for GLFW without windows, for examples/gl_consumer.py: it draws into a renderbuffer of Mesa's llvmpipe.

The environment says what happens: OFFSCREEN_TURNS turns after which the user closes the window, whose last contents
are saved as OFFSCREEN_FILE.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from OpenGL import EGL
from OpenGL import GLES3 as GL

CLIENT_API = 0x00022001
OPENGL_ES_API = 0x00030002
CONTEXT_CREATION_API = 0x0002200B
EGL_CONTEXT_API = 0x00036002
CONTEXT_VERSION_MAJOR = 0x00022002


class _Window:
    def __init__(self, width: int, height: int) -> None:
        self.size = (0, 0)
        self.turns = int(os.environ["OFFSCREEN_TURNS"])
        self.wanted = (width, height)
        self.framebuffer = 0

    def fit(self) -> None:
        """A new size means a new buffer, whose contents are undefined: here they are green."""
        if self.size == self.wanted:
            return
        self.size = self.wanted
        renderbuffer = GL.glGenRenderbuffers(1)
        GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, renderbuffer)
        GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, GL.GL_RGBA8, *self.size)
        GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, GL.glGenFramebuffers(1))
        GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_RENDERBUFFER, renderbuffer)
        GL.glClearColor(0, 1, 0, 1)
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        GL.glClearColor(0, 0, 0, 0)


def init() -> bool:
    return True


def window_hint(hint: int, value: int) -> None:
    """Every hint asks for what this is: OpenGL ES 3 by EGL."""


def create_window(width: int, height: int, title: str, monitor: object, share: object) -> _Window:
    return _Window(width, height)


def make_context_current(window: _Window) -> None:
    os.environ["EGL_PLATFORM"] = "surfaceless"
    display = EGL.eglGetDisplay(EGL.EGL_DEFAULT_DISPLAY)
    EGL.eglInitialize(display, None, None)
    EGL.eglBindAPI(EGL.EGL_OPENGL_ES_API)
    version = [EGL.EGL_CONTEXT_CLIENT_VERSION, 3, EGL.EGL_NONE]
    context = EGL.eglCreateContext(display, None, EGL.EGL_NO_CONTEXT, version)
    EGL.eglMakeCurrent(display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, context)


def window_should_close(window: _Window) -> bool:
    return window.turns == 0


def get_framebuffer_size(window: _Window) -> tuple[int, int]:
    window.fit()
    return window.size


def set_window_size(window: _Window, width: int, height: int) -> None:
    window.wanted = (width, height)


def swap_buffers(window: _Window) -> None:
    """Show what was drawn: after the last turn it is saved, its lowest row being OpenGL's first."""
    window.turns -= 1
    if window.turns == 0:
        pixels: Any = np.empty((window.size[1], window.size[0], 4), np.uint8)
        GL.glReadPixels(0, 0, *window.size, GL.GL_RGBA, GL.GL_UNSIGNED_BYTE, pixels)
        np.save(os.environ["OFFSCREEN_FILE"], pixels[::-1])


def poll_events() -> None:
    """Nobody does anything but close the window."""


def terminate() -> None:
    """Nothing is left of the window."""
