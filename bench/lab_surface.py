"""surface() against a bare ioctl, on the real mdpy driver: run it in the lab.

lab/run -- .venv/bin/python bench/lab_surface.py
"""

from __future__ import annotations

import ctypes
import fcntl
import uuid
from pathlib import Path

from measure import Figure, interleaved, print_figures

import mdevdisplay
from mdevdisplay.vfio import Device, uapi


def main() -> None:
    name = str(uuid.uuid4())
    Path("/sys/class/mdev_bus/mdpy/mdev_supported_types/mdpy-xga/create").write_text(name)
    with mdevdisplay.open(name) as display:
        source = display.source
        assert isinstance(source, Device)
        fd = source.fileno()
        buffer = bytearray(64)
        request = uapi.vfio_device_gfx_plane_info.from_buffer(buffer)
        request.argsz, request.flags, request.drm_plane_type = 64, 4, 1
        ours, floor = interleaved(
            display.surface,
            lambda: fcntl.ioctl(fd, uapi.VFIO_DEVICE_QUERY_GFX_PLANE, buffer),
            rounds=15,
            pick=min,  # an emulated processor whose host does other things too
        )
        assert ctypes.sizeof(request) == 64
    ratio = ours / floor
    print_figures(
        [
            Figure(
                "surface(), mdpy",
                f"{ours * 1e6:.2f} us",
                f"bare fcntl.ioctl {floor * 1e6:.2f} us",
                ratio,
                "<= 3x",
                met=ratio <= 3,
            )
        ]
    )


if __name__ == "__main__":
    main()
