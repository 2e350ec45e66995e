"""A device descriptor that a launcher hands over: inherited (``fd:N``), or through a socket (``unix:PATH``)."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import re
import socket
from functools import partial
from typing import Any

import attrs

from mdevdisplay.errors import DeviceGone, LocatorError, MdevDisplayError, TimedOut, from_oserror
from mdevdisplay.host.attach import VmProcess
from mdevdisplay.host.auth_log import log_attach
from mdevdisplay.host.borrowed import borrow
from mdevdisplay.host.devices import PCI_ADDRESS, UUID
from mdevdisplay.host.holders import find_holders
from mdevdisplay.host.root import HostRoot
from mdevdisplay.vfio.device import Device

__all__ = ["Words", "borrow_descriptor", "open_inherited", "receive_device"]

_PATIENCE = 5.0
"""Seconds that a launcher may take to answer."""
_MOST_WORDS = 4096
_MOST_DESCRIPTORS = 16
_FD = re.compile(r"[0-9]{1,7}")


@attrs.frozen(kw_only=True)
class Words:
    """What a launcher says of a descriptor that it hands over. It has the device already, so it is believed.

    Attributes:
        device: its UUID or PCI address, "" where it is not said.
        vm: the VM's name.
        pid: the VMM's process, whose exit ends the reading. Where it is not said, the one that /proc shows to hold the
            device; where there is none to be seen either, the device is held until it is closed.
    """

    device: str = ""
    vm: str = ""
    pid: int | None = None


def open_inherited(locator: str, root: HostRoot) -> Device:
    """Open ``fd:N``: a duplicate of a descriptor that this process inherited, which stays the caller's to close.

    Raises:
        LocatorError: N is not a number.
        DeviceGone: there is no such descriptor.
        NotADisplay, DriverError: it is not a VFIO device that answers.
    """
    text = locator.partition(":")[2]
    if not _FD.fullmatch(text):
        raise LocatorError(f"{text!r} is not the number of a descriptor", device=locator, hint="write fd:7")
    fd = int(text)
    try:
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except (OSError, OverflowError) as error:
        hint = "the program that starts this one must pass it on: pass_fds in Python, 7<>FILE in a shell"
        raise from_oserror(
            _as_oserror(error),
            device=locator,
            doing=f"looking at descriptor {fd}",
            hint=hint,
            kind=DeviceGone,
            cause="bad-descriptor",
        ) from error
    return borrow_descriptor(copy, locator, Words(), root)


def _as_oserror(error: OSError | OverflowError) -> OSError:
    return error if isinstance(error, OSError) else OSError(errno.EBADF, os.strerror(errno.EBADF))


def borrow_descriptor(fd: int, locator: str, words: Words, root: HostRoot) -> Device:
    """Take over a descriptor with what is known of it. It is closed if this fails."""
    device = borrow(fd, locator, root, words.device)
    try:
        who = f"VM {words.vm!r}" if words.vm else "a VM"
        pid = words.pid or _vmm_of(device.identity.name, root)
        if pid is not None:
            who = f"{who} (pid {pid})"
            _watch(device, pid, who)
        log_attach(root, whose=f"{who}, handed over", device=device.identity.name or locator)
    except BaseException:
        device.close()
        raise
    return device


def _vmm_of(name: str, root: HostRoot) -> int | None:
    """Return the VMM that holds a device beside us; None where we may not see who does, or several say so."""
    found = [holder for holder in find_holders(root) if holder.vm.kind and holder.holds(name)]
    seen = [holder.pid for holder in found if holder.readable] or [holder.pid for holder in found]
    return seen[0] if len(seen) == 1 and seen[0] != os.getpid() else None


def _watch(device: Device, pid: int, who: str) -> None:
    try:
        pidfd = os.pidfd_open(pid)  # needs no privilege
    except OSError as error:
        raise from_oserror(
            error,
            device=device.locator,
            doing=f"pidfd_open of {who}",
            hint="the VM has ended, or its process is in another pid namespace than this one",
            kind=DeviceGone,
        ) from error
    device.lifeline = VmProcess(pid=pid, who=who, pidfd=pidfd, locator=device.locator)
    device.after_release(partial(os.close, pidfd))


def receive_device(locator: str, root: HostRoot) -> Device:
    """Open ``unix:PATH``: connect, and take the one descriptor that the launcher sends (SCM_RIGHTS).

    Its message is a JSON object, ``{}`` or with "device", "vm" and "pid", of at most 4096 bytes; a stream or a
    sequenced-packet socket.

    Raises:
        LocatorError: there is no path.
        DeviceGone, NotPermitted: nobody listens there, or we may not connect.
        TimedOut: nothing was sent in 5 s.
        MdevDisplayError: no descriptor came with it, more than one, or words that make no sense.
        NotADisplay, DriverError: the descriptor is not a VFIO device that answers.
    """
    path = locator.partition(":")[2]
    if not path:
        raise LocatorError("the path of the socket is missing", device=locator, hint="write unix:/run/vm.sock")
    with _connected(path, locator) as connection:
        fds, data = _receive(connection, locator)
    try:
        words = _words(data, locator)
        if len(fds) != 1:
            raise MdevDisplayError(
                f"the launcher sent {len(fds) or 'no'} descriptors, not one",
                device=locator,
                hint="send one device a connection: socket.send_fds(connection, [b'{}'], [fd])",
                cause="bad-hand-over",
            )
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return borrow_descriptor(fds[0], locator, words, root)


def _connected(path: str, locator: str) -> socket.socket:
    failure: OSError | None = None
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        connection = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            failure = error
            if error.errno == errno.EPROTOTYPE:  # the listener has the other kind
                continue
            break
        return connection
    hint = "is the launcher there, and may you write to its socket?"
    if failure is not None and failure.errno is None and not isinstance(failure, TimeoutError):
        raise LocatorError(f"not the path of a socket: {failure}", device=locator, hint="it has at most 107 bytes")
    if failure is None or isinstance(failure, TimeoutError) or failure.errno is None:
        raise TimedOut(
            f"connecting to {path!r} took more than {_PATIENCE:g} s",
            device=locator,
            hint=hint,
        )
    raise from_oserror(
        failure,
        device=locator,
        doing=f"connecting to {path!r}",
        hint=hint,
        kind=DeviceGone if isinstance(failure, ConnectionRefusedError) else None,
        cause=None if isinstance(failure, PermissionError) else "bad-hand-over",
    ) from failure


def _receive(connection: socket.socket, locator: str) -> tuple[list[int], bytes]:
    """Return the descriptors, close-on-exec, and the words beside them."""
    fds: array.array[int] = array.array("i")
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * fds.itemsize)
    try:
        data, ancillary, flags, _ = connection.recvmsg(_MOST_WORDS + 1, room, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        hint = "the launcher must send it as soon as somebody connects"
        raise TimedOut(f"no descriptor came within {_PATIENCE:g} s", device=locator, hint=hint) from error
    except OSError as error:
        raise from_oserror(error, device=locator, doing="receiving a descriptor") from error
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    received = list(fds)
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(data) > _MOST_WORDS:
        for fd in received:
            os.close(fd)
        raise MdevDisplayError(
            "the launcher sent more than one message can have",
            device=locator,
            hint=f"one descriptor and at most {_MOST_WORDS} bytes of JSON",
            cause="bad-hand-over",
        )
    if not data and not received:
        raise MdevDisplayError(
            "the launcher closed the connection and sent nothing",
            device=locator,
            hint="look into the launcher's own messages",
            cause="bad-hand-over",
        )
    return received, data


def _words(data: bytes, locator: str) -> Words:
    try:
        words: Any = json.loads(data.strip(b"\0 \n") or b"{}")
        if not isinstance(words, dict):
            raise TypeError("not an object")
        device, vm, pid = words.get("device", ""), words.get("vm", ""), words.get("pid")
        if not isinstance(device, str) or (device and not (UUID.fullmatch(device) or PCI_ADDRESS.fullmatch(device))):
            raise ValueError('"device" is no UUID and no PCI address')
        if not isinstance(vm, str):
            raise TypeError('"vm" is not a text')
        if pid is not None and (isinstance(pid, bool) or not isinstance(pid, int) or not 0 < pid < 1 << 31):
            raise ValueError('"pid" is not the number of a process')
    except (ValueError, TypeError, RecursionError) as error:
        raise MdevDisplayError(
            f"the launcher's words make no sense: {error}",
            device=locator,
            hint='send {} or {"device": UUID, "vm": NAME, "pid": NUMBER}',
            cause="bad-hand-over",
        ) from error
    return Words(device=device.lower(), vm=vm, pid=pid)
