"""Rewrite rules of elementwise arithmetic, logic and conversions, exact to the bit unless a row states a number of ulp.

What looks true and is not: x + 0 changes -0, x * 0 forgets NaN and the sign, 0 - x is not -x at 0, -(x - y) is not
y - x at 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ir.graph import Node, Value
from ..ir.op import Op, Trait
from ..ir.ops import OPS
from ..ir.types import DType
from .rewrite import Pattern, Rewriter, number, op, rules, some, trait

x, y, c, d = some("x"), some("y"), number("c"), number("d")
whole = some("x", lambda v: v.dtype.is_integer)
"""Integers, whose arithmetic wraps around and may be regrouped."""


def _binary_with(fact: str) -> frozenset[Op]:
    return frozenset(o for o in OPS if o.arity == 2 and getattr(o, fact) is not None)


def _unit(node: Node, x: Value, c: Any) -> Value | None:
    return x if not x.dtype.is_floating_point and c == node.op.unit else None


def _absorbed(b: Rewriter, node: Node, x: Value, c: Any) -> Value | None:
    return b.full_like(x, c.item()) if not x.dtype.is_floating_point and c == node.op.absorbing else None


def _divide_by_power_of_two(b: Rewriter, x: Value, c: Any) -> Value | None:
    """The reciprocal of a power of two is exact unless it leaves the normal numbers."""
    if not math.isfinite(c) or abs(math.frexp(c)[0]) != 0.5:
        return None
    inverse, limits = 1 / float(c), np.finfo(c.dtype)
    return b.mul(x, b.full_like(x, inverse)) if limits.tiny <= abs(inverse) <= limits.max else None


def _holds(source: DType, target: DType) -> bool:
    """Whether every value of `source` is one of `target`, so that converting on from there is converting directly."""
    if source.kind == "float" or target.kind == "bool":
        return target.kind == "float" and source.kind == "float" and target.bits >= source.bits
    digits = 1 if source.kind == "bool" else source.bits - (source.kind == "int")
    if target.kind == "float":
        return digits <= np.finfo(target.numpy).nmant + 1
    return digits <= target.bits - (target.kind == "int") and not (source.kind == "int" and target.kind == "uint")


def _convert_twice(b: Rewriter, node: Node, inner: Node) -> Value | None:
    source, middle, target = inner.inputs[0], inner.output.dtype, node.output.dtype
    wraps = source.dtype.is_integer and middle.is_integer and target.is_integer and target.bits <= middle.bits
    exact = _holds(source.dtype, middle) and (source.dtype.kind != "float" or target.kind == "float")
    return b.cast(source, target) if exact or wraps else None


def _below_broadcast(b: Rewriter, node: Node) -> Value | None:
    """op(broadcast x, broadcast y, constant) = broadcast op(x, y, constant): fewer elements to compute."""
    sources: list[Value | None] = []
    for value in node.inputs:
        producer = b.producer.get(value)
        if value in b.numbers:
            sources.append(None)
        elif producer is not None and producer.op is OPS.broadcast:
            sources.append(producer.inputs[0])
        else:
            return None
    shapes = {s.shape for s in sources if s is not None}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    inputs = [
        b.full(shape, b.numbers[v].item(), v.dtype) if s is None else s
        for v, s in zip(node.inputs, sources, strict=True)
    ]
    return b.expand(b.emit(node.op, inputs, node.attrs), node.output.shape)


# fmt: off
RULES = rules(
    # one and zero
    ("times one", op("mul", x, number(1)), lambda x: x),                                # x * 1 = x
    ("over one", op("div", x, number(1)), lambda x: x),                                 # x / 1 = x
    ("minus zero", op("sub", x, number(0.0)), lambda x: x),                             # x - (+0) = x
    ("plus negative zero", op("add", x, number(-0.0)), lambda x: x),                    # x + (-0) = x
    ("negative zero minus", op("sub", number(-0.0), x), lambda b, x: b.neg(x)),         # (-0) - x = -x
    ("least maximum", op("maximum", x, number(-math.inf)), lambda x: x),                # max(x, -inf) = x
    ("greatest minimum", op("minimum", x, number(math.inf)), lambda x: x),              # min(x, inf) = x
    ("unit", Pattern(ops=_binary_with("unit"), inputs=(x, c)), _unit),                  # x o unit = x
    ("absorbing", Pattern(ops=_binary_with("absorbing"), inputs=(x, c)), _absorbed),    # x o absorbing = absorbing

    # signs
    ("negated twice", op("neg", op("neg", x)), lambda x: x),                            # -(-x) = x
    ("minus negated", op("sub", x, op("neg", y)), lambda b, x, y: b.add(x, y)),         # x - (-y) = x + y
    ("plus negated", op("add", x, op("neg", y)), lambda b, x, y: b.sub(x, y)),          # x + (-y) = x - y
    ("negated times negated", op("mul", op("neg", x), op("neg", y)), lambda b, x, y: b.mul(x, y)),  # -x * -y = x * y
    ("negated over negated", op("div", op("neg", x), op("neg", y)), lambda b, x, y: b.div(x, y)),  # (-x) / (-y) = x / y
    ("size of negated", op("abs", op("neg", x)), lambda b, x: b.abs(x)),                # |-x| = |x|
    ("size of size", op("abs", op("abs", x, name="inner")), lambda inner: inner.output),  # ||x|| = |x|

    # powers
    ("to the zeroth", op("pow", x, number(0.0)), lambda b, x: b.full_like(x, 1)),       # x ** 0 = 1, of NaN too
    ("to the first", op("pow", x, number(1)), lambda x: x),                             # x ** 1 = x
    ("squared", op("pow", x, number(2)), lambda b, x: b.mul(x, x), 2),                  # x ** 2 = x * x
    ("cubed", op("pow", x, number(3)), lambda b, x: b.mul(b.mul(x, x), x), 3),          # x ** 3 = x * x * x
    ("over power of two", op("div", x, c), _divide_by_power_of_two),                    # x / 2**k = x * 2**-k

    # integers
    ("minus constant", op("sub", whole, c), lambda b, x, c: b.add(x, b.full_like(x, (-c).item()))),  # x - c = x + (-c)
    ("plus plus", op("add", op("add", whole, c), d),
     lambda b, x, c, d: b.add(x, b.full_like(x, (c + d).item()))),                      # (x + c) + d = x + (c + d)
    ("times times", op("mul", op("mul", whole, c), d),
     lambda b, x, c, d: b.mul(x, b.full_like(x, (c * d).item()))),                      # (x * c) * d = x * (c * d)

    # logic
    ("not not", op("logical_not", op("logical_not", x)), lambda x: x),                  # not not x = x
    ("not equal", op("logical_not", op("eq", x, y)), lambda b, x, y: b.ne(x, y)),       # not x == y = x != y
    ("not unequal", op("logical_not", op("ne", x, y)), lambda b, x, y: b.eq(x, y)),     # not x != y = x == y
    ("both the same", op("logical_and logical_or bitwise_and bitwise_or maximum minimum", x, x),
     lambda x: x),                                                                      # x and x = x
    ("chosen", op("select", number(True), x, y), lambda x: x),                          # select(true, x, y) = x
    ("not chosen", op("select", number(False), x, y), lambda y: y),                     # select(false, x, y) = y
    ("no choice", op("select", some("p"), x, x), lambda x: x),                          # select(p, x, x) = x
    ("choice turned", op("select", op("logical_not", some("p")), x, y),
     lambda b, p, x, y: b.select(p, y, x)),                                             # not p turns the choice

    # conversions
    ("same dtype", op("convert", x),
     lambda node, x: x if x.dtype is node.output.dtype else None),                      # convert(x) = x
    ("converted twice", op("convert", op("convert", x, name="inner")), _convert_twice),  # directly

    ("below broadcast", trait(Trait.ELEMENTWISE), _below_broadcast),                    # fewer elements
)
# fmt: on
