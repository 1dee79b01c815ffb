"""The meaning of ops against torch, where it is installed; weft does not need it."""
from __future__ import annotations

import numpy as np
import pytest

from weft.ir import OPS
from weft.ir.samples import DOMAINS, random_array
from weft.ir.types import bool_, float32, float64, int32, int64, uint8

torch = pytest.importorskip("torch")

OTHER_NAMES = {
    "neg": "negative",
    "shift_left": "bitwise_left_shift",
    "shift_right": "bitwise_right_shift",
    "hypot": "hypot",
}
FLOATING = [
    "ceil",
    "floor",
    "round",
    "trunc",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "sigmoid",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
    "digamma",
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "div",
    "atan2",
    "hypot",
    "copysign",
    "nextafter",
    "logaddexp",
    "fmax",
    "fmin",
]
NUMERIC = [
    "neg",
    "abs",
    "sign",
    "add",
    "sub",
    "mul",
    "floor_divide",
    "remainder",
    "fmod",
    "pow",
    "maximum",
    "minimum",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
]
INTEGER = ["bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right"]
LOGICAL = ["logical_not", "logical_and", "logical_or", "logical_xor"]
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan]


def compare(name, *arrays):
    with np.errstate(all="ignore"):
        found = np.asarray(OPS[name].evaluate(*arrays))
    expected = getattr(torch, OTHER_NAMES.get(name, name))(*map(torch.from_numpy, arrays)).numpy()
    tolerance = {"float32": 2e-6, "float64": 1e-13}.get(str(found.dtype), 0)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, strict=True, err_msg=f"{name}{arrays}")


def operands(name, dtype):
    rng = np.random.default_rng(2)
    for span in DOMAINS.get(name, (None,) * OPS[name].arity):
        yield random_array(rng, (50,), dtype, span)


@pytest.mark.parametrize("name", FLOATING + NUMERIC)
def test_floats(name):
    for dtype in (float32, float64):
        compare(name, *operands(name, dtype))


@pytest.mark.parametrize("name", NUMERIC + INTEGER)
def test_integers(name):
    for dtype in (int32, int64, uint8):
        arrays = list(operands(name, dtype))
        if name in ("floor_divide", "remainder", "fmod"):
            arrays[1][arrays[1] == 0] = 1  # torch raises; weft's eager surface too, in front of the op
        compare(name, *arrays)


@pytest.mark.parametrize("name", LOGICAL)
def test_logic(name):
    compare(name, *operands(name, bool_))


@pytest.mark.parametrize("name", sorted(set(FLOATING + NUMERIC) - {"lgamma", "digamma", "sign"}))
def test_edges(name):
    grid = np.meshgrid(*[np.array(EDGES, np.float32)] * OPS[name].arity)
    compare(name, *(np.ascontiguousarray(a.ravel()) for a in grid))


def test_reductions_and_scans_along_an_axis():
    x = np.random.default_rng(4).standard_normal((3, 4, 5))
    t = torch.from_numpy(x)
    for name in ("sum", "prod", "amax", "amin"):
        np.testing.assert_allclose(OPS[name].evaluate(x, dims=(1,)), getattr(torch, name)(t, 1).numpy(), rtol=1e-12)
    for name in ("cumsum", "cumprod", "argmax", "argmin"):
        np.testing.assert_allclose(OPS[name].evaluate(x, dim=2), getattr(torch, name)(t, 2).numpy(), rtol=1e-12)
    for name in ("cummax", "cummin"):
        np.testing.assert_array_equal(OPS[name].evaluate(x, dim=0), getattr(torch, name)(t, 0).values.numpy())


@pytest.mark.parametrize("descending", [False, True])
def test_sort(descending):
    x = np.float32([[3, 1, np.nan, 1, -0.0, 0.0, np.inf]])
    expected = torch.sort(torch.from_numpy(x), dim=1, descending=descending, stable=True)
    for found, wanted in zip(OPS.sort.evaluate(x, dim=1, descending=descending), expected, strict=True):
        np.testing.assert_array_equal(found, wanted.numpy())


@pytest.mark.parametrize(
    ("equation", "shapes", "attrs"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4)), ((), (), (1,), (0,))),
        ("bij,kjb->bik", ((5, 2, 3), (4, 3, 5)), ((0,), (2,), (2,), (1,))),
        ("ijk,kjl->il", ((2, 3, 4), (4, 3, 5)), ((), (), (1, 2), (1, 0))),
        ("i,j->ij", ((2,), (3,)), ((), (), (), ())),
    ],
)
def test_dot_general(equation, shapes, attrs):
    rng = np.random.default_rng(6)
    x, y = (rng.standard_normal(s) for s in shapes)
    names = ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    found = OPS.dot_general.evaluate(x, y, **dict(zip(names, attrs, strict=True)))
    np.testing.assert_allclose(
        found, torch.einsum(equation, torch.from_numpy(x), torch.from_numpy(y)).numpy(), rtol=1e-12
    )
