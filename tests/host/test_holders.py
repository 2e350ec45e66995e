"""Who holds which VFIO device: fake processes of every kind, and the real ones of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixels.holdings import eventually

from host.fake_processes import DEVICE, FakeProcesses
from mdevdisplay.host import HostRoot, find_holder, find_holders, named
from mdevdisplay.host.holders import HeldDevice, HeldGroup, Holder, name_of_descriptor, scan
from mdevdisplay.host.processes import Process, pids
from mdevdisplay.host.vmm import Vm
from mdevdisplay.testing import FakeKernel, Gvt, Mbochs, Mdpy, Nvidia
from mdevdisplay.testing.sysfs import Sysfs

UUID = "48888226-7b6b-415c-bcf7-b278ba0bca62"


@pytest.fixture
def processes(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> FakeProcesses:
    return FakeProcesses(kernel.path, monkeypatch)


@pytest.fixture
def root(kernel: FakeKernel) -> HostRoot:
    return HostRoot.from_environment()


def qemu(name: str, *devices: str) -> list[str]:
    options = [word for device in devices for word in ("-device", device)]
    return ["/usr/bin/qemu-system-x86_64", "-name", f"guest={name},debug-threads=on", *options]


def mdev(name: str) -> str:
    return f"vfio-pci,sysfsdev=/sys/bus/mdev/devices/{name}"


def only(root: HostRoot) -> Holder:
    [holder] = find_holders(root)
    return holder


# --- which device a descriptor is, by each of the ways ---


def test_the_kernel_tells_by_fdinfo(processes: FakeProcesses, root: HostRoot) -> None:
    """Linux 6.18: exact for every descriptor, whatever else is known."""
    paths = {21: f"/sys/devices/pci0000:00/0000:41:00.0/{UUID}", 22: "/sys/devices/pci0000:00/0000:41:00.4"}
    processes.add(4242, qemu("win10"), dict.fromkeys(paths, DEVICE), fdinfo=paths, uid=107, start=7_000)
    assert only(root) == Holder(
        pid=4242,
        uid=107,
        command="qemu-system-x86_64",
        start_time=7_000,
        vm=Vm(name="win10", kind="qemu"),
        devices=(
            HeldDevice(fd=21, name=UUID, known_by="fdinfo"),
            HeldDevice(fd=22, name="0000:41:00.4", known_by="fdinfo"),
        ),
    )


def test_a_devices_own_node_is_known_by_its_number(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot
) -> None:
    """Not by its path: in another mount namespace, or deleted, vfio0 may be any device."""
    first, second = kernel.add(Mdpy()), kernel.add(Mbochs())
    links = [
        processes.cdev(kernel.sysfs, second, "/dev/vfio/devices/vfio0"),
        processes.cdev(kernel.sysfs, first, "/srv/jail/dev/vfio/devices/vfio1 (deleted)"),
    ]
    processes.add(4242, qemu("win10"), {20: links[0], 11: links[1]})
    assert only(root).devices == (
        HeldDevice(fd=11, name=first.name, known_by="cdev"),
        HeldDevice(fd=20, name=second.name, known_by="cdev"),
    )


def test_the_group_tells_where_it_has_one_device(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """One unknown descriptor, one group with one device: that is it."""
    driver = kernel.add(Mdpy())
    group = processes.group(kernel.sysfs, driver.group)
    processes.add(4242, ["vmm"], {9: "/dev/vfio/vfio", 10: group, 12: DEVICE})
    holder = only(root)
    assert holder.devices == (HeldDevice(fd=12, name=driver.name, known_by="group"),)
    assert holder.groups == (HeldGroup(fd=10, number=str(driver.group), devices=(driver.name,)),)
    assert holder.others == ()


def test_a_groups_node_is_known_by_its_number_too(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """A path that says 1 may be group 2, and a group without IOMMU is one all the same."""
    first, second = kernel.add(Mdpy()), kernel.add(Mbochs())
    processes.add(
        11, qemu("a"), {10: processes.group(kernel.sysfs, second.group, f"/dev/vfio/{first.group}"), 12: DEVICE}
    )
    link = processes.group(kernel.sysfs, f"noiommu-{first.group}")
    processes.add(12, qemu("b"), {10: link, 12: DEVICE})
    assert [holder.devices[0].name for holder in find_holders(root)] == [second.name, first.name]


def test_the_command_line_tells_which_of_a_groups_devices(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot
) -> None:
    """A graphics card and its sound in one group: the one that is named, as one descriptor is open."""
    card, sound = Nvidia("0000:41:00.4", pci=True), Nvidia("0000:41:00.5", pci=True)
    kernel.add(card)
    kernel.add(sound)
    devices = kernel.sysfs.path / "kernel/iommu_groups" / str(card.group) / "devices"
    (devices / sound.name).symlink_to(os.path.relpath(kernel.sysfs.device(sound), devices))
    group = processes.group(kernel.sysfs, card.group)
    processes.add(4242, qemu("win10", f"vfio-pci,host={sound.name}"), {10: group, 12: DEVICE})
    assert only(root).devices == (HeldDevice(fd=12, name=sound.name, known_by="command line"),)
    processes.add(
        4243, qemu("both", f"vfio-pci,host={sound.name}", f"vfio-pci,host={card.name}"), {10: group, 12: DEVICE}
    )
    both = find_holders(root)[1]
    assert both.devices == (HeldDevice(fd=12),)
    assert both.others == ()


def test_the_command_line_alone_tells_one_device(processes: FakeProcesses, root: HostRoot) -> None:
    """Nothing else is known, one descriptor is open and one device named."""
    processes.add(4242, qemu("win10", mdev(UUID)), {12: DEVICE})
    assert only(root).devices == (HeldDevice(fd=12, name=UUID, known_by="command line"),)


def test_a_group_that_sysfs_does_not_describe_tells_nothing(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot
) -> None:
    """It has no folder of devices: the descriptor is unknown."""
    processes.add(4242, qemu("win10"), {10: processes.group(kernel.sysfs, 99), 12: DEVICE})
    assert only(root).devices == (HeldDevice(fd=12),)
    assert only(root).groups == (HeldGroup(fd=10, number="99"),)


def test_what_was_plugged_out_is_not_taken_for_what_is_there(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot
) -> None:
    """The command line says what was there at the start; the groups say what is."""
    old, new = kernel.add(Mdpy()), kernel.add(Mbochs())
    group = processes.group(kernel.sysfs, new.group)
    processes.add(4242, qemu("win10", mdev(old.name)), {10: group, 12: DEVICE})
    assert only(root).devices == (HeldDevice(fd=12, name=new.name, known_by="group"),)


def test_an_order_proves_nothing(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Two descriptors, two groups, two named devices, all in the same order: both unknown, both held for certain."""
    first, second = kernel.add(Mdpy()), kernel.add(Mbochs())
    fds = {10: processes.group(kernel.sysfs, first.group), 11: DEVICE}
    fds |= {12: processes.group(kernel.sysfs, second.group), 13: DEVICE}
    processes.add(4242, qemu("win10", mdev(first.name), mdev(second.name)), fds)
    holder = only(root)
    assert holder.devices == (HeldDevice(fd=11), HeldDevice(fd=13))
    assert holder.others == tuple(sorted([first.name, second.name]))
    assert holder.holds(first.name)
    assert holder.holds(second.name)
    assert not holder.holds("")
    assert not holder.holds(UUID)


def test_what_is_left_over_is_known(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Two of three are told exactly, so the third follows."""
    one, two, three = kernel.add(Mdpy()), kernel.add(Mbochs()), kernel.add(Gvt())
    fds = {
        number: processes.group(kernel.sysfs, driver.group) for number, driver in ((10, one), (11, two), (12, three))
    }
    fds |= {20: DEVICE, 21: DEVICE, 22: processes.cdev(kernel.sysfs, two, "/dev/vfio/devices/vfio1")}
    processes.add(4242, qemu("win10"), fds, fdinfo={20: f"/sys/devices/x/{three.name}"})
    assert [(device.fd, device.name, device.known_by) for device in only(root).devices] == [
        (20, three.name, "fdinfo"),
        (21, one.name, "group"),
        (22, two.name, "cdev"),
    ]


def test_a_reader_that_was_handed_a_descriptor_knows_no_device(processes: FakeProcesses, root: HostRoot) -> None:
    """Before Linux 6.18 nothing tells: unknown, and not the VMM's."""
    processes.add(99, ["python3", "-m", "mdevdisplay"], {12: DEVICE})
    holder = only(root)
    assert holder.devices == (HeldDevice(fd=12),)
    assert holder.vm == Vm(aliases=("python3",))


def test_forty_descriptors_in_one_process(processes: FakeProcesses, root: HostRoot) -> None:
    """In order of their numbers, as numbers."""
    paths = {fd: f"/sys/devices/x/0000:41:{fd % 32:02x}.{fd // 32}" for fd in range(90, 130)}
    processes.add(4242, qemu("big"), dict.fromkeys(reversed(paths), DEVICE), fdinfo=paths)
    devices = only(root).devices
    assert [device.fd for device in devices] == list(range(90, 130))
    assert all(device.known_by == "fdinfo" for device in devices)


@pytest.mark.parametrize(
    "link",
    [
        "/dev/vfio/vfio",
        "/dev/vfio/7",
        "/dev/vfio/devices/vfio7",
        "/tmp/vfio/7",
        "/home/me/vfio-device",
        "anon_inode:[vfio-devices]",
        "/tmp/anon_inode:[vfio-device]",
        "anon_inode:vfio-device",
    ],
)
def test_files_that_only_look_like_devices_are_none(processes: FakeProcesses, root: HostRoot, link: str) -> None:
    """Other files of those names, and nodes whose numbers sysfs does not know."""
    processes.add(4242, qemu("win10", mdev(UUID)), {12: link})
    assert find_holders(root) == []


# --- whose they are ---


def test_vmms_come_first_the_oldest_of_them_before(processes: FakeProcesses, root: HostRoot) -> None:
    """A reader that duplicated a descriptor never hides the VMM that owns it."""
    processes.add(10, ["python3"], {12: DEVICE}, start=1)
    processes.add(11, qemu("young"), {12: DEVICE}, start=900)
    processes.add(12, qemu("old"), {12: DEVICE}, start=30)
    assert [holder.pid for holder in find_holders(root)] == [12, 11, 10]


def test_two_vms_of_one_name_are_both_found(processes: FakeProcesses, root: HostRoot) -> None:
    """By name, by number, by UUID; a process that is none gives way to a VM of its name."""
    processes.add(11, ["kvm", "-id", "101", "-name", "win10", "-uuid", UUID], {12: DEVICE})
    processes.add(12, qemu("win10"), {12: DEVICE})
    processes.add(13, ["/opt/win10"], {12: DEVICE})
    holders = find_holders(root)
    assert [holder.pid for holder in named(holders, "win10")] == [11, 12]
    assert [holder.pid for holder in named(holders, "101")] == [11]
    assert [holder.pid for holder in named(holders, UUID.upper())] == [11]
    assert [holder.pid for holder in named(holders[2:], "win10")] == [13]
    assert named(holders, "") == []


def test_qemu_is_known_by_its_program_too(processes: FakeProcesses, root: HostRoot) -> None:
    """Where the first word was made something else."""
    words = ["guest", *qemu("win10")[1:]]
    processes.add(4242, words, {12: DEVICE}, exe="/usr/bin/qemu-system-x86_64 (deleted)")
    assert only(root).vm.name == "win10"
    assert only(root).command == "guest"


def test_a_name_may_have_any_bytes(processes: FakeProcesses, root: HostRoot) -> None:
    """They come as os.fsdecode makes them text; a terminal is somebody else's matter."""
    processes.add(4242, [b"qemu-kvm", b"-name", b"guest=\xff\x1b[2J\n"], {12: DEVICE}, comm="\udcff)\x1b")
    assert only(root).vm.name == "\udcff\x1b[2J\n"


def libvirt(root: HostRoot, pid: int, *, uuid: str = UUID) -> None:
    folder = root.run / "libvirt/qemu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{pid}.xml").write_text(
        f"<domstatus pid='{pid}'><domain><name>instance-1</name><uuid>{uuid}</uuid><title>Web</title><metadata>"
        "<i:instance xmlns:i='http://openstack.org/xmlns/libvirt/nova/1.1'><i:name>web-1</i:name></i:instance>"
        "</metadata></domain></domstatus>"
    )


def test_libvirt_adds_the_names_that_people_know(processes: FakeProcesses, root: HostRoot) -> None:
    """Nova's instance answers to its name in OpenStack, to libvirt's and to its title."""
    processes.add(4242, [*qemu("instance-1"), "-uuid", UUID], {12: DEVICE})
    libvirt(root, 4242)
    assert only(root).vm == Vm(name="instance-1", uuid=UUID, kind="qemu", aliases=("Web", "web-1"))


def test_libvirt_knows_qemu_in_a_wrapper(processes: FakeProcesses, root: HostRoot) -> None:
    """An emulator of any name, whose words have the UUID that libvirt gave it."""
    processes.add(4242, ["/usr/local/bin/start-vm", "-name", "guest=instance-1", "-uuid", UUID], {12: DEVICE})
    libvirt(root, 4242)
    vm = only(root).vm
    assert (vm.kind, vm.name, vm.uuid) == ("qemu", "instance-1", UUID)


def test_libvirt_names_what_has_no_name(processes: FakeProcesses, root: HostRoot) -> None:
    """The command is an alias no more."""
    processes.add(4242, ["qemu-kvm", "-uuid", UUID], {12: DEVICE})
    libvirt(root, 4242)
    assert only(root).vm == Vm(name="instance-1", uuid=UUID, kind="qemu", aliases=("Web", "web-1"))


@pytest.mark.parametrize("words", [[*qemu("other"), "-uuid", UUID.replace("4", "5")], qemu("other"), ["python3"]])
def test_an_old_file_of_libvirts_names_nobody_else(processes: FakeProcesses, root: HostRoot, words: list[str]) -> None:
    """After a crash it stays, and its number may be another process's: without the same UUID it is not believed."""
    processes.add(4242, words, {12: DEVICE})
    libvirt(root, 4242)
    vm = only(root).vm
    assert vm.name in ("other", "")
    assert not vm.matches("web-1")


# --- processes that we may not look at, and those that go ---


def test_a_closed_vmm_is_known_by_its_command_line(
    processes: FakeProcesses, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users' VMMs are among the holders if they name devices; other users' other processes are not."""
    processes.add(11, [*qemu("win10", mdev(UUID), "vfio-pci,host=01:00.0"), "-append", "x" * 5000], uid=107)
    processes.add(12, qemu("plain"), {12: DEVICE})
    processes.add(13, ["postgres", "-name", "win10"], {12: DEVICE})
    processes.close_to_us(monkeypatch, 11, 12, 13)
    holder = only(root)
    assert (holder.pid, holder.uid, holder.vm.name, holder.readable) == (11, 107, "win10", False)
    assert holder.devices == (
        HeldDevice(fd=-1, name=UUID, known_by="command line"),
        HeldDevice(fd=-1, name="0000:01:00.0", known_by="command line"),
    )
    closed = find_holder(root, 13)
    assert closed is not None
    assert (closed.readable, closed.devices, closed.command) == (False, (), "postgres")


def test_one_process_is_found_by_its_number(processes: FakeProcesses, root: HostRoot) -> None:
    """With what it holds, be that nothing; a thread's number is its process's."""
    processes.add(11, qemu("win10"), {12: DEVICE}, uid=5)
    processes.add(12, qemu("none"), uid=6, start=44)
    processes.add(13, qemu("thread"), leader=11)
    processes.add(14, ["broken"], leader=9999)
    found = find_holder(root, 11)
    assert found == find_holders(root)[0]
    assert find_holder(root, 13) == found
    assert find_holder(root, 14) is None
    assert find_holder(root, 9999) is None
    none = find_holder(root, 12)
    assert none is not None
    assert (none.vm.name, none.devices, none.uid, none.start_time) == ("none", (), 6, 44)


@pytest.mark.parametrize("gone", ["fd", "cmdline", "fdinfo", "status", "stat", "comm"])
def test_a_process_may_go_at_any_step(processes: FakeProcesses, root: HostRoot, gone: str) -> None:
    """Half of it is there: what is left is told, or it is left out; the others are found."""
    path = processes.add(11, qemu("going"), {12: DEVICE}, fdinfo={12: f"/sys/x/{UUID}"})
    processes.add(12, qemu("stays"), {12: DEVICE})
    (path / gone).rename(path / "away")
    assert "stays" in [holder.vm.name for holder in find_holders(root)]
    find_holder(root, 11)


def test_a_descriptor_may_be_closed_meanwhile(
    processes: FakeProcesses, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing and reading; one whose process ends takes its whole list with it, as ESRCH says."""
    processes.add(11, qemu("a"), {12: DEVICE, 13: DEVICE})
    processes.add(12, qemu("b"), {14: DEVICE})
    real = os.readlink

    def readlink(path: str, *, dir_fd: int | None = None) -> str:
        if path == "13":
            raise FileNotFoundError(2, "closed")
        if path == "14":
            raise ProcessLookupError(3, "ended")
        return real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", readlink)
    assert only(root).devices == (HeldDevice(fd=12),)


def test_a_scan_is_complete_only_with_the_whole_host_in_sight(
    kernel: FakeKernel, processes: FakeProcesses, root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that we may not look at, or a container's /proc: somebody unseen may hold a device."""
    processes.add(11, ["bash"])
    assert scan(root).complete
    with monkeypatch.context() as context:
        processes.close_to_us(context, 11)
        assert not scan(root).complete
    (processes.proc / "1/ns/pid").unlink()
    assert not scan(root).complete
    (processes.proc / "1/ns/pid").symlink_to("pid:[4026532501]")
    assert not scan(root).complete


def test_a_host_without_proc_has_no_holders(tmp_path: Path) -> None:
    """Nor is that the whole truth."""
    assert find_holders(HostRoot(tmp_path)) == []
    assert not scan(HostRoot(tmp_path)).complete
    assert find_holder(HostRoot(tmp_path), 1) is None


def test_an_open_group_is_held_without_a_device(kernel: FakeKernel, processes: FakeProcesses, root: HostRoot) -> None:
    """Its device is taken, though there is no descriptor of one yet."""
    driver = kernel.add(Mdpy())
    processes.add(11, qemu("starting"), {10: processes.group(kernel.sysfs, driver.group)})
    assert find_holders(root) == []
    [holder] = scan(root).holders
    assert holder.holds(driver.name)


@given(data=st.data())
def test_no_process_stops_the_others(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bytes in every file of a process."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as context:
        processes = FakeProcesses(folder, context)
        path = processes.add(11, qemu("any"), {12: DEVICE})
        for name in ("cmdline", "comm", "status", "stat", "fdinfo/12"):
            (path / name).write_bytes(data.draw(st.binary(max_size=80), name))
        processes.add(12, qemu("stays"), {12: DEVICE})
        found = find_holders(HostRoot(folder))
    assert "stays" in [holder.vm.name for holder in found]
    assert [holder.pid for holder in found if holder.pid == 11] in ([11], [])


# --- this process's own descriptors ---


def test_a_descriptor_of_ours_is_named(
    kernel: FakeKernel, root: HostRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By fdinfo where the kernel tells, else by the number of its node; else not at all."""
    driver = kernel.add(Mdpy())
    processes = FakeProcesses(kernel.path, monkeypatch)
    processes.add(77, ["me"], fdinfo={3: f"/sys/devices/x/{UUID}"})
    (processes.proc / "self").symlink_to("77")
    assert name_of_descriptor(root, 3) == UUID
    assert name_of_descriptor(root, 0) == ""
    assert name_of_descriptor(root, 999) == ""
    assert name_of_descriptor(HostRoot(tmp_path / "without-proc"), 0) == ""
    null = Path("/dev/null").stat()
    number = f"{os.major(null.st_rdev)}:{os.minor(null.st_rdev)}"
    [own] = (kernel.sysfs.device(driver) / "vfio-dev").iterdir()
    (kernel.sysfs.path / "dev/char").mkdir(parents=True)
    (kernel.sysfs.path / "dev/char" / number).symlink_to(own)
    with Path("/dev/null").open("rb") as file:
        assert name_of_descriptor(root, file.fileno()) == driver.name


# --- the real /proc of this machine ---

REAL = HostRoot()


def test_a_real_process_with_any_bytes_in_its_words() -> None:
    """Its command line, owner and start are read; a name in another encoding is text, not an error."""
    name = b"guest=\xff\xfe\x1b[31m,,\n"
    words = [b"qemu-system-x86_64", b"-c", b"print(1, flush=True); import time; time.sleep(60)", b"-name", name]
    with subprocess.Popen(words, executable=os.fsencode(sys.executable), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            found = find_holder(REAL, process.pid)
            with Process(REAL.proc, process.pid) as seen:
                assert seen.command_line() == tuple(map(os.fsdecode, words))
                assert seen.program() == Path(sys.executable).resolve().name
                assert dict(seen.open_files())[1].startswith("pipe:[")
                assert seen.device_number(0) is None or seen.device_number(0) != (0, 0)
        finally:
            process.kill()
    assert found is not None
    assert found.vm.name == "\udcff\udcfe\x1b[31m,\n"
    assert (found.uid, found.devices, found.readable) == (os.getuid(), (), True)
    assert found.start_time > 0
    assert find_holder(REAL, process.pid) is None


def test_a_process_that_ends_is_not_taken_for_its_successor() -> None:
    """What was opened stays that process: once it has ended every answer is empty or an error."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child, Process(REAL.proc, child.pid) as seen:
        assert eventually(lambda: seen.command_line() == ("cat",))  # the kernel sets it after it has closed our pipe
        child.kill()
        child.wait()
        assert seen.command_line() == ()
        assert seen.comm() == ""
        assert seen.start_time() == 0
        assert seen.uid() == -1
        with pytest.raises(OSError, match="No such"):
            list(seen.open_files())


def test_processes_that_come_and_go_during_a_scan() -> None:
    """A few hundred of them while this machine is scanned: no error, and no descriptor left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    spawner = subprocess.Popen(["sh", "-c", "while :; do /bin/true & /bin/true; done"], start_new_session=True)
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert all(isinstance(holder, Holder) for holder in find_holders(REAL))
    finally:
        os.killpg(spawner.pid, signal.SIGKILL)
        spawner.wait()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_threads_number_is_its_process() -> None:
    """As Linux lets /proc/TID be opened though it lists it nowhere."""
    code = (
        "import threading, time; t = threading.Thread(target=time.sleep, args=(60,), daemon=True); t.start(); "
        "print(t.native_id, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        thread = int(process.stdout.readline())
        found, by_thread = find_holder(REAL, process.pid), find_holder(REAL, thread)
        process.kill()
    assert thread != process.pid
    assert found == by_thread
    assert found is not None
    assert found.pid == process.pid


def test_every_process_of_this_machine_is_seen_or_said_to_be_closed() -> None:
    """This one among them."""
    assert os.getpid() in pids(REAL.proc)
    own = find_holder(REAL, os.getpid())
    assert own is not None
    assert own.readable
    assert own == attrs.evolve(own, uid=os.getuid())


def test_a_kernels_sysfs_without_numbers_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose number sysfs does not have, or has as something else, is no device."""
    processes = FakeProcesses(tmp_path, monkeypatch)
    sysfs = Sysfs(tmp_path / "sys")
    link = processes.group(sysfs, 7)
    for path in (tmp_path / "sys/dev/char").iterdir():
        path.unlink()
        path.symlink_to("nowhere")
    processes.add(11, qemu("a"), {10: link})
    assert scan(HostRoot(tmp_path)).holders == ()
