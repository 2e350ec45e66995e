"""The VM ends while its display is read: everything is let go, and what is kept stays readable and holds nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from gate import Gate

import mdevdisplay
from mdevdisplay import Blank, Display, Frame, VmGone
from mdevdisplay.errors import (
    DeviceBusy,
    LocatorError,
    MdevDisplayError,
    NothingDisplayed,
    NotPermitted,
    TimedOut,
)
from mdevdisplay.host import attach
from mdevdisplay.testing import FakeKernel, Mbochs, Mdpy
from mdevdisplay.testing.vmm import FakeVmm


@pytest.fixture
def driver(kernel: FakeKernel) -> Mdpy:
    """A device that a VM uses."""
    driver = kernel.add(Mdpy("vga"))
    driver.write(driver.region(16).offset, bytes(range(1, 256)) * 100)  # type: ignore[union-attr]
    return driver


@pytest.fixture
def vmm(kernel: FakeKernel, driver: Mdpy) -> FakeVmm:
    """The VM, called win10."""
    return kernel.vmm(driver)


def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def fails_as_gone(display: Display) -> bool:
    """Whether a capture says that the VM has gone."""
    try:
        display.capture()
    except VmGone:
        return True
    return False


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_everything_is_let_go_without_a_call(
    kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm, timeout: float | None
) -> None:
    """A display that nobody calls lets its device go as well; the next call says why."""
    with mdevdisplay.open("vm:win10", timeout=timeout) as display:
        frame = display.capture()
        with display.map() as view:
            before = frame.raw.copy()
            assert view.any()
            vmm.kill()
            assert eventually(lambda: not kernel.leaks()), kernel.leaks()
            assert not view.any()
            assert np.array_equal(frame.raw, before)
        for call in (display.capture, display.surface, display.edid, display.dmabuf, display.findings):
            with pytest.raises(VmGone, match=rf"VM 'win10' \(pid {vmm.pid}\) has ended") as caught:
                call()
            assert caught.value.device == "vm:win10"
            assert "reconnect" in caught.value.hint
        assert not display.closed


def test_the_device_can_be_used_again(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
    """Its group opens, with the old display still there."""
    with mdevdisplay.open(driver.name) as old:
        vmm.kill()
        assert eventually(lambda: not kernel.leaks())
        with mdevdisplay.open(driver.name) as new:
            assert not new.borrowed
            new.capture()
        with pytest.raises(VmGone):
            old.capture()


def test_a_stream_ends_with_the_reason(vmm: FakeVmm) -> None:
    """Frames, and then VmGone."""
    with mdevdisplay.open("vm:win10") as display, display.frames(max_fps=1000) as stream:
        assert isinstance(next(stream), Frame)
        vmm.kill()
        with pytest.raises(VmGone):
            deque(stream, maxlen=0)


def test_a_stream_with_a_descriptor(vmm: FakeVmm) -> None:
    """For GLib and Qt: latest() raises it."""
    with mdevdisplay.open("vm:win10") as display, display.frames(max_fps=1000) as stream:
        stream.fileno()
        vmm.kill()

        def fails() -> bool:
            try:
                stream.latest()
            except VmGone:
                return True
            return False

        assert eventually(fails)


def test_async(kernel: FakeKernel, vmm: FakeVmm) -> None:
    """The async display is no different."""

    async def main() -> None:
        async with mdevdisplay.aopen("vm:win10", timeout=10) as display:
            await display.capture()
            await asyncio.to_thread(vmm.kill)
            with pytest.raises(VmGone):
                async for _ in display.frames(max_fps=1000):
                    pass
            assert kernel.leaks() == []

    asyncio.run(main())


def test_a_call_stuck_in_the_kernel_delays_it(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm, gate: Gate) -> None:
    """Nothing can be closed under a call; once it comes back all goes at once, and another display is not delayed."""
    other = kernel.add(Mdpy("xga"))
    second = kernel.vmm(other, name="second")
    with mdevdisplay.open("vm:win10", timeout=0.1) as stuck, mdevdisplay.open("vm:second", timeout=10):
        driver.stall = gate
        with pytest.raises(TimedOut):
            stuck.surface()
        vmm.kill()
        second.kill()
        assert eventually(lambda: not kernel.descriptors_of(other))
        assert kernel.descriptors_of(driver)
        driver.stall = None
        gate.open()
        assert eventually(lambda: not kernel.leaks())
        with pytest.raises(VmGone):
            stuck.capture()


def test_dmabufs_are_closed_before_the_device(kernel: FakeKernel) -> None:
    """As at close()."""
    driver = kernel.add(Mbochs())
    driver.set_mode(640, 480)
    vmm = kernel.vmm(driver)
    with mdevdisplay.open("vm:win10") as display:
        display.capture()
        vmm.kill()
        assert eventually(lambda: not kernel.leaks())
    assert kernel.violations == []


def test_another_reader_is_no_owner(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
    """Two readers of one VM do not keep its device for each other once it has ended."""
    reader = kernel.vmm(driver, words=["/usr/bin/python3", "-m", "mdevdisplay", "watch", "vm:win10"])
    with mdevdisplay.open(driver.name) as display:
        assert display.borrowed
        vmm.kill()
        assert eventually(lambda: not kernel.leaks())
    driver.lent = True
    with pytest.raises(DeviceBusy) as caught:
        mdevdisplay.open(driver.name)
    assert f"pid:{reader.pid}" in caught.value.hint


def test_a_forked_child_leaves_the_parents_watch_alone(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
    """A child that ends its own copy of the display ends nothing of the parent's."""
    with mdevdisplay.open("vm:win10", timeout=10) as display:
        display.capture()
        child = os.fork()
        if child == 0:
            try:
                display._reader.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        vmm.kill()
        assert eventually(lambda: not kernel.leaks())
        with pytest.raises(VmGone):
            display.capture()


def test_a_thread_that_cannot_start_costs_one_display(
    kernel: FakeKernel, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the caller's, nothing stays open, and the next display is watched again."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            mdevdisplay.open("vm:win10")
    assert kernel.leaks() == []
    with mdevdisplay.open("vm:win10"):
        vmm.kill()
        assert eventually(lambda: not kernel.leaks())


def test_no_thread_is_left(kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
    """The one that waits for VMs ends with the last borrowed display."""
    before = threading.active_count()
    for _ in range(3):
        with mdevdisplay.open("vm:win10") as one, mdevdisplay.open("vm:win10") as two:
            one.capture()
            two.capture()
        assert eventually(lambda: threading.active_count() == before)
    assert vmm.pid


class TestReconnect:
    """``open(reconnect=True)``."""

    def test_the_picture_comes_back(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """Away, every call says so; back, the display goes on, and its serial numbers too."""
        with mdevdisplay.open("vm:win10", reconnect=True, timeout=10) as display:
            first = display.capture()
            vmm.kill()
            assert eventually(lambda: not kernel.leaks())
            with pytest.raises(VmGone):
                display.capture()
            with pytest.raises(VmGone, match="has not come back yet"):
                display.surface()
            kernel.vmm(driver)
            again = display.capture(wait=10)
            assert again.serial > first.serial
            assert np.array_equal(again.raw, first.raw)

    def test_a_free_device_is_left_to_its_vm(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """By UUID too: who opened it now would keep the VM from starting again."""
        with mdevdisplay.open(driver.name, reconnect=True, timeout=10) as display:
            vmm.kill()
            assert eventually(lambda: not kernel.leaks())
            with pytest.raises(VmGone, match="no VM uses the device now"):
                display.capture(wait=1.2)
            assert not kernel.leaks()
            kernel.vmm(driver)
            display.capture(wait=10)
            assert display.borrowed

    def test_what_waiting_does_not_mend_is_said(
        self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No permission any more: not a VM that is away."""

        def refuse(pidfd: int, fd: int) -> int:
            number = errno.EBADF if pidfd < 0 else errno.EPERM
            raise OSError(number, os.strerror(number))

        with mdevdisplay.open("vm:win10", reconnect=True, timeout=10) as display:
            vmm.kill()
            assert eventually(lambda: fails_as_gone(display))
            monkeypatch.setattr(attach, "duplicate_from", refuse)
            kernel.vmm(driver)
            with pytest.raises(NotPermitted, match="EPERM"):
                display.capture(wait=10)

    def test_a_stream_goes_on(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """Blanks say why, and then frames again."""
        with (
            mdevdisplay.open("vm:win10", reconnect=True, timeout=10) as display,
            display.frames(max_fps=500) as stream,
        ):
            assert isinstance(next(stream), Frame)
            vmm.kill()
            blank = next(picture for picture in stream if isinstance(picture, Blank))
            assert blank.cause == "vm-gone"
            kernel.vmm(driver)
            frame = next(picture for picture in stream if isinstance(picture, Frame))
            assert frame.serial > blank.serial

    def test_async(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """The async display is no different."""

        async def main() -> None:
            async with mdevdisplay.aopen("vm:win10", reconnect=True, timeout=10) as display:
                await display.capture()
                await asyncio.to_thread(vmm.kill)
                async for picture in display.frames(max_fps=500):
                    if isinstance(picture, Blank):
                        assert picture.cause == "vm-gone"
                        break
                kernel.vmm(driver)
                frame = await display.capture(wait=10)
                assert frame.surface.width == 640

        asyncio.run(main())

    @pytest.mark.parametrize("locator", ["pid:1", "fd:7"])
    def test_what_cannot_come_back(self, locator: str) -> None:
        """A process, a descriptor."""
        with pytest.raises(LocatorError, match="does not come back"):
            mdevdisplay.open(locator, reconnect=True)

    def test_closing_while_it_is_away(self, vmm: FakeVmm) -> None:
        """Nothing is left, and it is closed."""
        display = mdevdisplay.open("vm:win10", reconnect=True)
        vmm.kill()
        assert eventually(lambda: fails_as_gone(display))
        display.close()
        with pytest.raises(MdevDisplayError) as caught:
            display.capture()
        assert caught.value.cause == "closed"

    def test_a_view_across_it(self, kernel: FakeKernel, driver: Mdpy, vmm: FakeVmm) -> None:
        """A view of the old VM's memory is let go by the reader that it belongs to."""
        with mdevdisplay.open("vm:win10", reconnect=True, timeout=10) as display:
            with display.map() as view:
                vmm.kill()
                assert eventually(lambda: not kernel.leaks())
                kernel.vmm(driver)
                display.capture(wait=10)
                assert not view.any()
            display.capture()

    def test_waiting_for_a_picture(self, kernel: FakeKernel) -> None:
        """A VM that is there and shows nothing yet is waited for as without it."""
        driver = kernel.add(Mbochs())
        kernel.vmm(driver, name="dark")
        with mdevdisplay.open("vm:dark", reconnect=True, timeout=10) as display:
            with pytest.raises(NothingDisplayed):
                display.capture(wait=0.05)
            driver.set_mode(640, 480)
            assert isinstance(display.capture(wait=10), Frame)


def test_the_display_says_what_it_is(vmm: FakeVmm) -> None:
    """For `info` and for people."""
    with mdevdisplay.open("vm:win10", reconnect=True) as display:
        assert isinstance(display, Display)
        assert not display.isolated
        assert display.backend.name == "region_cap"
        with pytest.raises(MdevDisplayError, match="reconnects"):
            _ = display.source
    assert vmm.pid
