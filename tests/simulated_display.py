"""Opening simulated displays through the hooks, and reading their pixels without the code under test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

import mdevdisplay_simulated as plugin
from mdevdisplay.formats import X_TILED, Y_TILED, YF_TILED, fourcc_name
from mdevdisplay.region import map_region
from mdevdisplay.surface import PlaneType, SurfaceInfo
from mdevdisplay_simulated import SimulatedSource

Bytes = npt.NDArray[np.uint8]


@contextmanager
def opened(locator: str) -> Iterator[SimulatedSource]:
    """Open a locator as the framework does."""
    source = plugin.open_locator(locator)
    assert isinstance(source, SimulatedSource)
    with source:
        yield source


def query(source: SimulatedSource, plane: PlaneType = PlaneType.PRIMARY) -> SurfaceInfo | None:
    return plugin.get_surface_info(source, plane, 0)


def shown(source: SimulatedSource, plane: PlaneType = PlaneType.PRIMARY) -> SurfaceInfo:
    surface = query(source, plane)
    assert surface is not None
    return surface


def region_bytes(source: SimulatedSource, surface: SurfaceInfo) -> Bytes:
    """Copy what a surface takes from its region."""
    mappable = plugin.query_region(source, surface)
    assert mappable is not None
    with map_region(mappable, surface.needed) as region:
        return region.data[: surface.needed].copy()


def dmabuf_bytes(source: SimulatedSource, surface: SurfaceInfo) -> Bytes:
    """Copy what a surface takes from its dma-buf."""
    buffer = plugin.create_dmabuf(source, surface)
    assert buffer is not None
    with buffer, buffer.map() as region:
        return region.data[: surface.needed].copy()


def detiled(data: Bytes, surface: SurfaceInfo) -> Bytes:
    """Return (rows, stride) bytes, from the address of each as the tilings define it."""
    if surface.modifier not in (X_TILED, Y_TILED, YF_TILED):
        return np.concatenate([data, np.zeros(-data.size % surface.stride, np.uint8)]).reshape(-1, surface.stride)
    y, x = np.mgrid[0 : data.size // surface.stride, 0 : surface.stride]
    return np.asarray(data[_address(x, y, surface)], np.uint8)


def _address(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], surface: SurfaceInfo) -> npt.NDArray[np.int64]:
    """Return where byte x of row y lies."""
    if surface.modifier == X_TILED:
        return (y // 8 * (surface.stride // 512) + x // 512) * 4096 + y % 8 * 512 + x % 512
    tile = (y // 32 * (surface.stride // 128) + x // 128) * 4096
    if surface.modifier == Y_TILED:
        return tile + x % 128 // 16 * 512 + y % 32 * 16 + x % 16
    inside = (x & 15) | (y & 7) << 4 | (x >> 4 & 1) << 7 | (y >> 3 & 1) << 8
    inside |= (x >> 5 & 1) << 9 | (y >> 4 & 1) << 10 | (x >> 6 & 1) << 11
    return tile + inside


def decoded(data: Bytes, surface: SurfaceInfo) -> dict[str, npt.NDArray[np.float64]]:
    """Return the channels that a format has: r, g, b (and a) from 0 to 255, or y, cb, cr in 8-bit levels."""
    rows = detiled(data, surface)
    width, height = surface.width, surface.height
    code = fourcc_name(surface.fourcc)
    if code in ("XR24", "AR24", "XB24", "AB24", "RG24"):
        size = 3 if code == "RG24" else 4
        pixels = rows[:height, : width * size].reshape(height, width, size).astype(float)
        order = "rgba" if code in ("XB24", "AB24") else "bgra"
        return {name: pixels[..., place] for place, name in enumerate(order[:size])}
    if code == "RG16":
        words = np.ascontiguousarray(rows[:height, : width * 2]).view("<u2").astype(int)
        return {"r": (words >> 11) * 255 / 31, "g": (words >> 5 & 63) * 255 / 63, "b": (words & 31) * 255 / 31}
    if code in ("XR30", "XB30"):
        words = np.ascontiguousarray(rows[:height, : width * 4]).view("<u4").astype(int)
        high, middle, low = (words >> 20 & 1023, words >> 10 & 1023, words & 1023)
        red, blue = (high, low) if code == "XR30" else (low, high)
        return {"r": red * 255 / 1023, "g": middle * 255 / 1023, "b": blue * 255 / 1023, "x": (words >> 30) / 1}
    if code == "C8":
        return {"grey": rows[:height, :width].astype(float)}
    half = (width + 1) // 2
    if code in ("NV12", "P010"):
        scale = 1.0
        values = rows
        if code == "P010":
            values = np.ascontiguousarray(rows).view("<u2")
            assert not (values & 63).any(), "P010 has its 10 bits on top"
            scale = 256.0
        chroma = values[height : height + (height + 1) // 2, : half * 2].reshape(-1, half, 2) / scale
        return {"y": values[:height, :width] / scale, "cb": chroma[..., 0], "cr": chroma[..., 1]}
    pairs = rows[:height, : half * 4].reshape(height, half, 4).astype(float)
    luma = pairs[..., [code.index("Y"), code.rindex("Y")]].reshape(height, half * 2)[:, :width]
    return {"y": luma, "cb": pairs[..., code.index("U")], "cr": pairs[..., code.index("V")]}


def luma_of(channels: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return something to read the counter from."""
    if "r" in channels:
        return np.stack([channels["r"], channels["g"], channels["b"]], axis=-1)
    return channels["grey"] if "grey" in channels else channels["y"]


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if os.path.lexists(entry)}
