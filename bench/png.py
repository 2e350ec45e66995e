"""Writing a PNG, against Pillow at the same level and the same pixels."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from measure import Figure, interleaved

import mdevdisplay


def figures() -> list[Figure]:
    with mdevdisplay.open("sim:1920x1080,fps=0") as display:
        frame = display.capture()

    def pillow() -> bytes:
        file = io.BytesIO()
        frame.to_image().save(file, "PNG", compress_level=1)
        return file.getvalue()

    ours, peer = interleaved(frame.to_png, pillow, rounds=7)
    png = frame.to_png()
    exact = np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(png))), frame.to_ndarray("rgb24"))
    ratio = peer / ours
    return [
        Figure(
            f"to_png() 1080p{'' if exact else ' NOT EXACT'}",
            f"{ours * 1e3:.1f} ms, {len(png) // 1024} KiB",
            f"Pillow level 1 {peer * 1e3:.1f} ms, {len(pillow()) // 1024} KiB",
            ratio,
            ">= 7x",
            met=ratio >= 7 and exact,
        )
    ]
