"""What sysfs shows: whole, half and hostile trees."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.errors import DeviceNotFound, DriverError, MdevDisplayError
from mdevdisplay.host import HostRoot, list_mdevs
from mdevdisplay.host.devices import find, list_functions
from mdevdisplay.source import Identity
from mdevdisplay.testing import Driver, FakeKernel, Gvt, Mbochs, Mdpy, Mtty, Nvidia


@pytest.fixture
def root(kernel: FakeKernel) -> HostRoot:
    return HostRoot.from_environment()


def test_every_vendor_is_known_by_its_type(kernel: FakeKernel, root: HostRoot) -> None:
    """Driver, vendor, type, parent, group and the vendor's own name of the type, all from sysfs."""
    for driver in (Mdpy("hd"), Mbochs(), Gvt(), Nvidia(), Mtty()):
        kernel.add(driver)
    found = {device.identity.vendor: device for device in list_mdevs(root)}
    assert list(found) == ["mdpy", "mbochs", "i915", "nvidia", "mtty"]
    gvt = found["i915"]
    assert gvt.identity == Identity(
        name="00000003-0000-4000-8000-000000000000",
        driver="intel_vgpu_mdev",
        vendor="i915",
        mdev_type="i915-GVTg_V5_4",
        parent="0000:00:02.0",
    )
    assert (gvt.group, gvt.type_name) == ("3", "GVTg_V5_4")
    assert found["mdpy"].info().locator == "00000001-0000-4000-8000-000000000000"
    assert found["nvidia"].info().type_name == "GRID P40-2B"
    assert kernel.calls == []


def test_a_host_without_mdevs_lists_none(root: HostRoot, tmp_path: Path) -> None:
    """No bus, no folder at all: an empty list, no error."""
    assert list_mdevs(root) == []
    assert list_mdevs(HostRoot(tmp_path / "missing")) == []


def test_a_virtual_function_is_found_by_its_address(kernel: FakeKernel, root: HostRoot) -> None:
    """Its parent is the physical function; the vendor is the driver's name."""
    driver = kernel.add(Nvidia("0000:41:00.4", pci=True))
    device = find(root, driver.name)
    assert device.identity == Identity(
        name="0000:41:00.4", driver="nvidia", vendor="nvidia", mdev_type="", parent="0000:41:00.0"
    )
    assert device.group == "1"
    assert list_mdevs(root) == []


def test_a_name_in_capitals_is_found(kernel: FakeKernel, root: HostRoot) -> None:
    """Sysfs spells in lower case."""
    driver = kernel.add(Mdpy(name="44cc0626-3c4c-4d3a-9f5e-0123456789ab"))
    assert find(root, driver.name.upper()).identity.name == driver.name


def test_a_device_that_went_away_is_not_found(kernel: FakeKernel, root: HostRoot) -> None:
    """Between listing and opening: DeviceNotFound, and the list is without it."""
    gone, stays = kernel.add(Mdpy()), kernel.add(Mdpy())
    gone.vanish()
    assert [device.identity.name for device in list_mdevs(root)] == [stays.name]
    with pytest.raises(DeviceNotFound):
        find(root, gone.name)


def test_a_link_to_nothing_is_left_out(kernel: FakeKernel, root: HostRoot) -> None:
    """The directory goes before the bus's link does."""
    driver = kernel.add(Mdpy())
    shutil.rmtree(kernel.sysfs.device(driver))
    assert list_mdevs(root) == []
    with pytest.raises(DeviceNotFound):
        find(root, driver.name)


@pytest.mark.parametrize("driver", [Mdpy(), Nvidia("0000:41:00.4", pci=True)], ids=["mdev", "pci"])
def test_without_a_group_nobody_has_it(kernel: FakeKernel, root: HostRoot, driver: Driver) -> None:
    """No VFIO driver is bound: the hint says so."""
    kernel.add(driver)
    (kernel.sysfs.device(driver) / "iommu_group").unlink()
    with pytest.raises(DriverError, match="in no IOMMU group") as caught:
        find(root, driver.name)
    assert "bind it" in caught.value.hint
    assert caught.value.cause == "not-bound"


@pytest.mark.parametrize("attribute", ["driver", "mdev_type", "iommu_group"])
@pytest.mark.parametrize("damage", ["missing", "dangling", "circular", "a file"])
def test_every_link_is_optional(kernel: FakeKernel, root: HostRoot, attribute: str, damage: str) -> None:
    """A device is listed with what is there; "" for what is not."""
    driver = kernel.add(Mdpy())
    link = kernel.sysfs.device(driver) / attribute
    link.unlink()
    if damage == "dangling":
        link.symlink_to("../no/such/thing")
    elif damage == "circular":
        link.symlink_to(link.name)
    elif damage == "a file":
        link.write_bytes(b"")
    (device,) = list_mdevs(root)
    seen = {
        "driver": device.identity.driver,
        "mdev_type": device.identity.mdev_type,
        "iommu_group": device.group,
    }
    assert seen.pop(attribute) in ("", attribute)
    assert all(seen.values())


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (None, ""),
        (b"", ""),
        (b"\xff\xfe\xfd\n", "���"),
        (b"x" * 100_000, "x" * 4096),
        (b"evil\x1b[2Jname\n", "evil\x1b[2Jname"),
    ],
)
def test_a_types_name_may_be_anything(kernel: FakeKernel, root: HostRoot, content: bytes | None, name: str) -> None:
    """Missing, empty, binary or huge: bounded text; escaping it is the terminal's matter."""
    driver = kernel.add(Mdpy())
    attribute = kernel.sysfs.type_directory(driver) / "name"
    attribute.unlink()
    if content is not None:
        attribute.write_bytes(content)
    (device,) = list_mdevs(root)
    assert device.type_name == name


@pytest.mark.parametrize(
    ("mdev_type", "vendor"), [("nvidia-222", "nvidia"), ("acme", "acme"), ("-odd", ""), ("a-b-c", "a")]
)
def test_the_vendor_is_the_text_before_the_first_dash(
    kernel: FakeKernel, root: HostRoot, mdev_type: str, vendor: str
) -> None:
    """Whatever the rest looks like."""
    driver = Mdpy()
    driver.mdev_type = mdev_type
    kernel.add(driver)
    (device,) = list_mdevs(root)
    assert device.identity.vendor == vendor


# --- virtual functions ---


def function(kernel: FakeKernel, address: str, **attributes: str) -> Path:
    """Add a virtual function with attributes such as ``nvidia/current_vgpu_type``; return its directory."""
    path = kernel.sysfs.device(kernel.add(Nvidia(address, pci=True)))
    for name, text in attributes.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return path


TABLE = "ID    : vGPU Name\n1428  : NVIDIA H200X-141C\n1414  : NVIDIA H200X-1-18C\n"


@pytest.mark.parametrize(
    ("table", "name"), [(TABLE, "NVIDIA H200X-1-18C"), ("", ""), ("1428 : other\n14140 : none\n1414\n", "")]
)
def test_nvidias_functions_are_known_by_their_type(kernel: FakeKernel, root: HostRoot, table: str, name: str) -> None:
    """The number is the type; its name comes from the list of what can be made, if it is in there still."""
    attributes = {"nvidia__current_vgpu_type": "1414\n", "nvidia__creatable_vgpu_types": table}
    path = function(kernel, "0000:41:00.4", **attributes)
    (path.parent / "0000:41:00.0/driver").symlink_to(kernel.sysfs.path / "bus/pci/drivers/nvidia")
    [device] = list_functions(root)
    assert device.identity == Identity(
        name="0000:41:00.4", driver="nvidia", vendor="nvidia", mdev_type="nvidia-1414", parent="0000:41:00.0"
    )
    assert device.type_name == name
    assert device == find(root, "0000:41:00.4")


@pytest.mark.parametrize("number", ["0", "", "-1", "none", "1414 1428", "\u0661"])
def test_a_function_of_nvidias_without_a_type_is_no_vgpu(kernel: FakeKernel, root: HostRoot, number: str) -> None:
    """0 says that it has none; opening it would be ENODEV."""
    function(kernel, "0000:41:00.4", nvidia__current_vgpu_type=f"{number}\n")
    assert list_functions(root) == []
    assert find(root, "0000:41:00.4").identity.mdev_type == ""


def test_other_vendors_functions_are_display_controllers_of_a_vfio_driver(kernel: FakeKernel, root: HostRoot) -> None:
    """A graphics function that the host keeps, and a network function for a VM, are no vGPUs; nor is a whole card."""
    intel = function(kernel, "0000:00:02.1", **{"class": "0x030000\n"})
    (kernel.sysfs.path / "bus/pci/drivers/i915").mkdir()
    (intel.parent / "0000:00:02.0/driver").symlink_to(kernel.sysfs.path / "bus/pci/drivers/i915")
    function(kernel, "0000:65:00.1", **{"class": "0x020000\n"})
    host = function(kernel, "0000:66:00.1", **{"class": "0x038000\n"})
    shutil.rmtree(host / "vfio-dev")
    (function(kernel, "0000:67:00.1", **{"class": "0x030000\n"}) / "physfn").unlink()
    kernel.add(Mdpy())
    [device] = list_functions(root)
    assert (device.identity.name, device.identity.vendor, device.identity.parent) == (
        "0000:00:02.1",
        "i915",
        "0000:00:02.0",
    )
    assert device.vfio


def test_functions_come_and_go(kernel: FakeKernel, root: HostRoot, tmp_path: Path) -> None:
    """In order of their addresses; a link to nothing is left out; a host may have no PCI at all."""
    for address in ("0000:41:00.5", "0000:41:00.4"):
        function(kernel, address)
    assert [device.identity.name for device in list_functions(root)] == ["0000:41:00.4", "0000:41:00.5"]
    (kernel.sysfs.device(kernel.add(Nvidia("0000:41:00.6", pci=True))) / "physfn").unlink()
    shutil.rmtree((kernel.sysfs.path / "bus/pci/devices/0000:41:00.5").resolve())
    assert [device.identity.name for device in list_functions(root)] == ["0000:41:00.4"]
    assert list_functions(HostRoot(tmp_path / "missing")) == []


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@given(names=st.lists(NAMES, max_size=5, unique=True), kinds=st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_any_bus_can_be_listed(tmp_path_factory: pytest.TempPathFactory, names: list[str], kinds: list[int]) -> None:
    """Files, folders and links of any name where devices should be: a list, in order, and no crash."""
    folder = tmp_path_factory.mktemp("bus")
    devices = folder / "sys/bus/mdev/devices"
    devices.mkdir(parents=True)
    for name, kind in zip(names, kinds, strict=False):
        entry = devices / name
        if kind == 0:
            entry.write_bytes(b"not a device")
        elif kind == 1:
            entry.mkdir()
        elif kind == 2:
            entry.symlink_to("nowhere")
        else:
            entry.symlink_to(folder)
    root = HostRoot(folder)
    found = list_mdevs(root)
    assert [device.identity.name for device in found] == sorted(device.identity.name for device in found)
    assert {device.identity.name for device in found} <= set(names)
    for device in found:
        with pytest.raises(MdevDisplayError):
            find(root, device.identity.name)
    shutil.rmtree(folder)
