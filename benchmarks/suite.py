"""weft beside torch, JAX and NumPy on kernels, training steps and calls: what optimiser and code generator reach.

    python benchmarks/suite.py                                     # everything
    python benchmarks/suite.py --case lenet --rounds 2             # one case, quickly
    python benchmarks/suite.py --second --page docs/benchmarks.md  # second processes too, and the tables into the page
"""
from __future__ import annotations

from harness import main

MODULES = ("cases.kernels", "cases.perceptron", "cases.optimiser", "cases.networks", "cases.small", "cases.calls")

if __name__ == "__main__":
    main(MODULES, ())
