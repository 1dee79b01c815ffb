"""@weft.compile: a function that is traced once per kind of call and then runs as one program."""

from __future__ import annotations

import functools
import inspect
import os
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from ..ir.errors import TraceError
from ..ir.graph import Graph
from ..ir.stopwatch import Stopwatch
from . import seam, warm_up
from .capture import Capture
from .compiled_backward import trace_backward
from .dynamic import FROM_NOW_ON, Dynamic, DynamicAxes, Sizes
from .location import error
from .outputs import BaseOf, Harvest, Output, Place
from .program import Program
from .short_call import MISS, ShortCall, short_call
from .signature import call_key, describe_key, is_runtime_number, object_key
from .slots import EPOCH
from .state import STATE
from .storage import Storage
from .structure import flatten, unflatten
from .tape import Edge, accumulator_of
from .tensor import Size, Tensor
from .trace import NeedsWholeStorage, Trace
from .trace_inputs import Lifted, ScalarInput, SlotLog, base_of

if TYPE_CHECKING:
    from .memory_use import MemoryUse

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

MOST_RECENT = 4
"""Programs of one function whose short ways are tried before a call goes the general way."""

MOST_SIZES = 256
"""Combinations of symbolic sizes of one function that are kept; they cost memory, but hardly any time to make again."""


class CompiledFunction(Generic[P, R]):
    """What `@weft.compile` makes of a function. Calling it behaves as the function does.

    The first call of a kind traces the function and compiles the whole of it: forward, backward, updates, loops.
        Later calls of the same
    kind run that program. What cannot be traced is a `TraceError` that names the line.
    """

    def __init__(self, function: Callable[P, R], dynamic: Dynamic = None) -> None:
        self._function = function
        self._axes = DynamicAxes(dynamic)
        self._programs: dict[Any, list[Program]] = {}
        self._reasons: list[str] = []
        self._resized = 0
        """Traces for other values of sizes that were symbolic already: too many to list."""
        self._last: Program | None = None
        self._short: Callable[..., Any] | None = None
        """The short way into the program of the last call."""
        self._recent: list[Program] = []
        """The programs of the last few kinds of calls, the last one first."""
        self._name = getattr(function, "__name__", "function")
        self.__name__ = name_of(function)
        functools.update_wrapper(
            self, function, updated=("__dict__",) if isinstance(function, types.FunctionType) else ()
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        short = self._short
        if short is not None:
            result = short(*args, **kwargs)
            if result is not MISS:
                return result
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the short way of the last one did not take."""
        if STATE.trace is not None:
            return STATE.trace.capture.watched(self._function)(*args, **kwargs)
        result = self._call_shortly(args, kwargs)
        if result is not MISS:
            return result
        names, args = tuple(kwargs), plain_numbers(args)
        kwargs = plain_numbers(dict(sorted(kwargs.items())))
        leaves: list[Any] = []
        structure = flatten((args, kwargs) if kwargs else args, leaves)
        key = (structure, call_key(leaves))
        known = self._find(key, leaves)
        program = known or self._compile(key, leaves, args, kwargs)
        short = None if known is None else self._shorten(program, structure, names, leaves)
        result = program.rebuild(program.run(leaves))
        if short is not None:
            short.epochs[0] = program.epoch
        self._remember(program)
        return result

    def _call_shortly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that the short way of another recent one takes, or of the last one once that is renewed; else MISS."""
        for program in self._recent:
            short = program.short
            if short is None or (short.call is self._short and not short.is_stale):
                continue
            if short.is_stale and not short.renew(program):
                continue
            result = short.call(*args, **kwargs)
            if result is not MISS:
                self._remember(program)
                return result
        return MISS

    def _remember(self, program: Program) -> None:
        """Notes the program of the last call."""
        if program is not self._last:
            self._recent = [program, *(p for p in self._recent if p is not program)][:MOST_RECENT]
        self._last, self._short = program, None if program.short is None else program.short.call

    @staticmethod
    def _shorten(
        program: Program, structure: Any, names: tuple[str, ...], leaves: Sequence[Any]
    ) -> ShortCall | None:
        """The short way into a program that may serve a call."""
        short = program.short
        if short is not None and short.is_stale and not short.renew(program):
            short = None
        if short is None and program.may_shorten and program.epoch is EPOCH.count:
            short = short_call(program, structure, names, leaves)
            program.may_shorten = short is not None
        program.short = short
        return short

    def __getattr__(self, name: str) -> Any:
        """What the function or module itself has: `compiled.parameters()`."""
        if name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

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
                sizes, news = self._axes.note(key, leaf_names(self._function, args, kwargs))
                reason = self._why(key, leaves, news)
                program = trace_program(self._function, key, leaves, args, kwargs, sizes)
                self._programs.setdefault(key, []).insert(0, program)
                if news and FROM_NOW_ON not in news:
                    self._resized += 1
                else:
                    self._reasons.append(reason)
                count = self._make_room()
                if count > MOST_PROGRAMS:
                    self._programs.clear()
                    raise error(
                        TraceError,
                        f"{self._name} was traced {count} times, for another kind of call each time. Last reasons: "
                        + "; ".join(self._reasons[-3:]),
                    )
            return program

    def _make_room(self) -> int:
        """Forgets the oldest programs of symbolic sizes when there are many; the number of other programs."""
        every = [(key, program) for key, programs in self._programs.items() for program in programs]
        symbolic = [(key, program) for key, program in every if program.build.traced.notes.get("sizes")]
        for key, program in symbolic[:-MOST_SIZES]:
            self._programs[key].remove(program)
            if not self._programs[key]:
                del self._programs[key]
        return sum(map(len, self._programs.values())) - min(len(symbolic), MOST_SIZES)

    def _why(self, key: Any, leaves: Sequence[Any], sizes: str = "") -> str:
        """Why no program serves this call; `sizes` says what is new about the sizes of arguments."""
        if not self._programs:
            return "first call"
        if key in self._programs:
            return self._programs[key][0].mismatch(leaves) or "another state"
        return sizes or key_difference(key, next(reversed(self._programs)))

    # ---- reading what was compiled ---------------------------------------------------------------------------------

    def _program(self) -> Program:
        if self._last is None:
            raise error(TraceError, f"{self._name} was not called yet: there is no program to show")
        return self._last

    def ir(self, stage: str = "optimized") -> str:
        """The program of the last call as text, at one of the stages traced, optimized, fused, kernels, llvm, assembly,
        plan."""
        stages = seam.driver().STAGES
        if stage not in stages:
            raise ValueError(f"ir: no stage is named {stage!r}; the stages are {', '.join(stages)}")
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
        if self._resized:
            lines.append(f"  and {self._resized} trace(s) for other sizes of symbolic axes")
        return "\n".join([*lines, self._program().build.explain()])

    def memory(self) -> MemoryUse:
        """Where the bytes of the last call's program are, and why; `print` it. Numbers are its attributes: arena,
        lifetimes, what the forward saves for the backward, what is written in place, copies.
        """
        return self._program().memory()

    @property
    def traces(self) -> int:
        """How many times the function was traced so far."""
        return len(self._reasons) + self._resized


@overload
def compile(*, dynamic: Dynamic = None) -> Callable[[Callable[P, R]], CompiledFunction[P, R]]: ...
@overload
def compile(function: Callable[P, R], *, dynamic: Dynamic = None) -> CompiledFunction[P, R]: ...
def compile(function: Callable[P, R] | None = None, *, dynamic: Dynamic = None) -> Any:
    """Compiles a function over tensors: `@weft.compile` or `weft.compile(f)`.

    Loops over `weft.range` become native loops; `backward()`, in-place updates and optimiser steps are part of the
    program; Python numbers are run-time inputs, so that a new learning rate does not recompile.

    Args:
        function: the function, or a module.
        dynamic: which axes of the arguments change their size from call to call. By default, an axis is taken to when a
            second size of it is seen. True: all, from the first call on; False: none; or the axes of each such argument
            by name, as `{"x": 0, "mask": (0, 1)}`. The kernels that read a changing axis serve all its sizes, at a
            small cost in speed.

    Raises:
        TraceError: at the first call, when something in the function cannot be part of one program.
    """
    if function is None:
        return lambda function: compile(function, dynamic=dynamic)
    if not callable(function):
        raise TypeError(f"weft.compile: a function or module is compiled, not {type(function).__name__}")
    warm_up.begin()
    return CompiledFunction(function, dynamic)


def name_of(function: Any) -> str:
    """The name of whatever can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def plain_numbers(value: Any) -> Any:
    """Arguments with NumPy's numbers as Python's."""
    leaves: list[Any] = []
    structure = flatten(value, leaves)
    if not any(isinstance(leaf, np.generic) for leaf in leaves):
        return value
    return unflatten(structure, [leaf.item() if isinstance(leaf, np.generic) else leaf for leaf in leaves])


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


def trace_program(
    function: Callable[..., Any], key: Any, leaves: Sequence[Any], args: Any, kwargs: Any, sizes: Sizes | None = None
) -> Program:
    """Traces one call and lowers it."""
    whole: set[Storage] = shared_storages(leaves)
    while True:
        trace = Trace(name_of(function), whole)
        if sizes is not None and sizes.values:
            trace.notes = {"sizes": sizes}
            trace.shapes = {id(leaves[k]): (leaves[k], Size(shape)) for k, shape in sizes.shapes.items()}
        watch = Stopwatch()
        try:
            with watch.stage("trace"):
                program = Tracing(function, trace, key, leaves).program(args, kwargs)
            program.build.watch.seconds.update(watch.seconds)
            return program
        except NeedsWholeStorage as need:
            if need.storage in whole:
                raise error(
                    TraceError, "two tensors over one memory have different dtypes: clone one of them"
                ) from None
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
        self.capture = trace.capture = Capture(trace)
        self.bases = [base_of(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves]
        self.objects = [(leaf, object_key(leaf)) for leaf in leaves if not isinstance(leaf, (Tensor, int, float))]
        self.epoch = EPOCH.count
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
            self._check_arguments()
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
        if is_runtime_number(leaf):
            scalar = self.trace.scalar_input("argument", leaf, name)
            (entry,) = scalar.sources
            self.leaf_of[id(entry)] = k
            return scalar
        return leaf

    def _check_arguments(self) -> None:
        """Refuses functions that change a Python object that they were given."""
        for leaf, before in self.objects:
            if object_key(leaf) != before:
                raise error(
                    TraceError,
                    f"the compiled function changes an argument of type {type(leaf).__name__}: it would happen in the "
                    "first call only. Return the value, or keep it in a tensor",
                )

    def _finish(self, result: Any) -> Program:
        trace = self.trace
        leaves: list[Any] = []
        structure = flatten(result, leaves)
        for slot in trace.slots.values():
            slot.leaf = self.leaf_of.get(id(slot.container))
        harvest = Harvest(trace, self.leaves, self._place)
        outputs = [harvest.describe(leaf) for leaf in leaves]
        effects = self._effects(harvest)
        edges = self._changed_edges(harvest)
        written = [
            s.lifted
            for s in trace.states.values()
            if s.lifted is not None and trace.resolve(s.value) is not s.lifted.param
        ]
        writes = {harvest.add(trace.resolve(trace.states[w.tensor._storage].value)): w.position for w in written}
        graph = trace.graph(harvest.results, {"writes": writes})
        inputs = list(trace.inputs_order)
        backward = trace_backward(trace, harvest.differentiable, self._gradient_sources(), written)
        slots = [s for s in trace.slots.values() if s.read]
        program = Program(
            self.key,
            seam.driver().Build(graph),
            inputs,
            [self._source(e) for e in inputs],
            list(self.capture.guards.values()),
            [s for s in slots if s.leaf is None],
            [s for s in slots if s.leaf is not None],
            structure,
            outputs,
            effects,
            edges,
            written,
            backward,
            set(trace.outsiders),
            trace.progress,
            trace.requirements,
            epoch=self.epoch,
        )
        captured = program.held | {id(s.initial) for s in program.slots if isinstance(s.initial, Tensor)}
        program.identical = [
            (k, leaf) for k, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor) and id(leaf) in captured
        ]
        program.aliased = list(self._shared())
        storages = {lifted.tensor._storage for lifted in written}
        program.bases = [
            (k, self.bases[k])
            for k, leaf in enumerate(self.leaves)
            if isinstance(leaf, Tensor) and leaf._storage in storages
        ]
        program.aliases = program.shared_memory(self.leaves, [s.initial for s in program.leaf_slots])
        return program

    def _shared(self) -> Iterator[tuple[Place, Place, int]]:
        """The tensors that share memory with another one, or are part of an input: see `Program.aliased`."""
        for outsider in self.trace.outsiders.values():
            tensor, state = outsider.tensor, self.trace.states.get(outsider.tensor._storage)
            lifted = None if state is None else state.lifted
            if lifted is not None and id(tensor) in self.trace.paths and (lifted.whole or lifted.tensor is not tensor):
                yield self._place(tensor), self._place(lifted.tensor), tensor.storage_offset()

    def _source(self, entry: Lifted | ScalarInput) -> int | SlotLog | None:
        """Where a call finds an input: in an argument leaf, in a slot of one (its `.grad`), or (None) where the trace
        found it.
        """
        if isinstance(entry, ScalarInput):
            return self.leaf_of.get(id(entry))
        place = self._place(entry.tensor)
        return None if place is entry else place  # type: ignore[return-value]

    def _place(self, tensor: Tensor) -> Place:
        """Where a call finds a tensor from outside."""
        leaf = self.leaf_of.get(id(tensor))
        if leaf is not None:
            return leaf
        for slot in self.trace.slots.values():
            if slot.leaf is not None and slot.read and slot.initial is tensor:
                return slot
        state = self.trace.states.get(tensor._storage)
        if state is not None and state.lifted is not None and state.lifted.tensor is tensor:
            return state.lifted
        if id(tensor) not in self.trace.paths:  # known only as the base of a view
            for k, given in enumerate(self.leaves):
                if isinstance(given, Tensor) and given._base is tensor:
                    return BaseOf(k)
        return tensor

    def _effects(self, harvest: Harvest) -> list[tuple[Any, Output]]:
        effects = []
        for entry in list(self.trace.slots.values()):
            now = entry.now(self.leaves)
            if entry.written and now is not entry.initial:
                effects.append((entry, harvest.describe(now)))
        return effects

    def _changed_edges(self, harvest: Harvest) -> list[tuple[Place, int | None]]:
        """The tensors from outside, views aside, that hold a tracked value of the trace now, or were detached."""
        changed: list[tuple[Place, int | None]] = []
        for outsider in list(self.trace.outsiders.values()):
            tensor, edge = outsider.tensor, outsider.tensor._edge
            if tensor._base is None and edge != outsider.edge:
                number = None if edge is None else harvest.differentiate(edge, tensor.type_)
                changed.append((self._place(tensor), number))
        return changed

    def _gradient_sources(self) -> dict[Edge, Place]:
        """The edges that lead outside, and the tensors that had them before the call."""
        sources: dict[Edge, Place] = {}
        for outsider in self.trace.outsiders.values():
            edge, tensor = outsider.edge, outsider.tensor
            if edge is None and outsider.requires_grad:
                edge = accumulator_of(tensor), 0
            if edge is not None:
                sources.setdefault(edge, self._place(tensor))
        return sources


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
