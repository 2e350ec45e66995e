"""A dma-buf: a descriptor of memory that devices share, which a CPU may or may not be able to map."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import attrs

from mdevdisplay._ioctl import ioctl
from mdevdisplay._mapping import PAGE
from mdevdisplay.errors import BadSurface, Closed, MdevDisplayError, NotMappable, from_oserror, translated
from mdevdisplay.region import MappedRegion
from mdevdisplay.surface import SurfaceInfo

__all__ = ["DmaBuf", "DmaBufPlane", "exporter_of", "new_key"]

# include/uapi/linux/dma-buf.h
DMA_BUF_IOCTL_SYNC = 0x40086200
_SYNC_START_READ = (1).to_bytes(8, "little")
_SYNC_END_READ = (1 | 4).to_bytes(8, "little")

_keys = itertools.count(1)


def new_key() -> int:
    """Return a key that no other buffer of this process has."""
    return next(_keys)


def exporter_of(fd: int) -> str:
    """Return who exported a dma-buf (``i915``, ``mbochs``), from its fdinfo; "" for anything else."""
    for line in read_fdinfo(fd).splitlines():
        if line.startswith("exp_name:"):
            return line.split(":", 1)[1].strip()
    return ""


def read_fdinfo(fd: int) -> str:
    """Return what /proc says of a descriptor; "" where it is not open."""
    try:
        return Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


@attrs.frozen
class DmaBufPlane:
    """One memory plane as an importer wants it: descriptor, byte offset, bytes per row."""

    fd: int
    offset: int
    stride: int


class DmaBuf:
    """Owns the descriptor or descriptors of one buffer.

    Give a descriptor away only as a duplicate (`dup`): the object closes its own.

    Attributes:
        surface: what the buffer shows: format, modifier, geometry.
        key: the same number for every DmaBuf of the same buffer, so that an importer can keep its image.
    """

    def __init__(self, fds: Sequence[int] | int, surface: SurfaceInfo, *, key: int = 0, device: str = "") -> None:
        """Take over ``fds``: they are closed with the object, and made close-on-exec (mbochs exports without it).

        Args:
            fds: one descriptor for all memory planes, or one a plane.
            surface: what the buffer shows.
            key: the key of the buffer; 0 makes a new one.
            device: the locator for messages.

        Raises:
            BadSurface: the buffer is smaller than the picture.
            MdevDisplayError: a descriptor is not open. The descriptors are closed in either case.
        """
        self._fds = (fds,) if isinstance(fds, int) else tuple(fds)
        self.surface = surface
        self.key = key or new_key()
        self._device = device
        try:
            if len(self._fds) not in (1, len(surface.planes())):
                raise BadSurface(
                    f"{len(self._fds)} descriptors for {len(surface.planes())} memory planes", device=device
                )
            for fd in self._fds:
                with translated(device, f"taking over descriptor {fd} of a dma-buf"):
                    os.set_inheritable(fd, False)
            sizes = [_true_size(fd, surface) for fd in self._fds]
            self.size = sizes[0]
            self._check_sizes(sizes)
        except BaseException:
            with suppress(MdevDisplayError):
                self.close()
            raise

    def _check_sizes(self, sizes: list[int]) -> None:
        for number, (size, need) in enumerate(zip(sizes, _needs(self.surface, len(sizes)), strict=True)):
            if size < need:
                what = "picture" if len(sizes) == 1 else f"memory plane {number}"
                raise BadSurface(
                    f"reported {self.surface.describe()}: the {what} takes {need} bytes, the dma-buf has {size}",
                    device=self._device,
                    hint="the driver or the guest is at fault; try again, and report the numbers if they stay",
                )

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors; raises `Closed` after close()."""
        if not self._fds:
            raise Closed("the dma-buf was closed before", device=self._device, hint="ask the display for it again")
        return self._fds

    def fileno(self) -> int:
        """Return the first descriptor."""
        return self.fds[0]

    @property
    def planes(self) -> tuple[DmaBufPlane, ...]:
        """Return descriptor, offset and stride of every memory plane."""
        fds = self.fds
        layout = self.surface.planes()
        return tuple(
            DmaBufPlane(fds[min(number, len(fds) - 1)], offset, stride)
            for number, (offset, stride) in enumerate(layout)
        )

    @property
    def fourcc(self) -> int:
        """The pixel format."""
        return self.surface.fourcc

    @property
    def modifier(self) -> int:
        """The memory layout."""
        return self.surface.modifier

    @property
    def exporter(self) -> str:
        """Who exported it, as fdinfo says (``i915``, ``mbochs``, ``udmabuf``); "" for a plain memfd."""
        return exporter_of(self.fds[0])

    def dup(self, surface: SurfaceInfo | None = None) -> DmaBuf:
        """Return a second owner of the same buffer, with the same key."""
        copies: list[int] = []
        try:
            for fd in self.fds:
                copies.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))  # noqa: PERF401 - those made are closed below
        except OSError as error:
            for fd in copies:
                os.close(fd)
            raise from_oserror(error, device=self._device, doing="duplicating a dma-buf") from error
        return DmaBuf(copies, surface or self.surface, key=self.key, device=self._device)

    def map(self, *, hint: str = "") -> MappedRegion:
        """Map the buffer for reading, whole pages of it.

        The kernel compares the pages asked for with ``size >> PAGE_SHIFT`` (dma_buf_mmap_internal), so the last
        part of a page cannot be mapped at all.

        Raises:
            NotMappable: the exporter refuses, or the picture ends in that last part of a page.
        """
        fds = self.fds
        if len(fds) > 1:
            raise NotMappable(
                f"the picture's memory planes are in {len(fds)} buffers, and one mapping has only the first",
                device=self._device,
                hint=hint or "import it in the GPU that exported it, or hand the dma-buf on",
            )
        whole = self.size // PAGE * PAGE
        advice = hint or "import it in the GPU that exported it, or hand the dma-buf on"
        if whole < self.surface.needed:
            raise NotMappable(
                f"the picture takes {self.surface.needed} bytes and only {whole} of the dma-buf's {self.size} "
                "are whole pages",
                device=self._device,
                hint=advice,
            )
        try:
            return MappedRegion(self.fileno(), 0, whole)
        except OSError as error:
            who = self.exporter or "its exporter"
            doing = f"mapping a dma-buf of {self.size} bytes exported by {who}"
            raise from_oserror(error, device=self._device, doing=doing, hint=advice, kind=NotMappable) from error

    def begin_read(self) -> None:
        """Make the CPU's view coherent (DMA_BUF_IOCTL_SYNC, START | READ). It is not a lock."""
        self._sync(_SYNC_START_READ)

    def end_read(self) -> None:
        """End what begin_read began."""
        self._sync(_SYNC_END_READ)

    def _sync(self, flags: bytes) -> None:
        for _ in range(100):
            try:
                ioctl(self.fds[0], DMA_BUF_IOCTL_SYNC, bytearray(flags))
                return
            except OSError as error:
                if error.errno == errno.ENOTTY:  # a memfd that stands in for a dma-buf has nothing to sync
                    return
                if error.errno != errno.EAGAIN:
                    doing = "synchronising a dma-buf for reading"
                    raise from_oserror(error, device=self._device, doing=doing) from error

    def close(self) -> None:
        """Close the descriptors. Idempotent. Every one is closed even if one fails; the first error is raised."""
        fds, self._fds = self._fds, ()
        first: OSError | None = None
        for fd in fds:
            try:
                os.close(fd)
            except OSError as error:
                first = first or error
        if first is not None:
            raise from_oserror(first, device=self._device, doing="closing a dma-buf") from first

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fds", ()):
            try:
                warnings.warn(f"{self._device}: a dma-buf was not closed", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        state = "closed" if not self._fds else f"fd {self._fds[0]}"
        return f"<DmaBuf {self.surface.describe()} {state}>"


def _needs(surface: SurfaceInfo, count: int) -> list[int]:
    """Return how many bytes each of ``count`` descriptors must have: all, or up to where the next plane begins."""
    starts = [offset for offset, _ in surface.planes()] if count > 1 else []
    return [*starts[1:], surface.needed]


def _true_size(fd: int, surface: SurfaceInfo) -> int:
    """Return the real size of a buffer; a dma-buf may be asked by seeking to its end and only back to its start."""
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:  # ESPIPE before 3.12's llseek; then the report is all there is
        return surface.size
    return size
