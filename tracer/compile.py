"""@weft.compile: a function that is traced once per kind of call and then runs as one program."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..ir.errors import TraceError
from ..ir.graph import Graph
from .capture import Capture
from .compiled_backward import trace_backward
from .driver import STAGES, Build
from .fast_call import MISS, FastCall, fast_call
from .location import error
from .program import Harvest, Output, Program
from .signature import call_key, describe_key
from .slots import EPOCH
from .state import STATE
from .storage import Storage
from .structure import flatten, unflatten
from .tensor import Tensor
from .trace import Lifted, NeedsWholeStorage, ScalarInput, SlotLog, Trace

P = ParamSpec("P")
R = TypeVar("R")

_COMPILING = threading.RLock()


def _after_fork() -> None:
    """In a forked child nobody compiles: the thread that held the lock exists in the parent only."""
    global _COMPILING
    _COMPILING = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

MOST_PROGRAMS = 64
"""Specialisations of one function; more are an error that shows what changes from call to call."""


class CompiledFunction(Generic[P, R]):
    """What `@weft.compile` makes of a function. Calling it behaves as the function does.

    The first call of a kind traces the function and compiles the whole of it: forward, backward, updates, loops.
        Later calls of the same
    kind run that program. What cannot be traced is a `TraceError` that names the line.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._programs: dict[Any, list[Program]] = {}
        self._reasons: list[str] = []
        self._last: Program | None = None
        self._fast: FastCall | None = None
        self._name = getattr(function, "__name__", "function")
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if STATE.trace is not None:
            return self._function(*args, **kwargs)
        fast = self._fast
        if fast is not None and not kwargs:
            result = fast(args)
            if result is not MISS:
                return result
        leaves: list[Any] = []
        structure = flatten((args, kwargs) if kwargs else args, leaves)
        key = (structure, call_key(leaves))
        program = self._find(key, leaves) or self._compile(key, leaves, args, kwargs)
        result = program.rebuild(program.run(leaves))
        if program is not self._last:
            self._last, self._fast = program, fast_call(program, structure, leaves)
        return result

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _find(self, key: Any, leaves: Sequence[Any]) -> Program | None:
        for program in self._programs.get(key, ()):
            if program.holds(leaves):
                return program
        return None

    def _compile(self, key: Any, leaves: Sequence[Any], args: Any, kwargs: Any) -> Program:
        with _COMPILING:
            program = self._find(key, leaves)  # another thread may have been faster
            if program is None:
                reason = self._why(key, leaves)
                program = trace_program(self._function, key, leaves, args, kwargs)
                self._programs.setdefault(key, []).insert(0, program)
                self._reasons.append(reason)
                count = sum(map(len, self._programs.values()))
                if count > MOST_PROGRAMS:
                    self._programs.clear()
                    raise error(
                        TraceError,
                        f"{self._name} was traced {count} times, for another kind of call each time. Last reasons: "
                        + "; ".join(self._reasons[-3:]),
                    )
            return program

    def _why(self, key: Any, leaves: Sequence[Any]) -> str:
        """Why no program serves this call."""
        if not self._programs:
            return "first call"
        if key in self._programs:
            return self._programs[key][0].mismatch(leaves) or "another state"
        return key_difference(key, next(reversed(self._programs)))

    # ---- reading what was compiled ---------------------------------------------------------------------------------

    def _program(self) -> Program:
        if self._last is None:
            raise error(TraceError, f"{self._name} was not called yet: there is no program to show")
        return self._last

    def ir(self, stage: str = "optimized") -> str:
        """The program of the last call as text, at one of the stages traced, optimized, fused, kernels, plan."""
        if stage not in STAGES:
            raise ValueError(f"ir: no stage is named {stage!r}; the stages are {', '.join(STAGES)}")
        return self._program().build.text(stage)

    def source(self) -> str:
        """The generated Python source of the kernels of the last call's program."""
        return self._program().build.source()

    def explain(self) -> str:
        """What was compiled and why: kernels and what they fused, library calls, copies, memory, reasons for each
        trace.
        """
        lines = [f"{self._name}: {sum(map(len, self._programs.values()))} program(s)"]
        lines += [f"  trace {k}: {reason}" for k, reason in enumerate(self._reasons, 1)]
        return "\n".join([*lines, self._program().build.explain()])

    @property
    def traces(self) -> int:
        """How many times the function was traced so far."""
        return len(self._reasons)


@overload
def compile(function: Callable[P, R]) -> CompiledFunction[P, R]: ...
@overload
def compile() -> Callable[[Callable[P, R]], CompiledFunction[P, R]]: ...
def compile(function: Callable[P, R] | None = None) -> Any:
    """Compiles a function over tensors: `@weft.compile` or `weft.compile(f)`.

    Loops over `weft.range` become native loops; `backward()`, in-place updates and optimiser steps are part of the
    program; Python numbers are run-time inputs, so that a new learning rate does not recompile.

    Raises:
        TraceError: at the first call, when something in the function cannot be part of one program.
    """
    return CompiledFunction if function is None else CompiledFunction(function)


def key_difference(new: Any, old: Any) -> str:
    """The first part in which two call keys differ, in words."""
    if new[0] != old[0]:
        return "the structure of the arguments changed"
    new_parts, old_parts = describe_key(new[1]), describe_key(old[1])
    for k, (a, b) in enumerate(zip(new_parts, old_parts, strict=False)):
        if a != b:
            name = (
                "grad mode"
                if k == 0
                else "aliasing of the arguments"
                if k == len(new_parts) - 1
                else f"argument {k - 1}"
            )
            return f"{name} was {b} and is {a}"
    return "other arguments"


def trace_program(function: Callable[..., Any], key: Any, leaves: Sequence[Any], args: Any, kwargs: Any) -> Program:
    """Traces one call and lowers it."""
    whole: set[Storage] = shared_storages(leaves)
    while True:
        trace = Trace(function.__name__, whole)
        try:
            return Tracing(function, trace, key, leaves).program(args, kwargs)
        except NeedsWholeStorage as need:
            if need.storage in whole:
                raise error(TraceError, "two tensors over one memory have different dtypes: clone one of them") from None
            whole = whole | {need.storage}


def trace_graph(function: Callable[..., Any], args: Any, kwargs: Any) -> Graph:
    """The traced graph of one call, without lowering it."""
    leaves: list[Any] = []
    flatten((args, kwargs), leaves)
    return trace_program(function, None, leaves, args, kwargs).build.traced


def shared_storages(leaves: Sequence[Any]) -> set[Storage]:
    """The storages that several argument tensors share with different geometry."""
    seen: dict[Storage, Tensor] = {}
    shared = set()
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            first = seen.setdefault(leaf._storage, leaf)
            if first is not leaf:
                shared.add(leaf._storage)
    return shared


class Tracing:
    """One run of the user's function under a trace."""

    def __init__(self, function: Callable[..., Any], trace: Trace, key: Any, leaves: Sequence[Any]) -> None:
        self.function, self.trace, self.key, self.leaves = function, trace, key, leaves
        self.capture = Capture(trace)
        self.leaf_of: dict[int, int] = {}
        """id of a tensor or scalar input -> the leaf it is."""

    def program(self, args: Any, kwargs: Any) -> Program:
        """The traced program."""
        trace = self.trace
        given: list[Any] = []
        structure = flatten((args, kwargs), given)
        names = leaf_names(self.function, args, kwargs)
        seen = [self._enter(k, leaf, names[k]) for k, leaf in enumerate(given)]
        new_args, new_kwargs = unflatten(structure, seen)
        STATE.trace, grad_mode = trace, STATE.grad_enabled
        try:
            result = self.capture.run(self.function, new_args, new_kwargs)
            STATE.grad_enabled = grad_mode
            return self._finish(result)
        finally:
            STATE.trace, STATE.grad_enabled = None, grad_mode
            trace.roll_back()

    def _enter(self, k: int, leaf: Any, name: str) -> Any:
        """An argument as the traced function sees it."""
        if isinstance(leaf, Tensor):
            self.leaf_of.setdefault(id(leaf), k)
            if name:
                leaf.__dict__["_hint"] = name
            return leaf
        if type(leaf) in (int, float):
            scalar = self.trace.scalar_input("argument", leaf, name)
            (entry,) = scalar.sources
            self.leaf_of[id(entry)] = k
            return scalar
        return leaf

    def _finish(self, result: Any) -> Program:
        trace = self.trace
        leaves: list[Any] = []
        structure = flatten(result, leaves)
        harvest = Harvest(trace)
        outputs = [harvest.describe(leaf) for leaf in leaves]
        effects = self._effects(harvest)
        written = [
            s.lifted
            for s in trace.states.values()
            if s.lifted is not None and trace.resolve(s.value) is not s.lifted.param
        ]
        writes = {harvest.add(trace.resolve(trace.states[w.tensor._storage].value)): w.position for w in written}
        graph = trace.graph(harvest.results, {"writes": writes})
        inputs = list(trace.inputs_order)
        backward = trace_backward(trace, harvest.differentiable, written)
        for slot in trace.slots.values():
            slot.leaf = self.leaf_of.get(id(slot.container))
        keep = [leaf for leaf in self.leaves if not isinstance(leaf, (Tensor, int, float, str))]
        slots = [s for s in trace.slots.values() if s.read]
        program = Program(
            self.key,
            Build(graph),
            inputs,
            [self._source(e) for e in inputs],
            list(self.capture.guards.values()),
            [s for s in slots if s.leaf is None],
            [s for s in slots if s.leaf is not None],
            structure,
            outputs,
            effects,
            written,
            backward,
            keep,
            trace.progress,
            epoch=EPOCH.count,
        )
        program.aliases = program.shared_with_captured(self.leaves)
        return program

    def _source(self, entry: Lifted | ScalarInput) -> int | SlotLog | None:
        """Where a call finds an input: in an argument leaf, in a slot of one (its `.grad`), or (None) where the trace
        found it.
        """
        if isinstance(entry, ScalarInput):
            return self.leaf_of.get(id(entry))
        leaf = self.leaf_of.get(id(entry.tensor))
        if leaf is not None:
            return leaf
        return next(
            (s for s in self.trace.slots.values() if s.leaf is not None and s.read and s.initial is entry.tensor), None
        )

    def _effects(self, harvest: Harvest) -> list[tuple[Any, Output]]:
        effects = []
        for entry in self.trace.slots.values():
            now = entry.now(self.leaves)
            if entry.written and now is not entry.initial:
                effects.append((entry, harvest.describe(now)))
        return effects


def leaf_names(function: Callable[..., Any], args: Any, kwargs: Any) -> list[str]:
    """A name per argument leaf, for the graph's parameters: the function's parameter name where one leaf is the whole
    argument.
    """
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
        order = list(bound)
    except (TypeError, ValueError):
        order = []
    names: list[str] = []
    for k, value in enumerate((*args, *kwargs.values())):
        leaves: list[Any] = []
        flatten(value, leaves)
        name = order[k] if k < len(order) and k < len(args) else list(kwargs)[k - len(args)] if k >= len(args) else ""
        names += [name] if len(leaves) == 1 else [f"{name}_{i}" if name else "" for i in range(len(leaves))]
    return names


__all__ = ["CompiledFunction", "compile"]
