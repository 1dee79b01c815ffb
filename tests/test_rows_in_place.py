"""Rows of sequences that a loop computes right where they belong."""

import numpy as np
import pytest

import weft
from weft.ir.builder import Builder
from weft.ir.ops import OPS
from weft.ir.types import TensorType, float32, int64
from weft.passes.fusion import fuse

SIZE = 48
"""Products of matrices of this size are no small work, so a loop of them is no kernel."""


def recorded(w, h, first, second):
    """A row that only the sequence needs, from the end; and one that the next iteration needs too."""
    n = len(first)
    for i in weft.range(n):
        z = h @ w
        h = z.tanh()
        first[n - 1 - i] = z.sigmoid() * 2
        second[i] = h
    return h


def some_rows(w, h, first, second):
    for i in weft.range(2, 5):
        h = (h @ w).tanh()
        first[i - 1] = h.cos()
    return h


def changed_rows(w, h, first, second):
    """Rows that are read before they are written stay what they are."""
    for i in weft.range(len(first)):
        h = (h @ w).tanh() + first[i]
        first[i] = h.cos()
        second[i] = second[i] * h
    return h


def nested(w, h, first, second):
    for i in weft.range(len(first)):
        for j in weft.range(3):
            h = (h @ w + j).tanh()
        second[i] = h * 0.5
        for k in weft.range(len(second)):
            h = (h @ w).sin()
            first[k] = h * h
    return h


def in_branches(w, h, first, second):
    for i in weft.range(len(first)):
        h = weft.cond(h.sum() > 0, lambda a, b: (a @ b).tanh(), lambda a, b: (b @ a).sin(), (h, w))
        first[i] = h
        second[i] = weft.cond(h.sum() < 0, lambda a, b: a @ b, lambda a, b: a - b, (h, w))
    return h


def one_value_twice(w, h, first, second):
    for i in weft.range(len(first)):
        h = (h @ w).tanh()
        y = h.cos()
        first[i] = y
        second[5 - i] = y
    return h


def what_an_iteration_begins_with(w, h, first, second):
    for i in weft.range(len(first)):
        first[i] = h
        h = (h @ w).tanh()
    return h


PROGRAMS = {
    recorded: 2,
    some_rows: 1,
    changed_rows: 0,
    nested: 2,
    in_branches: 2,
    one_value_twice: 2,
    what_an_iteration_begins_with: 1,
}
"""Program -> the sequences whose rows are put in their place."""


def arguments():
    rng = np.random.default_rng(5)
    w, h = (weft.tensor(rng.normal(size=(SIZE, SIZE)) * 0.2, dtype=weft.float32) for _ in range(2))
    return [w, h, *(weft.tensor(rng.normal(size=(6, SIZE, SIZE)), dtype=weft.float32) for _ in range(2))]


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("program", "rows"), PROGRAMS.items(), ids=lambda p: getattr(p, "__name__", None))
def test_rows_are_computed_where_they_belong(program, rows):
    compiled, eager, native = weft.compile(program), arguments(), arguments()
    for _ in range(3):
        close(compiled(*native), program(*eager))
        for a, b in zip(native, eager, strict=True):
            close(a, b)
    kept = [line for line in compiled.ir("plan").splitlines() if line.lstrip().startswith("keep ")]
    assert len({line.split(" in ")[1].split("@")[1].split()[0] for line in kept}) == rows


def test_gradients_of_recorded_rows():
    def loss(w, h, first, second):
        first, second = first * 1, second * 1
        h = recorded(w, h, first, second)
        ((first * second).sum() + h.sum()).backward()
        gradients, w.grad, h.grad = (w.grad, weft.zeros(1)), None, None
        return gradients[0]

    eager, native = arguments(), arguments()
    for x in (*eager[:1], *native[:1]):
        x.requires_grad_()
    found, right = weft.compile(loss)(*native), loss(*eager)
    np.testing.assert_allclose(found.numpy(), right.numpy(), rtol=1e-3, atol=1e-3 * float(right.abs().max()))


def test_only_contiguous_rows_of_known_places_are_put_in_place():
    def ops(axis, stop):
        square, stack = TensorType((SIZE, SIZE), float32), TensorType((SIZE, SIZE, SIZE), float32)
        r, b = Builder("body"), Builder("main")
        i, h, out = r.param(TensorType((), int64)), r.param(square), r.param(stack)
        zero = r.index_scalar(0)
        new = r.tanh(r.dot_general(h, h, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,)))
        row = r.view_as(new, tuple(1 if d == axis else SIZE for d in range(3)))
        body = r.finish([new, r.dynamic_update(out, row, *(i if d == axis else zero for d in range(3)))])
        end = b.index_scalar(stop) if stop is not None else b.param(TensorType((), int64))
        operands = b.index_scalar(0), end, b.param(square), b.param(stack)
        graph = fuse(b.finish(b.control(OPS.loop, operands, {"carried": 2}, (body,))))
        return {n.op for n in next(n for n in graph.nodes if n.op is OPS.loop).regions[0].nodes}

    assert OPS.row_update in ops(0, SIZE)
    assert not any(OPS.row_update in ops(*other) for other in ((1, SIZE), (0, SIZE + 1), (0, None)))
