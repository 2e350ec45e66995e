"""What an examination comes to, as values: steps with their evidence, causes that were found, and the verdict."""

from __future__ import annotations

from enum import Enum, unique

import attrs

from mdevdisplay.diagnose.causes import Ends

__all__ = ["Found", "Report", "State", "Step"]


@unique
class State(Enum):
    """How a step came out."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@attrs.frozen(kw_only=True)
class Step:
    """One step from the host to the pixels.

    Attributes:
        name: one of `mdevdisplay.diagnose.causes.STEPS`.
        state: how it came out.
        evidence: what was seen, a line each.
        causes: the ids of the causes that were found in it.
    """

    name: str
    state: State
    evidence: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Found:
    """A cause that was found.

    Attributes:
        cause: its id: of the table, or a backend's own.
        step: the step that it was found in.
        evidence: what was seen.
        remedy: what to do, line by line; one that begins with ``$ `` is a command.
        source: where the fact behind it comes from, or "".
    """

    cause: str
    step: str
    evidence: str
    remedy: tuple[str, ...] = ()
    source: str = ""


@attrs.frozen(kw_only=True)
class Report:
    """What is the matter with a display.

    Attributes:
        locator: what was examined; "" for the host as a whole.
        verdict: the first line, in the operator's words.
        cause: the id of the cause that makes it; ``shown`` where the picture is there.
        ends: what it comes to; its value is the exit status.
        steps: every step that was gone, in order.
        findings: every cause that was found, the verdict's first.
        left_out: what was not done, so as to be safe on a running VM, and why.
        names: what would tell whose machine this is: names of VMs, devices and processes.
    """

    locator: str
    verdict: str
    cause: str
    ends: Ends
    steps: tuple[Step, ...] = ()
    findings: tuple[Found, ...] = ()
    left_out: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """The exit status of ``doctor``."""
        return self.ends.value
