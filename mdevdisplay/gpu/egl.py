"""EGL and OpenGL ES by ctypes: just the functions and numbers that importing a dma-buf and reading it back takes.

Everything but eglGetProcAddress is asked of EGL itself (EGL_KHR_get_all_proc_addresses), so libEGL.so.1 is all that
has to be found. Calls release the GIL.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_float, c_int, c_uint, c_uint64, c_void_p
from typing import Any

from mdevdisplay.errors import NotMappable

__all__ = ["Egl", "library", "plain_text"]

# EGL/egl.h, EGL/eglext.h
SUCCESS = 0x3000
NONE = 0x3038
EXTENSIONS = 0x3055
HEIGHT = 0x3056
WIDTH = 0x3057
DRAW = 0x3059
READ = 0x305A
OPENGL_ES_API = 0x30A0
CONTEXT_MAJOR_VERSION = 0x3098
PLATFORM_DEVICE_EXT = 0x313F
LINUX_DMA_BUF_EXT = 0x3270
LINUX_DRM_FOURCC_EXT = 0x3271
# the first memory plane's descriptor, offset, pitch, and the low and high half of its modifier
PLANE_0 = (0x3272, 0x3273, 0x3274, 0x3443, 0x3444)
DRM_RENDER_NODE_FILE_EXT = 0x3377

# GLES2/gl2.h, GLES2/gl2ext.h, GLES3/gl3.h
TRIANGLES = 0x0004
TEXTURE_2D = 0x0DE1
MAX_TEXTURE_SIZE = 0x0D33
PACK_ALIGNMENT = 0x0D05
UNSIGNED_BYTE = 0x1401
RGBA = 0x1908
BGRA_EXT = 0x80E1
RENDERER = 0x1F01
GL_EXTENSIONS = 0x1F03
TEXTURE_MAG_FILTER = 0x2800
TEXTURE_MIN_FILTER = 0x2801
NEAREST = 0x2600
RGBA8 = 0x8058
TEXTURE0 = 0x84C0
FRAGMENT_SHADER = 0x8B30
VERTEX_SHADER = 0x8B31
LINK_STATUS = 0x8B82
COLOR_ATTACHMENT0 = 0x8CE0
FRAMEBUFFER_COMPLETE = 0x8CD5
FRAMEBUFFER = 0x8D40
RENDERBUFFER = 0x8D41

_ids = POINTER(c_uint)
_ints = POINTER(c_int)

_EGL = {
    "eglGetError": (c_int,),
    "eglQueryString": (c_char_p, c_void_p, c_int),
    "eglInitialize": (c_uint, c_void_p, _ints, _ints),
    "eglBindAPI": (c_uint, c_uint),
    "eglQueryAPI": (c_uint,),
    "eglCreateContext": (c_void_p, c_void_p, c_void_p, c_void_p, _ints),
    "eglDestroyContext": (c_uint, c_void_p, c_void_p),
    "eglMakeCurrent": (c_uint, c_void_p, c_void_p, c_void_p, c_void_p),
    "eglGetCurrentContext": (c_void_p,),
    "eglGetCurrentDisplay": (c_void_p,),
    "eglGetCurrentSurface": (c_void_p, c_int),
}

_EGL_EXTENSIONS = {
    "eglQueryDevicesEXT": (c_uint, c_int, POINTER(c_void_p), _ints),
    "eglQueryDeviceStringEXT": (c_char_p, c_void_p, c_int),
    "eglGetPlatformDisplayEXT": (c_void_p, c_uint, c_void_p, _ints),
}

_IMPORT = {
    "eglCreateImageKHR": (c_void_p, c_void_p, c_void_p, c_uint, c_void_p, _ints),
    "eglDestroyImageKHR": (c_uint, c_void_p, c_void_p),
    "glEGLImageTargetTexture2DOES": (None, c_uint, c_void_p),
}

_MODIFIERS = {
    "eglQueryDmaBufFormatsEXT": (c_uint, c_void_p, c_int, _ints, _ints),
    "eglQueryDmaBufModifiersEXT": (c_uint, c_void_p, c_int, c_int, POINTER(c_uint64), POINTER(c_uint), _ints),
}

_GL = {
    "glActiveTexture": (None, c_uint),
    "glAttachShader": (None, c_uint, c_uint),
    "glBindFramebuffer": (None, c_uint, c_uint),
    "glBindRenderbuffer": (None, c_uint, c_uint),
    "glBindTexture": (None, c_uint, c_uint),
    "glCheckFramebufferStatus": (c_uint, c_uint),
    "glCompileShader": (None, c_uint),
    "glCreateProgram": (c_uint,),
    "glCreateShader": (c_uint, c_uint),
    "glDeleteFramebuffers": (None, c_int, _ids),
    "glDeleteProgram": (None, c_uint),
    "glDeleteRenderbuffers": (None, c_int, _ids),
    "glDeleteShader": (None, c_uint),
    "glDeleteTextures": (None, c_int, _ids),
    "glDrawArrays": (None, c_uint, c_int, c_int),
    "glFramebufferRenderbuffer": (None, c_uint, c_uint, c_uint, c_uint),
    "glFramebufferTexture2D": (None, c_uint, c_uint, c_uint, c_uint, c_int),
    "glGenFramebuffers": (None, c_int, _ids),
    "glGenRenderbuffers": (None, c_int, _ids),
    "glGenTextures": (None, c_int, _ids),
    "glGetError": (c_uint,),
    "glGetIntegerv": (None, c_uint, _ints),
    "glGetProgramiv": (None, c_uint, c_uint, _ints),
    "glGetString": (c_char_p, c_uint),
    "glGetUniformLocation": (c_int, c_uint, c_char_p),
    "glLinkProgram": (None, c_uint),
    "glPixelStorei": (None, c_uint, c_int),
    "glReadPixels": (None, c_int, c_int, c_int, c_int, c_uint, c_uint, c_void_p),
    "glRenderbufferStorage": (None, c_uint, c_uint, c_int, c_int),
    "glShaderSource": (None, c_uint, c_int, POINTER(c_char_p), _ints),
    "glTexParameteri": (None, c_uint, c_uint, c_int),
    "glUniform1i": (None, c_int, c_int),
    "glUniform2f": (None, c_int, c_float, c_float),
    "glUseProgram": (None, c_uint),
    "glViewport": (None, c_int, c_int, c_int, c_int),
}

_ERRORS = (
    "EGL_SUCCESS",
    "EGL_NOT_INITIALIZED",
    "EGL_BAD_ACCESS",
    "EGL_BAD_ALLOC",
    "EGL_BAD_ATTRIBUTE",
    "EGL_BAD_CONFIG",
    "EGL_BAD_CONTEXT",
    "EGL_BAD_CURRENT_SURFACE",
    "EGL_BAD_DISPLAY",
    "EGL_BAD_MATCH",
    "EGL_BAD_NATIVE_PIXMAP",
    "EGL_BAD_NATIVE_WINDOW",
    "EGL_BAD_PARAMETER",
    "EGL_BAD_SURFACE",
    "EGL_CONTEXT_LOST",
)


class Egl:
    """The functions of libEGL.so.1 and, through it, of OpenGL ES; called by their names.

    Attributes:
        client_extensions: what EGL can do before any display is asked for.
    """

    def __init__(self, opened: ctypes.CDLL) -> None:
        self._resolve = opened.eglGetProcAddress
        self._resolve.restype, self._resolve.argtypes = c_void_p, [c_char_p]
        for table in (_EGL, _EGL_EXTENSIONS, _IMPORT, _MODIFIERS, _GL):
            for name, (result, *arguments) in table.items():
                setattr(self, name, self._function(name, result, arguments))
        self.client_extensions = self.extensions(None)

    def _function(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        address = self._resolve(name.encode())
        return CFUNCTYPE(result, *arguments)(address) if address else None

    def __getattr__(self, name: str) -> Any:
        """Only for the type checker: every function is set at construction."""
        raise AttributeError(name)

    def extensions(self, display: int | None) -> frozenset[str]:
        """Return the names of a display's extensions, or of EGL itself without one."""
        return frozenset(plain_text(self.eglQueryString(display, EXTENSIONS)).split())

    def error(self) -> str:
        """Return and clear this thread's last error: ``EGL_BAD_MATCH``."""
        number = self.eglGetError()
        place = number - SUCCESS
        return _ERRORS[place] if 0 <= place < len(_ERRORS) else f"EGL error {number:#x}"


def library(device: str = "") -> Egl:
    """Return EGL, loaded at the first call.

    Raises:
        NotMappable: it is not installed, or no driver of it can be asked for a device; cause ``no-egl``.
    """
    try:
        egl = _load()
        if "EGL_EXT_platform_device" in egl.client_extensions:
            return egl
        why = "no driver of EGL has EGL_EXT_platform_device"
    except (OSError, AttributeError) as error:
        why = f"libEGL.so.1 cannot be loaded: {error}"
    raise NotMappable(
        f"the buffer can only be read by a GPU, and {why}",
        device=device,
        hint="install libegl1 and libegl-mesa0 (Debian), or what your distribution calls libEGL.so.1 and its driver",
        cause="no-egl",
    )


@functools.cache
def _load() -> Egl:
    return Egl(ctypes.CDLL("libEGL.so.1"))


def plain_text(raw: bytes | None) -> str:
    """Return a driver's text as printable ASCII; "" for NULL."""
    text = (raw or b"").decode("ascii", "replace")
    return "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in text)
