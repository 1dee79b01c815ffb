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
book, suite = (importlib.import_module(name) for name in ("book", "suite"))
SUITES = pytest.mark.parametrize("pages", [book, suite], ids=["book", "suite"])
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


def run(*arguments):
    """What the runner prints."""
    command = [sys.executable, str(FOLDER / "book.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_runs_add_up_and_the_page_is_written_from_their_file(tmp_path):
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    page.write_text("prose\n<!-- measured -->\nold\n<!-- end of measured -->\nmore\n")
    chosen = ("--peer", "weft", "--rounds", 1, "--json", kept)
    assert "| weft |" in run("--case", "eager_add", "--busy", *chosen)
    printed = run("--case", "eager_add", "--case", "eager_mul", "--resume", *chosen)
    assert "### eager_mul" in printed and "### eager_add" not in printed
    run("--report", "--json", kept, "--page", page)
    text = page.read_text()
    assert text.startswith("prose\n") and text.endswith("more\n") and "old" not in text
    for words in ("### eager_add", "### eager_mul", "beside a busy process", "first call", "arrays", "### Goals"):
        assert words in text


def test_a_peer_that_takes_too_long_gets_a_word():
    printed = run("--case", "eager_add", "--peer", "weft", "--rounds", 1, "--patience", 0.01)
    assert "| weft | no answer after 0 s |" in printed


@SUITES
def test_goals_name_cases_and_peers(pages):
    cases = {case.name: case for module in pages.MODULES for case in importlib.import_module(module).CASES}
    for goal in pages.GOALS:
        assert {goal.peer, getattr(goal, "of", "")} - {"", "the fastest peer"} <= set(cases[goal.case].peers)
