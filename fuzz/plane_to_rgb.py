"""Coverage-guided fuzzing of the way from plane info to RGB, and of what a worker may answer.

    make fuzz MINUTES=10
    python fuzz/plane_to_rgb.py [CORPUS ...] [-max_total_time=600] [other options of libFuzzer]
    python fuzz/plane_to_rgb.py FILE        runs one input, as a crash that was found

The first byte of an input says which way is taken: 3 of 4 are a driver's, the others a worker's. What is done with the
rest, and what must hold, is in tests/hostile; tests/test_bad_surfaces.py does the same without this.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

_READ = ["mdevdisplay", "mdevdisplay_intel_gvt", "mdevdisplay_mbochs", "mdevdisplay_region_cap"]

with atheris.instrument_imports(include=_READ):
    from hostile.choices import Choices
    from hostile.driver import case_of, run
    from hostile.puppet import talk

    from mdevdisplay.connecting import backends
    from mdevdisplay.pixels.frame import Frame

    backends()  # loads them

_ROOM = 768 << 20
"""Bytes of address space beyond what there is at the start: a picture that is believed without its memory fails."""

counts = {"runs": 0, "frames": 0}
raised: list[str] = []


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    raised.append(f"{what.exc_value!r} in {what.object!r}")


def one_input(data: bytes) -> None:
    """Run one input; whatever is raised is a finding."""
    counts["runs"] += 1
    choices = Choices(data)
    if choices.number(3) == 3:
        counts["frames"] += talk(choices)
    else:
        counts["frames"] += sum(isinstance(outcome, Frame) for outcome in run(case_of(choices)))
    if counts["runs"] % 1000 == 0:
        gc.collect()
        if counts["runs"] % 20_000 == 0:
            print(f"{counts['runs']} runs, {counts['frames']} frames came out", file=sys.stderr)
    if raised:
        raise AssertionError(raised.pop())


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Fuzz until told otherwise."""
    sys.unraisablehook = _unraisable
    _limit()
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    places = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    atheris.Setup([sys.argv[0], "-max_len=1024", "-len_control=0", *options, *places], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
