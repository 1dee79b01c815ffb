"""The op matrix: every op, in every dtype and layout, obeys its type inference and does not change its inputs."""
from __future__ import annotations

import pathlib

import numpy as np
import pytest

from weft.ir import OPS, interpret, parse, same_graph, verify
from weft.ir.op import GradientRule, Trait
from weft.ir.ops import DECLARING
from weft.ir.samples import samples

ALL = list(OPS)


def transposed(x: np.ndarray) -> np.ndarray:
    return x.T.copy().T


def strided(x: np.ndarray) -> np.ndarray:
    if x.ndim == 0:
        return x
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    view = wide[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    view[...] = x
    return view


def broadcast(x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x


def by_name(op) -> str:
    return op.name


@pytest.mark.parametrize("op", ALL, ids=by_name)
def test_evaluate_obeys_infer_in_every_layout(op):
    rng = np.random.default_rng(7)
    assert samples(op)
    for sample in samples(op):
        arrays, graph = sample.arrays(rng), sample.graph()
        for layout in (np.asarray, transposed, strided, broadcast):
            laid = [layout(x) for x in arrays]
            before = [x.tobytes() for x in laid]
            plain = interpret(graph, [np.array(x, order="C") for x in laid])
            results = interpret(graph, laid)  # checks shapes and dtypes against the inferred types
            for result, expected in zip(results, plain, strict=True):
                np.testing.assert_allclose(result, expected, rtol=1e-6, err_msg=str(sample))
            assert [x.tobytes() for x in laid] == before, f"{sample} changed an input"


@pytest.mark.parametrize("op", ALL, ids=by_name)
def test_graph_of_one_op_is_sound_and_reads_back(op):
    for sample in samples(op):
        graph = sample.graph()
        verify(graph)
        again = parse(str(graph))
        assert same_graph(graph, again) and str(again) == str(graph)


@pytest.mark.parametrize("op", ALL, ids=by_name)
def test_declaration_is_complete(op):
    assert getattr(OPS, op.name) is op and OPS[op.name] is op
    assert op.torch_name and op.torch_name[0].isupper()
    assert list(op.attrs) == sorted(op.attrs)
    assert (op.index is not None) == op.has(Trait.VIEW)
    assert op.arity is None or not isinstance(op.vjp, tuple) or len(op.vjp) == op.arity
    assert isinstance(op.vjp, (tuple, GradientRule)) or callable(op.vjp)
    assert not op.has(Trait.COMMUTATIVE) or op.arity == 2
    assert not op.has(Trait.CONSTANT) or op.arity == 0
    assert not op.has(Trait.REDUCTION) or (op.unit is not None and "dims" in op.attrs)


def test_every_module_of_ops_is_loaded():
    folder = pathlib.Path(DECLARING[0].__file__).parent
    helpers = {"__init__", "infer", "registry"}
    assert {m.__name__.rpartition(".")[2] for m in DECLARING} == {p.stem for p in folder.glob("*.py")} - helpers


@pytest.mark.parametrize("op", [op for op in ALL if op.unit is not None and op.arity == 2], ids=by_name)
def test_unit_and_absorbing_element(op):
    rng = np.random.default_rng(3)
    for sample in samples(op):
        x, dtype = sample.arrays(rng)[0], sample.types[0].dtype
        unit = np.full(x.shape, op.unit_for(dtype), dtype.numpy)
        np.testing.assert_array_equal(op.evaluate(x, unit), x)
        if op.has(Trait.COMMUTATIVE):
            np.testing.assert_array_equal(op.evaluate(unit, x), x)
        if op.absorbing is not None and (op.absorbing >= 0 or dtype.is_signed):
            zero = np.full(x.shape, op.absorbing, dtype.numpy)
            np.testing.assert_array_equal(op.evaluate(x, zero), zero)


@pytest.mark.parametrize("op", [op for op in ALL if op.has(Trait.REDUCTION)], ids=by_name)
def test_unit_starts_a_reduction(op):
    for sample in samples(op):
        dtype = sample.types[0].dtype
        one = np.ones(1, dtype.numpy)
        with_unit = np.concatenate([one, np.full(2, op.unit_for(dtype), dtype.numpy)])
        np.testing.assert_array_equal(op.evaluate(with_unit, dims=(0,)), one[0])


@pytest.mark.parametrize("op", [op for op in ALL if op.has(Trait.COMMUTATIVE)], ids=by_name)
def test_commutative_to_the_bit(op):
    rng = np.random.default_rng(5)
    for sample in samples(op):
        x, y = sample.arrays(rng)
        assert np.asarray(op.evaluate(x, y)).tobytes() == np.asarray(op.evaluate(y, x)).tobytes()
