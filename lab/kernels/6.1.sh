# shellcheck shell=bash disable=SC2034,SC2154
# Debian 12's own kernel, unmodified: legacy VFIO groups, no iommufd, no cdev, no udmabuf, no dma-heaps.

debian_series=6.1
debian_release=
. "$lab/debian-kernel.sh"

# What the initramfs needs to reach the host's file system.
boot_modules="virtio_pci 9pnet_virtio 9p overlay"
# What is loaded before COMMAND in any case: containers and groups, and a dma-buf exporter that can be mapped.
guest_modules="vfio_iommu_type1 mdev vgem"
