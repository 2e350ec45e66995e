"""A device by its own node: open, bind, and what stands in the way."""

from __future__ import annotations

import errno
import os

import pytest

from mdevdisplay.errors import DeviceBusy, DeviceGone, DriverError, NotPermitted, NoVfio
from mdevdisplay.host import open_device
from mdevdisplay.surface import PlaneType
from mdevdisplay.testing import FakeKernel, Mdpy
from mdevdisplay.vfio import GfxKind, uapi
from mdevdisplay.vfio.cdev import open_by_cdev


@pytest.fixture
def driver(kernel: FakeKernel) -> Mdpy:
    """A device with a cdev, on a host without groups."""
    driver = kernel.add(Mdpy("vga"), cdev=True)
    kernel.hide_groups()
    return driver


def test_a_bound_device_answers(kernel: FakeKernel, driver: Mdpy) -> None:
    """It is bound to an iommufd, and nothing more: no page table is attached."""
    with open_device(driver.name) as device:
        surface = device.query_plane(PlaneType.PRIMARY, GfxKind.REGION)
        assert surface is not None
        assert surface.width == 640
    requests = [call.request for call in kernel.calls if call.name == "ioctl"]
    assert requests[0] == uapi.VFIO_DEVICE_BIND_IOMMUFD
    assert uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT not in requests
    assert [call.target for call in kernel.calls if call.name == "close"] == [driver.name, "iommufd"]


def test_the_group_goes_first_where_both_are(kernel: FakeKernel) -> None:
    """The older way is known everywhere."""
    driver = kernel.add(Mdpy("vga"), cdev=True)
    open_device(driver.name).close()
    assert [call.target for call in kernel.calls if call.name == "open"] == ["container", "group 1"]


def test_somebody_has_bound_it(kernel: FakeKernel, driver: Mdpy) -> None:
    """EINVAL of the second BIND means a device in use."""
    with open_device(driver.name), pytest.raises(DeviceBusy, match=r"BIND_IOMMUFD .* EINVAL") as caught:
        open_device(driver.name)
    assert "bound only once" in caught.value.hint


def test_its_group_is_open(kernel: FakeKernel) -> None:
    """EBUSY: a device goes by one way at a time."""
    driver = kernel.add(Mdpy(), cdev=True)
    group = os.open(kernel.path / "dev/vfio/1", os.O_RDWR)
    with pytest.raises(DeviceBusy, match="EBUSY"):
        open_by_cdev("vfio0", driver.name, dev=kernel.path / "dev")
    os.close(group)


@pytest.mark.parametrize(
    ("node", "number", "kind"),
    [
        ("iommu", errno.ENOENT, NoVfio),
        ("iommu", errno.EACCES, NotPermitted),
        ("iommu", errno.EMFILE, DriverError),
        ("devices/vfio0", errno.ENOENT, DeviceGone),
        ("devices/vfio0", errno.EPERM, NotPermitted),
        ("devices/vfio0", errno.EIO, DriverError),
    ],
)
def test_a_node_cannot_be_opened(
    kernel: FakeKernel, driver: Mdpy, node: str, number: int, kind: type[Exception]
) -> None:
    """Each errno is an error of its own, with the node in it, and nothing stays open."""
    kernel.refuse_open(node, number)
    with pytest.raises(kind, match=f"opening .*{node}"):
        open_by_cdev("vfio0", driver.name, dev=kernel.path / "dev")


def test_the_driver_refuses(kernel: FakeKernel, driver: Mdpy) -> None:
    """Any other errno of BIND."""
    driver.open_errno = errno.ENOMEM
    with pytest.raises(DriverError, match=r"BIND_IOMMUFD .* ENOMEM"):
        open_device(driver.name)
