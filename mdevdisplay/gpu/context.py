"""One OpenGL ES context on one device of EGL's, made current for the time of a call and never longer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager

from mdevdisplay.errors import Closed, DriverError, NotMappable
from mdevdisplay.gpu import displays, egl
from mdevdisplay.gpu.render_nodes import RenderNode

__all__ = ["Context"]

_SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swrast")


class Context:
    """An EGL display and a context without a surface, on one render node or on the processor (llvmpipe).

    Attributes:
        device: the locator of the device for which it reads, for messages.
        display: the EGLDisplay.
        extensions: what it can do.
        renderer: who draws, in OpenGL's words: ``llvmpipe (LLVM 15.0.6, 256 bits)``.
        most: the longest side of a texture, in pixels.
    """

    def __init__(self, node: RenderNode | None, device: str) -> None:
        """Make the context on the GPU of a render node, or on the processor for None.

        Args:
            node: whose GPU.
            device: the locator for messages.

        Raises:
            NotPermitted: the render node may not be opened; cause ``no-render-permission``.
            NotMappable: EGL has no such device or cannot import there; cause ``no-egl``, ``no-render-node`` or
                ``no-dmabuf-import``.
            DriverError: the device refuses a context; cause ``gpu-failed``.
        """
        self.device = device
        self._pid = os.getpid()
        self._context: int | None = None
        self._egl = egl.library(device)
        self._who = displays.describe(node)
        self._hint = displays.hint(node)
        self.display = displays.open_display(node, device)
        self.extensions = self._egl.extensions(self.display)
        missing = {"EGL_EXT_image_dma_buf_import", "EGL_KHR_surfaceless_context"} - self.extensions
        if missing:
            raise NotMappable(
                f"{self._who} cannot import a dma-buf: EGL lacks {' and '.join(sorted(missing))}",
                device=device,
                hint=self._hint,
                cause="no-dmabuf-import",
            )
        try:
            self._make(software=node is None)
        except BaseException:
            self.close()
            raise

    def _make(self, *, software: bool) -> None:
        api = self._egl.eglQueryAPI()
        self._egl.eglBindAPI(egl.OPENGL_ES_API)
        try:
            version = (ctypes.c_int * 3)(egl.CONTEXT_MAJOR_VERSION, 3, egl.NONE)
            self._context = self._egl.eglCreateContext(self.display, None, None, version)
        finally:
            self._egl.eglBindAPI(api)
        if not self._context:
            raise self.failed("making an OpenGL ES 3 context")
        with self.current():
            self.renderer = egl.plain_text(self._egl.glGetString(egl.RENDERER))
            offered = egl.plain_text(self._egl.glGetString(egl.GL_EXTENSIONS)).split()
            most = ctypes.c_int()
            self._egl.glGetIntegerv(egl.MAX_TEXTURE_SIZE, most)
            self._egl.glPixelStorei(egl.PACK_ALIGNMENT, 4)
        self.most = most.value
        missing = {"GL_OES_EGL_image", "GL_EXT_read_format_bgra"} - set(offered)
        if missing:
            raise NotMappable(
                f"{self._who} cannot read an imported buffer back: OpenGL ES lacks {' and '.join(sorted(missing))}",
                device=self.device,
                hint=self._hint,
                cause="no-dmabuf-import",
            )
        if self.renderer.startswith(_SOFTWARE_RENDERERS) != software:
            raise NotMappable(
                f"{self._who} was asked for and EGL gives {self.renderer}",
                device=self.device,
                hint=self._hint,
                cause="no-egl",
            )

    @contextmanager
    def current(self) -> Generator[None]:
        """Make the context this thread's for the block; then the one that the thread had before is back.

        Raises:
            Closed: close() was called, or this is a child of the process that made it: EGL does not survive a fork.
            DriverError: EGL refuses, as where another thread uses the context.
        """
        if os.getpid() != self._pid:
            raise Closed(
                f"the GPU's context belongs to process {self._pid}, which has forked this one",
                device=self.device,
                hint="open the display again in this process; start processes with spawn",
            )
        if not self._context:
            raise Closed("the GPU's context was closed before", device=self.device, hint="open the display again")
        call = self._egl
        api = call.eglQueryAPI()
        before = call.eglGetCurrentDisplay()
        surfaces = call.eglGetCurrentSurface(egl.DRAW), call.eglGetCurrentSurface(egl.READ)
        theirs = call.eglGetCurrentContext()
        if not call.eglMakeCurrent(self.display, None, None, self._context):
            raise self.failed("making the context current")
        try:
            yield
        finally:
            if theirs:
                call.eglBindAPI(api)
                call.eglMakeCurrent(before, *surfaces, theirs)
            else:
                call.eglMakeCurrent(self.display, None, None, None)
                call.eglBindAPI(api)

    def failed(self, doing: str, why: str = "") -> DriverError:
        """Return the error of the call that has just failed in this thread, of EGL where ``why`` does not say it."""
        return DriverError(
            f"{doing} on {self._who} failed: {why or self._egl.error()}",
            device=self.device,
            hint="try again; if it stays, the GPU's driver is at fault",
            cause="gpu-failed",
        )

    def check(self, doing: str) -> None:
        """Raise `DriverError` for what OpenGL has noted since the last check."""
        number = self._egl.glGetError()
        if number:
            raise self.failed(doing, f"OpenGL error {number:#x}")

    def close(self) -> None:
        """Destroy the context. Idempotent; in a forked child it only forgets."""
        context, self._context = self._context, None
        if context and os.getpid() == self._pid:
            self._egl.eglDestroyContext(self.display, context)
