"""VFIO_DEVICE_QUERY_GFX_PLANE and VFIO_DEVICE_GET_GFX_DMABUF, with what real drivers do with them."""

from __future__ import annotations

import enum
import errno
import resource
import time
from collections import OrderedDict
from collections.abc import Callable
from ctypes import sizeof

import attrs

from mdevdisplay.dmabuf import DmaBuf, exporter_of
from mdevdisplay.errors import (
    BadSurface,
    DriverError,
    GuestChangingMode,
    MdevDisplayError,
    TooManyBuffers,
    from_oserror,
)
from mdevdisplay.formats import lookup, minimum_size
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.vfio import uapi
from mdevdisplay.vfio.quirks import Quirks, quirks_of_exporter
from mdevdisplay.vfio.regions import Ioctl

__all__ = ["DmaBufCache", "GfxKind", "ProbeAnswer", "decode_plane", "plane_query", "probe", "same_memory"]

_QUERY = uapi.VFIO_DEVICE_QUERY_GFX_PLANE
_SIZE = sizeof(uapi.vfio_device_gfx_plane_info)
_BACK_OFF = (0.002, 0.005, 0.010, 0.020, 0.040, 0.080)
_PAGE = 4096
_TOO_SHORT = 8
"""An argsz that no driver takes: all want the 60 bytes up to and with the union."""


class GfxKind(enum.IntEnum):
    """How a driver hands its planes out; the numbers are VFIO_GFX_PLANE_TYPE_*."""

    DMABUF = uapi.VFIO_GFX_PLANE_TYPE_DMABUF
    REGION = uapi.VFIO_GFX_PLANE_TYPE_REGION


@attrs.frozen
class ProbeAnswer:
    """What a driver said to a probe: whether it offers the kind, and its words for people."""

    supported: bool
    text: str


def _request(flags: int, plane: PlaneType) -> bytearray:
    """A zeroed query: GVT-g answers a disabled plane by leaving the caller's bytes as they were."""
    buffer = bytearray(_SIZE)
    request = uapi.vfio_device_gfx_plane_info.from_buffer(buffer)
    request.argsz, request.flags, request.drm_plane_type = _SIZE, flags, plane
    return buffer


def probe(ioctl: Ioctl, kind: GfxKind, device: str = "") -> ProbeAnswer:
    """Ask whether the driver offers planes of a kind.

    A driver older than the interface may answer 0 to every ioctl (kvmgt before Linux 4.16), also to a structure that
    is too short. Every real one answers EINVAL to that before it looks at anything else.

    Raises:
        MdevDisplayError: the driver failed in another way than by not supporting it.
    """
    name = f"PROBE+{kind.name}"
    doing = f"QUERY_GFX_PLANE with {name}"
    question = _request(uapi.VFIO_GFX_PLANE_TYPE_PROBE | kind, PlaneType.PRIMARY)
    short = question.copy()
    uapi.vfio_device_gfx_plane_info.from_buffer(short).argsz = _TOO_SHORT
    try:
        ioctl(_QUERY, question)
    except OSError as error:
        number = error.errno or 0
        if number in (errno.ENOTTY, errno.EINVAL):
            meaning = "it has no display" if number == errno.ENOTTY else "not this kind"
            return ProbeAnswer(False, f"{name} answered {errno.errorcode[number]}: {meaning}")
        raise from_oserror(error, device=device, doing=doing) from error
    try:
        ioctl(_QUERY, short)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return ProbeAnswer(True, f"{name} answered 0")
        raise from_oserror(error, device=device, doing=f"{doing} and {_TOO_SHORT} bytes") from error
    return ProbeAnswer(False, f"{name} answered 0, but so did a query too short: a driver older than the interface")


def decode_plane(
    answer: bytes | bytearray, kind: GfxKind, plane: PlaneType, *, quirks: Quirks | None = None, device: str = ""
) -> SurfaceInfo | None:
    """Turn a driver's 64 bytes into a SurfaceInfo, or None where the plane shows nothing; pure.

    Raises:
        BadSurface: the numbers contradict each other.
    """
    raw = uapi.vfio_device_gfx_plane_info.from_buffer_copy(answer)
    if not (raw.drm_format and raw.width and raw.height and raw.size):
        return None
    size = raw.size
    if quirks is not None and quirks.size_in_pages:
        size = _bytes_from_pages(raw)
    dmabuf = kind is GfxKind.DMABUF
    try:
        return SurfaceInfo(
            plane=plane,
            fourcc=raw.drm_format,
            modifier=raw.drm_format_mod,
            width=raw.width,
            height=raw.height,
            stride=raw.stride,
            size=size,
            x=raw.x_pos,
            y=raw.y_pos,
            x_hot=None if raw.x_hot == uapi.HOTSPOT_UNKNOWN else raw.x_hot,
            y_hot=None if raw.y_hot == uapi.HOTSPOT_UNKNOWN else raw.y_hot,
            dmabuf_id=raw.dmabuf_id if dmabuf else None,
            region_index=None if dmabuf else raw.region_index,
        )
    except BadSurface as error:
        error.device = device
        raise


def _bytes_from_pages(raw: uapi.vfio_device_gfx_plane_info) -> int:
    """Return the size in bytes of a driver that may have said pages: too small as bytes, enough as pages."""
    layout = lookup(raw.drm_format)
    if layout is None:
        return raw.size
    need = minimum_size(layout, raw.width, raw.height, raw.stride, raw.drm_format_mod)
    as_pages = raw.size * _PAGE
    return as_pages if raw.size < need <= as_pages <= 0xFFFFFFFF else raw.size


def same_memory(one: SurfaceInfo, other: SurfaceInfo) -> bool:
    """Whether two planes are one: mdpy and NVIDIA answer the primary plane, whichever was asked for."""
    return (one.dmabuf_id, one.region_index, one.offset, one.width, one.height) == (
        other.dmabuf_id,
        other.region_index,
        other.offset,
        other.width,
        other.height,
    )


def plane_query(
    ioctl: Ioctl, plane: PlaneType, kind: GfxKind, quirks: Quirks, device: str = ""
) -> Callable[[], SurfaceInfo | None]:
    """Return a function that asks for one plane. The same answer gives the same SurfaceInfo object.

    It is a function with variables of its own rather than an object, because it runs for every frame and reading them
    so is quicker. Not thread-safe: one query at a time a device, which is the framework's rule anyhow.

    The function returns None where the plane shows nothing, and raises `BadSurface` where the numbers contradict each
    other, `GuestChangingMode` where the driver could not decode the plane for about 150 ms, and other errors of ours
    where it refused.
    """
    fresh = _request(kind, plane).copy
    last = bytearray()
    surface: SurfaceInfo | None = None

    def ask() -> SurfaceInfo | None:
        nonlocal last, surface
        answer = fresh()
        try:
            ioctl(_QUERY, answer)
        except OSError as error:
            answer = _retry(ioctl, fresh, error, plane, device)
        if answer == last:
            return surface
        surface = decode_plane(answer, kind, plane, quirks=quirks, device=device)
        last = answer
        return surface

    return ask


def _retry(ioctl: Ioctl, fresh: Callable[[], bytearray], error: OSError, plane: PlaneType, device: str) -> bytearray:
    """Ask again as long as the driver's refusal is one that passes, and return its answer.

    mbochs answers ENOMEM to the first query of every new mode (mbochs_query_gfx_plane drops the result of its
    allocation) and the next one succeeds. GVT-g answers EINVAL or EFAULT while the guest sets a mode.
    """
    doing = f"QUERY_GFX_PLANE of the {plane.name.lower()} plane"
    delays = iter((0.0, *_BACK_OFF) if error.errno in (errno.ENOMEM, errno.EINTR) else _BACK_OFF)
    while error.errno in (errno.EINVAL, errno.EFAULT, errno.ENOMEM, errno.EINTR):
        delay = next(delays, None)
        if delay is None:
            doing = f"{doing}, {len(_BACK_OFF)} times"
            hint = "the guest is setting a mode, or its framebuffer cannot be decoded by the driver; try again"
            raise from_oserror(error, device=device, doing=doing, hint=hint, kind=GuestChangingMode) from error
        if delay:
            time.sleep(delay)
        answer = fresh()
        try:
            ioctl(_QUERY, answer)
        except OSError as later:
            error = later
        else:
            return answer
    raise from_oserror(error, device=device, doing=doing) from error


def _most_buffers() -> int:
    """How many dma-bufs one device may keep open: a quarter of the descriptors allowed, 256 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(8, min(256, soft // 4))


_Key = tuple[int | None, int, int, int, int, int, int]


def _key(surface: SurfaceInfo) -> _Key:
    """Id and all geometry: GVT-g gives an id to another buffer once the first has died."""
    return (
        surface.dmabuf_id,
        surface.fourcc,
        surface.modifier,
        surface.width,
        surface.height,
        surface.stride,
        surface.size,
    )


class DmaBufCache:
    """The dma-bufs of one device: asks the driver for each once, and hands out duplicates.

    How they are kept goes by the driver's quirks, and once there is a dma-buf by those of its exporter: whoever gave
    us the descriptor may not have known which driver it is of.
    """

    def __init__(self, ioctl: Ioctl, quirks: Quirks, device: str = "", *, borrowed: bool = False) -> None:
        self._ioctl = ioctl
        self._quirks = quirks
        self._device = device
        self._borrowed = borrowed
        self._kept: OrderedDict[_Key, DmaBuf] = OrderedDict()
        self._asked: set[int] = set()
        self._exporter = ""
        self._limit = _most_buffers() if quirks.get_once else quirks.keep

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, surface: SurfaceInfo) -> DmaBuf:
        """Return a DmaBuf of the caller's own for a surface that `plane_query` returned.

        Raises:
            TooManyBuffers: the exporter's buffers must be kept and the guest has used too many.
            DriverError: the exporter must not be asked, or refused.
            BadSurface: the buffer is smaller than the picture.
        """
        key = _key(surface)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._export(surface, key)
        self._kept.move_to_end(key)
        return kept.dup(surface)

    def _export(self, surface: SurfaceInfo, key: _Key) -> DmaBuf:
        if surface.dmabuf_id is None:
            raise DriverError("the surface is in a region, not in a dma-buf", device=self._device)
        if self._borrowed and not self._quirks.get_when_borrowed:
            raise self._unsafe()
        self._make_room(surface)
        argument = bytearray(surface.dmabuf_id.to_bytes(4, "little"))
        try:
            fd = self._ioctl(uapi.VFIO_DEVICE_GET_GFX_DMABUF, argument)
        except OSError as error:
            raise self._refused(error, surface) from error
        self._asked.add(surface.dmabuf_id)
        self._meet(fd)
        kept = DmaBuf(fd, surface, device=self._device)
        self._kept[key] = kept
        return kept

    def _unsafe(self) -> DriverError:
        if not self._quirks.known:
            return DriverError(
                "nothing says which driver this device has, and asking some for a dma-buf while a VM uses the device "
                "corrupts the kernel's memory",
                device=self._device,
                hint="name the device by its UUID or PCI address, so that its driver is known",
                cause="unknown-driver",
            )
        return DriverError(
            "asking this driver for a dma-buf is not safe while a VM uses the device",
            device=self._device,
            hint="read its pixels from the region instead: capture() and map() do",
            cause="unsafe-dmabuf",
        )

    def _meet(self, fd: int) -> None:
        """Learn from the first dma-buf who exports them; a rule that is kept already stays."""
        if self._exporter:
            return
        self._exporter = exporter_of(fd)
        quirks = quirks_of_exporter(self._exporter)
        if quirks.get_once and not self._quirks.get_once:
            self._quirks = quirks
            self._limit = _most_buffers()

    def _make_room(self, surface: SurfaceInfo) -> None:
        if not self._quirks.get_once:
            while len(self._kept) >= self._limit:
                self._kept.popitem(last=False)[1].close()
            return
        if surface.dmabuf_id in self._asked:
            raise DriverError(
                f"the driver was asked for dma-buf id {surface.dmabuf_id} before, and gave a buffer of another surface",
                device=self._device,
                hint="asking for it twice is not safe with this driver; close the display and open it again",
            )
        if len(self._kept) >= self._limit:
            raise TooManyBuffers(
                f"the guest has used more than {self._limit} framebuffers and this driver's must all be kept open",
                device=self._device,
                hint="read pixels with capture() or map(), which need no dma-buf, or open the display again",
            )

    def _refused(self, error: OSError, surface: SurfaceInfo) -> MdevDisplayError:
        doing = f"GET_GFX_DMABUF of id {surface.dmabuf_id}"
        if error.errno in (errno.EINVAL, errno.ENOENT):
            hint = "the guest changed its framebuffer in between, or it starts off a page; query and ask again"
            return from_oserror(error, device=self._device, doing=doing, hint=hint, kind=DriverError)
        if error.errno == errno.EMFILE:
            hint = "this process has too many open files: close some, or raise its limit (ulimit -n)"
            return from_oserror(error, device=self._device, doing=doing, hint=hint, kind=TooManyBuffers)
        return from_oserror(error, device=self._device, doing=doing)

    def close(self) -> None:
        """Close every kept dma-buf. It must come before the device is closed."""
        while self._kept:
            self._kept.popitem()[1].close()
