"""weft beside torch and JAX on the book's programs, small calls, cold starts and a busy machine.

    python benchmarks/book.py                              # everything
    python benchmarks/book.py --case rosenbrock --rounds 2 # one case, quickly
"""
from __future__ import annotations

from harness import main

MODULES = ("cases.rosenbrock", "cases.mlp", "cases.calls", "cases.eager", "cases.neighbour", "cases.start")

if __name__ == "__main__":
    main(MODULES)
