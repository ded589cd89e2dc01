"""What `make bench` takes for granted, and what it says of its figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from tables import Goal

FULL_CONFIG = Path(__file__).resolve().parents[1] / "bench/full.yml"


def test_config_with_everything_on() -> None:
    """The daemon takes the config that the bench gives it."""
    command = [sys.executable, "-m", "exporter", "check-config", str(FULL_CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("goal", "row"),
    [
        (Goal("a", 1.5, 1.5), ("a", "<= 1.50", "1.50", "met", "", "")),
        (Goal("a", 1.6, 1.5, full=1.4), ("a", "<= 1.50", "1.60", "MISSED", "1.40", "met")),
        (Goal("a", 40.0, least=40.0), ("a", ">= 40.0", "40.0", "met", "", "")),
        (Goal("a", 41.0, least=40.0, full=39.0), ("a", ">= 40.0", "41.0", "met", "39.0", "MISSED")),
    ],
)
def test_goal(goal: Goal, row: tuple[str, ...]) -> None:
    """A goal is met or missed by each of both daemons, the bound itself being met."""
    assert goal.row() == row
    met = {"met": True, "MISSED": False, "": None}
    assert (goal.data()["met"], goal.data()["full_met"]) == (met[row[3]], met[row[5]])
