"""What is special about NVIDIA's vGPUs: parameters, the single mapping of the console, modes that read as zero."""

from __future__ import annotations

import numpy as np

from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.host.console import Console
from mdevdisplay.host.devices import PCI_ADDRESS, HostDevice
from mdevdisplay.host.root import HostRoot, read_attribute
from mdevdisplay.pixels.frame import Frame

__all__ = ["examine_console_mapping", "examine_parameters", "examine_zeros", "is_zero_mode"]

_PAGE = 4096


def examine_parameters(exam: Examination, device: HostDevice, root: HostRoot) -> None:
    """Look for disable_vnc=1 among the parameters of a vGPU."""
    bus = "pci" if PCI_ADDRESS.fullmatch(device.identity.name) else "mdev"
    path = root.sys / "bus" / bus / "devices" / device.identity.name / "nvidia/vgpu_params"
    exam.names["parameters"] = str(path)
    words = read_attribute(path).replace(",", " ").split()
    if "disable_vnc=1" in words:
        exam.found("nvidia-disable-vnc", f"{path} has disable_vnc=1")


def examine_console_mapping(exam: Examination, device: HostDevice, console: Console | None) -> None:
    """Say that QEMU shows the vGPU itself, and so has the one mapping that there may be."""
    for setting in console.vgpus if console is not None else ():
        if setting.name == device.identity.name and setting.display != "off":
            exam.found("nvidia-console-mapped", f"QEMU has {setting.name} with display={setting.display}")


def examine_zeros(exam: Examination, frame: Frame, root: HostRoot) -> None:
    """Say whether a picture of zeros has a mode that NVIDIA's R535 driver hands out as zeros."""
    width, height = frame.surface.width, frame.surface.height
    version = read_attribute(root.sys / "module/nvidia/version") or "unknown"
    if version.partition(".")[0] in ("535", "unknown") and is_zero_mode(width, height) and not np.any(frame.raw):
        rows = -(-width * 4 // 128) * 128 * height
        exam.found(
            "nvidia-zero-mode",
            f"every byte is 0, and align128({width} * 4) * {height} = {rows} is no multiple of {_PAGE}; NVIDIA's "
            f"driver is version {version}",
        )


def is_zero_mode(width: int, height: int) -> bool:
    """Whether a mode of 32 bits a pixel is one whose console R535 leaves at zero: align128(4 w) h % 4096 != 0."""
    return (width * 4 + 127) // 128 * 128 * height % _PAGE != 0
