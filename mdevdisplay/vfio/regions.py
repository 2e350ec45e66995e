"""VFIO_DEVICE_GET_REGION_INFO and its capability chain, every step bounds-checked."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import sizeof

from mdevdisplay.errors import DriverError, from_oserror
from mdevdisplay.surface import RegionInfo
from mdevdisplay.vfio import uapi

__all__ = ["MAX_REGION_INFO", "decode_region_info", "get_region_info"]

Ioctl = Callable[[int, bytearray], int]
"""A driver's ioctl without its descriptor: (request, buffer) -> result."""

_FIXED = sizeof(uapi.vfio_region_info)
MAX_REGION_INFO = 1 << 16
"""The most bytes of region info that are believed; real chains take 48 to some hundred."""


def get_region_info(ioctl: Ioctl, index: int, device: str = "") -> RegionInfo | None:
    """Ask for one region; None where the driver has no region of that number (EINVAL).

    The first call sends the fixed 32 bytes. Where the driver then asks for more, the second sends exactly that
    many: mbochs refuses an argsz above its own 48.

    Raises:
        DriverError: the answer leaves its buffer, or the driver refuses for another reason.
    """
    buffer = _request(index, _FIXED)
    if not _call(ioctl, buffer, index, device):
        return None
    wanted = int.from_bytes(buffer[:4], "little")
    if uapi.vfio_region_info.from_buffer(buffer).flags & uapi.VFIO_REGION_INFO_FLAG_CAPS and wanted > _FIXED:
        if wanted > MAX_REGION_INFO:
            raise DriverError(
                f"region {index} asks for {wanted} bytes of info, more than {MAX_REGION_INFO}",
                device=device,
                hint="the driver's answer cannot be right; report it to its vendor",
            )
        buffer = _request(index, wanted)
        if not _call(ioctl, buffer, index, device):
            return None
    return decode_region_info(bytes(buffer), index, device)


def _request(index: int, size: int) -> bytearray:
    buffer = bytearray(size)
    request = uapi.vfio_region_info.from_buffer(buffer)
    request.argsz = size
    request.index = index
    return buffer


def _call(ioctl: Ioctl, buffer: bytearray, index: int, device: str) -> bool:
    try:
        ioctl(uapi.VFIO_DEVICE_GET_REGION_INFO, buffer)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise from_oserror(error, device=device, doing=f"GET_REGION_INFO of region {index}") from error
    return True


def decode_region_info(answer: bytes, index: int, device: str = "") -> RegionInfo:
    """Turn a driver's answer into a RegionInfo; pure.

    Raises:
        DriverError: the capability chain leaves the answer or runs in a circle.
    """
    fixed = uapi.vfio_region_info.from_buffer_copy(answer)
    kind = subtype = None
    capabilities = []
    for offset, header in _chain(answer, fixed, index, device):
        capabilities.append(header.id)
        if header.id == uapi.VFIO_REGION_INFO_CAP_TYPE and kind is None:
            if offset + sizeof(uapi.vfio_region_info_cap_type) > len(answer):
                raise _bad_chain(index, device, f"the type capability at {offset} is cut off")
            typed = uapi.vfio_region_info_cap_type.from_buffer_copy(answer, offset)
            kind, subtype = typed.type, typed.subtype
    return RegionInfo(
        index=index,
        size=fixed.size,
        offset=fixed.offset,
        readable=bool(fixed.flags & uapi.VFIO_REGION_INFO_FLAG_READ),
        writable=bool(fixed.flags & uapi.VFIO_REGION_INFO_FLAG_WRITE),
        mappable=bool(fixed.flags & uapi.VFIO_REGION_INFO_FLAG_MMAP),
        type=kind,
        subtype=subtype,
        capabilities=tuple(capabilities),
    )


def _chain(
    answer: bytes, fixed: uapi.vfio_region_info, index: int, device: str
) -> list[tuple[int, uapi.vfio_info_cap_header]]:
    """Return (offset, header) of every capability."""
    if not fixed.flags & uapi.VFIO_REGION_INFO_FLAG_CAPS or len(answer) <= _FIXED:
        return []
    found: list[tuple[int, uapi.vfio_info_cap_header]] = []
    offset, seen = fixed.cap_offset, set[int]()
    while offset:
        if offset in seen:
            raise _bad_chain(index, device, f"it comes back to {offset}")
        if offset < _FIXED or offset + sizeof(uapi.vfio_info_cap_header) > len(answer):
            raise _bad_chain(index, device, f"{offset} lies outside {_FIXED} to {len(answer)}")
        seen.add(offset)
        header = uapi.vfio_info_cap_header.from_buffer_copy(answer, offset)
        found.append((offset, header))
        offset = header.next
    return found


def _bad_chain(index: int, device: str, what: str) -> DriverError:
    return DriverError(
        f"the capability chain of region {index} is broken: {what}",
        device=device,
        hint="the driver's answer cannot be right; report it to its vendor",
    )
