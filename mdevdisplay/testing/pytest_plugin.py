"""The fixture for pytest: put ``pytest_plugins = ["mdevdisplay.testing.pytest_plugin"]`` into conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mdevdisplay.testing.kernel import FakeKernel

__all__ = ["fake_kernel"]


@pytest.fixture
def fake_kernel(tmp_path: Path) -> Iterator[FakeKernel]:
    """A `FakeKernel`; after the test nothing may be left open in it, and no rule of a driver broken."""
    with FakeKernel(tmp_path / "fake-kernel") as kernel:
        yield kernel
        kernel.assert_nothing_left()
