"""Backend that needs no GPU: ``sim:`` opens a display of the framework's own making.

A simulated driver answers the ioctls of VFIO with raw bytes, in every format and with every fault that real drivers
have, and is read through the same code as they are. README.md has the options and the faults.
"""

from __future__ import annotations

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.hookspecs import hookimpl
from mdevdisplay.region import Mappable
from mdevdisplay.source import DeviceInfo, Finding, Source
from mdevdisplay.surface import Match, PlaneType, Refusal, SurfaceInfo
from mdevdisplay_simulated.counter import read_counter
from mdevdisplay_simulated.faults import FAULTS
from mdevdisplay_simulated.options import SCHEME
from mdevdisplay_simulated.source import SimulatedSource

__all__ = ["FAULTS", "SimulatedSource", "read_counter"]

HOOKSPEC_VERSION = (1, 0)


@hookimpl
def open_locator(locator: str) -> Source | None:
    """Open ``sim:`` with its options."""
    return SimulatedSource(locator) if locator.startswith(SCHEME) else None


@hookimpl
def list_devices() -> list[DeviceInfo]:
    """Return nothing: a simulated display is there for the asking."""
    return []


@hookimpl
def probe(source: Source) -> Match | Refusal:
    """Match a simulated display whose driver answers the probe."""
    if not isinstance(source, SimulatedSource):
        return Refusal("not a simulated display")
    answer = source.probe()
    return Match(100, f"simulated, {answer.text}") if answer.supported else Refusal(answer.text)


@hookimpl
def get_surface_info(source: SimulatedSource, plane: PlaneType, output: int) -> SurfaceInfo | None:
    """Query a plane; there is one output, and no overlay."""
    if output or plane is PlaneType.OVERLAY:
        return None
    return source.query_plane(plane)


@hookimpl
def create_dmabuf(source: SimulatedSource, surface: SurfaceInfo) -> DmaBuf | None:
    """Return the surface's dma-buf; None with ``via=region``."""
    return source.get_dmabuf(surface)


@hookimpl
def query_region(source: SimulatedSource, surface: SurfaceInfo) -> Mappable | None:
    """Return the surface's memory; None with ``via=dmabuf``."""
    return source.mappable(surface)


@hookimpl
def diagnose(source: SimulatedSource) -> list[Finding]:
    """Name the faults that are switched on, and a blank screen that was asked for."""
    findings = [
        Finding(
            cause=f"simulated-{name}",
            evidence=f"the locator asks for fault {name}: {FAULTS[name].effect} (who does so: {FAULTS[name].source})",
            remedy=f"leave {name} out of the locator's fault=",
        )
        for name, _ in source.options.faults
    ]
    if source.options.blank is not None:
        evidence = f"the locator asks for frames without a picture: blank={source.options.blank}"
        findings.append(Finding(cause="simulated-blank", evidence=evidence, remedy="leave blank= out of the locator"))
    return findings
