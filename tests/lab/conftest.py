"""Mediated devices of the real drivers, made and removed for each test.

These tests run inside the kernel lab: ``make lab``, or ``lab/run -- .venv/bin/pytest tests/lab``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from lab_support import CLASS, MDEVS, remove_mdev


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not CLASS.is_dir():
        pytest.exit("these tests need the kernel lab: make lab", returncode=2)


@pytest.fixture
def make_mdev() -> Iterator[Callable[[str], str]]:
    """Make a mediated device of a type (``mdpy-xga``); it must be free again at the end of the test."""
    made: list[str] = []

    def make(kind: str) -> str:
        name = str(uuid.uuid4())
        parent = kind.split("-", maxsplit=1)[0]
        (CLASS / parent / "mdev_supported_types" / kind / "create").write_text(name)
        made.append(name)
        return name

    yield make
    held = [name for name in made if (MDEVS / name).exists() and not remove_mdev(name)]
    assert not held, "the test has left a descriptor or a mapping of them open"
