"""What a diagnosis costs beside a description, as whole processes, and the table of its verdicts.

The table is of a hundred random combinations of simulated faults: right down, said across.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import Figure, run_time

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from diagnose.combinations import confusion_table, examine, random_combinations


def figures() -> list[Figure]:
    tool = str(Path(sys.executable).with_name("mdevdisplay"))
    info, ours = run_time([tool, "info", "sim:"], [tool, "doctor", "sim:"])
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("MDEVDISPLAY_HOST_ROOT")
        os.environ["MDEVDISPLAY_HOST_ROOT"] = folder  # whichever GPUs this machine has
        try:
            outcomes = examine(random_combinations(100, 0))
        finally:
            os.environ.pop("MDEVDISPLAY_HOST_ROOT")
            if before is not None:
                os.environ["MDEVDISPLAY_HOST_ROOT"] = before
    print(confusion_table(outcomes))
    wrong = sum(one.wrong for one in outcomes)
    return [
        Figure(
            "mdevdisplay doctor sim:",
            f"{ours * 1e3:.0f} ms",
            f"mdevdisplay info sim: {info * 1e3:.0f} ms",
            ours / info,
            "< 2x",
            met=ours < 2 * info,
        ),
        Figure(
            "wrong verdicts", str(wrong), f"{len(outcomes)} combinations", wrong / len(outcomes), "0", met=not wrong
        ),
    ]
