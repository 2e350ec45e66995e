"""The consumer API around a worker: the same Display, sync and async."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from pixels.holdings import eventually, holdings, nothing_new_since

import mdevdisplay
from mdevdisplay import AsyncDisplay, Frame
from mdevdisplay._lane import Lane
from mdevdisplay.errors import NothingDisplayed, TimedOut, WorkerDied
from mdevdisplay.worker.client import RemoteReader
from mdevdisplay_simulated import read_counter
from worker.processes import children


def test_a_display_in_a_worker() -> None:
    """Everything that a display does, and nothing of it is left."""
    before, processes = holdings(), children()
    with mdevdisplay.open("sim:320x200,step=2,cursor=on", isolated=True, timeout=30) as display:
        assert display.isolated
        assert display.backend.name == "simulated"
        assert display.surface() is display.surface()
        frames = [frame for _, frame in zip(range(5), display.frames(max_fps=1000), strict=False)]
        numbers = [read_counter(frame.pixels) for frame in frames if isinstance(frame, Frame)]
        del frames
        assert len(numbers) == 5
        assert numbers == sorted(numbers)
        with display.map() as view:
            assert view.shape == (200, 320, 4)
        with display.dmabuf() as buffer:
            assert buffer.surface.width == 320
        assert display.readability().way == "region"
        assert display.edid() is None
        assert display.findings() == ()
        kept = display.capture()
    assert kept.raw.any()
    del kept, view
    assert children() <= processes
    assert eventually(lambda: nothing_new_since(before))


def test_capture_waits_for_a_picture() -> None:
    """As in this process."""
    with mdevdisplay.open("sim:64x64,blank=0-2,step=1", isolated=True) as display:
        with pytest.raises(NothingDisplayed):
            display.capture()
        assert display.capture(wait=30).width == 64


def test_an_asynchronous_display() -> None:
    """Nothing blocks the loop, also while the worker hangs, is killed, and comes back."""

    async def read() -> None:
        lane = Lane("async")
        reader = await asyncio.to_thread(RemoteReader, "sim:320x200,step=2")
        async with AsyncDisplay(reader, lane) as display:
            numbers = []
            async for frame in display.frames(max_fps=1000):
                assert isinstance(frame, Frame)
                numbers.append(read_counter(frame.pixels))
                if len(numbers) == 5:
                    break
            assert numbers == sorted(numbers)
            async with display.map() as view:
                assert view.any()
            assert reader.pid is not None
            os.kill(reader.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await display.capture()
            assert (await display.capture()).width == 320

    asyncio.run(read())


def test_an_asynchronous_display_that_hangs() -> None:
    """TimedOut in time, and close() afterwards ends the worker."""
    processes = children()

    async def read() -> None:
        async with mdevdisplay.aopen("sim:64x64,fault=hang:4", isolated=True) as display:
            began = time.monotonic()
            with pytest.raises(TimedOut):
                await display.surface(timeout=0.2)
            assert time.monotonic() - began < 3

    asyncio.run(read())
    assert children() <= processes


def test_two_displays_do_not_disturb_each_other() -> None:
    """One hangs, the other is read."""
    with (
        mdevdisplay.open("sim:64x64,fault=hang:1", isolated=True) as slow,
        mdevdisplay.open("sim:64x64,fps=0", isolated=True) as quick,
    ):
        with pytest.raises(TimedOut):
            slow.surface(timeout=0.1)
        assert quick.capture(timeout=30).width == 64


def test_opening_in_no_time() -> None:
    """TimedOut, and the worker that was being started goes away."""
    processes = children()
    with pytest.raises(TimedOut):
        mdevdisplay.open("sim:64x64", isolated=True, timeout=0.01)
    assert eventually(lambda: children() <= processes)
