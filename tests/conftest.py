"""What all tests share: the fake kernel, and hypothesis without deadlines."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from gate import Gate
from hypothesis import HealthCheck, settings

from mdevdisplay.host import HostRoot, list_mdevs
from mdevdisplay.testing import Driver, FakeKernel
from mdevdisplay.vfio import Device

pytest_plugins = ["mdevdisplay.testing.pytest_plugin"]

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")

# what starts the tests in the background may have it ignored, and the programs that they start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def kernel(fake_kernel: FakeKernel) -> FakeKernel:
    """A fake kernel in which nothing may be left open after the test."""
    return fake_kernel


@pytest.fixture
def descriptor(kernel: FakeKernel) -> Iterator[Callable[[Driver], int]]:
    """A function that adds a device and returns a descriptor of it, closed after the test."""
    opened: list[int] = []

    def open_one(driver: Driver) -> int:
        opened.append(kernel.open_descriptor(kernel.add(driver)))
        return opened[-1]

    yield open_one
    for fd in opened:
        os.close(fd)


class Opener(Protocol):
    """See `opened`."""

    def __call__(self, driver: Driver, *, borrowed: bool = False) -> Device: ...


@pytest.fixture
def opened(kernel: FakeKernel) -> Iterator[Opener]:
    """A function that adds a driver and returns an open Device of it, with the identity that sysfs shows.

    A borrowed one is held by a VMM. Devices that the test leaves open are closed after it.
    """
    devices: list[Device] = []

    def open_one(driver: Driver, *, borrowed: bool = False) -> Device:
        kernel.add(driver)
        identities = {entry.identity.name: entry.identity for entry in list_mdevs(HostRoot.from_environment())}
        fd = kernel.lend(driver) if borrowed else kernel.open_descriptor(driver)
        devices.append(Device(fd, driver.name, identities.get(driver.name), borrowed=borrowed))
        return devices[-1]

    yield open_one
    for device in devices:
        device.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A driver that hangs until the test opens it, and at the latest after the test."""
    gate = Gate()
    yield gate
    gate.open()
