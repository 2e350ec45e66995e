"""Mapped memory: what a backend offers to be mapped, and the owner of one mapping."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import warnings
from typing import Self

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay._mapping import Mapping, page_up
from mdevdisplay.errors import BadSurface, Closed, MdevDisplayError, NotMappable, from_oserror, translated

__all__ = ["MAX_MAPPING", "Mappable", "MappedRegion", "can_shrink", "check_fit", "map_region"]

MAX_MAPPING = 1 << 32
"""The most bytes that are ever mapped for one surface; a driver that reports more is not believed."""


@attrs.frozen(kw_only=True)
class Mappable:
    """Memory that can be mapped for reading. The descriptor stays its owner's.

    Attributes:
        fd: the descriptor to map: a VFIO device, a memfd.
        offset: where the region starts in it, in bytes; passed to mmap as it is.
        size: bytes of the region as the driver reports it.
        pixel_offset: bytes from the start of the region to the first pixel.
    """

    fd: int
    offset: int
    size: int
    pixel_offset: int = 0


class MappedRegion:
    """Owns one read-only mapping and hands out its bytes.

    After close() the arrays that somebody still holds stay readable, show zeros and hold nothing open.

    Attributes:
        data: (size,) uint8, read-only: the mapped bytes.
        size: bytes mapped; may be less than the region.
        cached: whether a CPU reads it as fast as its own memory; None until it was measured.
    """

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._mapping: Mapping | None = None
        self.cached: bool | None = None
        self._mapping = Mapping(fd, offset, size)
        self.size = size
        self._data: npt.NDArray[np.uint8] | None = np.asarray(self._mapping)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The mapped bytes; raises `Closed` after close()."""
        if self._data is None:
            raise Closed("the mapping was closed before", hint="map the surface again")
        return self._data

    def close(self) -> None:
        """Let go of the memory; views that somebody holds turn to zeros in place. Idempotent."""
        mapping, self._mapping, self._data = self._mapping, None, None
        if mapping is not None:
            mapping.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_mapping", None) is not None:
            try:
                warnings.warn(
                    f"a mapping of {self.size} bytes was not closed", ResourceWarning, stacklevel=2, source=self
                )
            finally:  # the warning may be an error
                self.close()


def can_shrink(fd: int) -> bool:
    """Whether a descriptor is a file that somebody may truncate: a mapping of it may then raise SIGBUS at any time.

    Devices and true dma-bufs cannot; a memfd cannot with F_SEAL_SHRINK.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    try:
        return not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:  # EINVAL: a file on a disk knows no seals
        return True


def check_fit(mappable: Mappable, start: int, needed: int, *, device: str = "") -> None:
    """Raise `BadSurface` where ``needed`` bytes from ``start`` on are not within a region, or too many to be mapped."""
    end = start + needed
    if needed < 1 or start < 0 or end > mappable.size or end > MAX_MAPPING:
        raise BadSurface(
            f"the picture takes bytes {start} to {end}, the region has {mappable.size}",
            device=device,
            hint="the driver's region info and plane info contradict each other; report both",
        )


def map_region(mappable: Mappable, needed: int, *, device: str = "", hint: str = "") -> MappedRegion:
    """Map a region from its start, for reading.

    The whole region is tried first, so that a mode change inside it needs no new mapping; then just the pages that
    the picture takes, because NVIDIA's driver refuses to map more than its console surface holds.

    Args:
        mappable: what to map.
        needed: bytes from the first pixel to the last.
        device: the locator for messages.
        hint: what to do when the driver refuses the mapping.

    Raises:
        BadSurface: the picture does not fit into the region or into the file behind it.
        NotMappable: the driver refuses.
    """
    end = mappable.pixel_offset + needed
    check_fit(mappable, mappable.pixel_offset, needed, device=device)
    with translated(device, "asking for the size of the memory"):
        status = os.fstat(mappable.fd)
    room = mappable.size
    if stat.S_ISREG(status.st_mode):  # a memfd: a page behind its end would be SIGBUS
        room = min(room, max(0, status.st_size - mappable.offset))
        if end > room:
            raise BadSurface(
                f"the picture takes bytes {mappable.pixel_offset} to {end}, the file behind the region has {room}",
                device=device,
                hint="whoever made the memory made it too small",
            )
    lengths = [room] if room <= MAX_MAPPING else []
    if page_up(end) < page_up(room):
        lengths.append(page_up(end))
    for length in lengths[:-1]:
        try:
            return MappedRegion(mappable.fd, mappable.offset, length)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOMEM):
                raise _refused(error, mappable, device, hint) from error
    try:
        return MappedRegion(mappable.fd, mappable.offset, lengths[-1])
    except OSError as error:
        raise _refused(error, mappable, device, hint) from error


def _refused(failure: OSError, mappable: Mappable, device: str, hint: str) -> MdevDisplayError:
    doing = f"mapping {mappable.size} bytes at offset {mappable.offset}"
    kind = NotMappable if failure.errno in (errno.EINVAL, errno.EACCES, errno.ENXIO) else None
    return from_oserror(failure, device=device, doing=doing, hint=hint, kind=kind)
