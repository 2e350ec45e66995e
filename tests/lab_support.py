"""What the lab's tests do to the real drivers: draw, set modes, count what is open."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

import mdevdisplay
from mdevdisplay.vfio import Device

CLASS = Path("/sys/class/mdev_bus")
MDEVS = Path("/sys/bus/mdev/devices")


_writers: list[subprocess.Popen[bytes]] = []


def remove_mdev(name: str, seconds: float = 20) -> bool:
    """Remove a mediated device; False if somebody, such as a failed test's variables, still has it open by then.

    A write to ``remove`` returns once the last descriptor and mapping are gone, and no signal ends it. A child writes,
    so that it is the child that waits, and only until this process has ended.
    """
    writer = subprocess.Popen(["/bin/sh", "-c", 'echo 1 >"$0"', str(MDEVS / name / "remove")])
    try:
        return writer.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        _writers.append(writer)
        return False


def run_cli(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mdevdisplay", *arguments],
        capture_output=True,
        timeout=100,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def let_everybody_execute(python: str) -> None:
    """Open the folders on the way to the interpreter and its packages: a checkout may lie in a home directory.

    The lab's file system is an overlay that ends with it.
    """
    for place in (python, os.path.realpath(python), mdevdisplay.__file__):
        for folder in Path(place).parents:
            folder.chmod(folder.stat().st_mode | 0o055)


def device_of(display: mdevdisplay.Display) -> Device:
    source = display.source
    assert isinstance(source, Device)
    return source


class VideoMemory:
    """A writable mapping of the memory that a guest would draw into."""

    def __init__(self, device: Device, region: int) -> None:
        info = device.region(region)
        assert info is not None
        self._map = mmap.mmap(device.fileno(), info.size, mmap.MAP_SHARED, offset=info.offset)

    def draw(self, start: int, stride: int, rows: np.ndarray) -> None:
        """Write (height, bytes of a row) uint8."""
        for number, row in enumerate(rows):
            at = start + number * stride
            self._map[at : at + row.size] = row.tobytes()

    def close(self) -> None:
        self._map.close()


VBE = {"xres": 1, "yres": 2, "bpp": 3, "enable": 4, "virt_width": 6, "virt_height": 7, "x_offset": 8, "y_offset": 9}


def set_vbe(device: Device, **values: int) -> None:
    """Write mbochs' VBE registers as a guest would: 16 bits each, at 0x500 of region 2."""
    region = device.region(2)
    assert region is not None
    for name, value in values.items():
        os.pwrite(device.fileno(), struct.pack("<H", value), region.offset + 0x500 + 2 * VBE[name])


def set_mode(device: Device, width: int, height: int, *, virt_width: int = 0, x: int = 0, y: int = 0) -> None:
    """Set a mode of mbochs without a guest."""
    set_vbe(device, xres=width, yres=height, bpp=32, virt_width=virt_width or width, virt_height=height + y)
    set_vbe(device, x_offset=x, y_offset=y)
    set_vbe(device, enable=0x41)


def open_descriptors() -> set[str]:
    """What this process has open, by descriptor and target."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name}={entry.readlink()}")
        except OSError:
            continue
    return found


def device_mappings() -> list[str]:
    """The lines of this process's memory map that belong to a vfio device or a dma-buf."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "vfio" in line or "dmabuf" in line]


def has_cloexec(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
