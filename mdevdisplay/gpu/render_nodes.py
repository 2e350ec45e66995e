"""Which GPU has exported a dma-buf: its render node, from sysfs alone."""

from __future__ import annotations

from pathlib import Path

import attrs

from mdevdisplay.errors import NotMappable
from mdevdisplay.host.root import HostRoot

__all__ = ["RenderNode", "exporting_node", "render_nodes"]

_MOST_NODES = 256


@attrs.frozen(kw_only=True)
class RenderNode:
    """A GPU that can be used without a screen.

    Attributes:
        name: ``renderD128``.
        path: ``/dev/dri/renderD128``, below the host's root.
        address: the GPU as sysfs spells it: ``0000:00:02.0``.
        driver: the driver bound to it: ``i915``; "" for none, as with vgem.
    """

    name: str
    path: Path
    address: str
    driver: str


def render_nodes(root: HostRoot) -> list[RenderNode]:
    """Return the render nodes of the host in the order of their numbers."""
    try:
        found = sorted(path for path in (root.sys / "class/drm").iterdir() if path.name.startswith("renderD"))
    except OSError:
        return []
    return [
        RenderNode(
            name=path.name,
            path=root.dev / "dri" / path.name,
            address=_target(path / "device"),
            driver=_target(path / "device/driver"),
        )
        for path in found[:_MOST_NODES]
    ]


def exporting_node(exporter: str, parent: str, root: HostRoot, *, device: str = "") -> RenderNode | None:
    """Return the render node of the GPU that exported a buffer, or None for what is no GPU's: a memfd, udmabuf, a heap.

    A dma-buf's exporter is the name of the driver's module, but two GPUs may have the same driver: then the parent of
    the mediated device says which one. A buffer is never taken to any other GPU: that one could not read it, since the
    exporter hands out its own DMA addresses only.

    Args:
        exporter: `DmaBuf.exporter`.
        parent: the PCI address of the device's parent as sysfs spells it, or "".
        root: where /sys and /dev are.
        device: the locator for messages.

    Raises:
        NotMappable: the GPU has no render node, or two could be the one; cause ``no-render-node``.
    """
    if not exporter:
        return None
    of_driver = [node for node in render_nodes(root) if node.driver == exporter]
    for node in of_driver:
        if node.address == parent:
            return node
    if _driver_of(parent, root) == exporter:
        raise NotMappable(
            f"the buffer can only be read by the GPU at {parent}, and that has no render node in {root.sys}/class/drm",
            device=device,
            hint="in a container, mount the host's /sys and /dev/dri; else see what the kernel's log says of the GPU",
            cause="no-render-node",
        )
    if len(of_driver) > 1:
        names = " and ".join(f"{node.name} ({node.address})" for node in of_driver)
        raise NotMappable(
            f"the buffer was exported by {exporter}, and {names} have that driver",
            device=device,
            hint="name the device by its UUID or its VM, so that its parent is known",
            cause="no-render-node",
        )
    return of_driver[0] if of_driver else None


def _driver_of(address: str, root: HostRoot) -> str:
    if not address or "/" in address or "\0" in address:
        return ""
    return _target(root.sys / "bus/pci/devices" / address / "driver")


def _target(link: Path) -> str:
    """Return the name of what a link of sysfs leads to; "" where there is none."""
    try:
        return link.resolve(strict=True).name
    except (OSError, RuntimeError):
        return ""
