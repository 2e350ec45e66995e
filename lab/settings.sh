# shellcheck shell=bash disable=SC2034,SC2154
# What lab/run, lab/setup and lab/build-module agree on. Sourced; expects $lab to be this folder.

default_kernel=${LAB_KERNEL:-6.1}
cache=$(realpath -m -- "${MDEVDISPLAY_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mdevdisplay/lab}")

say() { printf 'lab: %s\n' "$*" >&2; }

# 125 is the lab's own failure, as with env and timeout: COMMAND did not get to say anything.
die() {
    say "$@"
    exit 125
}

kernel_names() {
    local file
    for file in "$lab"/kernels/*.sh; do
        basename "$file" .sh
    done
}

# The guest mounts file systems of its own over these, so nothing of the host's below them can be used there.
require_visible() {
    [[ $1/ != @(/dev|/proc|/run|/sys)/* ]] || die "$1 is out of the VM's sight, as all of /dev, /proc, /run and /sys is"
}

require_kernel_name() {
    [[ -f $lab/kernels/$1.sh ]] || die "no kernel is called '$1'; there are: $(kernel_names | paste -sd ' ')"
}

# build_driver PREPARED FOLDER: compiles the external modules in FOLDER for the kernel in PREPARED.
build_driver() {
    # The kernel's vmlinux is not at hand, which is what BTF for modules would be made from.
    make -C "$1/build" M="$2" CC=gcc-12 HOSTCC=gcc-12 CONFIG_DEBUG_INFO_BTF_MODULES= modules
}
