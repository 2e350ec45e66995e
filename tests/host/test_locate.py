"""From what a user types to a device of this host."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import DeviceBusy, DeviceNotFound, DriverError, LocatorError, MdevDisplayError
from mdevdisplay.host import free, host_name, open_device
from mdevdisplay.host.devices import PCI_ADDRESS, UUID
from mdevdisplay.testing import Driver, FakeKernel, Mdpy, Nvidia
from mdevdisplay.vfio import Device
from mdevdisplay.vfio.group import open_by_group

NAME = "44cc0626-3c4c-4d3a-9f5e-0123456789ab"

hexadecimal = st.text("0123456789abcdefABCDEF", min_size=0, max_size=12)
near_misses = st.one_of(
    st.text(max_size=60),
    st.from_regex(UUID, fullmatch=True),
    st.from_regex(PCI_ADDRESS, fullmatch=True),
    st.lists(hexadecimal, max_size=8).map("_".join).map("mdev_{}".format),
    st.lists(hexadecimal, max_size=8).map("_".join).map("pci_{}".format),
    st.lists(hexadecimal, max_size=8).map("-".join),
    st.lists(hexadecimal, max_size=5).map(":".join),
)


@pytest.mark.parametrize(
    ("locator", "name"),
    [
        (NAME, NAME),
        (NAME.upper(), NAME),
        ("0000:41:00.4", "0000:41:00.4"),
        ("0000:AF:1f.7", "0000:af:1f.7"),
        ("10000:e1:00.0", "10000:e1:00.0"),
        ("mdev_44cc0626_3c4c_4d3a_9f5e_0123456789ab", NAME),
        ("mdev_44CC0626_3C4C_4D3A_9F5E_0123456789AB", NAME),
        ("mdev_44cc0626_3c4c_4d3a_9f5e_0123456789ab_0000_06_00_0", NAME),
        ("pci_0000_41_00_4", "0000:41:00.4"),
        ("pci_10000_E1_00_0", "10000:e1:00.0"),
    ],
)
def test_every_spelling_of_a_device(locator: str, name: str) -> None:
    """UUID, PCI address, and libvirt's names of both, in any case: the name is as sysfs spells it."""
    assert host_name(locator) == name


@pytest.mark.parametrize(
    "locator",
    [
        "",
        "sim:",
        f" {NAME}",
        f"{NAME}\n",
        f"{NAME}/../..",
        f"{{{NAME}}}",
        NAME.replace("-", ""),
        NAME[:-1],
        "41:00.4",
        "0000:41:00.8",
        "0000:41:00.4 ",
        "0000:41:00",
        "\N{ARABIC-INDIC DIGIT ZERO}000:41:00.4",
        "pci_",
        "pci_0000",
        "pci_0000_41_00_8",
        "mdev_",
        "mdev_44cc0626",
        "mdev_44cc0626_3c4c_4d3a_9f5e",
        "net_eth0",
    ],
)
def test_what_is_none_of_these(kernel: FakeKernel, locator: str) -> None:
    """Not this host's: somebody else's scheme, or a typing mistake, which open_device answers with what is right."""
    assert host_name(locator) is None
    with pytest.raises(LocatorError, match="not a locator") as caught:
        open_device(locator)
    assert "mdevdisplay list" in caught.value.hint
    assert caught.value.device == locator
    assert kernel.calls == []


@given(near_misses)
def test_any_text_is_a_name_or_not(locator: str) -> None:
    """No text crashes the parser, and a name can only be a UUID or an address in lower case: no path, no line end."""
    name = host_name(locator)
    if name is None:
        return
    assert UUID.fullmatch(name) or PCI_ADDRESS.fullmatch(name)
    assert name == name.lower()
    assert not set(name) - set("0123456789abcdef:-.")
    assert host_name(name) == name


@given(near_misses)
def test_opening_any_text_is_an_error_of_ours(kernel: FakeKernel, locator: str) -> None:
    """On a host without devices every locator is refused, without a system call on a device."""
    with pytest.raises((LocatorError, DeviceNotFound)):
        open_device(locator)
    assert kernel.calls == []


def test_a_name_of_nothing_is_not_found(kernel: FakeKernel) -> None:
    """Well-formed, and not on this host; the hint differs for an mdev and a PCI function."""
    kernel.add(Mdpy())
    with pytest.raises(DeviceNotFound, match="no mediated device of that name") as caught:
        open_device(NAME)
    assert "mdevctl list --defined" in caught.value.hint
    with pytest.raises(DeviceNotFound, match="no PCI function of that name") as caught:
        open_device("0000:41:00.4")
    assert "lspci" in caught.value.hint


@pytest.mark.parametrize("spelling", ["{}", "mdev_{}"])
def test_a_device_is_opened_by_each_spelling(kernel: FakeKernel, spelling: str) -> None:
    """The locator stays as the user typed it, for messages."""
    driver = kernel.add(Mdpy(name=NAME))
    locator = spelling.format(driver.name).replace("-", "_") if spelling != "{}" else NAME.upper()
    with open_device(locator) as device:
        assert device.locator == locator
        assert device.identity.name == NAME


def rebind(kernel: FakeKernel, driver: Driver, name: str) -> None:
    """Let a host driver have the device, or none; VFIO takes its node away."""
    device = kernel.sysfs.device(driver)
    (device / "driver").unlink()
    shutil.rmtree(device / "vfio-dev")
    (kernel.path / f"dev/vfio/{driver.group}").unlink()
    if name:
        target = kernel.path / "sys/bus/pci/drivers" / name
        target.mkdir(parents=True)
        (device / "driver").symlink_to(target)


def test_a_function_of_a_host_driver_is_not_gone(kernel: FakeKernel) -> None:
    """Sysfs still has it: who has it, and how to bind it to VFIO."""
    driver = kernel.add(Nvidia("0000:00:02.0", pci=True))
    rebind(kernel, driver, "i915")
    with pytest.raises(DeviceBusy, match="bound to i915, not to a VFIO driver") as caught:
        open_device("pci_0000_00_02_0")
    assert (caught.value.device, caught.value.cause) == ("pci_0000_00_02_0", "not-bound")
    for command in (
        "echo vfio-pci > /sys/bus/pci/devices/0000:00:02.0/driver_override",
        "echo 0000:00:02.0 > /sys/bus/pci/drivers/i915/unbind",
        "echo 0000:00:02.0 > /sys/bus/pci/drivers_probe",
    ):
        assert command in caught.value.hint


@pytest.mark.parametrize(
    ("driver", "words"),
    [(Nvidia("0000:41:00.4", pci=True), "driver_override"), (Mdpy(name=NAME), "module")],
    ids=["pci", "mdev"],
)
def test_a_device_of_no_driver_is_not_gone(kernel: FakeKernel, driver: Driver, words: str) -> None:
    """There is nothing to unbind it from."""
    kernel.add(driver)
    rebind(kernel, driver, "")
    with pytest.raises(DriverError, match="bound to no driver") as caught:
        open_device(driver.name)
    assert caught.value.cause == "not-bound"
    assert words in caught.value.hint
    assert "unbind" not in caught.value.hint


@pytest.mark.parametrize("driver", [Mdpy(name=NAME), Nvidia("0000:41:00.4", pci=True)], ids=["mdev", "pci"])
def test_a_node_that_a_container_was_not_given(kernel: FakeKernel, driver: Driver) -> None:
    """A VFIO driver has the device, and its node is missing."""
    kernel.add(driver)
    (kernel.path / f"dev/vfio/{driver.group}").unlink()
    with pytest.raises(DriverError, match=f"driver {driver.module} has the device, and /dev/vfio/1 is not") as caught:
        open_device(driver.name)
    assert caught.value.cause == "no-node"
    assert "container" in caught.value.hint


def test_a_device_that_loses_its_group_meanwhile_is_not_gone(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbound between listing and opening: sysfs has it, without a group."""
    driver = kernel.add(Nvidia("0000:41:00.4", pci=True))

    def unbind(*arguments: Any, **options: Any) -> Device:
        rebind(kernel, driver, "")
        (kernel.sysfs.device(driver) / "iommu_group").unlink()
        return open_by_group(*arguments, **options)

    monkeypatch.setattr(free, "open_by_group", unbind)
    with pytest.raises(DriverError) as caught:
        open_device(driver.name)
    assert caught.value.cause == "not-bound"


def test_libvirts_name_of_a_pci_function(kernel: FakeKernel) -> None:
    """pci_0000_41_00_4."""
    kernel.add(Nvidia("0000:41:00.4", pci=True))
    with open_device("pci_0000_41_00_4") as device:
        assert device.identity.parent == "0000:41:00.0"


def test_an_error_names_what_the_user_typed(kernel: FakeKernel) -> None:
    """Not the UUID that it was translated to."""
    driver = kernel.add(Mdpy(name=NAME))
    driver.open_errno = 19
    locator = "mdev_" + NAME.replace("-", "_")
    with pytest.raises(MdevDisplayError) as caught:
        open_device(locator)
    assert caught.value.device == locator
