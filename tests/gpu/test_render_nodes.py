"""Which GPU's render node a buffer is taken to, by a /sys and a /dev of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpu_pictures import picture

from mdevdisplay.errors import NotMappable, NotPermitted
from mdevdisplay.gpu.importer import GpuImporter, importer_for
from mdevdisplay.gpu.render_nodes import exporting_node, render_nodes
from mdevdisplay.host import HostRoot


class Host:
    """GPUs as sysfs shows them: a device, its driver, its render node in the class."""

    def __init__(self, path: Path) -> None:
        self.root = HostRoot(path)

    def add(self, address: str, driver: str, node: str = "") -> None:
        bus = self.root.sys / "bus/pci"
        device = self.root.sys / "devices/pci0000:00" / address
        device.mkdir(parents=True)
        link(bus / "devices" / address, device)
        if driver:
            (bus / "drivers" / driver).mkdir(parents=True, exist_ok=True)
            link(device / "driver", bus / "drivers" / driver)
        if node:
            (device / "drm" / node).mkdir(parents=True)
            link(device / "drm" / node / "device", device)
            link(self.root.sys / "class/drm" / node, device / "drm" / node)

    def make_node(self, name: str, mode: int = 0o660) -> None:
        path = self.root.dev / "dri" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(mode)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_gpu_of_the_parent_is_taken_among_several_of_its_driver(host: Host) -> None:
    """Two GPUs have the driver that exported the buffer: the mediated device's parent decides."""
    host.add("0000:00:02.0", "i915", "renderD128")
    host.add("0000:03:00.0", "i915", "renderD129")
    for parent, name in (("0000:00:02.0", "renderD128"), ("0000:03:00.0", "renderD129")):
        node = exporting_node("i915", parent, host.root)
        assert node is not None
        assert (node.name, node.address, node.driver) == (name, parent, "i915")
        assert node.path == host.root.dev / "dri" / name


def test_the_driver_alone_tells_where_only_one_gpu_has_it(host: Host) -> None:
    """Without a parent, as for a descriptor that was handed over, the exporter's only GPU is the one."""
    host.add("0000:00:02.0", "i915", "renderD128")
    host.add("0000:01:00.0", "amdgpu", "renderD129")
    node = exporting_node("amdgpu", "", host.root)
    assert node is not None
    assert node.name == "renderD129"


def test_two_gpus_of_one_driver_without_a_parent_are_refused(host: Host) -> None:
    """No guess: both are named."""
    host.add("0000:00:02.0", "i915", "renderD128")
    host.add("0000:03:00.0", "i915", "renderD129")
    with pytest.raises(NotMappable, match=r"renderD128 \(0000:00:02\.0\) and renderD129 \(0000:03:00\.0\)") as caught:
        exporting_node("i915", "", host.root, device="fd:7")
    assert caught.value.cause == "no-render-node"
    assert caught.value.device == "fd:7"


def test_another_gpu_of_the_same_driver_is_never_taken(host: Host) -> None:
    """The exporting GPU has no render node; the other one has, and cannot read the buffer."""
    host.add("0000:00:02.0", "i915")
    host.add("0000:03:00.0", "i915", "renderD129")
    with pytest.raises(NotMappable, match=r"GPU at 0000:00:02\.0, and that has no render node"):
        exporting_node("i915", "0000:00:02.0", host.root)


@pytest.mark.parametrize("exporter", ["", "udmabuf", "system", "mbochs", "vgem"])
def test_what_no_gpu_has_exported_is_the_processors(host: Host, exporter: str) -> None:
    """Exporters that drive no render node need none, even where the parent is a GPU or vgem has a node."""
    host.add("0000:00:02.0", "i915", "renderD128")
    host.add("vgem", "", "renderD129")
    assert exporting_node(exporter, "0000:00:02.0", host.root) is None


def test_a_host_without_sysfs_has_no_nodes(host: Host) -> None:
    """Nothing there is an empty list, and a parent that is no name of a device is not followed."""
    assert render_nodes(host.root) == []
    assert exporting_node("i915", "../../..", host.root) is None


def test_links_that_lead_nowhere_or_in_circles_are_nodes_without_a_driver(host: Host) -> None:
    """A GPU may go while it is looked at."""
    link(host.root.sys / "class/drm/renderD128/device", host.root.sys / "devices/gone")
    circle = host.root.sys / "class/drm/renderD129/device"
    link(circle, circle)
    assert [(node.name, node.address, node.driver) for node in render_nodes(host.root)] == [
        ("renderD128", "", ""),
        ("renderD129", "", ""),
    ]


def test_a_render_node_that_may_not_be_opened_names_the_group(host: Host) -> None:
    """No permission is an error of its own, with what to do."""
    host.add("0000:00:02.0", "i915", "renderD128")
    host.make_node("renderD128", 0)
    node = exporting_node("i915", "0000:00:02.0", host.root)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted, match=r"sim:.*renderD128.*EACCES.*usermod -aG render") as caught:
            GpuImporter(node, device="sim:")
    finally:
        os.seteuid(user)
    assert caught.value.cause == "no-render-permission"


def test_a_render_node_that_is_not_in_dev_is_named(host: Host) -> None:
    """As in a container without it."""
    host.add("0000:00:02.0", "i915", "renderD128")
    with pytest.raises(NotMappable, match=r"renderD128.*ENOENT.*--device /dev/dri") as caught:
        GpuImporter(exporting_node("i915", "", host.root))
    assert caught.value.cause == "no-render-node"


def test_a_gpu_that_egl_does_not_know_is_refused_and_no_other_is_taken(host: Host) -> None:
    """The node is there and no driver of EGL has it: llvmpipe, which EGL has, does not take its place."""
    host.add("0000:00:02.0", "i915", "renderD199")
    host.make_node("renderD199")
    with pytest.raises(NotMappable, match=r"the GPU of renderD199, and no EGL driver.*install") as caught:
        GpuImporter(exporting_node("i915", "", host.root))
    assert caught.value.cause == "no-egl"


def test_the_hosts_root_may_be_elsewhere(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """MDEVDISPLAY_HOST_ROOT is where GPUs are looked for; a memfd needs none of them."""
    monkeypatch.setenv("MDEVDISPLAY_HOST_ROOT", str(host.root.path))
    host.add("0000:00:02.0", "i915", "renderD128")
    with picture("XR24", 8, 8) as made, importer_for(made.dmabuf, parent="0000:00:02.0", device="") as importer:
        assert importer.renderer.startswith("llvmpipe")
