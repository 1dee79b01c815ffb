"""The short way into a program: what a call of the same kind as the last one costs.

`CompiledFunction` takes it when the arguments are plain tensors and numbers, one per parameter, and the program only
returns fresh tensors. Everything else goes the general way (`Program.holds` and `Program.run`), which says the same in
full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .dispatch import check_not_frozen
from .outputs import FreshOutput, Made
from .program import Program
from .slots import EPOCH
from .state import STATE
from .structure import LEAF
from .tensor import Tensor
from .trace_inputs import Lifted, ScalarInput

_BIG = 1 << 63
MISS = object()
"""What a fast call gives when it does not apply: nothing was run."""


class FastCall:
    """One program, ready to be called with a tuple of plain arguments."""

    __slots__ = ("program", "expected", "template", "places", "grad_enabled", "run", "single", "epoch")

    def __init__(
        self, program: Program, expected: list[Any], places: list[int | None], template: list[Any], grad_enabled: bool
    ) -> None:
        self.program, self.expected, self.places, self.template = program, expected, places, template
        self.grad_enabled, self.epoch = grad_enabled, program.epoch
        self.run = program.build.executable.run
        self.single = program.structure == LEAF

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """The result, or MISS when these arguments need the general way."""
        program = self.program
        if len(args) != len(self.expected) or EPOCH.count != self.epoch or STATE.grad_enabled is not self.grad_enabled:
            return MISS
        inputs = self.template.copy()
        storages = set()
        for arg, expected, place in zip(args, self.expected, self.places, strict=True):
            if type(arg) is Tensor:
                array = arg._array
                if (
                    array is None
                    or array.dtype is not expected[0]
                    or array.shape != expected[1]
                    or array.strides != expected[2]
                    or arg._requires_grad
                    or arg._base is not None
                ):
                    return MISS
                storages.add(arg._storage_or_none or arg)
                if place is not None:
                    inputs[place] = array
            elif type(arg) is expected and place is not None and (expected is float or -_BIG <= arg < _BIG):
                inputs[place] = arg
            else:
                return MISS
        if len(storages) != self._tensor_count(args):
            return MISS
        if program.captured and program.shared_memory(args):
            return MISS
        for guard in program.guards:
            if not guard.holds():
                return MISS
        written = [program._tensor_at(lifted, args) for lifted in program.written]
        for tensor in written:
            check_not_frozen(tensor, program.build.traced.name)
        results = self.run(inputs)
        for tensor in written:
            tensor._storage.version += 1
        return self._outputs(results)

    @staticmethod
    def _tensor_count(args: tuple[Any, ...]) -> int:
        return sum([type(a) is Tensor for a in args])

    def _outputs(self, results: list[np.ndarray]) -> Any:
        if self.single:
            tensor = Tensor()
            tensor._array = results[0]
            return tensor
        made = Made(results, (), None)
        return self.program.rebuild([made.value(o) for o in self.program.outputs])


def fast_call(program: Program, structure: Any, leaves: Sequence[Any]) -> FastCall | None:
    """The short way for calls like this one; None when the program needs more than it does."""
    if not isinstance(structure, tuple) or structure[0] is not tuple or any(part != LEAF for part in structure[1:]):
        return None
    if (
        program.effects
        or program.edges
        or program.backward is not None
        or program.leaf_slots
        or program.progress
        or program.requirements
        or program.identical
        or program.aliased
    ):
        return None
    if not all(type(o) is FreshOutput and o.geometry is None and not o.requires_grad for o in program.outputs):
        return None
    if program.structure == LEAF and len(program.outputs) != 1:
        return None
    expected = [_expectation(leaf) for leaf in leaves]
    if any(e is None for e in expected):
        return None
    template, places = _template(program, len(leaves))
    return None if template is None else FastCall(program, expected, places, template, STATE.grad_enabled)


def _expectation(leaf: Any) -> Any:
    """What an argument must match: (dtype, shape, strides) of a contiguous tensor, or the type of a number."""
    if type(leaf) is Tensor:
        array = leaf._memory()
        plain = array.flags.c_contiguous and not leaf._requires_grad and leaf._base is None
        return (array.dtype, array.shape, array.strides) if plain else None
    return type(leaf) if type(leaf) in (int, float) else None


def _template(program: Program, count: int) -> tuple[list[Any] | None, list[int | None]]:
    """The inputs with captured memory filled in, and per argument the input that it is; None when one needs more."""
    template: list[Any] = []
    places: list[int | None] = [None] * count
    for k, (entry, source) in enumerate(zip(program.inputs, program.sources, strict=True)):
        if type(entry) is ScalarInput:
            if type(source) is not int or entry.pinned or entry.at_least is not None:
                return None, places
            places[source] = k
            template.append(None)
        elif type(entry) is Lifted and type(source) is int and not entry.whole:
            places[source] = k
            template.append(None)
        elif type(entry) is Lifted and source is None and not entry.whole and entry.tensor._memory().flags.c_contiguous:
            template.append(entry.tensor._memory())
        else:
            return None, places
    return template, places
