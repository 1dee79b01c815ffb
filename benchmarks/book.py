"""weft beside torch and JAX on the book's programs, small calls, cold starts and a busy machine.

    python benchmarks/book.py                                  # everything
    python benchmarks/book.py --case rosenbrock --rounds 2     # one case, quickly
    python benchmarks/book.py --page docs/benchmarks.md        # and write the tables into the page
"""
from __future__ import annotations

from report import Goal
from runner import main

MODULES = ("cases.rosenbrock", "cases.mlp", "cases.calls", "cases.eager", "cases.neighbour", "cases.start")

GOALS = (
    Goal("rosenbrock", "weft, native loop", 1, "JAX, fori_loop"),
    Goal("rosenbrock_many", "weft, native loop", 1, "JAX, fori_loop"),
    Goal("book_mlp", "weft, native loop", 1, "JAX, fori_loop"),
    Goal("book_mlp", "weft, compiled step", 1 / 5, "torch, eager"),
    Goal("call", "weft, compiled", 3e-6),
    *(Goal(f"eager_{name}", "weft", 4, "torch") for name in ("add", "mul", "sum", "matmul", "slice")),
    Goal("start", "weft, empty cache", 1.5),
    Goal("start", "weft, filled cache", 0.2),
)

if __name__ == "__main__":
    main(MODULES, GOALS)
