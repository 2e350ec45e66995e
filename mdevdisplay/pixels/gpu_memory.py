"""Pixels in a buffer that no CPU can map: read by the GPU that exported it."""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import MdevDisplayError, NotMappable
from mdevdisplay.formats import LINEAR, fourcc
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.surface import SurfaceInfo, same_pixels

if TYPE_CHECKING:
    from mdevdisplay.gpu.importer import GpuImporter

__all__ = ["SOFTWARE_VARIABLE", "GpuBuffers", "GpuMemory"]

Bytes = npt.NDArray[np.uint8]

SOFTWARE_VARIABLE = "MDEVDISPLAY_GPU"
"""Set to ``software``: what no GPU has exported is imported by llvmpipe, which is of use in tests alone."""
_KEPT = 8
_BGRA = fourcc("AR24")


@attrs.frozen(kw_only=True, eq=False)
class GpuMemory:
    """One surface's pixels, which a GPU reads back as B, G, R, A.

    Attributes:
        surface: the geometry.
        dmabuf: the buffer.
        importer: the GPU.
        layout: how the pixels lie once they were read back: rows of B, G, R, A without padding.
        why: why they are not mapped.
        device: the locator for messages.
    """

    surface: SurfaceInfo
    dmabuf: DmaBuf
    importer: GpuImporter
    why: str
    device: str
    layout: SurfaceInfo

    way = "import"
    mapping = None
    start = 0

    @property
    def extent(self) -> int:
        """Bytes of a copy."""
        return self.layout.size

    def view(self) -> Raw:
        """Refuse: there is no mapping to look at."""
        raise NotMappable(
            f"a CPU cannot look at the buffer itself ({self.why})",
            device=self.device,
            hint="capture() has a GPU read it; dmabuf() hands it on",
        )

    def reading(self) -> AbstractContextManager[None]:
        """The importer brackets by itself."""
        return nullcontext()

    def copy_into(self, target: Bytes) -> None:
        """Read the pixels back into (height * width * 4,) uint8."""
        self.importer.read(self.dmabuf, target.reshape(self.surface.height, self.surface.width, 4))

    def copy_rows_into(self, target: Bytes) -> None:
        """Do the same: there is no padding."""
        self.copy_into(target.reshape(-1))


class GpuBuffers:
    """Imports the dma-bufs of one display, with one GPU for all. At most 8 buffers are kept."""

    def __init__(self, device: str, parent: str) -> None:
        """Import buffers of a device: ``device`` is its locator, ``parent`` as `Identity.parent`."""
        self._device = device
        self._parent = parent
        self._importer: GpuImporter | None = None
        self._failure: MdevDisplayError | None = None
        self._kept: OrderedDict[int, DmaBuf] = OrderedDict()
        self.drops = 0
        """How many buffers have been let go."""

    def find(self, surface: SurfaceInfo, dmabuf: DmaBuf, refused: NotMappable) -> GpuMemory:
        """Return a buffer's pixels; the buffer is taken over.

        Args:
            surface: what it shows.
            dmabuf: the buffer.
            refused: why it is not mapped.

        Raises:
            NotMappable: no GPU here can read it; the message says why neither way works, the cause is the GPU's.
        """
        kept = self._kept.get(dmabuf.key)
        if kept is not None and same_pixels(kept.surface, surface):
            dmabuf.close()
            self._kept.move_to_end(kept.key)
            importer = self._open(dmabuf)
        else:
            try:
                importer = self._open(dmabuf)
            except MdevDisplayError as error:
                dmabuf.close()
                self._refuse(refused, error)
            if dmabuf.key in self._kept:
                self._drop(dmabuf.key)
            kept = self._kept[dmabuf.key] = dmabuf
            while len(self._kept) > _KEPT:
                self._drop(next(iter(self._kept)))
        return GpuMemory(
            surface=surface,
            dmabuf=kept,
            importer=importer,
            layout=_read_back(surface),
            why=refused.message,
            device=self._device,
        )

    def _open(self, dmabuf: DmaBuf) -> GpuImporter:
        """Return the GPU; a failure to set it up is remembered, since trying again for every frame costs much."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._importer is None:
            try:
                self._importer = self._make(dmabuf)
            except MdevDisplayError as error:
                self._failure = error
                raise
        return self._importer

    def _make(self, dmabuf: DmaBuf) -> GpuImporter:
        from mdevdisplay.gpu.importer import importer_for

        software = os.environ.get(SOFTWARE_VARIABLE) == "software"
        return importer_for(dmabuf, parent=self._parent, device=self._device, software=software)

    def _refuse(self, refused: NotMappable, error: MdevDisplayError) -> NoReturn:
        raise NotMappable(
            f"{refused.message}; nor can a GPU read it: {error.message}",
            device=self._device,
            hint=error.hint or refused.hint,
            cause=error.cause,
            errno=refused.errno,
        ) from error

    def _drop(self, key: int) -> None:
        if self._importer is not None:
            self._importer.forget(key)
        self.drops += 1
        self._kept.pop(key).close()

    def close(self) -> None:
        """Drop the images, then the buffers. Idempotent."""
        importer, self._importer = self._importer, None
        if importer is not None:
            importer.close()
        while self._kept:
            self._kept.popitem()[1].close()


def _read_back(surface: SurfaceInfo) -> SurfaceInfo:
    """Return a surface as it lies once a GPU has read it back."""
    stride = surface.width * 4
    size = stride * surface.height
    return attrs.evolve(surface, fourcc=_BGRA, modifier=LINEAR, stride=stride, size=size, offset=0)
