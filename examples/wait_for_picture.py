#!/usr/bin/env python3
"""Wait until a picture appears on a display, as openQA does.

    wait_for_picture.py vm:win10 needles/desktop.json --timeout 120

A needle is openQA's: a JSON file that names areas of the PNG file beside it.

    {"area": [{"type": "match", "xpos": 10, "ypos": 20, "width": 300, "height": 50, "match": 96, "margin": 50},
              {"type": "exclude", "xpos": 900, "ypos": 0, "width": 124, "height": 30}], "tags": ["desktop"]}

It is there when each area of the type ``match`` is found with at least that similarity in percent (96), at most the
margin in pixels (50) away from its place. An area of the type ``exclude`` is never looked at. Areas of the type ``ocr``
are refused: they need a program that reads text.

Exit status: 0 as soon as one of the needles matches; 1 when the time is over, the last picture then being saved, or the
display cannot be read; 2 for wrong usage or a needle that is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import PIL.Image

import mdevdisplay
from mdevdisplay.surface import Rect

Grey = npt.NDArray[np.float64]


@attrs.frozen
class Area:
    """A part of a needle."""

    x: int
    y: int
    width: int
    height: int
    match: float
    margin: int

    def of(self, picture: Grey) -> Grey:
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]

    def touched_by(self, damage: Rect) -> bool:
        """Whether a change may change the result; blurring looks one pixel further."""
        far = self.margin + 1
        across = damage.x < self.x + self.width + far and self.x - far < damage.x + damage.width
        return across and damage.y < self.y + self.height + far and self.y - far < damage.y + damage.height


class Needle:
    """A picture to be found, and how alike its areas were when they were looked at last, 0 to 1."""

    def __init__(self, file: Path) -> None:
        """Read a needle; ValueError says what is wrong with it."""
        words = json.loads(file.read_text(encoding="utf-8"))
        self.name = file.stem
        self.areas = [_area(entry) for entry in words["area"] if entry.get("type", "match") == "match"]
        self._excluded = [_area(entry) for entry in words["area"] if entry.get("type", "match") == "exclude"]
        if not self.areas or len(self.areas) + len(self._excluded) < len(words["area"]):
            raise ValueError("it needs an area to match, and none of another type than match and exclude")
        with PIL.Image.open(file.with_suffix(".png")) as picture:
            self._size = picture.size
            self._grey = self._prepared(np.asarray(picture.convert("RGB"))[..., ::-1])
        if any(area.of(self._grey).shape != (area.height, area.width) for area in self.areas):
            raise ValueError("an area reaches out of the picture")
        self.similarity = [0.0] * len(self.areas)

    def found(self, frame: mdevdisplay.Frame) -> bool:
        """Look at those areas that changed; say whether all match now."""
        if (frame.width, frame.height) != self._size:
            self.similarity = [0.0] * len(self.areas)
            return False
        changed = [number for number, area in enumerate(self.areas) if any(map(area.touched_by, frame.damage))]
        if changed:
            screen = self._prepared(frame.pixels[..., :3])
            for number in changed:
                area = self.areas[number]
                self.similarity[number] = best_similarity(screen, area.of(self._grey), area)
        return all(alike >= area.match for alike, area in zip(self.similarity, self.areas, strict=True))

    def _prepared(self, bgr: npt.NDArray[np.uint8]) -> Grey:
        """Return brightness 0 to 255 without the excluded areas, blurred by a pixel: 1 2 1 in both directions."""
        grey: Grey = bgr @ np.array([0.114, 0.587, 0.299])
        for area in self._excluded:
            area.of(grey)[:] = 0
        padded = np.pad(grey, 1, mode="reflect" if min(grey.shape) > 1 else "edge")
        across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        return np.asarray((across[:-2] + 2 * across[1:-1] + across[2:]) / 16)


def best_similarity(screen: Grey, wanted: Grey, area: Area) -> float:
    """Return how alike the area is to the likeliest place of the screen: openQA's measure, 1.0 for the same."""
    if (there := similarity(area.of(screen), wanted)) == 1.0:
        return there
    top, left = max(0, area.y - area.margin), max(0, area.x - area.margin)
    part = screen[top : area.y + area.height + area.margin, left : area.x + area.width + area.margin]
    # the sum of squared differences at every place: the sums of squares, less twice the correlation
    correlation = np.fft.irfft2(np.fft.rfft2(part) * np.conj(np.fft.rfft2(wanted, part.shape)), part.shape)
    sums = np.pad(np.cumsum(np.cumsum(part**2, axis=0), axis=1), ((1, 0), (1, 0)))
    height, width = wanted.shape
    squares = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    differences = squares - 2 * correlation[: squares.shape[0], : squares.shape[1]]
    y, x = np.unravel_index(int(differences.argmin()), differences.shape)
    return similarity(part[y : y + height, x : x + width], wanted)


def similarity(one: Grey, other: Grey) -> float:
    """Return 1.0 for a mean squared difference up to 2, less by 0.1 for every 38 more: what thresholds are tuned to."""
    return float(np.clip(0.9 + (40 - np.mean((one - other) ** 2)) / 380, 0, 1))


def _area(entry: dict[str, Any]) -> Area:
    x, y, width, height = (int(entry.get(name, 0)) for name in ("xpos", "ypos", "width", "height"))
    if min(x, y) < 0 or min(width, height) < 1:
        raise ValueError("an area is empty or begins outside the picture")
    return Area(x, y, width, height, float(entry.get("match") or 96) / 100, int(entry.get("margin") or 50))


def wait(display: mdevdisplay.Display, needles: list[Needle], seconds: float, save: Path) -> int:
    """Wait for one of the needles; return the exit status."""
    last: mdevdisplay.Frame | None = None
    with display.frames(max_fps=10) as stream:  # only what changed comes
        timer = threading.Timer(seconds, stream.close)
        timer.start()
        try:
            for picture in stream:
                if not isinstance(picture, mdevdisplay.Frame):
                    continue
                last = picture
                found = [needle.name for needle in needles if needle.found(picture)]
                if found:
                    print(f"{found[0]} is there")
                    return 0
        finally:
            timer.cancel()
    for needle in needles:
        print(f"{needle.name} is not there:", *(f"{100 * alike:.1f} %" for alike in needle.similarity), file=sys.stderr)
    if last is None:
        print("nothing was displayed", file=sys.stderr)
    else:
        last.save(save)
        print(f"the last picture is {save}", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Wait until a picture appears on a display.")
    parser.add_argument("locator", help="as for mdevdisplay: vm:NAME, a UUID")
    parser.add_argument("needles", type=Path, nargs="+", help="openQA's JSON files, their PNGs beside them")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait")
    parser.add_argument(
        "--save", type=Path, default=Path("last.png"), help="where the last picture goes if none matches"
    )
    arguments = parser.parse_args()
    needles = []
    for file in arguments.needles:
        try:
            needles.append(Needle(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            parser.error(f"{file} is no needle: {error!r}")
    try:
        with mdevdisplay.open(arguments.locator, timeout=arguments.timeout, isolated=None) as display:
            return wait(display, needles, arguments.timeout, arguments.save)
    except mdevdisplay.MdevDisplayError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
