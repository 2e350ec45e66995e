"""What the other tests of VMs stand on: guests draw what they are told to, and a VM leaves nothing behind.

The displays are read here by hand, through a descriptor taken out of QEMU, without a line of mdevdisplay's own.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import numpy as np
import pytest
from lab_support import MDEVS, open_descriptors, remove_mdev
from lab_vm import QmpError, Vm, VmFailed, create_mdev, expected_picture, ready

pytestmark = pytest.mark.timeout(400)

SYS_PIDFD_GETFD = 438
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
VFIO_DEVICE_QUERY_GFX_PLANE = 0x3B72
PLANE_REGION = 4
VBE_XRES, VBE_YRES, VBE_VIRT_WIDTH, VBE_X_OFFSET, VBE_Y_OFFSET = 1, 2, 6, 8, 9


@contextmanager
def taken(pid: int, number: int) -> Iterator[int]:
    """A duplicate of another process's descriptor."""
    process = os.pidfd_open(pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    try:
        yield fd
    finally:
        os.close(fd)


def region(fd: int, index: int) -> tuple[int, int]:
    """A region's size and offset."""
    info = bytearray(struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
    fcntl.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, info)
    *_, size, offset = struct.unpack("<IIIIQQ", info)
    return size, offset


def pixels_of_mdpy(fd: int) -> np.ndarray:
    query = bytearray(struct.pack("<II", 64, PLANE_REGION).ljust(64, b"\0"))
    fcntl.ioctl(fd, VFIO_DEVICE_QUERY_GFX_PLANE, query)
    width, height, stride = struct.unpack_from("<III", query, 24)
    (index,) = struct.unpack_from("<I", query, 56)
    return mapped(fd, index, 0, width, height, stride)


def pixels_of_mbochs(fd: int) -> np.ndarray:
    _, registers = region(fd, 2)

    def vbe(number: int) -> int:
        return int.from_bytes(os.pread(fd, 2, registers + 0x500 + 2 * number), "little")

    stride = vbe(VBE_VIRT_WIDTH) * 4
    start = vbe(VBE_Y_OFFSET) * stride + vbe(VBE_X_OFFSET) * 4
    return mapped(fd, 0, start, vbe(VBE_XRES), vbe(VBE_YRES), stride)


def mapped(fd: int, index: int, start: int, width: int, height: int, stride: int) -> np.ndarray:
    size, offset = region(fd, index)
    with mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as memory:
        rows = np.frombuffer(memory[start : start + stride * height], np.uint8).reshape(height, stride)
    return rows[:, : width * 4].reshape(height, width, 4)


READERS = {"mdpy": pixels_of_mdpy, "mbochs": pixels_of_mbochs}


def seen_from_outside(vm: Vm, display: int, kind: str) -> np.ndarray:
    """What a display's memory holds; QEMU opens the devices in the order of its command line."""
    with taken(vm.pid, vm.device_fds()[display]) as fd:
        return READERS[kind](fd)


@attrs.frozen
class Pair:
    bochs: Vm
    mdpy: Vm


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two VMs at once, started in different spellings, for all tests of the module."""
    with ExitStack() as stack:
        bochs = Vm(["mbochs-medium"], name="guest=bochs,debug-threads=on", uuid="44cc0626-0a5f-4a5e-8f9b-7f9c1f4b3a01")
        stack.callback(bochs.close)
        mdpy = Vm(["mdpy-xga"], name="mdpy", display="on", spelling="json")
        stack.callback(mdpy.close)
        ready(bochs, mdpy)
        print("timings", bochs.timings, mdpy.timings)
        yield Pair(bochs, mdpy)


def test_a_bochs_guest_draws_sets_another_mode_and_draws_again(pair: Pair) -> None:
    """Every byte that the guest drew is in the device's memory, before and after a change of mode."""
    vm = pair.bochs
    begin = time.monotonic()
    for seed, (width, height) in enumerate([(1024, 768), (800, 600), (1920, 1080)], start=11):
        vm.mode(width, height)
        assert not seen_from_outside(vm, 0, "mbochs").any(), "a new mode starts black"
        vm.picture(seed)
        assert np.array_equal(seen_from_outside(vm, 0, "mbochs"), expected_picture(seed, width, height))
        print("drawn after", time.monotonic() - begin)
    print("longest gap", vm.longest_gap())
    assert vm.longest_gap() < 5
    assert vm.log() == []


def test_an_mdpy_guest_draws(pair: Pair) -> None:
    """So with mdpy-fb, whose only mode is the device's; a mode cannot be set, and the guest says so."""
    vm = pair.mdpy
    for seed in (21, 0xFFFFFFFF):
        vm.picture(seed)
        assert np.array_equal(seen_from_outside(vm, 0, "mdpy"), expected_picture(seed, 1024, 768))
    with pytest.raises(VmFailed, match="this display has one mode"):
        vm.mode(640, 480)
    assert vm.longest_gap() < 5
    assert vm.log() == []


def test_screendump_is_the_same_picture(pair: Pair) -> None:
    """QEMU's own screendump of the guest is what the guest drew."""
    pair.mdpy.picture(31)
    for _ in range(2):
        begin = time.monotonic()
        dump = pair.mdpy.screendump()
        print("screendump", time.monotonic() - begin)
    assert np.array_equal(dump, expected_picture(31, 1024, 768)[..., 2::-1])
    with pytest.raises(QmpError):
        pair.bochs.screendump()


def test_the_busy_loop_is_measured(pair: Pair) -> None:
    """It counts while it runs, and rests while it does not."""
    pair.mdpy.loop(on=True)
    busy = pair.mdpy.throughput(1)
    pair.mdpy.loop(on=False)
    print("throughput", busy)
    assert busy > 0
    assert pair.mdpy.throughput(0.5) == 0


def test_two_vgpus_in_one_vm_and_an_end_without_a_trace() -> None:
    """Each display is the right one; when the guest halts and the VM is closed, no device or descriptor is left."""
    before = open_descriptors()
    with Vm(
        ["mdpy-vga", "mbochs-small"], name="two,debug-threads=on", uuid="44cc0626-0a5f-4a5e-8f9b-7f9c1f4b3a02"
    ) as vm:
        vm.picture(41, 0)
        vm.mode(800, 600, 1)
        vm.picture(42, 1)
        assert len(vm.device_fds()) == 2
        assert np.array_equal(seen_from_outside(vm, 0, "mdpy"), expected_picture(41, 640, 480))
        assert np.array_equal(seen_from_outside(vm, 1, "mbochs"), expected_picture(42, 800, 600))
        print("memory", Path(f"/proc/{vm.pid}/status").read_text().split("VmHWM:")[1].split("\n")[0].strip())
        print("longest gap", vm.longest_gap())
        vm.halt()
        with pytest.raises(VmFailed, match=r"ended|closed"):
            vm.picture(43)
        names = vm.mdevs
    assert not any((MDEVS / name).exists() for name in names)
    assert not Path(f"/proc/{vm.pid}").exists()
    assert open_descriptors() == before


def test_a_newer_qemu_takes_handed_over_devices_where_the_kernel_has_them() -> None:
    """By iommufd and fd=, two vGPUs in one VM; on a kernel without device nodes, the error says that."""
    if not Path("/dev/iommu").exists():
        with pytest.raises(VmFailed, match="has no node in /dev/vfio/devices"):
            Vm(["mdpy-vga"], cdev=True)
        return
    with Vm(["mdpy-vga", "mbochs-small"], name="guest=newer,debug-threads=on", cdev=True) as vm:
        vm.picture(51, 0)
        vm.mode(800, 600, 1)
        vm.picture(52, 1)
        assert len(vm.device_fds()) == 2
        assert np.array_equal(seen_from_outside(vm, 0, "mdpy"), expected_picture(51, 640, 480))
        assert np.array_equal(seen_from_outside(vm, 1, "mbochs"), expected_picture(52, 800, 600))
        assert vm.log() == []


def test_a_vm_that_cannot_start_says_why_and_leaves_nothing() -> None:
    """QEMU's own words are in the error, and the device that was made is gone; one that existed stays."""
    kept = create_mdev("mdpy-vga")
    before = open_descriptors(), set(MDEVS.iterdir())
    vm = Vm([kept, "mdpy-vga"], extra=["-device", "no-such-device"])
    with pytest.raises(VmFailed, match="no-such-device"), vm:
        pass
    assert (open_descriptors(), set(MDEVS.iterdir())) == before
    assert remove_mdev(kept)
    assert not (MDEVS / kept).exists()
