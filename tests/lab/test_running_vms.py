"""The screens of VMs that run: real QEMU on the real drivers, looked at from outside, unnoticed."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from lab_support import CLASS, MDEVS, let_everybody_execute, open_descriptors, remove_mdev, run_cli
from lab_vm import Vm, expected_picture, ready

import mdevdisplay
from mdevdisplay import Blank, Frame, VmGone
from mdevdisplay.errors import LocatorError, MdevDisplayError

pytestmark = pytest.mark.timeout(400)

NOBODY = 65534
LAUNCHER = Path(__file__).parents[2] / "examples/hand_over.py"


@attrs.frozen
class Running:
    """Two VMs with one vGPU each."""

    bochs: Vm
    mdpy: Vm


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Both run at once: one called as libvirt does, one as by hand with the device in JSON and QEMU's own display."""
    with ExitStack() as stack:
        bochs = Vm(["mbochs-medium"], name="guest=win10,debug-threads=on", uuid="44cc0626-0a5f-4a5e-8f9b-7f9c1f4b3b01")
        stack.callback(bochs.close)
        mdpy = Vm(["mdpy-xga"], name="console", display="on", spelling="json")
        stack.callback(mdpy.close)
        ready(bochs, mdpy)
        yield Running(bochs, mdpy)


@contextmanager
def unnoticed(*vms: Vm) -> Iterator[None]:
    """Whatever happens inside, the guests' hearts beat on and QEMU has nothing to say."""
    since = time.monotonic()
    yield
    for vm in vms:
        assert vm.longest_gap(since) < 5
        assert vm.log() == []


def screenshot(*arguments: str, user: int | None = None) -> npt.NDArray[np.uint8]:
    """What the command line saves, as (height, width, 3) R, G, B."""
    result = run_cli("screenshot", *arguments, "-o", "-", user=user)
    assert result.returncode == 0, result.stderr.decode()
    return np.asarray(PIL.Image.open(io.BytesIO(result.stdout)))


def shown(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """What a guest drew, as (height, width, 3) R, G, B."""
    return expected_picture(seed, width, height)[..., 2::-1]


def vfio_links(pid: int) -> list[str]:
    """What a process holds of VFIO."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(entry.readlink()))
    return [link for link in links if "vfio" in link]


def workers(pid: int) -> list[int]:
    """A process's children that run Python: the readers of its isolated displays, and no VMs."""
    words = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for line in words for child in line if "python" in str(Path(f"/proc/{child}/exe").readlink())]


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


class TestPictures:
    """Every pixel that a guest drew, and no other."""

    def test_a_bochs_guest_draws_changes_its_mode_and_draws_again(self, running: Running) -> None:
        """Both pictures come out of vm:NAME by the command line, and every byte of them by the API."""
        vm = running.bochs
        with unnoticed(vm, running.mdpy):
            for seed, (width, height) in enumerate([(1024, 768), (800, 600)], start=51):
                vm.mode(width, height)
                vm.picture(seed)
                assert np.array_equal(screenshot("vm:win10"), shown(seed, width, height))
                with mdevdisplay.open("vm:win10") as display:
                    assert np.array_equal(display.capture().raw, expected_picture(seed, width, height))

    def test_the_same_display_follows_a_change_of_mode(self, running: Running) -> None:
        """One that is open already."""
        vm = running.bochs
        with unnoticed(vm), mdevdisplay.open("vm:win10", timeout=30) as display:
            for seed, (width, height) in enumerate([(640, 480), (1280, 1024)], start=61):
                vm.mode(width, height)
                vm.picture(seed)
                assert np.array_equal(display.capture(wait=20).raw, expected_picture(seed, width, height))

    @pytest.mark.parametrize("isolated", [False, True])
    def test_damage_adds_up_while_a_guest_draws(self, running: Running, isolated: bool) -> None:
        """A consumer that paints nothing but the damage of each frame ends with the guest's picture."""
        vm = running.bochs
        vm.mode(800, 600)
        vm.picture(65)
        with (
            unnoticed(vm),
            mdevdisplay.open("vm:win10", isolated=isolated, timeout=60) as display,
            display.frames(max_fps=60) as stream,
        ):
            first = next(stream)
            assert isinstance(first, Frame)
            painted = first.pixels.copy()
            drawing = threading.Thread(target=vm.picture, args=(66,))
            drawing.start()
            goal = expected_picture(66, 800, 600)[..., :3]
            deadline = time.monotonic() + 60
            while not np.array_equal(painted[..., :3], goal):
                assert time.monotonic() < deadline
                frame = next(stream)
                assert isinstance(frame, Frame)
                for rect in frame.damage:
                    place = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
                    painted[place] = frame.pixels[place]
                assert np.array_equal(painted, frame.pixels)
            drawing.join()
            assert display.capture().serial >= first.serial + 1
            assert display.damage_since(display.capture().serial) == ()

    def test_an_mdpy_guest_with_qemus_display_on(self, running: Running) -> None:
        """Through region_cap; QEMU's own screendump is the same picture."""
        vm = running.mdpy
        with unnoticed(vm):
            vm.picture(71)
            picture = screenshot("vm:console")
            assert np.array_equal(picture, shown(71, 1024, 768))
            assert np.array_equal(picture, vm.screendump())

    @pytest.mark.parametrize("isolated", [False, True])
    def test_by_every_name(self, running: Running, isolated: bool) -> None:
        """All find the same screen, and none asks mbochs for a dma-buf, which could crash the kernel."""
        vm = running.bochs
        vm.mode(640, 480)
        vm.picture(81)
        uuid = vm.mdevs[0]
        names = [uuid, f"mdev_{uuid.replace('-', '_')}", "vm:win10", "win10", f"pid:{vm.pid}"]
        names.append("vm:44cc0626-0a5f-4a5e-8f9b-7f9c1f4b3b01")
        with unnoticed(vm):
            for name in names:
                with mdevdisplay.open(name, isolated=isolated, timeout=60) as display:
                    assert display.borrowed
                    assert display.identity.name == uuid
                    assert np.array_equal(display.capture().raw, expected_picture(81, 640, 480))
                    with pytest.raises(MdevDisplayError) as caught:
                        display.dmabuf()
                    assert caught.value.cause == "unsafe-dmabuf"


class TestList:
    """Who uses what."""

    def test_every_device_with_its_vm(self, running: Running) -> None:
        """From sysfs and /proc alone; --probe asks the devices."""
        running.mdpy.picture(91)
        rows = {row["locator"]: row for row in json.loads(run_cli("list", "--json").stdout)["devices"]}
        for vm, name in ((running.bochs, "win10"), (running.mdpy, "console")):
            row = rows[vm.mdevs[0]]
            assert (row["vm"], row["pid"], row["state"]) == (name, vm.pid, "in use")
        probed = json.loads(run_cli("list", "--json", "--probe").stdout)["devices"]
        answer = next(row["probe"] for row in probed if row["locator"] == running.mdpy.mdevs[0])
        assert (answer["backend"], answer["width"], answer["height"]) == ("region_cap", 1024, 768)
        print(run_cli("list", "--probe").stdout.decode())


def test_one_vm_with_two_vgpus() -> None:
    """Each descriptor is matched to the right device, also where the kernel does not say which is which."""
    with Vm(["mdpy-vga", "mbochs-small"], name="two,debug-threads=on", display="off") as vm, unnoticed(vm):
        vm.picture(101, 0)
        vm.mode(800, 600, 1)
        vm.picture(102, 1)
        pictures = {vm.mdevs[0]: (101, 640, 480), vm.mdevs[1]: (102, 800, 600)}
        for name, drawn in pictures.items():
            assert np.array_equal(screenshot(name), shown(*drawn))
        for number, name in enumerate(sorted(pictures)):
            with mdevdisplay.open(f"vm:two/{number}") as display:
                assert display.identity.name == name
                assert np.array_equal(display.capture().raw, expected_picture(*pictures[name]))
        with pytest.raises(LocatorError, match="has 2 displays"):
            mdevdisplay.open("vm:two")
        rows = {row["locator"]: row for row in json.loads(run_cli("list", "--json").stdout)["devices"]}
        assert {rows[name]["vm"] for name in pictures} == {"two"}


class TestTheEnd:
    """QEMU is killed while somebody reads."""

    @pytest.mark.parametrize("isolated", [False, True])
    def test_everything_is_let_go(self, isolated: bool) -> None:
        """One frame and one view are still held; the device can be removed within two seconds, and used again."""
        vm = Vm(["mdpy-vga"], name="mortal")
        with vm:
            vm.picture(111)
            before = open_descriptors()  # the VM's own included
            name = vm.mdevs[0]
            with mdevdisplay.open("vm:mortal", isolated=isolated, timeout=60) as display, ExitStack() as views:
                frame = display.capture()
                view = frame.raw if isolated else views.enter_context(display.map())
                with display.frames(max_fps=200, repeat=True) as stream:
                    for _ in range(5):
                        assert isinstance(next(stream), Frame)
                    os.kill(vm.pid, signal.SIGKILL)
                    with pytest.raises(VmGone, match="mortal"):
                        deque(itertools.islice(stream, 5_000), maxlen=0)
                vm.kill()
                begin = time.monotonic()
                assert remove_mdev(name)
                assert time.monotonic() - begin < 2
                assert not (MDEVS / name).exists()
                assert np.array_equal(frame.raw, expected_picture(111, 640, 480))
                assert view.shape == (480, 640, 4)
                with pytest.raises(VmGone):
                    display.surface()
                (CLASS / "mdpy/mdev_supported_types/mdpy-vga/create").write_text(name)
                with mdevdisplay.open(name) as again:
                    assert not again.borrowed
                    assert again.capture().width == 640
            assert eventually(lambda: not workers(os.getpid()))
            assert vfio_links(os.getpid()) == []
            assert open_descriptors() == before

    def test_it_comes_back(self) -> None:
        """The VM is started again, and the display goes on."""
        with Vm(["mdpy-vga"], name="phoenix") as vm:
            vm.picture(121)
            with mdevdisplay.open("vm:phoenix", reconnect=True, timeout=60) as display:
                first = display.capture()
                vm.kill()
                with display.frames(max_fps=20) as stream:
                    blank = next(picture for picture in stream if isinstance(picture, Blank))
                    assert blank.cause == "vm-gone"
                with Vm(vm.mdevs, name="phoenix") as again:
                    again.picture(122)
                    frame = display.capture(wait=60)
                    assert np.array_equal(frame.raw, expected_picture(122, 640, 480))
                    assert frame.serial > first.serial


class TestOtherUsers:
    """Who may see what."""

    def test_without_a_privilege(self, running: Running) -> None:
        """Exit status 4 and the right reason; the list still says whose VM it is."""
        let_everybody_execute(sys.executable)
        for locator in ("vm:win10", running.bochs.mdevs[0]):
            result = run_cli("screenshot", locator, "-o", "-", user=NOBODY)
            assert result.returncode == 4, result.stderr
            assert b"[trace-other-user]" in result.stderr
            assert b"Uid 0, yours 65534" in result.stderr
            assert b"CAP_SYS_PTRACE" in result.stderr
        rows = json.loads(run_cli("list", "--json", user=NOBODY).stdout)["devices"]
        assert {"win10", "console"} <= {row["vm"] for row in rows}

    def test_a_launcher_hands_the_device_over(self, running: Running, tmp_path: Path) -> None:
        """A user without a privilege sees frames; the user's own process never holds the device."""
        vm = running.mdpy
        vm.picture(131)
        let_everybody_execute(sys.executable)
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(0o755)
        path = tmp_path / "screen.sock"
        script = (
            "import mdevdisplay, sys\n"
            f"with mdevdisplay.open('unix:{path}', isolated=True, timeout=60) as display:\n"
            "    frame = display.capture()\n"
            "    print('ready', frame.raw.tobytes().hex()[:64], flush=True)\n"
            "    sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, LAUNCHER, "vm:console", path, str(NOBODY)], stdout=subprocess.PIPE, text=True
        ) as launcher:
            try:
                assert launcher.stdout is not None
                assert "listening" in launcher.stdout.readline()
                with unnoticed(vm):
                    assert np.array_equal(screenshot(f"unix:{path}", user=NOBODY), shown(131, 1024, 768))
                    with subprocess.Popen(
                        [sys.executable, "-c", script],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        user=NOBODY,
                        group=NOBODY,
                        extra_groups=[],
                    ) as reader:
                        assert reader.stdout is not None
                        said = reader.stdout.readline()
                        assert said.startswith("ready"), said
                        assert expected_picture(131, 1024, 768).tobytes().hex().startswith(said.split()[1])
                        assert vfio_links(reader.pid) == []
                        [worker] = workers(reader.pid)
                        assert len(vfio_links(worker)) == 1
                        status = Path(f"/proc/{worker}/status").read_text()
                        assert "NoNewPrivs:\t1" in status
                        # nobody else of that user can take the device out of it
                        refused = subprocess.run(
                            [sys.executable, "-c", f"import os; os.listdir('/proc/{worker}/fd')"],
                            user=NOBODY,
                            group=NOBODY,
                            extra_groups=[],
                            capture_output=True,
                            check=False,
                            timeout=60,
                        )
                        assert b"PermissionError" in refused.stderr
            finally:
                launcher.kill()


class TestWorkers:
    """Isolated displays of a VM."""

    def test_the_worker_is_nobody(self, running: Running) -> None:
        """After attaching it has no uid, no capability and no way back; the parent never holds the device."""
        with mdevdisplay.open("vm:console", isolated=True, timeout=60) as display:
            display.capture()
            [worker] = workers(os.getpid())
            fields = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{worker}/status").read_text().splitlines()
                if ":\t" in line
            )
            assert set(fields["Uid"].split()) == {str(NOBODY)}
            assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
            assert fields["NoNewPrivs"] == "1"
            assert vfio_links(os.getpid()) == []
        assert running.mdpy.log() == []

    def test_a_killed_worker_costs_one_call(self, running: Running) -> None:
        """The next one goes to a new worker, and the VM notices nothing."""
        vm = running.mdpy
        vm.picture(141)
        with unnoticed(vm), mdevdisplay.open("vm:console", isolated=True, timeout=60) as display:
            display.capture()
            os.kill(workers(os.getpid())[0], signal.SIGKILL)
            with pytest.raises(MdevDisplayError) as caught:
                display.capture()
            assert caught.value.cause == "worker-died"
            assert eventually(lambda: captures(display))
            assert np.array_equal(display.capture().raw, expected_picture(141, 1024, 768))

    def test_two_readers_share_one_worker(self, running: Running) -> None:
        """The second finds the first, also in another process, and both see the same."""
        vm = running.mdpy
        vm.picture(151)
        with mdevdisplay.open("vm:console", isolated=True, timeout=60) as one:
            one.capture()
            before = len(holders_of_vfio())
            with mdevdisplay.open(vm.mdevs[0], isolated=True, timeout=60) as two:
                assert np.array_equal(two.capture().raw, one.capture().raw)
                assert len(holders_of_vfio()) == before
                assert np.array_equal(screenshot("vm:console", "--isolated"), shown(151, 1024, 768))
            assert isinstance(one.capture(), Frame)


def captures(display: mdevdisplay.Display) -> bool:
    try:
        display.capture()
    except MdevDisplayError:
        return False
    return True


def holders_of_vfio() -> list[int]:
    """Every process that holds anything of VFIO."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if vfio_links(int(entry.name)):
                    found.append(int(entry.name))
    return found
