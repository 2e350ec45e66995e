"""The host's side: VFIO, mdev, the IOMMU, and whether the host's processes can be seen."""

from __future__ import annotations

import os
from pathlib import Path

from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.host.devices import (
    NVIDIA_TYPE,
    list_functions,
    list_mdevs,
)
from mdevdisplay.host.holders import INITIAL_PID_NAMESPACE
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["examine_host"]

_MOST_ENTRIES = 4096


def examine_host(exam: Examination, root: HostRoot, *, met: bool = False) -> int:
    """Look at VFIO, mdev and the IOMMU; return how many vGPUs there are. ``met``: the device in question is there."""
    mdevs, functions = list_mdevs(root), list_functions(root)
    untyped = _without_type(root)
    has_mdev = (root.sys / "bus/mdev").is_dir()
    has_nodes = _exists(root.dev / "vfio/vfio") or _exists(root.dev / "vfio/devices")
    # a container may have the host's /sys and not its /dev
    has_vfio = has_nodes or any(device.vfio for device in (*mdevs, *functions)) or (root.sys / "class/vfio").is_dir()
    groups = _names(root.sys / "kernel/iommu_groups")
    parents = _names(root.sys / "class/mdev_bus")
    release = read_attribute(root.proc / "sys/kernel/osrelease")
    exam.ok(
        "host",
        f"Linux {release or 'of an unknown version'}; /dev/vfio is {'there' if has_nodes else 'missing'}; "
        f"mdev is {'loaded' if has_mdev else 'not loaded'}; {len(groups)} IOMMU groups; "
        f"{len(mdevs)} mediated devices, {len(functions)} vGPU functions, {len(untyped)} of NVIDIA's without a type",
    )
    if not has_vfio and not met:
        exam.found("no-vfio", f"{root.dev}/vfio/vfio is missing")
    if not has_mdev and not functions and not untyped and not met:
        exam.found("no-mdev", f"{root.sys}/bus/mdev is missing, and no virtual function of a GPU is a vGPU")
    namespace = _pid_namespace(root)
    if namespace not in ("", INITIAL_PID_NAMESPACE) and _is_ours(root):
        exam.found("own-pid-namespace", f"{root.proc}/self/ns/pid is {namespace}, not {INITIAL_PID_NAMESPACE}")
    if parents:
        exam.names["parent"] = parents[0]
        exam.ok("host", f"vGPUs can be made on {', '.join(parents[:8])}")
    return len(mdevs) + len(functions)


def _without_type(root: HostRoot) -> list[str]:
    """Return NVIDIA's virtual functions that are no vGPUs yet."""
    names = _names(root.sys / "bus/pci/devices")
    return [name for name in names if read_attribute(root.sys / "bus/pci/devices" / name / NVIDIA_TYPE) == "0"]


def _is_ours(root: HostRoot) -> bool:
    """Whether a /proc is of this program's own pid namespace, and not one of the host's that a container was given."""
    try:
        return str((root.proc / "self").readlink()) == str(os.getpid())
    except OSError:
        return True


def _pid_namespace(root: HostRoot) -> str:
    try:
        return str((root.proc / "self/ns/pid").readlink())
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # it is there, and we may not look


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())[:_MOST_ENTRIES]
    except OSError:
        return []
