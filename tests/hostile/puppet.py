"""A worker that is somebody's puppet, and answers anything that is a message and much that is none."""

from __future__ import annotations

import array
import base64
import fcntl
import gc
import json
import os
import socket
import warnings
from typing import Any

import attrs

from hostile.choices import Choices
from hostile.driver import LOCATOR, check_error, check_pixels, open_descriptors
from hostile.guards import Guards
from hostile.planes import Plane, some_plane
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.formats import lookup
from mdevdisplay.pixels.frame import Frame
from mdevdisplay.surface import PlaneType
from mdevdisplay.vfio.uapi import HOTSPOT_UNKNOWN
from mdevdisplay.worker import link
from mdevdisplay.worker.client import RemoteReader
from mdevdisplay.worker.link import Link

__all__ = ["talk"]

Body = dict[str, Any]

_PLANES = (PlaneType.PRIMARY, PlaneType.CURSOR)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 4096, 65536, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1),
    *(1 << 64, 10**400, 1.5, -0.0, 1e308, "", "x", "x" * 3000, "\0", "\ud800", [], [[]], {}, {"class": "Closed"}),
)
_LARGEST = 1 << 18
_READY = {
    "listens": False,
    "borrowed": True,
    "announces": True,
    "sign_lost": True,
    "identity": {"name": "n", "driver": "", "vendor": "", "mdev_type": "", "parent": ""},
    "backend": {"name": "b", "distribution": "d", "version": "1", "score": 50, "reason": "", "refusals": {}},
}


class _Puppet:
    """The other side of a connection, which answers before it is asked."""

    def __init__(self, choices: Choices, guards: Guards) -> None:
        self.choices = choices
        self.guards = guards
        self.theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.buffers: dict[int, int] = {}
        self._next = 0

    def prepare(self, connection: Link, what: str, *, small: bool) -> None:
        """Write the answers to the next questions: a picture, or how many bytes it takes where the buffer is small."""
        first = connection._number + 1
        for ahead in range(6 if what == "both" else 3):
            body = self._answer(small=small and not ahead % 2) | {"id": first + ahead}
            self._say(body, descriptors=what in ("pin", "dmabuf") and not ahead)

    def _say(self, body: Body, *, descriptors: bool = False) -> None:
        choices = self.choices
        if choices.rarely():
            _spoil(choices, body)
        data = json.dumps(body).encode()
        if choices.rarely():
            data = choices.bytes(choices.number(60)) if choices.often() else data[: choices.number(len(data))]
        count = choices.of((1, 1, 1, 0, 2, 3)) if descriptors or choices.rarely() else 0
        fds = [self._descriptor() for _ in range(count)]
        try:
            socket.send_fds(self._ours, [data or b"{"], fds, socket.MSG_DONTWAIT)
        except BlockingIOError:  # it was not asked so often
            pass
        finally:
            for fd in fds:
                os.close(fd)

    def _descriptor(self) -> int:
        if self.choices.rarely():
            return os.open(os.devnull, os.O_RDONLY)
        fd = os.memfd_create("puppet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size = self.choices.of((1 << 17, 65536, 8192, 4096, 1, 0))
        os.truncate(fd, size)
        self.guards.may_need(size)
        if not self.choices.rarely():
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return fd

    def _answer(self, *, small: bool) -> Body:
        choices = self.choices
        plane = some_plane(choices, cursor=choices.rarely())
        surface: Body = {"plane": choices.of((1, 1, 2, 0)), "offset": choices.of((0, 0, 0, 1, 64, 4096)), "output": 0}
        for name in ("fourcc", "modifier", "width", "height", "stride", "size", "x", "y"):
            surface[name] = getattr(plane, name)
        for name in ("x_hot", "y_hot"):
            value = getattr(plane, name)
            surface[name] = None if value == HOTSPOT_UNKNOWN else value
        surface |= {"dmabuf_id": None, "region_index": None}
        if choices.rarely():
            _spoil(choices, surface)
        packed = plane.needed
        layout = lookup(plane.fourcc)
        if layout is not None and not plane.modifier:
            packed = layout.minimum_stride(plane.width) * layout.rows(plane.height)
        if choices.rarely():
            packed += choices.of((1, -1, 4096))
        body: Body = {
            "surface": surface,
            "number": 1 + choices.number(2),
            "size": packed,
            "torn": choices.often(),
            "decoded": None,
            "serial": 1 + choices.number(3),
            "tiles": None,
            "key": choices.number(2),
            "offset": choices.of((0, 0, 4096, 1)),
            "pixel_offset": choices.of((0, 0, 64, 1)),
            "announced": choices.number(3),
            "readability": {
                "way": choices.of(("region", "import", "")),
                "reason": "r",
                "cause": choices.of(("x", "not-mappable")),
            },
            "findings": [{"cause": "c", "evidence": "e", "remedy": ""}] * choices.number(3),
            "edid": {"blob": "AAAA", "max_size": 1, "max_xres": 1, "max_yres": 1, "link_up": None},
        }
        if small:
            body["need"] = choices.of((_LARGEST, _LARGEST, packed, 1)) if choices.rarely() else _LARGEST
        self._twist(body, plane, packed)
        return body

    def _twist(self, body: Body, plane: Plane, packed: int) -> None:
        """Make something else of an answer, one time in four."""
        choices = self.choices
        what = choices.number(31)
        count = -(-plane.width // 64) * -(-plane.height // 64)
        if what == 1:
            body["need"] = choices.of((packed, plane.needed, 1, _LARGEST, 4096))
        elif what == 2:
            body["surface"] = choices.of((None, True))
        elif what == 3:
            body["same"] = True
        elif what == 4 and count < 1 << 16:
            body["tiles"] = base64.b64encode(choices.bytes(-(-count // 8))).decode()
        elif what == 5:
            body["decoded"] = choices.of((packed, packed + 4096, -(-packed // 4096) * 4096))
        elif what == 6:
            kind = choices.of(("NotMappable", "DriverError", "BadSurface", "Nobody", "GuestChangingMode"))
            body["error"] = {
                "class": kind,
                "message": "m",
                "hint": "",
                "cause": choices.of((None, "x", "not-mappable")),
                "errno": None,
            }
        elif what == 7 and choices.rarely():
            body["lost"] = {"class": "VmGone", "message": "m", "hint": "", "cause": None, "errno": None}

    def drain(self) -> None:
        """Read the questions, so that there is room for more, and forget answers that nobody wanted."""
        for end in (self._ours, self.theirs):
            data = b"?"
            while data:
                try:
                    data, ancillary, _, _ = end.recvmsg(1 << 17, 256, socket.MSG_DONTWAIT)
                except OSError:  # there is no more, or it is closed
                    break
                for _, _, content in ancillary:
                    for fd in array.array("i", content):
                        os.close(fd)

    def close(self) -> None:
        """Close this side, and what is left of the other."""
        self._ours.close()
        self.theirs.close()


def _spoil(choices: Choices, body: Body) -> None:
    """Replace some values by others that mean nothing."""
    for _ in range(choices.of((0, 0, 0, 1, 1, 2))):
        name = choices.of(sorted(body))
        inner = body[name]
        if isinstance(inner, dict) and inner and choices.often():
            _spoil(choices, inner)
        elif choices.rarely():
            del body[name]
            if not body:
                return
        else:
            body[name] = choices.of(_ODD)


class _Reader(RemoteReader):
    """A reader whose workers are puppets; after the second nobody starts another."""

    def __init__(self, puppet: _Puppet) -> None:
        self._puppet = puppet
        self._opened_once = False
        super().__init__(LOCATOR)

    def _open(self) -> Link:
        if self._opened_once:
            raise MdevDisplayError("there is only one worker", device=LOCATOR)
        self._opened_once = True
        puppet = self._puppet
        opened = Link(puppet.theirs, None, LOCATOR)
        ready: Body = json.loads(json.dumps(_READY))
        if puppet.choices.rarely():
            _spoil(puppet.choices, ready)
        puppet._say({"id": 1, "ready": ready})
        self._opened(opened, lambda: {"op": "hello"}, "hello")
        return opened


def _ask(reader: _Reader, puppet: _Puppet, last: dict[PlaneType, Any]) -> int:
    """Ask for one thing; return how many frames came."""
    choices = puppet.choices
    plane = choices.of(_PLANES)
    what = choices.of(
        ("look", "look", "look", "look", "both", "pin", "dmabuf", "surface", "edid", "readability", "wait", "findings")
    )
    puppet.drain()
    assert reader._link is not None
    puppet.prepare(reader._link, what, small=not reader._sizes.get(plane))
    if what in ("look", "both"):
        both = what == "both"
        picture = reader.look(PlaneType.PRIMARY if both else plane, None if both else last.get(plane), cursor=both)
        if not both:
            last[plane] = picture
        if not isinstance(picture, Frame):
            return 0
        assert picture.damage is not None
        if both:
            with_cursor = picture.to_ndarray("bgra")
            assert with_cursor.shape == (picture.height, picture.width, 4)
        elif picture.decoded is None:
            surface = picture.surface
            rows = surface.format
            if rows is not None and surface.modifier == 0:  # the copy has no padding
                surface = attrs.evolve(surface, stride=rows.minimum_stride(surface.width), offset=0)
            check_pixels(picture, surface, picture.raw.tobytes())
        return 1
    if what == "pin":
        memory = reader.pin(plane)
        assert memory.view().tobytes() is not None
        reader.unpin(memory)
    elif what == "dmabuf":
        reader.dmabuf(plane).close()
    elif what == "wait":
        reader.wait_update(0)
    else:
        getattr(reader, what)(*() if what in ("edid", "findings") else (plane,))
    return 0


def talk(choices: Choices) -> int:
    """Read a display through a hostile worker, and fail where anything but a sound frame or an error of ours comes out.

    Returns:
        How many frames there were.
    """
    held = open_descriptors()
    frames = 0
    with Guards() as guards, warnings.catch_warnings():
        warnings.simplefilter("error")
        guards.may_need(_LARGEST)
        guards.replace(link, "HANG", 0.002)
        puppet = _Puppet(choices, guards)
        reader: _Reader | None = None
        try:
            reader = _Reader(puppet)
            last: dict[PlaneType, Any] = {}
            while choices.left and reader._link is not None:
                try:
                    frames += _ask(reader, puppet, last)
                except MdevDisplayError as error:
                    check_error(error)
        except MdevDisplayError as error:
            check_error(error)
        finally:
            if reader is not None:
                reader.close()
            puppet.drain()
            puppet.close()
        del reader, puppet
        if guards.mapped:  # an error with its traceback may be in a circle
            gc.collect()
        assert not guards.mapped, f"mappings are left: {guards.mapped}"
    if open_descriptors() != held:
        gc.collect()
    assert open_descriptors() == held, "descriptors are left"
    return frames
