"""Mediated devices of the real drivers, made and removed for each test.

These tests run inside the kernel lab: ``make lab``, or ``lab/run -- .venv/bin/pytest tests/lab``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_support import CLASS, MDEVS, remove_mdev

HAS_CDEVS = Path("/dev/iommu").exists()
collect_ignore = [] if HAS_CDEVS else ["test_cdev_vms.py", "test_gpu.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not CLASS.is_dir():
        pytest.exit("these tests need the kernel lab: make lab", returncode=2)
    # what cannot be taken back before the next boot comes last
    items.sort(key=lambda item: item.name.endswith("until_reboot"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what opens free devices by group and by cdev, where this kernel has both."""
    if "make_mdev" in metafunc.fixturenames:
        by_group_alone = metafunc.definition.get_closest_marker("by_group") or not HAS_CDEVS
        metafunc.parametrize("make_mdev", ["group"] if by_group_alone else ["group", "cdev"], indirect=True)


def wait_for(node: Path) -> None:
    """Wait for a node that devtmpfs makes after the device."""
    until = time.monotonic() + 10
    while not node.exists():
        assert time.monotonic() < until, f"{node} does not come"
        time.sleep(0.005)


@pytest.fixture
def make_mdev(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Make a mediated device of a type (``mdpy-xga``); it must be free again at the end of the test.

    Where it is to be opened by its cdev, its group has no node.
    """
    made: list[str] = []

    def make(kind: str) -> str:
        name = str(uuid.uuid4())
        parent = kind.split("-", maxsplit=1)[0]
        (CLASS / parent / "mdev_supported_types" / kind / "create").write_text(name)
        made.append(name)
        if request.param == "cdev":
            [cdev] = (MDEVS / name / "vfio-dev").iterdir()
            wait_for(Path("/dev/vfio/devices") / cdev.name)
            group = Path("/dev/vfio") / (MDEVS / name / "iommu_group").resolve().name
            wait_for(group)
            group.unlink()
        return name

    yield make
    held = [name for name in made if (MDEVS / name).exists() and not remove_mdev(name)]
    assert not held, "the test has left a descriptor or a mapping of them open"
