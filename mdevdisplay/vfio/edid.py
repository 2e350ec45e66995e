"""The EDID region: what the virtual monitor tells the guest (VFIO_REGION_SUBTYPE_GFX_EDID)."""

from __future__ import annotations

import attrs

from mdevdisplay.vfio import uapi

__all__ = ["HEADER_SIZE", "MAX_EDID", "Edid", "decode_edid", "decode_header"]

HEADER_SIZE = 24
MAX_EDID = 32768
"""The most bytes of EDID that are read: 256 blocks of 128 bytes, all that EDID can describe."""

_SIGNATURE = bytes.fromhex("00ffffffffffff00")


@attrs.frozen(kw_only=True)
class Edid:
    """The EDID region's registers and blob.

    Attributes:
        blob: the EDID, as many bytes as ``edid_size`` says; empty where the driver has none set.
        max_size: the largest blob that the driver takes, in bytes.
        max_xres: the largest width in pixels, 0 for no limit.
        max_yres: the largest height in pixels, 0 for no limit.
        link_up: whether the guest sees a monitor; None where the driver says neither up nor down.
    """

    blob: bytes
    max_size: int
    max_xres: int
    max_yres: int
    link_up: bool | None

    @property
    def valid(self) -> bool:
        """Whether the blob begins as an EDID does and the sum of each 128-byte block is 0."""
        blocks = [self.blob[start : start + 128] for start in range(0, len(self.blob), 128)]
        return self.blob.startswith(_SIGNATURE) and all(len(b) == 128 and sum(b) % 256 == 0 for b in blocks)


def decode_header(registers: bytes, region_size: int) -> tuple[uapi.vfio_region_gfx_edid, str]:
    """Return the registers and what is wrong with them, or ""."""
    raw = uapi.vfio_region_gfx_edid.from_buffer_copy(registers)
    if raw.edid_size > min(raw.edid_max_size, MAX_EDID):
        return raw, f"edid_size {raw.edid_size} is above edid_max_size {raw.edid_max_size} or {MAX_EDID}"
    if raw.edid_size and not HEADER_SIZE <= raw.edid_offset <= region_size - raw.edid_size:
        return raw, f"{raw.edid_size} bytes at {raw.edid_offset} lie outside the region of {region_size}"
    return raw, ""


def decode_edid(raw: uapi.vfio_region_gfx_edid, blob: bytes) -> Edid:
    """Put registers and blob together; pure."""
    states = {uapi.VFIO_DEVICE_GFX_LINK_STATE_UP: True, uapi.VFIO_DEVICE_GFX_LINK_STATE_DOWN: False}
    return Edid(
        blob=blob,
        max_size=raw.edid_max_size,
        max_xres=raw.max_xres,
        max_yres=raw.max_yres,
        link_up=states.get(raw.link_state),
    )
