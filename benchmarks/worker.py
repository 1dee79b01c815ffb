"""The measuring process: `python worker.py MODULE CASE PEER` prepares one peer, and answers the lines that it reads.

Each answer is a line of JSON: at first what the first call took, then one for every word that is read. `round` times
steps, `memory` ends the work and tells what its arrays took.
"""
from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
import traceback
from typing import Any

import machine
import numpy as np
from harness import Case, Work

SAMPLES, SAMPLE_SECONDS = 7, 0.02
SLOW = 0.2
"""Runs of so many seconds are timed once a round."""
STEADY = 3
"""Runs whose peak of memory is looked at."""


def main(module: str, case_name: str, peer: str) -> None:
    """Prints the answers."""
    case = next(c for c in importlib.import_module(module).CASES if c.name == case_name)
    library, prepare = case.peers[peer]
    start = time.perf_counter()
    loaded = importlib.import_module(library)
    loading = time.perf_counter() - start
    work, took, grown = first(prepare, loaded, case)
    once = max(seconds(work, 1), 1e-9)
    say(loading=loading, first_call=took, grown=grown)
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = steady_peak(work)
            del work
            say(memory=max(0, peak - machine.resting_memory()))
            return
        say(**sampled(work, once))


def first(prepare: Any, library: Any, case: Case) -> tuple[Work, float, int]:
    """The work, the seconds of its first call, and how far the process grew beyond the loaded library.

    A library that makes itself ready while the work is prepared (weft's compiler, JAX's backend, torch.compile's front
    end) does so once: that a second preparation takes less time counts as part of the first call.
    """
    before = machine.resting_memory()
    machine.forget_peak()
    start = time.perf_counter()
    prepare(library)
    prepared = time.perf_counter()
    work = prepare(library)
    again = time.perf_counter()
    answer = np.asarray(work.answer(), np.float64)
    took = time.perf_counter() - again + max(0.0, (prepared - start) - (again - prepared))
    work.run()
    grown = max(0, machine.peak_memory() - before)
    np.testing.assert_allclose(answer, case.expected(), rtol=case.tolerance, atol=case.tolerance * case.scale)
    return work, took, grown


def sampled(work: Work, once: float) -> dict[str, float]:
    """The median of a few samples, in seconds a step, and their mean, in which rare long ones show."""
    repeats, count = max(1, round(SAMPLE_SECONDS / once)), SAMPLES if once < SLOW else 1
    samples = [seconds(work, repeats) / repeats / work.steps for _ in range(count)]
    return {"median": statistics.median(samples), "mean": statistics.fmean(samples)}


def seconds(work: Work, repeats: int) -> float:
    """The time of `repeats` runs."""
    if work.reports:
        return sum(work.run() for _ in range(repeats))
    start = time.perf_counter()
    for _ in range(repeats):
        work.run()
    return time.perf_counter() - start


def steady_peak(work: Work) -> int:
    """The peak of memory while everything is compiled and loaded."""
    work.run()
    machine.resting_memory()
    machine.forget_peak()
    for _ in range(STEADY):
        work.run()
    return machine.peak_memory()


def say(**answer: float) -> None:
    """One line for the other end."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        sys.exit(1)
