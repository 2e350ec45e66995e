"""The device's side: opening it, what its driver answers, what the guest shows, and what is in the pixels."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import numpy as np

from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.display import Display
from mdevdisplay.errors import GuestChangingMode, MdevDisplayError, NotADisplay, NothingDisplayed
from mdevdisplay.formats import fourcc_name, modifier_name
from mdevdisplay.gpu.render_nodes import RenderNode
from mdevdisplay.pixels.frame import Frame, FrameFlags
from mdevdisplay.surface import SurfaceInfo

__all__ = ["Seen", "examine_access", "examine_pixels", "explain_failure", "one_colour"]

_COLOUR_WATCH = 0.3
"""Seconds that a picture of one colour is watched: a guest that begins to draw, or a blinking cursor."""
_STEP = 0.02


@attrs.frozen
class Seen:
    """What was seen of the display.

    Attributes:
        surface: what the primary plane shows, or None.
        frame: the picture, or None where there is none.
    """

    surface: SurfaceInfo | None = None
    frame: Frame | None = None


def examine_access(exam: Examination, display: Display) -> None:
    """Say how the display was opened, and what the driver answered to the probes."""
    backend = display.backend
    exam.ok(
        "access",
        ("borrowed from the process that holds it" if display.borrowed else "opened for oneself")
        + (", read in a process of its own" if display.isolated else ", read in this process"),
    )
    exam.ok("driver", f"backend {backend.name} (score {backend.match.score}): {backend.match.reason}")
    exam.ok("driver", *(f"not {name}: {reason}" for name, reason in backend.refusals.items()))


def examine_pixels(
    exam: Examination, display: Display, nodes: Sequence[RenderNode], *, watch: float, may_map: bool = True
) -> Seen:
    """Ask for the plane, read its picture and look at it; what goes wrong is noted."""
    surface: SurfaceInfo | None = None
    try:
        begin = time.perf_counter()
        surface = display.surface()
        took = time.perf_counter() - begin
        exam.ok("driver", f"the primary plane's query was answered in {took * 1000:.1f} ms")
        if surface is None:
            raise NothingDisplayed("the answer says that the plane shows nothing", device=display.locator)
        exam.names["picture"] = f"{surface.width}x{surface.height}"
        exam.ok("guest", _describe(surface))
        if not may_map:
            exam.leave_out("mapping the console: NVIDIA allows one mapping, and QEMU's display=on needs it")
            exam.ends("nvidia-console-mapped", "QEMU shows this vGPU itself, and so has its one mapping")
            return Seen(surface)
        frame = _examine_reading(exam, display, nodes)
        if frame is not None:
            _examine_picture(exam, display, frame, watch)
        return Seen(surface, frame)
    except MdevDisplayError as error:
        exam.failed(error)
    finally:
        _examine_findings(exam, display)
    return Seen(surface)


def _describe(surface: SurfaceInfo) -> str:
    where = f"dma-buf id {surface.dmabuf_id}" if surface.dmabuf_id is not None else f"region {surface.region_index}"
    return (
        f"{surface.width}x{surface.height} {fourcc_name(surface.fourcc)} {modifier_name(surface.modifier)}, stride "
        f"{surface.stride}, size {surface.size}, {where}"
    )


def _examine_reading(exam: Examination, display: Display, nodes: Sequence[RenderNode]) -> Frame | None:
    """Say how the pixels can be had, and read them."""
    readable = display.readability()
    if not readable.way:
        told = ", ".join(f"{node.name} ({node.driver or 'no driver'}, {node.address})" for node in nodes) or "none"
        parent = display.identity.parent
        own = next((node.path for node in nodes if node.address == parent), None)
        could = f"; {own} is the GPU that it is a part of" if own else ""
        exam.ends(readable.cause or "not-mappable", f"{readable.reason}; render nodes of this host: {told}{could}")
        return None
    if readable.way == "import":
        exam.ok("pixels", f"read back by the GPU that exported them: {readable.reason}")
    else:
        exam.ok("pixels", f"read through the {readable.way}" if readable.way != "read" else "read as a file")
    begin = time.perf_counter()
    frame = display.capture()
    exam.ok("pixels", f"read in {(time.perf_counter() - begin) * 1000:.1f} ms{_flags(frame)}")
    return frame


def _flags(frame: Frame) -> str:
    names = [flag.name.lower() for flag in FrameFlags if flag.name and flag in frame.flags]
    return f", {', '.join(names)}" if names else ""


def _examine_picture(exam: Examination, display: Display, frame: Frame, watch: float) -> None:
    colour = one_colour(frame)
    if watch or colour:
        changed = _changes(display, frame, max(watch, _COLOUR_WATCH if colour else 0))
        if changed is not None:
            frame = changed
            colour = one_colour(frame)
            exam.ok("pixels", "the picture changes")
        elif watch:
            exam.names["seconds"] = f"{watch:g}"
            exam.found("unchanged", f"the same picture for {watch:g} s")
    exam.names["picture"] = f"{frame.surface.width}x{frame.surface.height}"
    if colour:
        exam.names["colour"] = colour
        exam.ends("one-colour", f"all {frame.surface.width * frame.surface.height} pixels are {colour}")
    else:
        exam.ends("shown", "the picture has more than one colour")


def _changes(display: Display, frame: Frame, seconds: float) -> Frame | None:
    """Return another picture if one comes in time."""
    until = time.monotonic() + seconds
    serial = frame.serial
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
        try:
            now = display.capture()
        except (NothingDisplayed, GuestChangingMode):  # the picture was seen; a mode that is set now is no fault
            continue
        if now.serial != serial:
            return now
    return None


def one_colour(frame: Frame) -> str:
    """Return the colour of a picture that has just one, as #rrggbb, or "" for any other."""
    pixels = frame.pixels
    height = pixels.shape[0]
    first = pixels[0, 0, :3]
    # a coarse look first: most pictures differ in a row or two
    for rows in (pixels[:: max(1, height // 16)], pixels):
        if np.any(rows[..., :3] != first):
            return ""
    blue, green, red = (int(value) for value in first)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _examine_findings(exam: Examination, display: Display) -> None:
    try:
        for finding in display.findings():
            exam.told(finding, "guest" if "nothing-displayed" in finding.explains else "driver")
    except MdevDisplayError as error:
        exam.ok("driver", f"what the backend knows was not told: {error.message} [{error.cause}]")


def explain_failure(exam: Examination, error: MdevDisplayError) -> None:
    """Say why the display could not be opened."""
    if isinstance(error, NotADisplay) and error.cause == "not-a-display":
        exam.ok("access", "opened")
    exam.failed(error)
