"""No wrong verdict in random combinations of simulated faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnose.combinations import confusion_table, examine, random_combinations


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_combinations_of_faults_get_the_right_verdict(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred each; the table of what was right against what was said is printed."""
    monkeypatch.setenv("MDEVDISPLAY_HOST_ROOT", str(tmp_path))  # whichever GPUs this machine has
    outcomes = examine(random_combinations(100, seed))
    table = confusion_table(outcomes)
    print(table)
    wrong = [
        f"{one.combination.locator}: {one.said}, not {sorted(one.combination.right)}" for one in outcomes if one.wrong
    ]
    assert not wrong, "\n".join([*wrong, table])
    assert len({one.said for one in outcomes}) >= 8, table
