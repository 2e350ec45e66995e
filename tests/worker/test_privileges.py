"""A worker has no privileges, and can read all the same."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdevdisplay import PlaneType
from mdevdisplay.worker.privileges import NOBODY, import_all
from worker.conftest import Remote
from worker.looks import captured
from worker.processes import status_of

PRIMARY = PlaneType.PRIMARY


def test_a_worker_gives_up_everything(remote: Remote) -> None:
    """No capability, also none to be had; not root's user, groups or way back; no core file; not to be traced."""
    reader = remote("sim:64x64,via=dmabuf")
    assert reader.pid is not None
    status = status_of(reader.pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.geteuid() == 0 else [])):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    expected = NOBODY if os.geteuid() == 0 else os.getuid()
    assert status["Uid"].split() == [str(expected)] * 4
    if os.geteuid() == 0:
        assert status["Gid"].split() == [str(expected)] * 4
        assert status["Groups"] == ""
    limits = Path(f"/proc/{reader.pid}/limits").read_text()
    assert next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")) == ["0", "0"]


def test_it_reads_without_them(remote: Remote) -> None:
    """Frames, dma-bufs, what the kernel says of its own descriptors, and what backends decode."""
    reader = remote("sim:64x64,via=dmabuf,fps=0")
    assert captured(reader).raw.any()
    reader.dmabuf(PRIMARY).close()
    assert reader.readability(PRIMARY).way == "dma-buf"
    assert reader.findings() == ()


FDINFO = """
import os
from mdevdisplay.dmabuf import read_fdinfo
from mdevdisplay.worker.privileges import drop_privileges
fd = os.open("/dev/null", os.O_RDONLY)
drop_privileges("dev")
assert "flags:" in read_fdinfo(fd), read_fdinfo(fd)
for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit("a way back")
import ctypes
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
print("ok")
"""


def test_its_own_fdinfo_can_be_read_afterwards() -> None:
    """The exporter of a dma-buf is found there; and there is no way back to root."""
    result = subprocess.run([sys.executable, "-c", FDINFO], capture_output=True, text=True, check=False)
    assert result.stdout == "ok\n", result.stderr


REFUSED = """
import os
from mdevdisplay.errors import NotPermitted
from mdevdisplay.worker import privileges
{change}
try:
    privileges.drop_privileges("dev")
except NotPermitted as error:
    print(error.cause)
"""


@pytest.mark.parametrize(
    "change",
    [
        "privileges._libc.capset = lambda *_: -1",
        "os.getuid = lambda: 0; os.setresuid = lambda *_: (_ for _ in ()).throw(OSError(22, 'EINVAL'))",
        "privileges._effective = lambda: 1 << 20",
    ],
)
def test_a_worker_that_keeps_privileges_refuses_to_serve(change: str) -> None:
    """Whichever step the kernel refuses."""
    code = REFUSED.format(change=change)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout == "privileges-kept\n", result.stderr


def test_submodules_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of subpackages; one that cannot be imported is left out."""
    place = tmp_path / "pkg_of_a_backend"
    (place / "deep").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "deep/__init__.py", "deep/two.py"):
        (place / name).write_text("")
    (place / "broken.py").write_text("raise RuntimeError")
    (place / "__main__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("pkg_of_a_backend")
    import_all(module)
    loaded = {name for name in sys.modules if name.startswith("pkg_of_a_backend")}
    assert loaded == {
        "pkg_of_a_backend",
        "pkg_of_a_backend.one",
        "pkg_of_a_backend.deep",
        "pkg_of_a_backend.deep.two",
    }
    for name in loaded:
        del sys.modules[name]
