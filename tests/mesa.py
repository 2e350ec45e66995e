"""Mesa with llvmpipe that imports dma-bufs, from a cache of ours: nothing has to be installed.

Debian 12's own cannot. tools/mesa fetches it; this process and its children then use it and no other.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools/mesa"


@cache
def mesa() -> Path:
    """Return the folder that tools/mesa makes."""
    done = subprocess.run([TOOL], stdout=subprocess.PIPE, check=True, text=True)
    return Path(done.stdout.strip())


def environment() -> dict[str, str]:
    """Return what makes a process use it."""
    return {
        "LD_LIBRARY_PATH": str(mesa() / "lib"),
        "__EGL_VENDOR_LIBRARY_FILENAMES": str(mesa() / "vendor.json"),
    }


@cache
def use() -> None:
    """Load it into this process.

    The loader reads LD_LIBRARY_PATH before Python runs. A library that is loaded already is found by its name alone,
    so each is loaded by its path as soon as those that it needs are.
    """
    os.environ.update(environment())
    waiting = (mesa() / "libraries").read_text().split()
    while waiting:
        failed = {}
        for path in waiting:
            try:
                ctypes.CDLL(path)
            except OSError as error:
                failed[path] = error
        if len(failed) == len(waiting):
            raise next(iter(failed.values()))
        waiting = list(failed)
