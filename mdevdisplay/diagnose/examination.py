"""Collects what the steps of an examination see, and draws the verdict from it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping

import attrs

from mdevdisplay.diagnose.causes import BY_ID, CAUSES, STEPS, Cause, Ends, find_cause
from mdevdisplay.diagnose.report import Found, Report, State, Step
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.source import Finding

__all__ = ["Examination"]

_MOST_TEXT = 2000
_WELL = ("shown", "host-ready")


@attrs.define
class _Candidate:
    """A cause that was found, before the verdict."""

    found: Found
    explains: frozenset[str]
    rank: int
    cause: Cause | None


class _Names(dict[str, str]):
    """Fills the words of a verdict or remedy; what is not known stands there in capitals."""

    def __missing__(self, key: str) -> str:
        return key.upper()


class Examination:
    """Collects what the steps see. The steps write, `conclude` reads.

    Attributes:
        names: what the verdict's and the remedies' words in braces mean.
        seen: the id of what the examination came to so far, or "".
    """

    def __init__(self, locator: str) -> None:
        self.locator = locator
        self.names: dict[str, str] = {"locator": locator, "it": locator} if locator else {"it": "this host"}
        self.names["holder"] = "another process"
        if locator.startswith("vm:"):
            self.names["vm"] = locator[3:]
        self._evidence: dict[str, list[str]] = {}
        self._states: dict[str, State] = {}
        self._candidates: list[_Candidate] = []
        self._left_out: list[str] = []
        self._secrets: dict[str, None] = {}
        self.seen = ""

    def ok(self, step: str, *evidence: str) -> None:
        """Say that a step went well, or just what it saw."""
        self._write(step, State.OK, evidence)

    def found(self, name: str, evidence: str, step: str = "") -> None:
        """Note a cause of the table that may explain what will be seen, or stands beside it."""
        cause = BY_ID[name]
        self._add(cause, step or cause.step, evidence, ())

    def has_found(self, name: str) -> bool:
        """Whether a cause was noted."""
        return any(entry.found.cause == name for entry in self._candidates)

    def told(self, finding: Finding, step: str) -> None:
        """Note what a backend knows."""
        cause = BY_ID.get(finding.cause)
        remedy = (finding.remedy,) if finding.remedy else ()
        explains = frozenset(finding.explains)
        found = Found(
            cause=_cut(finding.cause),
            step=step,
            evidence=_cut(finding.evidence),
            remedy=(*map(_cut, remedy), *self._remedy(cause)),
            source=cause.source if cause else "",
        )
        # a cause of the backend's own is told by who knows best
        rank = CAUSES.index(cause) if cause else -1
        self._candidates.append(_Candidate(found, explains, rank, cause))
        self._write(step, State.NOTE, (f"{found.evidence} [{found.cause}]",))

    def ends(self, name: str, evidence: str, remedy: Iterable[str] = (), step: str = "") -> None:
        """Say what the examination came to: a picture, or the first thing that went wrong."""
        cause = find_cause(name)
        self._add(cause, step or cause.step, evidence, tuple(remedy), decides=True, name=name)
        self.seen = name

    def failed(self, error: MdevDisplayError, step: str = "") -> None:
        """Say that it came to an error of ours."""
        self.ends(error.cause, error.message, (error.hint,) if error.hint else (), step)

    def leave_out(self, text: str) -> None:
        """Say what was not done, and why."""
        self._left_out.append(_cut(text))

    def is_secret(self, *names: str) -> None:
        """Remember words that tell whose machine this is."""
        self._secrets.update(dict.fromkeys(name for name in names if name))

    def take(self, copy: Examination) -> None:
        """Take over what a copy of this one has come to."""
        self.__dict__.update(copy.__dict__)

    def conclude(self) -> Report:
        """Return the report."""
        if not self.seen:
            self.ends("probe-failed", "the examination ended before it came to anything")
        seen = self.seen
        base = next(entry for entry in reversed(self._candidates) if entry.found.cause == seen)
        because = sorted((entry for entry in self._candidates if seen in entry.explains), key=lambda one: one.rank)
        decisive = because[0] if because else base
        others = [entry for entry in self._candidates if entry is not decisive]
        return Report(
            locator=self.locator,
            verdict=self._verdict(decisive, base, others),
            cause=decisive.found.cause,
            ends=(decisive.cause or base.cause or find_cause("error")).ends,
            steps=self._steps(),
            findings=_merged(entry.found for entry in (decisive, *others) if entry.found.cause not in _WELL),
            left_out=tuple(self._left_out),
            names=tuple(self._secrets),
        )

    def _verdict(self, decisive: _Candidate, base: _Candidate, others: Iterable[_Candidate]) -> str:
        cause = decisive.cause
        if cause is None:
            text = f"{self.names['it']}: {decisive.found.evidence}"
        else:
            text = cause.verdict.format_map(_Names(self.names))
        if base.cause is not None and base.cause.ends is Ends.SEEN:
            asides = (entry.cause.aside for entry in others if entry.cause is not None and entry.cause.aside)
            text = "; ".join([text, *dict.fromkeys(aside.format_map(_Names(self.names)) for aside in asides)])
        return text

    def _add(
        self, cause: Cause, step: str, evidence: str, remedy: tuple[str, ...], *, decides: bool = False, name: str = ""
    ) -> None:
        found = Found(
            cause=name or cause.id,
            step=step,
            evidence=_cut(evidence),
            remedy=(*map(_cut, remedy), *self._remedy(cause)),
            source=cause.source,
        )
        self._candidates.append(_Candidate(found, cause.explains, CAUSES.index(cause), cause))
        state = State.OK if cause.ends is Ends.SEEN else State.BAD if decides else State.NOTE
        self._write(step, state, (f"{found.evidence} [{found.cause}]" if found.cause not in _WELL else evidence,))

    def _remedy(self, cause: Cause | None) -> tuple[str, ...]:
        """Return what to do, without what is said to a VM where none is in sight, or to whoever is not root yet."""
        quoted = _Names({key: shlex.quote(value) for key, value in self.names.items()})
        lines = cause.remedy if cause else ()
        return tuple(
            line.format_map(quoted)
            for line in lines
            if not (line.startswith("$ sudo ") and os.geteuid() == 0)
            and all(name in self.names or f"{{{name}}}" not in line for name in ("vm", "vmid"))
        )

    def _write(self, step: str, state: State, evidence: Iterable[str]) -> None:
        self._evidence.setdefault(step, []).extend(map(_cut, evidence))
        worst = [State.OK, State.NOTE, State.BAD]
        self._states[step] = max(self._states.get(step, State.OK), state, key=worst.index)

    def _steps(self) -> tuple[Step, ...]:
        causes: Mapping[str, list[str]] = {step: [] for step in STEPS}
        for entry in self._candidates:
            if entry.found.cause not in _WELL:
                causes[entry.found.step].append(entry.found.cause)
        return tuple(
            Step(
                name=step,
                state=self._states[step],
                evidence=tuple(self._evidence[step]),
                causes=tuple(dict.fromkeys(causes[step])),
            )
            for step in STEPS
            if step in self._states
        )


def _merged(found: Iterable[Found]) -> tuple[Found, ...]:
    """Tell a cause that was met in several places once, with all that was seen of it."""
    merged: dict[str, Found] = {}
    for one in found:
        first = merged.setdefault(one.cause, one)
        if first is not one:
            evidence = "; ".join(dict.fromkeys((first.evidence, one.evidence)))
            remedy = tuple(dict.fromkeys((*one.remedy, *first.remedy)))
            merged[one.cause] = attrs.evolve(first, evidence=_cut(evidence), remedy=remedy)
    return tuple(merged.values())


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"
