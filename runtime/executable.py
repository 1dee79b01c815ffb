"""A program that can be called: a plan, its machine code, and frames for its calls; and the interpreter behind the
same interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, IndexRangeError, ShapeError, WeftError
from ..ir.graph import Graph
from ..ir.interpret import interpret
from ..ir.plan import Call, LoopCall, Plan, Space, Step
from ..ir.routines import Routine
from ..ir.types import TensorType
from . import layout as at
from .assemble import Program, assemble
from .builtins import builtin
from .frames import Frame
from .native import Native, native
from .threads import ensure_workers

Progress = Callable[[int, int], None]
"""Called now and then with (iterations done, iterations in all) of the loop that no other loop surrounds."""
Run = Callable[..., list[np.ndarray]]
"""(inputs, progress=None) -> new arrays."""
BRIEF = 1 << 16
"""Bytes that a program without loops and products may touch and still be called brief."""
Resolve = Callable[[Sequence[Any]], Sequence[int]]
"""Finds or makes the machine code of kernels: their addresses."""


class Executable:
    """A compiled program.

    Calling the object checks the arrays and returns all results. `run(inputs, progress=None)`, a builtin
    (`entry_native.py`), is the fast way in: `inputs` is a tuple or list with an ndarray (contiguous, of the declared
    type; not checked) or, for f64[] and i64[] params, a Python float or int for each param; it returns new arrays for
    the results that are not written into a param.
    """

    def __init__(self, plan: Plan, resolve: Resolve, program: Program | None = None) -> None:
        self.plan: Plan = plan
        self.program: Program = assemble(plan) if program is None else program
        kernels = resolve([c for c in self.program.codes if not isinstance(c, Routine)])
        self._native: Native = native()
        self._rows = self._with_addresses(kernels)
        self._profile: np.ndarray | None = None
        self._frames: dict[int, Frame] = {}
        """All frames by address; those that are free are chained from the entry."""
        functions = (self._new_frame, self._go_on, ensure_workers)
        results, sizes = self._results()
        self.entry: np.ndarray = self._entry(functions, results)
        """What native code reads of the program; it goes with `kept`."""
        self.kept = (self.entry, functions, results, sizes)
        self.run: Run = builtin("run", self._native.address("enter"), *self.kept)

    def _with_addresses(self, kernels: Sequence[int]) -> np.ndarray:
        """The program's rows with the addresses of the kernels, which are given, and of the routines in them."""
        found = iter(kernels)
        addresses = [
            self._native.address(c.name) if isinstance(c, Routine) else next(found) for c in self.program.codes
        ]
        rows = self.program.rows.copy()
        calling = rows[:, at.KERNEL] >= 0
        rows[calling, at.KERNEL] = np.array([*addresses, 0], np.int64)[rows[calling, at.KERNEL]]
        return rows

    def _results(self) -> tuple[np.ndarray, np.ndarray]:
        """For each new array its number of axes, the address of its sizes, and its dtype; and the sizes."""
        types = self.plan.outputs
        sizes = np.array([n for t in types for n in t.sizes], np.int64)
        ends = np.cumsum([len(t.sizes) for t in types], dtype=np.int64)
        rows = [
            (len(t.sizes), sizes.ctypes.data + 8 * (int(end) - len(t.sizes)), id(t.dtype.numpy))
            for t, end in zip(types, ends, strict=True)
        ]
        return np.array(rows, np.int64).reshape(-1), sizes

    def _entry(self, functions: Sequence[Any], results: np.ndarray) -> np.ndarray:
        """The words of `layout.ENTRY_*`."""
        entry = np.zeros(at.ENTRY_RESULTS + len(results), np.int64)
        entry[at.ENTRY_PROCESS] = self._native.table.ctypes.data
        entry[at.ENTRY_BRIEF] = self._is_brief()
        blas = self._calls_blas()
        entry[at.ENTRY_PARALLEL], entry[at.ENTRY_BLAS] = self.program.parallel or blas, blas
        entry[at.ENTRY_INPUTS], entry[at.ENTRY_OUTPUTS] = len(self.plan.inputs), len(self.plan.outputs)
        entry[at.ENTRY_NEW_FRAME : at.ENTRY_ENSURE + 1] = [id(f) for f in functions]
        entry[at.ENTRY_RESULTS :] = results
        return entry

    def _is_brief(self) -> bool:
        """Whether a call takes microseconds whatever the arguments: to let other Python threads run meanwhile would
        cost more than they gain."""
        straight = {at.CALL, at.COPY, at.COPY_WORD, at.COPY_HALF, at.COPY_BYTE, at.END}
        nbytes = sum(t.nbytes for t in (*self.plan.inputs, *self.plan.outputs)) + self.plan.arena_bytes
        return straight.issuperset(self.program.rows[:, at.OP].tolist()) and not self._calls_blas() and nbytes <= BRIEF

    def _calls_blas(self) -> bool:
        return any(isinstance(c, Routine) and c.name in ("gemm", "gemv") for c in self.program.codes)

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """All results for `arrays`, which are checked; those that the program writes are changed."""
        inputs = self._checked(arrays)
        new = iter(self.run(inputs))
        return [inputs[slot.number] if slot.space is Space.INPUT else next(new) for slot in self.plan.results]

    def _checked(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        if len(arrays) != len(self.plan.inputs):
            raise WeftError(f"{self.plan.name} takes {len(self.plan.inputs)} arrays, got {len(arrays)}")
        written = {slot.number for slot in self.plan.results if slot.space is Space.INPUT}
        return [
            _checked(f"argument {i} of {self.plan.name}", a, t, i in written)
            for i, (a, t) in enumerate(zip(arrays, self.plan.inputs, strict=True))
        ]

    def _new_frame(self) -> int:
        """Makes one more frame; its address."""
        frame = Frame(self.program, self._rows, self.plan.arena_bytes, self._native.table)
        if self._profile is not None:
            frame.words[at.PROFILE] = self._profile.ctypes.data
        self._frames[frame.address] = frame
        return frame.address

    def profile(self) -> list[tuple[Step, int, int]]:
        """Times every step from now on. What was measured so far: (step, how often it ran, nanoseconds), in order of
        the program.

        A loop's own entry is its bookkeeping; the steps of its body have entries of their own.
        """
        if self._profile is None:
            self._profile = np.zeros((len(self._rows), 2), np.int64)
            self._forget_frames()
        rows = zip(self.program.steps, self._profile.tolist(), strict=True)
        return [(step, count, nanoseconds) for step, (count, nanoseconds) in rows if step is not None and count]

    def _forget_frames(self) -> None:
        """Lets later calls have new frames."""
        free = int(self.entry[at.ENTRY_FREE])
        self.entry[at.ENTRY_FREE] = 0
        while free:
            free = int(self._frames.pop(free).words[at.NEXT])

    def _go_on(self, address: int, code: int, progress: Progress | None) -> None:
        """After a call that did not finish at once. Between two slices of a loop Python looks at signals, and at
        progress."""
        frame = self._frames[address]
        try:
            while code == at.PAUSED:
                if progress is not None:
                    self._tell(frame, progress)
                code = self._native.proceed(address)
            if code == at.FAILED:
                raise self._error(frame)
        except BaseException:
            del self._frames[address]  # it stopped in the middle
            raise

    def _row(self, frame: Frame) -> int:
        return int(frame.words[at.ROW] - frame.words[at.PROGRAM]) // (8 * at.ROW_WORDS)

    def _tell(self, frame: Frame, progress: Progress) -> None:
        state = self.program.outermost[self._row(frame)]
        progress(int(frame.words[state + at.LOOP_INDEX]), int(frame.words[state + at.LOOP_STOP]))

    def _error(self, frame: Frame) -> WeftError:
        """The error that the status word stands for."""
        status, step = int(frame.words[at.STATUS]), self.program.steps[self._row(frame)]
        if status in _REFUSED:
            return _REFUSED[status](self.plan.name)
        loc = step.node.loc if step is not None and step.node is not None else None
        if status == at.EMPTY_LOOP:
            error: WeftError = WeftError("a loop whose last iteration's values are used ran no iteration")
        else:
            call = step.call if isinstance(step, LoopCall) else step
            assert isinstance(call, Call)
            site = call.code.sites[status - 1]
            loc = site.loc or loc
            error = IndexRangeError(f"{site.op}: an index is out of range for an axis of size {site.size}")
        if loc is not None:
            error.add_note(f"at {loc}")
        return error


_REFUSED: dict[int, Callable[[str], WeftError]] = {
    at.BAD_ARGUMENT: lambda name: DTypeError(f"{name} takes ndarrays, and floats or ints for scalars"),
    at.BAD_INTEGER: lambda name: DTypeError(f"{name} takes integers of at most 64 bits"),
    at.BAD_COUNT: lambda name: WeftError(f"{name} was called with a wrong number of arguments"),
    at.BAD_LAYOUT: lambda name: WeftError(f"{name} takes contiguous arrays"),
}
"""What the executor refuses before it runs anything, by status code."""


class InterpretedExecutable:
    """The same interface over the reference interpreter: the oracle of tests, and what runs where nothing can be
    compiled."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._writes = dict(graph.notes.get("writes", {}))

    def run(self, inputs: Sequence[Any], progress: Progress | None = None) -> list[np.ndarray]:
        """New arrays for the results that are not written into a param."""
        return [r for j, r in enumerate(self(inputs)) if j not in self._writes]

    def __call__(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        """All results; written params are changed."""
        arrays = [np.asarray(a, p.type.dtype.numpy) for a, p in zip(arrays, self.graph.params, strict=True)]
        results = [np.array(r, order="C") for r in interpret(self.graph, arrays)]
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
