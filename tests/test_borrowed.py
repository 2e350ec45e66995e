"""A device that a VM uses is only read: what reaches the kernel, for every backend, chosen or forced."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import pytest

import mdevdisplay
from mdevdisplay.errors import MdevDisplayError, NotPermitted
from mdevdisplay.surface import PlaneType
from mdevdisplay.testing import Call, Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty, Nvidia, Scripted
from mdevdisplay.vfio import Device, uapi

ALLOWED = {
    uapi.VFIO_DEVICE_GET_INFO,
    uapi.VFIO_DEVICE_GET_REGION_INFO,
    uapi.VFIO_DEVICE_QUERY_GFX_PLANE,
    uapi.VFIO_DEVICE_GET_GFX_DMABUF,
}
"""DESIGN.md's list of requests; region infos and mappings come beside it."""
VBE = range(0x500, 0x518)
"""The registers that mbochs declares, in region 2."""
BACKENDS = ["intel_gvt", "mbochs", "region_cap", "simulated"]


def gvt() -> Gvt:
    driver = Gvt(needs_vm=False)
    driver.show(640, 480)
    return driver


def mbochs() -> Mbochs:
    return Mbochs()


def nvidia() -> Nvidia:
    return Nvidia()


DRIVERS: list[Callable[[], Driver]] = [gvt, mbochs, nvidia, Mtty, Mdpy, Scripted]


def use(locator: str, backend: str | None) -> None:
    """Everything that a display can be asked, whatever of it fails."""
    with suppress(MdevDisplayError), mdevdisplay.open(locator, backend=backend) as display:
        for plane in (PlaneType.PRIMARY, PlaneType.CURSOR, PlaneType.OVERLAY):
            for ask in (display.surface, display.capture, display.readability):
                with suppress(MdevDisplayError):
                    ask(plane)
            with suppress(MdevDisplayError), display.map(plane):
                pass
            with suppress(MdevDisplayError), display.dmabuf(plane):
                pass
        for call in (display.edid, display.findings):
            with suppress(MdevDisplayError):
                call()


def is_harmless(driver: Driver, call: Call) -> bool:
    """Whether a call that reached a device in use is one of those that a VM cannot notice."""
    if call.name in ("close", "unmap"):
        return True
    if call.name == "ioctl":
        return call.request in ALLOWED
    if call.name == "mmap":  # a writable one is a violation, which the fixture finds
        return True
    if call.name != "pread":
        return False
    places = {
        index: call.offset - region.offset
        for index, region in driver.own_regions.items()
        if region.offset <= call.offset < region.offset + max(region.size, 4096)
    }
    config, edid = uapi.VFIO_PCI_CONFIG_REGION_INDEX in places, any(index >= 9 for index in places)
    return config or edid or (isinstance(driver, Mbochs) and places.get(2, 0) in VBE)


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@pytest.mark.parametrize("make", DRIVERS)
def test_nothing_but_harmless_calls_reach_it(
    kernel: FakeKernel, make: Callable[[], Driver], backend: str | None
) -> None:
    """Every driver under every backend; what is not allowed is not even tried."""
    driver = kernel.add(make())
    if isinstance(driver, Mbochs):
        driver.set_mode(640, 480)
    vmm = kernel.vmm(driver)
    use(f"pid:{vmm.pid}", backend)
    reached = [call for call in kernel.calls if call.target == driver.name]
    assert reached
    assert [call for call in reached if not is_harmless(driver, call)] == []
    if isinstance(driver, Mbochs):
        assert uapi.VFIO_DEVICE_GET_GFX_DMABUF not in [call.request for call in reached]
    assert kernel.violations == []


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_a_device_whose_driver_is_unknown_gives_no_dmabuf(kernel: FakeKernel, backend: str | None) -> None:
    """It may be an mbochs, whatever the backend is called."""
    driver = kernel.add(mbochs())
    driver.set_mode(640, 480)
    fd = kernel.lend(driver)
    use(f"fd:{fd}", backend)
    if kernel.file_of(fd) is driver:
        os.close(fd)
    requests = [call.request for call in kernel.calls if call.target == driver.name]
    assert uapi.VFIO_DEVICE_QUERY_GFX_PLANE in requests or backend in ("mbochs", "simulated")
    assert uapi.VFIO_DEVICE_GET_GFX_DMABUF not in requests


CHANGING = [
    value
    for name, value in vars(uapi).items()
    if name.startswith("VFIO_DEVICE_") and isinstance(value, int) and value > 1 << 8 and value not in ALLOWED
]


@pytest.mark.parametrize("request_number", CHANGING)
@pytest.mark.parametrize("high_bits", [0, 1 << 32])
def test_what_changes_a_device_is_refused_before_the_kernel(
    kernel: FakeKernel, request_number: int, high_bits: int
) -> None:
    """Reset, interrupts and the rest, by a backend that tries: owned or borrowed, declared or not."""
    driver = kernel.add(Mdpy("vga"))
    vmm = kernel.vmm(driver)
    with mdevdisplay.open(f"pid:{vmm.pid}") as display:
        device = display.source
        assert isinstance(device, Device)
        before = len(kernel.calls)
        with pytest.raises(NotPermitted):
            device.ioctl(request_number | high_bits, bytearray(64))
        assert len(kernel.calls) == before
    assert len(CHANGING) > 7


def test_there_is_no_way_to_write() -> None:
    """A device has no method that writes, so that no backend can by mistake."""
    assert not [name for name in dir(Device) if "write" in name]
