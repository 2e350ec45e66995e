"""What the fake kernel saw: one `Call` for every system call that reached something fake."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mdevdisplay.vfio import uapi

__all__ = ["Call", "Record", "request_name"]

_REQUESTS = {
    value: name
    for name, value in vars(uapi).items()
    if name.startswith("VFIO_") and isinstance(value, int) and value >= uapi.VFIO_GET_API_VERSION
}


def request_name(request: int) -> str:
    """Return an ioctl's name in the kernel's headers, or its number."""
    return _REQUESTS.get(request, f"0x{request:x}")


@attrs.frozen(kw_only=True)
class Call:
    """One system call.

    Attributes:
        name: ``open``, ``close``, ``ioctl``, ``mmap``, ``unmap``, ``pread`` or ``pwrite``. ``unmap`` is a mapping
            replaced in place by anonymous memory, which is how `mdevdisplay.region.MappedRegion` lets go.
        target: what it reached: ``container``, ``group 7``, a device's name, ``dma-buf 3 of NAME``.
        request: the ioctl's number.
        sent: the ioctl's argument as it came in, or what pwrite wrote.
        offset: of mmap, pread and pwrite, in bytes.
        size: the length of mmap and pread, in bytes.
        result: what the system call returned; -1 where it failed.
        errno: 0, or why it failed.
        last: of a ``close``: whether no other descriptor of the target is open.
    """

    name: str
    target: str
    request: int = 0
    sent: bytes = b""
    offset: int = 0
    size: int = 0
    result: int = 0
    errno: int = 0
    last: bool = False

    def __str__(self) -> str:
        what = f" {request_name(self.request)}" if self.name == "ioctl" else ""
        answer = f"errno {self.errno}" if self.errno else str(self.result)
        return f"{self.name}{what} of {self.target} -> {answer}"


class Record(list[Call]):
    """The calls in order. It is a list; the methods are for assertions."""

    def of(self, name: str, target: str = "") -> list[Call]:
        """Return the calls of one name, where ``target`` is given to that target only."""
        return [call for call in self if call.name == name and target in ("", call.target)]

    def requests(self, target: str = "") -> list[int]:
        """Return the numbers of the ioctls that reached a target, or any target."""
        return [call.request for call in self.of("ioctl", target)]

    def releases(self) -> list[str]:
        """Return what was let go, in order: ``unmap TARGET``, and ``close TARGET`` where it was the last descriptor."""
        return list(self._releases())

    def _releases(self) -> Iterator[str]:
        for call in self:
            if call.name == "unmap" or (call.name == "close" and call.last):
                yield f"{call.name} {call.target}"
