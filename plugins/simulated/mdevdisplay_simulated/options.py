"""What may follow ``sim:`` in a locator: parsing, checking and writing it back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from mdevdisplay.errors import LocatorError
from mdevdisplay.formats import FORMATS, LINEAR, X_TILED, Y_TILED, YF_TILED, fourcc, fourcc_name
from mdevdisplay_simulated.faults import FAULTS
from mdevdisplay_simulated.layout import Layout

__all__ = ["OPTIONS", "SCHEME", "Blank", "Options", "Size", "parse"]

SCHEME = "sim:"
Size = tuple[int, int]

_MOST_PIXELS = 16384
_MOST_MODES = 64
_MOST_BUFFERS = 16
_MOST_BYTES = 1 << 31
_U32 = 0xFFFFFFFF
_MODIFIERS = {"LINEAR": LINEAR, "X_TILED": X_TILED, "Y_TILED": Y_TILED, "Yf_TILED": YF_TILED}
_MODIFIER_NAMES = {value: name for name, value in _MODIFIERS.items()}
_DEFAULT_SIZE = (1920, 1080)
_DEFAULT_MODE_EVERY = 50


@attrs.frozen
class Blank:
    """Frames that show nothing: ``first`` to ``last``, in every ``cycle`` frames, or once where cycle is 0."""

    first: int = 0
    last: int = 0
    cycle: int = 1

    def __contains__(self, frame: int) -> bool:
        return self.first <= (frame % self.cycle if self.cycle else frame) <= self.last

    def __str__(self) -> str:
        if self == Blank():
            return "on"
        return f"{self.first}-{self.last}/{self.cycle}" if self.cycle else f"{self.first}-{self.last}"


@attrs.frozen(kw_only=True)
class Options:
    """A simulated display as its locator describes it; README.md has one line on each option.

    Attributes:
        modes: (width, height) of every mode in turn; one, or none where a clip gives the size.
        mode_every: frames until the next mode.
        fourcc: the primary plane's format.
        stride: bytes per row, or 0 for the least.
        modifier: the primary plane's layout.
        via: ``both``, ``dmabuf`` or ``region``.
        udmabuf: ``auto``, ``on`` or ``off``.
        cursor: whether there is a cursor plane.
        fps: frames a second; 0 holds the picture still.
        step: queries a frame where the picture follows the queries instead of the clock, else 0.
        frame: the number of the first frame.
        seed: what else the picture depends on.
        buffers: how many buffers the guest flips through.
        blank: the frames without a picture, or None.
        clip: the directory of a clip, or "".
        faults: (name, argument) of every fault, in the order given.
    """

    modes: tuple[Size, ...] = (_DEFAULT_SIZE,)
    mode_every: int = _DEFAULT_MODE_EVERY
    fourcc: int = fourcc("XR24")
    stride: int = 0
    modifier: int = LINEAR
    via: str = "both"
    udmabuf: str = "auto"
    cursor: bool = False
    fps: float = 30
    step: int = 0
    frame: int = 0
    seed: int = 0
    buffers: int = 1
    blank: Blank | None = None
    clip: str = ""
    faults: tuple[tuple[str, float], ...] = ()

    @property
    def locator(self) -> str:
        """The shortest locator that means the same."""
        default = Options()
        parts: list[str] = []
        if self.clip:
            parts.append("clip=" + self.clip.replace(",", ",,"))
        elif len(self.modes) == 1 and self.mode_every == default.mode_every:
            parts += ["{}x{}".format(*self.modes[0])] if self.modes != default.modes else []
        else:
            parts += ["modes=" + "/".join(f"{width}x{height}" for width, height in self.modes)]
            parts += [f"mode_every={self.mode_every}"]
        if self.fourcc != default.fourcc:
            parts.append(f"format={fourcc_name(self.fourcc)}")
        if self.modifier != default.modifier:
            parts.append(f"modifier={_MODIFIER_NAMES.get(self.modifier, hex(self.modifier))}")
        if self.cursor:
            parts.append("cursor=on")
        if self.fps != default.fps:
            parts.append(f"fps={_plain(self.fps)}")
        parts += [
            f"{name}={getattr(self, name)}"
            for name in ("stride", "via", "udmabuf", "step", "frame", "seed", "buffers", "blank")
            if getattr(self, name) != getattr(default, name)
        ]
        if self.faults:
            parts.append("fault=" + "+".join(_fault_text(name, value) for name, value in self.faults))
        return SCHEME + ",".join(parts)


def _plain(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".")


def _fault_text(name: str, value: float) -> str:
    fault = FAULTS[name]
    return f"{name}:{_plain(value)}" if fault.argument and value != fault.default else name


class _Wrong(Exception):
    """A value that an option does not take."""


def _number(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise _Wrong
        return int(text)

    return convert


def _one_of(*choices: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in choices:
            raise _Wrong
        return text

    return convert


def _size(text: str) -> Size:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if not found:
        raise _Wrong
    width, height = int(found[1]), int(found[2])
    if not (1 <= width <= _MOST_PIXELS and 1 <= height <= _MOST_PIXELS):
        raise _Wrong
    return width, height


def _sizes(text: str) -> tuple[Size, ...]:
    sizes = tuple(_size(part) for part in text.split("/"))
    if len(sizes) > _MOST_MODES:
        raise _Wrong
    return sizes


def _format(text: str) -> int:
    for value in FORMATS:
        if fourcc_name(value) == text.upper():
            return value
    raise _Wrong


def _modifier(text: str) -> int:
    for name, value in _MODIFIERS.items():
        if text.lower() == name.lower():
            return value
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", text):
        raise _Wrong
    return int(text, 16)


def _switch(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


def _decimal(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text) or not low <= float(text) <= high:
            raise _Wrong
        return float(text)

    return convert


def _blank(text: str) -> Blank | None:
    if text in ("on", "off"):
        return Blank() if text == "on" else None
    found = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})(?:/([0-9]{1,9}))?", text)
    if not found:
        raise _Wrong
    first, last, cycle = int(found[1]), int(found[2]), int(found[3] or 0)
    if first > last or (found[3] and cycle <= last):
        raise _Wrong
    return Blank(first, last, cycle)


def _path(text: str) -> str:
    if not text:
        raise _Wrong
    return text


def _faults(text: str) -> tuple[tuple[str, float], ...]:
    chosen: dict[str, float] = {}
    for part in text.split("+"):
        name, colon, value = part.partition(":")
        fault = FAULTS.get(name)
        if fault is None or name in chosen or (colon and not fault.argument):
            raise _Wrong
        read = _decimal if fault.fractions else _number
        chosen[name] = read(fault.least, fault.most)(value) if colon else fault.default
    return tuple(chosen.items())


@attrs.frozen(eq=False)
class _Option:
    """One option: the field it fills, how its text is read, and what is right."""

    field: str
    read: Callable[[str], Any]
    right: str


_SIZES = f"width and height from 1 to {_MOST_PIXELS}"
_FAULT_NAMES = ", ".join(f"{each.name}:{each.argument}" if each.argument else each.name for each in FAULTS.values())
OPTIONS = {
    "size": _Option("modes", lambda text: (_size(text),), f"WIDTHxHEIGHT, {_SIZES}, as in 1920x1080"),
    "modes": _Option("modes", _sizes, f"up to {_MOST_MODES} sizes as in 1920x1080/800x600, {_SIZES}"),
    "mode_every": _Option("mode_every", _number(1, _U32), "frames until the next of modes=, from 1"),
    "format": _Option("fourcc", _format, "one of " + ", ".join(fourcc_name(value) for value in FORMATS)),
    "stride": _Option("stride", _number(1, _MOST_BYTES), "bytes from row to row"),
    "modifier": _Option("modifier", _modifier, "one of " + ", ".join(_MODIFIERS) + ", or a 64-bit number as in 0x9"),
    "via": _Option("via", _one_of("both", "dmabuf", "region"), "both, dmabuf or region"),
    "udmabuf": _Option("udmabuf", _one_of("auto", "on", "off"), "auto, on or off"),
    "cursor": _Option("cursor", _switch, "on or off"),
    "fps": _Option("fps", _decimal(0, 1000), "frames a second from 0 to 1000, 0 for a still picture"),
    "step": _Option("step", _number(1, _U32), "queries of the primary plane a frame, from 1"),
    "frame": _Option("frame", _number(0, _U32), f"the number of the first frame, 0 to {_U32}"),
    "seed": _Option("seed", _number(0, _U32), f"a number from 0 to {_U32}"),
    "buffers": _Option("buffers", _number(1, _MOST_BUFFERS), f"from 1 to {_MOST_BUFFERS}"),
    "blank": _Option("blank", _blank, "on, off, FIRST-LAST frames, or FIRST-LAST/CYCLE with a cycle above LAST"),
    "clip": _Option("clip", _path, "a directory made by mmap_ninja.numpy.from_ndarray"),
    "fault": _Option("faults", _faults, f"each once, joined by +: {_FAULT_NAMES}"),
}


def parse(locator: str) -> Options:
    """Read a ``sim:`` locator.

    Raises:
        LocatorError: an option is unknown, twice there, or its value is wrong; it says what is right.
    """
    chosen: dict[str, str] = {}
    rest = locator.removeprefix(SCHEME)
    if "\0" in rest:
        raise LocatorError("a locator has no NUL in it", device=locator, hint="leave it out")
    for number, part in enumerate(_split(rest) if rest else []):
        name, equals, value = part.partition("=")
        if not equals and number == 0:
            name, value = "size", part
        elif not equals or name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise LocatorError(
                f"{part!r} is not NAME=VALUE" if not equals else f"there is no option {name!r}",
                device=locator,
                hint=f"the size comes first, then any of: {known}",
            )
        if name in chosen:
            raise LocatorError(f"option {name} is there twice", device=locator, hint="give it once")
        chosen[name] = value
    _refuse_together(chosen, locator)
    fields: dict[str, Any] = {}
    for name, value in chosen.items():
        option = OPTIONS[name]
        try:
            fields[option.field] = option.read(value)
        except _Wrong:
            raise LocatorError(
                f"option {name}: {value!r} is wrong", device=locator, hint=f"{name} is {option.right}"
            ) from None
    if "clip" in chosen:
        fields["modes"] = ()
    options = Options(**fields)
    for width, height in options.modes:
        check_layout(options, width, height, locator)
    return options


def _split(text: str) -> list[str]:
    """Split at commas; two of them are one inside a value, as QEMU has it."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


_EXCLUSIVE = (
    ("size", "modes", "give one size, or several with modes="),
    ("size", "clip", "a clip has a size of its own"),
    ("modes", "clip", "a clip has a size of its own"),
    ("fps", "step", "the picture follows the clock or the queries"),
)


def _refuse_together(chosen: dict[str, str], locator: str) -> None:
    for one, other, why in _EXCLUSIVE:
        if one in chosen and other in chosen:
            raise LocatorError(f"options {one} and {other} exclude each other", device=locator, hint=why)
    if "mode_every" in chosen and "modes" not in chosen:
        hint = "give the sizes too, as in modes=1920x1080/800x600,mode_every=50"
        raise LocatorError("option mode_every needs option modes", device=locator, hint=hint)


def check_layout(options: Options, width: int, height: int, locator: str) -> None:
    """Refuse a stride that does not suit a size, and buffers that nobody could map.

    Raises:
        LocatorError: it names the option and the least that is right.
    """
    least = Layout.of(options.fourcc, width, height, modifier=options.modifier)
    multiple = least.stride_multiple
    if options.stride and (options.stride < least.stride or options.stride % multiple):
        raise LocatorError(
            f"option stride: {options.stride} does not suit {width} pixels a row of {fourcc_name(options.fourcc)}",
            device=locator,
            hint=f"stride is at least {least.stride} and a multiple of {multiple}",
        )
    layout = Layout.of(options.fourcc, width, height, modifier=options.modifier, stride=options.stride)
    if layout.size > _MOST_BYTES:
        raise LocatorError(
            f"option stride: {options.stride} makes a buffer of {layout.size} bytes",
            device=locator,
            hint=f"a buffer may have {_MOST_BYTES} bytes; take a smaller stride",
        )
