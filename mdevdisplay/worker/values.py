"""Values as JSON and back. What comes back is checked, since a worker that reads a hostile guest may be its puppet."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from mdevdisplay import errors
from mdevdisplay.backend_info import BackendInfo
from mdevdisplay.errors import Closed, MdevDisplayError, WorkerDied
from mdevdisplay.pixels.damage import Mask
from mdevdisplay.reader import Readability
from mdevdisplay.source import Finding, Identity
from mdevdisplay.surface import Match, PlaneType, SurfaceInfo
from mdevdisplay.vfio.edid import MAX_EDID, Edid
from mdevdisplay.worker.wire import BadMessage

__all__ = [
    "backend_from",
    "backend_to",
    "boolean",
    "edid_from",
    "edid_to",
    "error_from",
    "error_to",
    "findings_from",
    "findings_to",
    "identity_from",
    "identity_to",
    "number",
    "readability_from",
    "readability_to",
    "surface_from",
    "surface_to",
    "text",
    "tiles_from",
    "tiles_to",
]

_MOST_TEXT = 2000
"""The most characters of any text."""
_MOST_ENTRIES = 16
"""The most findings, and the most refusals."""
_MOST_IN_LIST = 300
"""The most characters of a text among many that are sent; together they have to fit into one message."""
_MOST_TILES = 1 << 17
"""The most tiles of a picture that are told apart: 16384 by 32768 pixels."""
_U64 = (1 << 64) - 1

_SURFACE = ("fourcc", "modifier", "width", "height", "stride", "size", "offset", "x", "y", "output")
_SURFACE_MAYBE = ("x_hot", "y_hot", "dmabuf_id", "region_index")
_IDENTITY = ("name", "driver", "vendor", "mdev_type", "parent")
_CLASSES: dict[str, type[MdevDisplayError]] = {
    name: kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type) and issubclass(kind, MdevDisplayError)
}

Body = dict[str, Any]


def number(body: Body, name: str, most: int = _U64, least: int = 0) -> int:
    """Return a whole number between two bounds; raises `BadMessage` for anything else."""
    value = body.get(name)
    if type(value) is not int or not least <= value <= most:
        raise BadMessage(f"{name} is {_short(value)}, not a number from {least} to {most}")
    return value


def boolean(body: Body, name: str) -> bool:
    """Return true or false; raises `BadMessage` for anything else."""
    value = body.get(name)
    if not isinstance(value, bool):
        raise BadMessage(f"{name} is {_short(value)}, neither true nor false")
    return value


def text(body: Body, name: str) -> str:
    """Return a text of bounded length without lone surrogates; raises `BadMessage` for anything else."""
    value = body.get(name)
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise BadMessage(f"{name} is {_short(value)}, not a text of at most {_MOST_TEXT} characters")
    return value.encode("utf-8", "replace").decode()


def _object(body: Body, name: str) -> Body:
    value = body.get(name)
    if not isinstance(value, dict):
        raise BadMessage(f"{name} is {_short(value)}, not an object")
    return value


def _short(value: object) -> str:
    shown = f"{value:#x}" if type(value) is int else repr(value)  # a decimal may be too long for Python to make
    return shown if len(shown) <= 80 else f"{shown[:80]}…"


def _cut(value: object, most: int = _MOST_TEXT) -> str:
    shown = str(value)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _brief(value: object) -> str:
    return _cut(value, _MOST_IN_LIST)


def surface_to(surface: SurfaceInfo | None) -> Body | None:
    """Return a surface as an object."""
    if surface is None:
        return None
    return {"plane": int(surface.plane), **{name: getattr(surface, name) for name in (*_SURFACE, *_SURFACE_MAYBE)}}


def surface_from(body: Body, name: str, device: str) -> SurfaceInfo | None:
    """Return a surface, checked by its own constructor.

    Raises:
        BadMessage: it is none.
        BadSurface: its numbers do not add up.
    """
    if body.get(name) is None:
        return None
    value = _object(body, name)
    plane = number(value, "plane", max(PlaneType))
    fields: dict[str, Any] = {field: number(value, field) for field in _SURFACE}
    for field in _SURFACE_MAYBE:
        fields[field] = None if value.get(field) is None else number(value, field)
    try:
        return SurfaceInfo(plane=PlaneType(plane), **fields)
    except MdevDisplayError as error:
        error.device = device
        raise


def tiles_to(mask: Mask) -> str | None:
    """Return which tiles changed as base64 of their bits; None, for all, where there are too many for a message."""
    if mask.size > _MOST_TILES:
        return None
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def tiles_from(body: Body, name: str, shape: tuple[int, int]) -> Mask | None:
    """Return which tiles changed, None for all."""
    value = body.get(name)
    if value is None:
        return None
    count = shape[0] * shape[1]
    if not isinstance(value, str):
        raise BadMessage(f"{name} is {_short(value)}, not a text")
    try:
        packed = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessage(f"{name} is not base64") from error
    if len(packed) != -(-count // 8):
        raise BadMessage(f"{name} has {len(packed)} bytes for {count} tiles")
    mask: Mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(np.bool_).reshape(shape)
    return mask


def error_to(error: BaseException) -> Body:
    """Return an error as an object."""
    if not isinstance(error, MdevDisplayError):
        return {"class": type(error).__name__, "message": _cut(f"{type(error).__name__}: {error}"), "hint": ""}
    kind = next((base.__name__ for base in type(error).__mro__ if _CLASSES.get(base.__name__) is base), "")
    return {
        "class": kind,
        "message": _cut(error.message),
        "hint": _cut(error.hint),
        "cause": _cut(error.cause),
        "errno": error.errno,
    }


def error_from(body: Body, name: str, device: str) -> MdevDisplayError:
    """Return an error of our own classes; one of an unknown class is an `MdevDisplayError`."""
    value = _object(body, name)
    kind = _CLASSES.get(text(value, "class"), MdevDisplayError)
    if kind is Closed:  # it is this side that closes displays
        kind = WorkerDied
    return kind(
        text(value, "message"),
        device=device,
        hint=text(value, "hint"),
        cause=text(value, "cause") if value.get("cause") is not None else None,
        errno=number(value, "errno", 4095) if value.get("errno") is not None else None,
    )


def edid_to(edid: Edid | None) -> Body | None:
    """Return an EDID region as an object."""
    if edid is None:
        return None
    return {
        "blob": base64.b64encode(edid.blob).decode(),
        "max_size": edid.max_size,
        "max_xres": edid.max_xres,
        "max_yres": edid.max_yres,
        "link_up": edid.link_up,
    }


def edid_from(body: Body, name: str) -> Edid | None:
    """Return an EDID region."""
    if body.get(name) is None:
        return None
    value = _object(body, name)
    coded = value.get("blob")
    if not isinstance(coded, str):
        raise BadMessage(f"blob is {_short(coded)}, not a text")
    try:
        blob = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessage("blob is not base64") from error
    if len(blob) > MAX_EDID:
        raise BadMessage(f"blob has {len(blob)} bytes, more than {MAX_EDID}")
    return Edid(
        blob=blob,
        max_size=number(value, "max_size"),
        max_xres=number(value, "max_xres"),
        max_yres=number(value, "max_yres"),
        link_up=None if value.get("link_up") is None else boolean(value, "link_up"),
    )


def readability_to(readability: Readability) -> Body:
    """Return a readability as an object."""
    return {"way": readability.way, "reason": _cut(readability.reason), "cause": _cut(readability.cause)}


def readability_from(body: Body, name: str) -> Readability:
    """Return a readability."""
    value = _object(body, name)
    way = text(value, "way")
    if way not in ("", "region", "dma-buf", "read", "import"):
        raise BadMessage(f"way is {_short(way)}")
    return Readability(way=way, reason=text(value, "reason"), cause=text(value, "cause"))


def findings_to(findings: tuple[Finding, ...]) -> list[Body]:
    """Return findings as objects, as many as travel."""
    return [
        {
            "cause": _brief(entry.cause),
            "evidence": _brief(entry.evidence),
            "remedy": _brief(entry.remedy),
            "explains": _brief(" ".join(entry.explains)),
        }
        for entry in findings[:_MOST_ENTRIES]
    ]


def findings_from(body: Body, name: str) -> tuple[Finding, ...]:
    """Return findings."""
    values = body.get(name)
    if not isinstance(values, list) or len(values) > _MOST_ENTRIES:
        raise BadMessage(f"{name} is {_short(values)}, not a list of at most {_MOST_ENTRIES}")
    entries = [value if isinstance(value, dict) else {} for value in values]
    return tuple(
        Finding(
            cause=text(entry, "cause"),
            evidence=text(entry, "evidence"),
            remedy=text(entry, "remedy"),
            explains=tuple(text(entry, "explains").split()),
        )
        for entry in entries
    )


def identity_to(identity: Identity) -> Body:
    """Return an identity as an object."""
    return {name: _brief(getattr(identity, name)) for name in _IDENTITY}


def identity_from(body: Body, name: str) -> Identity:
    """Return an identity."""
    value = _object(body, name)
    return Identity(**{field: text(value, field) for field in _IDENTITY})


def backend_to(backend: BackendInfo) -> Body:
    """Return what is known of a backend as an object."""
    refusals = list(backend.refusals.items())[:_MOST_ENTRIES]
    return {
        "name": _brief(backend.name),
        "distribution": _brief(backend.distribution),
        "version": _brief(backend.version),
        "score": backend.match.score,
        "reason": _brief(backend.match.reason),
        "refusals": {_brief(name): _brief(reason) for name, reason in refusals},
    }


def backend_from(body: Body, name: str) -> BackendInfo:
    """Return what is known of a backend."""
    value = _object(body, name)
    refusals = _object(value, "refusals")
    if len(refusals) > _MOST_ENTRIES or any(len(key) > _MOST_TEXT for key in refusals):
        raise BadMessage(f"there are {len(refusals)} refusals, more than {_MOST_ENTRIES}, or their names are too long")
    return BackendInfo(
        name=text(value, "name"),
        distribution=text(value, "distribution"),
        version=text(value, "version"),
        match=Match(number(value, "score", 1000, 1), text(value, "reason")),
        refusals={key.encode("utf-8", "replace").decode(): text(refusals, key) for key in refusals},
    )
