"""Goes every step from the host to the pixels, each with a deadline, and comes to a report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from mdevdisplay._lane import Lane
from mdevdisplay.diagnose import nvidia
from mdevdisplay.diagnose.display_steps import examine_access, examine_pixels, explain_failure
from mdevdisplay.diagnose.host_step import examine_device, examine_host
from mdevdisplay.diagnose.report import Examination, Report
from mdevdisplay.diagnose.subject import Subject, find_subject
from mdevdisplay.diagnose.vm_step import examine_consoles, examine_vm
from mdevdisplay.display import Display
from mdevdisplay.display import open as open_display
from mdevdisplay.errors import MdevDisplayError, TimedOut
from mdevdisplay.host.console import Console
from mdevdisplay.host.root import HostRoot

__all__ = ["HOST_SECONDS", "diagnose", "diagnose_host"]

T = TypeVar("T")
HOST_SECONDS = 10.0
"""What reading /sys and /proc may take, a step each: a driver's attribute may hang."""


def diagnose(
    locator: str,
    *,
    backend: str | None = None,
    isolated: bool | None = None,
    timeout: float = 30.0,
    watch: float = 0.0,
    root: HostRoot | None = None,
) -> Report:
    """Say why a display is black, or that it is not.

    It is safe on a running VM: its device is read as by `mdevdisplay.open`, and what would not be safe is left out and
    said to be. No wrong locator, driver or guest makes it raise.

    Args:
        locator: what to examine, as for `mdevdisplay.open`.
        backend: the name of the backend to use; None chooses by probing.
        isolated: whether a process of its own reads the device; None for a device that another process holds.
        timeout: seconds that each call to the driver may take.
        watch: seconds to wait for a change of the picture; 0 does not wait.
        root: the host's root.
    """
    exam = Examination(locator)
    root = root or HostRoot.from_environment()
    opening = partial(open_display, locator, backend=backend, isolated=isolated, timeout=timeout)
    return _run(exam, root, opening, watch)


def diagnose_host(root: HostRoot | None = None) -> Report:
    """Say what this host lends to VMs, without a device in mind."""
    exam = Examination("")
    root = root or HostRoot.from_environment()
    number = _within(exam, "host", lambda: examine_host(exam, root))
    if exam.seen:
        return exam.conclude()
    if not number:
        exam.ends("no-vgpu", "neither mediated devices nor virtual functions of a GPU")
    else:
        exam.names["count"] = str(number)
        exam.ends("host-ready", f"{number} vGPUs")
    return exam.conclude()


def _run(exam: Examination, root: HostRoot, opening: Callable[[], Display], watch: float) -> Report:
    subject = _within(exam, "device", lambda: find_subject(exam.locator, root)) or Subject(locator=exam.locator)
    console: Console | None = None
    if subject.own:
        _within(exam, "host", lambda: examine_host(exam, root))
        may_open = _within(exam, "device", lambda: examine_device(exam, subject, root))
        console = _within(exam, "vm", lambda: examine_vm(exam, subject, root))
        if may_open is False:
            return exam.conclude()
    device = subject.device if subject.device is not None and subject.device.identity.vendor == "nvidia" else None
    if device is not None:
        _within(exam, "driver", lambda: nvidia.examine_parameters(exam, device, root))
        _within(exam, "driver", lambda: nvidia.examine_console_mapping(exam, device, console))
    by_dmabuf = False
    try:
        display = opening()
    except MdevDisplayError as error:
        explain_failure(exam, error)
    except (ValueError, OSError) as error:  # a locator with a NUL, for one
        exam.ends("bad-locator", f"{type(error).__name__}: {error}")
    else:
        if subject.own:
            exam.is_secret(display.identity.name)
        by_dmabuf = _examine(exam, display, root, watch, nvidia_device=device is not None)
    if subject.own:
        _within(exam, "vm", lambda: examine_consoles(exam, subject, root, console, by_dmabuf=by_dmabuf))
    return exam.conclude()


def _examine(exam: Examination, display: Display, root: HostRoot, watch: float, *, nvidia_device: bool) -> bool:
    """Look at an open display, and close it; return whether it hands dma-bufs out."""
    try:
        examine_access(exam, display)
        seen = examine_pixels(exam, display, root, watch=watch)
        if seen.frame is not None and nvidia_device:
            nvidia.examine_zeros(exam, seen.frame, root)
        return seen.surface is not None and seen.surface.dmabuf_id is not None
    finally:
        with suppress(MdevDisplayError):  # a driver that hangs has been named
            display.close(timeout=1.0)


def _within(exam: Examination, step: str, probe: Callable[[], T]) -> T | None:
    """Run a probe of the host with a deadline; what it cannot do is a finding, and not the end."""
    lane = Lane(f"doctor: {step}")
    try:
        return lane.run(probe, HOST_SECONDS)
    except TimedOut:
        exam.found("probe-failed", f"reading /sys and /proc took more than {HOST_SECONDS:g} s", step=step)
    except Exception as error:  # noqa: BLE001 - /sys and /proc may say anything
        exam.found("probe-failed", f"{type(error).__name__}: {error}", step=step)
    finally:
        lane.stop()
    return None
