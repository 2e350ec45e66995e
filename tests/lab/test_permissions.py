"""The tables of docs/permissions.md, tried on a real kernel: every row is set up, and its answer has to come back.

The target is a process that holds a memfd; no vfio device is needed, because the kernel's checks do not look at
what the descriptor is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from mdevdisplay.host import HostRoot
from mdevdisplay.host.holders import Holder, find_holder
from mdevdisplay.host.refusals import explain

TABLES = Path(__file__).parents[2] / "docs/permissions.md"
SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
VMM, READER = 4101, 4102  # two users that own nothing else
TOKEN = b"what the target holds"

PIDFD_GETFD = 438
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_PTRACER = 4, 8, 22, 38, 0x59616D61
CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE = 2, 12, 19
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def pidfd_getfd(pidfd: int, fd: int) -> int:
    return call("syscall", PIDFD_GETFD, pidfd, fd, 0)


def set_capabilities(*numbers: int) -> None:
    """Have these capabilities, permitted and effective, and no others."""
    bits = sum(1 << number for number in numbers)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    call("capset", struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", low, low, 0, high, high, 0))


@attrs.frozen
class Who:
    """What a process becomes: real ids, effective uid, capabilities, and what it does afterwards."""

    uid: int
    gid: int
    euid: int | None = None
    capabilities: tuple[int, ...] = ()
    dumpable: bool = True
    then: Callable[[], object] = lambda: None

    def become(self) -> None:
        call("prctl", PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        if self.euid is None:
            os.setresuid(self.uid, self.uid, self.uid)
        else:
            os.setresuid(self.uid, self.euid, self.uid)
        set_capabilities(*self.capabilities)
        if self.dumpable:
            # Changing the uid took it away; an execve(2) would have given it back.
            call("prctl", PR_SET_DUMPABLE, 1)
        self.then()


def refuse_pidfd_getfd(number: int) -> None:
    """Install a seccomp filter that answers pidfd_getfd with an errno and lets everything else pass."""
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, PIDFD_GETFD), (0x06, 0, 0, 0x50000 | number), (0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("=H6xQ", len(code), ctypes.addressof(program)))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_SECCOMP, 2, header, 0, 0)


TARGETS = {
    "plain": Who(VMM, VMM),
    "`PR_SET_DUMPABLE` 0": Who(VMM, VMM, then=lambda: call("prctl", PR_SET_DUMPABLE, 0)),
    "changed its uid after execve": Who(VMM, VMM, dumpable=False),
    "holds `CAP_NET_ADMIN`": Who(VMM, VMM, capabilities=(CAP_NET_ADMIN,)),
    "called `PR_SET_PTRACER`": Who(VMM, VMM, then=lambda: call("prctl", PR_SET_PTRACER, ctypes.c_ulong(-1))),
    "in a user namespace of its own": Who(VMM, VMM, then=lambda: call("unshare", CLONE_NEWUSER)),
    "root": Who(0, 0, capabilities=tuple(range(40))),
}
READERS = {
    "same uid and gid": Who(VMM, VMM),
    "same uid, other gid": Who(VMM, READER),
    "same effective uid only": Who(READER, VMM, euid=VMM),
    "same real uid only": Who(VMM, VMM, euid=READER),
    "same uid and gid, `CAP_NET_ADMIN`": Who(VMM, VMM, capabilities=(CAP_NET_ADMIN,)),
    "same uid and gid, in a user namespace of its own": Who(VMM, VMM, then=lambda: call("unshare", CLONE_NEWUSER)),
    "other uid": Who(READER, READER),
    "other uid, `CAP_SYS_PTRACE`": Who(READER, READER, capabilities=(CAP_SYS_PTRACE,)),
    "other uid, `CAP_DAC_READ_SEARCH`": Who(READER, READER, capabilities=(CAP_DAC_READ_SEARCH,)),
    "other uid, both": Who(READER, READER, capabilities=(CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH)),
    "same uid and gid, `CAP_SYS_PTRACE`": Who(VMM, VMM, capabilities=(CAP_SYS_PTRACE,)),
    "uid 0 without capabilities": Who(0, 0),
    "all capabilities, in a user namespace of its own": Who(
        READER, READER, then=lambda: call("unshare", CLONE_NEWUSER)
    ),
    "`CAP_SYS_PTRACE`, seccomp says EPERM": Who(
        READER, READER, capabilities=(CAP_SYS_PTRACE,), then=lambda: refuse_pidfd_getfd(errno.EPERM)
    ),
    "`CAP_SYS_PTRACE`, seccomp says ENOSYS": Who(
        READER, READER, capabilities=(CAP_SYS_PTRACE,), then=lambda: refuse_pidfd_getfd(errno.ENOSYS)
    ),
}


@contextlib.contextmanager
def running(body: Callable[[], str]) -> Iterator[tuple[int, str]]:
    """Fork a process that runs `body`, writes what it returns, and stays: (its pid, what it wrote)."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Nothing of pytest may go on in here.
        try:
            os.close(receive)
            try:
                answer = body()
            except OSError as error:
                answer = errno.errorcode[error.errno or 0]
            except BaseException as error:
                answer = repr(error)
            os.write(send, answer.encode())
            os.close(send)
            signal.pause()
        finally:
            os._exit(1)
    os.close(send)
    try:
        with os.fdopen(receive, "rb") as stream:
            yield pid, stream.read().decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def held() -> Iterator[int]:
    """A file without a name with the token in it: each reader that gets at it finds the token."""
    fd = os.memfd_create("held")
    os.write(fd, TOKEN)
    yield fd
    os.close(fd)


def target_of(who: Who) -> Callable[[], str]:
    def body() -> str:
        who.become()
        return "ready"

    return body


def take(pid: int, fd: int) -> str:
    """Duplicate a descriptor of another process and read from it: "works", or the errno of pidfd_getfd."""
    pidfd = os.pidfd_open(pid)
    copy = pidfd_getfd(pidfd, fd)
    return "works" if os.pread(copy, len(TOKEN), 0) == TOKEN else "a wrong descriptor"


def answer_to(who: Who, pid: int, fd: int) -> str:
    """What a process that is neither the target's parent nor its child is told."""

    def body() -> str:
        who.become()
        return take(pid, fd)

    with running(body) as (_, answer):
        return answer


def answer_and_cause(who: Who, pid: int, fd: int) -> tuple[str, str]:
    """The same, and which layer of the kernel mdevdisplay says it was; asked where nothing is refused, too."""

    def body() -> str:
        who.become()
        try:
            answer = take(pid, fd)
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        return f"{answer} {explain(Holder(pid=pid), HostRoot()).cause}"

    with running(body) as (_, answers):
        answer, cause = answers.split()
        return answer, cause


def cause_of(answer: str, cause: str, scope: int) -> str:
    """What the document's row says that explain() is to say."""
    if answer == "works":
        return "attach-not-permitted"  # no layer is accused
    return f"trace-yama-{scope}" if cause == "Yama's" else cause.strip("`")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading of docs/permissions.md, the heads first."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TABLES.read_text(), re.MULTILINE | re.DOTALL
    )
    lines = section[section.index("\n|") + 1 :].split("\n\n", maxsplit=1)[0].splitlines()
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows
    assert all(len(row) == len(heads) for row in rows)
    return [heads, *rows]


def attach_rows() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(target, reader, its answers and their causes at ptrace_scope 0 to 3)."""
    heads, *rows = table("Who is refused")
    assert heads == ["target", "reader", "Yama 0", "1", "2", "3", "cause"]
    found = []
    for target, reader, *answers, cause in rows:
        expected = [(answer, cause_of(answer, cause, scope)) for scope, answer in enumerate(answers)]
        if "PTRACER" in target and answers[1] == "works":
            expected[1] = ("works", "trace-yama-1")  # the exception does not show, so Yama would be the one
        found.append((target, reader, expected))
    return found


@pytest.fixture
def scope() -> Iterator[Callable[[int], None]]:
    """A function that sets Yama's ptrace_scope, back to what it was afterwards."""
    before = int(SCOPE.read_text())

    def write(value: int) -> None:
        SCOPE.write_text(str(value))

    yield write
    if int(SCOPE.read_text()) != 3:
        write(before)


@pytest.mark.parametrize(("target", "reader", "answers"), attach_rows())
def test_who_may_attach(
    target: str, reader: str, answers: list[tuple[str, str]], held: int, scope: Callable[[int], None]
) -> None:
    """pidfd_getfd answers what the document's table says, at each ptrace_scope that can be taken back.

    And mdevdisplay names the layer that the table names.
    """
    with running(target_of(TARGETS[target])) as (pid, state):
        assert state == "ready"
        seen = []
        for value in range(3):
            scope(value)
            seen.append(answer_and_cause(READERS[reader], pid, held))
    assert seen == answers[:3]


def test_a_parent_may_attach_under_yama_1(held: int, scope: Callable[[int], None]) -> None:
    """A launcher that started the VMM itself needs no capability at ptrace_scope 1, and is refused at 2."""
    reader = READERS["same uid and gid"]

    def body() -> str:
        reader.become()
        with running(lambda: "ready") as (pid, _):
            with contextlib.suppress(PermissionError):
                return f"{take(pid, held)} {explain(Holder(pid=pid), HostRoot()).cause}"
            return f"EPERM {explain(Holder(pid=pid), HostRoot()).cause}"

    for value, expected in ((1, "works attach-not-permitted"), (2, "EPERM trace-yama-2")):
        scope(value)
        with running(body) as (_, answer):
            assert answer == expected


def let_everybody_in(folder: Path) -> None:
    """The folders that pytest makes are root's alone."""
    for place in [folder, *folder.parents[:2]]:
        place.chmod(0o755)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("ordinary", ("works", "attach-not-permitted")),
        ("unreadable", ("EPERM", "trace-not-dumpable")),
        ("capable", ("EPERM", "trace-not-dumpable")),
    ],
)
def test_what_a_binary_does_to_its_process(kind: str, answer: tuple[str, str], held: int, tmp_path: Path) -> None:
    """An unreadable VMM binary, or one with a file capability, refuses the same uid and yields to CAP_SYS_PTRACE."""
    let_everybody_in(tmp_path)
    binary = tmp_path / "sleep"
    shutil.copy("/bin/sleep", binary)
    binary.chmod(0o711 if kind == "unreadable" else 0o755)
    if kind == "capable":
        # struct vfs_cap_data, revision 2, effective.
        os.setxattr(binary, "security.capability", struct.pack("<5I", 0x02000001, 1 << CAP_NET_ADMIN, 0, 0, 0))
    with subprocess.Popen([binary, "1000"], user=VMM, group=VMM, extra_groups=[], pass_fds=[held]) as process:
        try:
            assert answer_and_cause(READERS["same uid and gid"], process.pid, held) == answer
            assert answer_to(READERS["other uid, `CAP_SYS_PTRACE`"], process.pid, held) == "works"
        finally:
            process.kill()


def refusal_of(pidfd: int, fd: int) -> str:
    """The errno of a pidfd_getfd that must fail."""
    with pytest.raises(OSError, match="syscall") as caught:
        pidfd_getfd(pidfd, fd)
    return errno.errorcode[caught.value.errno or 0]


def test_what_else_the_two_calls_say(held: int) -> None:
    """Each errno of the document's list, provoked."""
    with running(target_of(TARGETS["plain"])) as (pid, _):
        pidfd = os.pidfd_open(pid)
        assert refusal_of(pidfd, 4000) == "EBADF"
        # What tells a filter from a check: without a filter the kernel looks at the pidfd first.
        assert refusal_of(-1, 0) == "EBADF"
    assert refusal_of(pidfd, held) == "ESRCH"
    os.close(pidfd)
    with pytest.raises(ProcessLookupError):
        os.pidfd_open(pid)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_filter_gives_itself_away(number: int) -> None:
    """Under a filter even pidfd_getfd(-1, 0, 0) has the filter's answer, not EBADF."""

    def body() -> str:
        refuse_pidfd_getfd(number)
        pidfd_getfd(-1, 0)
        return "works"

    with running(body) as (_, answer):
        assert answer == errno.errorcode[number]


def test_a_pid_namespace_hides_the_host(held: int) -> None:
    """A process in a pid namespace of its own cannot name the VMM: ESRCH."""
    with running(target_of(TARGETS["plain"])) as (pid, _):

        def body() -> str:
            call("unshare", CLONE_NEWPID)
            with running(lambda: take(pid, held)) as (_, answer):
                return answer

        with running(body) as (_, answer):
            assert answer == "ESRCH"


READS: dict[str, Callable[[Path, int, int], bool]] = {
    "`/proc` lists the pid": lambda proc, pid, fd: proc / f"{pid}" in proc.iterdir(),
    "`status`": lambda proc, pid, fd: b"Uid:" in (proc / f"{pid}/status").read_bytes(),
    "`cmdline`": lambda proc, pid, fd: b"pytest" in (proc / f"{pid}/cmdline").read_bytes(),
    "`exe`, link text": lambda proc, pid, fd: (proc / f"{pid}/exe").readlink().is_absolute(),
    "`fd`, listed": lambda proc, pid, fd: proc / f"{pid}/fd/{fd}" in (proc / f"{pid}/fd").iterdir(),
    "`fd/N`, link text": lambda proc, pid, fd: "held" in str((proc / f"{pid}/fd/{fd}").readlink()),
    "`fd/N`, stat": lambda proc, pid, fd: (proc / f"{pid}/fd/{fd}").stat().st_size == len(TOKEN),
    "`fdinfo`, listed": lambda proc, pid, fd: proc / f"{pid}/fdinfo/{fd}" in (proc / f"{pid}/fdinfo").iterdir(),
    "`fdinfo/N`, read": lambda proc, pid, fd: b"flags:" in (proc / f"{pid}/fdinfo/{fd}").read_bytes(),
}


def read_of(proc: Path, what: str, pid: int, fd: int) -> str:
    """Read one thing below /proc: "yes", "no" where it is not there to be seen, or the errno."""
    try:
        return "yes" if READS[what](proc, pid, fd) else "no"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def proc_column(reader: str) -> list[tuple[str, str, str]]:
    """(what is read, hidepid, answer) of one reader."""
    heads, *rows = table("What reading /proc needs")
    assert heads[:2] == ["what", "hidepid"]
    return [(row[0], value, row[heads.index(reader)]) for row in rows for value in row[1].split(", ")]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A /proc for each hidepid."""
    places = {}
    for value in "0124":
        places[value] = tmp_path_factory.mktemp("proc")
        subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={value}", "proc", places[value]], check=True)
        let_everybody_in(places[value])
    yield places
    for place in places.values():
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("reader", table("What reading /proc needs")[0][2:])
def test_what_proc_shows(reader: str, held: int, mounted: dict[str, Path], scope: Callable[[int], None]) -> None:
    """Reading /proc answers what the document's table says, under every hidepid that a row names. Yama has no say."""
    column = proc_column(reader)
    scope(2)
    with running(target_of(TARGETS["plain"])) as (pid, _):

        def body() -> str:
            READERS[reader].become()
            return " ".join(read_of(mounted[hidepid], what, pid, held) for what, hidepid, _ in column)

        with running(body) as (_, answers):
            seen = [(what, hidepid, answer) for (what, hidepid, _), answer in zip(column, answers.split(), strict=True)]
    assert seen == column


@pytest.mark.parametrize(
    ("reader", "answers"),
    [
        ("same uid and gid", "EACCES EACCES yes"),
        ("same uid and gid, `CAP_SYS_PTRACE`", "EACCES yes yes"),
        ("other uid, both", "yes yes yes"),
    ],
)
def test_an_undumpable_target_hides_its_descriptors(reader: str, answers: str, held: int) -> None:
    """Its own user cannot read them any more: /proc/PID/fd belongs to root then, which is how to tell."""
    with running(target_of(TARGETS["`PR_SET_DUMPABLE` 0"])) as (pid, _):
        assert Path(f"/proc/{pid}/fd").stat().st_uid == 0
        assert f"Uid:\t{VMM}\t" in Path(f"/proc/{pid}/status").read_text()

        def body() -> str:
            READERS[reader].become()
            whats = ("`fd`, listed", "`fdinfo`, listed", "`cmdline`")
            return " ".join(read_of(Path("/proc"), what, pid, held) for what in whats)

        with running(body) as (_, seen):
            assert seen == answers
    with running(target_of(TARGETS["plain"])) as (pid, _):
        assert Path(f"/proc/{pid}/fd").stat().st_uid == VMM


@pytest.mark.parametrize(
    ("target", "reader", "cause"),
    [
        ("plain", "same uid and gid", ""),
        ("plain", "same effective uid only", ""),
        ("plain", "other uid, both", ""),
        ("plain", "other uid", "trace-other-user"),
        ("plain", "same real uid only", "trace-other-user"),
        ("plain", "other uid, `CAP_DAC_READ_SEARCH`", "trace-other-user"),
        ("plain", "other uid, `CAP_SYS_PTRACE`", "trace-no-dac-read-search"),
        ("plain", "uid 0 without capabilities", "trace-no-ptrace-capability"),
        ("root", "uid 0 without capabilities", "trace-no-ptrace-capability"),
        ("plain", "same uid and gid, in a user namespace of its own", "trace-user-namespace"),
        ("holds `CAP_NET_ADMIN`", "same uid and gid", "trace-capabilities"),
        ("`PR_SET_DUMPABLE` 0", "same uid and gid", "trace-not-dumpable"),
        ("`PR_SET_DUMPABLE` 0", "same uid and gid, `CAP_SYS_PTRACE`", "trace-no-dac-read-search"),
        ("in a user namespace of its own", "same uid and gid", ""),
        ("in a user namespace of its own", "other uid", "trace-other-user"),
    ],
)
def test_why_descriptors_may_not_be_listed(target: str, reader: str, cause: str, scope: Callable[[int], None]) -> None:
    """What mdevdisplay finds of a process, and the layer it names where it may not look, which is never Yama."""
    scope(2)
    with running(target_of(TARGETS[target])) as (pid, _):

        def body() -> str:
            READERS[reader].become()
            holder = find_holder(HostRoot(), pid)
            if holder is None:
                return "hidden"
            return "" if holder.readable else explain(holder, HostRoot()).cause

        with running(body) as (_, answer):
            assert answer == cause


def test_what_is_held_outlives_the_right_to_get_it(held: int) -> None:
    """After attaching, the reader gives its capabilities up, keeps reading, and can attach to nothing more."""
    with running(target_of(TARGETS["plain"])) as (pid, _):

        def body() -> str:
            READERS["other uid, `CAP_SYS_PTRACE`"].become()
            pidfd = os.pidfd_open(pid)
            copy = pidfd_getfd(pidfd, held)
            set_capabilities()
            call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            assert os.pread(copy, len(TOKEN), 0) == TOKEN
            pidfd_getfd(pidfd, held)
            return "still may"

        with running(body) as (_, answer):
            assert answer == "EPERM"


def test_yama_3_refuses_everybody_until_reboot(
    held: int, scope: Callable[[int], None], request: pytest.FixtureRequest
) -> None:
    """At ptrace_scope 3 the whole last column of the table holds, and the setting cannot be taken back."""
    assert request.session.items[-1] is request.node, "this test spoils the kernel for others: it has to run last"
    scope(3)
    with pytest.raises(OSError, match="Invalid argument"):
        SCOPE.write_text("0")
    rows = attach_rows()
    for target in {target for target, _, _ in rows}:
        expected = {reader: answers[3] for name, reader, answers in rows if name == target}
        with running(target_of(TARGETS[target])) as (pid, _):
            assert {reader: answer_and_cause(READERS[reader], pid, held) for reader in expected} == expected
