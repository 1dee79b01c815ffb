"""Small typical uses of every op: what the op matrix of the tests runs, on the interpreter and on every backend.

`samples(op)` gives each op in every dtype that it takes, with shapes that include size 0 and size 1.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .builder import Builder
from .errors import DTypeError
from .graph import Graph, Node, Value
from .op import Op
from .ops import OPS
from .types import DTYPES, Axes, DType, TensorType, bool_, float32, float64, int64, uint32, uint64

Range = tuple[float, float]


@dataclass(frozen=True)
class Arg:
    """One operand of a sample: its shape, its dtype (None: the sample's), and the range [low, high) of its elements."""

    shape: Axes
    dtype: DType | None = None
    range: Range | None = None


@dataclass(frozen=True)
class Sample:
    """One use of an op."""

    op: Op
    types: tuple[TensorType, ...]
    ranges: tuple[Range | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Graph, ...] = ()

    def __str__(self) -> str:
        attrs = ", ".join(f"{k}={v}" for k, v in self.attrs.items())
        return f"{self.op.name}({', '.join(map(str, self.types))}{'; ' * bool(attrs)}{attrs})"

    def outputs(self) -> tuple[TensorType, ...]:
        """The inferred types of the results."""
        return self.op.output_types(self.types, {**self.attrs, "regions": self.regions} if self.regions else self.attrs)

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Random operands."""
        return [random_array(rng, t.sizes, t.dtype, r) for t, r in zip(self.types, self.ranges, strict=True)]

    def graph(self) -> Graph:
        """The graph of this one node."""
        params = tuple(Value(t, f"x{k}") for k, t in enumerate(self.types))
        outputs = tuple(Value(t) for t in self.outputs())
        return Graph(self.op.name, params, (Node(self.op, params, self.attrs, outputs, None, self.regions),), outputs)


def random_array(rng: np.random.Generator, shape: Axes, dtype: DType, span: Range | None = None) -> np.ndarray:
    """An array of random elements in [low, high); the default suits the dtype."""
    if dtype is bool_:
        return np.asarray(rng.integers(0, 2, shape).astype(np.bool_))
    if dtype.kind == "float":
        low, high = span or (-2.0, 2.0)
        return np.asarray(rng.uniform(low, high, shape).astype(dtype.numpy))
    low, high = span or ((-9, 10) if dtype.is_signed else (0, 20))
    return np.asarray(
        rng.integers(int(max(low, 0 if dtype.kind == "uint" else low)), int(high), shape).astype(dtype.numpy)
    )


def samples(op: Op) -> list[Sample]:
    """Samples of `op` in all dtypes it takes; never empty."""
    found = []
    for args, attrs, regions in _uses(op):
        for dtype in DTYPES if any(a.dtype is None for a in args) else (float32,):
            types = tuple(TensorType(a.shape, a.dtype or dtype) for a in args)
            sample = Sample(op, types, tuple(a.range for a in args), attrs, regions)
            try:
                sample.outputs()
            except DTypeError:
                continue
            found.append(sample)
    return found


Use = tuple[tuple[Arg, ...], dict[str, Any], tuple[Graph, ...]]

SHAPES: tuple[Axes, ...] = ((2, 3), (), (0, 3), (1,), (4, 1, 5))

DOMAINS: dict[str, tuple[Range, ...]] = {
    "log": ((0.1, 3),),
    "log2": ((0.1, 3),),
    "log10": ((0.1, 3),),
    "log1p": ((-0.9, 3),),
    "sqrt": ((0.1, 3),),
    "rsqrt": ((0.1, 3),),
    "reciprocal": ((0.5, 3),),
    "tan": ((-1.2, 1.2),),
    "asin": ((-0.9, 0.9),),
    "acos": ((-0.9, 0.9),),
    "acosh": ((1.1, 3),),
    "atanh": ((-0.9, 0.9),),
    "erfinv": ((-0.9, 0.9),),
    "lgamma": ((0.2, 4),),
    "digamma": ((0.2, 4),),
    "div": ((-2, 2), (0.5, 3)),
    "pow": ((0.2, 3), (-2, 3)),
    "shift_left": ((0, 20), (0, 7)),
    "shift_right": ((-20, 20), (0, 7)),
}
"""Where elementwise ops are sampled, one range for each operand; elsewhere the default of the dtype."""


def _uses(op: Op) -> Iterator[Use]:
    if op.name in TABLE:
        for use in TABLE[op.name]():
            args, attrs, *regions = use
            yield tuple(args), attrs, tuple(regions)
    else:
        yield from _elementwise_uses(op)


def _elementwise_uses(op: Op) -> Iterator[Use]:
    ranges = DOMAINS.get(op.name, (None,) * (op.arity or 1))
    for shape in SHAPES:
        for attrs in [{"dtype": d} for d in DTYPES] if op.attrs else [{}]:
            args = tuple(Arg(shape, None, r) for r in ranges)
            yield (Arg(shape, bool_), *args[1:]) if op is OPS.select else args, attrs, ()


def _box(*shapes: Axes) -> list[Arg]:
    return [Arg(s) for s in shapes]


def _index(shape: Axes, size: int) -> Arg:
    return Arg(shape, int64, (0, size))


def _reductions() -> list:
    return [
        (_box((3, 4, 2)), {"dims": (0, 2)}),
        (_box((3, 4)), {"dims": (1,)}),
        (_box((3, 4)), {"dims": ()}),
        (_box(()), {"dims": ()}),
        (_box((1, 1)), {"dims": (0, 1)}),
        (_box((0, 3)), {"dims": (1,)}),
    ]


def _reductions_of_nothing() -> list:
    return _reductions() + [(_box((2, 0)), {"dims": (1,)})]


def _along_one_axis() -> list:
    return [
        (_box((3, 4)), {"dim": 1}),
        (_box((5,)), {"dim": 0}),
        (_box((2, 3, 2)), {"dim": 1}),
        (_box((1,)), {"dim": 0}),
        (_box((0, 3)), {"dim": 1}),
    ]


def _dots() -> list:
    def attrs(lhs_batch: Axes, rhs_batch: Axes, lhs_contract: Axes, rhs_contract: Axes) -> dict[str, Axes]:
        return {
            "lhs_batch": lhs_batch,
            "lhs_contract": lhs_contract,
            "rhs_batch": rhs_batch,
            "rhs_contract": rhs_contract,
        }

    return [
        (_box((2, 3), (3, 4)), attrs((), (), (1,), (0,))),
        (_box((3, 2), (4, 3)), attrs((), (), (0,), (1,))),
        (_box((3,), (3,)), attrs((), (), (0,), (0,))),
        (_box((2,), (3,)), attrs((), (), (), ())),
        (_box((3,), (3, 4)), attrs((), (), (0,), (0,))),
        (_box((2, 3), (2, 3)), attrs((0,), (0,), (1,), (1,))),
        (_box((2, 3, 4), (2, 4, 5)), attrs((0,), (0,), (2,), (1,))),
        (_box((3, 2, 4), (4, 5, 3)), attrs((0,), (2,), (2,), (0,))),
        (_box((2, 3, 4), (4, 5, 3)), attrs((), (), (1, 2), (2, 0))),
        (_box((0, 3), (3, 2)), attrs((), (), (1,), (0,))),
        (_box((2, 0), (0, 3)), attrs((), (), (1,), (0,))),
        (_box((1, 1), (1, 1)), attrs((), (), (1,), (0,))),
    ]


def _scatters() -> list:
    uses = []
    for mode in ("set", "add", "mul", "amin", "amax"):
        uses += [
            ([Arg((5, 2)), Arg((4, 2)), _index((4,), 5)], {"dims": (0,), "mode": mode}),
            ([Arg((3, 2, 4)), Arg((2, 3, 2)), _index((2, 3), 3), _index((2, 3), 4)], {"dims": (0, 2), "mode": mode}),
            ([Arg((3,)), Arg(()), _index((), 3)], {"dims": (0,), "mode": mode}),
            ([Arg((3,)), Arg((0,)), _index((0,), 3)], {"dims": (0,), "mode": mode}),
        ]
    return uses


def _body(name: str, params: list[TensorType], results: Callable[..., Any]) -> Graph:
    b = Builder(name)
    return b.finish(results(b, *[b.param(t) for t in params]))


VECTOR, SCALAR, POSITION = TensorType((3,), float64), TensorType((), float64), TensorType((), int64)


def _loops() -> list:
    """x <- x * w + index, five times; also the last iteration's sum."""

    def body(b: Any, index: Any, x: Any, w: Any) -> list:
        new = b.add(b.mul(x, w), b.expand(b.cast(index, float64), (3,)))
        return [new, b.sum(new, dims=(0,))]

    region = _body("body", [POSITION, VECTOR, VECTOR], body)
    bounds = [Arg((), int64, (0, 3)), Arg((), int64, (4, 6))]
    return [(bounds + [Arg((3,), float64), Arg((3,), float64)], {"carried": 1}, region)]


def _conds() -> list:
    then = _body("then", [VECTOR, VECTOR], lambda b, x, y: [b.mul(x, y)])
    otherwise = _body("otherwise", [VECTOR, VECTOR], lambda b, x, y: [b.sub(x, b.sin(y))])
    return [([Arg((), bool_), Arg((3,), float64), Arg((3,), float64)], {}, then, otherwise)]


def _whiles() -> list:
    """Halves x until it is below the limit."""
    condition = _body("condition", [SCALAR, SCALAR], lambda b, x, limit: [b.gt(x, limit)])
    body = _body("body", [SCALAR, SCALAR], lambda b, x, limit: [b.scale(x, 0.5)])
    return [([Arg((), float64, (1, 9)), Arg((), float64, (0.1, 0.5))], {"carried": 1}, condition, body)]


def _fusions() -> list:
    region = _body("body", [VECTOR, VECTOR], lambda b, x, y: [b.mul(x, y), b.sum(b.exp(x), dims=(0,))])
    return [([Arg((3,), float64), Arg((3,), float64)], {}, region)]


TABLE: dict[str, Callable[[], list]] = {
    "constant": lambda: (
        [([], {"value": v, "dtype": d}) for d in DTYPES for v in (0, 1)]
        + [
            ([], {"value": v, "dtype": d})
            for d in (float32, float64)
            for v in (0.1, float("nan"), float("inf"), -float("inf"), -0.0)
        ]
    ),
    "literal": lambda: (
        [([], {"values": (3, 1, 2, 5), "shape": (2, 2), "dtype": d}) for d in DTYPES if d is not bool_]
        + [
            ([], {"values": (True, False), "shape": (2,), "dtype": bool_}),
            ([], {"values": (), "shape": (0, 2), "dtype": float32}),
            ([], {"values": (1.5, float("nan"), -float("inf")), "shape": (3,), "dtype": float64}),
        ]
    ),
    "iota": lambda: [
        ([], {"shape": s, "dim": k, "dtype": d})
        for d in DTYPES
        if d is not bool_
        for s, k in (((4,), 0), ((2, 3), 0), ((2, 3), 1), ((0,), 0), ((1,), 0))
    ],
    "empty": lambda: [([], {"shape": s, "dtype": d}) for d in DTYPES for s in ((), (2, 3), (0, 2))],
    "broadcast": lambda: [
        (_box(s), {"shape": t})
        for s, t in (((3, 1), (2, 3, 4)), ((), (2, 2)), ((0, 1), (0, 3)), ((4,), (4,)), ((1,), (0,)))
    ],
    "reshape": lambda: [
        (_box(s), {"shape": t})
        for s, t in (
            ((2, 6), (3, 4)),
            ((2, 3, 4), (6, 4)),
            ((4,), (2, 1, 2)),
            ((0, 3), (3, 0)),
            ((1, 1), ()),
            ((6, 4), (2, 3, 2, 2)),
            ((2, 1, 6, 2), (1, 4, 2, 3, 1)),
        )
    ],
    "permute": lambda: [
        (_box((2, 3, 4)), {"dims": (2, 0, 1)}),
        (_box(()), {"dims": ()}),
        (_box((0, 2)), {"dims": (1, 0)}),
        (_box((3, 2)), {"dims": (0, 1)}),
    ],
    "slice": lambda: [
        (_box(s), {"starts": a, "stops": z, "steps": c})
        for s, a, z, c in (
            ((5, 6), (1, 0), (4, 6), (2, 1)),
            ((5, 6), (0, 2), (5, 5), (1, 1)),
            ((4,), (2,), (2,), (1,)),
            ((7,), (1,), (7,), (3,)),
            ((8,), (2,), (7,), (3,)),
            ((40,), (1,), (40,), (19,)),
            ((), (), (), ()),
        )
    ],
    "flip": lambda: [
        (_box((3, 4)), {"dims": (1,)}),
        (_box((3, 4)), {"dims": (0, 1)}),
        (_box((2,)), {"dims": ()}),
        (_box((0,)), {"dims": (0,)}),
    ],
    "stop_gradient": lambda: [(_box((3, 4)), {}), (_box(()), {})],
    "barrier": lambda: [(_box((3, 4), (2,)), {}), (_box((), ()), {})],
    "as_strided": lambda: [
        (_box(s), {"shape": t, "strides": c, "offset": o})
        for s, t, c, o in (
            ((4, 5), (2, 3), (5, 2), 1),
            ((6,), (4, 3), (1, 1), 0),
            ((3,), (2, 3), (0, 1), 0),
            ((2, 2), (), (), 3),
            ((3,), (0, 2), (1, 1), 0),
        )
    ],
    "slant": lambda: [
        (_box(s), {"dim": d, "window": w, "step": c, "offset": o, "size": n})
        for s, d, w, c, o, n in (
            ((7, 3), 0, 1, 2, 1, 2),
            ((3, 2, 6), 2, 0, -1, 2, 3),
            ((5, 1), 0, 1, 3, 1, 4),
            ((4, 3), 0, 1, 0, 1, 3),
            ((4, 3), 0, 1, 1, 0, 0),
            ((4, 0), 0, 1, 1, 0, 2),
        )
    ],
    "pad": lambda: [
        (_box(s), {"low": a, "high": z, "value": v})
        for s, a, z, v in (((2, 3), (1, 0), (0, 2), 1), ((), (), (), 0), ((0,), (2,), (1,), 1), ((3,), (0,), (0,), 0))
    ],
    "concatenate": lambda: [
        (_box((2, 3), (2, 1), (2, 0)), {"dim": 1}),
        (_box((2,)), {"dim": 0}),
        (_box((1, 2), (3, 2)), {"dim": 0}),
    ],
    "slice_update": lambda: [
        (_box(s, u), {"starts": a, "steps": c})
        for s, u, a, c in (
            ((5, 6), (2, 3), (1, 0), (2, 2)),
            ((4,), (2,), (2,), (1,)),
            ((4,), (0,), (4,), (1,)),
            ((), (), (), ()),
        )
    ],
    "as_strided_update": lambda: [
        (_box(s, u), {"strides": c, "offset": o})
        for s, u, c, o in (((4, 5), (4,), (6,), 0), ((4, 5), (2, 3), (10, 2), 1), ((3,), (0,), (1,), 1))
    ],
    "dynamic_update": lambda: [
        ([*_box((4, 5), (2, 3)), _index((), 3), _index((), 3)], {}),
        ([*_box((3,), (1,)), _index((), 3)], {}),
        (_box((), ()), {}),
    ],
    "row_update": lambda: [
        ([*_box((4, 5), (1, 5)), _index((), 4)], {"step": 1, "offset": 0}),
        ([*_box((7,), (1,)), _index((), 3)], {"step": -2, "offset": 5}),
    ],
    "dynamic_slice": lambda: [
        ([Arg((4, 5)), _index((), 3), _index((), 3)], {"sizes": (2, 3)}),
        ([Arg((3,)), _index((), 4)], {"sizes": (0,)}),
        (_box(()), {"sizes": ()}),
    ],
    "gather": lambda: [
        ([Arg((5, 2)), _index((3, 2), 5)], {"dims": (0,)}),
        ([Arg((3, 2, 4)), _index((5,), 4), _index((5,), 3)], {"dims": (2, 0)}),
        ([Arg((2, 3)), _index((), 3)], {"dims": (1,)}),
        ([Arg((3,)), _index((0,), 3)], {"dims": (0,)}),
        ([Arg((3, 2)), _index((4,), 3), _index((4,), 2)], {"dims": (0, 1)}),
    ],
    "scatter": _scatters,
    "sum": _reductions_of_nothing,
    "prod": _reductions_of_nothing,
    "any": _reductions_of_nothing,
    "all": _reductions_of_nothing,
    "amax": _reductions,
    "amin": _reductions,
    "argmax": _along_one_axis,
    "argmin": _along_one_axis,
    "cumsum": _along_one_axis,
    "cumprod": _along_one_axis,
    "cummax": _along_one_axis,
    "cummin": _along_one_axis,
    "dot_general": _dots,
    "sort": lambda: [(a, {**k, "descending": d}) for a, k in _along_one_axis() for d in (False, True)],
    "random_bits": lambda: [
        ([Arg((2,), uint64)], {"shape": s, "dtype": d}) for s in ((2, 3), (), (0,)) for d in (uint32, uint64)
    ],
    "threefry": lambda: [
        ([Arg(s, uint64), Arg(s, uint64), Arg(s, int64, (0, 99))], {"dtype": d})
        for s in SHAPES
        for d in (uint32, uint64)
    ],
    "loop": _loops,
    "cond": _conds,
    "while_loop": _whiles,
    "fusion": _fusions,
}
"""Uses of the ops whose operands are not all of one shape and dtype: ([operands], attributes, *regions)."""
