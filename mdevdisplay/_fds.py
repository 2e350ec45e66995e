"""What the kernel says of descriptors of this process, and taking one from another process."""

from __future__ import annotations

import ctypes
import os

__all__ = ["duplicate_from", "link_of"]

_SYS_PIDFD_GETFD = 438
"""The same number on every architecture (asm-generic/unistd.h); glibc and Python have no function for it yet."""

_libc = ctypes.CDLL(None, use_errno=True)


def duplicate_from(pidfd: int, fd: int) -> int:
    """Duplicate another process's descriptor with pidfd_getfd(2); close-on-exec.

    Raises:
        OSError: EPERM where ptrace would not be allowed, EBADF where it has no such descriptor, ESRCH where it ended.
    """
    result = int(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def link_of(fd: int) -> str:
    """Return what /proc says that a descriptor is: ``anon_inode:[vfio-device]``, a path; "" where it is not open."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - the text, which is no path
    except OSError:
        return ""
