"""Looking at a running VM against QEMU's own screendump, and what it costs the guest: run it in the lab.

MDEVDISPLAY_LAB_VM=$(lab/vm/build) lab/run --env MDEVDISPLAY_LAB_VM -- .venv/bin/python bench/lab_vms.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Figure, print_figures, run_time

import mdevdisplay

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lab_vm import Vm, expected_picture

WIDTH, HEIGHT = 1024, 768
SEED = 7
ROUNDS = 15
SECONDS = 4.0
"""How long the guest's loop is measured each time."""
RATE = 30.0
TURNS = 7


def capturing(vm: Vm) -> list[Figure]:
    """From a call to pixels in memory, in turns, each the same picture."""
    picture = expected_picture(SEED, WIDTH, HEIGHT)
    with (
        mdevdisplay.open("vm:bench", timeout=None) as here,
        mdevdisplay.open("vm:bench", isolated=True) as isolated,
    ):
        ways: dict[str, Callable[[], np.ndarray]] = {
            "screendump": vm.screendump,
            "in this process": lambda: here.capture().pixels,
            "isolated": lambda: isolated.capture().pixels,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS + 2):
            for name, way in ways.items():
                begin = time.perf_counter()
                pixels = way()
                spent = time.perf_counter() - begin
                wanted = picture[..., 2::-1] if name == "screendump" else picture
                if not np.array_equal(pixels[..., :3], wanted[..., :3]):
                    raise AssertionError(f"{name} gave another picture")
                del pixels
                if turn > 1:
                    times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    peer = medians.pop("screendump")
    bounds = {"in this process": 8, "isolated": 5}
    return [
        Figure(
            f"capture of a VM, {name}",
            f"{spent * 1e3:.2f} ms",
            f"QMP screendump {peer * 1e3:.1f} ms",
            peer / spent,
            f">= {bounds[name]}x",
            met=peer / spent >= bounds[name],
        )
        for name, spent in medians.items()
    ]


def first_frame() -> Figure:
    """A whole process, from the VM's name to a picture file."""
    command = [sys.executable, "-m", "mdevdisplay", "screenshot"]
    ours, floor = run_time(
        [*command, "vm:bench", "-o", "/tmp/vm.png"],
        [*command, f"sim:{WIDTH}x{HEIGHT}", "-o", "/tmp/sim.png"],
        rounds=5,
    )
    return Figure(
        "screenshot vm:NAME, whole process",
        f"{ours:.2f} s",
        f"screenshot sim: {floor:.2f} s",
        ours / floor,
        "<= 2x",
        met=ours <= 2 * floor,
    )


def throughput(vm: Vm) -> list[Figure]:
    """What the guest's busy loop gets done with somebody reading 30 frames a second, and without."""
    vm.loop(on=True)
    figures = []
    for name, isolated in (("in another process", True), ("in this process", False)):
        without: list[float] = []
        with_us: list[float] = []
        ratios: list[float] = []
        looks = 0
        for _ in range(TURNS):
            without.append(vm.throughput(SECONDS))
            with (
                mdevdisplay.open("vm:bench", isolated=isolated) as display,
                display.frames(max_fps=RATE, repeat=True) as stream,  # at the full rate, although nothing changes
            ):
                stream.fileno()  # its own thread reads
                with_us.append(vm.throughput(SECONDS))
                looks += stream.statistics.looks
            without.append(vm.throughput(SECONDS))
            # whatever else the machine does drifts: each against those right before and after it
            ratios.append(2 * with_us[-1] / (without[-2] + without[-1]))
        ratio = statistics.median(ratios)
        figures.append(
            Figure(
                f"guest's throughput, read {name}",
                f"{statistics.median(with_us):.0f}/s at {looks / TURNS / SECONDS:.0f} Hz",
                f"unread {statistics.median(without):.0f}/s",
                ratio,
                ">= 0.95x",
                met=ratio >= 0.95,
            )
        )
    vm.loop(on=False)
    return figures


def main() -> None:
    with Vm(["mdpy-xga"], name="bench", display="on") as vm:
        vm.picture(SEED)
        print_figures([*capturing(vm), first_frame(), *throughput(vm)])


if __name__ == "__main__":
    main()
