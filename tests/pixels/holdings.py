"""What this process holds, as the kernel tells it."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs


@attrs.frozen
class Holdings:
    """Open descriptors, mappings of anything that is not on disk, and threads; comparable."""

    descriptors: dict[int, str]
    mappings: list[str]
    threads: list[str]


def nothing_new_since(before: Holdings) -> bool:
    """Whether everything that is held now was held before; what went away meanwhile does not matter."""
    gc.collect()
    now = holdings()
    return (
        now.descriptors.items() <= before.descriptors.items()
        and set(now.mappings) <= set(before.mappings)
        and not Counter(now.threads) - Counter(before.threads)
    )


def holdings() -> Holdings:
    """Return what is held now."""
    return Holdings(_descriptors(), shared_mappings(), sorted(thread.name for thread in threading.enumerate()))


def _descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[int(path.name)] = str(path.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def shared_mappings(name: str = "memfd:") -> list[str]:
    """Return the lines of /proc/self/maps whose path has ``name`` in it."""
    return [line for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines() if name in line]


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Wait until a condition is true, as long as it may take another thread."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
