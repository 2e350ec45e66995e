# shellcheck shell=bash disable=SC2154
# Sourced by lab/setup.

# build_initramfs DIR RELEASE MODULE...: DIR/initramfs.cpio out of guest/initramfs-init, DIR/busybox and
# the modules, with theirs, in the order in which they load.
build_initramfs() {
    local dir=$1 release=$2 tree=$1/initramfs program module kind file
    shift 2
    mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
    cp "$dir/busybox" "$tree/bin/"
    for program in sh mount mkdir cp insmod switch_root; do
        ln -s busybox "$tree/bin/$program"
    done
    cp "$lab/guest/initramfs-init" "$tree/init"
    chmod 755 "$tree/init"
    : >"$tree/modules/order"
    for module; do
        modprobe --show-depends -d "$dir/modules" -S "$release" "$module" >"$dir/depends" ||
            die "kernel $release has no module $module"
        while read -r kind file _; do
            # A module that is built in shows as "builtin NAME".
            [[ $kind == insmod && ! -e $tree/modules/${file##*/} ]] || continue
            cp "$file" "$tree/modules/"
            echo "${file##*/}" >>"$tree/modules/order"
        done <"$dir/depends"
    done
    # Not compressed: the host reads it faster than the guest could unpack it.
    (cd "$tree" && find . | "$dir/busybox" cpio --quiet -o -H newc) >"$dir/initramfs.cpio"
    rm -rf "$tree" "$dir/depends"
}
