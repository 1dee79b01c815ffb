"""Takes a traced graph through the stages to something that runs; each stage is kept, so that users can read it."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.graph import Graph
from ..ir.interpret import interpret

STAGES = ("traced", "optimized", "fused", "kernels", "plan")


class Build:
    """One graph at every stage."""

    def __init__(self, traced: Graph) -> None:
        self.traced = traced

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Executes the program."""
        results = interpret(self.traced, [a.copy() for a in arrays])
        for result, param in self.traced.notes.get("writes", {}).items():
            arrays[param][...] = results[result]
        return [np.array(r) for r in results]
