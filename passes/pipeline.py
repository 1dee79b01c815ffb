"""The order of the passes, and the running of them: `optimize` takes a traced graph to an optimized one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ..ir.graph import Graph
from ..ir.verify import verify
from .cse import CommonSubexpressions
from .dce import DeadCode
from .fold import Fold
from .invariant import InvariantMotion
from .loop_sums import LoopSums
from .loops import RepeatedLoops
from .newest import Newest
from .options import Options
from .recompute import Recompute
from .reroll import RolledLoops
from .row_products import RowProducts
from .simplify import Simplify
from .tiling import Tiling
from .window_products import WindowProducts
from .written_once import WrittenOnce


class Pass(Protocol):
    """One step: a name by which it can be switched off, and graph -> graph. Unchanged means the same object."""

    @property
    def name(self) -> str:
        """As in dumps and in `Options.disabled`."""

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The changed graph."""


AfterPass = Callable[[str, Graph], None]
"""Called with a pass's name and its graph, after every pass that ran."""

CLEAN_UP: tuple[Pass, ...] = (Fold(), Simplify(), CommonSubexpressions(), DeadCode())

PIPELINE: tuple[Pass, ...] = (
    RolledLoops(),  # while peeled iterations still look like the others
    RepeatedLoops(),  # while the two copies of a differentiated loop still look alike
    DeadCode(),
    *CLEAN_UP,
    *CLEAN_UP,  # what the first round brought to light
    WrittenOnce(),
    *CLEAN_UP,  # sequences that nobody reads now
    RowProducts(),
    LoopSums(),
    *CLEAN_UP,
    InvariantMotion(),
    *CLEAN_UP,
    WindowProducts(),
    Tiling(),  # what is large by now has to be there
    *CLEAN_UP,
    *CLEAN_UP,  # the rows that are left over, out of their loop
    Newest(),  # after simplification, which does the reverse
    Recompute(),  # last: it looks at what fusion would keep
)


DEFAULT = Options()


def optimize(graph: Graph, options: Options = DEFAULT, after: AfterPass | None = None) -> Graph:
    """The optimized graph; the results mean the same."""
    return run_passes(graph, PIPELINE, options, after)


def run_passes(
    graph: Graph, passes: Iterable[Pass], options: Options, after: AfterPass | None = None, stage: str = "optimize"
) -> Graph:
    """Runs those of `passes` that are not switched off; `options` say whether to verify and write out after each."""
    label = f"{graph.name}-{hashlib.sha256(str(graph).encode()).hexdigest()[:8]}-{stage}" if options.dump_ir else ""
    if options.dump_ir:
        _write(options.dump_ir, f"{label}-00-before", graph)
    left_by: dict[str, Graph] = {}
    for position, step in enumerate(passes, 1):
        if step.name in options.disabled:
            continue
        if left_by.get(step.name) is not graph:  # else nothing has happened since this pass was done with it
            graph = left_by[step.name] = step(graph, options)
        if options.verify:
            verify(graph)
        if options.dump_ir:
            _write(options.dump_ir, f"{label}-{position:02d}-{step.name}", graph)
        if after is not None:
            after(step.name, graph)
    return graph


def _write(directory: str, name: str, graph: Graph) -> None:
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ir").write_text(f"{graph}\n", encoding="utf-8")
