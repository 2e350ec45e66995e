"""Where the host's /sys, /proc, /run and /dev are."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

__all__ = ["HostRoot", "read_attribute"]

_MOST = 4096


@attrs.frozen
class HostRoot:
    """The root below which /sys, /proc, /run and /dev of the host lie.

    A container that has the host's root mounted at /host sets MDEVDISPLAY_HOST_ROOT=/host.
    """

    path: Path = Path("/")

    @classmethod
    def from_environment(cls) -> HostRoot:
        """Return the root that MDEVDISPLAY_HOST_ROOT names, else /."""
        return cls(Path(os.environ.get("MDEVDISPLAY_HOST_ROOT") or "/"))

    @property
    def sys(self) -> Path:
        """The host's /sys."""
        return self.path / "sys"

    @property
    def proc(self) -> Path:
        """The host's /proc."""
        return self.path / "proc"

    @property
    def run(self) -> Path:
        """The host's /run."""
        return self.path / "run"

    @property
    def dev(self) -> Path:
        """The host's /dev."""
        return self.path / "dev"


def read_attribute(path: Path) -> str:
    """Return a sysfs attribute as text without its line end; "" where it is missing or unreadable.

    Attributes are the driver's words: at most 4096 bytes, any bytes that are not text replaced.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(_MOST).decode("utf-8", "replace").strip("\n\0 ")
    except OSError:
        return ""
