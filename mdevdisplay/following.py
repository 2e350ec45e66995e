"""Letting go of a device when its owner, or the worker that reads it, ends: whatever the display is doing then."""

from __future__ import annotations

import select
from contextlib import suppress

from mdevdisplay._lane import Lane
from mdevdisplay._lifelines import Lifelines
from mdevdisplay.errors import Closed
from mdevdisplay.reader import Reader
from mdevdisplay.source import Lifeline

__all__ = ["follow", "has_ended", "lifelines"]

lifelines = Lifelines()
"""One thread for all displays."""


def has_ended(lifeline: Lifeline) -> bool:
    """Whether the owner has ended."""
    poll = select.poll()
    poll.register(lifeline.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def follow(reader: Reader, lane: Lane) -> None:
    """Lose the reader's source, in its lane, as soon as the device's owner ends.

    Only a call that is stuck inside the kernel can delay that.
    """
    lifeline = reader.source.lifeline
    if lifeline is None or reader.source.closed:
        return
    fd = lifeline.fileno()

    def lose() -> None:
        if not reader.source.closed and has_ended(lifeline):
            reader.source.lose()

    def ended() -> None:
        with suppress(Closed):  # the display was closed meanwhile
            lane.submit(lose)

    reader.source.on_close(lambda: lifelines.forget(fd))
    lifelines.watch(fd, ended)
