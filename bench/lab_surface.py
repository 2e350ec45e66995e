"""surface() against a bare ioctl, on the real mdpy driver: run it in the lab.

    lab/run -- .venv/bin/python bench/lab_surface.py

On an emulated processor a process is fast or slow as a whole, by where its memory happens to lie; so several are
measured, each against the ioctl of its own, and the median is what counts.
"""

from __future__ import annotations

import fcntl
import statistics
import subprocess
import sys
import uuid
from pathlib import Path

from measure import Figure, interleaved, print_figures

import mdevdisplay
from mdevdisplay.vfio import Device, uapi

PROCESSES = 7


def measure(name: str) -> tuple[float, float]:
    """Return the seconds of one surface() and of one bare ioctl of the same query."""
    with mdevdisplay.open(name) as display:
        source = display.source
        assert isinstance(source, Device)
        fd = source.fileno()
        buffer = bytearray(64)
        request = uapi.vfio_device_gfx_plane_info.from_buffer(buffer)
        request.argsz, request.flags, request.drm_plane_type = len(buffer), uapi.VFIO_GFX_PLANE_TYPE_REGION, 1
        ours, floor = interleaved(
            display.surface, lambda: fcntl.ioctl(fd, uapi.VFIO_DEVICE_QUERY_GFX_PLANE, buffer), rounds=9, pick=min
        )
    return ours, floor


def main() -> None:
    name = str(uuid.uuid4())
    Path("/sys/class/mdev_bus/mdpy/mdev_supported_types/mdpy-xga/create").write_text(name)
    pairs: list[tuple[float, float]] = []
    for _ in range(PROCESSES):
        out = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True).stdout
        ours, floor = map(float, out.split())
        pairs.append((ours, floor))
    ours, floor = sorted(pairs, key=lambda pair: pair[0] / pair[1])[PROCESSES // 2]
    spread = " ".join(f"{one / other:.1f}" for one, other in sorted(pairs, key=lambda pair: pair[0] / pair[1]))
    ratio = statistics.median(one / other for one, other in pairs)
    print_figures(
        [
            Figure(
                f"surface(), mdpy ({spread})",
                f"{ours * 1e6:.2f} us",
                f"bare fcntl.ioctl {floor * 1e6:.2f} us",
                ratio,
                "<= 3x",
                met=ratio <= 3,
            )
        ]
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measure(sys.argv[1]))
    else:
        main()
