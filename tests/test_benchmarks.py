"""The benchmarks do not rot: weft's programs in every case give the right answer, and the runner prints a table."""
from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weft

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

sys.path.insert(0, str(FOLDER))
book = importlib.import_module("book")
PROGRAMS = [
    pytest.param(case, prepare, id=f"{case.name}-{peer}")
    for module in book.MODULES
    for case in importlib.import_module(module).CASES
    for peer, (library, prepare) in case.peers.items()
    if library == "weft"
]
sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(("case", "prepare"), PROGRAMS)
def test_answer_is_right(case, prepare):
    answer = np.asarray(prepare(weft).answer(), np.float64)
    np.testing.assert_allclose(answer, case.expected(), rtol=case.tolerance)


def test_runner_prints_a_table_and_goals():
    command = [sys.executable, str(FOLDER / "book.py"), "--case", "eager_add", "--peer", "weft", "--rounds", "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| weft |" in printed and "### Goals" in printed


def test_goals_name_cases_and_peers():
    cases = {case.name: case for module in book.MODULES for case in sys.modules[module].CASES}
    for goal in book.GOALS:
        assert {goal.peer, goal.of} - {""} <= set(cases[goal.case].peers)
