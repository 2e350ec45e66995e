"""VMs whose QEMU was given vfio cdevs and an iommufd, on a kernel that has them."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque

import numpy as np
import pytest
from lab_support import MDEVS, remove_mdev, run_cli
from lab_vm import Vm, expected_picture

import mdevdisplay
from mdevdisplay import VmGone

pytestmark = pytest.mark.timeout(400)


def test_a_vm_with_two_cdevs() -> None:
    """Every descriptor is matched to its device by the kernel's numbers; the VM's end lets both go."""
    with Vm(["mdpy-vga", "mbochs-small"], name="guest=modern,debug-threads=on", cdev=True) as vm:
        since = time.monotonic()
        vm.picture(161, 0)
        vm.mode(800, 600, 1)
        vm.picture(162, 1)
        pictures = {vm.mdevs[0]: (161, 640, 480), vm.mdevs[1]: (162, 800, 600)}
        rows = {row["locator"]: row for row in json.loads(run_cli("list", "--json").stdout)["devices"]}
        for number, name in enumerate(sorted(pictures)):
            assert (rows[name]["vm"], rows[name]["pid"], rows[name]["state"]) == ("modern", vm.pid, "in use")
            for locator in (name, f"vm:modern/{number}"):
                with mdevdisplay.open(locator, isolated=bool(number), timeout=60) as display:
                    assert display.identity.name == name
                    assert np.array_equal(display.capture().raw, expected_picture(*pictures[name]))
        assert vm.longest_gap(since) < 5
        assert vm.log() == []
        with (
            mdevdisplay.open(vm.mdevs[0], timeout=60) as display,
            display.frames(max_fps=200, repeat=True) as stream,
        ):
            next(stream)
            vm.kill()
            with pytest.raises(VmGone):
                deque(itertools.islice(stream, 5_000), maxlen=0)
            begin = time.monotonic()
            assert remove_mdev(vm.mdevs[0])
            assert time.monotonic() - begin < 2
    assert not (MDEVS / vm.mdevs[1]).exists()
