"""What starting costs, as whole processes: the import, --help, a screenshot."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import Figure, run_time

CLICK = """
import click

@click.group()
def cli():
    pass

@cli.command()
def one():
    pass

cli()
"""


def figures() -> list[Figure]:
    python = sys.executable
    tool = str(Path(python).with_name("mdevdisplay"))
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare_click.py"
        bare.write_text(CLICK)
        shot = str(Path(folder) / "shot.png")
        nothing, ours = run_time([python, "-c", "pass"], [python, "-c", "import mdevdisplay"])
        peer, help_text = run_time([python, str(bare), "--help"], [tool, "--help"])
        numpy, screenshot = run_time([python, "-c", "import numpy"], [tool, "screenshot", "sim:", "-o", shot])
    return [
        _figure("import mdevdisplay", ours, "python -c pass", nothing, 1.5),
        _figure("mdevdisplay --help", help_text, "a bare click program", peer, 2.0),
        _figure("mdevdisplay screenshot sim:", screenshot, "import numpy", numpy, 2.5),
    ]


def _figure(what: str, ours: float, against: str, floor: float, bound: float) -> Figure:
    ratio = ours / floor
    return Figure(
        what, f"{ours * 1e3:.1f} ms", f"{against} {floor * 1e3:.1f} ms", ratio, f"<= {bound}x", met=ratio <= bound
    )
