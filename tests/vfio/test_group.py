"""Opening a free device by container and group, and everything that can be in the way."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest

from mdevdisplay.errors import (
    DeviceBusy,
    DeviceGone,
    DriverError,
    MdevDisplayError,
    NotADisplay,
    NotPermitted,
    NoVfio,
    TimedOut,
)
from mdevdisplay.host import free, open_device
from mdevdisplay.testing import FakeKernel, Mdpy, Mtty, Nvidia
from mdevdisplay.vfio import Device, uapi
from mdevdisplay.vfio import device as vfio_device
from mdevdisplay.vfio.group import open_by_group


def test_the_legacy_way_in_its_order(kernel: FakeKernel) -> None:
    """Container, group, status, container into group, IOMMU, device by its name with a NUL behind it."""
    driver = kernel.add(Mdpy())
    with open_device(driver.name) as device:
        assert (device.identity.driver, device.identity.mdev_type) == ("mdpy", "mdpy-xga")
    opens = [call.target for call in kernel.calls.of("open")]
    assert opens == ["container", "group 1"]
    assert kernel.calls.requests() == [
        uapi.VFIO_GET_API_VERSION,
        uapi.VFIO_GROUP_GET_STATUS,
        uapi.VFIO_GROUP_SET_CONTAINER,
        uapi.VFIO_SET_IOMMU,
        uapi.VFIO_GROUP_GET_DEVICE_FD,
    ]
    container = kernel.calls.of("open", "container")[0].result
    sent = {call.request: call.sent for call in kernel.calls.of("ioctl")}
    assert sent[uapi.VFIO_GROUP_SET_CONTAINER] == struct.pack("<i", container)
    assert sent[uapi.VFIO_SET_IOMMU] == struct.pack("<q", uapi.VFIO_TYPE1v2_IOMMU)
    assert sent[uapi.VFIO_GROUP_GET_DEVICE_FD] == driver.name.encode() + b"\0"


def test_a_device_can_be_opened_again(kernel: FakeKernel) -> None:
    """Nothing of the first opening is left to keep the group busy."""
    driver = kernel.add(Mdpy())
    for _ in range(3):
        open_device(driver.name).close()
    assert [call.errno for call in kernel.calls.of("open")] == [0] * 6


def test_a_pci_function_is_opened_by_its_address(kernel: FakeKernel) -> None:
    """NVIDIA's virtual functions have no mdev: the device's name is the address."""
    driver = kernel.add(Nvidia(pci=True))
    with open_device(driver.name) as device:
        assert (device.identity.vendor, device.identity.name) == ("nvidia", driver.name)


def test_two_devices_of_one_group_are_told_apart(kernel: FakeKernel) -> None:
    """The name chooses the device inside the group."""
    one, two = kernel.add(Mdpy("vga")), kernel.add(Mdpy("hd"), group=1)
    assert one.group == two.group
    with open_device(two.name) as device:
        region = device.region(16)
        assert region is not None
        assert region.size == 8 << 20


def test_an_older_iommu_driver_is_enough(kernel: FakeKernel) -> None:
    """Type 1 version 1 where version 2 is not there."""
    kernel.iommu_types = {uapi.VFIO_TYPE1_IOMMU}
    open_device(kernel.add(Mdpy()).name).close()
    asked = [call.sent for call in kernel.calls.of("ioctl") if call.request == uapi.VFIO_SET_IOMMU]
    assert [int.from_bytes(sent, "little") for sent in asked] == [3, 1]


class TestInTheWay:
    """Each test ends with nothing left open: the fixture checks it."""

    def test_a_vmm_holds_the_device(self, kernel: FakeKernel) -> None:
        """A group opens once: EBUSY is DeviceBusy, and the hint says by whom."""
        driver = kernel.add(Mdpy())
        fd = kernel.lend(driver)
        with pytest.raises(DeviceBusy, match=r"opening .*/dev/vfio/1 failed: EBUSY") as caught:
            open_device(driver.name)
        assert "VMM" in caught.value.hint
        assert caught.value.device == driver.name
        os.close(fd)

    def test_the_same_process_holds_it(self, kernel: FakeKernel) -> None:
        """A second opening by oneself is no different; the first one is not hurt."""
        driver = kernel.add(Mdpy())
        with open_device(driver.name) as device:
            with pytest.raises(DeviceBusy):
                open_device(driver.name)
            assert device.info().num_regions == 9

    @pytest.mark.parametrize("node", ["vfio", "1"])
    @pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
    def test_a_node_may_not_be_opened(self, kernel: FakeKernel, node: str, number: int) -> None:
        """NotPermitted names the node, and the hint says how to get it."""
        driver = kernel.add(Mdpy())
        kernel.refuse_open(node, number)
        with pytest.raises(NotPermitted, match=f"/dev/vfio/{node} failed") as caught:
            open_device(driver.name)
        assert caught.value.errno == number
        assert f"chown USER {kernel.path}/dev/vfio/{node}" in caught.value.hint

    def test_vfio_is_not_loaded(self, kernel: FakeKernel) -> None:
        """No /dev/vfio at all: NoVfio, with the modules to load."""
        driver = kernel.add(Mdpy())
        kernel.remove_vfio()
        with pytest.raises(NoVfio, match="ENOENT") as caught:
            open_by_group(driver.group, driver.name, driver.name, dev=kernel.path / "dev")
        assert "modprobe" in caught.value.hint

    @pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO])
    def test_the_container_node_has_no_module(self, kernel: FakeKernel, number: int) -> None:
        """A node without a module behind it."""
        driver = kernel.add(Mdpy())
        kernel.refuse_open("vfio", number)
        with pytest.raises(NoVfio):
            open_device(driver.name)

    def test_no_iommu_driver_is_loaded(self, kernel: FakeKernel) -> None:
        """VFIO_SET_IOMMU says ENODEV where vfio_iommu_type1 is missing: that is no device that went away."""
        driver = kernel.add(Mdpy())
        kernel.iommu_types = set()
        with pytest.raises(NoVfio, match="VFIO_SET_IOMMU failed: ENODEV") as caught:
            open_device(driver.name)
        assert "vfio_iommu_type1" in caught.value.hint

    @pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO])
    def test_the_group_goes_away_between_listing_and_opening(self, kernel: FakeKernel, number: int) -> None:
        """DeviceGone, not NoVfio: the container was there."""
        driver = kernel.add(Mdpy())
        kernel.refuse_open("1", number)
        with pytest.raises(DeviceGone, match="/dev/vfio/1 failed") as caught:
            open_device(driver.name)
        assert "mdevdisplay list" in caught.value.hint

    def test_a_device_that_goes_away_between_listing_and_opening(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No node and nothing in sysfs any more: it was removed."""
        driver = kernel.add(Mdpy())

        def vanish(*arguments: Any, **options: Any) -> Device:
            driver.vanish()
            return open_by_group(*arguments, **options)

        monkeypatch.setattr(free, "open_by_group", vanish)
        with pytest.raises(DeviceGone, match="/dev/vfio/1 failed: ENOENT"):
            open_device(driver.name)

    def test_a_device_that_cannot_be_taken_over_leaks_nothing(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Device, group and container are let go, in this order."""

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        driver = kernel.add(Mdpy())
        monkeypatch.setattr(vfio_device, "plane_query", fail)
        with pytest.raises(MemoryError):
            open_device(driver.name)
        assert kernel.calls.releases() == [f"close {driver.name}", "close group 1", "close container"]

    def test_another_errno_of_a_node(self, kernel: FakeKernel) -> None:
        """Anything else is DriverError with its errno."""
        driver = kernel.add(Mdpy())
        kernel.refuse_open("1", errno.EIO)
        with pytest.raises(DriverError) as caught:
            open_device(driver.name)
        assert caught.value.errno == errno.EIO

    def test_another_api_version(self, kernel: FakeKernel) -> None:
        """A kernel that speaks another VFIO is named."""
        driver = kernel.add(Mdpy())
        kernel.api_version = 1
        with pytest.raises(DriverError, match="VFIO API 1, not 0"):
            open_device(driver.name)

    def test_a_group_that_is_not_viable(self, kernel: FakeKernel) -> None:
        """Another device of the group is bound to a host driver: nothing is set up with it."""
        driver = kernel.add(Nvidia(pci=True))
        kernel.group_of(driver).viable = False
        with pytest.raises(DeviceBusy, match="IOMMU group 1 is not viable") as caught:
            open_device(driver.name)
        assert "vfio-pci" in caught.value.hint
        assert uapi.VFIO_GROUP_SET_CONTAINER not in kernel.calls.requests()

    @pytest.mark.parametrize(
        ("number", "kind", "words"),
        [
            (errno.ESRCH, DriverError, "only beside a KVM VM of the same process"),
            (errno.EEXIST, DeviceBusy, "has a vGPU of this driver already"),
            (errno.ENODEV, DeviceGone, "no vGPU type is set"),
            (errno.ENOTTY, NotADisplay, ""),
            (errno.EBUSY, DeviceBusy, ""),
            (errno.EINVAL, DriverError, ""),
            (errno.ETIMEDOUT, TimedOut, ""),
        ],
    )
    def test_the_driver_refuses_to_be_opened(
        self, kernel: FakeKernel, number: int, kind: type[MdevDisplayError], words: str
    ) -> None:
        """GET_DEVICE_FD's errnos each mean something, and group and container are let go."""
        driver = kernel.add(Mdpy())
        driver.open_errno = number
        with pytest.raises(kind, match=f"VFIO_GROUP_GET_DEVICE_FD of {driver.name} failed") as caught:
            open_device(driver.name)
        assert type(caught.value) is kind
        assert caught.value.errno == number
        assert words in caught.value.hint
        assert kernel.leaks() == []
        assert kernel.calls.releases() == ["close group 1", "close container"]

    def test_a_device_that_is_no_display_opens(self, kernel: FakeKernel) -> None:
        """Whether it is one is the backends' question."""
        open_device(kernel.add(Mtty()).name).close()
