"""Video memory: a memfd, and a true dma-buf of it where the kernel makes one (/dev/udmabuf)."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

import numpy as np
import numpy.typing as npt

__all__ = ["UDMABUF", "Memory", "unmappable"]

UDMABUF = "/dev/udmabuf"

# include/uapi/linux/udmabuf.h: struct udmabuf_create { u32 memfd, flags; u64 offset, size; }
_UDMABUF_CREATE = 0x40187542
_UDMABUF_CREATE_STRUCT = struct.Struct("<IIQQ")
_UDMABUF_FLAGS_CLOEXEC = 1


class Memory:
    """One buffer of video memory, all zeros at first.

    Attributes:
        fd: the memfd; it belongs to this object.
        size: its length in bytes.
    """

    def __init__(self, size: int, *, whole_pages: bool = True) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE if whole_pages else size
        self.fd = os.memfd_create("mdevdisplay-simulated", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._dmabuf = -1
        self._bytes: npt.NDArray[np.uint8] | None = None
        try:
            os.ftruncate(self.fd, self.size)
            # nobody who maps it can be hit by SIGBUS, and udmabuf insists on it
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        except BaseException:
            os.close(self.fd)
            raise

    def write(self, offset: int, data: npt.NDArray[np.uint8]) -> None:
        """Write a contiguous run of bytes.

        For memory that was never touched this is twice as fast as storing into a mapping, which faults on every page
        and has it zeroed first.
        """
        view = data.reshape(-1).data
        while view:
            done = os.pwrite(self.fd, view, offset)
            view, offset = view[done:], offset + done

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """The whole memory, (size,) uint8, writable."""
        if self._bytes is None:
            self._bytes = np.frombuffer(mmap.mmap(self.fd, self.size), np.uint8)
        return self._bytes

    def export(self, udmabuf: str) -> int:
        """Return a new descriptor of the memory as a dma-buf, close-on-exec.

        Args:
            udmabuf: ``on`` for a true dma-buf, ``auto`` for one where the kernel makes it and else a duplicate of the
                memfd, ``off`` for the duplicate.

        Raises:
            OSError: ``on``, and the kernel makes none.
        """
        if udmabuf != "off" and self._dmabuf < 0:
            try:
                self._dmabuf = _udmabuf(self.fd, self.size)
            except OSError:
                if udmabuf == "on":
                    raise
        return os.dup(self.fd if self._dmabuf < 0 else self._dmabuf)

    def close(self) -> None:
        """Let go of the memory. Idempotent; the pages live on as long as somebody maps them."""
        self._bytes = None  # unmaps
        for fd in (self._dmabuf, self.fd):
            if fd >= 0:
                os.close(fd)
        self._dmabuf = self.fd = -1


def _udmabuf(memfd: int, size: int) -> int:
    node = os.open(UDMABUF, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = bytearray(_UDMABUF_CREATE_STRUCT.pack(memfd, _UDMABUF_FLAGS_CLOEXEC, 0, size))
        return int(fcntl.ioctl(node, _UDMABUF_CREATE, request))
    finally:
        os.close(node)


def unmappable() -> int:
    """Return a descriptor that nobody can map: like i915's dma-bufs, a pipe refuses with ENODEV."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    return reader
