# shellcheck shell=bash disable=SC2034,SC2154
# A kernel built from Debian's sources with a configuration of the lab's own, kernels/NAME.config.
# Sourced by kernels/NAME.sh, which sets source_series (6.12), the version of the linux-source package.

kernel_scripts=source-kernel.sh
programs+=(flex:flex bison:bison bc:bc /usr/include/libelf.h:libelf-dev)

kernel_version() {
    apt-cache show --no-all-versions "linux-source-$source_series" 2>/dev/null | sed -n 's/^Version: //p'
}

# The build takes minutes, so its result is kept apart from what the lab's other scripts make of it.
fetch_kernel() {
    local dir=$1 version built
    version=$(current_version)
    built=$cache/$kernel/built-$version-$(source_hash)
    if [[ ! -d $built ]]; then
        mkdir "$built.new"
        source_build "$built.new" "$version"
        mv "$built.new" "$built"
    fi
    touch "$built"
    cp -al "$built/." "$dir/"
}

source_hash() {
    cat "$lab/source-kernel.sh" "$lab/kernels/$kernel."{sh,config} | sha256sum | head -c 8
}

source_build() {
    local dir=$1 version=$2 tree=$1/linux make
    make=(nice make -s -C "$tree" -j "$(nproc)" CC=gcc-12 HOSTCC=gcc-12)
    say "downloading the sources of Linux $version (150 MB)"
    source_unpack "$dir" "$version"
    say "building Linux $version; on two processors that takes a few minutes"
    cp -r "$tree/samples/vfio-mdev" "$dir/samples"
    source_configure "$tree" "${make[@]}"
    quietly "${make[@]}" vmlinux modules || die "Linux $version cannot be built"
    # Without its symbols a sixth smaller, and QEMU has read it that much sooner.
    strip --strip-all -o "$dir/kernel" "$tree/vmlinux"
    quietly "${make[@]}" INSTALL_MOD_PATH="$dir/modules" DEPMOD=true modules_install
    rm -f "$dir"/modules/lib/modules/*/build
    # shellcheck disable=SC2016 # for make
    quietly "${make[@]}" KBUILD_RUN_COMMAND='$(srctree)/scripts/package/install-extmod-build '"'$dir/build'" run-command
    rm -r "$tree"
}

source_unpack() {
    local dir=$1 version=$2 package=linux-source-$source_series
    # Two thirds of the sources are drivers that are not built. Kconfig and the Makefiles want to see them all the same.
    local unwanted=(arch/'[!x]*.'{[chS],dts,dtsi} Documentation/'*.'{rst,txt,yaml,svg} drivers/gpu/drm/amd/'*.[ch]' sound/'*.[ch]'
        drivers/{gpu/drm/{i915,nouveau,radeon,xe},infiniband,media,net/'*',scsi,staging}/'*.c' tools/{perf,testing}/'*.[ch]')
    (
        cd "$dir" || exit
        apt-get -qq -o APT::Sandbox::User=root download "$package=$version"
    ) || die "the download failed; if the package lists are old, apt-get update may help"
    mkdir "$dir/linux"
    dpkg-deb --fsys-tarfile "$dir/$package"_*.deb | tar -xO "./usr/src/$package.tar.xz" | xz -dc -T0 |
        tar -x -C "$dir/linux" --strip-components=1 "${unwanted[@]/#/--exclude=$package/}"
    rm "$dir/$package"_*.deb
}

source_configure() {
    local tree=$1 line
    shift
    KCONFIG_ALLCONFIG=$lab/kernels/$kernel.config quietly "$@" allnoconfig
    while read -r line; do
        [[ $line != CONFIG_* ]] || grep -qxF -- "$line" "$tree/.config" ||
            die "Linux $source_series does not take $line of kernels/$kernel.config: it is gone, or needs another option"
    done <"$lab/kernels/$kernel.config"
}
