"""A clip of one's own instead of the test picture: an array of frames that mmap-ninja keeps in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mdevdisplay.errors import LocatorError
from mdevdisplay_simulated.picture import Area, Words

__all__ = ["Clip", "open_clip"]

_FILES = ("data.ninja", "dtype.ninja", "order.ninja", "shape.ninja", "type.ninja")
_MOST_PIXELS = 16384
_HINT = (
    "make one with mmap_ninja.numpy.from_ndarray(DIRECTORY, frames), frames being (N, height, width, 4) uint8 in the "
    "order B, G, R, A or (N, height, width, 3) uint8 in the order R, G, B"
)


class Clip:
    """Frame N shows the clip's frame N modulo its length."""

    def __init__(self, frames: npt.NDArray[np.uint8]) -> None:
        self._frames = frames
        self.height, self.width = frames.shape[1:3]

    def moving(self, frame: int) -> tuple[Area, ...]:  # noqa: ARG002
        """Return everything: any pixel may differ."""
        return () if len(self._frames) == 1 else (Area(0, 0, self.width, self.height),)

    def render(self, area: Area, frame: int) -> Words:
        """Return an area of a frame."""
        part = self._frames[frame % len(self._frames), area.top : area.bottom, area.left : area.right]
        pixels = np.empty((*part.shape[:2], 4), np.uint8)
        if part.shape[2] == 4:
            pixels[:] = part
        else:
            pixels[..., :3] = part[..., ::-1]
            pixels[..., 3] = 255
        return pixels.view(np.uint32)[..., 0]


def open_clip(directory: str, locator: str) -> Clip:
    """Open a clip for reading.

    Raises:
        LocatorError: there is none, or its frames are no pictures.
    """
    path = Path(directory)
    # mmap-ninja makes a directory that is not there, so look first
    if not path.is_dir():
        raise _wrong(locator, f"there is no directory {directory}")
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise _wrong(locator, f"{directory} has no {', '.join(missing)}")
    kind, dtype = (_text(path / name) for name in ("type.ninja", "dtype.ninja"))
    if (kind, dtype) != ("numpy", "uint8"):
        raise _wrong(locator, f"{directory} holds {kind} {dtype}, not numpy uint8")
    frames = _open(path, locator)
    if frames.ndim != 4 or frames.shape[3] not in (3, 4) or not frames.shape[0]:
        raise _wrong(locator, f"the frames have the shape {frames.shape}")
    if not all(1 <= length <= _MOST_PIXELS for length in frames.shape[1:3]):
        raise _wrong(locator, f"the frames are {frames.shape[2]}x{frames.shape[1]}, {_MOST_PIXELS} is the most")
    return Clip(frames)


def _open(path: Path, locator: str) -> npt.NDArray[Any]:
    from mmap_ninja.numpy import open_existing  # takes 80 ms

    try:
        return np.asarray(open_existing(path, mode="r"))
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise _wrong(locator, f"{path} cannot be opened: {error}") from error


def _text(path: Path) -> str:
    return path.read_bytes()[:32].decode("ascii", "replace").strip()


def _wrong(locator: str, what: str) -> LocatorError:
    return LocatorError(f"option clip: {what}", device=locator, hint=_HINT)
