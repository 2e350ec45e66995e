from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gate import Gate
from pixels.holdings import eventually, holdings, nothing_new_since
from pixels.vendor import installed

import mdevdisplay
from mdevdisplay import AsyncDisplay, Blank, Frame, PlaneType
from mdevdisplay._lane import Lane
from mdevdisplay.connecting import connect
from mdevdisplay.errors import (
    Closed,
    DeviceGone,
    DriverError,
    GuestChangingMode,
    LocatorError,
    NothingDisplayed,
    PluginError,
    TimedOut,
    UnsupportedFormat,
)
from mdevdisplay.pace import ModeChangePatience
from mdevdisplay.testing import FakeKernel, Gvt, Nvidia
from mdevdisplay.vfio import uapi
from mdevdisplay_simulated import read_counter

MODES = "modes=64x64/320x200/128x96/65x67,mode_every=1,step=2"
SIZES = [(64, 64), (320, 200), (128, 96), (65, 67)]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in a loop of its own that complains about everything."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await main()

    asyncio.run(watched())
    gc.collect()
    assert not complaints


async def ticking(seconds: float = 60.0) -> int:
    """Count how often the loop comes round, until cancelled."""
    count = 0
    try:
        while count * 0.001 < seconds:
            await asyncio.sleep(0.001)
            count += 1
    except asyncio.CancelledError:
        pass
    return count


async def answer_of(task: asyncio.Task[int]) -> int:
    task.cancel()
    return await task


# the same as the synchronous one


def test_a_capture_is_what_the_guest_shows() -> None:
    """Everything that Display has, awaited."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:320x200,frame=41,fps=0,cursor=on,format=AR24") as display:
            frame = await display.capture()
            assert read_counter(frame.pixels) == 41
            assert frame.serial == 1
            assert (await display.capture(PlaneType.CURSOR)).to_image().mode == "RGBA"
            surface = await display.surface()
            assert surface is not None
            assert surface.width == 320
            async with display.map() as view:
                assert not view.flags.writeable
                np.testing.assert_array_equal(view, frame.raw)
            with await display.dmabuf() as buffer:
                assert buffer.surface == surface
            assert (await display.readability()).way == "region"
            assert await display.findings() == ()
            assert await display.edid() is None
            assert display.locator.startswith("sim:")
            assert display.backend.name == "simulated"
            assert display.identity.driver == "simulated"
            assert (display.borrowed, display.closed) == (False, False)
        assert display.closed
        assert not view.any()

    before = holdings()
    run(main)
    assert eventually(lambda: nothing_new_since(before))


@pytest.mark.parametrize("way", ["region", "dmabuf"])
def test_captures_follow_the_mode(way: str) -> None:
    """Frames over changes of mode are right, and stay so after the display is closed."""

    async def main() -> None:
        async with mdevdisplay.aopen(f"sim:{MODES},via={way}", timeout=60) as display:
            kept = [await display.capture() for _ in range(12)]
        for number, frame in enumerate(kept):
            assert (frame.width, frame.height) == SIZES[number % 4]
            assert read_counter(frame.pixels) == number

    run(main)


@pytest.mark.parametrize(
    ("locator", "kind"),
    [("nonsense", LocatorError), ("sim:64x64,colour=red", LocatorError), ("sim:64x64,fault=enotty", Exception)],
)
def test_what_cannot_be_opened_leaves_nothing(locator: str, kind: type[Exception]) -> None:
    """The errors are those of open(), and no thread or descriptor stays."""

    async def main() -> None:
        with pytest.raises(kind) as caught:
            async with mdevdisplay.aopen(locator):
                raise AssertionError
        assert isinstance(caught.value, mdevdisplay.MdevDisplayError)
        assert caught.value.device == locator

    before = holdings()
    run(main)
    assert eventually(lambda: nothing_new_since(before))


def test_nothing_displayed_and_waiting_for_it() -> None:
    """None, an error, or after a while a picture; waiting does not block the loop."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,blank=0-4,step=1") as display:
            assert await display.surface() is None
            with pytest.raises(NothingDisplayed):
                await display.capture()
            tick = asyncio.create_task(ticking())
            frame = await display.capture(wait=60)
            assert read_counter(frame.pixels) >= 5
            assert await answer_of(tick) > 10
        async with mdevdisplay.aopen("sim:64x64,blank=on") as display:
            with pytest.raises(NothingDisplayed):
                await display.capture(wait=0.1)
        async with mdevdisplay.aopen("sim:64x64,fault=eio") as display:
            with pytest.raises(DriverError):
                await display.capture(wait=3600)

    run(main)


def test_waiting_ends_with_the_display() -> None:
    """Whoever waits for a picture of a display that is closed meanwhile gets told."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,blank=on") as display:
            waiting = asyncio.create_task(display.capture(wait=3600))
            await asyncio.sleep(0.05)
            await display.close()
            with pytest.raises(Closed):
                await waiting

    run(main)


def test_a_closed_display_says_so() -> None:
    """Every call raises Closed, and close() may be called again."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64") as display:
            await display.close()
            await display.close()
            calls: list[Callable[[], Awaitable[object]]] = [
                display.surface,
                display.capture,
                display.dmabuf,
                display.edid,
                display.readability,
                display.findings,
                lambda: display.map().__aenter__(),
                lambda: anext(aiter(display.frames())),
            ]
            for call in calls:
                with pytest.raises(Closed, match="closed before"):
                    await call()

    run(main)


def test_a_device_without_dmabufs_says_so() -> None:
    """As without await."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,via=region") as display:
            with pytest.raises(UnsupportedFormat):
                await display.dmabuf()

    run(main)


def test_tasks_may_share_a_display() -> None:
    """Eight tasks capture at once: every frame is whole and has a number of its own."""

    async def main() -> None:
        async with mdevdisplay.aopen(f"sim:{MODES}") as display:

            async def capture() -> list[Frame]:
                return [await display.capture() for _ in range(10)]

            frames = [frame for some in await asyncio.gather(*(capture() for _ in range(8))) for frame in some]
        assert sorted(frame.serial for frame in frames) == list(range(1, 81))
        for frame in frames:
            assert read_counter(frame.pixels) == frame.serial - 1

    before = holdings()
    run(main)
    assert eventually(lambda: nothing_new_since(before))


def test_a_backend_that_breaks_is_named(tmp_path: Path) -> None:
    """Exceptions of a backend come as PluginError here too."""

    async def main(acme: ModuleType) -> None:
        async with mdevdisplay.aopen("acme:") as display:
            assert (await display.capture()).pixels.shape == (8, 16, 4)
            acme.behaviour["get_surface_info"] = ZeroDivisionError("the lamp is red")
            with pytest.raises(PluginError, match="acme"):
                await display.capture()

    with installed(tmp_path) as acme:
        run(lambda: main(acme))


# frames


def test_frames_come_with_blanks_between() -> None:
    """A stream shows a screen that goes dark and comes back, once each; serials count all of it."""

    async def main() -> None:
        seen: list[Frame | Blank] = []
        async with mdevdisplay.aopen("sim:64x64,blank=2-3/6,step=2") as display:
            async for picture in display.frames(max_fps=1000):
                seen.append(picture)
                if len(seen) == 12:
                    break
        assert [picture.serial for picture in seen] == list(range(1, 13))
        assert [bool(picture) for picture in seen] == [True] * 2 + [False] + [True] * 4 + [False] + [True] * 4

    run(main)


def test_frames_end_with_the_display() -> None:
    """close() in another task ends the loop over frames, quietly, also in the middle of a pause."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64") as display:

            async def watch(max_fps: float) -> int:
                return len([picture async for picture in display.frames(max_fps=max_fps)])

            tasks = [asyncio.create_task(watch(max_fps)) for max_fps in (0.001, 500, 1000)]
            await asyncio.sleep(0.1)
            await display.close()
            counts = await asyncio.gather(*tasks)
        assert counts[0] == 1
        assert counts[1] > 1

    run(main)


def test_frames_refuse_no_pace() -> None:
    """max_fps must be above 0."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64") as display:
            with pytest.raises(ValueError, match="max_fps"):
                await anext(aiter(display.frames(max_fps=0)))

    run(main)


def test_frames_bear_a_change_of_mode_and_nothing_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guest does while it sets a mode is waited for; a plane that stays so ends the stream with the reason."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:modes=64x64/128x96,mode_every=4,step=1,fault=einval:12") as display:
            widths = set()
            async for picture in display.frames(max_fps=1000):
                if isinstance(picture, Frame):
                    widths.add(picture.width)
                if len(widths) == 2:
                    break
        monkeypatch.setattr(ModeChangePatience, "SECONDS", 0.3)
        async with mdevdisplay.aopen("sim:64x64,fault=einval-forever") as display:
            with pytest.raises(GuestChangingMode):
                await anext(aiter(display.frames(max_fps=1000)))
        async with mdevdisplay.aopen("sim:64x64,fault=gone:9") as display:
            with pytest.raises(DeviceGone):
                async for _ in display.frames(max_fps=1000):
                    pass

    run(main)


# a driver that hangs


def test_a_hung_device_does_not_block_the_loop() -> None:
    """While a query hangs every other task of the loop goes on, another display too."""

    async def main() -> None:
        async with mdevdisplay.aopen("sim:64x64,fault=hang:1") as hung, mdevdisplay.aopen("sim:64x64") as other:
            tick = asyncio.create_task(ticking())
            query = asyncio.create_task(hung.surface())
            for _ in range(20):
                await other.capture()
            assert not query.done()
            surface = await query
            assert surface is not None
            assert await answer_of(tick) > 100

    run(main)


def test_a_call_comes_back_in_time_and_no_second_query_is_begun(kernel: FakeKernel, gate: Gate) -> None:
    """A hung driver costs the caller its timeout; it is not asked again before it has answered."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    async def main() -> None:
        async with mdevdisplay.aopen(device.name, timeout=60) as display:
            assert (await display.capture()).width == 64
            device.stall = gate
            for _ in range(5):
                with pytest.raises(TimedOut, match=r"within 0.02 s") as caught:
                    await display.surface(timeout=0.02)
                assert caught.value.device == device.name
            assert gate.waiting == 1
            gate.open()
            assert await display.surface() is not None
            assert gate.waiting == 2

    run(main)


def test_opening_has_a_deadline(kernel: FakeKernel, gate: Gate) -> None:
    """A driver that hangs in the probe does not hold aopen() back, and what it opens late is closed."""
    device = kernel.add(Nvidia())
    device.stall = gate

    async def main() -> None:
        with pytest.raises(TimedOut):
            async with mdevdisplay.aopen(device.name, timeout=0.05):
                raise AssertionError
        gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_a_late_dmabuf_is_closed(kernel: FakeKernel, gate: Gate) -> None:
    """A descriptor that comes after the deadline, or for a task that was cancelled, is closed."""
    device = kernel.add(Gvt(needs_vm=False))
    device.show(64, 64)

    async def main() -> None:
        async with mdevdisplay.aopen(device.name) as display:
            device.stall = lambda request: gate() if request == uapi.VFIO_DEVICE_GET_GFX_DMABUF else None
            with pytest.raises(TimedOut):
                await display.dmabuf(timeout=0.05)
            task = asyncio.create_task(display.dmabuf())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_a_cancelled_call_comes_back_at_once(kernel: FakeKernel, gate: Gate) -> None:
    """Cancelling a task that waits for a hung driver does not wait for the driver; the display works afterwards."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    async def main() -> None:
        async with mdevdisplay.aopen(device.name) as display:
            device.stall = gate
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await display.capture()
            assert gate.waiting == 1
            device.stall = None
            gate.open()
            assert (await display.capture()).width == 64

    run(main)


def test_a_cancelled_open_leaves_nothing(kernel: FakeKernel, gate: Gate) -> None:
    """A task that is cancelled while it opens comes back at once, and what is opened late is closed."""
    device = kernel.add(Nvidia())
    device.stall = gate

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), mdevdisplay.aopen(device.name):
                raise AssertionError
        gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_cancelling_the_block_is_not_lost(kernel: FakeKernel, gate: Gate) -> None:
    """A task that is cancelled inside the block is cancelled, also where closing hangs; the device is let go later."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    async def use() -> None:
        async with mdevdisplay.aopen(device.name, timeout=0.1) as display:
            device.stall = gate
            await display.capture(timeout=3600)

    async def main() -> None:
        task = asyncio.create_task(use())
        while not gate.waiting:  # noqa: ASYNC110 - it counts in another thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_the_error_of_the_block_comes_before_that_of_close(kernel: FakeKernel, gate: Gate) -> None:
    """Leaving the block because of an error shows that error, also where closing hangs."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    async def use() -> None:
        async with mdevdisplay.aopen(device.name, timeout=0.05) as display:
            device.stall = gate
            with pytest.raises(TimedOut):
                await display.capture()
            raise KeyError

    async def main() -> None:
        with pytest.raises(KeyError):
            await use()
        gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_close_comes_back_in_time_and_closes_in_the_end(kernel: FakeKernel, gate: Gate) -> None:
    """close() of a display that hangs says so; the device is let go as soon as the driver answers."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    used: list[AsyncDisplay] = []

    async def use() -> None:
        async with mdevdisplay.aopen(device.name, timeout=0.05) as display:
            used.append(display)
            device.stall = gate
            with pytest.raises(TimedOut):
                await display.capture()

    async def main() -> None:
        with pytest.raises(TimedOut):
            await use()
        assert used[0].closed
        assert kernel.leaks()
        gate.open()

    run(main)
    assert eventually(lambda: not kernel.leaks())


def test_a_late_answer_to_a_loop_that_has_ended_is_silent(
    kernel: FakeKernel, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that answers after the program's loop is over logs nothing and raises nowhere."""
    device = kernel.add(Nvidia())
    device.show(64, 64)

    async def use() -> None:
        async with mdevdisplay.aopen(device.name, timeout=0.05) as display:
            device.stall = gate
            await display.capture()

    async def main() -> None:
        with pytest.raises(TimedOut):
            await use()

    caplog.set_level(logging.INFO)
    run(main)
    gate.open()
    assert eventually(lambda: not kernel.leaks())
    assert eventually(lambda: not [thread for thread in threading.enumerate() if device.name in thread.name])
    assert caplog.records == []


# what is left


def test_nothing_leaks() -> None:
    """Descriptors, mappings and threads are the same after 300 captures over changes of mode as before."""

    async def main() -> None:
        async with mdevdisplay.aopen(f"sim:{MODES},buffers=3,via=dmabuf", timeout=60) as display:
            for _ in range(300):
                await display.capture()

    before = holdings()
    run(main)
    assert eventually(lambda: nothing_new_since(before))


def test_a_block_that_is_never_left_ends_with_its_loop() -> None:
    """A display that a task forgot inside its block is closed by the loop's own end."""
    kept: list[object] = []

    async def main() -> None:
        block = mdevdisplay.aopen("sim:64x64")
        kept.extend([block, await block.__aenter__()])

    before = holdings()
    run(main)
    kept.clear()
    gc.collect()
    assert eventually(lambda: nothing_new_since(before))


def test_a_forgotten_display_warns_and_is_closed() -> None:
    """A display that nobody closed is a ResourceWarning that names it, and it holds nothing any more."""
    before = holdings()
    display = AsyncDisplay(connect("sim:64x64,seed=98", None, 0), Lane("sim:64x64,seed=98"))
    asyncio.run(display.capture())
    with pytest.warns(ResourceWarning, match="sim:64x64,seed=98: a display was not closed"):
        del display
        gc.collect()
    assert eventually(lambda: nothing_new_since(before))
