"""A reader whose source is in a process of its own."""

from __future__ import annotations

import os
import re
import select
import stat
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

import attrs

from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.dmabuf import DmaBuf, exporter_of, new_key
from mdevdisplay.errors import (
    Closed,
    DriverError,
    GuestChangingMode,
    LocatorError,
    MdevDisplayError,
    NothingDisplayed,
    NotMappable,
    TimedOut,
    WorkerDied,
)
from mdevdisplay.following import lifelines
from mdevdisplay.pixels.composed import ComposedPicture
from mdevdisplay.pixels.damage import Damage, Mask, grid
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.pixels.layout import packed_size, plain_layout, raw_view
from mdevdisplay.pixels.memory import Memory, SurfaceMemory
from mdevdisplay.reader import Readability, nothing_displayed
from mdevdisplay.region import MAX_MAPPING, Mappable
from mdevdisplay.source import Finding, Identity
from mdevdisplay.surface import PlaneType, Rect, SurfaceInfo
from mdevdisplay.vfio.edid import Edid
from mdevdisplay.worker import link as links
from mdevdisplay.worker import sharing, values, wire
from mdevdisplay.worker.buffers import Buffer, is_sealed
from mdevdisplay.worker.imports import Imports
from mdevdisplay.worker.link import Hung, Link, Lost
from mdevdisplay.worker.points import find_points
from mdevdisplay.worker.process import start
from mdevdisplay.worker.wire import BadMessage, Message

__all__ = ["RemoteReader"]

T = TypeVar("T")
Body = dict[str, Any]

BACK_OFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds from one death to the next start, after so many deaths in a row."""
LIVED = 60.0
"""Seconds of life after which a death is the first in a row."""
_GROWS = 4
_STARTS = 3
_MOST_KEYS = 1024
_MOST_FILES = 8
_FD = re.compile(r"fd:([0-9]{1,7})")
_NEXT = "the next call starts another"


class RemoteReader:
    """Reads a display through a worker, with the operations of `mdevdisplay.reader.Reader`. Not thread-safe.

    A worker that dies fails the call that it was busy with; the next one starts another, later after every death. This
    process never has the device's descriptor.

    Attributes:
        output: the number of the output.
    """

    def __init__(
        self,
        locator: str,
        *,
        backend: str | None = None,
        output: int = 0,
        must_attach: bool = False,
        submit: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """Start a worker that opens the display, or find the one that has it open.

        ``submit`` runs a call when nobody else uses the reader: with it, what this process maps or imports of the
        device is let go as soon as the worker ends, and else at the next call.

        What was borrowed is never opened for oneself by a later worker; with ``must_attach`` not by the first either.

        Raises:
            WorkerDied: it died over it.
            TimedOut: it took longer than `mdevdisplay.worker.link.HANG` seconds, and was killed.
            MdevDisplayError: what opening it raises in this process.
        """
        self._closed = True  # nothing to close yet
        self.output = output
        self._locator = locator
        self._option = backend
        self._must_attach = must_attach
        self._submit = submit
        self._inherited = _inherited(locator)
        self._started = False
        self._interrupted = False
        self._lost: Body | None = None
        self._deaths = 0
        self._not_before = 0.0
        self._why = ""
        self._seen = {plane: _Seen() for plane in PlaneType}
        self._imports = Imports(locator, lambda: self._identity.parent, self.surface, self.dmabuf)
        self._link: Link | None = None
        self._set_up()
        self._link = self._open()
        self._watch(self._link)
        self._composed = ComposedPicture(self._look, sign_lost=self._sign_lost)
        self._closed = False

    def _set_up(self) -> None:
        """Forget what was known of the last worker's buffers."""
        self._sizes: dict[PlaneType, int] = {}
        self._surfaces: dict[PlaneType, tuple[SurfaceInfo, int]] = {}
        self._checked: dict[PlaneType, tuple[SurfaceInfo, int]] = {}
        self._keys: OrderedDict[int, int] = OrderedDict()
        self._view = _View(self._locator)
        for seen in self._seen.values():
            seen.theirs = 0

    @property
    def locator(self) -> str:
        """How the display was named."""
        return self._locator

    @property
    def identity(self) -> Identity:
        """Driver, vendor, type and parent of the device."""
        return self._identity

    @property
    def borrowed(self) -> bool:
        """Whether another process owns the device."""
        return self._borrowed

    @property
    def lost(self) -> bool:
        """Whether the device's owner has ended."""
        return self._lost is not None

    @property
    def backend_info(self) -> BackendInfo:
        """The chosen backend."""
        return self._backend_info

    @property
    def pid(self) -> int | None:
        """The worker's process; None where there is none, or another program started it."""
        process = self._link.process if self._link is not None else None
        return None if process is None else process.pid

    # the operations

    def surface(self, plane: PlaneType) -> SurfaceInfo | None:
        """Return what a plane shows now, or None."""
        body = {"op": "surface", "plane": int(plane), "known": self._known(plane)}
        return self._ask(body, partial(self._surface_in, plane=plane))

    def shown(self, plane: PlaneType) -> SurfaceInfo:
        """Return what a plane shows now; raises `NothingDisplayed` for nothing."""
        surface = self.surface(plane)
        if surface is None:
            raise nothing_displayed(plane, self._locator)
        return surface

    def look(self, plane: PlaneType, last: Frame | Blank | None = None, *, cursor: bool = False) -> Frame | Blank:
        """Return what a plane shows: the worker copies what changed into memory that the frame lies in."""
        return self._composed.look(last) if cursor else self._look(plane, last)

    def _look(self, plane: PlaneType, last: Frame | Blank | None) -> Frame | Blank:
        if not self._imports.reads(plane):
            try:
                picture = self._look_by_worker(plane, last)
                self._imports.forget(plane)
                return picture
            except NotMappable as error:
                if error.cause != NotMappable.cause:
                    raise
                self._imports.refuse(plane, error)
        try:
            picture = self._imports.look(plane, last, self._seen[plane].serial)
        except NothingDisplayed:
            self._imports.forget(plane)
            return self._seen[plane].nothing(0, last)
        except MdevDisplayError:
            self._imports.forget(plane)  # the worker may be able to map it the next time
            raise
        self._seen[plane].elsewhere(self._imports.serial(plane))
        return picture

    def _look_by_worker(self, plane: PlaneType, last: Frame | Blank | None) -> Frame | Blank:
        for _ in range(_GROWS):
            picture = self._try_look(plane, last)
            if picture is not None:
                return picture
        raise GuestChangingMode(
            f"the picture grew {_GROWS} times while it was read",
            device=self._locator,
            hint="the guest is changing its mode; try again",
        )

    def damage_since(self, plane: PlaneType, serial: int, *, cursor: bool = False) -> tuple[Rect, ...]:
        """Return the rectangles of a plane that changed after a serial."""
        if cursor:
            return self._composed.damage_since(serial)
        imported = self._imports.damage_since(plane, serial)
        return self._seen[plane].damage.rects_since(serial) if imported is None else imported

    @property
    def announces(self) -> bool:
        """Whether the source announces its changes."""
        return self._announces

    def wait_update(self, seen: int) -> int:
        """Wait a moment for more announcements than ``seen``; return how many there have been."""
        return self._ask({"op": "wait", "seen": seen}, lambda message: values.number(message.body, "announced"))

    def _try_look(self, plane: PlaneType, last: Frame | Blank | None) -> Frame | Blank | None:
        """Return a frame, or None where the buffer was too small for it."""
        link = self._live()
        size = self._sizes.get(plane, 0)
        seen = self._seen[plane]
        current = isinstance(last, Frame) and last.serial == seen.serial and FrameFlags.STALE not in last.flags
        body: Body = {
            "op": "look",
            "plane": int(plane),
            "buffer": 0,
            "known": self._known(plane),
            "since": seen.theirs,
            "same": current,
        }
        if not size:  # the answer says how many bytes it takes
            return self._ask(body, partial(self._picture_in, plane=plane, buffer=None, link=link, last=last))
        buffer = link.buffers.take(size)
        fd = -1
        if buffer is None:
            buffer, fd = link.buffers.make(size, self._locator)
            body["new"] = buffer.number
        body["buffer"] = buffer.number
        try:
            return self._ask(
                body,
                partial(self._picture_in, plane=plane, buffer=buffer, link=link, last=last),
                fds=() if fd < 0 else (fd,),
            )
        except MdevDisplayError:
            if fd < 0:
                link.buffers.give_back(buffer)
            else:  # the worker may not know it
                link.buffers.forget(buffer)
            raise
        except BaseException:  # Ctrl-C: the worker may be writing to it
            link.buffers.forget(buffer)
            raise
        finally:
            if fd >= 0:
                os.close(fd)

    def _picture_in(
        self, message: Message, *, plane: PlaneType, buffer: Buffer | None, link: Link, last: Frame | Blank | None
    ) -> Frame | Blank | None:
        """Return the picture of an answer; its pixels are in the buffer already."""
        body, seen = message.body, self._seen[plane]
        if "need" in body:
            self._sizes[plane] = values.number(body, "need", MAX_MAPPING, 1)
        elif body.get("same") is True and last is not None:
            if isinstance(last, Frame) and FrameFlags.TORN in last.flags and not values.boolean(body, "torn"):
                last = last.marked(FrameFlags.NONE).evolve(flags=last.flags & ~FrameFlags.TORN)
        elif body.get("surface", self) is None:
            last = seen.nothing(values.number(body, "serial"), last)
        else:
            return self._frame_in(message, plane=plane, buffer=buffer, link=link, last=last)
        if buffer is not None:
            link.buffers.give_back(buffer)
        return None if "need" in body else last

    def _frame_in(
        self, message: Message, *, plane: PlaneType, buffer: Buffer | None, link: Link, last: Frame | Blank | None
    ) -> Frame:
        body, seen = message.body, self._seen[plane]
        surface = self._surface_in(message, plane)
        if surface is None or buffer is None:
            raise BadMessage("a picture of nothing, or in no buffer")
        size = values.number(body, "size", buffer.size, 1)
        used = size
        checked = self._checked.get(plane)
        if checked is None or checked[0] is not surface or checked[1] != size:
            _check_size(surface, size)
            self._checked[plane] = (surface, size)
        start = None
        if body.get("decoded") is not None:
            start = values.number(body, "decoded", buffer.size, size)
            used = start + surface.height * surface.width * 4
            if used > buffer.size:
                raise BadMessage(f"decoded pixels end at {used} of {buffer.size} bytes")
        torn = values.boolean(body, "torn")
        tiles = values.tiles_from(body, "tiles", grid(surface.width, surface.height))
        seen.picture(values.number(body, "serial", least=1), surface, tiles)
        self._sizes[plane] = used
        data = link.buffers.lend(buffer)
        data.flags.writeable = False
        layout = plain_layout(surface)
        pixels = None
        if start is not None:
            pixels = data[start:used].reshape(surface.height, surface.width, 4)
        return Frame(
            raw_view(data[:size], 0, surface, layout.minimum_stride(surface.width) if layout is not None else 0),
            surface,
            pixels=pixels,
            serial=seen.serial,
            timestamp=time.monotonic(),
            flags=FrameFlags.TORN if torn else FrameFlags.NONE,
            device=self._locator,
            changed=seen.damage.since(last.serial) if isinstance(last, Frame) else None,
        )

    def pin(self, plane: PlaneType) -> Memory:
        """Return where the plane's pixels can be read in this process, until `unpin`.

        Raises:
            NotMappable: they are in a region of a device, which stays in its worker (cause ``isolated``).
        """
        return self._ask({"op": "memory", "plane": int(plane)}, partial(self._memory_in, plane=plane), most_fds=2)

    def _memory_in(self, message: Message, *, plane: PlaneType) -> Memory:
        body, fds = message.body, message.fds
        surface = self._surface_in(message, plane)
        if surface is None or not fds:
            raise BadMessage("memory of nothing, or without a descriptor")
        if "key" in body:
            return self._view.at_dmabuf(surface, self._dmabuf(body, fds, surface))
        offset, size, pixel_offset = (values.number(body, name) for name in ("offset", "size", "pixel_offset"))
        return self._view.at_region(
            surface, Mappable(fd=os.dup(fds[0]), offset=offset, size=size, pixel_offset=pixel_offset)
        )

    def unpin(self, memory: Memory) -> None:
        """Let go what `pin` returned."""
        self._view.end(memory)

    def dmabuf(self, plane: PlaneType) -> DmaBuf:
        """Return the plane's dma-buf, the caller's own."""
        return self._ask({"op": "dmabuf", "plane": int(plane)}, partial(self._dmabuf_in, plane=plane), most_fds=2)

    def _dmabuf_in(self, message: Message, *, plane: PlaneType) -> DmaBuf:
        surface = self._surface_in(message, plane)
        if surface is None or not message.fds:
            raise BadMessage("a dma-buf of nothing, or without a descriptor")
        return self._dmabuf(message.body, message.fds, surface)

    def _dmabuf(self, body: Body, fds: tuple[int, ...], surface: SurfaceInfo) -> DmaBuf:
        theirs = values.number(body, "key")
        key = self._keys.get(theirs) or new_key()
        self._keys[theirs] = key
        self._keys.move_to_end(theirs)
        while len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)
        return DmaBuf([os.dup(fd) for fd in fds], surface, key=key, device=self._locator)

    def edid(self) -> Edid | None:
        """Return the device's EDID region, or None where it has none."""
        return self._ask({"op": "edid"}, lambda message: values.edid_from(message.body, "edid"))

    def readability(self, plane: PlaneType) -> Readability:
        """Say how the pixels of a plane can be had, or why not; raises `NothingDisplayed` for nothing."""
        found = self._ask(
            {"op": "readability", "plane": int(plane)},
            lambda message: values.readability_from(message.body, "readability"),
        )
        if not found.way and found.cause == NotMappable.cause:
            self._imports.refuse(plane, NotMappable(found.reason, device=self._locator))
            return self._imports.readability(plane)
        return found

    def findings(self) -> tuple[Finding, ...]:
        """Return what the backend itself knows about the state of the device."""
        return self._ask({"op": "findings"}, lambda message: values.findings_from(message.body, "findings"))

    def interrupt(self) -> None:
        """Let a call that waits for the worker fail at once; the only method for any thread. `close` has to follow."""
        self._interrupted = True
        link = self._link
        if link is not None:
            link.interrupt()

    def close(self) -> None:
        """Let go of everything and see the worker end. Idempotent; frames that somebody keeps stay readable.

        Raises:
            TimedOut: the worker is stuck inside the kernel; it is remembered, see `mdevdisplay.worker.abandoned`.
        """
        if self._closed:
            return
        self._closed = True
        link, self._link = self._link, None
        self._watch_no_more(link)
        self._imports.close()
        self._view.close()
        if link is not None:
            link.leave()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            try:
                warnings.warn(
                    f"{self._locator}: an isolated display was not closed", ResourceWarning, stacklevel=2, source=self
                )
            finally:  # the warning may be an error
                with suppress(TimedOut):
                    self.close()

    def _known(self, plane: PlaneType) -> int:
        """Return the number of the surface that the worker told last; 0 for none."""
        return self._surfaces[plane][1] if plane in self._surfaces else 0

    def _surface_in(self, message: Message, plane: PlaneType) -> SurfaceInfo | None:
        """Return the surface of an answer, the same object as before where it is equal."""
        known = self._surfaces.get(plane)
        if message.body.get("surface") is True and known is not None:
            return known[0]
        surface = values.surface_from(message.body, "surface", self._locator)
        if surface is None:
            return None
        if known is not None and known[0] == surface:
            surface = known[0]
        self._surfaces[plane] = (surface, values.number(message.body, "number"))
        return surface

    # the worker

    def _ask(self, body: Body, read: Callable[[Message], T], *, fds: tuple[int, ...] = (), most_fds: int = 0) -> T:
        """Ask the worker, and return what ``read`` makes of its answer. The answer's descriptors are closed."""
        link = self._live()
        try:
            message = link.ask(body, fds)
            try:
                _check_descriptors(message.fds, most_fds, self._locator)
                return read(message)
            finally:
                message.close()
        except (wire.PeerGone, Hung, Lost, BadMessage) as error:
            self._fail(link, error, str(body["op"]))

    def _live(self) -> Link:
        """Return the connection to a worker, a new one where the last has died."""
        if self._closed or self._interrupted:
            raise Closed("the display was closed before", device=self._locator, hint="open it again")
        if self._lost is not None:
            raise values.error_from(self._lost, "lost", self._locator)
        if self._link is None:
            left = self._not_before - time.monotonic()
            if left > 0:
                raise WorkerDied(
                    f"{self._why}, the last of {self._deaths} deaths in a row; another is started in {left:.1f} s",
                    device=self._locator,
                    hint="try again then",
                )
            if self._inherited is not None:
                raise WorkerDied(
                    f"{self._why}, and the descriptor that it was given went with it",
                    device=self._locator,
                    hint="hand over a descriptor of the device again, and open that",
                )
            try:
                self._link = self._open()
                self._watch(self._link)
            except MdevDisplayError as error:
                if not isinstance(error, WorkerDied | TimedOut):
                    self._count_death(f"a new worker could not open the display ({error.message})", 0.0)
                raise
        return self._link

    def _watch(self, link: Link) -> None:
        """Let go of the device's memory when the worker ends, as it does with the VM."""
        submit = self._submit
        if submit is None:
            return

        def let_go() -> None:
            if self._link is link:
                self._imports.close()
                self._view.close()

        def ended() -> None:
            with suppress(Closed):  # the display was closed meanwhile
                submit(let_go)

        lifelines.watch(link.fileno(), ended, select.EPOLLRDHUP)

    @staticmethod
    def _watch_no_more(link: Link | None) -> None:
        if link is not None and link.fileno() >= 0:
            lifelines.forget(link.fileno())

    def _fail(self, link: Link, error: Exception, doing: str) -> NoReturn:
        """End a worker that died, hangs or talks nonsense, and raise what that means."""
        self._link = None
        self._watch_no_more(link)
        self._view.close()
        self._imports.close()
        self._set_up()
        if isinstance(error, Lost):
            self._lost = error.args[0]
            link.end()
            raise values.error_from(error.args[0], "lost", self._locator)
        gone = isinstance(error, wire.PeerGone)
        how = link.end(patience=links.GRACE if gone else 0.0)
        if self._interrupted:
            raise Closed("the display is being closed", device=self._locator, hint="open it again") from error
        hint = _NEXT if self._inherited is None else "it had the device's only descriptor: hand over another"
        if isinstance(error, Hung):
            died: MdevDisplayError = TimedOut(
                f"the worker has not answered for {links.HANG:g} s, and was killed",
                device=self._locator,
                hint=f"the driver hangs, look for its words in the host's kernel log; {hint}",
            )
            how = "was killed because it did not answer"
        elif isinstance(error, BadMessage):
            how = f"answered what is no answer ({error}), and was killed"
            died = link.died(how, hint, cause="worker-misbehaved")
        else:
            died = link.died(f"{how} while it was asked for: {doing}", hint)
        self._count_death(link.died(how, "").message, time.monotonic() - link.since)
        raise died from error

    def _count_death(self, why: str, lived: float) -> None:
        self._why = why
        self._deaths = 1 if lived >= LIVED else self._deaths + 1
        self._not_before = time.monotonic() + BACK_OFF[min(self._deaths, len(BACK_OFF)) - 1]

    def _open(self) -> Link:
        """Start a worker, or connect to the one that has the device open."""
        for attempt in range(_STARTS):
            process, connection = start(self._locator, () if self._inherited is None else (self._inherited,))
            link = Link(connection, process, self._locator)
            if self._inherited is not None and not self._started:
                os.close(self._inherited)
            self._started = True
            shared = self._opened(link, self._request(share=attempt < _STARTS - 1), "open")
            if shared is None:
                return link
            link.end()
            found = sharing.connect_to(shared)
            if found is not None:
                link = Link(found, None, self._locator)
                with suppress(wire.PeerGone, WorkerDied):  # it was just about to end
                    self._opened(link, lambda: {"op": "hello"}, "hello")
                    return link
        raise WorkerDied(
            "another program's worker has the display open and cannot be reached",
            device=self._locator,
            hint="try again",
        )

    def _request(self, *, share: bool) -> Callable[[], Body]:
        return lambda: {
            "open": self._locator,
            "backend": self._option,
            "output": self.output,
            "must_attach": self._must_attach,
            "points": find_points(),  # meanwhile the worker starts
            "share": share,
        }

    def _opened(self, link: Link, request: Callable[[], Body], doing: str) -> str | None:
        """Return None where the display is open, or the name of the worker that has it."""
        try:
            message = link.ask(request())
            message.close()
            if "shared" in message.body:
                return values.text(message.body, "shared")
            ready = message.body.get("ready")
            if not isinstance(ready, dict):
                raise BadMessage("neither ready nor shared")
            self._identity = values.identity_from(ready, "identity")
            self._borrowed = self._must_attach = values.boolean(ready, "borrowed")
            self._backend_info = values.backend_from(ready, "backend")
            self._announces = values.boolean(ready, "announces")
            self._sign_lost = values.boolean(ready, "sign_lost")
            link.listens = values.boolean(ready, "listens")
        except (wire.PeerGone, Hung, Lost, BadMessage) as error:
            self._fail(link, error, doing)
        except BaseException:
            link.end()
            raise
        return None


@attrs.define(eq=False)
class _Seen:
    """What is known of one plane's pictures, counted from this side: workers come and go.

    Attributes:
        serial: of the last picture, or moment without one.
        theirs: what the worker calls it; 0 for a new worker.
        damage: which tiles changed at which serial.
    """

    serial: int = 0
    theirs: int = 0
    damage: Damage = attrs.field(factory=Damage)
    _blank: bool = False

    def picture(self, theirs: int, surface: SurfaceInfo, tiles: Mask | None) -> None:
        """Note a picture, and which tiles of it changed since the one before; None for all."""
        fits = (surface.width, surface.height) == (self.damage.width, self.damage.height)
        if theirs == self.theirs and fits:
            return
        self.serial += 1
        if tiles is None or not fits:
            self.damage.begin(surface.width, surface.height, self.serial)
        else:
            self.damage.mark(tiles, self.serial)
        self.theirs, self._blank = theirs, False

    def elsewhere(self, serial: int) -> None:
        """Note a picture that a GPU of this process has read: the worker's next one has changed everywhere."""
        self.serial, self.theirs, self._blank = serial, 0, False
        self.damage.begin(0, 0, serial)

    def nothing(self, theirs: int, last: Frame | Blank | None) -> Blank:
        """Note a moment without a picture; return ``last`` where it is that already."""
        if not self._blank:
            self.serial += 1
            self.damage.begin(0, 0, self.serial)
        self.theirs, self._blank = theirs, True
        if isinstance(last, Blank) and last.serial == self.serial:
            return last
        return Blank(serial=self.serial, timestamp=time.monotonic())


@attrs.define(eq=False)
class _View:
    """Memory that is looked at without a copy: descriptors that the worker sent, and their mappings.

    It answers `SurfaceMemory` as a backend does, with what the worker sent last.
    """

    locator: str
    map_hint: str = ""
    region_hint: str = ""
    _memory: SurfaceMemory = attrs.field(init=False)
    _mappable: Mappable | None = None
    _dmabuf: DmaBuf | None = None
    _files: dict[tuple[int, int], int] = attrs.field(factory=dict)
    _pinned: list[Memory] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._memory = SurfaceMemory(self, self.locator)

    def query_region(self, surface: SurfaceInfo) -> Mappable | None:  # noqa: ARG002 - as a backend's
        """Return what was sent."""
        return self._mappable

    def create_dmabuf(self, surface: SurfaceInfo) -> DmaBuf | None:  # noqa: ARG002 - as a backend's
        """Return what was sent."""
        dmabuf, self._dmabuf = self._dmabuf, None
        return dmabuf

    def at_dmabuf(self, surface: SurfaceInfo, dmabuf: DmaBuf) -> Memory:
        """Map a dma-buf, which is taken over."""
        self._mappable, self._dmabuf = None, dmabuf
        try:
            return self._map_and_pin(surface)
        finally:
            left = self.create_dmabuf(surface)
            if left is not None:  # it is mapped already
                left.close()

    def at_region(self, surface: SurfaceInfo, mappable: Mappable) -> Memory:
        """Map sealed memory; its descriptor is taken over, and kept as long as mappings of it may be."""
        status = os.fstat(mappable.fd)
        file = (status.st_dev, status.st_ino)
        if file in self._files:
            os.close(mappable.fd)
        else:
            if len(self._files) >= _MOST_FILES:
                self._drop()
            self._files[file] = mappable.fd
        self._mappable = attrs.evolve(mappable, fd=self._files[file])
        return self._map_and_pin(surface)

    def _map_and_pin(self, surface: SurfaceInfo) -> Memory:
        memory = self._memory.find(surface)
        memory.view()  # refuses what can only be read
        self._memory.pin(memory)
        self._pinned.append(memory)
        return memory

    def end(self, memory: Memory) -> None:
        """End one look. With the last one dma-bufs are let go: they hold the device of a VM that may end."""
        if memory in self._pinned:  # else it was another worker's, which has died since
            self._pinned.remove(memory)
            self._memory.unpin(memory)
            if not self._pinned and memory.dmabuf is not None:
                self._drop()

    def _drop(self) -> None:
        self._memory.close()
        while self._files:
            os.close(self._files.popitem()[1])

    def close(self) -> None:
        """Let go of everything; views that somebody holds turn to zeros."""
        self._drop()


def _inherited(locator: str) -> int | None:
    """Return the descriptor that a locator names, or None where it names none."""
    match = _FD.fullmatch(locator)
    if match is None:
        return None
    fd = int(match[1])
    if fd <= 2:
        raise LocatorError(
            f"descriptor {fd} is standard input, output or error, which a worker has of its own",
            device=locator,
            hint="use another descriptor, or open it without isolation",
        )
    return fd


def _check_size(surface: SurfaceInfo, size: int) -> None:
    """Refuse a copy that is smaller than the picture, or not as large as it has to be."""
    needed = surface.needed - surface.offset
    if plain_layout(surface) is not None:
        fits = size == packed_size(surface, needed)
    else:
        fits = needed <= size <= max(needed, surface.size)
    if not fits:
        raise BadMessage(f"{size} bytes for {surface.describe()}")


def _check_descriptors(fds: tuple[int, ...], most: int, locator: str) -> None:
    """Let nothing in but dma-bufs and memory that nobody can truncate."""
    if len(fds) > most:
        raise BadMessage(f"{len(fds)} descriptors that nobody asked for")
    for fd in fds:
        if not exporter_of(fd) and not (stat.S_ISREG(os.fstat(fd).st_mode) and is_sealed(fd)):
            raise DriverError(
                "what the driver made as a dma-buf is none, nor sealed memory",
                device=locator,
                hint="use capture(); report it to the backend's authors",
                cause="bad-descriptor",
            )
