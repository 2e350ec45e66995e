"""Reading buffers that no CPU can map: imported into the GPU that exported them, and read back from there."""

from __future__ import annotations

import sys
import warnings
from collections import OrderedDict
from contextlib import suppress
from typing import Self

import numpy as np
import numpy.typing as npt

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import Closed, MdevDisplayError, NotMappable
from mdevdisplay.gpu.context import Context
from mdevdisplay.gpu.drawing import Drawing
from mdevdisplay.gpu.images import Image, layout_of
from mdevdisplay.gpu.render_nodes import RenderNode, exporting_node
from mdevdisplay.gpu.software import check_mappable
from mdevdisplay.gpu.support import Supported
from mdevdisplay.host.root import HostRoot
from mdevdisplay.surface import SurfaceInfo

__all__ = ["GpuImporter", "importer_for"]

_KEPT_IMAGES = 8


def importer_for(dmabuf: DmaBuf, *, parent: str, device: str, software: bool = True) -> GpuImporter:
    """Return an importer on the GPU that exported a buffer.

    Args:
        dmabuf: the buffer; its exporter's name tells the GPU's driver.
        parent: the device's parent as sysfs spells it (`Identity.parent`), which tells one GPU from another; or "".
        device: the locator for messages.
        software: whether the processor (llvmpipe) may import what no GPU has exported.

    Raises:
        NotMappable: there is no such GPU, no EGL or no extension here; the cause and the hint tell which.
        NotPermitted: its render node may not be opened.
        DriverError: the GPU refuses to work.
    """
    exporter = dmabuf.exporter
    node = exporting_node(exporter, parent, HostRoot.from_environment(), device=device)
    if node is None and not software:
        raise NotMappable(
            f"no GPU of this host has exported it (its exporter is {exporter or 'not known'})",
            device=device,
            cause="no-render-node",
        )
    return GpuImporter(node, device=device)


class GpuImporter:
    """One OpenGL context and the images of at most 8 buffers. Any thread may call, one at a time.

    Whatever context the calling thread has is its own again afterwards. A forked child cannot use it.
    """

    def __init__(self, node: RenderNode | None, *, device: str = "") -> None:
        """Make the context on the GPU of a render node, or on the processor (llvmpipe) for None; see `importer_for`."""
        self._context: Context | None = None
        self._device = device
        self._software = node is None
        self._images: OrderedDict[int, Image] = OrderedDict()
        self._context = Context(node, device)
        try:
            self._supported = Supported(self._context)
        except BaseException:
            self.close()
            raise
        self._drawing = Drawing(self._context)

    @property
    def renderer(self) -> str:
        """Who reads: ``Mesa Intel(R) UHD Graphics 630``, ``llvmpipe (LLVM 15.0.6, 256 bits)``."""
        return self._open().renderer

    @property
    def images(self) -> int:
        """How many buffers are imported now."""
        return len(self._images)

    def read(self, dmabuf: DmaBuf, target: npt.NDArray[np.uint8]) -> None:
        """Read a buffer's pixels as they are now; the first time it is imported, later only read.

        Args:
            dmabuf: the buffer; it can be closed afterwards, its image stays until `forget`.
            target: (height, width, 4) uint8, C-contiguous: becomes B, G, R, A; 255 for A where the format has none.

        Raises:
            ValueError: the target is not of that shape and type.
            UnsupportedFormat: the GPU does not import the format.
            UnsupportedModifier: nor the memory layout.
            BadSurface: a side is longer than the GPU's textures can be.
            NotMappable: the driver refuses the buffer, or it is a file that somebody may truncate.
            DriverError: the GPU failed.
            Closed: close() was called, or this is a forked child.
        """
        surface = dmabuf.surface
        shape = (surface.height, surface.width, 4)
        if target.shape != shape or target.dtype != np.uint8 or not target.flags.carray:
            raise ValueError(f"the target must be C-contiguous, writable uint8 of shape {shape}")
        with self._open().current():
            image = self._image(dmabuf)
            dmabuf.begin_read()
            try:
                image.read(target)
            except MdevDisplayError:
                self._drop(dmabuf.key)
                raise
            finally:
                dmabuf.end_read()

    def check(self, surface: SurfaceInfo) -> None:
        """Raise `UnsupportedFormat` or `UnsupportedModifier` where the GPU does not read such pixels."""
        with self._open().current():
            self._supported.find(surface)

    def forget(self, key: int) -> None:
        """Drop the image of a buffer, by its `DmaBuf.key`, and with it the GPU's hold on the memory. Idempotent."""
        if key in self._images:
            with self._open().current():
                self._drop(key)

    def close(self) -> None:
        """Drop every image and the context. Idempotent."""
        context, self._context = self._context, None
        if context is None:
            return
        try:
            if self._images:
                with suppress(Closed), context.current():  # in a forked child nothing can be dropped
                    while self._images:
                        self._drop(next(iter(self._images)))
        finally:
            self._images.clear()
            context.close()

    def _open(self) -> Context:
        if self._context is None:
            raise Closed("the GPU's context was closed before", device=self._device, hint="open the display again")
        return self._context

    def _image(self, dmabuf: DmaBuf) -> Image:
        known = self._images.get(dmabuf.key)
        if known is not None and known.layout == layout_of(dmabuf.surface):
            self._images.move_to_end(dmabuf.key)
            return known
        reading = self._supported.find(dmabuf.surface)
        if self._software:
            check_mappable(dmabuf, self._device)
        self._drop(dmabuf.key)
        image = Image(self._open(), dmabuf, reading, drawing=self._drawing, modifiers=self._supported.modifiers)
        self._images[dmabuf.key] = image
        while len(self._images) > _KEPT_IMAGES:
            self._drop(next(iter(self._images)))
        return image

    def _drop(self, key: int) -> None:
        image = self._images.pop(key, None)
        if image is not None:
            image.close()
            self._drawing.forget_textures()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_context", None) is not None and not sys.is_finalizing():
            try:
                warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        state = "closed" if self._context is None else f"{self._context.renderer}, {len(self._images)} images"
        return f"<GpuImporter {self._device!r} {state}>"
