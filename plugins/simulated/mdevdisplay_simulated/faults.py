"""What real drivers do wrong, each as a fault that a simulated one can have. This is the only table of them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import attrs

from mdevdisplay.formats import Format, fourcc, minimum_size
from mdevdisplay.surface import PlaneType
from mdevdisplay.vfio.uapi import HOTSPOT_UNKNOWN

__all__ = ["FAULTS", "Fault", "Moment", "Report"]

_U32 = 0xFFFFFFFF
_PAGE = 4096


@attrs.define(kw_only=True, eq=False)
class Report:
    """The answer to a plane query before it becomes bytes; the fields are those of vfio_device_gfx_plane_info.

    Attributes:
        format: the format of what is in memory, whatever ``fourcc`` says.
        number: the dma-buf id or the region index.
    """

    format: Format
    fourcc: int
    modifier: int
    width: int
    height: int
    stride: int
    size: int
    x: int = 0
    y: int = 0
    x_hot: int = 0
    y_hot: int = 0
    number: int


@attrs.frozen(eq=False)
class Moment:
    """When a query comes.

    Attributes:
        plane: what it asks for.
        query: its number among all queries, from 1.
        in_mode: its number among the queries of the primary plane since the last change of mode, from 1.
        fresh: whether it would be the first answer that names its buffer.
    """

    plane: PlaneType
    query: int
    in_mode: int
    fresh: bool

    @property
    def primary(self) -> bool:
        """Whether the primary plane is asked for."""
        return self.plane is PlaneType.PRIMARY


def _never(_moment: Moment, _value: float) -> int:
    return 0


def _nothing(_report: Report, _moment: Moment, _value: float) -> None:
    """Leave the report as it is."""


def _always(number: int) -> Callable[[Moment, float], int]:
    return lambda _moment, _value: number


def _after_mode_change(number: int) -> Callable[[Moment, float], int]:
    return lambda moment, value: number if moment.primary and moment.in_mode <= value else 0


@attrs.frozen(kw_only=True, eq=False)
class Fault:
    """One thing that a driver does wrong.

    Attributes:
        name: what follows ``fault=``.
        effect: what happens, in one line.
        source: who does so.
        argument: what the number after a colon means, or "" where there is none.
        default: that number where it is left out.
        least: the least number that is accepted.
        most: the highest.
        fractions: whether it may have decimals.
        refuse: returns the errno that a query fails with, or 0.
        distort: changes what a query of the primary plane reports.
        distort_cursor: changes what a query of the cursor plane reports.
    """

    name: str
    effect: str
    source: str
    argument: str = ""
    default: int = 0
    least: int = 0
    most: int = 1_000_000
    fractions: bool = False
    refuse: Callable[[Moment, float], int] = _never
    distort: Callable[[Report, Moment, float], None] = _nothing
    distort_cursor: Callable[[Report, Moment, float], None] = _nothing


def _set(**fields: int) -> Callable[[Report, Moment, float], None]:
    def distort(report: Report, _moment: Moment, _value: float) -> None:
        for name, number in fields.items():
            setattr(report, name, number)

    return distort


def _size_in_pages(report: Report, _moment: Moment, _value: float) -> None:
    report.size = -(-report.size // _PAGE)


def _size_pow2(report: Report, _moment: Moment, _value: float) -> None:
    report.size = 1 << (report.size - 1).bit_length()


def _short_size(report: Report, _moment: Moment, _value: float) -> None:
    report.size = minimum_size(report.format, report.width, report.height, report.stride, report.modifier) - 1


def _short_stride(report: Report, _moment: Moment, _value: float) -> None:
    report.stride = report.format.minimum_stride(report.width) // 2


def _torn(report: Report, moment: Moment, _value: float) -> None:
    if moment.query % 2 == 0:
        report.height -= 1


def _hotspot_outside(report: Report, _moment: Moment, _value: float) -> None:
    report.x_hot, report.y_hot = report.width + 1000, report.height + 1000


def _sign_lost(report: Report, _moment: Moment, _value: float) -> None:
    # the pointer's tip is at the edge, its picture begins left of it and above
    report.x, report.y = report.x_hot, report.y_hot


_NVIDIA = "NVIDIA vGPU"
_GVT = "GVT-g"
_GUEST = "any, by its guest"

_ALL = (
    # the query fails
    Fault(
        name="enomem-once",
        effect="the first query of every new buffer fails with ENOMEM, the next one works",
        source="mbochs",
        refuse=lambda moment, _value: errno.ENOMEM if moment.primary and moment.fresh else 0,
    ),
    Fault(
        name="einval",
        effect="after every change of mode, queries fail with EINVAL for a while",
        source=_GVT,
        argument="QUERIES",
        default=3,
        refuse=_after_mode_change(errno.EINVAL),
    ),
    Fault(
        name="efault",
        effect="after every change of mode, queries fail with EFAULT for a while",
        source=_GVT,
        argument="QUERIES",
        default=3,
        refuse=_after_mode_change(errno.EFAULT),
    ),
    Fault(
        name="einval-forever",
        effect="every query fails with EINVAL although the probe succeeds",
        source=_GVT + ", in a pixel format that it does not know",
        refuse=_always(errno.EINVAL),
    ),
    Fault(name="eio", effect="every query fails with EIO", source=_NVIDIA, refuse=_always(errno.EIO)),
    Fault(
        name="etimedout",
        effect="every query fails with ETIMEDOUT",
        source=_NVIDIA,
        refuse=_always(errno.ETIMEDOUT),
    ),
    Fault(
        name="hang",
        effect="every query takes that long",
        source=_NVIDIA,
        argument="SECONDS",
        default=25,
        most=3600,
        fractions=True,
    ),
    Fault(
        name="gone",
        effect="after some queries the device is no more: everything fails with ENODEV",
        source="any, when its VM or mdev goes",
        argument="QUERIES",
        default=1,
    ),
    Fault(name="enotty", effect="no ioctl of the display is known", source="vfio-pci and other drivers"),
    Fault(
        name="answers-all",
        effect="every ioctl succeeds and does nothing, the probe too",
        source="kvmgt before Linux 4.16",
    ),
    # the query succeeds and reports something odd
    Fault(
        name="untouched",
        effect="after that many answers, and always for a plane that shows nothing, a query leaves the caller's bytes",
        source=_GVT,
        argument="ANSWERS",
    ),
    Fault(name="zero-format", effect="the format is 0, the rest is right", source=_GUEST, distort=_set(fourcc=0)),
    Fault(name="zero-width", effect="the width is 0, the rest is right", source=_NVIDIA, distort=_set(width=0)),
    Fault(name="zero-height", effect="the height is 0, the rest is right", source=_NVIDIA, distort=_set(height=0)),
    Fault(name="zero-size", effect="the size is 0, the rest is right", source=_NVIDIA, distort=_set(size=0)),
    Fault(
        name="size-in-pages",
        effect="the size is in pages, not in bytes",
        source=_GVT + " before Linux 5.2",
        distort=_size_in_pages,
        distort_cursor=_size_in_pages,
    ),
    Fault(
        name="size-pow2",
        effect="the size is rounded up to a power of two, and the memory with it",
        source="mdpy",
        distort=_size_pow2,
    ),
    Fault(
        name="short-size",
        effect="the size is one byte less than the picture takes",
        source=_GUEST,
        distort=_short_size,
    ),
    Fault(
        name="short-stride",
        effect="the stride is half of what a row takes",
        source=_GUEST,
        distort=_short_stride,
    ),
    Fault(
        name="huge",
        effect="width and height are 100000",
        source=_GUEST,
        distort=_set(width=100_000, height=100_000, stride=400_000, size=_U32),
    ),
    Fault(
        name="huge-stride",
        effect="the stride is 2 GiB",
        source=_GUEST,
        distort=_set(stride=1 << 31, size=_U32),
    ),
    Fault(
        name="small-buffer",
        effect="the memory ends in the middle of the picture that is reported",
        source=_GUEST,
    ),
    Fault(
        name="unknown-fourcc",
        effect="the format is SIM0, which does not exist",
        source=_GUEST,
        distort=_set(fourcc=fourcc("SIM0")),
    ),
    Fault(
        name="unknown-modifier",
        effect="the modifier is 0xff00000000000001, which does not exist",
        source=_GUEST,
        distort=_set(modifier=0xFF00_0000_0000_0001),
    ),
    Fault(
        name="torn",
        effect="every second query reports a row less",
        source=_GVT + ", while its guest sets a mode",
        distort=_torn,
    ),
    Fault(name="all-black", effect="the picture is black, and nothing is wrong with it", source=_GUEST),
    # the cursor
    Fault(
        name="hotspot-unknown",
        effect="the cursor's hot spot is 0xffffffff",
        source=_GVT,
        distort_cursor=_set(x_hot=HOTSPOT_UNKNOWN, y_hot=HOTSPOT_UNKNOWN),
    ),
    Fault(
        name="hotspot-outside",
        effect="the cursor's hot spot lies outside its picture",
        source=_GVT + ", by its guest's driver",
        distort_cursor=_hotspot_outside,
    ),
    Fault(
        name="cursor-is-primary",
        effect="a query of the cursor plane answers the primary plane",
        source="mdpy, NVIDIA vGPU",
    ),
    Fault(
        name="cursor-sign-lost",
        effect="the pointer is at the top left corner and its position has lost its minus",
        source=_GVT,
        distort_cursor=_sign_lost,
    ),
    # dma-bufs and memory
    Fault(
        name="recycled-ids",
        effect="after a change of mode the same dma-buf ids name the buffers of the new one",
        source=_GVT,
    ),
    Fault(
        name="new-id-every-query",
        effect="the guest flips through buffers without end, a new one every few queries",
        source=_GUEST,
        argument="QUERIES",
        default=1,
        least=1,
    ),
    Fault(
        name="get-once",
        effect="a dma-buf can be asked for once; the second time fails with EBUSY (a real one corrupts memory)",
        source="mbochs",
    ),
    Fault(name="get-einval", effect="asking for a dma-buf fails with EINVAL", source="GVT-g, mbochs off a page"),
    Fault(name="get-enoent", effect="asking for a dma-buf fails with ENOENT", source="mbochs, after its last id"),
    Fault(name="no-cloexec", effect="the dma-buf's descriptor would be inherited", source="mbochs"),
    Fault(
        name="dmabuf-enodev",
        effect="the dma-buf exists and mapping it fails with ENODEV",
        source=_GVT + " on i915",
    ),
    Fault(
        name="dmabuf-part-page",
        effect="the memory ends with the picture, and the kernel maps whole pages of a dma-buf alone (320x200 for one)",
        source="dma-buf.c, dma_buf_mmap_internal; mbochs",
    ),
    Fault(
        name="region-refused",
        effect="the region exists and mapping it fails with EINVAL",
        source="NVIDIA vGPU, while another process maps it",
    ),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every fault, by name."""
