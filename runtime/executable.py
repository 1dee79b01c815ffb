"""A program that can be called: a plan, its machine code, and frames for its calls; and the interpreter behind the same interface."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.base import KernelCalls
from ..ir.errors import DTypeError, IndexRangeError, ShapeError, WeftError
from ..ir.graph import Graph
from ..ir.interpret import interpret
from ..ir.plan import Call, LoopCall, Plan, Routine
from ..ir.types import TensorType
from . import layout as at
from .assemble import Program, assemble
from .blas import pin
from .cache import code_cache
from .check_plan import check_plan
from .frames import Frame
from .native import Native, native
from .planner import plan_program
from .threads import State, ensure_workers

Progress = Callable[[int, int], None]
"""Called now and then with (iterations done, iterations in all) of the loop that no other loop surrounds."""
Resolve = Callable[[Sequence[Any]], Sequence[int]]
"""Finds or makes the machine code of kernels: their addresses."""


def compiled_from(source_of: Callable[[Any], str]) -> Resolve:
    """Compiles kernels from the sources that `source_of` gives, through the code cache."""
    return lambda kernels: [code.address for code in code_cache().kernels([source_of(k) for k in kernels])] if kernels else []


class Executable:
    """A compiled program.

    `run` is the fast way in: it takes one ndarray (contiguous, of the declared type; not checked) or, for f64[] and i64[] params, a
    Python float or int for each param, and returns new arrays for the results that are not written into a param. Calling the object
    checks everything and returns all results.
    """

    def __init__(self, graph: Graph, calls: KernelCalls, resolve: Resolve, verify: bool = False) -> None:
        self.graph = graph
        self.plan: Plan = plan_program(graph, calls)
        if verify:
            check_plan(self.plan)
        self.program: Program = assemble(self.plan)
        self._native: Native = native()
        kernels = [c for c in self.program.codes if not isinstance(c, Routine)]
        found = dict(zip(kernels, resolve(kernels), strict=True))
        addresses = [found[c] if c in found else self._native.address(c.name) for c in self.program.codes]
        self._rows = self.program.rows.copy()
        calling = self._rows[:, at.KERNEL] >= 0
        self._rows[calling, at.KERNEL] = np.array([*addresses, 0], np.int64)[self._rows[calling, at.KERNEL]]
        self._outputs = [(t.shape, t.dtype.numpy) for t in self.plan.outputs]
        self._parallel = self.program.parallel
        self._pin = pin() if any(isinstance(c, Routine) and c.name in ("gemm", "gemv") for c in self.program.codes) else None
        self._free: list[Frame] = []

    def run(self, inputs: Sequence[Any], progress: Progress | None = None) -> list[np.ndarray]:
        """One call; see the class."""
        outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        try:
            frame = self._free.pop()
        except IndexError:
            frame = self._new_frame()
        if self._parallel and State.pool is None:
            ensure_workers()
        if self._pin is None:
            code = self._native.begin(frame.address, inputs, outputs)
            if code != at.FINISHED:
                self._go_on(frame, code, progress)
        else:
            with self._pin:
                code = self._native.begin(frame.address, inputs, outputs)
                if code != at.FINISHED:
                    self._go_on(frame, code, progress)
        self._free.append(frame)
        return outputs

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """All results for `arrays`, which are checked; those that the program writes are changed."""
        inputs = self._checked(arrays)
        new = iter(self.run(inputs))
        writes = self.graph.notes.get("writes", {})
        return [inputs[writes[j]] if j in writes else next(new) for j in range(len(self.graph.results))]

    def _checked(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        if len(arrays) != len(self.plan.inputs):
            raise WeftError(f"{self.graph.name} takes {len(self.plan.inputs)} arrays, got {len(arrays)}")
        written = set(self.graph.notes.get("writes", {}).values())
        return [_checked(f"argument {i} of {self.graph.name}", a, t, i in written) for i, (a, t) in enumerate(zip(arrays, self.plan.inputs, strict=True))]

    def _new_frame(self) -> Frame:
        return Frame(self.program, self._rows, self.plan.arena_bytes, self._native.table)

    def _go_on(self, frame: Frame, code: int, progress: Progress | None) -> None:
        """After a call that did not finish at once. Between two slices of a loop Python looks at signals, and at progress."""
        while code == at.PAUSED:
            if progress is not None:
                self._tell(frame, progress)
            code = self._native.proceed(frame.address)
        if code == at.FAILED:
            raise self._error(frame)

    def _row(self, frame: Frame) -> int:
        return int(frame.words[at.ROW] - frame.words[at.PROGRAM]) // (8 * at.ROW_WORDS)

    def _tell(self, frame: Frame, progress: Progress) -> None:
        state = self.program.outermost[self._row(frame)]
        progress(int(frame.words[state + at.LOOP_INDEX]), int(frame.words[state + at.LOOP_STOP]))

    def _error(self, frame: Frame) -> WeftError:
        """The error that the status word stands for."""
        status, step = int(frame.words[at.STATUS]), self.program.steps[self._row(frame)]
        if status == at.BAD_ARGUMENT:
            return DTypeError(f"{self.graph.name} takes ndarrays, and floats or ints for scalars")
        if status == at.BAD_INTEGER:
            return DTypeError(f"{self.graph.name} takes integers of at most 64 bits")
        if status == at.EMPTY_LOOP:
            error: WeftError = WeftError("a loop whose last iteration's values are used ran no iteration")
        else:
            call = step.call if isinstance(step, LoopCall) else step
            assert isinstance(call, Call)
            site = call.code.sites[status - 1]
            error = IndexRangeError(f"{site.op}: an index is out of range for an axis of size {site.size}")
            if site.loc is not None:
                error.add_note(f"at {site.loc}")
                return error
        if step is not None and step.node is not None and step.node.loc is not None:
            error.add_note(f"at {step.node.loc}")
        return error


class InterpretedExecutable:
    """The same interface over the reference interpreter: the oracle of tests, and what runs where nothing can be compiled."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._writes = dict(graph.notes.get("writes", {}))

    def run(self, inputs: Sequence[Any], progress: Progress | None = None) -> list[np.ndarray]:
        """New arrays for the results that are not written into a param."""
        return [r for j, r in enumerate(self(inputs)) if j not in self._writes]

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """All results; written params are changed."""
        arrays = [np.asarray(a, p.type.dtype.numpy) for a, p in zip(arrays, self.graph.params, strict=True)]
        results = [np.array(r) for r in interpret(self.graph, arrays)]
        for j, i in self._writes.items():
            arrays[i][...] = results[j]
            results[j] = arrays[i]
        return results


def _checked(what: str, value: Any, type: TensorType, written: bool) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != type.dtype.numpy:
        raise DTypeError(f"{what} is {array.dtype}, declared as {type}")
    if array.shape != type.shape:
        raise ShapeError(f"{what} has the shape {array.shape}, declared as {type}")
    if written and not (array.flags.c_contiguous and array.flags.writeable and array is value):
        raise WeftError(f"{what} is written by the program and must be a writable contiguous ndarray")
    return np.require(array, requirements=["C", "A"]).view(np.ndarray)
