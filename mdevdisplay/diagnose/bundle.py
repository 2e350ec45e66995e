"""Everything that a bug report needs in one file, with names and pixels left out unless they were asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from mdevdisplay._text import printable
from mdevdisplay.diagnose.archive import pack, write_file
from mdevdisplay.diagnose.deadline import in_time
from mdevdisplay.diagnose.facts import report_facts
from mdevdisplay.diagnose.lines import reports_lines
from mdevdisplay.diagnose.names import learn_names
from mdevdisplay.diagnose.redaction import Redactor, blank_edid
from mdevdisplay.diagnose.report import Report, State
from mdevdisplay.diagnose.subject import find_subject
from mdevdisplay.diagnose.surroundings import console_facts, device_facts, host_facts, version_facts
from mdevdisplay.display import Display
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.facts import display_facts, error_facts
from mdevdisplay.host.console import console_of
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.processes import Process
from mdevdisplay.host.root import HostRoot

__all__ = ["FOLDER", "MOST", "MOST_PICTURE", "VERSION", "write_bundle"]

FOLDER = "mdevdisplay-bundle"
"""The folder in the archive that everything lies in."""
VERSION = 1
"""Raised when a field of the JSON in a bundle goes away or changes its meaning."""
MOST = 1 << 20
"""The largest file of a bundle, in bytes; pictures aside."""
MOST_PICTURE = 64 << 20
"""The largest picture, in bytes."""

_HANGS = frozenset({"timed-out", "worker-stuck", "worker-died", "worker-misbehaved"})


@attrs.frozen(kw_only=True)
class _Way:
    """How displays are opened, as for `mdevdisplay.open`, and whether their pictures are wanted."""

    backend: str | None
    isolated: bool | None
    timeout: float
    pixels: bool


@attrs.define
class _Seen:
    """What was seen of one device beyond its report."""

    locator: str
    sysfs: Any = None
    console: Any = None
    display: Any = None
    left_out: str = ""
    picture: bytes | None = None
    no_picture: str = ""


def write_bundle(
    path: str | Path,
    reports: Sequence[Report],
    *,
    with_names: bool = False,
    with_pixels: bool = False,
    root: HostRoot | None = None,
    backend: str | None = None,
    isolated: bool | None = None,
    timeout: float = 30.0,
) -> None:
    """Write a .tar.gz with what a bug report needs.

    A display that the diagnosis could open, and that answered, is opened once more for the facts of ``info`` and its
    picture. What cannot be had is said in the file, and no error.

    Args:
        path: the file. It is written for its owner alone; one that is there is replaced if it is a regular file.
        reports: what `mdevdisplay.diagnose.diagnose` returned.
        with_names: whether names of VMs, devices, machines and people stay in it.
        with_pixels: whether the picture of each display goes into it.
        root: the host's root.
        backend: see `mdevdisplay.open`.
        isolated: see `mdevdisplay.open`.
        timeout: seconds that each call to a driver may take.

    Raises:
        MdevDisplayError: the file cannot be written; cause ``cannot-write``.
    """
    root = root or HostRoot.from_environment()
    redactor = Redactor(active=not with_names)
    learn_names(redactor, reports, root)
    way = _Way(backend=backend, isolated=isolated, timeout=timeout, pixels=with_pixels)
    seen = [_look(report, root, way, with_names=with_names) for report in reports if report.locator]
    notes: list[str] = []
    members = {
        "report.json": _entries("reports", map(report_facts, reports), redactor, notes, "report.json"),
        "report.txt": _report_text(reports, redactor, notes),
        "versions.json": _object(_tried(lambda: version_facts(root)), redactor, notes, "versions.json"),
        "host.json": _object(_tried(lambda: host_facts(root)), redactor, notes, "host.json"),
        "device.json": _entries("devices", map(_device_entry, seen), redactor, notes, "device.json"),
        "vmm.json": _entries("vmms", map(_vmm_entry, seen), redactor, notes, "vmm.json"),
    }
    pictures = dict(_pictures(seen, notes)) if with_pixels else {}
    told = [redactor.redact(note) for note in notes]
    readme = _readme([*members, *pictures], told, with_names=with_names, with_pixels=with_pixels)
    write_file(Path(path), pack(FOLDER, {"README.txt": readme, **members, **pictures}, int(time.time())))


# --- the devices ---


def _look(report: Report, root: HostRoot, way: _Way, *, with_names: bool) -> _Seen:
    seen = _Seen(report.locator)
    subject = _tried(lambda: find_subject(report.locator, root))
    if isinstance(subject, dict):
        seen.sysfs = subject
    else:
        device, holder = subject.device, subject.holder
        seen.sysfs = _tried(lambda: device_facts(root, device)) if device is not None else None
        seen.console = _tried(lambda: _console(holder, root)) if holder is not None and holder.vm.kind else None
    seen.left_out = seen.no_picture = _why_not_opened(report)
    if not seen.left_out:
        _look_at_display(seen, way, with_names=with_names)
    return seen


def _console(holder: Holder, root: HostRoot) -> dict[str, Any] | None:
    with Process(root.proc, holder.pid) as process:
        console = console_of(process)
    return console_facts(console) if console is not None else None


def _why_not_opened(report: Report) -> str:
    """Return why a display is not opened again: the diagnosis did not, or its driver hung, as it would once more."""
    if any(found.cause in _HANGS for found in report.findings):
        return "its driver did not answer in time during the diagnosis, and is not asked again"
    if report.locator.startswith(("fd:", "unix:")):
        return "what a launcher hands over is handed over once"
    if any(found.cause == "nvidia-console-mapped" for found in report.findings):
        return "NVIDIA allows one mapping of its console, and QEMU's display=on needs it"
    if not any(step.name == "access" and step.state is not State.BAD for step in report.steps):
        return "the diagnosis did not open it"
    return ""


def _look_at_display(seen: _Seen, way: _Way, *, with_names: bool) -> None:
    try:
        display = open_display(seen.locator, backend=way.backend, isolated=way.isolated, timeout=way.timeout)
    except MdevDisplayError as error:
        seen.display = {"error": error_facts(error)}
        seen.no_picture = _words(error)
        return
    except (ValueError, OSError) as error:
        seen.left_out = seen.no_picture = f"{type(error).__name__}: {error}"
        return
    try:
        facts = display_facts(display, error_facts)
        seen.display = facts if with_names else _without_edid_names(facts)
        if way.pixels:
            _take_picture(seen, display)
    except MdevDisplayError as error:
        seen.left_out = seen.no_picture = _words(error)
    finally:
        with suppress(MdevDisplayError):
            display.close(timeout=1.0)


def _take_picture(seen: _Seen, display: Display) -> None:
    try:
        picture = display.capture(cursor=True).to_png()
    except MdevDisplayError as error:
        seen.no_picture = _words(error)
        return
    if len(picture) > MOST_PICTURE:
        seen.no_picture = f"it is {len(picture)} bytes large, more than {MOST_PICTURE}"
    else:
        seen.picture = picture


def _words(error: MdevDisplayError) -> str:
    return f"{error.message} [{error.cause}]"


def _without_edid_names(facts: dict[str, Any]) -> dict[str, Any]:
    edid = facts["edid"]
    if not edid or "hex" not in edid:
        return facts
    return {**facts, "edid": {**edid, "hex": blank_edid(bytes.fromhex(edid["hex"])).hex()}}


def _device_entry(seen: _Seen) -> dict[str, Any]:
    facts = seen.display
    if facts and "backend" in facts:  # as in a list names are values, and keys are ours
        others = [{"name": name, "reason": reason} for name, reason in facts["backend"]["others"].items()]
        facts = {**facts, "backend": {**facts["backend"], "others": others}}
    return {"locator": seen.locator, "sysfs": seen.sysfs, "display": facts, "left_out": seen.left_out}


def _vmm_entry(seen: _Seen) -> dict[str, Any]:
    return {"locator": seen.locator, "console": seen.console}


def _pictures(seen: Sequence[_Seen], notes: list[str]) -> Iterator[tuple[str, bytes]]:
    for number, one in enumerate(seen, start=1):
        name = "screen.png" if number == 1 else f"screen-{number}.png"
        if one.picture is not None:
            yield name, one.picture
        else:
            notes.append(f"{name}, the picture of {one.locator}, is missing: {one.no_picture}")


# --- the files ---


def _tried(probe: Callable[[], Any]) -> Any:
    """Return what a probe of the host returns, or why it has nothing: a driver's attribute may hang."""
    try:
        return in_time("bundle", probe)
    except Exception as error:  # noqa: BLE001 - /sys and /proc may say anything
        return {"error": f"{type(error).__name__}: {error}"}


def _object(facts: Any, redactor: Redactor, notes: list[str], name: str) -> bytes:
    # four numbers with dots between are versions here
    data = _json({"version": VERSION, **redactor.redact_all(facts, addresses=False)})
    if len(data) <= MOST:
        return data
    notes.append(f"{name} has nothing in it: it would be {len(data)} bytes large")
    return _json({"version": VERSION, "left_out": len(data)})


def _entries(title: str, facts: Iterable[dict[str, Any]], redactor: Redactor, notes: list[str], name: str) -> bytes:
    """Return a file with a list of entries; those that make it too large are left out."""
    kept: list[Any] = []
    size, left_out = 1000, 0
    for entry in facts:
        redacted = redactor.redact_all(entry)
        length = len(_json([redacted]))
        if size + length > MOST:
            left_out += 1
            continue
        size += length
        kept.append(redacted)
    if left_out:
        notes.append(f"{name} lacks {left_out} entries: they were too large")
    return _json({"version": VERSION, title: kept, "left_out": left_out})


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode("ascii") + b"\n"


def _report_text(reports: Sequence[Report], redactor: Redactor, notes: list[str]) -> bytes:
    lines = ("".join(printable(redactor.redact(span.text)) for span in line) for line in reports_lines(reports))
    data = "".join(f"{line}\n" for line in lines).encode()
    if len(data) <= MOST:
        return data
    notes.append(f"report.txt is cut: it would be {len(data)} bytes large")
    return data[: data.rindex(b"\n", 0, MOST) + 1]


_ABOUT = {
    "report.txt": "what `mdevdisplay doctor` said",
    "report.json": "the same for programs",
    "versions.json": "versions of mdevdisplay, Python, the kernel and the backends",
    "host.json": "kernel modules, security modules, IOMMU groups, device nodes and render nodes",
    "device.json": "what sysfs and `mdevdisplay info` tell of each device",
    "vmm.json": "what each VMM's command line says of displays, and no other word of it",
}


def _readme(names: Sequence[str], notes: Sequence[str], *, with_names: bool, with_pixels: bool) -> bytes:
    lines = ["This is what `mdevdisplay doctor --bundle` collected for a bug report.", ""]
    lines += [f"  {name:<15}{_ABOUT.get(name, 'what the display showed')}" for name in names]
    lines += ["", "Please look through it before you pass it on.", ""]
    if with_names:
        lines += ["Names of VMs, devices, this machine and its users are in it, as --with-names asked for."]
    else:
        lines += [
            "Names were replaced: vm-1, device-1, uuid-1, host, user-1, ip-1, mac-1, path-1 and so on. The same word",
            "stands for the same name everywhere in this bundle. An EDID is without its serial number and texts.",
            "A name of one or two characters, or of digits alone, was only replaced where it is nothing but a name:",
            "in quotes, after `vm:`, in a command. --with-names leaves all names in.",
        ]
    lines += [""]
    if with_pixels:
        lines += ["Pictures of the screen are in it, as --with-pixels asked for; they are not redacted."]
    else:
        lines += ["No picture of the screen is in it; --with-pixels puts it in."]
    if notes:
        lines += ["", "What is missing:", *(f"  {printable(note)}" for note in notes)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")[:MOST]
