"""The consumer API: what a front end, a test or a script opens and reads."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from mdevdisplay._lane import Lane
from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.connecting import backends, connect, connect_fd
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import Closed, DeviceGone, MdevDisplayError, NothingDisplayed, TimedOut
from mdevdisplay.following import follow
from mdevdisplay.host.handed import Words
from mdevdisplay.host.listing import list_host_devices
from mdevdisplay.host.locate import held_elsewhere
from mdevdisplay.host.root import HostRoot
from mdevdisplay.pace import ModeChangePatience
from mdevdisplay.pixels.frame import Blank, Frame
from mdevdisplay.pixels.layout import Raw
from mdevdisplay.reader import Readability, Reader, nothing_displayed
from mdevdisplay.reading import DisplayReader
from mdevdisplay.reconnect import ReconnectingReader, check_returns
from mdevdisplay.source import DeviceInfo, Finding, Identity, Source
from mdevdisplay.stream import FrameStream
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.edid import Edid

__all__ = ["Display", "backends", "devices", "list_devices", "open", "open_fd"]

T = TypeVar("T")
WAIT_STEP = 0.05
"""Seconds between two looks at a plane that shows nothing."""
GRACE = 0.2
"""Seconds that close() waits for a driver after an error."""


def devices(root: HostRoot | None = None) -> list[DeviceInfo]:
    """Return every device of this host that could display, without touching one.

    Mediated devices and virtual functions come from sysfs, with the VM that /proc says uses each; others from the
    backends that know them. A backend that fails to list is left
    out; `list_devices` says why.
    """
    return list_devices(root)[0]


def list_devices(root: HostRoot | None = None) -> tuple[list[DeviceInfo], list[MdevDisplayError]]:
    """Return the devices, and the errors of the backends that could not list theirs."""
    found = list_host_devices(root or HostRoot.from_environment())
    listed, errors = backends().list_devices()
    return found + listed, errors


def open(  # noqa: A001 - mdevdisplay.open is the name that people expect
    locator: str,
    *,
    backend: str | None = None,
    output: int = 0,
    timeout: float | None = None,
    isolated: bool | None = False,
    reconnect: bool = False,
) -> Display:
    """Open a display.

    A device that another process holds, such as the VMM of a running VM, is borrowed from it: read, and nothing else,
    and let go within a second of that process's end.

    Args:
        locator: a UUID, a PCI address, libvirt's name of either; ``vm:NAME`` or ``vm:NAME/1``, ``pid:N``, a VM's bare
            name; ``fd:N`` or ``unix:PATH`` for a descriptor that a launcher hands over; or a backend's own scheme such
            as ``sim:``.
        backend: the name of the backend to use; None chooses by probing.
        output: the number of the output (head); VFIO devices have only 0.
        timeout: seconds that any call to the driver may take, this one included; None waits as long as it takes.
        isolated: whether a process of its own reads the device, so that a hang, a crash or a SIGBUS costs this display
            only; None for devices that another process holds.
        reconnect: whether to open the display anew when its VM comes back. What was borrowed once is not opened while
            no VM has it, since the VM could not start then.

    Raises:
        LocatorError: not a locator, or one that means several.
        DeviceNotFound, DeviceGone, VmGone, DeviceBusy, NotPermitted, NoVfio: the device cannot be opened.
        NotADisplay, UnknownBackend, AmbiguousBackend: no backend reads it.
        TimedOut: the driver did not answer in time.
    """
    lane = Lane(locator)
    connecting = partial(make_reader, lane, locator, backend, output, isolated=isolated, reconnect=reconnect)
    try:
        reader = lane.run(connecting, timeout, late=_close)
    except BaseException:
        lane.stop()
        raise
    return Display(reader, lane, timeout=timeout)


def open_fd(
    fd: int,
    *,
    device: str = "",
    vm: str = "",
    pid: int | None = None,
    backend: str | None = None,
    timeout: float | None = None,
) -> Display:
    """Open a display by a VFIO device descriptor that this program has, as a VMM or a launcher does.

    The descriptor is duplicated and stays yours. The display is borrowed: it is only read.

    Args:
        fd: a VFIO device: from VFIO_GROUP_GET_DEVICE_FD, or a cdev that is bound.
        device: its UUID or PCI address, where you know it; it decides what is special about its driver.
        vm: the name of its VM, for messages.
        pid: the VMM's process, whose end ends the reading; None for the one that /proc shows to hold the device, if any
            beside this.
        backend: the name of the backend to use; None chooses by probing.
        timeout: seconds that any call to the driver may take.

    Raises:
        DeviceGone: the descriptor, or the process, does not exist.
        NotADisplay, DriverError, UnknownBackend, AmbiguousBackend, TimedOut: see `open`.
    """
    locator = f"fd:{fd}"
    lane = Lane(locator)

    def connecting() -> Reader:
        return _followed(connect_fd(fd, locator, Words(device=device, vm=vm, pid=pid), backend), lane)

    try:
        reader = lane.run(connecting, timeout, late=_close)
    except BaseException:
        lane.stop()
        raise
    return Display(reader, lane, timeout=timeout)


def make_reader(
    lane: Lane, locator: str, backend: str | None, output: int, *, isolated: bool | None, reconnect: bool
) -> DisplayReader:
    """Return the reader that `open` and `aopen` put a display around. Runs in the lane."""
    if isolated is None:
        isolated = held_elsewhere(locator)

    def plain(*, must_attach: bool) -> DisplayReader:
        return _followed(connect(locator, backend, output, must_attach=must_attach), lane)

    def remote(*, must_attach: bool) -> DisplayReader:
        from mdevdisplay.worker.client import RemoteReader

        return RemoteReader(locator, backend=backend, output=output, must_attach=must_attach, submit=lane.submit)

    one = remote if isolated else plain
    if not reconnect:
        return one(must_attach=False)
    check_returns(locator)
    return ReconnectingReader(one)


def _followed(reader: Reader, lane: Lane) -> Reader:
    try:
        follow(reader, lane)
    except BaseException:
        reader.close()
        raise
    return reader


def _close(reader: DisplayReader) -> None:
    reader.close()


def source_of(reader: DisplayReader) -> Source:
    """Return a reader's own source, where there is one in this process."""
    if isinstance(reader, Reader):
        return reader.source
    raise MdevDisplayError(
        "an isolated display, or one that reconnects, has no device to be called directly",
        device=reader.locator,
        hint="open it with isolated=False and reconnect=False",
        cause="isolated",
    )


def is_isolated(reader: DisplayReader) -> bool:
    """Whether a process of its own reads the device."""
    if isinstance(reader, ReconnectingReader):
        return is_isolated(reader.last)
    return not isinstance(reader, Reader)


def check_cursor(plane: PlaneType, *, cursor: bool) -> None:
    """Raise ValueError for a cursor over another plane than the primary."""
    if cursor and plane is not PlaneType.PRIMARY:
        raise ValueError(f"the cursor is drawn over the primary plane, not over {plane.name}")


class Display:
    """An open display. Its methods may be called from any thread; calls to the driver go one at a time.

    Every method that reaches the driver takes ``timeout`` in seconds; None means the display's own. After `TimedOut`
    the late call is finished and thrown away in the background.
    """

    def __init__(self, reader: DisplayReader, lane: Lane, *, timeout: float | None = None) -> None:
        """Take over a reader and its lane; `mdevdisplay.open` makes both."""
        self._reader = reader
        self._lane = lane
        self._timeout = timeout
        self._closed = False
        # only a reader of this process has a backend to be called directly
        self._backend = reader.backend if isinstance(reader, Reader) else None
        self._output = reader.output if isinstance(reader, Reader) else 0
        self._quick = self._backend if timeout is None else None
        self._borne: tuple[type[MdevDisplayError], ...] = (NothingDisplayed, *ModeChangePatience.BORNE)
        if isinstance(reader, ReconnectingReader):
            self._borne = (*self._borne, DeviceGone)
        self._last: SurfaceInfo | None = None
        self._streams: weakref.WeakSet[FrameStream] = weakref.WeakSet()

    @property
    def locator(self) -> str:
        """How the display was named."""
        return self._reader.locator

    @property
    def source(self) -> Source:
        """The open device: a `mdevdisplay.vfio.Device` for one. Call it only while nobody calls the display.

        Raises:
            MdevDisplayError: the display is isolated or reconnects, so that its device is not at hand.
        """
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
        """The chosen backend: its name, why it was chosen, what the others answered."""
        return self._reader.backend_info

    @property
    def isolated(self) -> bool:
        """Whether a process of its own reads the device."""
        return is_isolated(self._reader)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def surface(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> SurfaceInfo | None:
        """Return what a plane shows now, or None for nothing. The same object as long as nothing changed.

        Raises:
            BadSurface: the driver's numbers contradict each other.
            GuestChangingMode: the guest sets a mode, and the driver cannot decode the plane.
            TimedOut, Closed, DeviceGone, DriverError.
        """
        backend = self._quick
        if timeout is None and backend is not None:
            # `Lane.here` and `Backend.get_surface_info` written out: this runs for every frame
            lane = self._lane
            holder = lane.holder
            me = [plane]
            try:
                if lane.waiting or holder.setdefault(0, me) is not me:
                    lane.wait(me)
                surface = backend.hook(backend.source, plane, self._output)
            except BaseException as error:
                if 0 in holder and holder[0] is me:
                    del holder[0]
                    if lane.waiting:
                        lane.wake()
                if isinstance(error, Exception):
                    backend.reraise(error)
                raise
            del holder[0]
            if lane.waiting:
                lane.wake()
            return surface if surface is self._last else self._changed(surface)
        return self._run(partial(self._reader.surface, plane), timeout)

    def capture(
        self,
        plane: PlaneType = PlaneType.PRIMARY,
        *,
        cursor: bool = False,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> Frame:
        """Return a copy of what a plane shows.

        The plane is queried before and after the copy; a copy during which it changed is made anew, and flagged TORN
        where it changed every time.

        Args:
            plane: which plane; CURSOR for the cursor alone.
            cursor: whether to draw the cursor over the primary plane.
            wait: seconds to wait until the plane shows something that can be decoded.
            timeout: seconds for each call to the driver.

        Raises:
            NothingDisplayed: the plane shows nothing.
            NotMappable: the CPU cannot reach the pixels.
            ValueError: a cursor was to be drawn over another plane than the primary.
            BadSurface, GuestChangingMode, TimedOut, Closed, DeviceGone, DriverError.
        """
        deadline = time.monotonic() + wait
        check_cursor(plane, cursor=cursor)
        look = partial(self._reader.look, plane, cursor=cursor)
        while True:
            try:
                picture = self._run(look, timeout)
                if isinstance(picture, Frame):
                    return picture
                raise picture.error or nothing_displayed(plane, self.locator)
            except self._borne:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            time.sleep(min(WAIT_STEP, left))

    def frames(
        self,
        *,
        plane: PlaneType = PlaneType.PRIMARY,
        max_fps: float = 30.0,
        cursor: bool = False,
        repeat: bool = False,
        timeout: float | None = None,
    ) -> FrameStream:
        """Return a stream of frames: the first at once, then one whenever something changed.

        The display is looked at ``max_fps`` times a second, down to 10 times while nothing changes; one whose source
        announces its changes is not polled. Moments without a picture come as `Blank`. A plane that cannot be decoded
        for up to 2 s, as while a guest sets a mode, is waited for; its last frame comes again flagged STALE meanwhile.

        Args:
            plane: which plane.
            max_fps: how often to look, at most.
            cursor: whether to draw the cursor over the primary plane.
            repeat: hand on the last frame again at every look that finds no change, at the full rate, as video needs.
            timeout: seconds for each call to the driver.

        Raises:
            Closed: the display was closed before.
            ValueError: max_fps is not above 0, or a cursor was to be drawn over another plane than the primary.
        """
        self._check_open()
        check_cursor(plane, cursor=cursor)
        # the stream keeps the reader and not the display, which can so be missed when it is forgotten
        limit = self._timeout if timeout is None else timeout
        lane, reader = self._lane, self._reader

        def look(last: Frame | Blank | None) -> Frame | Blank:
            return lane.run(partial(reader.look, plane, last, cursor=cursor), limit)

        def wait(seen: int) -> int:
            return lane.run(partial(reader.wait_update, seen), limit)

        stream = FrameStream(look, max_fps, repeat=repeat, wait=wait if reader.announces else None)
        self._streams.add(stream)
        if self._closed:  # meanwhile
            stream.close()
        return stream

    def damage_since(
        self,
        serial: int,
        *,
        plane: PlaneType = PlaneType.PRIMARY,
        cursor: bool = False,
        timeout: float | None = None,
    ) -> tuple[Rect, ...]:
        """Return what changed from the picture with a serial to the one that was taken last, without looking anew.

        For a consumer that skips frames: all that it has to paint anew. Whatever is remembered takes 8 bytes a tile,
        however far back the serial is.

        Args:
            serial: `Frame.serial` of the picture that the consumer shows; 0 for none.
            plane: which plane.
            cursor: whether the pictures were taken with the cursor drawn over them.
            timeout: seconds to wait for another call to come back.

        Returns:
            Rectangles of whole 64x64 tiles, clipped to the picture, none over another; empty for no change and where
            nothing is displayed.
        """
        check_cursor(plane, cursor=cursor)
        return self._run(partial(self._reader.damage_since, plane, serial, cursor=cursor), timeout)

    @contextmanager
    def map(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> Generator[Raw]:
        """Give access to the pixels themselves, without a copy, in the driver's own layout, read-only.

        They change while you look. Copy what you want to keep: the memory is valid inside the block; later, or when a
        new mode needs a new mapping, it shows another picture or zeros.

        Yields:
            The array that `mdevdisplay.formats.Format.raw_shape` describes, with the driver's stride.

        Raises:
            NothingDisplayed, NotMappable, BadSurface, GuestChangingMode, TimedOut, Closed, DeviceGone, DriverError.
        """
        memory = self._run(partial(self._reader.pin, plane), timeout, late=self._reader.unpin)
        try:
            yield memory.view()
        finally:
            with suppress(Closed):
                self._run(partial(self._reader.unpin, memory), timeout)

    def dmabuf(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> DmaBuf:
        """Return the dma-buf that a plane shows, yours to close (it is a context manager).

        Raises:
            NothingDisplayed: the plane shows nothing.
            UnsupportedFormat: this device has no dma-bufs.
            TooManyBuffers, BadSurface, GuestChangingMode, TimedOut, Closed, DeviceGone, DriverError.
        """
        return self._run(partial(self._reader.dmabuf, plane), timeout, late=DmaBuf.close)

    def edid(self, *, timeout: float | None = None) -> Edid | None:
        """Return the device's EDID region, or None where it has none.

        Raises:
            DriverError: its registers contradict each other.
            TimedOut, Closed, DeviceGone.
        """
        return self._run(self._reader.edid, timeout)

    def readability(self, plane: PlaneType = PlaneType.PRIMARY, *, timeout: float | None = None) -> Readability:
        """Say how the pixels of a plane can be had, or why not.

        Raises:
            NothingDisplayed, BadSurface, GuestChangingMode, TimedOut, Closed, DeviceGone, DriverError.
        """
        return self._run(partial(self._reader.readability, plane), timeout)

    def findings(self, *, timeout: float | None = None) -> tuple[Finding, ...]:
        """Return what the backend itself knows about the state of the device."""
        return self._run(self._reader.findings, timeout)

    def close(self, *, timeout: float | None = None) -> None:
        """End streams, drop mappings, dma-bufs and the device, in this order. Idempotent; callable from any thread.

        Raises:
            TimedOut: a call is stuck inside the kernel; the device is let go as soon as it comes back.
        """
        if self._closed:
            return
        self._closed = True
        for stream in list(self._streams):
            stream.close()
        self._reader.interrupt()
        try:
            self._lane.run(self._reader.close, self._timeout if timeout is None else timeout, must_run=True)
        except Closed:  # another thread was quicker
            pass
        finally:
            self._lane.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # whoever has just waited for a driver that hangs does not wait for it again
            self.close(timeout=None if error is None or self._timeout is None else min(self._timeout, GRACE))
        except TimedOut:
            if error is None:
                raise

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._closed = True
            try:
                warnings.warn(f"{self.locator}: a display was not closed", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self._reader.interrupt()
                self._lane.close(self._reader.close)

    def __repr__(self) -> str:
        state = (" isolated" if self.isolated else "") + (" closed" if self._closed else "")
        return f"<Display {self.locator!r} {self.backend.name}{state}>"

    def _changed(self, surface: object) -> SurfaceInfo | None:
        if self._backend is not None:
            self._last = self._backend.checked(surface)
        return self._last

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the display was closed before", device=self.locator, hint="open it again")

    def _run(self, call: Callable[[], T], timeout: float | None, late: Callable[[T], object] | None = None) -> T:
        self._check_open()
        return self._lane.run(call, self._timeout if timeout is None else timeout, late=late)
