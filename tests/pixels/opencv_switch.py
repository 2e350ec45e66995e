"""OpenCV there, not there, or another one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

from mdevdisplay.pixels import opencv


@contextmanager
def opencv_is(module: ModuleType | None) -> Iterator[None]:
    """Let importing cv2 give this module, or fail for None; what was loaded is forgotten, now and after it."""
    with mock.patch.dict(sys.modules, {"cv2": module}):  # None makes an import fail
        opencv._converter.cache_clear()
        try:
            yield
        finally:
            opencv._converter.cache_clear()


@contextmanager
def use_opencv(wanted: bool) -> Iterator[None]:
    """Convert with the real OpenCV, which is known to be loaded then, or without any."""
    with opencv_is(importlib.import_module("cv2") if wanted else None):
        assert (opencv._converter() is not None) is wanted
        yield
