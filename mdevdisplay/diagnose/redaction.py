"""Takes names out of text: what tells whose machine this is becomes vm-1, uuid-1, host, user-1 and so on.

Equal names become equal words, so that a report without names can still be followed. A name counts where it stands as
a word of its own: no letter or digit beside it. Names that also are ordinary text, such as ``a``, ``vm``, ``100`` or
``---``, count only where they can be nothing but a name: in quotes, after ``vm:``, in a command for libvirt or Proxmox.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

import attrs

from mdevdisplay.host.devices import PCI_ADDRESS, UUID

__all__ = ["Redactor", "blank_edid", "is_plain_name"]

_LEAST = 3
_CUT = "…"
_CUTS = (15, 20)
"""Where the kernel cuts a process's name (TASK_COMM_LEN) and libvirt that of a VM (virDomainDefGetShortName)."""

_BEFORE, _AFTER = r"(?<![^\W_])", r"(?![^\W_])"
_UUID = re.compile(
    rf"{_BEFORE}([0-9a-f]{{8}}([-_]?)[0-9a-f]{{4}}\2[0-9a-f]{{4}}\2[0-9a-f]{{4}}\2[0-9a-f]{{12}}){_AFTER}",
    re.IGNORECASE,
)
_MAC = re.compile(rf"{_BEFORE}([0-9a-f]{{2}}([:-])(?:[0-9a-f]{{2}}\2){{4}}[0-9a-f]{{2}})(?![^\W_]|:)", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?!\w|\.[0-9])")
_IPV6 = re.compile(
    r"(?<![\w:])([0-9a-f:]{0,40}:[0-9a-f:]{0,40}[0-9a-f:](?:\.[0-9]{1,3}){0,3}(?:%\w{1,16})?)(?!\w)", re.IGNORECASE
)
_HOME = re.compile(r"(?<!\w)/home/([^/\s'\":,;()\[\]<>]+)")
_PATH = re.compile(r"(?<![\w.])/(?:home/[^/\s]+|root|srv|mnt|media|opt|data|tmp|var/tmp)/([^\s'\":,;()\[\]<>…]+)")
"""Where people choose the names of files themselves."""
_SERIAL = re.compile(r"\bserial(?:[ _-]?(?:number|no))?[ \t]*[:=][ \t]*(\w[\w.-]*)", re.IGNORECASE)


def is_plain_name(name: str) -> bool:
    """Whether a name is taken for one wherever it is a word: at least 3 characters, and not just digits or marks."""
    return len(name) >= _LEAST and not name.isdecimal() and any(char.isalnum() for char in name)


@attrs.frozen
class _Secret:
    """What is looked for, and what stands in its place; no ``spelling`` where upper and lower case are one."""

    pattern: re.Pattern[str]
    placeholder: str
    spelling: str = ""
    plain: bool = True


@attrs.frozen(order=True)
class _Span:
    start: int
    end: int
    placeholder: str = attrs.field(order=False)


class Redactor:
    """Replaces the names that it was told of, and what looks like a UUID, a network's address or a file of people's."""

    def __init__(self, *, active: bool = True) -> None:
        """Make one; one that is not ``active`` returns every text as it is."""
        self._active = active
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._secrets: dict[str, list[_Secret]] = {}

    def hide(self, kind: str, *names: str) -> None:
        """Replace names of one and the same thing, from now on.

        Args:
            kind: the beginning of the placeholder: ``vm``, ``device``, ``host``, ``user``. A UUID is always ``uuid``.
            names: what it is called; "" is none.
        """
        if not self._active:
            return
        own = [
            name for name in dict.fromkeys(names) if name and not _UUID.fullmatch(name) and name not in self._secrets
        ]
        if not own:
            return
        known = (self._placeholders.get((kind, name)) for name in names)
        placeholder = next((found for found in known if found), "") or self._new(kind)
        for name in own:
            self._placeholders[kind, name] = placeholder
            self._secrets[name] = [_secret(spelling, placeholder, kind) for spelling in _spellings(name)]

    def hide_all(self, names: Iterable[str]) -> None:
        """Replace names of VMs and devices of which no more is known than the names."""
        for name in names:
            self.hide("device" if PCI_ADDRESS.fullmatch(name) else "vm", name)

    def redact(self, text: str, *, addresses: bool = True) -> str:
        """Return a text without names. ``addresses``: whether 1.2.3.4 is one, and no version."""
        if not self._active or not text:
            return text
        spans = sorted([*self._named(text), *self._looking_so(text, addresses=addresses)])
        parts: list[str] = []
        end = 0
        for start, stop, placeholder in _merged(spans):
            parts += (text[end:start], placeholder)
            end = stop
        return "".join([*parts, text[end:]])

    def redact_all(self, value: Any, *, addresses: bool = True) -> Any:
        """Return a value of JSON with every text in it redacted; the keys are ours, and stay."""
        if isinstance(value, str):
            return self.redact(value, addresses=addresses)
        if isinstance(value, dict):
            return {key: self.redact_all(member, addresses=addresses) for key, member in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.redact_all(member, addresses=addresses) for member in value]
        return value

    def _new(self, kind: str) -> str:
        while True:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            placeholder = kind if kind == "host" and number == 1 else f"{kind}-{number}"
            if placeholder not in self._secrets:
                return placeholder

    def _named(self, text: str) -> Iterator[_Span]:
        for secrets in self._secrets.values():
            for secret in secrets:
                if secret.spelling and secret.spelling not in text:
                    continue
                for match in secret.pattern.finditer(text):
                    yield _Span(*match.span(1), secret.placeholder)
        if text.endswith(_CUT):
            yield from self._cut_short(text)

    def _cut_short(self, text: str) -> Iterator[_Span]:
        """Yield a name's beginning where a text was cut in the middle of it."""
        end = len(text) - len(_CUT)
        for secret in (secret for secrets in self._secrets.values() for secret in secrets if secret.plain):
            for length in range(min(len(secret.spelling) - 1, end), _LEAST - 1, -1):
                start = end - length
                if text.startswith(secret.spelling[:length], start) and not (start and text[start - 1].isalnum()):
                    yield _Span(start, end, secret.placeholder)
                    break

    def _looking_so(self, text: str, *, addresses: bool) -> Iterator[_Span]:
        for match in _UUID.finditer(text):
            yield self._span(match, "uuid", match[1].lower().replace(match[2] or "-", ""))
        for match in _MAC.finditer(text):
            yield self._span(match, "mac", match[1].lower().replace("-", ":"))
        for match in _HOME.finditer(text):
            yield self._span(match, "user", match[1])
        for match in _PATH.finditer(text):
            yield self._span(match, "path", match[1])
        for match in _SERIAL.finditer(text):
            yield self._span(match, "serial", match[1])
        if not addresses:
            return
        for pattern in (_IPV4, _IPV6):
            for match in pattern.finditer(text):
                address = _address(match[1])
                if address:
                    yield attrs.evolve(self._span(match, "ip", address), end=match.start(1) + len(address))

    def _span(self, match: re.Match[str], kind: str, key: str) -> _Span:
        placeholder = self._placeholders.get((kind, key))
        if placeholder is None:
            placeholder = self._placeholders[kind, key] = self._new(kind)
        return _Span(*match.span(1), placeholder)


def _merged(spans: Iterable[_Span]) -> Iterator[tuple[int, int, str]]:
    """Yield what is replaced from where to where; of names that overlap all goes, and the longest tells the word."""
    current: tuple[int, int, str] | None = None
    longest = 0
    for span in spans:
        length = span.end - span.start
        if current is not None and span.start < current[1]:
            start, end, placeholder = current
            current = (start, max(end, span.end), span.placeholder if length > longest else placeholder)
            longest = max(longest, length)
            continue
        if current is not None:
            yield current
        current, longest = (span.start, span.end, span.placeholder), length
    if current is not None:
        yield current


def _address(text: str) -> str:
    """Return the part of a text that is a host's address, or "" for none: this host's own ones tell nothing."""
    for candidate in (text, text.rstrip(":"), text.rstrip(":") + "::"):
        try:
            address = ip_address(candidate)
        except ValueError:
            continue
        if not text.startswith(candidate):
            continue
        return "" if address.is_loopback or address.is_unspecified else candidate
    return ""


def _secret(spelling: str, placeholder: str, kind: str) -> _Secret:
    escaped = re.escape(spelling)
    if not is_plain_name(spelling):
        return _Secret(_where_it_is_a_name(escaped), placeholder, spelling, plain=False)
    before = _BEFORE if spelling[0].isalnum() else ""
    after = _AFTER if spelling[-1].isalnum() else ""
    if kind == "host":  # host names have no case: RFC 4343
        return _Secret(re.compile(f"{before}({escaped}){after}", re.IGNORECASE), placeholder)
    return _Secret(re.compile(f"{before}({escaped}){after}"), placeholder, spelling)


def _where_it_is_a_name(escaped: str) -> re.Pattern[str]:
    before = (
        r"\A",
        r"""(?:(?<=')|(?<="))""",
        r"(?<!\w)vm:",
        r"(?<!\w)virsh [a-z-]+ ",
        r"(?<!\w)qm [a-z]+ ",
        r"(?<!\w)domain-[0-9]+-",
    )
    after = (r"\Z", r"""(?=['"])""", *[r"(?![^\W_])"] * 4)
    # one group for all: a match of any tells its place by it
    places = "|".join(f"(?:{first}(?={escaped}{last}))" for first, last in zip(before, after, strict=True))
    return re.compile(f"(?:{places})({escaped})")


def _spellings(name: str) -> list[str]:
    """Return a name in every way in which a message may have it."""
    forms = [
        name,
        repr(name)[1:-1],
        json.dumps(name)[1:-1],
        json.dumps(name, ensure_ascii=False)[1:-1],
        shlex.quote(name)[1:-1] if shlex.quote(name) != name else name,
        name.encode("unicode_escape", "surrogatepass").decode("ascii"),
        name.encode("utf-8", "replace").decode("utf-8"),
        name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _is_a_files(name) else name,
    ]
    if PCI_ADDRESS.fullmatch(name) or UUID.fullmatch(name):
        forms.append(re.sub(r"\W", "_", name))  # libvirt's names of devices
    forms += [name[:length] for length in _CUTS if len(name) > length]
    return [form for form in dict.fromkeys(forms) if form]


def _is_a_files(name: str) -> bool:
    """Whether the text can be what `os.fsdecode` made: no half characters but those of bytes."""
    return not any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in name)


# --- EDID ---

_BLOCK = 128
_SIGNATURE = bytes.fromhex("00ffffffffffff00")
_DESCRIPTORS = range(54, 126, 18)
_SAYS_WHOSE = (0xFF, 0xFE, 0xFC)
"""Display descriptors with the serial number, any text, and the product's name: VESA E-EDID A.2, 3.10.3."""
_CTA = 0x02
_NO_TEXT = b"\n" + b" " * 12


def blank_edid(blob: bytes) -> bytes:
    """Return an EDID without its serial number, texts and names; "" for what is none.

    Block sums stay right where they were. Extensions that are not CTA-861's (DisplayID has serial numbers too) are
    zeroed but for their tag.
    """
    if not blob.startswith(_SIGNATURE) or len(blob) < _BLOCK:
        return b""
    blocks = [bytearray(blob[start : start + _BLOCK]) for start in range(0, len(blob) - len(blob) % _BLOCK, _BLOCK)]
    return b"".join(bytes(_blank(block, first=not place)) for place, block in enumerate(blocks))


def _blank(block: bytearray, *, first: bool) -> bytearray:
    before = sum(block) % 256
    if first:
        block[12:16] = bytes(4)  # ID serial number
        places = list(_DESCRIPTORS)
    elif block[0] == _CTA:
        begin = block[2]  # 18 bytes each from there on; 0 for none
        places = list(range(begin, _BLOCK - 18, 18)) if begin >= 4 else []
    else:
        block[1:127] = bytes(126)
        places = []
    for place in places:
        if not any(block[place : place + 3]) and block[place + 3] in _SAYS_WHOSE:
            block[place + 5 : place + 18] = _NO_TEXT
    block[127] = (block[127] + before - sum(block)) % 256
    return block
