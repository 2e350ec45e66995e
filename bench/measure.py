"""Timing two things in one run, interleaved, so that whatever else the machine does falls on both."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence

__all__ = ["Figure", "interleaved", "per_call", "print_figures", "run_time"]


class Figure:
    """One line of the table: what, ours, the floor or peer, the ratio and the bound that the project set itself."""

    def __init__(self, what: str, ours: str, against: str, ratio: float, bound: str, *, met: bool) -> None:
        self.cells = (what, ours, against, f"{ratio:.2f}x", bound, "yes" if met else "NO")


def print_figures(figures: Sequence[Figure]) -> None:
    """Print the table."""
    titles = ("figure", "ours", "against", "ratio", "bound", "met")
    rows = [titles, *(figure.cells for figure in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(titles))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def per_call(call: Callable[[], object], seconds: float = 0.05) -> float:
    """Return the seconds of one call, from as many as fit into the time."""
    count = 1
    while True:
        begin = time.perf_counter()
        for _ in range(count):
            call()
        spent = time.perf_counter() - begin
        if spent >= seconds:
            return spent / count
        count = max(count * 2, int(count * seconds / max(spent, 1e-9)))


def interleaved(
    *calls: Callable[[], object], rounds: int = 15, pick: Callable[[list[float]], float] = statistics.median
) -> list[float]:
    """Return the seconds of one call of each, measured in turns: the median of the rounds, or what ``pick`` picks."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for place, call in enumerate(calls):
            times[place].append(per_call(call))
    return [pick(values) for values in times]


def run_time(*commands: Sequence[str], rounds: int = 15) -> list[float]:
    """Return the median seconds of each whole process, run in turns, with compiled modules as an installation has."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: list[list[float]] = [[] for _ in commands]
    for turn in range(rounds + 1):
        for place, command in enumerate(commands):
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if turn:  # the first one warms the page cache
                times[place].append(time.perf_counter() - begin)
    return [statistics.median(values) for values in times]
