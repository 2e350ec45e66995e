"""Which layer refuses a trace: a fake /proc of two processes, set up as each row of docs/permissions.md says."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.diagnose import CAUSES
from mdevdisplay.host import HostRoot
from mdevdisplay.host import trace_layers as layers
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.refusals import Refusal, explain

TABLES = Path(__file__).parents[2] / "docs/permissions.md"
VMM, READER, PID, OWN = 4101, 4102, 4242, 5151
DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE, ALL = 1 << 2, 1 << 12, 1 << 19, (1 << 41) - 1
HOST, OTHER, THIRD = "user:[4026531837]", "user:[4026532501]", "user:[4026532777]"
WHOLE_MAP = "         0          0 4294967295"


@attrs.frozen(kw_only=True)
class Who:
    """A process: uids and gids real, effective, saved and of the file system; what else /proc shows of it."""

    uids: tuple[int, int, int, int] = (VMM,) * 4
    gids: tuple[int, int, int, int] = (VMM,) * 4
    capabilities: int = 0
    dumpable: bool = True
    namespace: str = HOST
    uid_map: str = WHOLE_MAP
    parent: int = 1
    seccomp: int = 0
    answers: int = errno.EBADF  # what pidfd_getfd(-1, 0) says


TARGETS = {
    "plain": Who(),
    "called `PR_SET_PTRACER`": Who(),  # which /proc does not show
    "`PR_SET_DUMPABLE` 0": Who(dumpable=False),
    "changed its uid after execve": Who(dumpable=False),
    "holds `CAP_NET_ADMIN`": Who(capabilities=NET_ADMIN),
    "in a user namespace of its own": Who(capabilities=ALL, namespace=OTHER, uid_map=""),
    "root": Who(uids=(0,) * 4, gids=(0,) * 4, capabilities=ALL),
}
_OTHER_USER = Who(uids=(READER,) * 4, gids=(READER,) * 4)
READERS = {
    "same uid and gid": Who(),
    "same uid, other gid": Who(gids=(READER,) * 4),
    "same effective uid only": Who(uids=(READER, VMM, READER, VMM)),
    "same real uid only": Who(uids=(VMM, READER, VMM, READER)),
    "same uid and gid, `CAP_NET_ADMIN`": Who(capabilities=NET_ADMIN),
    "same uid and gid, `CAP_SYS_PTRACE`": Who(capabilities=SYS_PTRACE),
    "same uid and gid, in a user namespace of its own": Who(
        uids=(65534,) * 4, gids=(65534,) * 4, capabilities=ALL, namespace=OTHER, uid_map=""
    ),
    "all capabilities, in a user namespace of its own": Who(
        uids=(65534,) * 4, gids=(65534,) * 4, capabilities=ALL, namespace=OTHER, uid_map=""
    ),
    "other uid": _OTHER_USER,
    "other uid, `CAP_DAC_READ_SEARCH`": attrs.evolve(_OTHER_USER, capabilities=DAC_READ_SEARCH),
    "other uid, `CAP_SYS_PTRACE`": attrs.evolve(_OTHER_USER, capabilities=SYS_PTRACE),
    "other uid, both": attrs.evolve(_OTHER_USER, capabilities=SYS_PTRACE | DAC_READ_SEARCH),
    "uid 0 without capabilities": Who(uids=(0,) * 4, gids=(0,) * 4),
    "`CAP_SYS_PTRACE`, seccomp says EPERM": attrs.evolve(
        _OTHER_USER, capabilities=SYS_PTRACE, seccomp=2, answers=errno.EPERM
    ),
    "`CAP_SYS_PTRACE`, seccomp says ENOSYS": attrs.evolve(
        _OTHER_USER, capabilities=SYS_PTRACE, seccomp=2, answers=errno.ENOSYS
    ),
}


def may_look(reader: Who, target: Who) -> bool:
    """What the kernel answers to PTRACE_MODE_READ_FSCREDS without security modules; written from its source."""
    inside = reader.namespace in (target.namespace, HOST)
    owner = reader.namespace == HOST != target.namespace and reader.uids[1] == VMM
    capable = inside and (bool(reader.capabilities & SYS_PTRACE) or owner)
    same = {*target.uids[:3]} == {reader.uids[3]} and {*target.gids[:3]} == {reader.gids[3]}
    fewer = reader.namespace == target.namespace and not target.capabilities & ~reader.capabilities
    return inside and (same or capable) and (target.dumpable or capable) and (fewer or capable)


class Host:
    """A fake root with one target, number 4242, and this process as a reader, number 5151."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = HostRoot(path)
        self.proc = path / "proc"
        self.closed: set[Path] = set()
        self._owners: dict[Path, tuple[int, int]] = {}
        self._stat, self._readlink = os.stat, os.readlink
        self._answer = errno.EBADF
        patch.setattr(os, "stat", self._fake_stat)
        patch.setattr(os, "readlink", self._fake_readlink)
        patch.setattr(layers, "duplicate_from", self._refuse)
        self.target(Who())
        self.reader(Who())

    def target(self, who: Who) -> None:
        self._write(PID, who)

    def reader(self, who: Who) -> None:
        self._answer = who.answers
        self._write(OWN, who)
        link = self.proc / "self"
        link.unlink(missing_ok=True)
        link.symlink_to(str(OWN))

    def pair(self, target: str, reader: str) -> None:
        """Set up a row of the document."""
        self.target(TARGETS[target])
        self.reader(READERS[reader])
        link = self.proc / f"{PID}/ns/user"
        if not may_look(READERS[reader], TARGETS[target]):
            self.closed.add(link)

    def write(self, path: str, text: str | bytes) -> None:
        """Write a file below the root."""
        file = self.root.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    def yama(self, scope: int) -> None:
        self.write("proc/sys/kernel/yama/ptrace_scope", f"{scope}\n")

    def explain(self, *, readable: bool = True, number: int = errno.EPERM, **changes: Any) -> Refusal:
        holder = Holder(**{"pid": PID, "uid": VMM, "start_time": PID, "readable": readable, **changes})
        return explain(holder, self.root, number=number, own=self.proc)

    def _write(self, pid: int, who: Who) -> None:
        folder = self.proc / str(pid)
        shutil.rmtree(folder, ignore_errors=True)
        ids = ("\t".join(map(str, four)) for four in (who.uids, who.gids))
        names = ("Uid", "Gid")
        lines = [f"Name:\tqemu\nTgid:\t{pid}\nPPid:\t{who.parent}\n"]
        lines += [f"{name}:\t{four}\n" for name, four in zip(names, ids, strict=True)]
        lines += [f"CapPrm:\t{who.capabilities:016x}\nCapEff:\t{who.capabilities:016x}\nSeccomp:\t{who.seccomp}\n"]
        self.write(f"proc/{pid}/status", "".join(lines))
        self.write(f"proc/{pid}/stat", f"{pid} (qemu) S {' '.join(['7'] * 18)} {pid} 0\n")
        self.write(f"proc/{pid}/uid_map", who.uid_map)
        (folder / "fd").mkdir()
        self._owners[folder / "fd"] = (who.uids[1], who.gids[1]) if who.dumpable else (0, 0)
        (folder / "ns").mkdir()
        (folder / "ns/user").symlink_to(who.namespace)

    def _fake_stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
        found = self._stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if not isinstance(path, Path) or path not in self._owners:
            return found
        owner = self._owners[path]
        return os.stat_result((*found[:4], *owner, *found[6:]))

    def _fake_readlink(self, path: Any, *, dir_fd: int | None = None) -> str:
        if path in self.closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return str(self._readlink(path, dir_fd=dir_fd))

    def _refuse(self, pidfd: int, fd: int) -> int:
        assert pidfd == -1, "only nothing may be asked for"
        raise OSError(self._answer, os.strerror(self._answer))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host where the target's own user asks, and nothing refuses it."""
    return Host(tmp_path, monkeypatch)


# --- the document's table ---


def rows() -> list[tuple[str, str, list[str], str]]:
    """(target, reader, answers at ptrace_scope 0 to 3, cause) of every row of "Who is refused"."""
    (section,) = re.findall(r"^## Who is refused\n(.*?)(?=^## )", TABLES.read_text(), re.MULTILINE | re.DOTALL)
    lines = section[section.index("\n|") + 1 :].split("\n\n", maxsplit=1)[0].splitlines()
    heads, _, *found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert heads == ["target", "reader", "Yama 0", "1", "2", "3", "cause"]
    return [(row[0], row[1], row[2:6], row[6]) for row in found]


def expected(answer: str, cause: str, scope: int) -> str:
    if answer == "works":
        return "attach-not-permitted"  # nothing refuses it, so nothing is accused
    return f"trace-yama-{scope}" if cause == "Yama's" else cause.strip("`")


@pytest.mark.parametrize(("target", "reader", "answers", "cause"), rows())
def test_every_row_of_the_document(host: Host, target: str, reader: str, answers: list[str], cause: str) -> None:
    """The first layer that refuses is named at each ptrace_scope, and where none refuses none is accused."""
    host.pair(target, reader)
    seen = []
    for scope in range(4):
        host.yama(scope)
        number = errno.ENOSYS if answers[scope] == "ENOSYS" else errno.EPERM
        seen.append(host.explain(number=number).cause)
    wanted = [expected(answer, cause, scope) for scope, answer in enumerate(answers)]
    if "PTRACER" in target and answers[1] == "works":
        wanted[1] = "trace-yama-1"  # the exception cannot be seen, and explain() is asked where a trace was refused
    assert seen == wanted


def test_the_table_has_each_target_and_reader() -> None:
    """No row is left out by a name that the test does not have."""
    assert {target for target, _, _, _ in rows()} == set(TARGETS)
    assert {reader for _, reader, _, _ in rows()} == set(READERS) - {"other uid, both"}


def test_every_cause_of_the_document_is_one_of_the_doctors() -> None:
    """And the other way round: each cause of a refused trace is in "Which one was it"."""
    (section,) = re.findall(r"^## Which one was it\n\n(.*?)\n\n", TABLES.read_text(), re.MULTILINE | re.DOTALL)
    named = {re.sub(r"^-", "trace-yama-", name) for name in re.findall(r"`([a-z-]+(?:-\d)?|-\d)`", _second(section))}
    known = {cause.id for cause in CAUSES}
    assert named <= known
    assert named == {name for name in known if name.startswith("trace-")} | {
        "attach-not-permitted",
        "other-pid-namespace",
    }


def _second(section: str) -> str:
    return " ".join(line.split(" | ")[1] for line in section.splitlines()[2:])


# --- what is said ---


class TestWords:
    """Evidence with its numbers and files; a remedy that helps."""

    def test_another_user(self, host: Host) -> None:
        """Both uids, the file that says so, and its own user as the smaller way."""
        host.pair("plain", "other uid")
        refusal = host.explain()
        assert f"{host.proc}/4242/status: Uid 4101, yours 4102, Gid 4101, yours 4102" in refusal.evidence
        assert "CAP_SYS_PTRACE is not in your effective set" in refusal.evidence
        assert "sudo -u '#4101' -g '#4101'" in refusal.remedy
        assert refusal.certain

    @pytest.mark.parametrize("target", ["`PR_SET_DUMPABLE` 0", "holds `CAP_NET_ADMIN`", "root"])
    def test_becoming_its_user_is_advised_only_where_that_is_enough(self, host: Host, target: str) -> None:
        """Not where a later layer would refuse that user."""
        host.pair(target, "other uid")
        assert "sudo -u" not in host.explain().remedy
        host.pair("plain", "other uid")
        host.yama(1)
        assert "sudo -u" not in host.explain().remedy

    @pytest.mark.parametrize("reader", ["other uid", "same uid and gid", "uid 0 without capabilities"])
    def test_no_right_is_advised_at_yama_3(self, host: Host, reader: str) -> None:
        """The cause is the first layer; the way out is the one that leads past all of them."""
        host.pair("plain", reader)
        host.yama(3)
        remedy = host.explain().remedy
        assert "unix:PATH" in remedy
        assert "sudo" not in remedy
        assert "docker" not in remedy

    def test_ids_that_differ_among_themselves(self, host: Host) -> None:
        """All three are shown."""
        host.target(Who(uids=(VMM, 7, 9, 9)))
        assert "Uid 4101 7 9, yours 4101" in host.explain().evidence

    def test_not_dumpable(self, host: Host) -> None:
        """By the owner of its files; and by their group where its effective uid is root's."""
        host.pair("`PR_SET_DUMPABLE` 0", "same uid and gid")
        assert f"{host.proc}/4242/fd belongs to 0:0 and the process is 4101:4101" in host.explain().evidence
        host.target(Who(uids=(0,) * 4, gids=(36,) * 4, dumpable=False))
        host.reader(Who(uids=(0,) * 4, gids=(36,) * 4))
        refusal = host.explain()
        assert refusal.cause == "trace-no-ptrace-capability"
        assert "belongs to 0:0 and the process is 0:36" in refusal.evidence

    def test_capabilities(self, host: Host) -> None:
        """Both sets: attaching compares with the permitted one, reading /proc with the effective one."""
        host.pair("holds `CAP_NET_ADMIN`", "same uid and gid")
        assert "CapPrm 1000, your CapPrm 0;" in host.explain().evidence
        assert "CapPrm 1000, your CapEff 0;" in host.explain(readable=False).evidence
        status = host.proc / f"{OWN}/status"
        status.write_text(status.read_text().replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000001000"))
        assert host.explain().cause == "attach-not-permitted"
        assert host.explain(readable=False).cause == "trace-capabilities"

    def test_seccomp(self, host: Host) -> None:
        """The errno of the call that asks for nothing; without a filter ENOSYS is an old kernel's."""
        host.reader(Who(seccomp=2, answers=errno.ENOSYS))
        refusal = host.explain(number=errno.ENOSYS)
        assert refusal.cause == "trace-seccomp"
        assert "ENOSYS instead of EBADF" in refusal.evidence
        assert "Seccomp 2" in refusal.evidence
        host.reader(Who(seccomp=0, answers=errno.ENOSYS))
        refusal = host.explain(number=errno.ENOSYS)
        assert refusal.cause == "attach-not-permitted"
        assert "no such call" in refusal.evidence
        assert "Linux 5.6" in refusal.remedy


class TestListing:
    """Where reading its descriptors in /proc was refused, not attaching."""

    @pytest.mark.parametrize(
        ("target", "reader", "cause"),
        [
            ("plain", "other uid", "trace-other-user"),
            ("plain", "other uid, `CAP_DAC_READ_SEARCH`", "trace-other-user"),
            ("plain", "other uid, `CAP_SYS_PTRACE`", "trace-no-dac-read-search"),
            ("plain", "same real uid only", "trace-other-user"),
            ("plain", "uid 0 without capabilities", "trace-no-ptrace-capability"),
            ("root", "uid 0 without capabilities", "trace-no-ptrace-capability"),
            ("`PR_SET_DUMPABLE` 0", "same uid and gid", "trace-not-dumpable"),
            ("`PR_SET_DUMPABLE` 0", "same uid and gid, `CAP_SYS_PTRACE`", "trace-no-dac-read-search"),
            ("holds `CAP_NET_ADMIN`", "same uid and gid", "trace-capabilities"),
            ("plain", "same uid and gid, in a user namespace of its own", "trace-user-namespace"),
            ("plain", "other uid, both", "attach-not-permitted"),
            ("plain", "same effective uid only", "attach-not-permitted"),
        ],
    )
    def test_what_is_missing(self, host: Host, target: str, reader: str, cause: str) -> None:
        """The ids of the file system count, then the directory's mode."""
        host.pair(target, reader)
        for scope in (0, 1):
            host.yama(scope)
            if cause != "attach-not-permitted":
                assert host.explain(readable=False).cause == cause
        host.yama(0)
        assert host.explain(readable=False).cause == cause

    def test_the_directory(self, host: Host) -> None:
        """Whose it is, and that CAP_DAC_OVERRIDE opens it too."""
        host.pair("plain", "other uid, `CAP_SYS_PTRACE`")
        assert "fd belongs to uid 4101 and has mode 0500, you are uid 4102" in host.explain(readable=False).evidence
        host.reader(attrs.evolve(_OTHER_USER, capabilities=SYS_PTRACE | 1 << 1))
        assert host.explain(readable=False).cause == "attach-not-permitted"

    def test_yama_and_a_filter_come_last(self, host: Host) -> None:
        """They have no say in reading /proc, and are named where nothing else is to be seen."""
        host.pair("plain", "other uid, `CAP_SYS_PTRACE`")
        host.yama(3)
        assert host.explain(readable=False).cause == "trace-no-dac-read-search"
        host.pair("plain", "other uid, both")
        assert host.explain(readable=False).cause == "trace-yama-3"
        host.yama(0)
        host.reader(attrs.evolve(READERS["other uid, both"], seccomp=2, answers=errno.EPERM))
        assert host.explain(readable=False).cause == "trace-seccomp"


class TestYama:
    """Attaching alone, and only where Yama is on."""

    def test_not_in_the_list_of_modules(self, host: Host) -> None:
        """A sysctl that is there without the module decides nothing."""
        host.yama(1)
        host.write("sys/kernel/security/lsm", "lockdown,capability,apparmor")
        assert host.explain().cause == "attach-not-permitted"
        host.write("sys/kernel/security/lsm", "lockdown,capability,yama,apparmor")
        assert host.explain().cause == "trace-yama-1"

    @pytest.mark.parametrize("scope", [1, 2])
    def test_an_ancestor(self, host: Host, scope: int) -> None:
        """It may at 1, however many processes are between, and not at 2."""
        host.yama(scope)
        for number in range(60, 64):
            host.write(f"proc/{number}/status", f"PPid:\t{number - 1 if number > 60 else OWN}\n")
        host.target(Who(parent=63))
        assert host.explain().cause == ("attach-not-permitted" if scope == 1 else "trace-yama-2")

    def test_parents_in_a_circle(self, host: Host) -> None:
        """An answer all the same."""
        host.yama(1)
        host.write("proc/60/status", "PPid:\t61\n")
        host.write("proc/61/status", "PPid:\t60\n")
        host.target(Who(parent=60))
        assert host.explain().cause == "trace-yama-1"

    def test_a_parent_outside_of_the_pid_namespace(self, host: Host) -> None:
        """Its number is 0, which is nobody, even where our own is not known."""
        host.yama(1)
        host.target(Who(parent=0))
        (host.proc / f"{OWN}/status").unlink()
        assert host.explain().cause == "trace-yama-1"

    def test_certain_unless_a_profile_may_be_it(self, host: Host) -> None:
        """PR_SET_PTRACER does not show: where AppArmor confines us too, it may be either."""
        host.yama(1)
        assert host.explain().certain
        confine(host, "docker-default (enforce)")
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("trace-yama-1", False)


def confine(host: Host, label: str, modules: str = "capability,yama,apparmor") -> None:
    host.write("sys/kernel/security/lsm", modules)
    host.write(f"proc/{OWN}/attr/current", f"{label}\n")


CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


class TestModules:
    """AppArmor and SELinux: they may be it, and never are for certain."""

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
    @pytest.mark.parametrize("readable", [True, False])
    def test_apparmor(self, host: Host, number: int, readable: bool) -> None:
        """The reader's profile, and the target's."""
        confine(host, "docker-default (enforce)")
        host.write(f"proc/{PID}/attr/current", "libvirt-4dea22b3 (enforce)\n")
        refusal = host.explain(number=number, readable=readable)
        assert (refusal.cause, refusal.certain) == ("trace-apparmor", False)
        assert "'docker-default (enforce)', the process's 'libvirt-4dea22b3 (enforce)'" in refusal.evidence

    @pytest.mark.parametrize("label", ["unconfined", "chrome (unconfined)", "mine (complain)", ""])
    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
    def test_apparmor_that_does_not_confine(self, host: Host, label: str, number: int) -> None:
        """An unconfined reader is never refused, whatever the target's profile is."""
        confine(host, label)
        host.write(f"proc/{PID}/attr/current", "libvirt-4dea22b3 (enforce)\n")
        assert host.explain(number=number).cause == "attach-not-permitted"

    def test_apparmor_beside_selinux(self, host: Host) -> None:
        """Its own file has its word."""
        confine(host, CONTEXT, "capability,selinux,apparmor")
        host.write("sys/fs/selinux/enforce", "0")
        host.write(f"proc/{OWN}/attr/apparmor/current", "snap.it (enforce)\n")
        assert "'snap.it (enforce)'" in host.explain().evidence

    def test_apparmor_in_a_container(self, host: Host) -> None:
        """Where securityfs is not mounted, the module's parameter tells."""
        host.write(f"proc/{OWN}/attr/current", "docker-default (enforce)")
        assert host.explain().cause == "attach-not-permitted"
        host.write("sys/module/apparmor/parameters/enabled", "Y\n")
        assert host.explain().cause == "trace-apparmor"

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
    def test_selinux(self, host: Host, number: int) -> None:
        """Both contexts; permissive is no refusal."""
        confine(host, CONTEXT, "capability,selinux")
        host.write("sys/fs/selinux/enforce", "1")
        host.write(f"proc/{PID}/attr/current", "system_u:system_r:svirt_t:s0:c5,c9\0")
        refusal = host.explain(number=number)
        assert (refusal.cause, refusal.certain) == ("trace-selinux", False)
        assert "container_t" in refusal.evidence
        assert "svirt_t" in refusal.evidence
        host.write("sys/fs/selinux/enforce", "0")
        assert host.explain(number=number).cause == "attach-not-permitted"

    def test_selinux_without_the_list_of_modules(self, host: Host) -> None:
        """Its own file system tells."""
        host.write(f"proc/{OWN}/attr/current", CONTEXT)
        host.write("sys/fs/selinux/enforce", "1")
        assert host.explain().cause == "trace-selinux"

    def test_selinux_before_it_has_a_policy(self, host: Host) -> None:
        """A label that is no context confines nobody."""
        confine(host, "kernel", "capability,selinux")
        assert host.explain().cause == "attach-not-permitted"

    @pytest.mark.parametrize("module", ["apparmor", "selinux"])
    def test_long_labels(self, host: Host, module: str) -> None:
        """They are cut."""
        for which in (PID, OWN):
            confine(host, "a:b:c:d" * 500, module)
            host.write(f"proc/{which}/attr/current", "a:b:c:d" * 500)
        refusal = host.explain()
        assert refusal.cause == f"trace-{module}"
        assert len(refusal.evidence) < 500

    def test_the_file_is_no_matter_of_ids(self, host: Host) -> None:
        """EACCES comes after the trace was allowed."""
        host.pair("plain", "other uid")
        host.yama(3)
        assert host.explain(number=errno.EACCES).cause == "attach-not-permitted"

    def test_modules_that_leave_no_trace(self, host: Host) -> None:
        """They are named as what is left."""
        host.write("sys/kernel/security/lsm", "lockdown,capability,landlock,yama,bpf")
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("attach-not-permitted", False)
        assert "landlock, bpf" in refusal.evidence


class TestNamespaces:
    """What stands before the kernel's checks."""

    def test_from_a_rootless_container(self, host: Host) -> None:
        """Root there, with every capability, and the host's processes to be seen."""
        host.reader(Who(uids=(0,) * 4, capabilities=ALL, namespace=OTHER, uid_map="0 1000 1"))
        host.closed.add(host.proc / f"{PID}/ns/user")
        host.target(Who(uid_map="0 4294967295 4294967295"))
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("trace-user-namespace", True)
        assert f"may not be read and its uid_map is not yours, yours is {OTHER}" in refusal.evidence

    def test_as_nobody_in_a_rootless_container(self, host: Host) -> None:
        """Without a capability the mappings tell, though the target may be in a container within it."""
        host.reader(Who(uids=(7,) * 4, namespace=OTHER, uid_map="0 1000 1"))
        host.closed.add(host.proc / f"{PID}/ns/user")
        host.target(Who(uid_map="0 4294967295 4294967295"))
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("trace-user-namespace", False)

    def test_two_namespaces_with_one_mapping(self, host: Host) -> None:
        """With the capability there, the link could be read: systemd's PrivateUsers=identity, for instance."""
        host.reader(Who(uids=(0,) * 4, capabilities=ALL, namespace=OTHER, uid_map="0 0 65536"))
        host.closed.add(host.proc / f"{PID}/ns/user")
        host.target(Who(uid_map="0 0 65536"))
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("trace-user-namespace", False)
        assert "uid_map" not in refusal.evidence

    def test_the_hosts_namespace_from_another(self, host: Host) -> None:
        """Both links are told."""
        host.reader(Who(capabilities=ALL, namespace=OTHER))
        refusal = host.explain()
        assert (refusal.cause, refusal.certain) == ("trace-user-namespace", True)
        assert f"is {HOST}, yours is {OTHER}" in refusal.evidence

    def test_within_one_container(self, host: Host) -> None:
        """One namespace that is not the host's: capabilities count in it."""
        host.reader(Who(uids=(0,) * 4, capabilities=ALL, namespace=OTHER))
        host.target(Who(namespace=OTHER))
        assert host.explain().cause == "attach-not-permitted"
        host.reader(Who(uids=(7,) * 4, namespace=OTHER))
        host.closed.add(host.proc / f"{PID}/ns/user")
        assert host.explain().cause == "trace-other-user"

    def test_a_container_in_a_container(self, host: Host) -> None:
        """The kernel shows the link of a namespace to those alone who may trace there."""
        host.reader(Who(uids=(0,) * 4, capabilities=ALL, namespace=OTHER))
        host.target(Who(namespace=THIRD, uid_map="0 5 7"))
        assert host.explain().cause == "attach-not-permitted"

    def test_another_owners_namespace(self, host: Host) -> None:
        """The same ids in a namespace below ours that is not ours: the mapping tells, which anybody may read."""
        host.target(Who(namespace=OTHER, uid_map="0 4101 1"))
        host.closed.add(host.proc / f"{PID}/ns/user")
        refusal = host.explain()
        assert refusal.cause == "trace-capabilities"
        assert "uid_map" in refusal.evidence

    def test_another_pid_namespace(self, host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Its number is nobody's here, or somebody else's."""
        own = tmp_path_factory.mktemp("own")
        (own / "self").symlink_to(host.proc / str(OWN))
        holder = Holder(pid=PID, uid=VMM, start_time=PID)
        assert explain(holder, host.root, own=own).cause == "other-pid-namespace"
        (own / str(PID)).symlink_to(host.proc / str(OWN))
        refusal = explain(holder, host.root, own=own)
        assert (refusal.cause, refusal.certain) == ("other-pid-namespace", True)
        (own / str(PID)).unlink()
        (own / str(PID)).symlink_to(host.proc / str(PID))
        assert explain(holder, host.root, own=own).cause == "attach-not-permitted"


class TestMissing:
    """A /proc that is hidden, or of a process that ends while it is read."""

    @pytest.mark.parametrize("start_time", [PID, 77, 0])
    def test_it_has_ended(self, host: Host, start_time: int) -> None:
        """No layer is accused; nor where its number is another process's by now."""
        if start_time != 77:
            shutil.rmtree(host.proc / str(PID))
        refusal = host.explain(start_time=start_time, uid=-1)
        assert (refusal.cause, refusal.certain) == ("attach-not-permitted", False)
        assert ("not there any more" in refusal.evidence) == (start_time != 0)

    def test_hidepid(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is known of it from before counts: its uid."""
        real = os.open

        def refuse(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if str(path) == f"{host.proc}/{PID}":
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return real(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", refuse)
        host.reader(_OTHER_USER)
        assert host.explain().cause == "trace-other-user"
        refusal = host.explain(uid=-1)
        assert refusal.cause == "attach-not-permitted"
        assert "EPERM (hidepid?)" in refusal.evidence

    @pytest.mark.parametrize("who", [PID, OWN])
    @pytest.mark.parametrize("name", ["status", "stat", "uid_map", "fd", "ns/user", "."])
    @pytest.mark.parametrize("readable", [True, False])
    def test_a_missing_file_accuses_nobody(self, host: Host, who: int, name: str, readable: bool) -> None:
        """Where something cannot be read and nothing else refuses, nothing is accused."""
        path = host.proc / str(who) / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        assert host.explain(readable=readable).cause == "attach-not-permitted"

    def test_the_real_proc(self) -> None:
        """This process itself: an answer, from whatever this host shows."""
        check(explain(Holder(pid=os.getpid()), HostRoot()))


# --- anything at all ---


def check(refusal: Refusal) -> None:
    """Assert what holds for every refusal."""
    assert refusal.cause in {cause.id for cause in CAUSES}
    for text in (refusal.evidence, refusal.remedy):
        assert text.isprintable()
        assert 0 < len(text) < 1000
    assert refusal.remedy.endswith("docs/permissions.md")


NUMBERS = st.sampled_from([errno.EPERM, errno.EACCES, errno.ENOSYS, 0])


@given(target=st.binary(max_size=300), own=st.binary(max_size=300), number=NUMBERS, readable=st.booleans())
def test_any_bytes_in_a_status(host: Host, target: bytes, own: bytes, number: int, readable: bool) -> None:
    """A refusal all the same, in one printable line."""
    host.write(f"proc/{PID}/status", target)
    host.write(f"proc/{OWN}/status", own)
    check(host.explain(number=number, readable=readable))


FIELDS = ("Tgid", "PPid", "Uid", "Gid", "CapPrm", "CapEff", "Seccomp")
VALUES = st.one_of(
    st.lists(st.integers(-1, 1 << 70), max_size=6).map(lambda several: "\t".join(map(str, several))),
    st.integers(0, 1 << 70).map("{:x}".format),
    st.text(max_size=20),
)


@given(
    target=st.dictionaries(st.sampled_from(FIELDS), VALUES),
    own=st.dictionaries(st.sampled_from(FIELDS), VALUES),
    scope=st.integers(0, 4),
    readable=st.booleans(),
)
def test_any_values_in_a_status(
    host: Host, target: dict[str, str], own: dict[str, str], scope: int, readable: bool
) -> None:
    """The fields are there, and say what no kernel says."""
    host.yama(scope)
    for pid, fields in ((PID, target), (OWN, own)):
        host.write(f"proc/{pid}/status", "".join(f"{name}:\t{value}\n" for name, value in fields.items()))
    check(host.explain(readable=readable))


@given(data=st.binary(max_size=6000), which=st.sampled_from([PID, OWN]), name=st.sampled_from(["current", "apparmor"]))
def test_any_bytes_as_a_label(host: Host, data: bytes, which: int, name: str) -> None:
    """Names of profiles and contexts are cut and escaped."""
    confine(host, "mine (enforce)", "apparmor,selinux")
    host.write(f"proc/{which}/attr/{'apparmor/current' if name == 'apparmor' else name}", data)
    check(host.explain())


@given(
    path=st.sampled_from(
        [
            "sys/kernel/security/lsm",
            "proc/sys/kernel/yama/ptrace_scope",
            "sys/fs/selinux/enforce",
            "sys/module/apparmor/parameters/enabled",
            f"proc/{PID}/uid_map",
            f"proc/{OWN}/uid_map",
            f"proc/{PID}/stat",
        ]
    ),
    data=st.binary(max_size=6000),
)
def test_any_bytes_in_another_file(host: Host, path: str, data: bytes) -> None:
    """Nor does sysfs bring it down."""
    host.write(path, data)
    check(host.explain())


LINKS = st.one_of(
    st.sampled_from([HOST, OTHER, "user:[]", "mnt:[4026531837]"]),
    st.binary(min_size=1, max_size=60).filter(lambda text: b"\0" not in text).map(os.fsdecode),
)


@given(theirs=LINKS, ours=LINKS, capabilities=st.sampled_from([0, ALL]))
def test_any_link_of_a_namespace(host: Host, theirs: str, ours: str, capabilities: int) -> None:
    """Only what looks like a user namespace is one."""
    host.target(Who(namespace=theirs))
    host.reader(Who(namespace=ours, capabilities=capabilities))
    refusal = host.explain()
    check(refusal)
    assert (refusal.cause == "trace-user-namespace") == (ours == OTHER and theirs == HOST)


@given(
    data=st.data(),
    scope=st.integers(0, 3),
    remove=st.sets(st.sampled_from(["status", "uid_map", "ns/user", "fd"]), max_size=3),
)
def test_missing_evidence_never_invents_a_layer(host: Host, data: st.DataObject, scope: int, remove: set[str]) -> None:
    """With files of the target missing, what is named is what refuses it, or a later layer, or nothing."""
    target, reader, answers, cause = data.draw(st.sampled_from(rows()))
    host.closed.clear()
    host.pair(target, reader)
    host.yama(scope)
    for name in remove:
        path = host.proc / f"{PID}/{name}"
        remover: Callable[[Path], object] = shutil.rmtree if name == "fd" else Path.unlink
        remover(path)
    seen = host.explain().cause
    order = [
        "trace-seccomp",
        "trace-user-namespace",
        "trace-other-user",
        "trace-not-dumpable",
        "trace-capabilities",
        "trace-no-ptrace-capability",
        f"trace-yama-{scope}",
        "attach-not-permitted",
    ]
    wanted = expected(answers[scope], cause, scope)
    if wanted == "attach-not-permitted" and scope == 1:
        return  # an exception, or a capability of the owner of the namespace, that the missing file would have shown
    if "namespace of its own" in target and remove:
        return  # likewise
    assert order.index(seen) >= order.index(wanted)
