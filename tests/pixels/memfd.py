"""Memory that can be mapped safely."""

from __future__ import annotations

import fcntl
import os


def sealed_memfd(name: str) -> int:
    """Return a memfd that nobody can truncate, as a device's memory cannot be."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd
