"""The async twin of the consumer API: the same calls, and nothing blocks the event loop."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from mdevdisplay._lane import Lane
from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.display import GRACE, WAIT_STEP, check_cursor, is_isolated, make_reader, source_of
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import Closed, DeviceGone, MdevDisplayError, NothingDisplayed, TimedOut
from mdevdisplay.pace import Follower, ModeChangePatience, StreamStatistics
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.reader import Readability, nothing_displayed
from mdevdisplay.reading import DisplayReader
from mdevdisplay.reconnect import ReconnectingReader
from mdevdisplay.source import Finding, Identity, Source
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.edid import Edid

__all__ = ["AsyncDisplay", "AsyncFrameStream", "aopen"]

T = TypeVar("T")


async def _run(
    lane: Lane,
    call: Callable[[], T],
    timeout: float | None,
    *,
    late: Callable[[T], object] | None = None,
    must_run: bool = False,
) -> T:
    """Run a call in the lane's thread; what comes after the deadline, or after a cancellation, is thrown away."""
    job = lane.submit(call)
    try:
        # shielded: a cancelled waiter must not cancel a job that has to run
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(job)), timeout)
    except TimeoutError:
        if job.done():
            return job.result()  # the call's own timeout, or it came back at the last moment
        raise lane.give_up(job, timeout or 0.0, late, must_run=must_run) from None
    except asyncio.CancelledError:
        lane.abandon(job, late, must_run=must_run)
        raise


@asynccontextmanager
async def aopen(
    locator: str,
    *,
    backend: str | None = None,
    output: int = 0,
    timeout: float | None = None,
    isolated: bool | None = False,
    reconnect: bool = False,
) -> AsyncGenerator[AsyncDisplay]:
    """Open a display for the length of an ``async with`` block; see `mdevdisplay.open`."""
    lane = Lane(locator)
    try:
        connecting = partial(make_reader, lane, locator, backend, output, isolated=isolated, reconnect=reconnect)
        reader = await _run(lane, connecting, timeout, late=lambda late: late.close())
    except BaseException:
        lane.stop()
        raise
    async with AsyncDisplay(reader, lane, timeout=timeout) as display:
        yield display


class AsyncFrameStream(AsyncIterator[Frame | Blank]):
    """Frames of one display for one event loop; see `mdevdisplay.stream.FrameStream`."""

    def __init__(
        self,
        look: Callable[[Frame | Blank | None], Awaitable[Frame | Blank]],
        follower: Follower,
        sleep: Callable[[float], Awaitable[bool]],
        wait: Callable[[int], Awaitable[int]] | None,
    ) -> None:
        """Take pictures with ``look``; `AsyncDisplay.frames` makes one for you."""
        self._look = look
        self._follower = follower
        self._sleep = sleep
        self._wait = wait

    @property
    def statistics(self) -> StreamStatistics:
        """What the stream has seen lately."""
        return self._follower.statistics()

    async def __anext__(self) -> Frame | Blank:
        try:
            while await self._pause():
                picture = await self._take()
                if picture is not None:
                    return picture
        except Closed:
            pass
        raise StopAsyncIteration

    async def _take(self) -> Frame | Blank | None:
        begin = time.monotonic()
        try:
            picture = await self._look(self._follower.last)
        except ModeChangePatience.BORNE as error:
            return self._follower.failed(error)
        return self._follower.took(picture, time.monotonic() - begin)

    async def _pause(self) -> bool:
        """Wait until it is time to look; False where the display was closed meanwhile."""
        if await self._sleep(self._follower.delay()):
            return False
        if self._wait is None or self._follower.unsure:
            return True
        while (announced := await self._wait(self._follower.announced)) == self._follower.announced:
            pass
        self._follower.announced = announced
        return True


class AsyncDisplay:
    """An open display for one event loop. Each runs its driver's calls in a thread of its own.

    Arguments, results and errors are those of `mdevdisplay.display.Display`.
    """

    def __init__(self, reader: DisplayReader, lane: Lane, *, timeout: float | None = None) -> None:
        """Take over a reader and its lane; `aopen` makes both."""
        self._reader = reader
        self._lane = lane
        self._timeout = timeout
        self._ended = asyncio.Event()
        self._borne: tuple[type[MdevDisplayError], ...] = (NothingDisplayed, *ModeChangePatience.BORNE)
        if isinstance(reader, ReconnectingReader):
            self._borne = (*self._borne, DeviceGone)

    @property
    def locator(self) -> str:
        """How the display was named."""
        return self._reader.locator

    @property
    def source(self) -> Source:
        """The open device; see `mdevdisplay.display.Display.source`."""
        return source_of(self._reader)

    @property
    def identity(self) -> Identity:
        """Driver, vendor, type and parent of the device."""
        return self._reader.identity

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the device."""
        return self._reader.borrowed

    @property
    def backend(self) -> BackendInfo:
        """The chosen backend."""
        return self._reader.backend_info

    @property
    def isolated(self) -> bool:
        """Whether a process of its own reads the device."""
        return is_isolated(self._reader)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._ended.is_set()

    async def surface(
        self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None
    ) -> SurfaceInfo | None:
        """Return what a plane shows now, or None for nothing."""
        return await self._call(partial(self._reader.surface, plane), timeout)

    async def capture(
        self,
        plane: PlaneType = PlaneType.PRIMARY,
        *,
        cursor: bool = False,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> Frame:
        """Return a copy of what a plane shows."""
        deadline = time.monotonic() + wait
        check_cursor(plane, cursor=cursor)
        look = partial(self._reader.look, plane, cursor=cursor)
        while True:
            try:
                picture = await self._call(look, timeout)
                if isinstance(picture, Frame):
                    return picture
                raise picture.error or nothing_displayed(plane, self.locator)
            except self._borne:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            await self._sleep(min(WAIT_STEP, left))

    def frames(
        self,
        *,
        plane: PlaneType = PlaneType.PRIMARY,
        max_fps: float = 30.0,
        cursor: bool = False,
        repeat: bool = False,
        timeout: float | None = None,
    ) -> AsyncFrameStream:
        """Return frames until the display is closed; see `mdevdisplay.display.Display.frames`."""
        self._check_open()
        check_cursor(plane, cursor=cursor)

        async def look(last: Frame | Blank | None) -> Frame | Blank:
            return await self._call(partial(self._reader.look, plane, last, cursor=cursor), timeout)

        async def wait(seen: int) -> int:
            return await self._call(partial(self._reader.wait_update, seen), timeout)

        announced = self._reader.announces and not repeat
        return AsyncFrameStream(look, Follower(max_fps, repeat=repeat), self._sleep, wait if announced else None)

    async def damage_since(
        self,
        serial: int,
        *,
        plane: PlaneType = PlaneType.PRIMARY,
        cursor: bool = False,
        timeout: float | None = None,
    ) -> tuple[Rect, ...]:
        """Return what changed since the picture with a serial, without looking anew."""
        check_cursor(plane, cursor=cursor)
        return await self._call(partial(self._reader.damage_since, plane, serial, cursor=cursor), timeout)

    @asynccontextmanager
    async def map(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> AsyncGenerator[Raw]:
        """Give access to the pixels themselves, without a copy, inside the block."""
        memory = await self._call(partial(self._reader.pin, plane), timeout, late=self._reader.unpin)
        try:
            yield memory.view()
        finally:
            with suppress(Closed):
                await self._call(partial(self._reader.unpin, memory), timeout)

    async def dmabuf(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> DmaBuf:
        """Return the dma-buf that a plane shows, yours to close."""
        return await self._call(partial(self._reader.dmabuf, plane), timeout, late=DmaBuf.close)

    async def edid(self, *, timeout: float | None = None) -> Edid | None:
        """Return the device's EDID region, or None where it has none."""
        return await self._call(self._reader.edid, timeout)

    async def readability(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> Readability:
        """Say how the pixels of a plane can be had, or why not."""
        return await self._call(partial(self._reader.readability, plane), timeout)

    async def findings(self, *, timeout: float | None = None) -> tuple[Finding, ...]:
        """Return what the backend itself knows about the state of the device."""
        return await self._call(self._reader.findings, timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        """End streams, drop mappings, dma-bufs and the device. Idempotent."""
        if self.closed:
            return
        self._ended.set()
        self._reader.interrupt()
        try:
            limit = self._timeout if timeout is None else timeout
            await _run(self._lane, self._reader.close, limit, must_run=True)
        finally:
            self._lane.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close(timeout=None if error is None or self._timeout is None else min(self._timeout, GRACE))
        except TimedOut:
            if error is None:
                raise

    def __del__(self) -> None:
        ended = getattr(self, "_ended", None)
        if ended is not None and not ended.is_set():
            try:
                warnings.warn(f"{self.locator}: a display was not closed", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self._reader.interrupt()
                self._lane.close(self._reader.close)

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("the display was closed before", device=self.locator, hint="open it again")

    async def _call(self, call: Callable[[], T], timeout: float | None, late: Callable[[T], object] | None = None) -> T:
        self._check_open()
        return await _run(self._lane, call, self._timeout if timeout is None else timeout, late=late)

    async def _sleep(self, seconds: float) -> bool:
        """Sleep, or return True as soon as the display is closed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
        return self.closed
