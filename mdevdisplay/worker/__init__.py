"""The same display with its source in a process of its own: a hang, a SIGBUS or a kill costs that display only.

`client` is what a program holds, `server` what the worker runs; between them go JSON messages and descriptors
(`wire`, `values`), and frames in memory that both map (`buffers`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mdevdisplay.worker.process import AbandonedWorker, abandoned

__all__ = ["AbandonedWorker", "abandoned"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mdevdisplay.worker import process  # the worker itself needs it not

    value: object = getattr(process, name)
    return value
