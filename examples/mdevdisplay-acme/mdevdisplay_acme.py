"""A whole backend: it shows Acme framebuffer files, ``acme:FILE``.

Such a file is a header of four 32-bit little-endian numbers, ``ACME``, width, height and bytes per row, and then rows
of XRGB8888. Whoever draws into it writes a width of 0 while there is nothing to see.
"""

from __future__ import annotations

import os
import struct

from mdevdisplay import Match, PlaneType, Refusal, Source, SurfaceInfo, fourcc, hookimpl
from mdevdisplay.errors import DriverError, LocatorError, translated
from mdevdisplay.region import Mappable

HOOKSPEC_VERSION = (1, 0)

SCHEME = "acme:"
HEADER = struct.Struct("<4sIII")


class AcmeFile(Source):
    """An open framebuffer file."""

    def __init__(self, locator: str, fd: int) -> None:
        super().__init__(locator)
        self.fd = fd
        self.last: tuple[bytes, SurfaceInfo | None] = (b"", None)

    def _release(self) -> None:
        os.close(self.fd)


@hookimpl
def open_locator(locator: str) -> Source | None:
    """Open ``acme:FILE``; every other locator is somebody else's."""
    if not locator.startswith(SCHEME):
        return None
    path = locator.removeprefix(SCHEME)
    if not path:
        raise LocatorError("there is no file name", device=locator, hint="write acme:FILE")
    with translated(locator, f"opening {path}"):
        return AcmeFile(locator, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match our own files only."""
    return Match(100, "an Acme framebuffer file") if isinstance(source, AcmeFile) else Refusal("not an Acme file")


@hookimpl
def get_surface_info(source: AcmeFile, plane: PlaneType) -> SurfaceInfo | None:
    """Read the header; the same header gives the same object."""
    if plane is not PlaneType.PRIMARY:
        return None
    header = os.pread(source.fd, HEADER.size, 0)
    if header == source.last[0]:
        return source.last[1]
    if len(header) < HEADER.size or header[:4] != b"ACME":
        raise DriverError(f"the file begins with {header!r}", device=source.locator, hint="is it an Acme file?")
    _, width, height, stride = HEADER.unpack(header)
    surface = None
    if width:
        # SurfaceInfo refuses numbers that do not add up
        surface = SurfaceInfo(fourcc=fourcc("XR24"), width=width, height=height, stride=stride, size=stride * height)
    source.last = (header, surface)
    return surface


@hookimpl
def query_region(source: AcmeFile, surface: SurfaceInfo) -> Mappable:
    """The pixels follow the header; the framework checks that they fit, and reads what could be truncated."""
    return Mappable(fd=source.fd, offset=0, size=HEADER.size + surface.size, pixel_offset=HEADER.size)
