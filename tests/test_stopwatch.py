"""The stopwatch of compilations: a stage inside another one is not counted twice."""

from __future__ import annotations

import pytest

from weft.ir import stopwatch


@pytest.fixture
def watch(monkeypatch):
    """A stopwatch, and a clock to set."""
    clock = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock[0])
    return stopwatch.Stopwatch(), clock


def test_stages_inside_stages(watch):
    watch, clock = watch
    with watch.stage("outer"):
        clock[0] = 1.0
        with watch.stage("inner"):
            clock[0] = 3.0
        clock[0] = 7.0
    with watch.stage("inner"):
        clock[0] = 8.0
    assert watch.seconds == {"outer": 5.0, "inner": 3.0}


def test_a_stage_that_fails_ends(watch):
    watch, clock = watch
    with pytest.raises(ZeroDivisionError), watch.stage("outer"):
        with watch.stage("inner"):
            clock[0] = 2.0
            raise ZeroDivisionError
    clock[0] = 9.0
    assert watch.seconds == {"outer": 0.0, "inner": 2.0}
