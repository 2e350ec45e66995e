# shellcheck shell=bash
# The programs and headers of the host that the lab uses, each with its Debian package. Sourced by lab/setup;
# a kernel may add to them.

programs=(qemu-system-x86_64:qemu-system-x86 depmod:kmod make:make gcc-12:gcc-12 xz:xz-utils)

missing_packages() {
    local pair
    for pair in "${programs[@]}"; do
        [[ $pair == /* && -e ${pair%%:*} ]] || command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
}

install_packages() {
    local missing command
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    command=(apt-get install -y --no-install-recommends "${missing[@]}")
    ((EUID == 0)) || die "packages are missing; install them with: sudo ${command[*]}"
    require_package_lists
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive quietly "${command[@]}" -o DPkg::Lock::Timeout=300 || die "apt-get install fails"
}

# Lists that know the kernel too: 6.12's sources came with Debian's security updates, so older ones do not.
require_package_lists() {
    [[ -z $(apt-cache show --no-all-versions busybox-static 2>/dev/null) || -z $(kernel_version) ]] || return 0
    ((EUID == 0)) || die "the package lists are missing or too old; fetch them with: sudo apt-get update"
    say "fetching the package lists"
    local seconds
    # Unlike the lock of dpkg, the lock of the lists cannot be waited for.
    for seconds in 5 10 20 40 0; do
        ! quietly apt-get update || return 0
        sleep $seconds
    done
    die "apt-get update fails"
}

# Runs a command and shows what it said only if it failed.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" </dev/null >"$log" 2>&1 || status=$?
    ((status == 0)) || cat "$log" >&2
    rm "$log"
    return $status
}
