"""Every cause of a black screen, and of every error of ours, as data.

`mdevdisplay doctor`, its JSON and docs/screen-is-black.md are made from this table. The order matters: of several
causes that explain the same, the earlier one makes the verdict.

In a verdict and a remedy ``{it}`` is what was looked at, and ``{locator}``, ``{vm}``, ``{pid}``, ``{device}``,
``{group}``, ``{parent}`` are its names; a remedy's line that begins with ``$ `` is a command to paste.
"""

from __future__ import annotations

from enum import Enum, unique

import attrs

__all__ = ["BY_ID", "CAUSES", "STEPS", "Cause", "Ends", "find_cause"]


@unique
class Ends(Enum):
    """What a cause makes of the whole, with the exit status of ``doctor``."""

    SEEN = 0
    BROKEN = 1
    USAGE = 2
    NOTHING = 3
    NOT_PERMITTED = 4


STEPS = {
    "host": "VFIO and what this host can lend to a VM",
    "device": "which device is meant, and who holds it",
    "access": "whether this program may read it",
    "vm": "whether the VM runs, and where its consoles look",
    "driver": "whether the driver answers, and makes sense",
    "guest": "what the guest shows on the vGPU",
    "pixels": "whether the pixels can be read, and what is in them",
    "program": "mdevdisplay itself",
}
"""The steps from the host to the pixels, in order, with what each asks."""


@attrs.frozen(kw_only=True)
class Cause:
    """One reason for a black screen.

    Attributes:
        id: its stable name, the same in errors, in JSON and here.
        step: one of `STEPS`.
        ends: what the whole comes to where this cause makes the verdict.
        verdict: the first line, in the operator's words.
        meaning: what is the case, for the page.
        remedy: what to do, line by line.
        source: where the fact comes from: a kernel function, a project's source or documentation.
        explains: the ids of causes that this one is the reason of.
        aside: what the verdict says beside a picture that is seen, or "".
    """

    id: str
    step: str
    ends: Ends
    verdict: str
    meaning: str
    remedy: tuple[str, ...] = ()
    source: str = ""
    explains: frozenset[str] = frozenset()
    aside: str = ""


_NOTHING_SEEN = frozenset({"nothing-displayed", "one-colour"})
_LAUNCHER = "let whatever starts the VM hand the descriptor over: LOCATOR unix:PATH (docs/permissions.md)"
_AS_ROOT = "$ sudo mdevdisplay screenshot {locator}"
_WAKE = (
    "$ virsh send-key {vm} KEY_LEFTCTRL",
    "$ virsh dompmwakeup {vm}     # one that sleeps",
    "$ qm sendkey {vmid} ctrl     # Proxmox",
)
_INSIDE = "run a remote desktop inside the guest (RDP, VNC, Sunshine), or Looking Glass; `virsh console {vm}` for text"
_MODE = "$ virsh send-key {vm} KEY_LEFTCTRL   # some guests switch the screen on again"

CAUSES: tuple[Cause, ...] = (
    # --- the picture is there ---
    Cause(
        id="shown",
        step="pixels",
        ends=Ends.SEEN,
        verdict="{it} shows {picture} on its vGPU",
        meaning="The picture was read, and it is not of one colour. Whatever stays black is behind us: the viewer, or "
        "the console that it is attached to.",
        remedy=("$ mdevdisplay watch {locator}", "$ mdevdisplay screenshot {locator}"),
    ),
    Cause(
        id="host-ready",
        step="host",
        ends=Ends.SEEN,
        verdict="this host has {count} vGPUs",
        meaning="There is something to look at.",
        remedy=("$ mdevdisplay list", "$ mdevdisplay doctor LOCATOR"),
    ),
    # --- host ---
    Cause(
        id="own-pid-namespace",
        step="host",
        ends=Ends.NOT_PERMITTED,
        verdict="{it} cannot be looked for: this program does not see the host's processes",
        meaning="It runs in a pid namespace of its own, as containers do, in which no VM's process is.",
        remedy=(
            "run in the host's: docker run --pid=host, hostPID: true",
            (
                "with the host's root at /host, MDEVDISPLAY_HOST_ROOT=/host lists what runs; reading it takes the "
                "host's pid namespace all the same"
            ),
        ),
        source="pid_namespaces(7); PROC_PID_INIT_INO in Linux include/linux/proc_ns.h",
        explains=frozenset({"no-such-vm"}),
    ),
    Cause(
        id="no-vfio",
        step="host",
        ends=Ends.BROKEN,
        verdict="this host has no VFIO, so no vGPU can be read or given to a VM",
        meaning="/dev/vfio/vfio is not there, or no IOMMU driver stands behind it: the modules are not loaded.",
        remedy=("$ modprobe -a vfio vfio_iommu_type1 vfio_pci", "then the module of the vGPU's vendor; see no-mdev"),
        source="Linux drivers/vfio/container.c, vfio_fops_open; VFIO_SET_IOMMU answers ENODEV",
        explains=frozenset({"no-vgpu", "no-such-device", "not-bound", "no-node"}),
    ),
    Cause(
        id="no-mdev",
        step="host",
        ends=Ends.BROKEN,
        verdict="this host has no mediated devices: the mdev module is not loaded",
        meaning="/sys/bus/mdev is missing. A driver that cuts a GPU into mediated devices loads it.",
        remedy=(
            "Intel GVT-g: boot with i915.enable_gvt=1, then",
            "$ modprobe kvmgt",
            "NVIDIA: install the vGPU host driver (vGPU 17 and later on new kernels uses virtual functions instead)",
            "the kernel's samples:",
            "$ modprobe mbochs; modprobe mdpy",
        ),
        source="Linux drivers/vfio/mdev/mdev_core.c, mdev_init",
        explains=frozenset({"no-vgpu", "no-such-device"}),
    ),
    Cause(
        id="iommu-off",
        step="host",
        ends=Ends.BROKEN,
        verdict="the IOMMU is off, so no PCI function of this host can be given to a VM",
        meaning="/sys/kernel/iommu_groups has no group of a PCI device. Mediated devices need no IOMMU, virtual "
        "functions and passthrough do.",
        remedy=(
            "switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on iommu=pt (Intel)",
            "$ dmesg | grep -iE 'DMAR|AMD-Vi|IOMMU'",
        ),
        source="Linux drivers/iommu/iommu.c, iommu_group_alloc",
        explains=frozenset({"not-bound", "no-node"}),
    ),
    Cause(
        id="no-vgpu",
        step="host",
        ends=Ends.BROKEN,
        verdict="this host has no vGPU: nothing that could display",
        meaning="Neither a mediated device nor a virtual function of a GPU exists.",
        remedy=(
            "$ mdevctl types     # what can be made",
            "$ mdevctl start -u $(uuidgen) -p {parent} -t TYPE",
            "NVIDIA's virtual functions: /usr/lib/nvidia/sriov-manage -e ALL, then set a vGPU type (nvidia-no-type)",
        ),
        source="Linux Documentation/driver-api/vfio-mediated-device.rst",
    ),
    Cause(
        id="no-proc",
        step="host",
        ends=Ends.BROKEN,
        verdict="no process can be seen, so the VM cannot be found",
        meaning="The /proc that was looked at shows no processes, as in a container without the host's.",
        remedy=("mount the host's root and say where: MDEVDISPLAY_HOST_ROOT=/host", "run in its pid namespace"),
        source="proc(5), hidepid",
    ),
    # --- device ---
    Cause(
        id="bad-locator",
        step="device",
        ends=Ends.USAGE,
        verdict="{locator} names nothing that mdevdisplay understands",
        meaning="The text is no UUID, PCI address, VM or scheme of a backend, or means several.",
        remedy=("$ mdevdisplay list", "then `mdevdisplay doctor vm:NAME`, or a UUID or PCI address from the list"),
    ),
    Cause(
        id="ambiguous-vm",
        step="device",
        ends=Ends.USAGE,
        verdict="{locator} means several running VMs",
        meaning="Two running VMs have that name.",
        remedy=("$ mdevdisplay list", "then pid:NUMBER instead of the name"),
    ),
    Cause(
        id="ambiguous-display",
        step="device",
        ends=Ends.USAGE,
        verdict="{locator} has several displays",
        meaning="The VM has more than one vGPU, or other VFIO devices that may be one.",
        remedy=("$ mdevdisplay list", "then `{locator}/0`, `{locator}/1` and so on, as the evidence names them"),
    ),
    Cause(
        id="no-such-device",
        step="device",
        ends=Ends.BROKEN,
        verdict="this host has no device {locator}",
        meaning="No mediated device and no PCI function has that name.",
        remedy=("$ mdevdisplay list", "$ mdevctl list --defined"),
    ),
    Cause(
        id="no-such-vm",
        step="device",
        ends=Ends.BROKEN,
        verdict="no VM that runs on this host is {locator}",
        meaning="No process runs a VM of that name or has that number.",
        remedy=("$ mdevdisplay list", "$ virsh list --all"),
    ),
    Cause(
        id="no-such-output",
        step="device",
        ends=Ends.BROKEN,
        verdict="{locator} counts further than that VM has displays",
        meaning="The VM runs, and has fewer displays than the number behind the stroke; they are counted from 0.",
        remedy=("$ mdevdisplay list",),
    ),
    Cause(
        id="no-vfio-device",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} has no vGPU: it holds no VFIO device",
        meaning="The process was found and has no VFIO device open. Its VM has only emulated video cards.",
        remedy=("add a vGPU to the VM: docs/libvirt.md, docs/proxmox.md, docs/openstack.md, docs/kubevirt.md",),
    ),
    Cause(
        id="nvidia-no-type",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is an NVIDIA virtual function without a vGPU type, so it is no vGPU yet",
        meaning="nvidia/current_vgpu_type is 0. Opening the function fails with ENODEV until a type is set.",
        remedy=(
            "$ cat /sys/bus/pci/devices/{device}/nvidia/creatable_vgpu_types",
            "$ echo TYPE > /sys/bus/pci/devices/{device}/nvidia/current_vgpu_type     # as root, while no VM uses it",
        ),
        source="NVIDIA vGPU software user guide, SR-IOV: current_vgpu_type; opening answers ENODEV",
        explains=frozenset({"device-gone", "not-bound", "driver-error", "not-a-display"}),
    ),
    Cause(
        id="sriov-intel",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is a virtual function of an Intel GPU: its screen never reaches the host",
        meaning="Intel's SR-IOV functions have no display that a host could read: i915 and xe implement no plane "
        "query, and the guest shows its screen itself, or copies it into shared memory (ivshmem, KVMFR).",
        remedy=(_INSIDE, "or give the VM an emulated card beside it and look at that"),
        source="Linux drivers/vfio/pci: no driver there answers VFIO_DEVICE_QUERY_GFX_PLANE",
        explains=frozenset({"not-a-display", "device-busy", "not-bound", "not-permitted"}),
    ),
    Cause(
        id="sriov-amd",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is a virtual function of an AMD GPU: its screen never reaches the host",
        meaning="AMD's MxGPU functions have no display that a host could read.",
        remedy=(_INSIDE, "or give the VM an emulated card beside it and look at that"),
        source="Linux drivers/vfio/pci: no driver there answers VFIO_DEVICE_QUERY_GFX_PLANE",
        explains=frozenset({"not-a-display", "device-busy", "not-bound", "not-permitted"}),
    ),
    Cause(
        id="passthrough",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is a whole device passed through: its screen is on its own connectors, never on the host",
        meaning="vfio-pci hands the hardware to the VM and keeps nothing; a GPU's picture leaves by its plug.",
        remedy=("look at the monitor on the card, or plug a dummy one in for a remote desktop", _INSIDE),
        source="Linux drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_ioctl: ENOTTY for plane queries",
        explains=frozenset({"not-a-display", "device-busy", "not-bound", "not-permitted"}),
    ),
    Cause(
        id="compute-only-type",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} has a vGPU type for computing, which shows nothing",
        meaning="NVIDIA's types of the C series are for computing; on a card without a display engine they have no "
        "console.",
        remedy=("choose a type that ends in Q, B or A for a desktop", _INSIDE),
        source="NVIDIA vGPU software user guide, virtual GPU types",
        explains=frozenset({"not-a-display", "not-mappable"}),
    ),
    Cause(
        id="not-bound",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is not in the hands of a VFIO driver",
        meaning="Nothing, or the host's own driver, has the device; or its owner has opened and not bound it yet.",
        remedy=("$ ls -l /sys/bus/*/devices/{device}/driver", "bind it to its VFIO driver, as the error says"),
        source="Linux drivers/vfio/vfio_main.c, vfio_register_group_dev",
    ),
    Cause(
        id="no-node",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} has no node below /dev/vfio",
        meaning="A VFIO driver has the device and /dev lacks its node: a container without it, or udev does not run.",
        remedy=("$ ls -l /dev/vfio", "pass /dev/vfio into the container; or read the VM that uses it: vm:NAME"),
    ),
    Cause(
        id="not-a-vfio-device",
        step="device",
        ends=Ends.BROKEN,
        verdict="what was handed over as {locator} is no VFIO device",
        meaning="The descriptor is of something else.",
        remedy=("hand over the one whose link in /proc/PID/fd is anon_inode:[vfio-device] or /dev/vfio/devices/vfioN",),
    ),
    Cause(
        id="bad-hand-over",
        step="device",
        ends=Ends.BROKEN,
        verdict="the launcher behind {locator} handed over nothing usable",
        meaning="The connection brought no descriptor, several, or words that make no sense.",
        remedy=("look into the launcher's messages; examples/hand_over.py is one that works",),
        source="unix(7), SCM_RIGHTS",
    ),
    Cause(
        id="bad-descriptor",
        step="device",
        ends=Ends.BROKEN,
        verdict="{locator} is no descriptor that this program has",
        meaning="The number is not open here.",
        remedy=("start the program with the descriptor inherited: `pass_fds`, or `9<&FD` in a shell",),
    ),
    Cause(
        id="device-gone",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} is gone",
        meaning="The device was there and was removed, or its driver was unbound.",
        remedy=("$ mdevdisplay list",),
        source="ENODEV of open(2) and ioctl(2)",
    ),
    Cause(
        id="vm-gone",
        step="device",
        ends=Ends.BROKEN,
        verdict="{it} has ended",
        meaning="The VM's process ended; what was held of its device was let go.",
        remedy=("$ virsh start {vm}", "$ mdevdisplay watch {locator} --reconnect     # waits for it"),
        source="pidfd_open(2)",
    ),
    # --- access ---
    Cause(
        id="not-permitted",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not open {it}",
        meaning="The mode of /dev/vfio/GROUP, /dev/vfio/devices/vfioN, /dev/iommu or /dev/kvm forbids it.",
        remedy=(
            _AS_ROOT,
            "$ ls -l /dev/vfio/vfio /dev/vfio/{group}",
            'for good: a udev rule, SUBSYSTEM=="vfio", OWNER="you"',
        ),
        source="EACCES of open(2)",
    ),
    Cause(
        id="device-busy",
        step="access",
        ends=Ends.BROKEN,
        verdict="{it} is in use by {holder}",
        meaning="A VFIO group opens once, a cdev is bound once. A VM's display is read through its own process.",
        remedy=("$ mdevdisplay list     # who holds it", "$ mdevdisplay doctor vm:NAME"),
        source="Linux drivers/vfio/group.c, vfio_group_fops_open: EBUSY; device_cdev.c, vfio_df_ioctl_bind_iommufd",
    ),
    Cause(
        id="trace-seccomp",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="a seccomp filter keeps this program from reading {it}",
        meaning="pidfd_getfd itself is filtered: a container's profile, or a unit's SystemCallFilter.",
        remedy=("allow pidfd_open and pidfd_getfd: docs/permissions.md", _LAUNCHER),
        source="seccomp(2)",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-user-namespace",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="this program is in a user namespace of its own, from which {it} cannot be read",
        meaning="A capability counts in the target's user namespace alone: rootless containers have none there.",
        remedy=("start the reader in the host's user namespace: no rootless container, PrivateUsers=no", _LAUNCHER),
        source="Linux kernel/ptrace.c, __ptrace_may_access: ptrace_has_cap",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="other-pid-namespace",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="{it} is in another pid namespace than this program",
        meaning="Its number in /proc is not its number here, so it cannot be opened by it.",
        remedy=("run in the host's: docker run --pid=host, hostPID: true", _LAUNCHER),
        source="pidfd_open(2): ESRCH",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-yama-3",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="Yama forbids everybody to read {it}, until this host restarts",
        meaning="/proc/sys/kernel/yama/ptrace_scope is 3: no process may attach to any other.",
        remedy=(_LAUNCHER, "or restart with kernel.yama.ptrace_scope at most 2"),
        source="Linux security/yama/yama_lsm.c, yama_ptrace_access_check",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-other-user",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not read {it}: it runs as another user",
        meaning="All six ids of the target must be the reader's real uid and gid, or the reader needs CAP_SYS_PTRACE.",
        remedy=(_AS_ROOT, _LAUNCHER, "a service with the two capabilities that it takes: docs/permissions.md"),
        source="Linux kernel/ptrace.c, __ptrace_may_access",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-no-ptrace-capability",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you are root without CAP_SYS_PTRACE, and may not read {it}",
        meaning="A container, or a unit, took the capability away. Being root is not it.",
        remedy=("docker run --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --pid=host …", _LAUNCHER),
        source="Linux kernel/ptrace.c, ptrace_has_cap; capabilities(7)",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-not-dumpable",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not read {it}: its process is not dumpable",
        meaning="It changed its user after it was started (QEMU's -runas), or called prctl(PR_SET_DUMPABLE, 0).",
        remedy=(_AS_ROOT, "change the user before QEMU is executed; docs/permissions.md", _LAUNCHER),
        source="Linux kernel/ptrace.c, __ptrace_may_access: get_dumpable",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-capabilities",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not read {it}: its process has capabilities that you have not",
        meaning="With the same ids the target's permitted set must be a part of the reader's.",
        remedy=(_AS_ROOT, "$ grep CapPrm /proc/{pid}/status /proc/self/status", _LAUNCHER),
        source="Linux security/commoncap.c, cap_ptrace_access_check",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-yama-2",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="Yama lets only CAP_SYS_PTRACE read {it}",
        meaning="/proc/sys/kernel/yama/ptrace_scope is 2: the same user is not enough.",
        remedy=(_AS_ROOT, _LAUNCHER),
        source="Linux security/yama/yama_lsm.c, yama_ptrace_access_check",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-yama-1",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="Yama lets only its parents and CAP_SYS_PTRACE read {it}",
        meaning="/proc/sys/kernel/yama/ptrace_scope is 1, the default of many distributions: the same user is not "
        "enough.",
        remedy=(_AS_ROOT, "start the VM from the program that reads it", _LAUNCHER),
        source="Linux security/yama/yama_lsm.c, yama_ptrace_access_check",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-apparmor",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="AppArmor keeps this program from reading {it}",
        meaning="The reader is confined by a profile without the rules that it takes.",
        remedy=(
            "$ journalctl -k --grep 'apparmor=\"DENIED\"'",
            "rules for the profile: docs/permissions.md",
            _LAUNCHER,
        ),
        source="Linux security/apparmor/lsm.c, apparmor_ptrace_access_check",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-selinux",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="SELinux keeps this program from reading {it}",
        meaning="The reader's domain lacks ptrace or fd use of svirt_t.",
        remedy=("$ ausearch -m avc -ts recent", "rules for the domain: docs/permissions.md", _LAUNCHER),
        source="Linux security/selinux/hooks.c, selinux_ptrace_access_check, selinux_file_receive",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="trace-no-dac-read-search",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not list the open files of {it}: CAP_DAC_READ_SEARCH is missing",
        meaning="CAP_SYS_PTRACE is there and lets one attach; /proc/PID/fd is besides a directory of its owner's.",
        remedy=(_AS_ROOT, "give the service CAP_DAC_READ_SEARCH too; docs/permissions.md", _LAUNCHER),
        source="Linux fs/proc/fd.c, proc_fd_permission",
        explains=frozenset({"attach-not-permitted"}),
    ),
    Cause(
        id="attach-not-permitted",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="you may not read {it}, and nothing tells which layer forbids it",
        meaning="pidfd_getfd was refused, and users, capabilities, Yama and namespaces would allow it.",
        remedy=(_AS_ROOT, "$ journalctl -k --grep 'ptrace|apparmor|avc'", "docs/permissions.md", _LAUNCHER),
        source="pidfd_getfd(2): EPERM",
    ),
    Cause(
        id="privileges-kept",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="the process that should read {it} could not give its rights up, and so did not start",
        meaning="A worker drops every capability before it reads anything of a guest's; here the kernel refused that.",
        remedy=(
            "$ mdevdisplay doctor --in-process {locator}",
            "a container that drops capabilities has to leave root SETUID, SETGID and SETPCAP: docs/permissions.md",
        ),
        source="capset(2), setresuid(2), prctl(2)",
    ),
    Cause(
        id="read-only",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="a backend wanted to change {it}, which mdevdisplay never does",
        meaning="Reset, interrupts and the like are refused on every device.",
        remedy=("report it to the backend's authors; choose another with --backend",),
    ),
    Cause(
        id="borrowed-read-only",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="a backend wanted more of {it} than is safe while a VM uses it",
        meaning="On a borrowed device only what is known to be harmless is let through.",
        remedy=("report it to the backend's authors: they declare what they need in `readonly_access`",),
    ),
    Cause(
        id="use-get-dmabuf",
        step="access",
        ends=Ends.NOT_PERMITTED,
        verdict="a backend asked {it} for a dma-buf in a way that may harm the kernel",
        meaning="A dma-buf is asked for once an id; `Device.get_dmabuf` keeps to it.",
        remedy=("report it to the backend's authors",),
        source="Linux samples/vfio-mdev/mbochs.c, mbochs_get_gfx_dmabuf",
    ),
    # --- vm ---
    Cause(
        id="vm-crashed",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} has crashed, so its screen stands still or is empty",
        meaning="The guest panicked, or the VMM stopped it over an error.",
        remedy=("$ virsh domstate --reason {vm}", "$ virsh reset {vm}"),
        source="QMP query-status: guest-panicked, internal-error",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its VM has crashed, and the picture stands still",
    ),
    Cause(
        id="vm-shut-down",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its guest has shut down",
        meaning="The guest switched itself off, and the VMM is still there (-no-shutdown).",
        remedy=("$ virsh domstate {vm}", "$ virsh start {vm}     # once it is off"),
        source="QMP query-status: shutdown; libvirt: shutdown",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its guest has shut down, and the picture stands still",
    ),
    Cause(
        id="vm-stopped",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its process is stopped by a signal",
        meaning="The VMM's process is in state T: somebody sent SIGSTOP, or a debugger holds it.",
        remedy=("$ kill -CONT {pid}",),
        source="proc_pid_stat(5), field 3",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its VMM is stopped by a signal, so the picture stands still",
    ),
    Cause(
        id="guest-asleep",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: the guest is asleep",
        meaning="The guest suspended to RAM and switched its screen off.",
        remedy=_WAKE,
        source="QMP query-status: suspended; libvirt: pmsuspended",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its guest is asleep, so the picture stands still",
    ),
    Cause(
        id="vm-paused",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: the VM is paused",
        meaning="Its processors do not run, so nothing is drawn. What was drawn before can still be read. After an I/O "
        "error make the disk writable first.",
        remedy=(
            "$ virsh domstate --reason {vm}",
            "$ virsh resume {vm}",
            "$ qm resume {vmid}     # Proxmox",
            "over QMP by hand: cont",
        ),
        source="QMP query-status: paused; libvirt: paused",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its VM is paused, so the picture stands still",
    ),
    Cause(
        id="vm-migrating",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its VM moves, or has moved, to or from another host",
        meaning="Its processors do not run here. Never resume it by hand: it may run on the other host, and two that "
        "write to one disk destroy it.",
        remedy=("$ virsh domjobinfo {vm}", "look at the VM on the other host"),
        source="QMP query-status: finish-migrate, postmigrate, inmigrate, colo; libvirt: migration, post-copy; libvirt "
        "commit eca9d21e6c: resuming the source after post-copy could lead to disk corruption",
        explains=_NOTHING_SEEN,
        aside="its VM is being moved between hosts, so the picture stands still",
    ),
    Cause(
        id="vm-starting",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing yet: the VM has not begun to run",
        meaning="It waits to be started (-S).",
        remedy=("$ virsh resume {vm}", "$ qm resume {vmid}     # Proxmox"),
        source="QMP query-status: prelaunch, preconfig",
        explains=_NOTHING_SEEN | {"unchanged"},
        aside="its VM has not begun to run",
    ),
    Cause(
        id="display-off",
        step="vm",
        ends=Ends.SEEN,
        verdict="{it} is not shown by QEMU: its display is off",
        meaning="Without display=on (or auto) QEMU makes no console for a vGPU: VNC and SPICE show another card, or a "
        "blank. Off is the default of vfio-pci and of libvirt.",
        remedy=(
            "$ mdevdisplay watch {locator}     # needs no change of the VM",
            "for QEMU's console: <hostdev … display='on'> (docs/libvirt.md), then stop and start the VM",
        ),
        source="QEMU hw/vfio/pci.c, property display: ON_OFF_AUTO_OFF",
        aside="QEMU itself does not show this vGPU (display=off)",
    ),
    Cause(
        id="no-egl-headless",
        step="vm",
        ends=Ends.SEEN,
        verdict="{it} needs OpenGL in QEMU to be shown there, and QEMU has none",
        meaning="A vGPU that hands out dma-bufs is shown by QEMU through OpenGL alone: -display egl-headless beside "
        "VNC or SPICE, or a viewer with gl=on.",
        remedy=(
            "$ mdevdisplay watch {locator}     # needs no change of the VM",
            "<graphics type='egl-headless'/> beside the VNC or SPICE one (docs/libvirt.md)",
        ),
        source='QEMU hw/vfio/display.c, vfio_display_dmabuf_init: "opengl not available"',
        aside="QEMU itself has no OpenGL (egl-headless) to show this vGPU with",
    ),
    Cause(
        id="wrong-render-node",
        step="vm",
        ends=Ends.SEEN,
        verdict="QEMU draws {it} with another GPU than the one that it is a part of",
        meaning="A dma-buf of a vGPU can be read by the GPU that exported it alone; rendernode= names another.",
        remedy=("set <gl rendernode='…'/> to the vGPU's own GPU, named in the evidence (docs/libvirt.md)",),
        source="Linux drivers/gpu/drm/i915/gem/i915_gem_dmabuf.c, i915_gem_map_dma_buf; QEMU ui/egl-headless.c",
        aside="QEMU itself draws with another GPU than the vGPU's",
    ),
    Cause(
        id="second-video-device",
        step="vm",
        ends=Ends.SEEN,
        verdict="{it} has another video card beside the vGPU",
        meaning="Each card has a console of its own in QEMU, and viewers open the first one. The guest may use either.",
        remedy=(
            "choose the other console in the viewer (virt-viewer: View, Displays; VNC and noVNC: Ctrl-Alt-2)",
            (
                "or take the emulated card out. libvirt: <video><model type='none'/></video>; OpenStack: "
                "hw_video_model=none; not on Proxmox, whose `vga: none` takes the console away with it"
            ),
        ),
        source="QEMU ui/console.c: one console a card; kubevirt#7208, harvester#6192",
        aside="if your console is black, it is attached to another card of that VM",
    ),
    # --- driver ---
    Cause(
        id="nvidia-disable-vnc",
        step="driver",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its console is switched off by disable_vnc=1",
        meaning="nvidia/vgpu_params of the device has disable_vnc=1, which takes the console away.",
        remedy=(
            "stop the VM, then, as root (this clears every parameter of that vGPU):",
            "$ echo ' ' > {parameters}",
        ),
        source="NVIDIA vGPU software user guide, setting vGPU plugin parameters",
        explains=frozenset({"nothing-displayed", "one-colour", "not-mappable", "not-a-display", "driver-error"}),
    ),
    Cause(
        id="nvidia-console-mapped",
        step="driver",
        ends=Ends.BROKEN,
        verdict="{it} cannot be read: QEMU's display=on holds the one mapping of its console",
        meaning="NVIDIA's driver allows a single mapping of a vGPU's console, whoever makes it.",
        remedy=("set display='off' for the vGPU and stop and start the VM", "or read QEMU's own console"),
        source="NVIDIA vgpu-vfio, vgpu_add_phys_mapping",
        explains=frozenset({"not-mappable", "driver-error"}),
    ),
    Cause(
        id="no-kvm-vm",
        step="driver",
        ends=Ends.BROKEN,
        verdict="{it} opens only inside a VM's own process (GVT-g)",
        meaning="i915's vGPUs want a KVM VM of the opener's process: ESRCH else.",
        remedy=("start the VM and read it there:", "$ sudo mdevdisplay doctor vm:NAME"),
        source="Linux drivers/gpu/drm/i915/gvt/kvmgt.c, intel_vgpu_open_device: ESRCH",
    ),
    Cause(
        id="not-a-display",
        step="driver",
        ends=Ends.BROKEN,
        verdict="{it} is no display: its driver knows neither way of handing out a screen",
        meaning="VFIO_DEVICE_QUERY_GFX_PLANE is refused for dma-bufs and for regions.",
        remedy=("$ mdevdisplay plugins     # is the vendor's backend installed?", _INSIDE),
        source="Linux include/uapi/linux/vfio.h, VFIO_GFX_PLANE_TYPE_PROBE",
    ),
    Cause(
        id="timed-out",
        step="driver",
        ends=Ends.BROKEN,
        verdict="the driver of {it} does not answer",
        meaning="A query hung longer than the time that it was given. NVIDIA's may take 25 seconds.",
        remedy=(
            "$ mdevdisplay doctor --timeout 60 {locator}",
            "$ dmesg | tail",
            "$ cat /proc/{pid}/stack     # as root",
        ),
        source="NVIDIA vgpu-vfio, nv_wait_for_plugin_completion",
    ),
    Cause(
        id="guest-changing-mode",
        step="driver",
        ends=Ends.BROKEN,
        verdict="the driver cannot decode what the guest of {it} set up",
        meaning="Queries fail with EINVAL or EFAULT after a good probe: the guest is setting a mode, or uses a pixel "
        "format that the driver does not know.",
        remedy=("try again in a second", "let the guest use 32 bits a pixel", _MODE),
        source="Linux drivers/gpu/drm/i915/gvt/fb_decoder.c, intel_vgpu_decode_primary_plane",
    ),
    Cause(
        id="bad-surface",
        step="driver",
        ends=Ends.BROKEN,
        verdict="what the driver of {it} reports contradicts itself",
        meaning="Width, height, stride, size and offset do not fit each other or the buffer, so nothing is read.",
        remedy=("try again in a second", "report the numbers to the driver's authors, with --bundle"),
        source="Linux include/uapi/linux/vfio.h, struct vfio_device_gfx_plane_info",
    ),
    Cause(
        id="too-many-buffers",
        step="driver",
        ends=Ends.BROKEN,
        verdict="the guest of {it} flips through more buffers than its driver lets go",
        meaning="Every buffer costs a descriptor that may not be closed; a cap keeps the process alive.",
        remedy=("open the display again; let the guest use fewer buffers",),
        source="Linux samples/vfio-mdev/mbochs.c, mbochs_get_gfx_dmabuf",
    ),
    Cause(
        id="unsafe-dmabuf",
        step="driver",
        ends=Ends.BROKEN,
        verdict="a dma-buf of {it} cannot be taken safely while a VM uses it",
        meaning="A second request for one buffer corrupts the kernel's memory with this driver, and QEMU may have made "
        "the first.",
        remedy=("$ mdevdisplay doctor --backend mbochs {locator}",),
        source="Linux samples/vfio-mdev/mbochs.c, mbochs_get_gfx_dmabuf",
    ),
    Cause(
        id="unknown-driver",
        step="driver",
        ends=Ends.BROKEN,
        verdict="nothing tells which driver {it} has, so no dma-buf is taken from it",
        meaning="Before Linux 6.18 a descriptor does not say whose device it is, and some drivers are harmed.",
        remedy=("name the device by its UUID, or hand its name over with the descriptor",),
        source="Linux drivers/vfio/vfio_main.c, vfio_device_show_fdinfo",
    ),
    Cause(
        id="no-dmabuf",
        step="driver",
        ends=Ends.BROKEN,
        verdict="{it} has no dma-buf: its driver maps a region",
        meaning="The program asked for a dma-buf of a region display.",
        remedy=("use map() or capture()",),
    ),
    Cause(
        id="driver-error",
        step="driver",
        ends=Ends.BROKEN,
        verdict="the driver of {it} refused a request that it should not",
        meaning="The errno and the request are in the evidence.",
        remedy=("$ dmesg | tail", "report it to the driver's authors, with --bundle"),
    ),
    Cause(
        id="ambiguous-backend",
        step="driver",
        ends=Ends.BROKEN,
        verdict="two backends claim {it}",
        meaning="They have the same best score.",
        remedy=("$ mdevdisplay plugins", "choose with --backend NAME"),
    ),
    Cause(
        id="unknown-backend",
        step="driver",
        ends=Ends.USAGE,
        verdict="the backend that was asked for is not there",
        meaning="It is not installed, or did not load.",
        remedy=("$ mdevdisplay plugins",),
    ),
    Cause(
        id="plugin-error",
        step="driver",
        ends=Ends.BROKEN,
        verdict="the backend of {it} broke its contract",
        meaning="It raised something, or returned what it may not.",
        remedy=("$ mdevdisplay plugins", "report it to the backend's authors; choose another with --backend"),
    ),
    # --- guest ---
    Cause(
        id="plane-not-ready",
        step="guest",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its guest set a mode that the driver hands out to nobody",
        meaning="The driver knows the mode, and refuses its size or format.",
        remedy=("let the guest use 32 bits a pixel and a usual size", _MODE),
        source="Linux samples/vfio-mdev/mbochs.c, mbochs_check_framebuffer",
        explains=frozenset({"nothing-displayed"}),
    ),
    Cause(
        id="plane-disabled",
        step="guest",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its guest's driver has most likely switched the screen off",
        meaning="A screen saver, a locked or headless session, another monitor as the only one, or a mode change.",
        remedy=(*_WAKE, "in the guest: make the vGPU's monitor the first one, and forbid it to blank"),
        source="Linux drivers/gpu/drm/i915/gvt/dmabuf.c, vgpu_get_plane_info; PCI command register",
        explains=frozenset({"nothing-displayed"}),
    ),
    Cause(
        id="only-ramfb",
        step="vm",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing on its vGPU yet: firmware and boot loader draw on ramfb, in the VMM's own console",
        meaning="ramfb lies in the guest's memory and is no plane of the vGPU. The vGPU shows its first picture when "
        "the guest's driver has taken it.",
        remedy=(
            "look at QEMU's console until then:",
            "$ virt-viewer --attach {vm}",
            "$ mdevdisplay screenshot {locator} --wait 60",
        ),
        source="QEMU hw/display/ramfb.c; hw/vfio/display.c, vfio_display_dmabuf_update",
        explains=frozenset({"nothing-displayed"}),
    ),
    Cause(
        id="no-vm",
        step="device",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: no VM uses it",
        meaning="The vGPU is free, so there is no guest that could draw on it.",
        remedy=("start the VM that it is for, then: $ mdevdisplay doctor vm:NAME",),
        source="Linux drivers/vfio/group.c: a group opens once, so nobody else has it",
        explains=frozenset({"nothing-displayed"}),
    ),
    # after those that a driver of the guest has brought about: firmware draws no more then
    Cause(
        id="guest-driver-not-loaded",
        step="guest",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: no driver of the guest has taken the vGPU yet",
        meaning="The guest is still in its firmware or boot loader, has no driver for the vGPU, or the driver failed.",
        remedy=(
            "install the vendor's driver in the guest, and see there: `lspci -k`, `dmesg`, or Windows' Device Manager",
            "$ mdevdisplay screenshot {locator} --wait 60",
        ),
        source="PCI command register, bus master bit; mbochs: VBE registers",
        explains=frozenset({"nothing-displayed"}),
    ),
    Cause(
        id="nothing-displayed",
        step="guest",
        ends=Ends.NOTHING,
        verdict="{it} shows nothing: its primary plane is empty",
        meaning="Format, width, height or size is 0: no mode is set, the driver is not loaded, or the screen is off.",
        remedy=("$ mdevdisplay screenshot {locator} --wait 60", *_WAKE),
        source="Linux include/uapi/linux/vfio.h, struct vfio_device_gfx_plane_info",
    ),
    # --- pixels ---
    Cause(
        id="unsupported-format",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="{it} shows a pixel format that cannot be converted",
        meaning="Undecodable pixels are refused, never shown wrong. C8 needs a palette that no driver hands out.",
        remedy=("let the guest use 32 bits a pixel", "a vendor's backend may decode it: docs/decoders.md"),
        source="Linux include/uapi/drm/drm_fourcc.h",
    ),
    Cause(
        id="unsupported-modifier",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="{it} shows pixels in a tiling that cannot be decoded",
        meaning="Compressed (CCS), swizzled and unknown layouts are refused by name.",
        remedy=("a vendor's backend may decode it: docs/decoders.md", "hand the dma-buf to the GPU: docs/gpu.md"),
        source="Linux include/uapi/drm/drm_fourcc.h, fourcc_mod_code",
    ),
    Cause(
        id="no-render-permission",
        step="pixels",
        ends=Ends.NOT_PERMITTED,
        verdict="the picture of {it} can be read by its GPU alone, whose render node you may not open",
        meaning="The dma-buf cannot be mapped by a CPU, and /dev/dri/renderD… refuses you.",
        remedy=("$ sudo usermod -aG render $USER     # then log in again", _AS_ROOT),
        source="EACCES of open(2)",
        explains=frozenset({"not-mappable"}),
    ),
    Cause(
        id="no-render-node",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the picture of {it} can be read by its GPU alone, and that has no render node here",
        meaning="The GPU that exported the buffer is not in /sys/class/drm, or cannot be told from another.",
        remedy=("$ ls -l /dev/dri", "in a container, mount the host's /sys and /dev/dri; docs/gpu.md"),
        source="Linux drivers/gpu/drm/drm_prime.c",
        explains=frozenset({"not-mappable"}),
    ),
    Cause(
        id="no-egl",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the picture of {it} can be read by a GPU alone, and EGL is not installed or has no display",
        meaning="The extra [gpu] takes the system's libEGL and Mesa.",
        remedy=("$ apt install libegl1 libgles2 libegl-mesa0 libgl1-mesa-dri", "docs/gpu.md"),
        source="EGL_MESA_platform_surfaceless, EGL_EXT_platform_device",
        explains=frozenset({"not-mappable"}),
    ),
    Cause(
        id="no-dmabuf-import",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the picture of {it} can be read by a GPU alone, and this EGL imports no dma-bufs",
        meaning="EGL_EXT_image_dma_buf_import or an extension behind it is missing: Mesa before 23 on software "
        "renderers, for instance.",
        remedy=("install a newer Mesa (bookworm-backports has one); docs/gpu.md",),
        source="EGL_EXT_image_dma_buf_import",
        explains=frozenset({"not-mappable"}),
    ),
    Cause(
        id="import-refused",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the GPU of {it} refuses to import its picture",
        meaning="The buffer is another GPU's, or in a layout that this one does not take.",
        remedy=("docs/gpu.md", "report it to the driver's authors, with --bundle"),
        source="eglCreateImageKHR",
        explains=frozenset({"not-mappable"}),
    ),
    Cause(
        id="gpu-failed",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the GPU failed while it read {it} back",
        meaning="OpenGL reported an error, or the context was lost to a reset.",
        remedy=("$ dmesg | tail", "open the display again"),
        source="glGetError, GL_CONTEXT_LOST",
    ),
    Cause(
        id="not-mappable",
        step="pixels",
        ends=Ends.BROKEN,
        verdict="the picture of {it} exists, and the CPU cannot map it",
        meaning="The exporter refuses mappings (GVT-g: ENODEV; mbochs: EINVAL), or the region is taken.",
        remedy=("as the evidence says; reading it by its GPU: docs/gpu.md",),
        source="Linux drivers/gpu/drm/i915/gem/i915_gem_dmabuf.c, i915_gem_dmabuf_mmap; samples/vfio-mdev/mbochs.c",
    ),
    Cause(
        id="nvidia-zero-mode",
        step="pixels",
        ends=Ends.NOTHING,
        verdict="{it} reads as all zero: NVIDIA's R535 driver blanks the console in this mode",
        meaning="Where align128(width * 4) * height is no multiple of 4096, as in 1680x1050, 1600x900 and 800x600, "
        "that driver's console stays zero.",
        remedy=("let the guest use 1920x1080, 1280x720 or 1024x768", "or update NVIDIA's host driver"),
        source="reported by users of 535.161 (host log: mismatch on pixel length)",
        explains=frozenset({"one-colour"}),
    ),
    Cause(
        id="one-colour",
        step="pixels",
        ends=Ends.NOTHING,
        verdict="{it} shows {picture}, every pixel of it {colour}",
        meaning="The picture was read and there is nothing to see in it: a screen saver, a desktop without windows, a "
        "guest that has set a mode and drawn nothing, or a driver that hands out zeros.",
        remedy=(*_WAKE, "$ mdevdisplay screenshot {locator}"),
    ),
    Cause(
        id="unchanged",
        step="pixels",
        ends=Ends.SEEN,
        verdict="{it} shows {picture}, and nothing in it changed for {seconds} s",
        meaning="An idle screen, a paused VM, or a guest that hangs.",
        remedy=("move the mouse, or type", "$ virsh send-key {vm} KEY_LEFTCTRL", "$ virsh domstate {vm}"),
        aside="nothing in it changed for {seconds} s",
    ),
    # --- program ---
    Cause(
        id="worker-died",
        step="program",
        ends=Ends.BROKEN,
        verdict="the process that read {it} died",
        meaning="A crash, a kill or a SIGBUS; it cost this display alone, and the next call starts another.",
        remedy=("$ mdevdisplay doctor --in-process {locator}", "$ journalctl -k | tail     # the OOM killer?"),
    ),
    Cause(
        id="worker-stuck",
        step="program",
        ends=Ends.BROKEN,
        verdict="the process that reads {it} is stuck, most likely inside the driver",
        meaning="It did not answer and was killed.",
        remedy=("$ dmesg | tail", "$ mdevdisplay doctor --timeout 60 {locator}"),
    ),
    Cause(
        id="worker-misbehaved",
        step="program",
        ends=Ends.BROKEN,
        verdict="the process that reads {it} answered nonsense and was killed",
        meaning="What a worker says is checked like what a guest says.",
        remedy=("report it, with --bundle",),
    ),
    Cause(
        id="no-worker",
        step="program",
        ends=Ends.BROKEN,
        verdict="no process could be started to read {it}",
        meaning="Out of memory, of processes or of descriptors, or the Python is not executable.",
        remedy=("$ ulimit -a", "$ mdevdisplay doctor --in-process {locator}"),
    ),
    Cause(
        id="isolated",
        step="program",
        ends=Ends.BROKEN,
        verdict="an isolated display has no device in this program",
        meaning="A device's descriptor never leaves the process that reads it.",
        remedy=("open it with isolated=False",),
    ),
    Cause(
        id="closed",
        step="program",
        ends=Ends.BROKEN,
        verdict="the display was closed before",
        meaning="A call came after close().",
        remedy=("open it again",),
    ),
    Cause(
        id="probe-failed",
        step="program",
        ends=Ends.BROKEN,
        verdict="a part of the examination of {it} did not come to an end",
        meaning="A probe of the host took longer than its time, or met something that it did not expect.",
        remedy=("report it, with --bundle",),
    ),
    Cause(
        id="cannot-write",
        step="program",
        ends=Ends.BROKEN,
        verdict="a file could not be written",
        meaning="The disk is full, the folder is not yours, or what is there is a link or no regular file.",
    ),
    Cause(
        id="no-output",
        step="program",
        ends=Ends.BROKEN,
        verdict="standard output takes nothing",
        meaning="It is closed, or on a full disk.",
    ),
    Cause(
        id="usage",
        step="program",
        ends=Ends.USAGE,
        verdict="the command was not understood",
        meaning="An option or argument is wrong.",
    ),
    Cause(
        id="error",
        step="program",
        ends=Ends.BROKEN,
        verdict="something went wrong that has no name yet",
        meaning="An error without a cause of its own.",
        remedy=("report it, with --bundle",),
    ),
)
"""The table."""

BY_ID = {cause.id: cause for cause in CAUSES}
"""The table by id."""


def find_cause(name: str) -> Cause:
    """Return the cause of an id; the one without a name for an id that is in no table, as a backend may bring."""
    return BY_ID.get(name, BY_ID["error"])
