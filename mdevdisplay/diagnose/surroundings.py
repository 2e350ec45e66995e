"""What a bug report needs to know of the program, the host and a device, from sysfs, /proc and metadata alone.

Nothing here has a name of a person, a machine or a VM by intent; what drivers say may have one, and is redacted later.
"""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import islice
from pathlib import Path
from typing import Any

from mdevdisplay.facts import plugin_facts
from mdevdisplay.gpu.render_nodes import render_nodes
from mdevdisplay.host.console import Console
from mdevdisplay.host.devices import PCI_ADDRESS, HostDevice
from mdevdisplay.host.processes import Process
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["console_facts", "device_facts", "host_facts", "version_facts"]

_MOST = 256
_MOST_WORD = 200
_MODULES = re.compile(
    r"(vfio|mdev|iommufd|irqbypass|kvm|i915|xe|amdgpu|radeon|gim|nvidia|nouveau|mbochs|mdpy|mtty|udmabuf|drm|virtio_gpu|"
    r"bochs|cirrus|qxl|ast|mgag200|simpledrm|vgem)(_[a-z0-9_]+)?|kvmgt"
)
_KERNEL_WORDS = re.compile(
    r"(intel_iommu|amd_iommu|iommu|iommu\.[a-z_]+|i915\.[a-z_]+|xe\.[a-z_]+|amdgpu\.[a-z_]+|nvidia[a-z_-]*\.[A-Za-z_]+|"
    r"kvm[a-z_]*\.[a-z_]+|vfio[a-z_-]*\.[a-z_]+|modprobe\.blacklist|module_blacklist|pci|nomodeset|lsm|security|apparmor|"
    r"selinux)(=.*)?"
)
_ATTRIBUTES = (
    *("vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision", "driver_override", "enable"),
    *("numa_node", "reset_method", "power/runtime_status", "iommu_group/type"),
    *("mdev_type/name", "mdev_type/description", "mdev_type/device_api", "mdev_type/available_instances"),
    *("nvidia/current_vgpu_type", "nvidia/vgpu_params", "nvidia/creatable_vgpu_types"),
    *("intel_vgpu/vgpu_id", "intel_vgpu/hw_id"),
)
_OF_PARENT = ("vendor", "device", "class", "revision", "sriov_numvfs", "sriov_totalvfs")
_OWN_STATUS = ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")


def version_facts(root: HostRoot) -> dict[str, Any]:
    """Return the versions of the program, of what it stands on, and of its backends."""
    return {
        "mdevdisplay": _version("mdevdisplay"),
        "python": {"implementation": platform.python_implementation(), "version": platform.python_version()},
        "kernel": {
            "release": read_attribute(root.proc / "sys/kernel/osrelease"),
            "machine": os.uname().machine,
        },
        "system": dict(_os_release(root)),
        "distributions": [{"name": name, "version": _version(name)} for name in _requirements()],
        **plugin_facts(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    """Return the distributions that ours asks for, those of extras too."""
    try:
        found = requires("mdevdisplay") or []
    except PackageNotFoundError:
        return []
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in found)
    return sorted({match[0] for match in names if match})


def _os_release(root: HostRoot) -> Iterator[tuple[str, str]]:
    for line in read_attribute(root.path / "etc/os-release").splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("ID", "VERSION_ID", "VARIANT_ID"):
            yield key.lower(), value.strip("\"'")


def host_facts(root: HostRoot) -> dict[str, Any]:
    """Return what bears on VFIO: modules, security modules, IOMMU groups, nodes, and what this program may do."""
    return {
        "modules": [_module(path) for path in _entries(root.sys / "module") if _MODULES.fullmatch(path.name)],
        "kernel_parameters": _kernel_parameters(root),
        "lsm": read_attribute(root.sys / "kernel/security/lsm"),
        "yama_ptrace_scope": read_attribute(root.proc / "sys/kernel/yama/ptrace_scope"),
        "iommu_groups": len(_entries(root.sys / "kernel/iommu_groups", most=1 << 16)),
        "nodes": [_node(path, root) for path in _nodes(root)],
        "render_nodes": [
            {"name": node.name, "driver": node.driver, "address": node.address, **_mode(node.path)}
            for node in render_nodes(root)
        ],
        "program": {"root": os.geteuid() == 0, **_own_rights(root)},
    }


def _module(path: Path) -> dict[str, str]:
    told = {name: read_attribute(path / name) for name in ("version", "refcnt", "initstate", "taint")}
    return {"name": path.name, **{name: text for name, text in told.items() if text}}


def _kernel_parameters(root: HostRoot) -> list[str]:
    words = read_attribute(root.proc / "cmdline").split()
    return [_short(word) for word in words if _KERNEL_WORDS.fullmatch(word)]


def _nodes(root: HostRoot) -> Iterator[Path]:
    yield root.dev / "kvm"
    yield root.dev / "iommu"
    for path in _entries(root.dev / "vfio"):
        if path.name == "devices":
            yield from _entries(path)
        else:
            yield path


def _node(path: Path, root: HostRoot) -> dict[str, Any]:
    return {"name": str(path.relative_to(root.path)), **_mode(path)}


def _mode(path: Path) -> dict[str, Any]:
    """Return a node's mode, and whether it is root's: not whose else."""
    try:
        found = path.lstat()
    except OSError as error:
        return {"missing": error.strerror or str(error)}
    return {
        "mode": stat.filemode(found.st_mode),
        "owner": "root" if found.st_uid == 0 else "other",
        "group": "root" if found.st_gid == 0 else "other",
        "readable": os.access(path, os.R_OK | os.W_OK),
    }


def _own_rights(root: HostRoot) -> dict[str, str]:
    try:
        with Process(root.proc, "self") as process:
            status = process.status()
    except OSError:
        return {}
    return {name: status[name] for name in _OWN_STATUS if name in status}


def device_facts(root: HostRoot, device: HostDevice) -> dict[str, Any]:
    """Return what sysfs shows of a device and of the GPU that it is a part of."""
    identity = device.identity
    bus = "pci" if PCI_ADDRESS.fullmatch(identity.name) else "mdev"
    parent = root.sys / "bus/pci/devices" / identity.parent
    return {
        "name": identity.name,
        "bus": bus,
        "driver": identity.driver,
        "vendor": identity.vendor,
        "mdev_type": identity.mdev_type,
        "type_name": device.type_name,
        "parent": identity.parent,
        "iommu_group": device.group,
        "devices_of_the_group": len(_entries(root.sys / "kernel/iommu_groups" / device.group / "devices"))
        if device.group
        else 0,
        "vfio": device.vfio,
        "attributes": _attributes(root.sys / "bus" / bus / "devices" / identity.name, _ATTRIBUTES),
        "parent_attributes": _attributes(parent, _OF_PARENT) if identity.parent else [],
    }


def _attributes(path: Path, names: Iterable[str]) -> list[dict[str, str]]:
    read = ((name, read_attribute(path / name)) for name in names)
    return [{"name": name, "value": text} for name, text in read if text]


def console_facts(console: Console) -> dict[str, Any]:
    """Return what a VMM's command line says of displays, and no other word of it: it has passwords and addresses."""
    return {
        "vgpus": [
            {
                "name": _short(setting.name),
                "display": setting.display,
                "ramfb": setting.ramfb,
                "driver": setting.driver,
                "index": setting.index,
            }
            for setting in console.vgpus[:_MOST]
        ],
        "cards": _shorts(console.cards),
        "ramfb": console.ramfb,
        "viewers": [
            {"kind": _short(viewer.kind), "gl": viewer.gl, "rendernode": _short(viewer.rendernode)}
            for viewer in console.viewers[:_MOST]
        ],
        "starts_paused": console.starts_paused,
        "qmp_sockets": len(console.qmp),
        "qmp_waits": bool(console.qmp_waits),
        "monitored": console.monitored,
        "given_files": console.given_files,
    }


def _shorts(words: Sequence[str]) -> list[str]:
    return [_short(word) for word in words[:_MOST]]


def _short(word: str) -> str:
    return word if len(word) <= _MOST_WORD else word[: _MOST_WORD - 1] + "…"


def _entries(folder: Path, most: int = _MOST * 16) -> list[Path]:
    try:
        return sorted(islice(folder.iterdir(), most))
    except OSError:
        return []
