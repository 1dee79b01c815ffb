"""Every rewrite rule alone: it fits its example, and the rewritten graph has the same meaning, to the bit where it says
so."""

import dataclasses
import math

import numpy as np
import pytest

from weft.ir.builder import Builder
from weft.ir.errors import WeftError
from weft.ir.graph import Graph
from weft.ir.interpret import interpret
from weft.ir.ops import OPS
from weft.ir.types import TensorType, bool_, float32, float64, int32, int64, uint8
from weft.ir.verify import verify
from weft.passes import fold, rules_arithmetic, simplify
from weft.passes.rewrite import Rule, RuleTable, rewrite, rules

SPECIAL = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-40, 0.5, 3.0)
RULES = {rule.name: rule for rule in (*simplify.RULES, *fold.RULES)}


class Example(Builder):
    """A builder with short words for params and constants."""

    def floats(self, *shape, dtype=float32):
        return self.param(TensorType(shape, dtype))

    def ints(self, *shape, dtype=int64):
        return self.param(TensorType(shape, dtype))

    def bools(self, *shape):
        return self.param(TensorType(shape, bool_))


def part(b, x, starts, stops, steps=None):
    return b.slice(x, starts=starts, stops=stops, steps=steps or (1,) * len(starts))


def put(b, x, u, starts, steps=None):
    return b.slice_update(x, u, starts=starts, steps=steps or (1,) * len(starts))


def dot(b, x, y, left=(1,), right=(0,)):
    return b.dot_general(x, y, lhs_batch=(), rhs_batch=(), lhs_contract=left, rhs_contract=right)


def places(b, *values):
    return [b.index_scalar(v) for v in values]


def joined(b):
    return b.concatenate(b.floats(2, 3), b.floats(4, 3), dim=0)


def one_a_row(b, mode, dims):
    """Zeros of which every index of the first of `dims` has one element that is something else, in place 0."""
    x, rows = b.full((3, 3), -0.0, float32), b.iota(shape=(3,), dim=0, dtype=int64)
    return b.scatter(x, b.floats(3), rows, b.remainder(b.ints(3), b.full((3,), 3, int64)), dims=dims, mode=mode)


def one_hot(b, values, zero):
    """Of each row one element of `values`, which may be anything; zeros elsewhere."""
    columns = b.iota(shape=(3,), dim=0, dtype=int64)
    place = b.gather(columns, b.remainder(b.ints(10), b.full((10,), 3, int64)), dims=(0,))
    shown = [b.expand(b.view_as(v, (10, 1)), (10, 3)) for v in (place, values)]
    chosen = b.eq(b.iota(shape=(10, 3), dim=1, dtype=int64), shown[0])
    return b.select(chosen, shown[1], b.full((10, 3), zero, values.dtype))


def updated(b, x, u):
    """A dynamic_update at a runtime position, and that position."""
    starts = [b.ints(), b.ints()]
    return b.dynamic_update(x, u, *starts), starts


def dynamic_slice_after_update(b):
    new, starts = updated(b, b.floats(3, 3), b.floats(2, 2))
    return b.dynamic_slice(new, *starts, sizes=(2, 2))


def dynamic_update_twice(b):
    new, starts = updated(b, b.floats(3, 3), b.floats(2, 2))
    return b.dynamic_update(new, b.floats(2, 2), *starts)


def square_negated(b, name):
    return getattr(b, name)(b.neg(b.floats(10)), b.neg(b.floats(10)))


def with_constant(name, value, first=False, make="floats"):
    def build(b):
        x = getattr(b, make)(10)
        c = b.full_like(x, value)
        return getattr(b, name)(*((c, x) if first else (x, c)))

    return build


def choice(value):
    return lambda b: b.select(b.full((10,), value, bool_), b.floats(10), b.floats(10))


def same_pair(b, x):
    return b.maximum(x, x)


def region(*types, results):
    """A region whose results are made by `results(b, *params)`."""
    b = Example("region")
    params = [b.param(t) for t in types]
    return b.finish(results(b, *params))


def loop(b, count, *operands, carried, step):
    """A loop over [1, 1 + count), or over a runtime count when that is None; `step(b, index, *operands)` gives the
    body's results."""
    start = b.index_scalar(1)
    stop = b.add(start, b.ints()) if count is None else b.index_scalar(1 + count)
    body = region(TensorType((), int64), *(v.type for v in operands), results=step)
    return b.control(OPS.loop, (start, stop, *operands), {"carried": carried}, (body,))


def while_(b, *operands, carried, step):
    """Runs while operand 0, an i64[], is below 5."""
    types = [v.type for v in operands]
    condition = region(*types, results=lambda r, n, *rest: [r.lt(n, r.index_scalar(5))])
    return b.control(OPS.while_loop, operands, {"carried": carried}, (condition, region(*types, results=step)))


def cond(b, predicate, *operands):
    types = [v.type for v in operands]
    then, otherwise = (
        region(*types, results=lambda r, *xs, f=f: [getattr(r, f)(xs[0], x) for x in xs[1:]]) for f in ("add", "mul")
    )
    return b.control(OPS.cond, (predicate, *operands), {}, (then, otherwise))


def scaled_sum(b, i, x, y):
    return [b.add(x, b.mul(y, b.full_like(y, 0.5)))]


def same_operand(b):
    x = b.floats(3)
    return loop(
        b,
        None,
        b.floats(3),
        x,
        b.full((3,), 2, float32),
        x,
        carried=1,
        step=lambda r, i, s, p, q, u: [r.add(r.mul(s, p), r.mul(q, u))],
    )


def settled(b):
    x, zero = b.floats(3), b.full((3,), 0, float32)
    return loop(
        b,
        None,
        x,
        zero,
        b.floats(3),
        b.floats(3),
        carried=3,
        step=lambda r, i, s, z, kept, w: [r.add(r.add(s, z), r.mul(kept, w)), r.full((3,), 0, float32), kept],
    )


def settled_while(b):
    return while_(
        b,
        b.ints(),
        b.floats(3),
        b.floats(3),
        carried=3,
        step=lambda r, n, s, kept: [r.add(n, r.index_scalar(1)), r.add(s, kept), kept],
    )


def twin_slots(b):
    x = b.floats(3)
    return loop(b, None, x, x, carried=2, step=lambda r, i, p, q: [r.mul(p, q)] * 2)


def counters(b):
    """Two counters that start at zero, and one that starts there too but runs backwards."""
    start = b.full((2,), 0, int64)

    def step(r, i, p, q, down, s):
        one = r.full((2,), 1, int64)
        return [r.add(p, one), r.add(one, q), r.sub(down, one), r.add(s, r.mul(r.add(p, q), down))]

    return loop(b, None, start, start, start, b.ints(2), carried=4, step=step)


def decided_by_index(comparison, number):
    """Row `i` counted from the other end when `i` compares so with a number, which it does always or never."""

    def step(r, i, s, rows):
        first, compared = r.index_scalar(0), getattr(r, comparison)(i, r.index_scalar(number))
        place = r.select(compared, r.add(r.sub(i, r.index_scalar(1)), first), i)
        return [r.add(s, r.view_as(r.dynamic_slice(rows, place, first, sizes=(1, 3)), (3,)))]

    return lambda b: loop(b, 3, b.floats(3), b.floats(5, 3), carried=1, step=step)


def known_lasts(b):
    def step(r, i, s, w):
        new = r.mul(s, w)
        return [new, new, w, r.add(new, w)]

    return loop(b, 3, b.floats(3), b.floats(3), carried=1, step=step)


EXAMPLES = {
    "stopped gradient": [lambda b: b.stop_gradient(b.floats(3))],
    "decided cond": [
        lambda b: cond(b, b.scalar(True, bool_), b.floats(3), b.floats(3)),
        lambda b: cond(b, b.scalar(False, bool_), b.floats(3), b.floats(3)),
    ],
    "few iterations": [
        lambda b: loop(b, 0, b.floats(3), b.floats(3), carried=1, step=scaled_sum),
        lambda b: loop(b, 1, b.floats(3), b.floats(3), carried=1, step=scaled_sum),
    ],
    "decided by the index": [
        *(decided_by_index(*never) for never in (("lt", 1), ("le", 0), ("gt", 3), ("ge", 4))),
        *(decided_by_index(*always) for always in (("lt", 4), ("le", 3), ("gt", 0), ("ge", 1))),
    ],
    "needless operands": [
        same_operand,
        lambda b: cond(b, b.bools(), b.floats(3), b.full((3,), 1.5, float32)),
        lambda b: while_(
            b,
            b.ints(),
            b.literal(values=(1, 2), shape=(2,), dtype=int64),
            carried=1,
            step=lambda r, n, v: [r.add(n, r.sum(v, dims=(0,)))],
        ),
    ],
    "settled slots": [settled, settled_while],
    "twins": [twin_slots, counters],
    "known lasts": [known_lasts],
    "times one": [with_constant("mul", 1), with_constant("mul", 1, first=True)],
    "over one": [with_constant("div", 1)],
    "minus zero": [with_constant("sub", 0)],
    "plus negative zero": [with_constant("add", -0.0), with_constant("add", -0.0, first=True)],
    "negative zero minus": [with_constant("sub", -0.0, first=True)],
    "least maximum": [with_constant("maximum", -math.inf)],
    "greatest minimum": [with_constant("minimum", math.inf)],
    "unit": [
        with_constant("add", 0, make="ints"),
        with_constant("bitwise_and", -1, make="ints"),
        with_constant("logical_or", False, make="bools"),
        with_constant("shift_left", 0, make="ints"),
    ],
    "absorbing": [with_constant("mul", 0, make="ints"), with_constant("logical_and", False, make="bools", first=True)],
    "negated twice": [lambda b: b.neg(b.neg(b.floats(10)))],
    "minus negated": [lambda b: b.sub(b.floats(10), b.neg(b.floats(10)))],
    "plus negated": [
        lambda b: b.add(b.floats(10), b.neg(b.floats(10))),
        lambda b: b.add(b.neg(b.floats(10)), b.floats(10)),
    ],
    "negated times negated": [lambda b: square_negated(b, "mul")],
    "negated over negated": [lambda b: square_negated(b, "div")],
    "size of negated": [lambda b: b.abs(b.neg(b.floats(10)))],
    "size of size": [lambda b: b.abs(b.abs(b.floats(10)))],
    "to the zeroth": [with_constant("pow", 0)],
    "to the first": [with_constant("pow", 1)],
    "squared": [with_constant("pow", 2), with_constant("pow", 2, make="ints")],
    "cubed": [with_constant("pow", 3)],
    "over power of two": [with_constant("div", 8), with_constant("div", -0.25), with_constant("div", 2.0**100)],
    "minus constant": [with_constant("sub", 3, make="ints")],
    "plus plus": [lambda b: b.add(b.add(b.ints(10), b.full((10,), 2**62, int64)), b.full((10,), 2**62 + 5, int64))],
    "times times": [lambda b: b.mul(b.mul(b.ints(10), b.full((10,), 2**40, int64)), b.full((10,), 3**20, int64))],
    "not not": [lambda b: b.logical_not(b.logical_not(b.bools(4)))],
    "not equal": [lambda b: b.logical_not(b.eq(b.floats(10), b.floats(10)))],
    "not unequal": [lambda b: b.logical_not(b.ne(b.floats(10), b.floats(10)))],
    "both the same": [lambda b: same_pair(b, b.floats(10))],
    "chosen": [choice(True)],
    "not chosen": [choice(False)],
    "no choice": [lambda b: (lambda x: b.select(b.bools(10), x, x))(b.floats(10))],
    "choice turned": [lambda b: b.select(b.logical_not(b.bools(10)), b.floats(10), b.floats(10))],
    "same dtype": [lambda b: b.convert(b.floats(10), dtype=float32)],
    "converted twice": [
        lambda b: b.cast(b.cast(b.floats(10), float64), float32),
        lambda b: b.cast(b.cast(b.bools(10), int64), float32),
        lambda b: b.cast(b.cast(b.ints(10), int32), uint8),
        lambda b: b.cast(b.cast(b.ints(10, dtype=uint8), int32), float64),
    ],
    "below broadcast": [
        lambda b: b.mul(b.expand(b.floats(5), (3, 5)), b.full((3, 5), 0.5, float32)),
        lambda b: b.exp(b.expand(b.floats(), (10,))),
    ],
    "constant view": [
        lambda b: b.reshape(b.full((2, 3), 7, float32), shape=(6,)),
        lambda b: b.broadcast(b.full((1, 3), 7, float32), shape=(2, 3)),
    ],
    "same shape": [
        lambda b: b.reshape(b.floats(2, 3), shape=(2, 3)),
        lambda b: b.broadcast(b.floats(2, 3), shape=(2, 3)),
    ],
    "reshape of reshape": [lambda b: b.reshape(b.reshape(b.floats(2, 6), shape=(3, 4)), shape=(12,))],
    "broadcast of broadcast": [lambda b: b.expand(b.expand(b.floats(3), (2, 3)), (4, 2, 3))],
    "broadcast adds ones": [lambda b: b.expand(b.floats(3), (1, 1, 3))],
    "broadcast of added ones": [lambda b: b.expand(b.view_as(b.floats(3), (1, 3)), (4, 3))],
    "permute moves nothing": [lambda b: b.permute(b.floats(3, 1, 2), dims=(1, 0, 2))],
    "permute of permute": [lambda b: b.permute(b.permute(b.floats(2, 3, 4), dims=(1, 2, 0)), dims=(1, 0, 2))],
    "whole slice": [lambda b: part(b, b.floats(2, 3), (0, 0), (2, 3))],
    "slice of slice": [
        lambda b: part(b, part(b, b.floats(12), (1,), (11,), (2,)), (1,), (5,), (3,)),
        lambda b: part(b, part(b, b.floats(12), (5,), (5,)), (0,), (0,)),
    ],
    "slice of broadcast": [
        lambda b: part(b, b.expand(b.floats(3, 1, 4), (2, 3, 5, 4)), (0, 1, 2, 1), (1, 3, 4, 4), (1, 1, 1, 2))
    ],
    "flip moves nothing": [lambda b: b.flip(b.floats(1, 4), dims=(0,))],
    "flip of flip": [
        lambda b: b.flip(b.flip(b.floats(2, 3), dims=(0, 1)), dims=(1,)),
        lambda b: b.flip(b.flip(b.floats(4), dims=(0,)), dims=(0,)),
    ],
    "strided reshape": [
        lambda b: b.as_strided(b.view_as(b.floats(2, 6), (12,)), shape=(3, 2), strides=(2, 3), offset=1)
    ],
    "strided takes all": [lambda b: b.as_strided(b.floats(2, 6), shape=(3, 1, 4), strides=(4, 9, 1), offset=0)],
    "strided box": [
        lambda b: b.as_strided(b.floats(2, 3, 4), shape=(2, 1, 2), strides=(2, 5, 12), offset=5),
        lambda b: b.as_strided(b.floats(6), shape=(), strides=(), offset=4),
        lambda b: b.as_strided(b.floats(3, 4), shape=(4, 3), strides=(1, 4), offset=0),
    ],
    "strided box update": [
        lambda b: b.as_strided_update(b.floats(2, 3, 4), b.floats(2, 1, 2), strides=(2, 5, 12), offset=5),
        lambda b: b.as_strided_update(b.floats(3, 4), b.floats(4, 3), strides=(1, 4), offset=0),
    ],
    "slice of concatenate": [
        lambda b: part(b, joined(b), (2, 0), (6, 2), (2, 1)),
        lambda b: part(b, joined(b), (0, 0), (2, 3)),
    ],
    "slice of pad": [
        lambda b: part(b, b.pad(b.floats(4), low=(2,), high=(3,), value=1.5), (3,), (6,)),
        lambda b: part(b, b.pad(b.floats(4), low=(2,), high=(3,), value=-0.0), (6,), (9,)),
    ],
    "pad by nothing": [lambda b: b.pad(b.floats(4), low=(0,), high=(0,), value=1)],
    "pad of pad": [lambda b: b.pad(b.pad(b.floats(4), low=(2,), high=(0,), value=0.0), low=(1,), high=(3,), value=0.0)],
    "join of one": [
        lambda b: b.concatenate(b.floats(4), dim=0),
        lambda b: b.concatenate(b.floats(4), b.floats(0), b.floats(2), dim=0),
    ],
    "join of slices": [
        lambda b: (lambda x: b.concatenate(part(b, x, (1, 1), (3, 2)), part(b, x, (3, 1), (4, 2)), dim=0))(
            b.floats(5, 3)
        )
    ],
    "update covers all": [
        lambda b: put(b, b.floats(4), b.floats(4), (0,)),
        lambda b: put(b, b.floats(4), b.floats(0), (2,)),
    ],
    "slice of update": [
        lambda b: part(b, put(b, b.floats(8), b.floats(3), (1,), (2,)), (3,), (6,), (2,)),
        lambda b: part(b, put(b, b.floats(8), b.floats(3), (1,), (2,)), (0,), (8,), (2,)),
        lambda b: part(b, put(b, b.floats(8, 3), b.floats(3, 2), (1, 1)), (4, 0), (7, 3)),
        lambda b: part(b, put(b, b.floats(8), b.floats(3), (1,)), (2,), (3,)),
    ],
    "update of update": [lambda b: put(b, put(b, b.floats(8), b.floats(2), (2,)), b.floats(4), (1,))],
    "update of permuted": [
        lambda b: put(b, b.permute(b.floats(3, 5, 4), dims=(2, 0, 1)), b.floats(2, 3, 4), (1, 0, 1))
    ],
    "update with own slice": [lambda b: (lambda x: put(b, x, part(b, x, (1,), (4,)), (1,)))(b.floats(8))],
    "slice at a constant": [lambda b: b.dynamic_slice(b.floats(4, 4), *places(b, 1, 2), sizes=(3, 2))],
    "update at a constant": [lambda b: b.dynamic_update(b.floats(4, 4), b.floats(3, 2), *places(b, 1, 2))],
    "slice of dynamic update": [dynamic_slice_after_update],
    "dynamic update twice": [dynamic_update_twice],
    "strided of update": [
        lambda b: b.as_strided(
            b.as_strided_update(b.floats(12), b.floats(2, 3), strides=(1, 3), offset=2),
            shape=(2, 3),
            strides=(1, 3),
            offset=2,
        )
    ],
    "scatter of one a row": [
        lambda b, mode=mode, dims=dims: one_a_row(b, mode, dims) for mode in ("set", "add") for dims in ((0, 1), (1, 0))
    ],
    "sum of one a row": [lambda b, z=z: b.sum(one_hot(b, b.floats(10), z), dims=(1,)) for z in (0.0, -0.0)],
    "sum of negated one a row": [
        lambda b: b.sum(b.neg(one_hot(b, b.floats(10), 0.0)), dims=(1,)),
        lambda b: b.sum(b.neg(one_hot(b, b.ints(10), 0)), dims=(1,)),
    ],
    "strided update twice": [
        lambda b: b.as_strided_update(
            b.as_strided_update(b.floats(12), b.floats(2, 3), strides=(1, 3), offset=2),
            b.floats(2, 3),
            strides=(1, 3),
            offset=2,
        )
    ],
    "over no axes": [lambda b: b.sum(b.floats(10), dims=())],
    "over axes of one": [
        lambda b: b.sum(b.floats(1, 10), dims=(0,)),
        lambda b: b.sum(b.floats(4, 1, 3), dims=(0, 1)),
        lambda b: b.amax(b.floats(10, 1), dims=(1,)),
        lambda b: b.any(b.bools(1, 1), dims=(0, 1)),
    ],
    "reduction of reduction": [
        lambda b: b.amax(b.amax(b.floats(2, 5, 3), dims=(1,)), dims=(1,)),
        lambda b: b.sum(b.sum(b.ints(2, 5, 3), dims=(0,)), dims=(0,)),
    ],
    "extreme of broadcast": [
        lambda b: b.amax(b.expand(b.floats(5, 1), (3, 5, 4)), dims=(0, 2)),
        lambda b: b.amin(b.expand(b.floats(5), (2, 3, 5)), dims=(1,)),
    ],
    "scan of one": [lambda b: b.cumsum(b.floats(10, 1), dim=1)],
    "place of one": [lambda b: b.argmax(b.floats(10, 1), dim=1)],
    "dot of permuted left": [
        lambda b: dot(b, b.permute(b.ints(3, 2), dims=(1, 0)), b.ints(3, 4)),
        lambda b: dot(b, b.view_as(b.ints(1, 3), (3, 1)), b.ints(4, 1), (1,), (1,)),
    ],
    "dot of permuted right": [lambda b: dot(b, b.ints(2, 3), b.permute(b.ints(4, 3), dims=(1, 0)))],
    "permuted dot": [
        lambda b: b.view_as(dot(b, b.ints(1, 3), b.ints(3, 4)), (4, 1)),
        lambda b: b.permute(dot(b, b.ints(2, 3), b.ints(3, 4)), dims=(1, 0)),
        lambda b: b.permute(
            b.dot_general(
                b.ints(2, 3, 5), b.ints(2, 5, 4), lhs_batch=(0,), rhs_batch=(0,), lhs_contract=(2,), rhs_contract=(1,)
            ),
            dims=(0, 2, 1),
        ),
    ],
    "fold elementwise": [lambda b: b.div(b.full((3, 50), 1, float32), b.full((3, 50), 3, float32))],
    "fold reduction": [lambda b: b.sum(b.full((7, 30), 0.1, float32), dims=(1,))],
    "fold small": [
        lambda b: b.exp(b.literal(values=(1.0, -0.0, math.nan), shape=(3,), dtype=float32)),
        lambda b: b.permute(b.iota(shape=(2, 3), dim=1, dtype=int64), dims=(1, 0)),
    ],
    "uniform literal": [lambda b: b.literal(values=(2.0, 2.0), shape=(2,), dtype=float32)],
    "iota of one": [lambda b: b.iota(shape=(3, 1), dim=1, dtype=int64)],
}


def graph_of(build) -> Graph:
    b = Example("example")
    made = build(b)
    return b.finish(made if isinstance(made, tuple) else (made,))


def arguments(graph: Graph, seed: int) -> list[np.ndarray]:
    """Values for the params: zeros of both signs, NaN, infinities, small and ordinary numbers; scalars 0 or 1."""
    rng, arrays = np.random.default_rng(seed), []
    for param in graph.params:
        if param.dtype.kind == "float":
            ordinary = rng.standard_normal(param.shape) * 3
            array = np.where(rng.random(param.shape) < 0.5, rng.choice(SPECIAL, param.shape), ordinary)
        else:
            array = rng.integers(0, 2 if not param.shape or param.dtype is bool_ else 100, param.shape)
        arrays.append(array.astype(param.dtype.numpy))
    return arrays


def assert_same(old: Graph, new: Graph, ulp: int = 0, seeds: int = 4) -> None:
    """Both graphs give the same bits (or numbers within `ulp`); one NaN is as good as another."""
    for seed in range(seeds):
        given = arguments(old, seed)
        for a, z in zip(interpret(old, given), interpret(new, given), strict=True):
            if ulp and a.dtype.kind == "f":
                np.testing.assert_array_max_ulp(np.where(np.isnan(a), 0, a), np.where(np.isnan(z), 0, z), ulp)
            else:
                np.testing.assert_array_equal(a, z)
                np.testing.assert_array_equal(
                    np.signbit(a[~np.isnan(a)]), np.signbit(z[~np.isnan(z)])
                ) if a.dtype.kind == "f" else None


def test_every_rule_has_an_example():
    assert set(EXAMPLES) == set(RULES) and len(RULES) == len(simplify.RULES) + len(fold.RULES)


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    for build in EXAMPLES[name]:
        graph = graph_of(build)
        rewritten = rewrite(graph, RuleTable((RULES[name],)))
        assert rewritten is not graph, f"{name} does not fit\n{graph}"
        verify(rewritten)
        assert_same(graph, rewritten, RULES[name].ulp)
        everything = rewrite(graph, RuleTable(RULES.values()))
        assert_same(graph, everything, RULES[name].ulp)
        verify(everything)
        assert rewrite(everything, RuleTable(RULES.values())) is everything


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("plus zero", with_constant("add", 0.0)),
        ("minus negative zero", with_constant("sub", -0.0)),
        ("times zero", with_constant("mul", 0)),
        ("zero minus", with_constant("sub", 0.0, first=True)),
        ("over three", with_constant("div", 3.0)),
        ("over the smallest", with_constant("div", 2.0**-149)),
        ("through integers", lambda b: b.cast(b.cast(b.floats(10), int64), float32)),
        ("through float32", lambda b: b.cast(b.cast(b.ints(10), float32), int64)),
        ("sum of broadcast", lambda b: b.sum(b.expand(b.floats(5), (3, 5)), dims=(0,))),
        ("sum of sum", lambda b: b.sum(b.sum(b.floats(4, 5), dims=(0,)), dims=(0,))),
        ("out of range", lambda b: b.dynamic_slice(b.floats(4), *places(b, 3), sizes=(2,))),
        ("reshape that joins axes", lambda b: dot(b, b.view_as(b.ints(2, 3), (6, 1)), b.ints(1, 2))),
        ("diagonal", lambda b: b.as_strided(b.floats(3, 3), shape=(3,), strides=(4,), offset=0)),
        ("window over rows", lambda b: b.as_strided(b.floats(3, 4), shape=(4,), strides=(3,), offset=2)),
        ("overlapping read", lambda b: part(b, put(b, b.floats(8), b.floats(3), (1,)), (0,), (3,))),
    ],
)
def test_what_looks_true_and_is_not(name, build):
    graph = graph_of(build)
    assert rewrite(graph, RuleTable(RULES.values())) is graph, name


def test_a_broken_rule_is_found(monkeypatch):
    broken = dataclasses.replace(RULES["over one"], function=lambda b, x: b.neg(x), parameters=("b", "x"))
    monkeypatch.setitem(RULES, "over one", broken)
    with pytest.raises(AssertionError):
        test_rule("over one")


def test_a_rule_must_keep_the_type():
    row = ("wrong", rules_arithmetic.op("neg", rules_arithmetic.x), lambda b, x: b.cast(x, float64))
    rule = Rule(*row, parameters=("b", "x"))
    with pytest.raises(AssertionError, match="rule wrong gives f64"):
        rewrite(graph_of(lambda b: b.neg(b.floats(3))), RuleTable((rule,)))


def test_rules_that_lead_in_a_circle_are_named():
    there = ("there", rules_arithmetic.op("sin", rules_arithmetic.x), lambda b, x: b.cos(x))
    back = ("back", rules_arithmetic.op("cos", rules_arithmetic.x), lambda b, x: b.sin(x))
    with pytest.raises(WeftError, match="there, back, there"):
        rewrite(graph_of(lambda b: b.sin(b.floats(3))), RuleTable(rules(there, back)))


def test_rules_can_be_switched_off():
    graph = graph_of(EXAMPLES["negated twice"][0])
    assert rewrite(graph, RuleTable(RULES.values(), frozenset({"negated twice"}))) is graph
