"""The worker's main loop: one source, read for one client after the other, in turns, by one thread."""

from __future__ import annotations

import ctypes
import gc
import linecache
import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from mdevdisplay.connecting import connect
from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.errors import MdevDisplayError, NothingDisplayed, NotMappable
from mdevdisplay.reader import Reader
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay.vfio.device import Device
from mdevdisplay.worker import sharing, values, wire
from mdevdisplay.worker.buffers import MappedBuffers, NeedBytes, is_sealed
from mdevdisplay.worker.privileges import drop_privileges, import_all

__all__ = ["serve"]

Body = dict[str, Any]
_ALIGNED = 64
"""Decoded pixels begin at a multiple of this many bytes behind the raw ones."""


@attrs.define(eq=False)
class _Client:
    """A program that reads here.

    Attributes:
        connection: to it.
        buffers: its memory.
        told: the surface that it was told last, by plane, and the number that it knows it by.
    """

    connection: socket.socket
    buffers: MappedBuffers = attrs.field(factory=MappedBuffers)
    told: dict[PlaneType, tuple[SurfaceInfo, int]] = attrs.field(factory=dict)
    count: int = 0

    def tell(self, surface: SurfaceInfo | None, plane: PlaneType, known: int) -> Body:
        """Return what to answer for a surface: nothing new where it knows it, which most frames find."""
        if surface is None:
            return {"surface": None}
        last, number = self.told.get(plane, (None, 0))
        if number and number == known and (surface is last or surface == last):
            return {"surface": True}
        self.count += 1
        self.told[plane] = (surface, self.count)
        return {"surface": values.surface_to(surface), "number": self.count}


@attrs.define
class _Answer:
    """What goes back: an object, and descriptors that stay ours."""

    body: Body
    fds: tuple[int, ...] = ()
    owner: DmaBuf | None = None


def serve(connection: socket.socket, request: Body) -> None:
    """Open what a program asks for and read it until nobody is there any more, or its VM has ended."""
    number = values.number(request, "id")
    try:
        server = _open(connection, request)
        if isinstance(server, str):
            wire.send(connection, {"id": number, "shared": server})
            return
    except BaseException as error:
        wire.send(connection, {"id": number, "error": values.error_to(error)})
        if isinstance(error, Exception):
            return
        raise
    try:
        server.answer(connection, {"id": number, "ready": server.ready()})
        _trim()
        server.run()
    finally:
        server.close()


def _open(connection: socket.socket, request: Body) -> _Server | str:
    """Return a server without privileges, or the name of the worker that reads the device already."""
    locator = request["open"]
    backend: str | None = request["backend"]
    output = values.number(request, "output")
    listeners: list[socket.socket] = []
    reader: Reader | None = None
    try:
        names = [sharing.shared_name(sharing.device_of_locator(locator), backend, output)]
        taken = request["share"] and _listen(names[0], listeners)
        if taken:
            return names[0]
        reader = connect(locator, backend, output, must_attach=values.boolean(request, "must_attach"), imports=False)
        by_source = sharing.shared_name(sharing.device_of_source(reader.source), backend, output)
        if request["share"] and by_source not in names and _listen(by_source, listeners):
            reader.close()
            for listener in listeners:
                listener.close()
            return by_source
        owner = os.getuid()
        import_all(reader.backend.plugin.point.load())
        drop_privileges(locator)
    except BaseException:
        for listener in listeners:
            listener.close()
        if reader is not None:
            reader.close()
        raise
    return _Server(reader, connection, listeners, owner)


def _listen(name: str, listeners: list[socket.socket]) -> bool:
    """Listen on a name; whether somebody else has it already."""
    if not name:
        return False
    listener = sharing.listen(name)
    if listener is not None:
        listeners.append(listener)
    return listener is None


def _trim() -> None:
    """Give back the memory that only starting took."""
    linecache.clearcache()
    sys.path_importer_cache.clear()
    gc.collect()
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


class _Server:
    """One reader and its clients."""

    def __init__(self, reader: Reader, first: socket.socket, listeners: list[socket.socket], owner: int) -> None:
        self._reader = reader
        self._owner = owner
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._clients: dict[int, _Client] = {}
        self._poll = select.poll()
        lifeline = reader.source.lifeline
        self._lifeline = -1 if lifeline is None else lifeline.fileno()
        if self._lifeline >= 0:
            self._poll.register(self._lifeline, select.POLLIN)
        for fd in self._listeners:
            self._poll.register(fd, select.POLLIN)
        self._add(first)

    def _add(self, connection: socket.socket) -> None:
        self._clients[connection.fileno()] = _Client(connection)
        self._poll.register(connection.fileno(), select.POLLIN)

    def _remove(self, fd: int) -> None:
        client = self._clients.pop(fd, None)
        if client is not None:
            self._poll.unregister(fd)
            client.connection.close()

    def ready(self) -> Body:
        """Say what was opened."""
        reader = self._reader
        return {
            "identity": values.identity_to(reader.identity),
            "borrowed": reader.borrowed,
            "backend": values.backend_to(reader.backend_info),
            "listens": bool(self._listeners),
            "announces": reader.announces,
            "sign_lost": reader.source.cursor_sign_lost,
        }

    def run(self) -> None:
        """Serve until the last client is gone or the source is lost."""
        while self._clients and not self._reader.lost:
            for fd, _ in self._poll.poll():
                if fd == self._lifeline:
                    self._reader.source.lose()
                    break
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
                elif fd in self._clients:
                    self._serve(fd, self._clients[fd])
        lifeline = self._reader.source.lifeline
        if self._reader.lost and lifeline is not None:
            for client in list(self._clients.values()):
                self.answer(client.connection, {"id": 0, "lost": values.error_to(lifeline.error())})

    def close(self) -> None:
        """Let go of the source first: whoever waits for the connections to end finds it free."""
        try:
            with suppress(MdevDisplayError):
                self._reader.close()
        finally:
            for fd in list(self._clients):
                self._remove(fd)
            for listener in self._listeners.values():
                listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            if sharing.trusted(sharing.peer_uid(connection), self._owner):
                self._add(connection)
            else:
                connection.close()

    def answer(self, connection: socket.socket, body: Body, fds: tuple[int, ...] = ()) -> None:
        """Send an answer; a client that does not read its answers is let go."""
        try:
            wire.send(connection, body, fds, wire.NO_WAIT)
        except wire.BadMessage as error:  # too long
            self.answer(connection, {"id": body["id"], "error": values.error_to(MdevDisplayError(str(error)))})
        except (wire.PeerGone, OSError):
            self._remove(connection.fileno())

    def _serve(self, fd: int, client: _Client) -> None:
        """Answer one message."""
        try:
            message = wire.receive(client.connection)
        except (wire.PeerGone, wire.BadMessage, OSError):
            self._remove(fd)
            return
        body: Body = {"id": message.body.get("id")}
        answer = _Answer({})
        try:
            try:
                for number in message.body.get("drop", ()):
                    client.buffers.drop(number)
                if "new" in message.body:
                    client.buffers.add(values.number(message.body, "new", least=1), *message.fds[:1])
            finally:
                message.close()
            answer = self._do(client, message.body)
        except NeedBytes as need:
            answer = _Answer({"need": need.size})
        except Exception as error:  # noqa: BLE001 - whatever a backend raises is an answer
            answer = _Answer({"error": values.error_to(error)})
        try:
            self.answer(client.connection, body | answer.body, answer.fds)
        finally:
            if answer.owner is not None:
                answer.owner.close()

    def _do(self, client: _Client, body: Body) -> _Answer:
        operation = _OPERATIONS.get(str(body.get("op")))
        if operation is None:
            raise wire.BadMessage(f"there is no operation {body.get('op')!r}")
        return operation(self, client, body)

    # the operations

    def _hello(self, _client: _Client, _body: Body) -> _Answer:
        return _Answer({"ready": self.ready()})

    def _bye(self, _client: _Client, _body: Body) -> _Answer:
        return _Answer({"others": len(self._clients) > 1})

    def _surface(self, client: _Client, body: Body) -> _Answer:
        plane = _plane(body)
        return _Answer(client.tell(self._reader.surface(plane), plane, values.number(body, "known")))

    def _look(self, client: _Client, body: Body) -> _Answer:
        """Bring the picture up to date, and copy it into the client's buffer unless it has it already."""
        plane = _plane(body)
        live = self._reader.live(plane)
        since = values.number(body, "since")
        try:
            torn = self._reader.refresh(plane)
        except NothingDisplayed:
            live.blank()
            return _Answer({"surface": None, "serial": live.serial})
        if since == live.serial and values.boolean(body, "same"):
            return _Answer({"same": True, "torn": torn})
        room = client.buffers.use(values.number(body, "buffer"))
        raw = live.copy(client.buffers)
        answer: Body = {
            **client.tell(self._reader.looked_at[plane], plane, values.number(body, "known")),
            "size": raw.nbytes,
            "torn": torn,
            "serial": live.serial,
            "tiles": values.tiles_to(live.damage.since(since)) if since else None,
            "decoded": None,
        }
        decoded = self._reader.decoded(plane, raw)
        if decoded is not None and room is not None:
            answer["decoded"] = _append(decoded, room, raw.nbytes)
        return _Answer(answer)

    def _wait(self, _client: _Client, body: Body) -> _Answer:
        return _Answer({"announced": self._reader.wait_update(values.number(body, "seen"))})

    def _dmabuf(self, client: _Client, body: Body) -> _Answer:
        plane = _plane(body)
        buffer = self._reader.dmabuf(plane)
        return _Answer({**client.tell(buffer.surface, plane, 0), "key": buffer.key}, buffer.fds, buffer)

    def _memory(self, client: _Client, body: Body) -> _Answer:
        """Hand out the memory itself, for looking at it without a copy; never a device's descriptor."""
        reader = self._reader
        plane = _plane(body)
        surface = reader.shown(plane)
        shown = client.tell(surface, plane, 0)
        mappable = reader.backend.query_region(surface)
        if mappable is None:
            buffer = reader.backend.create_dmabuf(surface)
            if buffer is None:
                raise _isolated(reader.locator, "the backend offers neither a region nor a dma-buf")
            return _Answer({**shown, "key": buffer.key}, buffer.fds, buffer)
        if isinstance(reader.source, Device):
            raise _isolated(reader.locator, "the pixels are in a region of the device, which stays in its worker")
        if not is_sealed(mappable.fd):
            raise _isolated(reader.locator, "the pixels are in a file that its owner can truncate")
        answer = {
            **shown,
            "offset": mappable.offset,
            "size": mappable.size,
            "pixel_offset": mappable.pixel_offset,
        }
        return _Answer(answer, (mappable.fd,))

    def _edid(self, _client: _Client, _body: Body) -> _Answer:
        return _Answer({"edid": values.edid_to(self._reader.edid())})

    def _readability(self, _client: _Client, body: Body) -> _Answer:
        return _Answer({"readability": values.readability_to(self._reader.readability(_plane(body)))})

    def _findings(self, _client: _Client, _body: Body) -> _Answer:
        return _Answer({"findings": values.findings_to(self._reader.findings())})


_OPERATIONS: dict[str, Callable[[_Server, _Client, Body], _Answer]] = {
    "hello": _Server._hello,  # noqa: SLF001 - our own
    "bye": _Server._bye,  # noqa: SLF001
    "surface": _Server._surface,  # noqa: SLF001
    "look": _Server._look,  # noqa: SLF001
    "wait": _Server._wait,  # noqa: SLF001
    "dmabuf": _Server._dmabuf,  # noqa: SLF001
    "memory": _Server._memory,  # noqa: SLF001
    "edid": _Server._edid,  # noqa: SLF001
    "readability": _Server._readability,  # noqa: SLF001
    "findings": _Server._findings,  # noqa: SLF001
}


def _plane(body: Body) -> PlaneType:
    return PlaneType(values.number(body, "plane", max(PlaneType)))


def _append(pixels: npt.NDArray[np.uint8], room: npt.NDArray[np.uint8], size: int) -> int:
    """Put decoded pixels behind the raw ones; return where they begin."""
    start = -(-size // _ALIGNED) * _ALIGNED
    if room.size < start + pixels.nbytes:
        raise NeedBytes(start + pixels.nbytes)
    room[start : start + pixels.nbytes].reshape(pixels.shape)[...] = pixels
    return start


def _isolated(locator: str, what: str) -> MdevDisplayError:
    return NotMappable(
        f"{what}, so another process cannot look at them",
        device=locator,
        hint="capture() costs one copy; or open the display without isolation",
        cause="isolated",
    )
