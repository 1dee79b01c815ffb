"""examples/digits.py: the main job learns, compiled and eager, and prints what it promises."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import weft

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "examples" / "digits.py"
    spec = importlib.util.spec_from_file_location("digits_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_data(digits) -> None:
    data = digits.load()
    assert (tuple(data.x.shape), tuple(data.x_held_out.shape)) == ((1437, 64), (360, 64))
    assert 0 <= data.x.min().item() < data.x.max().item() == 1
    assert sorted(set(data.y.tolist())) == list(range(10))


def test_learns(digits) -> None:
    data, compiled = digits.load(), weft.compile(digits.train)
    accuracies = [digits.run(data, compiled, seed).accuracy for seed in range(3)]
    assert min(accuracies) >= 0.95
    assert np.mean(accuracies) >= 0.96
    assert compiled.traces <= 3


def test_eager_learns_the_same(digits) -> None:
    data = digits.load()
    eager = digits.run(data, digits.train, 5, epochs=2)
    compiled = digits.run(data, weft.compile(digits.train), 5, epochs=2)
    np.testing.assert_allclose(compiled.losses.numpy(), eager.losses.numpy(), rtol=2e-4)
    for a, b in zip(compiled.model.parameters(), eager.model.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_output(digits, capsys) -> None:
    found = digits.main(["--epochs", "3"])
    assert found["accuracy"] == found["again"] > 0.8
    printed = capsys.readouterr().out
    for part in (
        "9,610 parameters",
        "held-out accuracy",
        "ir('traced')",
        "ir('plan')",
        "explain()",
        "a step, compiled",
        "docs/architecture.md",
    ):
        assert part in printed
