"""Drawing textures, texel for pixel, into a framebuffer of 8 bits a channel: what YUV, 10 bits and 565 need."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress

from mdevdisplay.errors import DriverError
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.context import Context

__all__ = ["Drawing"]

# The weights of red and blue in luma, of BT.709 and BT.601.
_BT709 = (0.2126, 0.0722)
_BT601 = (0.299, 0.114)

_VERTEX = """#version 300 es
void main() {
    gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
"""

_FRAGMENT = """#version 300 es
precision highp float;
precision highp int;
uniform highp sampler2D first, second;
uniform vec2 weights;
out vec4 colour;

vec4 rgb(vec3 code) {
    // limited range: luma 16 to 235, chroma 16 to 240 around 128; the weights are those of red and blue in luma
    vec3 yuv = (code - vec3(16.0, 128.0, 128.0)) / vec3(219.0, 224.0, 224.0);
    vec2 other = 2.0 - 2.0 * weights;
    float red = yuv.x + other.x * yuv.z;
    float blue = yuv.x + other.y * yuv.y;
    float green = (yuv.x - weights.x * red - weights.y * blue) / (1.0 - weights.x - weights.y);
    return vec4(red, green, blue, 1.0);
}

vec4 read(ivec2 at) {
    %s
}

void main() {
    colour = read(ivec2(gl_FragCoord.xy)).bgra;  // so that what is called RGBA lies in memory as B, G, R, A
}
"""


def _pair(luma: str, chroma: str, blue: int) -> str:
    """Return the shader for two pixels in four bytes: each texel has its own luma, and one of the two chromas."""
    sides = ("at.x & ~1", "at.x | 1")
    return f"""
    float u = texelFetch(first, ivec2({sides[blue]}, at.y), 0).{chroma};
    float v = texelFetch(first, ivec2({sides[1 - blue]}, at.y), 0).{chroma};
    return rgb(255.0 * vec3(texelFetch(first, at, 0).{luma}, u, v));"""


_SHADERS = {
    "RGB": "return texelFetch(first, at, 0);",
    "RG24": """
    ivec2 blue = ivec2(3 * at.x, at.y);
    return vec4(texelFetch(first, blue + ivec2(2, 0), 0).r, texelFetch(first, blue + ivec2(1, 0), 0).r,
                texelFetch(first, blue, 0).r, 1.0);""",
    "YUYV": _pair("r", "g", 0),
    "YVYU": _pair("r", "g", 1),
    "UYVY": _pair("g", "r", 0),
    "VYUY": _pair("g", "r", 1),
    "NV12": "return rgb(255.0 * vec3(texelFetch(first, at, 0).r, texelFetch(second, at >> 1, 0).rg));",
    # ten bits at the top of sixteen, the others undefined
    "P010": """
    vec3 bits = 65535.0 * vec3(texelFetch(first, at, 0).r, texelFetch(second, at >> 1, 0).rg);
    return rgb(floor((bits + 0.5) / 64.0) / 4.0);""",
}


class Drawing:
    """The programs and the framebuffer of one context, made at the first need. Used with the context current."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._programs: dict[str, int] = {}
        self._framebuffer = ctypes.c_uint()
        self._renderbuffer = ctypes.c_uint()
        self._size = (0, 0)

    def draw(self, shader: str, textures: Sequence[int], width: int, height: int) -> None:
        """Draw, and leave the framebuffer bound: B, G, R, A by the names of R, G, B, A.

        YUV means the same as in mdevdisplay.pixels.yuv: limited range, BT.709 from 1280 columns or above 576 rows and
        else BT.601; every pixel has the chroma of its block.

        Raises:
            DriverError: the GPU fails.
        """
        call = egl.library()
        program = self._prepare(shader, width, height)
        weights = _BT709 if width >= 1280 or height > 576 else _BT601
        call.glUniform2f(call.glGetUniformLocation(program, b"weights"), *weights)
        for unit, texture in enumerate(textures):
            call.glActiveTexture(egl.TEXTURE0 + unit)
            call.glBindTexture(egl.TEXTURE_2D, texture)
        call.glActiveTexture(egl.TEXTURE0)
        call.glViewport(0, 0, width, height)
        call.glDrawArrays(egl.TRIANGLES, 0, 3)

    def forget_textures(self) -> None:
        """Draw one pixel of nothing: Mesa keeps the memory of deleted textures and framebuffers until the next draw."""
        call = egl.library()
        with suppress(DriverError):
            self._prepare("RGB", *(self._size if self._size != (0, 0) else (1, 1)))
            call.glViewport(0, 0, 1, 1)
            call.glDrawArrays(egl.TRIANGLES, 0, 3)
            self._context.check("letting go of a buffer")

    def _prepare(self, shader: str, width: int, height: int) -> int:
        """Bind the framebuffer, of this size, and the program, and return it."""
        call = egl.library()
        program = self._programs.get(shader) or self._build(shader)
        if not self._framebuffer:
            call.glGenFramebuffers(1, self._framebuffer)
        call.glBindFramebuffer(egl.FRAMEBUFFER, self._framebuffer)
        if self._size != (width, height):
            self._resize(width, height)
        call.glUseProgram(program)
        return program

    def _resize(self, width: int, height: int) -> None:
        call = egl.library()
        self._size = (0, 0)
        call.glDeleteRenderbuffers(1, self._renderbuffer)
        call.glGenRenderbuffers(1, self._renderbuffer)
        call.glBindRenderbuffer(egl.RENDERBUFFER, self._renderbuffer)
        call.glRenderbufferStorage(egl.RENDERBUFFER, egl.RGBA8, width, height)
        call.glFramebufferRenderbuffer(egl.FRAMEBUFFER, egl.COLOR_ATTACHMENT0, egl.RENDERBUFFER, self._renderbuffer)
        self._context.check("making a framebuffer")
        self._size = (width, height)

    def _build(self, shader: str) -> int:
        call = egl.library()
        program = int(call.glCreateProgram())
        for kind, text in ((egl.VERTEX_SHADER, _VERTEX), (egl.FRAGMENT_SHADER, _FRAGMENT % _SHADERS[shader])):
            part = call.glCreateShader(kind)
            call.glShaderSource(part, 1, ctypes.c_char_p(text.encode()), None)
            call.glCompileShader(part)
            call.glAttachShader(program, part)
            call.glDeleteShader(part)
        call.glLinkProgram(program)
        linked = ctypes.c_int()
        call.glGetProgramiv(program, egl.LINK_STATUS, linked)
        if not linked.value:
            call.glDeleteProgram(program)
            raise self._context.failed(f"building the shader for {shader}", "it does not link")
        call.glUseProgram(program)
        for unit, name in enumerate((b"first", b"second")):
            call.glUniform1i(call.glGetUniformLocation(program, name), unit)
        self._context.check("building a shader")
        self._programs[shader] = program
        return program
