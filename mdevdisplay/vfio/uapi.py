"""Mirror of the display parts of include/uapi/linux/vfio.h, in the kernel's names. No behaviour.

The header's comments say ``_IOW`` here and there; its #defines say ``_IO``, and they count. Layouts are x86-64's,
which later kernels use on i386 too (``__aligned_u64``).
"""

from __future__ import annotations

from ctypes import Structure, Union, c_int32, c_uint16, c_uint32, c_uint64

VFIO_API_VERSION = 0
VFIO_TYPE1_IOMMU = 1
VFIO_TYPE1v2_IOMMU = 3

# _IO(';', 100 + n): no size and no direction bits
VFIO_GET_API_VERSION = 0x3B64
VFIO_CHECK_EXTENSION = 0x3B65
VFIO_SET_IOMMU = 0x3B66
VFIO_GROUP_GET_STATUS = 0x3B67
VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_GROUP_UNSET_CONTAINER = 0x3B69
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_DEVICE_GET_INFO = 0x3B6B
VFIO_DEVICE_GET_REGION_INFO = 0x3B6C
VFIO_DEVICE_SET_IRQS = 0x3B6E
VFIO_DEVICE_RESET = 0x3B6F
VFIO_DEVICE_PCI_HOT_RESET = 0x3B71
VFIO_DEVICE_QUERY_GFX_PLANE = 0x3B72
VFIO_DEVICE_GET_GFX_DMABUF = 0x3B73
VFIO_DEVICE_IOEVENTFD = 0x3B74
VFIO_DEVICE_FEATURE = 0x3B75
VFIO_DEVICE_BIND_IOMMUFD = 0x3B76
VFIO_DEVICE_ATTACH_IOMMUFD_PT = 0x3B77
VFIO_DEVICE_DETACH_IOMMUFD_PT = 0x3B78

VFIO_GROUP_FLAGS_VIABLE = 1 << 0
VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1

VFIO_DEVICE_FLAGS_PCI = 1 << 1
VFIO_DEVICE_FLAGS_CAPS = 1 << 7

VFIO_REGION_INFO_FLAG_READ = 1 << 0
VFIO_REGION_INFO_FLAG_WRITE = 1 << 1
VFIO_REGION_INFO_FLAG_MMAP = 1 << 2
VFIO_REGION_INFO_FLAG_CAPS = 1 << 3

VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1
VFIO_REGION_INFO_CAP_TYPE = 2
VFIO_REGION_TYPE_GFX = 1
VFIO_REGION_SUBTYPE_GFX_EDID = 1

VFIO_PCI_BAR0_REGION_INDEX = 0
VFIO_PCI_BAR2_REGION_INDEX = 2
VFIO_PCI_CONFIG_REGION_INDEX = 7
VFIO_PCI_NUM_REGIONS = 9

VFIO_GFX_PLANE_TYPE_PROBE = 1 << 0
VFIO_GFX_PLANE_TYPE_DMABUF = 1 << 1
VFIO_GFX_PLANE_TYPE_REGION = 1 << 2

VFIO_DEVICE_GFX_LINK_STATE_UP = 1
VFIO_DEVICE_GFX_LINK_STATE_DOWN = 2

HOTSPOT_UNKNOWN = 0xFFFFFFFF


class vfio_group_status(Structure):
    argsz: int
    flags: int
    _fields_ = [("argsz", c_uint32), ("flags", c_uint32)]


class vfio_device_info(Structure):
    argsz: int
    flags: int
    num_regions: int
    num_irqs: int
    _fields_ = [("argsz", c_uint32), ("flags", c_uint32), ("num_regions", c_uint32), ("num_irqs", c_uint32)]


class vfio_device_bind_iommufd(Structure):
    argsz: int
    flags: int
    iommufd: int
    out_devid: int
    _fields_ = [("argsz", c_uint32), ("flags", c_uint32), ("iommufd", c_int32), ("out_devid", c_uint32)]


class vfio_region_info(Structure):
    argsz: int
    flags: int
    index: int
    cap_offset: int
    size: int
    offset: int
    _fields_ = [
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("index", c_uint32),
        ("cap_offset", c_uint32),
        ("size", c_uint64),
        ("offset", c_uint64),
    ]


class vfio_info_cap_header(Structure):
    id: int
    version: int
    next: int
    _fields_ = [("id", c_uint16), ("version", c_uint16), ("next", c_uint32)]


class vfio_region_info_cap_type(Structure):
    header: vfio_info_cap_header
    type: int
    subtype: int
    _fields_ = [("header", vfio_info_cap_header), ("type", c_uint32), ("subtype", c_uint32)]


class _gfx_union(Union):
    region_index: int
    dmabuf_id: int
    _fields_ = [("region_index", c_uint32), ("dmabuf_id", c_uint32)]


class vfio_device_gfx_plane_info(Structure):
    argsz: int
    flags: int
    drm_plane_type: int
    drm_format: int
    drm_format_mod: int
    width: int
    height: int
    stride: int
    size: int
    x_pos: int
    y_pos: int
    x_hot: int
    y_hot: int
    region_index: int
    dmabuf_id: int
    reserved: int
    _anonymous_ = ("u",)
    _fields_ = [
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("drm_plane_type", c_uint32),
        ("drm_format", c_uint32),
        ("drm_format_mod", c_uint64),
        ("width", c_uint32),
        ("height", c_uint32),
        ("stride", c_uint32),
        ("size", c_uint32),
        ("x_pos", c_uint32),
        ("y_pos", c_uint32),
        ("x_hot", c_uint32),
        ("y_hot", c_uint32),
        ("u", _gfx_union),
        ("reserved", c_uint32),
    ]


class vfio_region_gfx_edid(Structure):
    edid_offset: int
    edid_max_size: int
    edid_size: int
    max_xres: int
    max_yres: int
    link_state: int
    _fields_ = [
        ("edid_offset", c_uint32),
        ("edid_max_size", c_uint32),
        ("edid_size", c_uint32),
        ("max_xres", c_uint32),
        ("max_yres", c_uint32),
        ("link_state", c_uint32),
    ]
