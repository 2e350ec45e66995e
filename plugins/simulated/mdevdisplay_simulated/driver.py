"""The simulated driver: it answers the GFX ioctls of VFIO with raw bytes and errnos, as a kernel driver does."""

from __future__ import annotations

import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from errno import EBUSY, EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY

from mdevdisplay.formats import fourcc
from mdevdisplay.region import Mappable
from mdevdisplay.surface import PlaneType
from mdevdisplay.vfio.uapi import (
    VFIO_DEVICE_GET_GFX_DMABUF,
    VFIO_DEVICE_QUERY_GFX_PLANE,
    VFIO_GFX_PLANE_TYPE_DMABUF,
    VFIO_GFX_PLANE_TYPE_PROBE,
    VFIO_GFX_PLANE_TYPE_REGION,
)
from mdevdisplay_simulated import cursor
from mdevdisplay_simulated.clip import Clip, open_clip
from mdevdisplay_simulated.faults import FAULTS, Moment, Report
from mdevdisplay_simulated.layout import Layout
from mdevdisplay_simulated.memory import Memory, unmappable
from mdevdisplay_simulated.options import Options, check_layout
from mdevdisplay_simulated.picture import BarsPicture, BlackPicture, Picture
from mdevdisplay_simulated.scanout import Scanout

__all__ = ["SimulatedDriver"]

# struct vfio_device_gfx_plane_info: what the caller sends, and what the driver fills in; drivers ask for 60 bytes
_REQUEST = struct.Struct("<III")
_ANSWER = struct.Struct("<IQ9I")
_ANSWER_AT = _REQUEST.size
_LEAST = _ANSWER_AT + _ANSWER.size
_NOTHING = bytes(_ANSWER.size)
_PLANES = {int(plane): plane for plane in (PlaneType.PRIMARY, PlaneType.CURSOR)}
_OFFERED = {
    "both": (VFIO_GFX_PLANE_TYPE_DMABUF, VFIO_GFX_PLANE_TYPE_REGION),
    "dmabuf": (VFIO_GFX_PLANE_TYPE_DMABUF,),
    "region": (VFIO_GFX_PLANE_TYPE_REGION,),
}

# mdpy's number of its display's region, of NVIDIA's: both beyond what those drivers say they have
_PRIMARY_REGION = 16
_CURSOR_REGION = 9
_PAGE = 4096
_MOST_IDS = 1024
_U32 = 0xFFFFFFFF

_Key = tuple[str, int, int]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class SimulatedDriver:
    """One simulated device. Like a kernel driver's, its state lives until close.

    Time stands still until the first query, so that whoever looks once sees the first frame.
    """

    def __init__(self, options: Options, locator: str = "sim:", *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the memory; nothing is drawn before the first query.

        Args:
            options: what to simulate.
            locator: for messages.
            clock: seconds, never going back.

        Raises:
            LocatorError: the options' clip cannot be shown.
            OSError: the kernel gives no memory, or no udmabuf although ``udmabuf=on``.
        """
        self._options = options
        self._clock = clock
        self._values = dict(options.faults)
        self._faults = [(FAULTS[name], value) for name, value in options.faults]
        self._offered = _OFFERED[options.via]
        self._clip: Clip | None = open_clip(options.clip, locator) if options.clip else None
        self._modes = options.modes
        if self._clip is not None:
            self._modes = ((self._clip.width, self._clip.height),)
            check_layout(options, *self._modes[0], locator)
        self._layouts = [
            Layout.of(options.fourcc, width, height, modifier=options.modifier, stride=options.stride)
            for width, height in self._modes
        ]
        self._pictures: dict[int, Picture] = {}
        self._pointer = cursor.Pointer() if options.cursor else None
        self._cursor_layout = Layout.of(fourcc("AR24"), cursor.SIZE, cursor.SIZE)
        self._started: float | None = None
        self._frame = options.frame
        self._mode = -1
        self._in_mode = 0
        self._queries = 0
        self._answers = 0
        self._cached: dict[tuple[PlaneType, int], bytes] = {}
        self._ids: OrderedDict[_Key, int] = OrderedDict()
        self._owners: dict[int, Scanout] = {}
        self._next_id = 1
        self._given: set[int] = set()
        self._memories: list[Memory] = []
        try:
            self._make_memory()
        except BaseException:
            self.close()
            raise

    def _make_memory(self) -> None:
        """Make one memory a buffer, large enough for every mode: as on a real card a mode only uses more or less."""
        size = max(layout.size for layout in self._layouts)
        if "size-pow2" in self._values:
            size = 1 << (size - 1).bit_length()
        if "region-refused" in self._values:
            size += 2 * _PAGE  # room for an offset that no mmap takes
        whole = "dmabuf-part-page" not in self._values
        self._buffers = [Scanout(self._new_memory(size, whole_pages=whole)) for _ in range(self._options.buffers)]
        self._cursor = Scanout(self._new_memory(self._cursor_layout.size))
        self._small: Memory | None = None
        if "small-buffer" in self._values:
            self._small = self._new_memory(min(layout.size for layout in self._layouts) // 2, whole_pages=False)
        if self._options.udmabuf == "on":
            os.close(self._buffers[0].memory.export("on"))

    def _new_memory(self, size: int, *, whole_pages: bool = True) -> Memory:
        memory = Memory(size, whole_pages=whole_pages)
        self._memories.append(memory)
        return memory

    def close(self) -> None:
        """Free the memory. Idempotent."""
        while self._memories:
            self._memories.pop().close()

    # the ioctls

    def ioctl(self, request: int, buffer: bytearray) -> int:
        """Answer an ioctl: fill the buffer and return the result, or raise OSError with the errno."""
        if self._values:
            if "enotty" in self._values:
                raise _error(ENOTTY)
            if "answers-all" in self._values:
                return 0
            if self._queries >= self._values.get("gone", self._queries + 1):
                raise _error(ENODEV)
        if request == VFIO_DEVICE_QUERY_GFX_PLANE:
            return self._query_plane(buffer)
        if request == VFIO_DEVICE_GET_GFX_DMABUF:
            return self._get_dmabuf(buffer)
        raise _error(ENOTTY)

    def _query_plane(self, buffer: bytearray) -> int:
        if len(buffer) < _LEAST:
            raise _error(EFAULT)
        argsz, flags, plane_type = _REQUEST.unpack_from(buffer)
        if argsz < _LEAST or flags & ~VFIO_GFX_PLANE_TYPE_PROBE not in self._offered:
            raise _error(EINVAL)
        if flags & VFIO_GFX_PLANE_TYPE_PROBE:
            return 0
        plane = _PLANES.get(plane_type)
        if plane is None:
            raise _error(EINVAL)
        self._queries += 1
        self._advance()
        if self._values:
            self._refuse(plane)
        answer = self._answer(plane, flags)
        if plane is PlaneType.PRIMARY:
            self._answers += 1
        if answer is not None:
            buffer[_ANSWER_AT:_LEAST] = answer
        return 0

    def _get_dmabuf(self, buffer: bytearray) -> int:
        if VFIO_GFX_PLANE_TYPE_DMABUF not in self._offered:
            raise _error(ENOTTY)
        number = int.from_bytes(buffer[:4], "little")
        owner = self._owners.get(number)
        if owner is None or "get-einval" in self._values:
            raise _error(EINVAL)
        if "get-enoent" in self._values:
            raise _error(ENOENT)
        if "get-once" in self._values:
            if number in self._given:
                raise _error(EBUSY)
            self._given.add(number)
        if "dmabuf-enodev" in self._values:
            return unmappable()
        memory = self._visible(owner)
        fd = memory.export(self._options.udmabuf if memory is not self._small else "off")
        if "no-cloexec" in self._values:
            os.set_inheritable(fd, True)
        return fd

    # what VFIO tells by GET_REGION_INFO

    def region(self, index: int) -> Mappable | None:
        """Return the memory of a region, or None where there is none of that number."""
        if index == _CURSOR_REGION:
            return self._mappable(self._cursor)
        slot = index - _PRIMARY_REGION
        return self._mappable(self._buffers[slot]) if 0 <= slot < len(self._buffers) else None

    def memory_of(self, dmabuf_id: int) -> Mappable | None:
        """Return the memory that a dma-buf id names, or None where it names none any more."""
        owner = self._owners.get(dmabuf_id)
        return None if owner is None else self._mappable(owner)

    def _mappable(self, owner: Scanout) -> Mappable:
        memory = self._visible(owner)
        size = owner.memory.size
        if "region-refused" in self._values:
            # off a page, so that mmap answers EINVAL, as NVIDIA's does
            return Mappable(fd=memory.fd, offset=1, size=size - _PAGE)
        return Mappable(fd=memory.fd, offset=0, size=size)

    def _visible(self, owner: Scanout) -> Memory:
        """Return the memory that a reader gets to see."""
        return owner.memory if self._small is None or owner is self._cursor else self._small

    # time

    def _advance(self) -> None:
        """Find out which frame it is."""
        frame = self._frame
        if self._options.step:
            frame = self._options.frame + self._answers // self._options.step
        elif self._options.fps:
            now = self._clock()
            if self._started is None:
                self._started = now
            frame = self._options.frame + int((now - self._started) * self._options.fps)
        if frame == self._frame and self._mode >= 0:
            return
        self._frame = frame
        self._cached.clear()
        mode = frame // self._options.mode_every % len(self._modes)
        if mode != self._mode:
            self._mode, self._in_mode = mode, 0

    # answers

    def _refuse(self, plane: PlaneType) -> None:
        """Fail as the faults say."""
        if "hang" in self._values:
            time.sleep(self._values["hang"])
        primary = plane is PlaneType.PRIMARY
        self._in_mode += primary
        fresh = False
        if primary and not self._blanked:
            fresh = self._key(plane) not in self._ids
            self._number(plane, VFIO_GFX_PLANE_TYPE_DMABUF)
        moment = Moment(plane, self._queries, self._in_mode, fresh)
        for fault, value in self._faults:
            number = fault.refuse(moment, value)
            if number:
                raise _error(number)

    @property
    def _blanked(self) -> bool:
        blank = self._options.blank
        return blank is not None and self._frame in blank

    def _answer(self, plane: PlaneType, flags: int) -> bytes | None:
        """Return the 48 bytes of the answer, or None to leave the caller's."""
        cached = self._cached.get((plane, flags))
        if cached is not None:
            return cached
        if self._answers >= self._values.get("untouched", self._answers + 1):
            return None
        report = self._report(plane, flags)
        if report is None:
            answer = _NOTHING
            if "untouched" in self._values:
                return None
        else:
            # a fault may make a number that no field holds
            geometry = (report.width, report.height, report.stride, report.size, report.x, report.y)
            rest = (*geometry, report.x_hot, report.y_hot, report.number)
            answer = _ANSWER.pack(report.fourcc, report.modifier, *(number & _U32 for number in rest))
        if not self._values:
            self._cached[plane, flags] = answer
        return answer

    def _report(self, plane: PlaneType, flags: int) -> Report | None:
        """Say what a plane shows now, having drawn it, or None for nothing."""
        moment = Moment(plane, self._queries, self._in_mode, fresh=False)
        if plane is PlaneType.PRIMARY or "cursor-is-primary" in self._values:
            if self._blanked:
                return None
            report = self._primary(flags)
            for fault, value in self._faults:
                fault.distort(report, moment, value)
            return report
        if self._pointer is None or self._blanked:
            return None
        report = self._cursor_report(self._pointer, flags)
        for fault, value in self._faults:
            fault.distort_cursor(report, moment, value)
        return report

    def _primary(self, flags: int) -> Report:
        layout = self._layouts[self._mode]
        self._buffers[self._slot].show(self._picture(), layout, self._frame)
        return Report(
            format=layout.format,
            fourcc=layout.format.fourcc,
            modifier=layout.modifier,
            width=layout.width,
            height=layout.height,
            stride=layout.stride,
            size=layout.size,
            number=self._number(PlaneType.PRIMARY, flags),
        )

    def _cursor_report(self, pointer: cursor.Pointer, flags: int) -> Report:
        layout = self._cursor_layout
        self._cursor.show(pointer, layout, 0)
        x, y = cursor.position(self._frame, *self._modes[self._mode])
        return Report(
            format=layout.format,
            fourcc=layout.format.fourcc,
            modifier=layout.modifier,
            width=layout.width,
            height=layout.height,
            stride=layout.stride,
            size=layout.size,
            x=x,
            y=y,
            x_hot=cursor.HOT[0],
            y_hot=cursor.HOT[1],
            number=self._number(PlaneType.CURSOR, flags),
        )

    @property
    def _slot(self) -> int:
        """The number of the buffer that the current frame is in."""
        return self._frame % len(self._buffers)

    def _picture(self) -> Picture:
        picture = self._pictures.get(self._mode)
        if picture is None:
            width, height = self._modes[self._mode]
            if "all-black" in self._values:
                picture = BlackPicture(width, height)
            elif self._clip is not None:
                picture = self._clip
            else:
                picture = BarsPicture(width, height, self._options.seed)
            self._pictures[self._mode] = picture
        return picture

    # names of buffers

    def _key(self, plane: PlaneType) -> _Key:
        """Return what a dma-buf id stands for."""
        if plane is PlaneType.CURSOR:
            return ("cursor", 0, 0)
        if "new-id-every-query" in self._values:
            return ("flip", self._answers // int(self._values["new-id-every-query"]), 0)
        return ("buffer", self._slot, 0 if "recycled-ids" in self._values else self._mode)

    def _number(self, plane: PlaneType, flags: int) -> int:
        """Return the region or the dma-buf id of a plane; a new one where it has none."""
        if flags == VFIO_GFX_PLANE_TYPE_REGION:
            return _CURSOR_REGION if plane is PlaneType.CURSOR else _PRIMARY_REGION + self._slot
        key = self._key(plane)
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = self._next_id
            self._next_id += 1
            if len(self._ids) > _MOST_IDS:
                self._owners.pop(self._ids.popitem(last=False)[1])
        self._owners[number] = self._cursor if plane is PlaneType.CURSOR else self._buffers[self._slot]
        return number
