"""Random combinations of simulated faults, and what a doctor has to say to each, told from the faults alone.

A fault has a stage, the first step at which it is met, and one cause. Of several the earliest is right; of two at the
same stage either is.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import attrs

from mdevdisplay.diagnose import diagnose

__all__ = ["Combination", "Outcome", "confusion_table", "examine", "random_combinations"]

# stage: probe, answer in time, answer at all, anything displayed, geometry, next queries, memory, format, picture
_STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("not-a-display", ("enotty", "answers-all")),
    ("timed-out", ("hang:4",)),
    ("guest-changing-mode", ("einval-forever",)),
    ("driver-error", ("eio",)),
    ("timed-out", ("etimedout",)),
    ("nothing-displayed", ("untouched", "zero-format", "zero-width", "zero-height", "zero-size")),
    ("bad-surface", ("short-size", "short-stride", "huge", "huge-stride")),
    ("device-gone", ("gone",)),
    ("bad-surface", ("small-buffer",)),
    ("unsupported-format", ("unknown-fourcc",)),
    ("unsupported-modifier", ("unknown-modifier",)),
    ("one-colour", ("all-black",)),
)
_SAME = (
    {"einval-forever", "eio", "etimedout"},
    {"short-size", "short-stride", "unknown-fourcc"},
)
_MEMORY = {"small-buffer", "unknown-fourcc", "unknown-modifier"}
"""Faults of which the driver shows one or another: it fails with one errno, nobody can say whether the bytes of an
unknown format are too few, and a buffer has one first fault."""
_ONE_OF = (
    {"zero-size", "short-size", "size-pow2", "huge", "huge-stride"},
    {"zero-format", "unknown-fourcc"},
    {"zero-width", "huge"},
    {"zero-height", "huge", "torn"},
    {"einval", "efault", "enomem-once", "gone"},
)
"""Faults that undo each other: they write the same field, or let queries fail that the other one counts."""
_HARMLESS = (
    *("enomem-once", "einval", "efault", "size-pow2", "hotspot-unknown", "hotspot-outside", "cursor-is-primary"),
    *("cursor-sign-lost", "recycled-ids", "new-id-every-query:3", "get-once", "no-cloexec", "torn"),
)
_BY_WAY: dict[str, dict[str, tuple[str, ...]]] = {
    "both": {},
    "region": {"not-mappable": ("region-refused",)},
    "dmabuf": {"driver-error": ("get-einval", "get-enoent"), "no-render-node": ("dmabuf-enodev",)},
}


@attrs.frozen
class Combination:
    """A simulated display with faults."""

    locator: str
    right: frozenset[str]
    hangs: bool


@attrs.frozen
class Outcome:
    """What a doctor said."""

    combination: Combination
    said: str

    @property
    def wrong(self) -> bool:
        return self.said not in self.combination.right


def random_combinations(number: int, seed: int) -> list[Combination]:
    """Return combinations of up to three faults, harmful and harmless, over every way of reading."""
    chooser = random.Random(seed)
    return [_one(chooser) for _ in range(number)]


def _one(chooser: random.Random) -> Combination:
    via = chooser.choice(("both", "region", "dmabuf"))
    harmful = [fault for _, faults in _STAGES for fault in faults]
    memory = _BY_WAY[via]
    harmful += [fault for faults in memory.values() for fault in faults]
    faults = chooser.sample(harmful, chooser.choice((0, 1, 1, 1, 2, 2, 3)))
    faults += chooser.sample(_HARMLESS, chooser.choice((0, 1, 1, 2)))
    if via == "dmabuf" and "get-once" in faults:
        faults = [fault for fault in faults if not fault.startswith("get-e")]
    for group in _ONE_OF:
        first = next((fault for fault in faults if fault in group), None)
        faults = [fault for fault in faults if fault == first or fault not in group]
    chooser.shuffle(faults)
    options = [chooser.choice(("320x200", "640x480", "800x600")), f"via={via}"]
    if chooser.random() < 0.3:
        options.append("cursor=on")
    if chooser.random() < 0.3:
        options.append("format=" + chooser.choice(("AR24", "XB24", "RG16", "XR30", "NV12")))
    if faults:
        options.append("fault=" + "+".join(faults))
    right = _right(set(faults), memory)
    return Combination("sim:" + ",".join(options), frozenset(right), "hang:4" in faults)


def _right(faults: set[str], memory: dict[str, tuple[str, ...]]) -> set[str]:
    stages = [*_STAGES]
    stages[8:8] = list(memory.items())
    for cause, of_stage in stages:
        met = faults & set(of_stage)
        if met:
            alike = next((group for group in _alike(memory) if met & group), met) & faults
            return {cause} | {other for other, fault in stages if alike & set(fault)}
    return {"shown"}


def _alike(memory: dict[str, tuple[str, ...]]) -> Iterable[set[str]]:
    yield from _SAME
    yield _MEMORY | {fault for faults in memory.values() for fault in faults}


def examine(combinations: Iterable[Combination]) -> list[Outcome]:
    """Let a doctor look at each."""
    return [
        Outcome(one, diagnose(one.locator, timeout=0.7 if one.hangs else 60, isolated=False).cause)
        for one in combinations
    ]


def confusion_table(outcomes: list[Outcome]) -> str:
    """Return a table of what was right, down, against what was said, across; where several are right, what was said."""
    pairs: Counter[tuple[str, str]] = Counter()
    for one in outcomes:
        right = one.said if not one.wrong else min(one.combination.right)
        pairs[right, one.said] += 1
    rows = sorted({right for right, _ in pairs})
    columns = sorted({said for _, said in pairs})
    width = max(map(len, rows)) + 2
    lines = [" " * width + "  ".join(columns)]
    for right in rows:
        cells = "  ".join(str(pairs[right, said] or ".").rjust(len(said)) for said in columns)
        lines.append(f"{right:<{width}}{cells}")
    wrong = sum(one.wrong for one in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} combinations, {wrong} wrong verdicts"])
