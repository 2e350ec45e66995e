"""What the tests of workers share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pixels.holdings import eventually, holdings, nothing_new_since

from mdevdisplay.errors import TimedOut
from mdevdisplay.worker import process
from mdevdisplay.worker.client import RemoteReader
from worker.processes import children

Remote = Callable[..., RemoteReader]


@pytest.fixture
def remote() -> Iterator[Remote]:
    """A function that opens a display in a worker; afterwards nothing of it may be left."""
    before = holdings()
    processes = children()
    readers: list[RemoteReader] = []

    def open_one(locator: str, *, backend: str | None = None, output: int = 0) -> RemoteReader:
        readers.append(RemoteReader(locator, backend=backend, output=output))
        return readers[-1]

    yield open_one
    for reader in readers:
        try:
            reader.close()
        except TimedOut:
            pytest.fail("a worker did not end")
    readers.clear()

    def reaped() -> bool:
        process._reap()  # those that were left to other programs
        return children() <= processes

    assert eventually(reaped), "a worker, or what is left of one"
    assert eventually(lambda: nothing_new_since(before))


@pytest.fixture
def fakegpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the backend of `worker.backend` for this test and its workers."""
    place = tmp_path / "site"
    place.mkdir()
    shutil.copy(Path(__file__).parent / "backend" / "mdevdisplay_fakegpu.py", place)
    info = place / "mdevdisplay_fakegpu-7.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mdevdisplay-fakegpu\nVersion: 7.0\n")
    (info / "entry_points.txt").write_text("[mdevdisplay]\nfakegpu = mdevdisplay_fakegpu\n")
    monkeypatch.syspath_prepend(str(place))
