"""What libvirt calls the VMs that run: its run-time state, which root may read.

libvirt writes one file a running domain, /run/libvirt/qemu/NAME.xml, and writes it anew with every change of state:
``<domstatus state='running' reason='booted' pid='4242'>`` around the live ``<domain>`` with its name, UUID and title;
in OpenStack Nova puts the name that people know into the metadata.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

import attrs

from mdevdisplay.host.root import HostRoot

__all__ = ["Domain", "read_domains"]

_MOST_BYTES = 4 << 20
_MOST_FILES = 4096
_LONGEST_TEXT = 4096
_LONGEST_WORD = 64
_NOVA = "http://openstack.org/xmlns/libvirt/nova/"
_NAMESPACE_END = "}"


@attrs.frozen(kw_only=True)
class Domain:
    """A running domain.

    Attributes:
        pid: its VMM's process.
        name: libvirt's name of it; in OpenStack ``instance-0000001a``.
        uuid: its UUID in lower case.
        others: what else people call it: its title, and the name in OpenStack.
        state: libvirt's word for its state (virDomainState in src/conf/domain_conf.c): ``running``, ``paused``,
            ``pmsuspended``, ``crashed``, ``shutdown``, ...; "" where the file has none.
        reason: libvirt's word for why: ``booted``, ``user``, ``ioerror``, ...; or "".
    """

    pid: int
    name: str = ""
    uuid: str = ""
    others: tuple[str, ...] = ()
    state: str = ""
    reason: str = ""


def read_domains(root: HostRoot, pids: Collection[int]) -> dict[int, Domain]:
    """Return the running domains of some processes; a file that cannot be read, or makes no sense, is left out."""
    wanted = frozenset(pids)
    found: dict[int, Domain] = {}
    if wanted:
        for path in _files(root.run / "libvirt/qemu"):
            domain = _read(path, wanted)
            if domain is not None:
                found[domain.pid] = domain
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.xml"))[:_MOST_FILES]
    except OSError:
        return []


def _read(path: Path, wanted: frozenset[int]) -> Domain | None:
    reader = _Reader(wanted)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name must not hold us up
    except OSError:
        return None
    try:
        for chunk in _chunks(fd):
            reader.feed(chunk)
    except _Enough:
        return reader.domain()
    except (OSError, expat.ExpatError, ValueError, LookupError):
        return None
    finally:
        os.close(fd)
    return None  # it ended before its domain did: libvirt is about to write it


def _chunks(fd: int) -> Iterator[bytes]:
    left = _MOST_BYTES
    while left > 0 and (chunk := os.read(fd, min(left, 1 << 14))):
        yield chunk
        left -= len(chunk)


class _Enough(Exception):
    """All was read that is of interest."""


class _Unwanted(ValueError):
    """It is another process's, or nothing that libvirt writes."""


class _Reader:
    """Picks the few fields of interest out of a file, without building a tree.

    A document type is refused, and with it every entity but XML's own five, so nothing grows and nothing is fetched.
    """

    def __init__(self, wanted: frozenset[int]) -> None:
        self._wanted = wanted
        self._path: list[str] = []
        self._texts: dict[tuple[str, ...], str] = {}
        self._pid = 0
        self._state = self._reason = ""
        parser = expat.ParserCreate(namespace_separator=_NAMESPACE_END)
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._parser = parser

    def feed(self, chunk: bytes) -> None:
        self._parser.Parse(chunk, False)

    def domain(self) -> Domain | None:
        name, title = self._of("name"), self._of("title")
        nova = next((text for path, text in self._texts.items() if len(path) == 5), "")
        others = dict.fromkeys(text for text in (title, nova.strip()) if text and text != name)
        return Domain(
            pid=self._pid,
            name=name,
            uuid=self._of("uuid").lower(),
            others=tuple(others),
            state=self._state,
            reason=self._reason,
        )

    def _of(self, field: str) -> str:
        return self._texts.get(("domstatus", "domain", field), "").strip()

    def _refuse(self, *_: Any) -> None:
        raise _Unwanted

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        if len(self._path) == 1:
            pid = attributes.get("pid", "") if tag == "domstatus" else ""
            self._pid = int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 12 else 0
            if not self._pid or self._pid not in self._wanted:
                raise _Unwanted
            self._state, self._reason = (attributes.get(word, "")[:_LONGEST_WORD] for word in ("state", "reason"))
        elif self._path == ["domstatus", "domain", "devices"]:  # the long part; libvirt writes the names before it
            raise _Enough

    def _end(self, _: str) -> None:
        if self._path == ["domstatus", "domain"]:
            raise _Enough
        self._path.pop()

    def _text(self, text: str) -> None:
        path = tuple(self._path)
        if path[:2] == ("domstatus", "domain") and _of_interest(path[2:]):
            self._texts[path] = (self._texts.get(path, "") + text)[:_LONGEST_TEXT]


def _of_interest(path: tuple[str, ...]) -> bool:
    """Return whether a field of the domain is one to keep."""
    if len(path) == 1:
        return path[0] in ("name", "uuid", "title")
    return len(path) == 3 and path[0] == "metadata" and _is_nova(path[1], "instance") and _is_nova(path[2], "name")


def _is_nova(tag: str, name: str) -> bool:
    namespace, _, local = tag.rpartition(_NAMESPACE_END)
    return local == name and namespace.startswith(_NOVA)
