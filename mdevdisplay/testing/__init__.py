"""For those who write backends: a kernel for unit tests.

`FakeKernel` answers open, ioctl and mmap by scripted drivers, so that every errno and every byte that a driver may
give can be met without hardware, privileges or a VFIO module, while the code above runs as it is:

    from mdevdisplay.testing import FakeKernel, Mdpy, Scripted

    def test_a_display_is_read():
        with FakeKernel() as kernel:
            device = kernel.add(Mdpy("vga"))
            with mdevdisplay.open(device.name) as display:
                assert display.capture().surface.width == 640
            kernel.assert_nothing_left()

With pytest, ``pytest_plugins = ["mdevdisplay.testing.pytest_plugin"]`` gives the fixture ``fake_kernel``, which checks
at the end of each test that nothing is left. A driver of your own is a subclass of `Driver` that overrides `query`, or
a `Scripted` with a list of answers.
"""

from mdevdisplay.testing.driver import Answer, Driver, Region, Scripted, type_capability
from mdevdisplay.testing.drivers import Gvt, Mbochs, Mdpy, Mtty, Nvidia, PreGfx
from mdevdisplay.testing.files import DmaBufFile, UserMemory, failure
from mdevdisplay.testing.kernel import FakeKernel
from mdevdisplay.testing.record import Call, Record, request_name
from mdevdisplay.testing.sysfs import Sysfs

__all__ = [
    "Answer",
    "Call",
    "DmaBufFile",
    "Driver",
    "FakeKernel",
    "Gvt",
    "Mbochs",
    "Mdpy",
    "Mtty",
    "Nvidia",
    "PreGfx",
    "Record",
    "Region",
    "Scripted",
    "Sysfs",
    "UserMemory",
    "failure",
    "request_name",
    "type_capability",
]
