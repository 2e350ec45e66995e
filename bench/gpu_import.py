"""Reading an imported 1080p buffer again on llvmpipe, against glReadPixels alone of a framebuffer of the same size."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from measure import Figure, interleaved

from mdevdisplay.gpu import egl
from mdevdisplay.gpu.context import Context
from mdevdisplay.gpu.importer import GpuImporter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from gpu_pictures import RGB, expected_rgb, picture
from mesa import use

WIDTH, HEIGHT = 1920, 1080


def _ordinary_framebuffer() -> None:
    """Make and bind a framebuffer of 8 bits a channel, in the context that is current."""
    call = egl.library()
    framebuffer, renderbuffer = ctypes.c_uint(), ctypes.c_uint()
    call.glGenFramebuffers(1, framebuffer)
    call.glBindFramebuffer(egl.FRAMEBUFFER, framebuffer)
    call.glGenRenderbuffers(1, renderbuffer)
    call.glBindRenderbuffer(egl.RENDERBUFFER, renderbuffer)
    call.glRenderbufferStorage(egl.RENDERBUFFER, egl.RGBA8, WIDTH, HEIGHT)
    call.glFramebufferRenderbuffer(egl.FRAMEBUFFER, egl.COLOR_ATTACHMENT0, egl.RENDERBUFFER, renderbuffer)


def _milliseconds(call: Callable[[], object], alone: Callable[[], object]) -> list[float]:
    return [seconds * 1e3 for seconds in interleaved(call, alone, rounds=7, pick=min)]


def figures() -> list[Figure]:
    use()
    found = []
    call = egl.library()
    other = Context(None, "")
    target = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    address = ctypes.c_void_p(target.ctypes.data)
    with GpuImporter(None) as importer:
        with other.current():
            _ordinary_framebuffer()

        def alone(order: int) -> None:
            with other.current():
                call.glReadPixels(0, 0, WIDTH, HEIGHT, order, egl.UNSIGNED_BYTE, address)

        # the order in which the ordinary framebuffer has its channels moved as much as the imported one has
        for code, order, bound in (
            ("XR24", egl.RGBA, 3),
            ("XB24", egl.BGRA_EXT, 3),
            ("XR30", egl.RGBA, None),
            ("RG16", egl.RGBA, None),
            ("NV12", egl.RGBA, None),
        ):
            with picture(code, WIDTH, HEIGHT) as made:
                read = partial(importer.read, made.dmabuf, target)
                ours, peer = _milliseconds(read, partial(alone, order))
                read()
                right = code not in RGB or np.array_equal(target, expected_rgb(code, made.raw()))
            found.append(
                Figure(
                    f"GPU import, 1080p {code} read again{'' if right else ' NOT EXACT'}",
                    f"{ours:.2f} ms",
                    f"glReadPixels alone {peer:.2f} ms",
                    ours / peer,
                    f"<= {bound}x" if bound else "-",
                    met=right and (bound is None or ours <= bound * peer),
                )
            )
    other.close()
    return found
