"""Pixel formats (fourccs) and memory layouts (modifiers): names and the arithmetic of rows and sizes.

Values are those of the kernel's include/uapi/drm/drm_fourcc.h. All formats are little-endian, so XRGB8888 lies in
memory as B, G, R, X.
"""

from __future__ import annotations

import attrs

__all__ = [
    "FORMATS",
    "INVALID",
    "LINEAR",
    "X_TILED",
    "YF_TILED",
    "Y_TILED",
    "Format",
    "Tiling",
    "fourcc",
    "fourcc_name",
    "lookup",
    "minimum_size",
    "modifier_name",
    "tiling",
]


def fourcc(code: str) -> int:
    """Return the number of a four-character code: ``fourcc("XR24")``.

    Raises:
        ValueError: the text is not one to four ASCII characters; shorter codes are padded with spaces, as in ``C8``.
    """
    if not 1 <= len(code) <= 4 or not code.isascii():
        raise ValueError(f"not a fourcc: {code!r}")
    return int.from_bytes(code.ljust(4).encode("ascii"), "little")


def fourcc_name(value: int) -> str:
    """Return how a fourcc is shown: ``XR24``, or its number where it is not printable text."""
    raw = (value & 0xFFFFFFFF).to_bytes(4, "little")
    text = raw.decode("ascii", "replace")
    if all(32 <= byte < 127 for byte in raw) and text.strip():
        return text.rstrip()
    return f"0x{value:08x}"


@attrs.frozen(kw_only=True)
class Format:
    """How pixels of one fourcc lie in memory.

    Attributes:
        fourcc: the code as a number.
        name: the kernel's name, e.g. ``XRGB8888``.
        block_width: pixels in one horizontal block of the first plane (2 for YUYV, else 1).
        block_bytes: bytes of such a block.
        dtype: the NumPy type of one raw element.
        channels: raw elements in a pixel.
        chroma: whether a second, interleaved plane of half height and the same stride follows at stride*height.
        alpha: whether the fourth channel has a meaning.
        pixman: the name of pixman's format with the same bytes, or None.
    """

    fourcc: int
    name: str
    block_bytes: int
    block_width: int = 1
    dtype: str = "u1"
    channels: int = 1
    chroma: bool = False
    alpha: bool = False
    pixman: str | None = None

    @property
    def code(self) -> str:
        """The four characters, e.g. ``XR24``."""
        return fourcc_name(self.fourcc)

    def minimum_stride(self, width: int) -> int:
        """Return the least bytes per row that hold ``width`` pixels."""
        blocks = -(-width // self.block_width)
        if self.chroma:
            blocks += blocks % 2  # the chroma row holds whole pairs
        return blocks * self.block_bytes

    def rows(self, height: int) -> int:
        """Return how many rows of one stride the picture takes, chroma rows included."""
        return height + (height + 1) // 2 if self.chroma else height

    def raw_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape of a frame in its own layout, in elements of ``dtype``.

        Packed formats: (height, width) or (height, width, channels); YUYV and its kin (height, width rounded up to
        pairs, 2); formats with a chroma plane: (height + half height, elements of a row).
        """
        rows = self.rows(height)
        elements = self.minimum_stride(width) // int(self.dtype[1])
        return (rows, elements) if self.channels == 1 else (rows, elements // self.channels, self.channels)


def _packed(code: str, name: str, size: int, pixman: str | None, *, dtype: str = "u1", alpha: bool = False) -> Format:
    channels = size // int(dtype[1])
    return Format(
        fourcc=fourcc(code),
        name=name,
        block_bytes=size,
        dtype=dtype,
        channels=channels,
        alpha=alpha,
        pixman=pixman,
    )


def _pair(code: str) -> Format:
    return Format(fourcc=fourcc(code), name=code, block_bytes=4, block_width=2, channels=2)


_ALL = (
    _packed("XR24", "XRGB8888", 4, "x8r8g8b8"),
    _packed("AR24", "ARGB8888", 4, "a8r8g8b8", alpha=True),
    _packed("XB24", "XBGR8888", 4, "x8b8g8r8"),
    _packed("AB24", "ABGR8888", 4, "a8b8g8r8", alpha=True),
    _packed("RG24", "RGB888", 3, "r8g8b8"),
    _packed("RG16", "RGB565", 2, "r5g6b5", dtype="u2"),
    _packed("XR30", "XRGB2101010", 4, "x2r10g10b10", dtype="u4"),
    _packed("XB30", "XBGR2101010", 4, "x2b10g10r10", dtype="u4"),
    _packed("C8", "C8", 1, "c8"),
    _pair("YUYV"),
    _pair("YVYU"),
    _pair("UYVY"),
    _pair("VYUY"),
    Format(fourcc=fourcc("NV12"), name="NV12", block_bytes=1, chroma=True),
    Format(fourcc=fourcc("P010"), name="P010", block_bytes=2, dtype="u2", chroma=True),
)

FORMATS: dict[int, Format] = {entry.fourcc: entry for entry in _ALL}
"""Every format that the framework knows, by fourcc."""


def lookup(value: int) -> Format | None:
    """Return the format of a fourcc, or None where it is unknown."""
    return FORMATS.get(value)


LINEAR = 0
INVALID = 0x00FF_FFFF_FFFF_FFFF
X_TILED = 0x0100_0000_0000_0001
Y_TILED = 0x0100_0000_0000_0002
YF_TILED = 0x0100_0000_0000_0003

_MODIFIER_NAMES = {
    LINEAR: "LINEAR",
    INVALID: "INVALID",
    X_TILED: "I915_X_TILED",
    Y_TILED: "I915_Y_TILED",
    YF_TILED: "I915_Yf_TILED",
    0x0100_0000_0000_0004: "I915_Y_TILED_CCS",
    0x0100_0000_0000_0005: "I915_Yf_TILED_CCS",
    0x0100_0000_0000_0006: "I915_Y_TILED_GEN12_RC_CCS",
    0x0100_0000_0000_0007: "I915_Y_TILED_GEN12_MC_CCS",
    0x0100_0000_0000_0008: "I915_Y_TILED_GEN12_RC_CCS_CC",
    0x0100_0000_0000_0009: "I915_4_TILED",
    0x0100_0000_0000_000A: "I915_4_TILED_DG2_RC_CCS",
    0x0100_0000_0000_000B: "I915_4_TILED_DG2_MC_CCS",
    0x0100_0000_0000_000C: "I915_4_TILED_DG2_RC_CCS_CC",
    0x0100_0000_0000_000D: "I915_4_TILED_MTL_RC_CCS",
    0x0100_0000_0000_000E: "I915_4_TILED_MTL_MC_CCS",
    0x0100_0000_0000_000F: "I915_4_TILED_MTL_RC_CCS_CC",
    0x0100_0000_0000_0010: "I915_4_TILED_LNL_CCS",
    0x0100_0000_0000_0011: "I915_4_TILED_BMG_CCS",
}

_VENDORS = {
    1: "INTEL",
    2: "AMD",
    3: "NVIDIA",
    4: "SAMSUNG",
    5: "QCOM",
    6: "VIVANTE",
    7: "BROADCOM",
    8: "ARM",
    9: "ALLWINNER",
    10: "AMLOGIC",
}


def modifier_name(value: int) -> str:
    """Return how a modifier is shown: its name, or its vendor and number."""
    known = _MODIFIER_NAMES.get(value)
    if known is not None:
        return known
    vendor = _VENDORS.get(value >> 56)
    return f"{vendor}:0x{value:016x}" if vendor else f"0x{value:016x}"


@attrs.frozen
class Tiling:
    """The tile of a modifier: ``width`` bytes by ``height`` rows."""

    width: int
    height: int


_TILINGS = {X_TILED: Tiling(512, 8), Y_TILED: Tiling(128, 32), YF_TILED: Tiling(128, 32)}


def tiling(modifier: int) -> Tiling | None:
    """Return the tile size of a modifier, or None where it is linear or unknown."""
    return _TILINGS.get(modifier)


def minimum_size(layout: Format, width: int, height: int, stride: int, modifier: int = LINEAR) -> int:
    """Return the least bytes that a picture takes from its first pixel to its last.

    The last row counts only to its last pixel, since drivers differ in whether the rest of it exists; a tiled
    picture takes whole rows of tiles.
    """
    rows = layout.rows(height)
    tile = tiling(modifier)
    if tile is not None:
        return stride * (-(-rows // tile.height) * tile.height)
    return stride * (rows - 1) + layout.minimum_stride(width)
