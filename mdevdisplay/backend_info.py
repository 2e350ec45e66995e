"""Which backend reads a display, as a value that can travel."""

from __future__ import annotations

import attrs

from mdevdisplay.surface import Match

__all__ = ["BackendInfo"]


@attrs.frozen(kw_only=True)
class BackendInfo:
    """The backend that was chosen for a display.

    Attributes:
        name: its name.
        distribution: the name of the distribution that brings it.
        version: the version of that distribution.
        match: its answer to probe: score and reason.
        refusals: what every other backend answered, by name.
    """

    name: str
    distribution: str
    version: str
    match: Match
    refusals: dict[str, str]
