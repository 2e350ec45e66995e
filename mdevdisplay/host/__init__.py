"""What is on this host: vGPUs in sysfs, who holds them in /proc, and opening one."""

from mdevdisplay.host.devices import HostDevice, list_functions, list_mdevs
from mdevdisplay.host.holders import HeldDevice, HeldGroup, Holder, find_holder, find_holders, named
from mdevdisplay.host.listing import list_host_devices
from mdevdisplay.host.locate import host_name, open_device
from mdevdisplay.host.root import HostRoot
from mdevdisplay.host.vmm import Vm

__all__ = [
    "HeldDevice",
    "HeldGroup",
    "Holder",
    "HostDevice",
    "HostRoot",
    "Vm",
    "find_holder",
    "find_holders",
    "host_name",
    "list_functions",
    "list_host_devices",
    "list_mdevs",
    "named",
    "open_device",
]
