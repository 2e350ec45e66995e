"""A display whose driver answers anything, read with the framework's own device, backends and reader.

Faked are ioctl and the devices behind it; memory is memfds, mapped and read as a device's is.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

import mdevdisplay_mbochs
from hostile.choices import Choices
from hostile.guards import Guards
from hostile.planes import Plane, some_plane
from hostile.reference import Colour, blended, known, pixel, some_places
from mdevdisplay import _ioctl
from mdevdisplay._manager import Backend
from mdevdisplay.connecting import backends
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.pixels import shadow
from mdevdisplay.pixels.cursor import is_primary_again
from mdevdisplay.pixels.damage import TILE
from mdevdisplay.pixels.frame import Blank, Frame, FrameFlags
from mdevdisplay.reader import Reader
from mdevdisplay.source import Identity
from mdevdisplay.surface import Match, PlaneType, SurfaceInfo
from mdevdisplay.vfio import Device, gfx, uapi

__all__ = ["LOCATOR", "Case", "Event", "Memory", "Step", "case_of", "check_error", "check_pixels", "run"]

LOCATOR = "a hostile display"
KINDS = ("region_cap", "intel_gvt", "mbochs")
VENDORS = ("", "i915", "nvidia", "mbochs")
_REGISTERS = 2
_ORIGIN = 0x500 + 2 * 8
_BLOCK = np.random.default_rng(4).integers(0, 256, 1 << 21, np.uint8).tobytes()
_PRIMARY, _CURSOR = PlaneType.PRIMARY, PlaneType.CURSOR
_REFUSALS = (errno.EINVAL, errno.ENOMEM, errno.ENODEV, errno.EIO, errno.EPERM, errno.ENOTTY, errno.EFAULT, errno.EMFILE)

_PLAIN = Plane().encoded()

Answer = bytes | int
"""What a driver writes, or the errno that it returns."""


@attrs.frozen(kw_only=True)
class Memory:
    """Memory of the display's: bytes, and whether nobody can truncate it."""

    size: int
    sealed: bool = True


@attrs.frozen(kw_only=True)
class Event:
    """What happens to the display.

    Attributes:
        query: at which query of the look, counted from 1; 0 for before it.
        plane: whose answer changes.
        answer: what to, or None.
        memory: which memory, by number.
        resize: what its new size is, or None.
        poke: where and what is written into it, or None.
    """

    query: int = 0
    plane: PlaneType = _PRIMARY
    answer: Answer | None = None
    memory: int = 0
    resize: int | None = None
    poke: tuple[int, bytes] | None = None


@attrs.frozen(kw_only=True)
class Step:
    """One look: at the ``"primary"`` plane, the ``"cursor"``, ``"both"`` as one, or the ``"mapping"``."""

    look: str = "primary"
    fresh: bool = False
    events: tuple[Event, ...] = ()


@attrs.frozen(kw_only=True)
class Case:
    """A display and what is done with it.

    Attributes:
        kind: which backend reads it.
        vendor: whose driver it has, which decides its quirks.
        memories: the device's own, then those of dma-bufs 1 and 2; others do not exist.
        region: flags, size and offset of its region; None for the device's own memory.
        registers: where region 2 is in the device's memory, with mbochs' registers.
        origin: what those say of the column and the row that the picture begins at.
        chain: the bytes of the region's capabilities.
        primary: what it says of the primary plane.
        cursor: and of the cursor.
        cached: whether its memory counts as cached; None to have it measured.
        steps: the looks.
    """

    kind: str = "region_cap"
    vendor: str = ""
    memories: tuple[Memory, ...] = (Memory(size=4096), Memory(size=4096), Memory(size=4096))
    region: tuple[int, int, int] | None = None
    registers: int = 0
    origin: tuple[int, int] = (0, 0)
    chain: bytes = b""
    primary: Answer = _PLAIN
    cursor: Answer = bytes(64)
    cached: bool | None = True
    steps: tuple[Step, ...] = (Step(), Step(look="both"), Step(look="mapping"))


def _some_size(choices: Choices, needed: int) -> int:
    page = -(-needed // 4096) * 4096
    return max(0, min(1 << 19, choices.of((needed, page, needed + 1, needed - 1, page + 4096, page - 4096, 0, 4096))))


def _some_event(choices: Choices, last: dict[PlaneType, Plane]) -> Event:
    query = choices.number(4)
    plane = choices.of((_PRIMARY, _CURSOR))
    what = choices.number(6)
    if what == 0:
        return Event(
            query=query, memory=choices.number(2), poke=(choices.number(1 << 14), choices.bytes(choices.number(9)))
        )
    if what == 1:
        return Event(query=query, memory=choices.number(2), resize=_some_size(choices, last[plane].needed))
    if what == 2:
        return Event(query=query, plane=plane, answer=choices.of(_REFUSALS))
    if what == 3:
        return Event(query=query, plane=plane, answer=bytes(64))
    if what == 4:
        last[plane] = some_plane(choices, cursor=plane is _CURSOR)
    else:
        field = choices.of(("x", "y", "x_hot", "number", "width", "height", "modifier", "stride"))
        last[plane] = attrs.evolve(last[plane], **{field: getattr(last[plane], field) + choices.of((1, -1, 64))})
    return Event(query=query, plane=plane, answer=last[plane].encoded())


def case_of(choices: Choices) -> Case:
    """Return a display out of a fuzzer's bytes."""
    kind = choices.of(KINDS)
    last = {_PRIMARY: some_plane(choices), _CURSOR: some_plane(choices, cursor=True)}
    primary, cursor = last[_PRIMARY].encoded(), last[_CURSOR].encoded()
    if choices.rarely():
        primary = choices.bytes(64)
    offset = 4096 * choices.number(3) if choices.often() else 0
    room = offset
    origin = (0, 0)
    if kind == "mbochs":
        origin = (choices.of((0, 1, 64, 0xFFFF)), choices.of((0, 1, 64, 0xFFFF))) if choices.often() else (0, 0)
        room += 4096 + min(1 << 18, origin[1] * last[_PRIMARY].stride + origin[0] * 4)
    memories = (
        Memory(size=_some_size(choices, last[_PRIMARY].needed) + room, sealed=not choices.rarely()),
        Memory(size=_some_size(choices, last[_PRIMARY].needed), sealed=not choices.rarely()),
        Memory(size=_some_size(choices, last[_CURSOR].needed), sealed=not choices.rarely()),
    )
    size = memories[0].size - offset
    region: tuple[int, int, int] | None = (5, max(0, size), offset)
    if choices.rarely():
        region = (
            choices.number(15),
            max(0, size + choices.of((-1, 1, 4096, 1 << 32, 1 << 63, -4096))),
            offset + choices.of((0, 1, 4096, 1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1 - offset)),
        )
    case = Case(
        kind=kind,
        vendor=choices.of(VENDORS) if choices.often() else ("mbochs" if kind == "mbochs" else ""),
        memories=memories,
        region=region,
        registers=choices.of((*[max(0, memories[0].size - 4096) // 4096 * 4096] * 5, 0, 4096, 1 << 20)),
        origin=origin,
        chain=choices.bytes(choices.number(40)) if choices.rarely() else b"",
        primary=primary,
        cursor=cursor if choices.often() else bytes(64),
        cached=choices.of((True, False, True, None)),
    )
    steps: list[Step] = []
    while choices.left and len(steps) < 6:
        look = choices.of(("primary", "both", "both", "mapping", "cursor"))
        fresh = choices.rarely()
        events = tuple(_some_event(choices, last) for _ in range(choices.of((0, 1, 1, 2, 3))))
        steps.append(Step(look=look, fresh=fresh, events=events))
    return attrs.evolve(case, steps=tuple(steps)) if steps else case


class _Driver:
    """The kernel's side of the display."""

    def __init__(self, case: Case, guards: Guards) -> None:
        self.case = case
        self.guards = guards
        self.answers: dict[PlaneType, Answer] = {_PRIMARY: case.primary, _CURSOR: case.cursor}
        self.fds: list[int] = []
        for number, memory in enumerate(case.memories):
            fd = os.memfd_create(f"hostile {number}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            self.fds.append(fd)
            os.truncate(fd, memory.size)
            os.pwrite(fd, _BLOCK[number * 777 : number * 777 + memory.size], 0)
            if memory.sealed:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            guards.may_need(memory.size)
        self._write_registers()
        self.queries = 0
        self.touched = False
        self.calm = True
        self._events: list[Event] = []

    def begin(self, step: Step) -> None:
        """Begin a look: do what happens before it."""
        self.queries, self.touched = 0, False
        self.calm = not any(event.query for event in step.events)
        self._events = [event for event in step.events if event.query]
        for event in step.events:
            if not event.query:
                self._do(event)
        self.touched = False

    def _do(self, event: Event) -> None:
        if event.answer is not None:
            self.answers[event.plane] = event.answer
        fd = self.fds[event.memory]
        if event.resize is not None:
            try:
                os.truncate(fd, event.resize)
                self.guards.may_need(event.resize)
                self.touched = True
            except PermissionError:  # it is sealed
                pass
        if event.poke is not None:
            place, data = event.poke
            data = data[: max(0, os.fstat(fd).st_size - place)]
            os.pwrite(fd, data, place)
            self.touched = True
        self._write_registers()

    def _write_registers(self) -> None:
        """Keep what mbochs' registers say: a real one gives another origin another dma-buf's number."""
        place = self.case.registers + _ORIGIN
        if self.case.kind == "mbochs" and place + 4 <= os.fstat(self.fds[0]).st_size:
            os.pwrite(self.fds[0], struct.pack("<2H", *self.case.origin), place)

    def ioctl(self, fd: int, request: int, buffer: Any = 0) -> int:
        """Answer as the kernel does."""
        if request == uapi.VFIO_DEVICE_QUERY_GFX_PLANE:
            return self._query(buffer)
        if request == uapi.VFIO_DEVICE_GET_REGION_INFO:
            return self._region(buffer)
        if request == uapi.VFIO_DEVICE_GET_GFX_DMABUF:
            number = int.from_bytes(buffer, "little")
            if not 1 <= number < len(self.fds):
                raise OSError(errno.EINVAL, "no such dma-buf")
            return os.dup(self.fds[number])
        raise OSError(errno.ENOTTY, "not a request of a display")

    def _query(self, buffer: bytearray) -> int:
        self.queries += 1
        for event in self._events:
            if event.query == self.queries:
                self._do(event)
        plane = PlaneType(int.from_bytes(buffer[8:12], "little"))
        answer = self.answers.get(plane, b"")
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        buffer[12:64] = answer[12:64].ljust(52, b"\0")
        return 0

    def _region(self, buffer: bytearray) -> int:
        index = int.from_bytes(buffer[8:12], "little")
        flags, size, offset = self.case.region or (5, self.case.memories[0].size, 0)
        if index == _REGISTERS:
            flags, size, offset = 5, 4096, self.case.registers
        chain = self.case.chain
        whole = 32 + len(chain)
        if chain:
            flags |= uapi.VFIO_REGION_INFO_FLAG_CAPS
        start = 32 if chain and len(buffer) >= whole else 0
        unsigned = (1 << 64) - 1
        buffer[:32] = struct.pack("<4I2Q", whole, flags, index, start, size & unsigned, offset & unsigned)
        if start:
            buffer[32:whole] = chain
        return 0

    def memory_of(self, surface: SurfaceInfo) -> bytes:
        """Return the bytes that a surface's pixels are in, from the first on."""
        if self.case.kind == "intel_gvt":
            return self._content(surface.dmabuf_id or 0, 0)
        size, start = 4096, self.case.registers
        if surface.region_index != _REGISTERS:
            size, start = (self.case.region or (5, self.case.memories[0].size, 0))[1:]
        skipped = 0
        if self.case.kind == "mbochs":
            x, y = self.case.origin
            skipped = y * surface.stride + x * 4
        return self._content(0, start)[skipped:size]

    def _content(self, number: int, start: int) -> bytes:
        return os.pread(self.fds[number], os.fstat(self.fds[number]).st_size, start)

    def close(self) -> None:
        """Let the memory go."""
        for fd in self.fds:
            os.close(fd)


def check_pixels(
    frame: Frame, surface: SurfaceInfo, data: bytes, over: Callable[[int, int], Colour | None] | None = None
) -> None:
    """Fail unless a frame shows what is in memory, in all of its formats, and refuses what it cannot show."""
    assert (frame.width, frame.height) == (surface.width, surface.height)
    if not known(surface):
        try:
            frame.to_ndarray("rgb24")
        except MdevDisplayError as error:
            check_error(error)
            return
        raise AssertionError(f"{surface.describe()} was decoded")
    rgb, bgra = frame.to_ndarray("rgb24"), frame.pixels
    assert rgb.shape == (surface.height, surface.width, 3)
    assert bgra.shape == (surface.height, surface.width, 4)
    for x, y in some_places(surface.width, surface.height):
        colour = pixel(data, surface, x, y)
        ink = None if over is None else over(x, y)
        if ink is not None:
            colour = blended(colour, ink)
        red, green, blue, alpha = colour
        assert rgb[y, x].tolist() == [red, green, blue], f"{surface.describe()}: RGB at {x}, {y}"
        assert bgra[y, x].tolist() == [blue, green, red, alpha], f"{surface.describe()}: BGRA at {x}, {y}"


def _signed(position: int) -> int:
    return position - (1 << 32) if position >= 1 << 31 else position


def check_error(error: MdevDisplayError) -> None:
    assert error.device == LOCATOR, f"{type(error).__name__} does not name the device: {error}"
    assert error.message
    assert len(str(error)) < 2000


class _Watcher:
    """Looks at the display, and fails where what comes out is wrong."""

    def __init__(self, driver: _Driver, reader: Reader) -> None:
        self.driver = driver
        self.reader = reader
        self.last: dict[str, Frame | Blank | None] = {}
        self.kept: list[tuple[npt.NDArray[Any], bytes]] = []
        self.view: npt.NDArray[Any] | None = None

    def look(self, step: Step) -> Frame | Blank | None:
        """Take one step."""
        self.driver.begin(step)
        if step.look == "mapping":
            self._look_at_mapping()
            return None
        plane = _CURSOR if step.look == "cursor" else _PRIMARY
        both = step.look == "both"
        last = None if step.fresh else self.last.get(step.look)
        before = last.to_ndarray("bgra") if isinstance(last, Frame) and known(last.surface) else None
        picture = self.reader.look(plane, last, cursor=both)
        if isinstance(picture, Frame):
            self.kept.append((picture.raw, picture.raw.tobytes()))
            self._check(picture, plane, both=both)
            if isinstance(last, Frame):
                _check_damage(last, before, picture)
        self.last[step.look] = picture
        return picture

    def _check(self, frame: Frame, plane: PlaneType, *, both: bool) -> None:
        for raw, content in self.kept:
            assert raw.tobytes() == content, "a frame changed after it was handed out"
        del self.kept[:-3]
        if self.driver.touched or FrameFlags.TORN in frame.flags or (both and not self.driver.calm):
            return
        surface = self.reader.looked_at[plane]
        data = self.driver.memory_of(surface)
        if surface.format is None:
            assert frame.raw.tobytes() == data[: surface.size]
        check_pixels(frame, surface, data, self._cursor(frame) if both else None)

    def _cursor(self, frame: Frame) -> Callable[[int, int], Colour | None] | None:
        """Return what of the cursor is over a pixel of the screen; None where it is not to be seen."""
        surface = None if FrameFlags.CURSOR_MISSING in frame.flags else self.reader.surface(_CURSOR)
        if surface is None or is_primary_again(surface, self.reader.looked_at[_PRIMARY]):
            return None
        data = self.driver.memory_of(surface)
        left, top = _signed(surface.x), _signed(surface.y)

        def over(x: int, y: int) -> Colour | None:
            inside = 0 <= x - left < surface.width and 0 <= y - top < surface.height
            return pixel(data, surface, x - left, y - top) if inside else None

        return over

    def _look_at_mapping(self) -> None:
        memory = self.reader.pin(_PRIMARY)
        try:
            view = self.view = memory.view()
            assert not view.flags.writeable
            assert view.tobytes() is not None  # reads all of it
            if not self.driver.touched:
                data = self.driver.memory_of(memory.surface)
                size = int(view.dtype.itemsize)
                assert view.reshape(-1)[:1].tobytes() == data[:size]
        finally:
            self.reader.unpin(memory)


def _check_damage(last: Frame, before: npt.NDArray[Any] | None, now: Frame) -> None:
    """Fail where a pixel changed outside of what is said to have changed."""
    assert now.serial >= last.serial
    if now is last or before is None or not known(now.surface):
        return
    if (last.width, last.height, last.surface.fourcc) != (now.width, now.height, now.surface.fourcc):
        assert now.changed_tiles.all()
        return
    after = now.to_ndarray("bgra")
    tiles = np.kron(now.changed_tiles, np.ones((TILE, TILE), np.bool_))[: now.height, : now.width]
    assert not (before != after)[~tiles].any(), "a pixel changed outside of the damage"
    covered = np.zeros_like(tiles)
    for rect in now.damage:
        covered[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = True
    assert np.array_equal(covered, tiles)


def _reader(case: Case, fd: int) -> Reader:
    device = Device(fd, LOCATOR, Identity(driver=case.vendor, vendor=case.vendor))
    backend = Backend(backends().get(case.kind), device, Match(50, "it is hostile"), {})
    return Reader(device, backend, imports=False)


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def run(case: Case) -> list[Frame | Blank | MdevDisplayError | None]:
    """Read a hostile display, and fail where anything but a right picture or an error of ours comes out.

    Returns:
        What came of every step; None of a look at the mapping.
    """
    outcomes: list[Frame | Blank | MdevDisplayError | None] = []
    held = open_descriptors()
    with Guards() as guards, warnings.catch_warnings():
        warnings.simplefilter("error")
        driver = _Driver(case, guards)
        guards.replace(_ioctl, "fcntl", SimpleNamespace(ioctl=driver.ioctl))
        guards.replace(gfx, "_BACK_OFF", (0.0, 0.0))
        guards.replace(mdevdisplay_mbochs, "_BACK_OFF", (0.0, 0.0))
        guards.replace(shadow, "is_cached", shadow.is_cached if case.cached is None else lambda _: case.cached)
        reader = _reader(case, os.dup(driver.fds[0]))
        watcher = _Watcher(driver, reader)
        try:
            for step in case.steps:
                try:
                    outcomes.append(watcher.look(step))
                except MdevDisplayError as error:
                    check_error(error)
                    outcomes.append(error)
        finally:
            reader.close()
            driver.close()
        assert watcher.view is None or not watcher.view.any(), "a view shows a device that was let go"
        del watcher, reader
        if guards.mapped:  # an error with its traceback may be in a circle
            for outcome in outcomes:
                if isinstance(outcome, MdevDisplayError):
                    outcome.__traceback__ = outcome.__cause__ = outcome.__context__ = None
            gc.collect()
        assert not guards.mapped, f"mappings are left: {guards.mapped}"
    assert open_descriptors() <= held, "descriptors are left"
    return outcomes
