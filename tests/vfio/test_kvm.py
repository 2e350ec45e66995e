"""GVT-g alone and free: an empty KVM VM is linked before its device is opened. No hardware has seen this."""

from __future__ import annotations

import errno

import pytest

from mdevdisplay.errors import DriverError, MdevDisplayError, NotPermitted
from mdevdisplay.host import open_device
from mdevdisplay.testing import FakeKernel, Gvt, Mdpy
from mdevdisplay.vfio import kvm, uapi


@pytest.mark.parametrize("cdev", [False, True])
def test_a_free_gvt_device_opens_beside_an_empty_vm(kernel: FakeKernel, cdev: bool) -> None:
    """The VM is linked to the group, or the cdev, before the device is opened, and lives as long as it is."""
    driver = kernel.add(Gvt(), cdev=cdev)
    if cdev:
        kernel.hide_groups()
    with open_device(driver.name) as device:
        assert not device.borrowed
        assert driver.has_vm
        opening = uapi.VFIO_DEVICE_BIND_IOMMUFD if cdev else uapi.VFIO_GROUP_GET_DEVICE_FD
        requests = [call.request for call in kernel.calls if call.name == "ioctl"]
        assert requests.index(kvm.KVM_SET_DEVICE_ATTR) < requests.index(opening)
    assert not driver.has_vm


def test_other_drivers_need_none(kernel: FakeKernel) -> None:
    """No VM is made for them."""
    open_device(kernel.add(Mdpy()).name).close()
    assert all(call.target != "kvm" for call in kernel.calls)


@pytest.mark.parametrize(("number", "kind"), [(errno.EACCES, NotPermitted), (errno.ENOENT, DriverError)])
def test_kvm_is_out_of_reach(kernel: FakeKernel, number: int, kind: type[Exception]) -> None:
    """The error says why a VM is wanted."""
    driver = kernel.add(Gvt())
    kernel.refuse_open("kvm", number)
    with pytest.raises(kind, match=r"/dev/kvm failed") as caught:
        open_device(driver.name)
    assert "only for a VM's own process" in str(caught.value)


def test_a_driver_that_refuses_all_the_same(kernel: FakeKernel) -> None:
    """Nothing of the VM is left."""
    driver = kernel.add(Gvt())
    driver.open_errno = errno.EEXIST
    with pytest.raises(MdevDisplayError, match="EEXIST"):
        open_device(driver.name)
