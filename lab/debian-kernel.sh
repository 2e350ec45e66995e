# shellcheck shell=bash disable=SC2034,SC2154
# A kernel out of Debian's packages: downloaded and unpacked into the cache, never installed.
# Sourced by kernels/NAME.sh, which sets debian_series (6.1) and debian_release (empty, or say bookworm-backports).

kernel_scripts=debian-kernel.sh

apt_options=(-qq -o APT::Sandbox::User=root)
[[ -z $debian_release ]] || apt_options+=(-o "APT::Default-Release=$debian_release")

# The image's package and version, as "linux-image-6.1.0-1-amd64=6.1.2-3".
debian_image() {
    apt-cache "${apt_options[@]}" show --no-all-versions linux-image-amd64 2>/dev/null |
        sed -n "s/^Depends: \(linux-image-${debian_series//./\\.}\.[^ ,]*\) (= \([^)]*\)).*/\1=\2/p"
}

kernel_version() {
    local image
    image=$(debian_image)
    image=${image#linux-image-}
    printf '%s\n' "${image/=/_}"
}

fetch_kernel() {
    local dir=$1 image release version downloads
    image=$(debian_image)
    version=${image#*=}
    release=${image%%=*}
    release=${release#linux-image-}
    downloads=$dir/downloads

    say "downloading Debian's kernel $release and its sources (220 MB)"
    mkdir "$downloads"
    (
        cd "$downloads" || exit
        apt-get "${apt_options[@]}" download \
            "linux-image-$release=$version" \
            "linux-headers-$release=$version" \
            "linux-headers-${release%-amd64}-common=$version" \
            "linux-kbuild-$debian_series=$version" \
            "linux-source-$debian_series=$version"
    ) || die "the download failed; if the package lists are old, apt-get update may help"
    debian_unpack_image "$dir" "$downloads" "$release"
    debian_unpack_headers "$dir" "$downloads" "$release"
    debian_unpack_samples "$dir" "$downloads"
    debian_build_samples "$dir" "$release"
    rm -r "$downloads"
}

debian_unpack_image() {
    local dir=$1 downloads=$2 release=$3
    # Two thirds of the modules drive hardware and networks that the lab does not have.
    local unwanted=(sound drivers/{ata,bluetooth,comedi,hwmon,iio,infiniband,isdn,md,media,mmc,mtd,net,nvme}
        drivers/{platform,scsi,staging,target,usb,watchdog} drivers/gpu/drm/{amd,nouveau,radeon} net/'[!9]*')
    mkdir "$dir/modules" "$dir/image"
    dpkg-deb --fsys-tarfile "$downloads"/linux-image-*.deb |
        tar -x -C "$dir/image" "${unwanted[@]/#/--exclude=./lib/modules/$release/kernel/}" --exclude=./usr
    mv "$dir/image/lib" "$dir/modules/lib"
    unpack_bzimage "$dir/image/boot/vmlinuz-$release" "$dir/kernel"
    rm -r "$dir/image"
}

# An x86 bzImage carries the kernel compressed, and unpacking it under TCG costs seconds at every boot.
# QEMU starts the ELF image inside it directly (PVH), so it is unpacked once, here.
# Offsets: the x86 boot protocol, setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c.
unpack_bzimage() {
    local image=$1 elf=$2 sectors offset length
    sectors=$(od -An -j $((0x1f1)) -N 1 -t u1 "$image")
    offset=$(od -An -j $((0x248)) -N 4 -t u4 "$image")
    length=$(od -An -j $((0x24c)) -N 4 -t u4 "$image")
    # The payload ends with the unpacked size, four bytes that xz would take for a second stream.
    dd if="$image" iflag=skip_bytes,count_bytes bs=1M status=none \
        skip=$(((sectors + 1) * 512 + offset)) count=$((length - 4)) | xz -dc >"$elf"
}

debian_unpack_headers() {
    local dir=$1 downloads=$2 release=$3 package headers
    headers=$dir/headers/usr/src/linux-headers-$release
    mkdir "$dir/headers"
    for package in "$downloads"/linux-{headers,kbuild}-*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$dir/headers" --exclude='./usr/src/*/arch/[!x]*/*' --exclude=./usr/share ./usr
    done
    # The packaged Makefile includes the common one by its installed path.
    # shellcheck disable=SC2016 # for make
    sed -i 's|^include /usr/src/|include $(dir $(lastword $(MAKEFILE_LIST)))../|' "$headers/Makefile"
    ln -s "headers/usr/src/linux-headers-$release" "$dir/build"
}

debian_unpack_samples() {
    local dir=$1 downloads=$2 folder=linux-source-$debian_series
    dpkg-deb --fsys-tarfile "$downloads"/linux-source-*.deb | tar -xO "./usr/src/$folder.tar.xz" | xz -dc -T0 |
        tar -x -C "$dir" --strip-components=2 "$folder/samples/vfio-mdev"
    mv "$dir/vfio-mdev" "$dir/samples"
}

debian_build_samples() {
    local dir=$1 release=$2
    say "building the sample drivers"
    cp -r "$dir/samples" "$dir/objects"
    echo 'obj-m := mdpy.o mbochs.o mtty.o mdpy-fb.o' >"$dir/objects/Kbuild"
    quietly build_driver "$dir" "$dir/objects"
    mkdir "$dir/modules/lib/modules/$release/updates"
    mv "$dir"/objects/*.ko "$dir/modules/lib/modules/$release/updates/"
    rm -r "$dir/objects"
}
