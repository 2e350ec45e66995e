"""A tiled 1080p picture to rows of pixels, against one plain copy of the same bytes; both write into warm memory."""

from __future__ import annotations

import numpy as np
from measure import Figure, interleaved

from mdevdisplay.formats import X_TILED, Y_TILED, YF_TILED, fourcc
from mdevdisplay.pixels.tiling import to_linear
from mdevdisplay.surface import SurfaceInfo

WIDTH, HEIGHT = 1920, 1080
STRIDE, TILED_ROWS = WIDTH * 4, 1088


def figures() -> list[Figure]:
    data = np.random.default_rng(1).integers(0, 256, STRIDE * TILED_ROWS, dtype=np.uint8)
    source, copy = data[: STRIDE * HEIGHT].reshape(HEIGHT, STRIDE), np.empty((HEIGHT, STRIDE), np.uint8)
    out = np.empty_like(copy)

    def surface(modifier: int) -> SurfaceInfo:
        return SurfaceInfo(
            fourcc=fourcc("XR24"), modifier=modifier, width=WIDTH, height=HEIGHT, stride=STRIDE, size=data.size
        )

    x, y, yf = surface(X_TILED), surface(Y_TILED), surface(YF_TILED)
    floor, *ours = interleaved(
        lambda: np.copyto(copy, source),
        lambda: to_linear(data, x, out=out),
        lambda: to_linear(data, y, out=out),
        lambda: to_linear(data, yf, out=out),
        rounds=9,
    )
    bounds: tuple[float | None, ...] = (2, 4, None)
    return [
        Figure(
            f"{name} tiles to linear 1080p",
            f"{seconds * 1e3:.2f} ms",
            f"plain copy {floor * 1e3:.2f} ms",
            seconds / floor,
            "none set" if bound is None else f"<= {bound:g}x",
            met=bound is None or seconds / floor <= bound,
        )
        for name, seconds, bound in zip(("X", "Y", "Yf"), ours, bounds, strict=True)
    ]
