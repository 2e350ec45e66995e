"""EGL's display for one GPU, found by its render node, or for llvmpipe. Opened once and never terminated.

EGL hands the same display to everybody in the process who asks for the device, and a terminate would end the contexts
of all of them. It keeps the render node open, once a GPU and process.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mdevdisplay.errors import NotMappable, NotPermitted, from_oserror
from mdevdisplay.gpu import egl
from mdevdisplay.gpu.render_nodes import RenderNode

__all__ = ["describe", "hint", "open_display"]

_MOST_DEVICES = 64

_LLVMPIPE_HINT = (
    "install Mesa 25 or newer: libegl-mesa0 and libgl1-mesa-dri, on Debian 12 from bookworm-backports "
    "(apt install -t bookworm-backports libegl-mesa0 libgl1-mesa-dri)"
)
_GPU_HINT = "install the EGL driver of this GPU: libegl-mesa0 and libgl1-mesa-dri for Intel and AMD"

_opened: dict[tuple[int, str], int] = {}


def describe(node: RenderNode | None) -> str:
    """Return how a device is called in messages."""
    return f"the GPU of {node.name}" if node else "llvmpipe"


def hint(node: RenderNode | None) -> str:
    """Return what to install for a device."""
    return _GPU_HINT if node else _LLVMPIPE_HINT


def open_display(node: RenderNode | None, device: str) -> int:
    """Return the EGLDisplay of a render node's GPU, or of llvmpipe for None; initialised, and the same each time.

    Raises:
        NotPermitted: the render node may not be opened; cause ``no-render-permission``.
        NotMappable: there is no such node, cause ``no-render-node``, or no driver of EGL has it, cause ``no-egl``.
    """
    key = (os.getpid(), node.name if node else "")
    if key not in _opened:
        call = egl.library(device)
        if node is not None:
            _check_permission(node, device)
        found = _find(call, node)
        if not found:
            raise NotMappable(
                f"the buffer can only be read by {describe(node)}, and no EGL driver here has that device",
                device=device,
                hint=hint(node),
                cause="no-egl",
            )
        _opened[key] = found
    return _opened[key]


def _find(call: egl.Egl, node: RenderNode | None) -> int:
    """Return the display of the device, or 0; of two drivers for one GPU that of the first that can import."""
    usable = 0
    for candidate in _devices(call):
        if not _is(call, candidate, node):
            continue
        display = call.eglGetPlatformDisplayEXT(egl.PLATFORM_DEVICE_EXT, candidate, None)
        if display and call.eglInitialize(display, None, None):
            if "EGL_EXT_image_dma_buf_import" in call.extensions(display):
                return int(display)
            usable = usable or int(display)
    return usable


def _devices(call: egl.Egl) -> list[int]:
    count = ctypes.c_int()
    found = (ctypes.c_void_p * _MOST_DEVICES)()
    if not call.eglQueryDevicesEXT(_MOST_DEVICES, found, count):
        return []
    return [candidate for candidate in found[: count.value] if candidate]


def _is(call: egl.Egl, candidate: int, node: RenderNode | None) -> bool:
    extensions = egl.plain_text(call.eglQueryDeviceStringEXT(candidate, egl.EXTENSIONS)).split()
    if node is None:
        return "EGL_MESA_device_software" in extensions
    if "EGL_EXT_device_drm_render_node" not in extensions:
        return False
    return Path(egl.plain_text(call.eglQueryDeviceStringEXT(candidate, egl.DRM_RENDER_NODE_FILE_EXT))).name == node.name


def _check_permission(node: RenderNode, device: str) -> None:
    """Open the node as the driver will, because EGL does not say why it cannot."""
    try:
        os.close(os.open(node.path, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        advice = "join the group that owns it, as a rule render: sudo usermod -aG render USER, then log in again"
        refused = from_oserror(error, device=device, doing=f"opening {node.path}", hint=advice, kind=NotPermitted)
        refused.cause = "no-render-permission"
        raise refused from error
    except OSError as error:
        advice = "in a container, pass the device on: --device /dev/dri"
        missing = from_oserror(error, device=device, doing=f"opening {node.path}", hint=advice, kind=NotMappable)
        missing.cause = "no-render-node"
        raise missing from error
