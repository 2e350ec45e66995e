"""What is on this host: vGPUs in sysfs, and opening one."""

from mdevdisplay.host.devices import HostDevice, list_mdevs
from mdevdisplay.host.locate import host_name, open_device
from mdevdisplay.host.root import HostRoot

__all__ = ["HostDevice", "HostRoot", "host_name", "list_mdevs", "open_device"]
