"""docs/permissions.md and the systemd unit beside it: what the one says of the other holds, and systemd accepts it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from mdevdisplay.host.auth_log import log_attach
from mdevdisplay.host.root import HostRoot

DOCS = Path(__file__).parent.parent / "docs"
UNITS = DOCS / "systemd"
SERVICE = "mdevdisplay-screenshot@.service"
TIMER = "mdevdisplay-screenshot@.timer"
SYSTEM = Path("/usr/lib/systemd/system")


def settings(unit: str) -> dict[str, list[str]]:
    """Every setting of a unit file, each with its values in the order in which they stand."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if match := re.fullmatch(r"([A-Z]\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no systemd that runs."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the units, the program that they start, and systemd's own targets."""
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system")
    own = tmp_path / "usr/lib/systemd/system"
    own.mkdir(parents=True)
    for kind in ("target", "slice", "mount"):
        for unit in SYSTEM.glob(f"*.{kind}"):
            if not unit.is_symlink():
                shutil.copy(unit, own)
    program = tmp_path / settings(SERVICE)["ExecStart"][0].split()[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    return tmp_path


def members(group: str) -> set[str]:
    """The system calls of one of systemd's groups, with those of the groups in it."""
    listed = analyze("syscall-filter", group).stdout.splitlines()[1:]
    names = {line.strip() for line in listed if not line.strip().startswith("#")} - {""}
    return {call for name in names for call in (members(name) if name.startswith("@") else {name})}


def allowed_calls(lines: list[str]) -> set[str]:
    """What SystemCallFilter= lines add up to (systemd.exec(5)): the first says allow, ~ takes away, the rest add."""
    allowed = members("@default")
    for line in lines:
        words = line.removeprefix("~").split()
        calls = {call for word in words for call in (members(word) if word.startswith("@") else {word})}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def test_systemd_accepts_the_units(root: Path) -> None:
    """systemd-analyze verify has nothing to say of them, for a VM with a dash in its name."""
    units = [unit.replace("@", "@win-10") for unit in (SERVICE, TIMER)]
    result = analyze("verify", "--man=no", f"--root={root}", *units)
    assert (result.returncode, result.stderr) == (0, "")


def test_systemd_would_not_accept_a_wrong_unit(root: Path) -> None:
    """The test above can fail: a setting that does not exist is found."""
    unit = root / "etc/systemd/system" / SERVICE
    unit.write_text(unit.read_text() + "NoSuchSetting=yes\n")
    assert "NoSuchSetting" in analyze("verify", "--man=no", f"--root={root}", SERVICE.replace("@", "@win-10")).stderr


def test_the_exposure_is_what_the_document_says(root: Path) -> None:
    """systemd-analyze security stays within the figure of the document, and without the sandbox it does not."""
    (limit,) = re.findall(r"exposure is below (\d)\.(\d)", (DOCS / "permissions.md").read_text())
    unit = root / "etc/systemd/system" / SERVICE
    command = ("security", "--offline=true", f"--threshold={''.join(limit)}", f"--root={root}", "--no-pager")
    result = analyze(*command, SERVICE.replace("@", "@win-10"))
    assert result.returncode == 0, result.stdout
    unit.write_text(
        re.sub(r"^(SystemCallFilter|Protect\w+|NoNewPrivileges)=.*\n", "", unit.read_text(), flags=re.MULTILINE)
    )
    assert analyze(*command, SERVICE.replace("@", "@win-10")).returncode != 0


def test_the_filter_allows_taking_a_descriptor_and_no_other_way_into_a_process() -> None:
    """pidfd_open, pidfd_getfd and capset pass; no other call reaches into a process or gets rights."""
    allowed = allowed_calls(settings(SERVICE)["SystemCallFilter"])
    assert {"pidfd_open", "pidfd_getfd", "capset", "prctl", "ioctl", "mmap", "execve", "recvmsg"} <= allowed
    assert allowed & members("@debug") == {"pidfd_getfd"}
    assert allowed & members("@privileged") == {"capset"}
    into_others = {"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "open_by_handle_at"}
    assert not allowed & into_others
    assert not allowed & {"setuid", "setresuid", "bpf", "mount", "userfaultfd", "perf_event_open", "add_key"}


def test_what_the_document_says_of_systemds_groups() -> None:
    """pidfd_open is in @system-service, pidfd_getfd in @debug and in no group that a service would have."""
    assert "pidfd_open" in members("@system-service")
    assert "pidfd_getfd" in members("@debug")
    assert "pidfd_getfd" not in members("@system-service") | members("@privileged")


def test_the_capabilities_are_those_of_the_document() -> None:
    """The unit has the set that the document names for a reader with a uid of its own, and cannot get more."""
    unit = settings(SERVICE)
    (row,) = re.findall(r"^\| a uid of its own \|.*\|(.*)\|$", (DOCS / "permissions.md").read_text(), re.MULTILINE)
    documented = re.findall(r"CAP_\w+", row)
    assert documented
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"] == [" ".join(documented)]
    assert unit["NoNewPrivileges"] == ["yes"]


def test_the_unit_does_not_shut_out_what_it_is_for() -> None:
    """What would make every attach fail stays off, and the document has the reason."""
    unit = settings(SERVICE)
    text = (DOCS / "permissions.md").read_text()
    assert unit["PrivateUsers"] == ["no"]
    assert unit["ProtectProc"] == ["ptraceable"]
    assert "RootDirectory" not in unit
    assert all(f"`{setting}=" in text for setting in ("PrivateUsers", "ProtectProc", "MemoryDenyWriteExecute"))


def test_the_document_shows_the_unit_that_is_there() -> None:
    """The command of the document is the unit's, and both files are linked."""
    text = (DOCS / "permissions.md").read_text()
    assert settings(SERVICE)["ExecStart"][0].removeprefix("/usr/bin/") in text
    assert all(f"(systemd/{unit})" in text for unit in (SERVICE, TIMER))


def test_the_logged_line_is_that_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent to syslog reads like the document's example, but for who and from which process."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    (line,) = re.findall(r"^    (mdevdisplay\[812\]: .*)$", (DOCS / "permissions.md").read_text(), re.MULTILINE)
    (device,) = re.findall(r"device (\S+)$", line)
    (tmp_path / "dev").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.settimeout(10)
        daemon.bind(str(tmp_path / "dev/log"))
        log_attach(HostRoot(tmp_path), whose="VM 'win10' (pid 4242)", device=device)
        sent = daemon.recv(2000).decode()
    me = f"{pwd.getpwuid(os.getuid()).pw_name}({os.getuid()})"
    facility_auth, notice = 4, 5
    expected = line.replace("[812]", f"[{os.getpid()}]").replace("alice(1000)", me)
    assert sent == f"<{facility_auth * 8 + notice}>{expected}"
