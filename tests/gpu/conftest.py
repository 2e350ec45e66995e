"""An importer on llvmpipe, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mesa import use

from mdevdisplay.gpu.importer import GpuImporter


@pytest.fixture(scope="session", autouse=True)
def software_renderer() -> None:
    use()


@pytest.fixture
def importer() -> Iterator[GpuImporter]:
    with GpuImporter(None, device="sim:") as importer:
        yield importer
