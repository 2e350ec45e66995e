"""Print every figure that needs no lab, each with its floor or peer from the same run.

python bench/run.py [GROUP …]; see GROUPS

Figures are no tests: it ends with status 0, whether the bounds are met or not.
"""

from __future__ import annotations

import importlib
import sys
import traceback

from measure import Figure, print_figures

GROUPS = ("startup", "capture", "live", "convert", "tiling", "gpu_import", "doctor", "isolated", "png", "endurance")


def main() -> None:
    figures: list[Figure] = []
    for name in sys.argv[1:] or GROUPS:
        try:
            figures += importlib.import_module(name).figures()
        except Exception:
            traceback.print_exc()  # the other groups have figures all the same
    print_figures(figures)


if __name__ == "__main__":
    main()
