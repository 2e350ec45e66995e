"""Print every figure that needs no lab, each with its floor or peer from the same run.

python bench/run.py [capture] [png] [startup] [endurance]
"""

from __future__ import annotations

import importlib
import sys

from measure import print_figures

GROUPS = ("startup", "capture", "png", "endurance")


def main() -> None:
    chosen = sys.argv[1:] or GROUPS
    print_figures([figure for name in chosen for figure in importlib.import_module(name).figures()])


if __name__ == "__main__":
    main()
