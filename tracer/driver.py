"""Takes a traced graph through the stages to something that runs; each stage is kept, so that users can read it.

    traced -> optimized -> fused -> kernels -> llvm -> assembly
                                            -> plan -> native executor

Everything that needs a compiler is loaded here, when the first program is built: eager mode never comes this way.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..backends.base import KernelCall
from ..backends.library import library_calls
from ..backends.llvm_source import llvm_source
from ..backends.lower import lower
from ..backends.lower_symbolic import SymbolicProgram, calls_for, lower_symbolic
from ..backends.python_source import python_source
from ..ir.graph import Graph, Node
from ..ir.interpret import interpret
from ..ir.loops import Kernel
from ..ir.plan import Plan
from ..ir.resize import opened, resized
from ..ir.sizes import Undecided
from ..ir.stopwatch import Stopwatch
from ..passes.fusion import fuse
from ..passes.options import RECOMPUTE_FROM, Options
from ..passes.pipeline import optimize
from ..runtime import seam, stored
from ..runtime.cache import code_cache
from ..runtime.check_plan import check_plan
from ..runtime.executable import Executable
from ..runtime.planner import plan_program
from .dynamic import Sizes
from .explain import explain
from .memory_use import MemoryUse, memory_use

STAGES = ("traced", "optimized", "fused", "kernels", "llvm", "assembly", "plan")


def options_from_environment() -> Options:
    """The options of a build: `WEFT_DUMP_IR=dir` writes one file a pass, `WEFT_VERIFY=1` checks the IR after each,
    `WEFT_RECOMPUTE` says how many megabytes may be kept between forward and backward before less is tried, `inf` any.
    """
    megabytes = os.environ.get("WEFT_RECOMPUTE")
    return Options(
        verify=os.environ.get("WEFT_VERIFY") == "1",
        dump_ir=os.environ.get("WEFT_DUMP_IR") or None,
        recompute_from=RECOMPUTE_FROM if megabytes is None else 2**20 * float(megabytes),
    )


class Build:
    """One graph at every stage, and its executable."""

    def __init__(self, traced: Graph, options: Options | None = None) -> None:
        self.traced = traced
        self.options = options if options is not None else options_from_environment()
        self.watch = Stopwatch()
        self.origins: Counter[str] = Counter()
        """How many kernels were compiled, or found on the disk or in memory."""
        self.fixed: dict[Node, str] = {}
        """Nodes whose kernels depend on the symbolic sizes, and why."""
        self.not_symbolic = ""
        """Why no kernel can do without the symbolic sizes."""

    @functools.cached_property
    def optimized(self) -> Graph:
        """After the passes."""
        with self.watch.stage("optimize"):
            return optimize(self.traced, self.options)

    @property
    def sizes(self) -> Sizes | None:
        """The sizes that change from call to call, if there are any."""
        return self.traced.notes.get("sizes")

    @functools.cached_property
    def symbolic(self) -> SymbolicProgram | None:
        """Fused and lowered with symbols for the sizes that change, which is done once for all calls that differ in
        nothing else; None when there are no such sizes, or when what the program means depends on them."""
        optimized, sizes = self.optimized, self.sizes
        if sizes is None:
            return None
        try:
            with self.watch.stage("fuse"):
                graph = opened(optimized, sizes.values)
                key = sizes.key(str(graph))
                fused = None if key in sizes.lowered else fuse(graph)
        except Undecided as reason:
            self.not_symbolic = str(reason)
            return None
        if fused is not None:
            with self.watch.stage("lower"):
                sizes.lowered[key] = lower_symbolic(fused)
        return sizes.lowered[key]

    @functools.cached_property
    def fused(self) -> Graph:
        """After fusion: fusion nodes, library calls, control flow."""
        optimized, symbolic = self.optimized, self.symbolic
        with self.watch.stage("fuse"):
            if symbolic is None:
                return fuse(optimized)
            assert self.sizes is not None
            return resized(symbolic.fused, self.sizes.values)[0]

    @functools.cached_property
    def calls(self) -> Mapping[Node, tuple[KernelCall, ...]]:
        """The kernel calls of each node."""
        fused = self.fused
        with self.watch.stage("lower"):
            symbolic = self.symbolic
            if symbolic is None:
                kernels = lower(fused)
            else:
                assert self.sizes is not None
                kernels = calls_for(symbolic, fused, self.sizes.values, self.fixed)
            return {**kernels, **library_calls(fused, kernels)}

    @functools.cached_property
    def plan(self) -> Plan:
        """Where values live, and what runs."""
        calls = self.calls
        with self.watch.stage("plan"):
            plan = plan_program(self.fused, calls)
            if self.options.verify:
                check_plan(plan)
            return plan

    @property
    def executable(self) -> Executable:
        """What runs: as an earlier build left it on the disk, or made of the plan."""
        return self._built[0]

    @property
    def seconds(self) -> Mapping[str, float]:
        """What each stage took until there was something to run; what people read later costs more."""
        return self._built[1]

    @functools.cached_property
    def _built(self) -> tuple[Executable, Mapping[str, float]]:
        with self.watch.stage("find"):
            identity = self._identity()
            found = self._found(identity)
        return found or self._made(identity), dict(self.watch.seconds)

    def _identity(self) -> str | None:
        """By what the program is found on the disk: nothing else may change what is made of the traced graph. None for
        builds whose stages have to be made, or that differ in more."""
        options = self.options
        if self.sizes is not None or options.verify or options.dump_ir is not None or not code_cache().lasts:
            return None
        return stored.identity(self.traced, f"{sorted(options.disabled)} {options.recompute_from}")

    def _found(self, identity: str | None) -> Executable | None:
        found = None if identity is None else stored.find(identity)
        if found is None:
            return None
        program, codes = found
        self.origins.update(code.origin for code in codes)
        return Executable(program.plan, lambda kernels: [code.address for code in codes], program.program)

    def _made(self, identity: str | None) -> Executable:
        plan, keys = self.plan, list[str]()
        with self.watch.stage("plan"):
            executable = Executable(plan, functools.partial(self._addresses, keys))
        if identity is not None:
            with self.watch.stage("keep"):
                stored.keep(identity, stored.Stored(plan, executable.program, tuple(keys)))
        return executable

    def _addresses(self, keys: list[str], kernels: Sequence[Any]) -> list[int]:
        """The machine code of kernels, through the code cache, whose keys are added to `keys`."""
        with self.watch.stage("emit"):
            sources = [llvm_source(kernel) for kernel in kernels]
        with self.watch.stage("compile"):
            codes = code_cache().kernels(sources) if sources else []
        self.origins.update(code.origin for code in codes)
        keys += [code.key for code in codes]
        return [code.address for code in codes]

    def run(self, arrays: Sequence[Any], progress: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
        """Executes the program: new arrays for the results that are not written into an input."""
        return self.executable.run(arrays, progress)

    def interpreted(self, arrays: Sequence[Any], stage: str = "traced") -> list[np.ndarray]:
        """All results by the reference interpreter at one of the graph stages; the inputs are left alone."""
        return interpret(getattr(self, stage), [np.asarray(a) for a in arrays])

    # ---- reading ---------------------------------------------------------------------------------------------------

    def kernels(self) -> list[KernelCall]:
        """The calls of distinct kernels, in the order of the program."""
        seen: dict[Any, KernelCall] = {}
        for calls in self.calls.values():
            for call in calls:
                seen.setdefault(call.kernel, call)
        return list(seen.values())

    def text(self, stage: str) -> str:
        """One stage as text."""
        match stage:
            case "traced" | "optimized" | "fused":
                return str(getattr(self, stage))
            case "kernels":
                return "\n\n".join(str(c.kernel) for c in self.kernels())
            case "llvm":
                return "\n".join(f"; {kernel.name}\n{llvm_source(kernel).text}" for kernel in self._written())
            case "assembly":
                assembly = seam.compiler().kernel_assembly
                return "\n".join(assembly(llvm_source(kernel), kernel.name) for kernel in self._written())
            case "plan":
                return str(self.plan)
        raise ValueError(f"no stage is named {stage!r}")

    def source(self) -> str:
        """The Python source of every kernel."""
        return "\n\n".join(map(python_source, self._written()))

    def _written(self) -> list[Kernel]:
        """The distinct kernels that are no routines of the runtime."""
        return [c.kernel for c in self.kernels() if isinstance(c.kernel, Kernel)]

    def memory(self) -> MemoryUse:
        """Where the bytes of a call are."""
        return memory_use(self.plan, self.fused)

    def explain(self) -> str:
        """Kernels and what they fused, library calls, copies, memory, time spent per stage."""
        return explain(self)
