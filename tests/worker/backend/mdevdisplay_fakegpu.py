"""A backend for tests: ``fakegpu:KEY=VALUE,…`` is a VFIO device by its class, which a memfd stands in for.

name: the device's name; pid: the VMM, whose end is the device's; die: the signal that the process sends itself when
asked for a surface; sleep: the seconds that this takes; file: where each opening and closing is noted; decode: the
backend decodes; long: how long the findings are.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mdevdisplay import Identity, Match, PlaneType, Refusal, Source, SurfaceInfo, fourcc, hookimpl
from mdevdisplay.errors import MdevDisplayError, VmGone
from mdevdisplay.region import Mappable
from mdevdisplay.source import Finding
from mdevdisplay.vfio import Device

HOOKSPEC_VERSION = (1, 0)
WIDTH, HEIGHT = 16, 8


class Lifeline:
    def __init__(self, pid: int, locator: str) -> None:
        self.pidfd = os.pidfd_open(pid)
        self.locator = locator

    def fileno(self) -> int:
        return self.pidfd

    def error(self) -> MdevDisplayError:
        return VmGone("the fake VM has ended", device=self.locator)


class FakeGpu(Device):
    def __init__(self, locator: str, options: dict[str, str]) -> None:
        fd = os.memfd_create("fakegpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.pwrite(fd, bytes(range(256)) * (WIDTH * HEIGHT * 4 // 256), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        super().__init__(fd, locator, Identity(name=options.get("name", ""), driver="fakegpu"), borrowed=True)
        self.options = options
        if "pid" in options:
            self.lifeline = Lifeline(int(options["pid"]), locator)
        self.note("open")

    def note(self, what: str) -> None:
        if "file" in self.options:
            with Path(self.options["file"]).open("a") as file:
                file.write(f"{what} {os.getpid()}\n")


@hookimpl
def open_locator(locator: str) -> Source | None:
    scheme, _, rest = locator.partition(":")
    if scheme != "fakegpu":
        return None
    return FakeGpu(locator, dict(option.split("=", 1) for option in rest.split(",") if option))


@hookimpl
def probe(source: Source) -> Match | Refusal:
    return Match(1000, "fake") if isinstance(source, FakeGpu) else Refusal("not fake")


@hookimpl
def get_surface_info(source: FakeGpu, plane: PlaneType) -> SurfaceInfo | None:
    if plane is not PlaneType.PRIMARY:
        return None
    if "die" in source.options:
        os.kill(os.getpid(), signal.Signals[source.options["die"]])
    if "sleep" in source.options:
        time.sleep(float(source.options["sleep"]))
    if "raise" in source.options:
        raise RuntimeError(source.options["raise"])
    code = "FAKE" if "decode" in source.options else "XR24"
    return SurfaceInfo(
        fourcc=fourcc(code),
        width=WIDTH,
        height=HEIGHT,
        stride=WIDTH * 4,
        size=WIDTH * HEIGHT * 4,
        region_index=0,
        output=int("mdevdisplay_fakegpu_late" in sys.modules),
    )


@hookimpl
def query_region(source: FakeGpu, surface: SurfaceInfo) -> Mappable:
    return Mappable(fd=source.fileno(), offset=0, size=surface.size)


@hookimpl
def decode(surface: SurfaceInfo, buffer: np.ndarray) -> np.ndarray | None:
    if surface.fourcc != fourcc("FAKE"):
        return None
    return 255 - buffer[: surface.size].reshape(surface.height, surface.width, 4)


@hookimpl
def diagnose(source: FakeGpu) -> Iterable[Finding]:
    length = int(source.options.get("long", "10"))
    text = "\x01" * length
    return [Finding(cause=text, evidence=text, remedy=text) for _ in range(length)]
