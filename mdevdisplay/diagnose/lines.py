"""A report for people, line by line: on a terminal with colours, in a file without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from mdevdisplay.diagnose.causes import Ends
from mdevdisplay.diagnose.report import Found, Report, State, Step

__all__ = ["Line", "Span", "report_lines", "reports_lines"]

_COLOURS = {State.OK: "green", State.NOTE: "yellow", State.BAD: "red"}


@attrs.frozen
class Span:
    """A piece of a line. Its text may hold anything that a VM or driver said, control characters too.

    Attributes:
        text: the words.
        bold: whether they stand out.
        colour: their colour, a name that click knows, or "".
    """

    text: str
    bold: bool = False
    colour: str = ""


Line = tuple[Span, ...]


def reports_lines(reports: Iterable[Report]) -> Iterator[Line]:
    """Yield the lines of several reports, with an empty one between two."""
    for number, report in enumerate(reports):
        if number:
            yield ()
        yield from report_lines(report)


def report_lines(report: Report) -> Iterator[Line]:
    """Yield the lines of a report: the verdict, every step with its evidence, what to do, and what was left out."""
    colour = "green" if report.ends is Ends.SEEN else "red"
    yield Span(report.verdict, bold=True, colour=colour), Span(f" [{report.cause}]")
    yield ()
    for step in report.steps:
        yield from _step(step)
    if any(found.remedy for found in report.findings):
        yield ()
        yield (Span("what to do", bold=True),)
        yield from _remedies(report.findings)
    if report.left_out:
        yield ()
        yield (Span("left out, to be safe", bold=True),)
        yield from ((Span("  "), Span(text)) for text in report.left_out)


def _remedies(findings: Iterable[Found]) -> Iterator[Line]:
    """Yield what to do, each line once: a reason and what it explains often want the same."""
    told: set[str] = set()
    for found in findings:
        new = [line for line in found.remedy if line not in told]
        told.update(new)
        if new:
            yield Span("  "), Span(found.cause)
            yield from ((Span("    "), Span(line)) for line in new)


def _step(step: Step) -> Iterator[Line]:
    head: Line = (Span(f"{step.name:<8}", bold=True), Span(f"{step.state.value:<9}", colour=_COLOURS[step.state]))
    for line in step.evidence or ("",):
        yield *head, Span(line)
        head = (Span(" " * 17),)
