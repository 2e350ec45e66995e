# shellcheck shell=bash disable=SC2034,SC2154
# A kernel of the lab's own out of Debian's sources, because Debian's kernels have no iommufd and no VFIO cdev:
# both of these beside the legacy groups, udmabuf, dma-heaps and vkms. 6.12.config says what is in it.

source_series=6.12
. "$lab/source-kernel.sh"

# All that reaches the host's file system is built in.
boot_modules=
guest_modules=mdev
