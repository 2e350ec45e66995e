"""Goes every step from the host to the pixels, each with a deadline, and comes to a report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import TypeVar

import attrs

from mdevdisplay.diagnose import deadline, nvidia
from mdevdisplay.diagnose.deadline import in_time
from mdevdisplay.diagnose.device_step import examine_device
from mdevdisplay.diagnose.display_steps import examine_access, examine_pixels, explain_failure
from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.diagnose.host_step import examine_host
from mdevdisplay.diagnose.report import Report
from mdevdisplay.diagnose.subject import Subject, find_subject
from mdevdisplay.diagnose.vm_step import examine_consoles, examine_vm
from mdevdisplay.display import Display, devices
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError, TimedOut
from mdevdisplay.gpu.render_nodes import render_nodes
from mdevdisplay.host.console import Console
from mdevdisplay.host.devices import HostDevice, look_up
from mdevdisplay.host.root import HostRoot

__all__ = ["diagnose", "diagnose_all", "diagnose_host"]

T = TypeVar("T")


def diagnose(
    locator: str,
    *,
    backend: str | None = None,
    isolated: bool | None = None,
    timeout: float = 30.0,
    watch: float = 0.0,
    open_free: bool = True,
) -> Report:
    """Say why a display is black, or that it is not.

    It is safe on a running VM: its device is read as by `mdevdisplay.open`, and what would not be safe is left out and
    said to be. No wrong locator, driver or guest makes it raise. ``fd:N`` is taken over, as by `mdevdisplay.open`.

    Args:
        locator: what to examine, as for `mdevdisplay.open`.
        backend: the name of the backend to use; None chooses by probing.
        isolated: whether a process of its own reads the device; None for a device that another process holds.
        timeout: seconds that each call to the driver may take.
        watch: seconds to wait for a change of the picture; 0 does not wait.
        open_free: whether a device that no VM has may be opened: a VM that starts meanwhile would find it busy.
    """
    exam = Examination(locator)
    opening = partial(open_display, locator, backend=backend, isolated=isolated, timeout=timeout)
    return _run(exam, HostRoot.from_environment(), opening, watch, open_free=open_free)


def diagnose_host() -> Report:
    """Say what this host lends to VMs, without a device in mind."""
    exam = Examination("")
    root = HostRoot.from_environment()
    number = _within(exam, "host", lambda part: examine_host(part, root))
    if number is None:  # it did not come to an end, and that is the verdict
        return exam.conclude()
    if not number:
        exam.ends("no-vgpu", "neither mediated devices nor virtual functions of a GPU")
    else:
        exam.names["count"] = str(number)
        exam.ends("host-ready", f"{number} vGPUs")
    return exam.conclude()


def diagnose_all(opened: Callable[[str], Report]) -> list[Report]:
    """Say what this host lends to VMs, and what ``opened`` says of every device that could display."""
    host = diagnose_host()
    try:
        listed = in_time("doctor: list", devices)
    except MdevDisplayError:  # the host's report has said what does not come to an end
        listed = []
    return [host, *(opened(device.locator) for device in listed)]


def _run(exam: Examination, root: HostRoot, opening: Callable[[], Display], watch: float, *, open_free: bool) -> Report:
    subject = _within(exam, "device", lambda _: find_subject(exam.locator, root))
    if subject is None:
        exam.leave_out("opening the device: whether a VM uses it could not be seen")
        return exam.conclude()
    console: Console | None = None
    if subject.own:
        may_open, console = _look_around(exam, subject, root)
        if not may_open:
            return exam.conclude()
        if subject.device is not None and not subject.holders and not open_free:
            exam.ends("no-vm", "no process that may be looked at holds it")
            exam.leave_out("opening the device, which no VM has: one that starts meanwhile would find it busy")
            return exam.conclude()
    display = _open(exam, opening)
    if subject.own and display is not None:
        exam.is_secret(display.identity.name)
        subject = _with_device(exam, subject, display.identity.name, root)
    device = _examine_nvidia(exam, subject, root, console)
    by_dmabuf = False
    if display is not None:
        by_dmabuf = _examine(exam, display, root, watch, own=subject.own, nvidia_device=device)
    if subject.own:
        _within(exam, "vm", lambda part: examine_consoles(part, subject, root, console, by_dmabuf=by_dmabuf))
    return exam.conclude()


def _open(exam: Examination, opening: Callable[[], Display]) -> Display | None:
    """Open the display, or say why that failed."""
    try:
        return opening()
    except MdevDisplayError as error:
        explain_failure(exam, error)
    except ValueError as error:  # a locator with a NUL, for one
        exam.ends("bad-locator", f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - out of descriptors, threads or memory
        exam.ends("error", f"{type(error).__name__}: {error}")
    return None


def _with_device(exam: Examination, subject: Subject, name: str, root: HostRoot) -> Subject:
    """Return the subject with the device that was opened, where only opening told which of a VM's it is."""
    if subject.device is not None or not name:
        return subject
    exam.names.setdefault("device", name)
    return attrs.evolve(subject, device=_within(exam, "device", lambda _: look_up(root, name)))


def _look_around(exam: Examination, subject: Subject, root: HostRoot) -> tuple[bool, Console | None]:
    """Look at the host, the device and its VM; return whether the device may be opened, and the VM's consoles."""
    met = subject.device is not None or bool(subject.holders)
    _within(exam, "host", lambda part: examine_host(part, root, met=met))
    may_open = _within(exam, "device", lambda part: examine_device(part, subject, root))
    console = _within(exam, "vm", lambda part: examine_vm(part, subject, root))
    if may_open is None and not subject.holders:
        exam.leave_out("opening the device: what kind of device it is could not be seen")
        return False, console
    return may_open is not False, console


def _examine_nvidia(exam: Examination, subject: Subject, root: HostRoot, console: Console | None) -> HostDevice | None:
    """Look at what is special about an NVIDIA vGPU; return the device if it is one."""
    device = subject.device
    if device is None or device.identity.vendor != "nvidia":
        return None
    _within(exam, "driver", lambda part: nvidia.examine_parameters(part, device, root))
    _within(exam, "driver", lambda part: nvidia.examine_console_mapping(part, device, console))
    return device


def _examine(
    exam: Examination, display: Display, root: HostRoot, watch: float, *, own: bool, nvidia_device: HostDevice | None
) -> bool:
    """Look at an open display, and close it; return whether it hands dma-bufs out."""
    try:
        examine_access(exam, display)
        nodes = _within(exam, "pixels", lambda _: render_nodes(root)) or []
        may_map = nvidia_device is None or not exam.has_found("nvidia-console-mapped")
        seen = examine_pixels(exam, display, nodes, watch=watch, may_map=may_map)
        if exam.seen == "nothing-displayed" and own and not display.borrowed:
            exam.found("no-vm", "it could be opened for oneself, which one program at a time can")
        if seen.frame is not None and nvidia_device is not None:
            frame = seen.frame
            _within(exam, "pixels", lambda part: nvidia.examine_zeros(part, frame, root))
        return seen.surface is not None and seen.surface.dmabuf_id is not None
    except Exception as error:  # noqa: BLE001 - out of descriptors, threads or memory
        exam.ends("error", f"{type(error).__name__}: {error}")
        return False
    finally:
        with suppress(MdevDisplayError):  # a driver that hangs has been named
            display.close(timeout=1.0)


def _within(exam: Examination, step: str, probe: Callable[[Examination], T]) -> T | None:
    """Run a probe of the host with a deadline; what it cannot do is a finding, and not the end.

    It writes into a copy: one that comes back late writes into what nobody reads any more.
    """
    copy = deepcopy(exam)
    try:
        result = in_time(f"doctor: {step}", partial(probe, copy))
        exam.take(copy)
        return result
    except TimedOut:
        exam.found("probe-failed", f"reading /sys and /proc took more than {deadline.HOST_SECONDS:g} s", step=step)
    except Exception as error:  # noqa: BLE001 - /sys and /proc may say anything
        exam.found("probe-failed", f"{type(error).__name__}: {error}", step=step)
    return None
