"""Buffers with random pixels, and what their pixels mean, worked out in whole numbers or with 64-bit floats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import numpy as np
import numpy.typing as npt
from pixels.memfd import sealed_memfd

from mdevdisplay.dmabuf import DmaBuf
from mdevdisplay.formats import LINEAR, fourcc, lookup
from mdevdisplay.surface import SurfaceInfo

RGB = ("XR24", "AR24", "XB24", "AB24", "RG24", "RG16", "XR30", "XB30")
YUV = ("YUYV", "YVYU", "UYVY", "VYUY", "NV12", "P010")

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]


@attrs.frozen
class Picture:
    """A buffer on a sealed memfd and its bytes."""

    dmabuf: DmaBuf
    data: Bytes

    @property
    def target(self) -> Bytes:
        surface = self.dmabuf.surface
        return np.full((surface.height, surface.width, 4), 0xA5, np.uint8)

    def write(self, data: Bytes) -> None:
        os.pwrite(self.dmabuf.fileno(), data.tobytes(), 0)

    def raw(self, data: Bytes | None = None) -> npt.NDArray[np.generic]:
        """The elements of the picture without padding, see `Format.raw_shape`."""
        surface = self.dmabuf.surface
        layout = lookup(surface.fourcc)
        assert layout is not None
        used = layout.minimum_stride(surface.width)
        rows = layout.rows(surface.height)
        whole = np.zeros(max(self.data.size, surface.offset + surface.stride * rows), np.uint8)
        whole[: self.data.size] = self.data if data is None else data
        cut = whole[surface.offset :][: surface.stride * rows].reshape(rows, surface.stride)[:, :used]
        return np.ascontiguousarray(cut).view(layout.dtype).reshape(layout.raw_shape(surface.width, surface.height))


@contextmanager
def picture(
    code: str,
    width: int,
    height: int,
    *,
    padding: int = 0,
    offset: int = 0,
    seed: int = 0,
    modifier: int = LINEAR,
    page: bool = False,
) -> Iterator[Picture]:
    """A buffer that ends with its last pixel, or with that pixel's page."""
    layout = lookup(fourcc(code))
    assert layout is not None
    stride = layout.minimum_stride(width) + padding
    size = offset + stride * (layout.rows(height) - 1) + layout.minimum_stride(width)
    if modifier != LINEAR:
        size = offset + stride * (-(-layout.rows(height) // 32) * 32)
    if page:
        size = -(-size // 4096) * 4096
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    fd = sealed_memfd("picture")
    os.truncate(fd, size)
    surface = SurfaceInfo(
        fourcc=layout.fourcc, width=width, height=height, stride=stride, size=size, offset=offset, modifier=modifier
    )
    with DmaBuf(fd, surface) as dmabuf:
        made = Picture(dmabuf, data)
        made.write(data)
        yield made


def expected_rgb(code: str, raw: npt.NDArray[np.generic]) -> Bytes:
    """Return B, G, R, A of an RGB format: exact for 8 bits, to the nearest for others."""
    if code == "RG24":
        opaque = np.full((*raw.shape[:2], 1), 255, np.uint8)
        return np.concatenate([raw.astype(np.uint8), opaque], axis=2)
    if code in ("XR24", "AR24", "XB24", "AB24"):
        pixels = raw.astype(np.uint8)[..., [0, 1, 2, 3] if code[1] == "R" else [2, 1, 0, 3]]
        if code[0] == "X":
            pixels[..., 3] = 255
        return pixels
    value = raw.astype(np.int64).reshape(raw.shape[:2])
    fields = [(0, 5), (5, 6), (11, 5)] if code == "RG16" else [(0, 10), (10, 10), (20, 10)]
    if code == "XB30":
        fields.reverse()
    channels = []
    for shift, bits in fields:
        most = (1 << bits) - 1
        channels.append(((value >> shift & most) * 510 + most) // (2 * most))
    return np.dstack([*channels, np.full_like(value, 255)]).astype(np.uint8)


def expected_yuv(code: str, raw: npt.NDArray[np.generic], width: int, height: int) -> Numbers:
    """Return B, G, R, A as numbers before rounding: limited range, each block's own chroma."""
    values = raw.astype(np.float64)
    if code in ("NV12", "P010"):
        if code == "P010":
            values = np.floor(values / 64) / 4
        luma = values[:height, :width]
        chroma = values[height:].reshape((height + 1) // 2, -1, 2)
        u, v = (chroma[..., place].repeat(2, axis=0).repeat(2, axis=1)[:height, :width] for place in (0, 1))
    else:
        where = {"YUYV": (0, 1, 3), "YVYU": (0, 3, 1), "UYVY": (1, 0, 2), "VYUY": (1, 2, 0)}[code]
        fours = values.reshape(height, -1, 4)
        luma = np.stack([fours[..., where[0]], fours[..., where[0] + 2]], axis=-1).reshape(height, -1)[:, :width]
        u, v = (fours[..., place].repeat(2, axis=1)[:, :width] for place in where[1:])
    red, blue = (0.2126, 0.0722) if width >= 1280 or height > 576 else (0.299, 0.114)
    y = (luma - 16) / 219
    r = y + (2 - 2 * red) * (v - 128) / 224
    b = y + (2 - 2 * blue) * (u - 128) / 224
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.dstack([b, g, r, np.ones_like(y)]), 0, 1) * 255
