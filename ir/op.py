"""What an op is: one declaration that holds every fact about it. The declarations themselves are in `ir/ops/`."""
from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import WeftError
from .types import DType, TensorType


class Trait(enum.Enum):
    """Properties that passes ask for, instead of lists of names."""

    ELEMENTWISE = "each output element depends on the same element of every input"
    COMMUTATIVE = "the two inputs may be exchanged, to the bit"
    COMPARISON = "elementwise, with a bool result"
    VIEW = "the output's elements are elements of the first input at `index(...)`; no arithmetic"
    UPDATE = "the first input with some elements replaced or changed; lowered in place when the input dies"
    REDUCTION = "axes named by `dims` are folded with an associative function"
    PIECEWISE = "each output element is an element of one input or a constant, chosen by position"
    CONSTANT = "no inputs; the value follows from the attributes"
    RANDOM = "the value depends on a random stream that is an explicit input"
    INDEXED = "reads or writes at places given by integer inputs, which are bounds-checked"
    CONTROL = "has regions that run zero or more times"
    LIBRARY = "computed by a library call on whole buffers"

    __hash__ = object.__hash__  # members are singletons; Enum's own is written in Python, and `Op.has` is hot


class GradientRule(enum.Enum):
    """What stands in place of a derivative."""

    ZERO_GRAD = "the derivative is zero almost everywhere: no cotangent flows"
    NOT_DIFFERENTIABLE = "asking for the derivative is an error that names the op"


ZERO_GRAD = GradientRule.ZERO_GRAD
NOT_DIFFERENTIABLE = GradientRule.NOT_DIFFERENTIABLE

Infer = Callable[[Sequence[TensorType], Mapping[str, Any]], TensorType | tuple[TensorType, ...]]
"""(input types, attrs) -> output type(s). Raises ShapeError or DTypeError with both shapes or dtypes in the text."""

InputRule = Callable[..., Any] | GradientRule
"""(b, node, g) -> cotangent of one input. `b` is an Emitter, `node` has inputs, outputs and attrs, `g` is the cotangent
of the output (a tuple, with None where nothing flows, when the op has several outputs)."""

Vjp = tuple[InputRule, ...] | Callable[..., Any] | GradientRule
"""One rule per input, or one function (b, node, g, i) for ops with any number of inputs, or a GradientRule for all."""


@dataclass(frozen=True, eq=False)
class Op:
    """One primitive operation.

    Attributes:
        name: as printed in the IR.
        infer: output types from input types and attributes.
        evaluate: the reference meaning, `evaluate(*arrays, **attrs)` in NumPy; eager mode runs exactly this.
        vjp: the vector-Jacobian rule, written with IR ops; mandatory.
        attrs: the attribute schema, name -> Python type, in printing order (sorted).
        traits: what passes may assume.
        arity: the number of inputs, None when it varies.
        unit: x op unit == x for a binary op; the start value of a reduction. `unit_for` gives it in a dtype.
        absorbing: x op absorbing == absorbing for finite x.
        index: for views, (output index expressions, input type, attrs) -> input index expressions (see `ir/index.py`).
        torch_name: the name in torch's `grad_fn` before `Backward0`, e.g. `Mul`.
    """

    name: str
    infer: Infer
    evaluate: Callable[..., Any]
    vjp: Vjp
    attrs: Mapping[str, type | tuple[type, ...]] = field(default_factory=dict)
    traits: frozenset[Trait] = frozenset()
    arity: int | None = 1
    unit: float | int | bool | None = None
    absorbing: float | int | bool | None = None
    index: Callable[..., Any] | None = None
    torch_name: str = ""

    def has(self, trait: Trait) -> bool:
        """Whether passes may assume `trait`."""
        return trait in self.traits

    # What every eager operation asks is found out once.

    @functools.cached_property
    def is_view(self) -> bool:
        """Whether it has the trait VIEW."""
        return Trait.VIEW in self.traits

    @functools.cached_property
    def is_control(self) -> bool:
        """Whether it has the trait CONTROL."""
        return Trait.CONTROL in self.traits

    @functools.cached_property
    def keeps_layout(self) -> bool:
        """Whether the reference meaning's result may lie in memory as it comes: that of others is made contiguous."""
        return self.is_view or Trait.ELEMENTWISE in self.traits

    @functools.cached_property
    def record_name(self) -> str:
        """The name of its record on the tape."""
        return f"{self.torch_name or self.name.title().replace('_', '')}Backward0"

    def output_types(self, inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """The inferred output types, always as a tuple."""
        inferred = self.infer(inputs, attrs)
        return inferred if isinstance(inferred, tuple) else (inferred,)

    def unit_for(self, dtype: DType) -> float | int | bool | None:
        """`unit` in `dtype`: an infinite one (maximum, amin ...) is an integer type's extreme, -1 has all bits set."""
        if self.unit is None or dtype.kind == "float":
            return self.unit
        if dtype.kind == "bool":
            return self.unit > 0 if isinstance(self.unit, float) else bool(self.unit)
        limits = np.iinfo(dtype.numpy)
        if isinstance(self.unit, float):
            return int(limits.max) if self.unit > 0 else int(limits.min)
        return int(limits.max) if self.unit == -1 and dtype.kind == "uint" else int(self.unit)

    def input_rule(self, i: int) -> InputRule:
        """The rule (b, node, g) for input `i`, or what stands in its place."""
        rule = self.vjp
        if isinstance(rule, tuple):
            return rule[i]
        if isinstance(rule, GradientRule):
            return rule
        return lambda b, node, g: rule(b, node, g, i)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Registry:
    """All ops by name; `registry.add` and `registry["add"]` both give the op."""

    def __init__(self) -> None:
        self._ops: dict[str, Op] = {}

    def declare(self, name: str, **facts: Any) -> Op:
        """Declares an op; see `Op` for the facts. Two declarations of one name are an error."""
        if name in self._ops:
            raise WeftError(f"op {name} is declared twice")
        if "traits" in facts:
            facts["traits"] = frozenset(facts["traits"])
        self._ops[name] = op = Op(name, **facts)
        setattr(self, name, op)
        return op

    def __getitem__(self, name: str) -> Op:
        return self._ops[name]

    def __contains__(self, name: str) -> bool:
        return name in self._ops

    def __iter__(self):
        return iter(self._ops.values())

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no op is named {name}")
