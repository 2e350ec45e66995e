"""A worker that dies, hangs or is killed costs its own display, for as long as it is away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mmap_ninja.numpy
import numpy as np
import pytest
from pixels.holdings import eventually

import mdevdisplay
from mdevdisplay import Display, PlaneType
from mdevdisplay._lane import Lane
from mdevdisplay.errors import Closed, TimedOut, VmGone, WorkerDied
from mdevdisplay.worker import abandoned, client, link, process
from mdevdisplay.worker.client import RemoteReader
from worker.conftest import Remote
from worker.looks import captured
from worker.processes import children, is_running

PRIMARY = PlaneType.PRIMARY


def kill(reader: RemoteReader, number: int = signal.SIGKILL) -> int:
    pid = reader.pid
    assert pid is not None
    os.kill(pid, number)
    return pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV])
def test_a_killed_worker_costs_one_call(remote: Remote, number: int) -> None:
    """It says by which signal; the next call starts another, and serial numbers go on."""
    reader = remote("sim:320x200,fps=0")
    first = captured(reader)
    pid = kill(reader, number)
    with pytest.raises(WorkerDied, match=signal.Signals(number).name) as caught:
        captured(reader)
    assert caught.value.cause == "worker-died"
    assert pid not in children()
    again = captured(reader)
    assert again.serial == 2
    assert again.raw.tobytes() == first.raw.tobytes()
    assert reader.pid != pid


def test_a_worker_that_dies_during_a_call(remote: Remote, fakegpu: None) -> None:
    """SIGBUS comes in the middle of reading: the call fails at once."""
    reader = remote("fakegpu:die=SIGBUS")
    with pytest.raises(WorkerDied, match="SIGBUS while it was asked for: look"):
        captured(reader)


def test_starts_are_put_off(remote: Remote, fakegpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the second death in a row a call fails at once and says when the next start is; then it comes."""
    monkeypatch.setattr(client, "BACK_OFF", (0.0, 3600.0))
    reader = remote("fakegpu:die=SIGKILL")
    for _ in range(2):
        with pytest.raises(WorkerDied, match="SIGKILL"):
            reader.surface(PRIMARY)
    assert reader.pid is None
    with pytest.raises(WorkerDied, match=r"2 deaths in a row; another is started in 3\d\d\d\.\d s"):
        reader.surface(PRIMARY)
    assert reader.pid is None
    reader._not_before = 0.0
    with pytest.raises(WorkerDied, match="SIGKILL"):
        reader.surface(PRIMARY)
    assert reader._deaths == 3


def test_the_delays_grow_to_a_limit_and_a_long_life_resets_them() -> None:
    """0, 0.1, 0.2, 0.5, 1, 2, 5 and 5 s; whoever lived a minute begins anew."""
    reader = RemoteReader.__new__(RemoteReader)
    reader._closed = True
    reader._deaths = 0
    delays = []
    for _ in range(9):
        reader._count_death("it died", 1.0)
        delays.append(round(reader._not_before - time.monotonic(), 1))
    assert delays == [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    reader._count_death("it died", 61.0)
    assert reader._deaths == 1


def test_a_start_that_fails_is_put_off_as_well(remote: Remote, tmp_path: Path) -> None:
    """The error is the one of opening; nothing is left of the attempt."""
    clip = tmp_path / "clip"
    mmap_ninja.numpy.from_ndarray(clip, np.zeros((2, 48, 64, 4), np.uint8))
    reader = remote(f"sim:clip={clip}")
    kill(reader)
    with pytest.raises(WorkerDied):
        reader.surface(PRIMARY)
    clip.rename(tmp_path / "away")
    with pytest.raises(Exception, match="clip"):
        reader.surface(PRIMARY)
    assert reader._deaths == 2
    reader._not_before = 0.0
    (tmp_path / "away").rename(clip)
    assert reader.surface(PRIMARY) is not None


def test_a_view_of_a_dead_worker_turns_to_zeros(remote: Remote) -> None:
    """Its memory is the old worker's; the next look is at the new one's."""
    reader = remote("sim:64x64,fps=0,via=region")
    memory = reader.pin(PRIMARY)
    view = memory.view()
    kill(reader)
    with pytest.raises(WorkerDied):
        reader.surface(PRIMARY)
    assert not view.any()
    again = reader.pin(PRIMARY)
    reader.unpin(memory)
    assert again.view().any()
    reader.unpin(again)


def test_a_query_that_hangs_is_reported_in_time() -> None:
    """TimedOut to the caller, the call stays in flight alone, and when it comes back all goes on."""
    lane = Lane("hang")
    reader = RemoteReader("sim:64x64,fault=hang:2")
    with Display(reader, lane) as display:
        pid = reader.pid
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(TimedOut):
                display.surface(timeout=0.2)
            assert time.monotonic() - began < 1.9
        assert display.surface(timeout=60) is not None
        assert reader.pid == pid


def test_a_worker_that_does_not_answer_is_killed(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the longest time that a driver is known to take and more; the next call starts another."""
    reader = remote("sim:64x64,fps=0")
    monkeypatch.setattr(link, "HANG", 0.3)
    pid = kill(reader, signal.SIGSTOP)
    with pytest.raises(TimedOut, match="was killed"):
        captured(reader)
    assert not is_running(pid)
    monkeypatch.setattr(link, "HANG", 60)
    assert captured(reader).width == 64


def test_opening_that_hangs_ends_too(fakegpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is killed and nothing is left."""
    monkeypatch.setattr(link, "HANG", 0.0)
    before = children()
    with pytest.raises(TimedOut):
        RemoteReader("sim:64x64")
    assert children() <= before


def test_close_kills_a_worker_that_does_not_end(remote: Remote) -> None:
    """A stopped process stands in for one that hangs: it does not see that its connection is closed."""
    reader = remote("sim:64x64")
    pid = kill(reader, signal.SIGSTOP)
    reader.close()
    assert not is_running(pid)
    assert abandoned() == ()


def test_a_worker_stuck_in_the_kernel_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can be made to survive SIGKILL here, so the kill is left out: close() names it and does not wait."""
    reader = RemoteReader("sim:64x64")
    pid = kill(reader, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(link, "KILL_GRACE", 0.1)
        patch.setattr(process.WorkerProcess, "kill", lambda self: None)
        with pytest.raises(TimedOut, match=f"pid {pid}.*stuck inside the kernel") as caught:
            reader.close()
    assert caught.value.cause == "worker-stuck"
    assert abandoned() == (process.AbandonedWorker(pid, "sim:64x64"),)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: abandoned() == ())
    assert pid not in children()


def test_a_call_in_flight_is_interrupted(remote: Remote) -> None:
    """interrupt() lets another thread close a display whose driver hangs."""
    reader = remote("sim:64x64,fault=hang:30")
    failures: list[BaseException] = []

    def call() -> None:
        try:
            reader.surface(PRIMARY)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.2)
    reader.interrupt()
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(failures[0], Closed)
    with pytest.raises(Closed):
        reader.surface(PRIMARY)
    reader.close()


def test_an_answer_that_nobody_waits_for_is_thrown_away(remote: Remote, fakegpu: None) -> None:
    """Ctrl-C leaves a question without an asker: the next one gets its own answer."""
    reader = remote("fakegpu:sleep=0.3")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        captured(reader)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            captured(reader)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert reader.findings() != ()
    assert captured(reader).raw.tobytes()[:256] == bytes(range(256))


def test_the_vms_end_is_told(remote: Remote, fakegpu: None) -> None:
    """Every later call is VmGone, no worker is started for it, and the source is let go at once."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as vm:
        reader = remote(f"fakegpu:pid={vm.pid}")
        frame = captured(reader)
        pid = reader.pid
        assert pid is not None
    assert eventually(lambda: not is_running(pid))
    for _ in range(2):
        with pytest.raises(VmGone, match="the fake VM has ended"):
            captured(reader)
    assert reader.lost
    assert reader.pid is None
    assert frame.raw.tobytes()[:256] == bytes(range(256))


PROGRAM = """
import sys, time
from mdevdisplay.worker.client import RemoteReader
from mdevdisplay import PlaneType
reader = RemoteReader(sys.argv[1])
print(reader.pid, flush=True)
reader.surface(PlaneType.PRIMARY)
time.sleep(60)
"""


@pytest.mark.parametrize("locator", ["sim:64x64", "sim:64x64,fault=hang:1"])
def test_a_worker_ends_with_its_program(locator: str) -> None:
    """Killed while it is idle, or while the worker is busy: as soon as the call comes back."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, locator], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert is_running(pid)
        program.kill()
    assert eventually(lambda: not is_running(pid))


def test_a_program_without_standard_descriptors() -> None:
    """A daemon has closed them; the socket must not be taken for one of them."""
    code = (
        "import os, sys\nfor fd in (0, 1, 2): os.close(fd)\n"
        "from mdevdisplay.worker.client import RemoteReader\nfrom mdevdisplay import PlaneType\n"
        "sys.stdout = sys.stderr = None\nreader = RemoteReader('sim:64x64')\n"
        "ok = reader.look(PlaneType.PRIMARY).width == 64\nreader.close()\nos._exit(7 if ok else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7


def test_workers_are_started_from_threads() -> None:
    """Each has its own; none holds another's connection, or it would not end."""
    readers: list[RemoteReader] = []
    threads = [threading.Thread(target=lambda: readers.append(RemoteReader("sim:64x64"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pids = [reader.pid for reader in readers]
    assert len(set(pids)) == 4
    for reader in readers:
        reader.close()
    assert not any(is_running(pid) for pid in pids if pid is not None)


def test_an_interpreter_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that embeds Python may have none: it is told what to do."""
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(Exception, match=r"sys\.executable") as caught:
        RemoteReader("sim:64x64")
    assert getattr(caught.value, "cause", "") == "no-worker"


def test_an_interpreter_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any error of the system, and nothing is left open."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(Exception, match="starting a worker failed: ENOENT"):
        RemoteReader("sim:64x64")


def test_closing_a_display_whose_driver_hangs() -> None:
    """The caller hears of it in time, and close() does not wait for a driver that another process waits for."""
    before = children()
    display = mdevdisplay.open("sim:64x64,fault=hang:30", isolated=True, timeout=20)
    with pytest.raises(TimedOut):
        display.surface(timeout=0.3)
    begin = time.monotonic()
    display.close()
    assert time.monotonic() - begin < 15
    assert eventually(lambda: children() <= before)


def test_async_closing_while_the_driver_hangs() -> None:
    """The event loop's display is no different."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,fault=hang:30", isolated=True, timeout=20) as display:
            with pytest.raises(TimedOut):
                await display.surface(timeout=0.3)
            begin = time.monotonic()
            await display.close()
            assert time.monotonic() - begin < 15

    before = children()
    asyncio.run(main())
    assert eventually(lambda: children() <= before)
