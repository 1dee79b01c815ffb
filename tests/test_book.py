"""The book's chapters 3 to 7, run as programs: their printed numbers are facts to hit. Eager and compiled."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import weft

BOOK = Path(__file__).resolve().parent.parent / "examples" / "book"
LOG = """100: 0.3502924 -0.667685 -0.5771312
200: 0.07398106 -0.1603189 -0.2532476
300: 0.02483024 -0.07679074 -0.1373911
400: 0.009619333 -0.04347242 -0.08254051
500: 0.003990697 -0.02652063 -0.05206227
600: 0.001719962 -0.01683905 -0.03373682
700: 0.0007584976 -0.01095017 -0.02221584
800: 0.0003393509 -0.007221781 -0.01477957
900: 0.0001532408 -0.004811743 -0.009894371
1000: 6.962555e-05 -0.003222887 -0.006653666"""
EXPECTED_LOG = np.array([[float(v) for v in line.split(":")[1].split()] for line in LOG.splitlines()])
both_ways = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def chapter(name: str) -> ModuleType:
    """A chapter's program as a module, from its file."""
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chapter3() -> dict[str, dict[str, Any]]:
    pytest.importorskip("pandas")
    return chapter("ch3_tensors").main()


def test_what_a_tensor_is(chapter3) -> None:
    found = chapter3["what_a_tensor_is"]
    assert (found["dtype"], found["device"], found["shape"]) == (weft.float32, "cpu", ())
    assert (found["as int"], found["as matrix"]) == (weft.int32, (1, 1))
    assert "cuda" in found["no such device"]


def test_from_values(chapter3) -> None:
    found = chapter3["from_values"]
    assert found["vector"] == [1, 2, 3, 4, 5]
    assert found["by column"] == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]
    assert found["by row"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert found["cube"] == [
        [[1, 13], [5, 17], [9, 21]],
        [[2, 14], [6, 18], [10, 22]],
        [[3, 15], [7, 19], [11, 23]],
        [[4, 16], [8, 20], [12, 24]],
    ]


def test_from_specification(chapter3) -> None:
    found = chapter3["from_specification"]
    assert found["randn"] == (3, 3)
    assert found["rand"]
    assert (found["zeros"], found["ones"]) == ([[0] * 5] * 2, [[1, 1], [1, 1]])
    assert found["eye"] == np.eye(5).tolist()
    assert found["diag"] == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_from_data(chapter3) -> None:
    found = chapter3["from_data"]
    assert len(found["earnings"]) == 84
    np.testing.assert_allclose(
        found["earnings"][:6] + found["earnings"][-2:], [0.71, 0.63, 0.85, 0.44, 0.61, 0.69, 16.02, 11.61], rtol=1e-6
    )
    assert np.shape(found["orange"]) == (35, 3)
    assert found["orange"][:3] == [
        [1, 118, 30],
        [1, 484, 58],
        [1, 664, 87],
    ]  # R counts a factor's levels from 1, weft from 0
    assert found["days"] == [15519, 15520]
    assert "'location'" in found["strings"]
    assert "categor" in found["strings"]
    assert found["missing"] == [1, None, 3]
    assert found["median"] == 2


def test_operations(chapter3) -> None:
    found = chapter3["operations"]
    assert found["added"] == found["method"] == found["in place"] == [4, 6]
    assert found["untouched"] == [1, 2]
    assert found["dot"] == found["dot of transposed"] == 32
    assert found["matmul"] == [14, 32, 50, 68]
    assert found["multiply"] == [4, 10, 18]


def test_aggregation(chapter3) -> None:
    found = chapter3["aggregation"]
    assert found["total"] == 126
    assert found["by row"] == [6, 12, 18, 24, 30, 36]
    assert found["by column"] == [21, 42, 63]
    series = np.array(found["series"])
    np.testing.assert_allclose(found["features"], series.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found["persons"], series.mean(1), rtol=1e-5)


def test_indexing(chapter3) -> None:
    found = chapter3["indexing"]
    assert found["row"] == [1, 2, 3]
    assert found["kept"] == [[1, 2, 3]]
    assert found["last"] == 4
    assert found["steps"] == [[1, 3, 5, 7], [11, 13, 15, 17]]
    assert found["first of any"] == [1, [1, 2, 3], [[0, 1], [2, 3]]]
    assert found["last axis"] == [[0, 2], [4, 6]]
    assert found["both"] == [0, 2]


def test_reshaping(chapter3) -> None:
    found = chapter3["reshaping"]
    assert found["same memory"]
    assert found["transpose shares"]
    assert found["reshape shares"]
    assert found["copied"]
    assert (found["strides"], found["strides of view"], found["strides of transpose"]) == ((5, 1), (3, 1), (1, 5))
    assert (found["unsqueezed"], found["at the end"], found["squeezed"]) == ((1, 3), (3, 1), (3,))
    assert "reshape" in found["no view"]
    assert found["values"] == [1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14, 5, 10, 15]


def test_broadcasting(chapter3) -> None:
    found = chapter3["broadcasting"]
    assert found["row"] == found["vector"] == [[2, 4, 6, 8, 10], [7, 9, 11, 13, 15], [12, 14, 16, 18, 20]]
    assert found["scaled"] == [[0.5] * 5] * 3
    assert found["both sides"] == (3, 7, 5)
    assert "[4, 3, 2, 1]" in found["error"]
    assert "[4, 3, 2]" in found["error"]


def test_autograd() -> None:
    found = chapter("ch4_autograd").main()
    assert found["value"] == pytest.approx(-3.4, rel=1e-6)
    assert found["inherits"]
    assert found["gradients"] == pytest.approx([0.8, 0.8], rel=1e-6)
    assert found["inner"] == pytest.approx({"x3": 0.2, "x4": 0.2, "x5": 1, "x6": 1}, rel=1e-6)
    assert found["made by"] == {
        "x3": "PowBackward0",
        "x4": "PowBackward0",
        "x5": "MulBackward0",
        "x6": "MulBackward0",
        "x7": "SubBackward0",
    }


@both_ways
@pytest.mark.parametrize("how", ["log_by_steps", "log_by_loop"])
def test_rosenbrock_log(how: str, compiled: bool) -> None:
    log, end = getattr(chapter("ch5_minimise"), how)(compiled)
    np.testing.assert_allclose(log, EXPECTED_LOG, rtol=5e-5)
    np.testing.assert_allclose(end, [0.9918, 0.9830], atol=5e-5)


@both_ways
def test_rosenbrock_program(compiled: bool, capsys) -> None:
    found = chapter("ch5_minimise").main(compiled)
    assert found["text"] == "tensor([0.9918, 0.9830], requires_grad=True)"
    assert found["last"] == pytest.approx(6.962555e-05, rel=1e-4)
    assert "Iteration: 1000\nValue is : 6.9625" in capsys.readouterr().out


@both_ways
def test_network_from_bare_tensors(compiled: bool) -> None:
    losses = np.array(chapter("ch6_network").main(compiled)["losses"])
    assert len(losses) == 200
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < 0.6 * losses[0]


def test_network_eager_and_compiled_agree() -> None:
    run = chapter("ch6_network").run
    (eager, eager_params), (compiled, compiled_params) = run(False), run(True)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    for a, b in zip(compiled_params, eager_params, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_modules() -> None:
    found = chapter("ch7_modules").main()
    assert found["built_in_layer"] == {
        "parameters": 96,
        "weight": (16, 5),
        "bias": (16,),
        "output": (50, 16),
        "grad_fn": "AddmmBackward0",
        "weight has grad_fn": False,
    }
    assert found["sequence_of_layers"] == {"output": (5, 1), "grad_fn": "AddmmBackward0", "all have gradients": True}
    assert found["module_of_ones_own"] == {
        "parameters": 8,
        "names": ["w", "b"],
        "output": (5, 1),
        "grad_fn": "AddBackward0",
    }
