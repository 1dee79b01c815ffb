"""Start values of parameters: ranges, spreads, torch's fans and gains."""

from __future__ import annotations

import math

import numpy as np
import pytest

import weft

init = weft.nn.init

SPREADS = {
    "uniform_": (lambda t: init.uniform_(t, 2.0, 4.0), 3.0, 2 / math.sqrt(12), (2.0, 4.0)),
    "normal_": (lambda t: init.normal_(t, 1.0, 0.5), 1.0, 0.5, None),
    "xavier_uniform_": (
        lambda t: init.xavier_uniform_(t, gain=2.0),
        0.0,
        2 * math.sqrt(2 / 300),
        (-2 * math.sqrt(6 / 300), 2 * math.sqrt(6 / 300)),
    ),
    "xavier_normal_": (init.xavier_normal_, 0.0, math.sqrt(2 / 300), None),
    "kaiming_uniform_": (
        lambda t: init.kaiming_uniform_(t, nonlinearity="relu"),
        0.0,
        math.sqrt(2 / 100),
        (-math.sqrt(6 / 100), math.sqrt(6 / 100)),
    ),
    "kaiming_normal_": (
        lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="tanh"),
        0.0,
        5 / 3 / math.sqrt(200),
        None,
    ),
}


@pytest.mark.parametrize(("fill", "mean", "std", "limits"), list(SPREADS.values()), ids=list(SPREADS))
def test_spread(fill, mean, std, limits) -> None:
    weft.manual_seed(1)
    t = weft.empty(200, 100, requires_grad=True)
    assert fill(t) is t
    values = t.detach().numpy()
    assert abs(values.mean() - mean) < 0.03 * max(std, 1e-9) + 1e-3
    assert values.std() == pytest.approx(std, rel=0.02)
    if limits is not None:
        assert limits[0] <= values.min() < limits[0] + 0.01 * std * 10
        assert limits[1] - 0.01 * std * 10 < values.max() <= limits[1]
    assert t.is_leaf


def test_constants() -> None:
    t = weft.nn.Parameter(weft.empty(2, 3))
    assert init.constant_(t, 4.0).tolist() == [[4.0] * 3] * 2
    assert init.ones_(t).tolist() == [[1.0] * 3] * 2
    assert init.eye_(t).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert init.zeros_(t).tolist() == [[0.0] * 3] * 2


def test_fans_of_a_kernel() -> None:
    assert init.fans(weft.empty(8, 4, 3, 3)) == (36, 72)


@pytest.mark.parametrize(
    ("name", "param", "gain"),
    [
        ("linear", None, 1),
        ("relu", None, 2**0.5),
        ("tanh", None, 5 / 3),
        ("leaky_relu", None, (2 / 1.0001) ** 0.5),
        ("leaky_relu", 2, (2 / 5) ** 0.5),
    ],
)
def test_gain(name, param, gain) -> None:
    assert init.calculate_gain(name, param) == pytest.approx(gain)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(weft.empty(3))
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        init.calculate_gain("cosine")
    with pytest.raises(ValueError, match="fan_in"):
        init.kaiming_normal_(weft.empty(3, 3), mode="fan")


def test_linear_starts_as_torch_does() -> None:
    weft.manual_seed(0)
    layer = weft.nn.Linear(100, 400)
    for p in layer.parameters():
        assert np.abs(p.detach().numpy()).max() == pytest.approx(0.1, rel=0.02)
        assert p.detach().numpy().std() == pytest.approx(0.1 / 3**0.5, rel=0.1)
