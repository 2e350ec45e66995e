"""Starting a worker and ending it: spawned, never forked, never waited for longer than it is worth."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import attrs

from mdevdisplay.errors import MdevDisplayError, from_oserror

__all__ = ["AbandonedWorker", "WorkerProcess", "abandoned", "start"]

_BOOT = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[2]);"
    "from mdevdisplay.worker import lean;lean.install();"
    "from mdevdisplay.worker.boot import main;main(int(sys.argv[1]))"
)
_LEAST_FD = 10
_ENVIRONMENT = {
    # one thread: a worker has no linear algebra to do, and OpenBLAS makes buffers for each
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


@attrs.frozen
class AbandonedWorker:
    """A worker that did not end although it was killed: it is stuck inside the kernel.

    Attributes:
        pid: its process.
        locator: the display that it was reading.
    """

    pid: int
    locator: str


class WorkerProcess:
    """A worker that we started, to be ended by `end`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, within some seconds; it is reaped then."""
        if self._popen.poll() is None and seconds > 0:
            _wait_for(self.pid, seconds)
        return self._popen.poll() is not None

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(OSError):  # EPERM: we have given up privileges that it still has
            self._popen.kill()

    @property
    def end(self) -> str:
        """How it ended, for people."""
        status = self._popen.returncode
        if status is None:
            return "has closed its connection"
        if status >= 0:
            return f"has ended with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:  # a real-time signal
            return f"was killed by signal {-status}"


_lock = threading.Lock()
_abandoned: list[tuple[WorkerProcess, str]] = []
_forgotten: list[WorkerProcess] = []


def forget(process: WorkerProcess) -> None:
    """Leave a worker to the other programs that read through it; it is reaped at some time after it has ended."""
    with _lock:
        _forgotten.append(process)
    _reap()


def _reap() -> None:
    with _lock:
        _forgotten[:] = [process for process in _forgotten if not process.ended(0)]


def abandon(process: WorkerProcess, locator: str) -> None:
    """Remember a process that did not even end when it was killed."""
    with _lock:
        _abandoned.append((process, locator))


def abandoned() -> tuple[AbandonedWorker, ...]:
    """Return the workers of this program that are stuck inside the kernel although they were killed."""
    with _lock:
        _abandoned[:] = [entry for entry in _abandoned if not entry[0].ended(0)]
        return tuple(AbandonedWorker(process.pid, locator) for process, locator in _abandoned)


def _wait_for(pid: int, seconds: float) -> None:
    """Wait until our own child has ended, without reaping it, or until some seconds have passed."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # somebody else of this program has reaped it, or there is no descriptor left
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(int(seconds * 1000))
    finally:
        os.close(pidfd)


def start(locator: str, inherited: Sequence[int] = ()) -> tuple[WorkerProcess, socket.socket]:
    """Start a worker; return it and the connection to it.

    It has no other descriptors than its own, standard error and ``inherited``, which keep their numbers and stay ours,
    and a session of its own: Ctrl-C in a terminal is not for it.

    Raises:
        MdevDisplayError: it cannot be started.
    """
    _reap()
    if not sys.executable:
        raise MdevDisplayError(
            "this program does not know its Python interpreter, which a worker needs",
            device=locator,
            hint="set sys.executable, or open the display without isolation",
            cause="no-worker",
        )
    theirs = -1
    ours: socket.socket | None = None
    try:
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            # 0 to 2 are made anew in the child, and in a program without them a socket may be one of them
            theirs = fcntl.fcntl(other.fileno(), fcntl.F_DUPFD_CLOEXEC, _LEAST_FD)
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-X", "no_debug_ranges", "-c", _BOOT, str(theirs), json.dumps(_search_path())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if _is_open(2) else subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            pass_fds=(theirs, *inherited),
            start_new_session=True,
        )
    except OSError as error:
        if ours is not None:
            ours.close()
        raise from_oserror(error, device=locator, doing="starting a worker", kind=MdevDisplayError) from error
    finally:
        if theirs >= 0:
            os.close(theirs)
    return WorkerProcess(popen), ours


def _search_path() -> list[str]:
    """Return where modules are found, as it will be understood elsewhere."""
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is the current directory


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
