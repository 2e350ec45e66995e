"""Which names may turn up in a bundle: of VMs, devices, machines and people."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mdevdisplay.connecting import backends
from mdevdisplay.diagnose.deadline import in_time
from mdevdisplay.diagnose.redaction import Redactor
from mdevdisplay.diagnose.report import Report
from mdevdisplay.host.devices import PCI_ADDRESS, UUID
from mdevdisplay.host.holders import Holder, scan
from mdevdisplay.host.locate import is_host_locator
from mdevdisplay.host.root import HostRoot, read_attribute

__all__ = ["learn_names"]

T = TypeVar("T")
_FIRST_PERSON = 1000
"""The first user id of people; those below are the system's own: Debian's adduser.conf, shadow's login.defs."""
_NOBODY = 65534


def learn_names(redactor: Redactor, reports: Iterable[Report], root: HostRoot) -> None:
    """Tell of every name that may turn up: those of all VMs too, as an error's hint may list them."""
    known = _in_time(lambda: scan(root).holders)
    for holder in known:
        redactor.hide("vm", holder.vm.name, *holder.vm.aliases)
    public = {plugin.name for plugin in backends().plugins}
    for report in reports:
        own = not _is_scheme_of_a_backend(report.locator)
        redactor.hide_all(name for name in report.names if own or name not in public)
        redactor.hide_all(_names_in(report.locator))
    redactor.hide("host", *_host_names(root))
    for names in _in_time(lambda: tuple(_people(known))):
        redactor.hide("user", *names)


def _in_time(probe: Callable[[], tuple[T, ...]]) -> tuple[T, ...]:
    """Return what a probe of the host finds; nothing where it fails, or hangs as a directory of users may."""
    try:
        return in_time("bundle", probe)
    except Exception:  # noqa: BLE001 - /proc may say anything
        return ()


def _is_scheme_of_a_backend(locator: str) -> bool:
    return ":" in locator and not is_host_locator(locator)


def _names_in(locator: str) -> Iterator[str]:
    """Yield what a locator names, whether or not that exists; of a backend's own scheme nothing is known."""
    scheme, colon, rest = locator.partition(":")
    if UUID.fullmatch(locator) or PCI_ADDRESS.fullmatch(locator):
        yield locator
    elif scheme == "unix" and colon:
        yield from (rest, Path(rest).stem)
    elif not colon or scheme == "vm":
        name = rest if colon else locator
        yield name
        base, slash, number = name.rpartition("/")
        if slash and number.isdecimal():
            yield base


def _host_names(root: HostRoot) -> list[str]:
    names = [
        socket.gethostname(),
        read_attribute(root.proc / "sys/kernel/hostname"),
        read_attribute(root.path / "etc/hostname"),
    ]
    names += [name.partition(".")[0] for name in names]
    return [name for name in dict.fromkeys(names) if name not in ("", "localhost", "(none)")]


def _people(holders: Iterable[Holder]) -> Iterator[list[str]]:
    """Yield the names of each user who may turn up: who runs this, and who runs a VM; not the system's own."""
    users: dict[str, pwd.struct_passwd | None] = {}
    for number in {os.getuid(), os.geteuid(), *(holder.uid for holder in holders if holder.uid >= 0)}:
        with suppress(KeyError):
            found = pwd.getpwuid(number)
            users[found.pw_name] = found
    for variable in ("SUDO_USER", "DOAS_USER", "LOGNAME", "USER"):
        name = os.environ.get(variable, "")
        if name and name not in users:
            users[name] = _user(name)
    for name, entry in users.items():
        if entry is None:
            yield [name]
        elif _FIRST_PERSON <= entry.pw_uid != _NOBODY:
            yield [name for name in (entry.pw_name, entry.pw_gecos.partition(",")[0]) if name]


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
