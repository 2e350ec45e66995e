"""What a locator means on this host, from sysfs and /proc alone: the device, and who holds it."""

from __future__ import annotations

import re

import attrs

from mdevdisplay.host.devices import HostDevice, look_up
from mdevdisplay.host.holders import Holder, find_holder, named, scan
from mdevdisplay.host.locate import host_name, is_host_locator
from mdevdisplay.host.root import HostRoot

__all__ = ["Subject", "find_subject"]

_NUMBERED = re.compile(r"(.*)/[0-9]{1,3}")


@attrs.frozen(kw_only=True)
class Subject:
    """What is to be examined.

    Attributes:
        locator: how the user named it.
        own: whether the host itself has it; False for a backend's own scheme.
        device: the device as sysfs shows it; None where it is not known, or not there.
        holders: the processes that hold it, VMMs first; or those that have the name.
        group_holder: a process that has its IOMMU group open, where nobody holds the device itself.
    """

    locator: str
    own: bool = True
    device: HostDevice | None = None
    holders: tuple[Holder, ...] = ()
    group_holder: Holder | None = None

    @property
    def holder(self) -> Holder | None:
        """The process that is meant, where there is just one."""
        return self.holders[0] if len(self.holders) == 1 else None


def find_subject(locator: str, root: HostRoot) -> Subject:
    """Return what a locator means; whatever is wrong with it, this is no error."""
    if ":" in locator and not is_host_locator(locator):
        return Subject(locator=locator, own=False)
    name = host_name(locator)
    device = look_up(root, name) if name else None
    if name and device is not None:
        seen = scan(root).holders
        holding = [holder for holder in seen if holder.holds(name)]
        owners = [holder for holder in holding if holder.vm.kind] or holding
        group = device.group
        others = (holder for holder in seen if group and any(held.number == group for held in holder.groups))
        return Subject(
            locator=locator,
            device=device,
            holders=tuple(owners),
            group_holder=None if owners else next(others, None),
        )
    holders = _by_name(locator, root)
    return Subject(locator=locator, device=_only_device(holders, root), holders=tuple(holders))


def _by_name(locator: str, root: HostRoot) -> list[Holder]:
    scheme, colon, text = locator.partition(":")
    if scheme in ("fd", "unix") and colon:
        return []
    if scheme == "pid" and colon:
        digits = text.partition("/")[0]
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else 0
        holder = find_holder(root, number) if 0 < number < 1 << 31 else None
        return [holder] if holder is not None else []
    name = text if scheme == "vm" and colon else locator
    holders = scan(root).holders
    found = named(holders, name)
    match = _NUMBERED.fullmatch(name)
    return found or (named(holders, match[1]) if match else [])


def _only_device(holders: list[Holder], root: HostRoot) -> HostDevice | None:
    """Return the device of the one process that is meant, where it has one alone, or one vGPU beside other devices."""
    if len(holders) != 1:
        return None
    names = {held.name for held in holders[0].devices if held.name} | set(holders[0].others)
    if len(names) < len(holders[0].devices):  # one of those without a name may be a vGPU too
        return None
    devices = [device for name in sorted(names) if (device := look_up(root, name)) is not None]
    vgpus = [device for device in devices if device.identity.mdev_type] or devices
    return vgpus[0] if len(vgpus) == 1 else None
