"""Reading /sys and /proc with a deadline: a driver's attribute may hang."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mdevdisplay._lane import Lane

__all__ = ["HOST_SECONDS", "in_time"]

T = TypeVar("T")
HOST_SECONDS = 10.0
"""What one look at /sys and /proc may take."""


def in_time(what: str, probe: Callable[[], T]) -> T:
    """Run a probe of the host and return its result; one that hangs goes on alone, in a thread of its own.

    Raises:
        TimedOut: it has not come back in time.
    """
    lane = Lane(what)
    try:
        return lane.run(probe, HOST_SECONDS)
    finally:
        lane.stop()
