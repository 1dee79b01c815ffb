"""weft beside torch, JAX and NumPy on kernels, training steps and calls: what optimiser and code generator reach.

    python benchmarks/suite.py                                     # everything
    python benchmarks/suite.py --case lenet --rounds 2             # one case, quickly
    python benchmarks/suite.py --rounds 1 --second --busy --json suite.json --resume --page docs/benchmarks-suite.md
        # second processes, and all steps beside a busy process, too; what an interrupted run measured is kept
    python benchmarks/suite.py --json suite.json --report          # nothing is measured
"""
from __future__ import annotations

from report import FASTEST, Goal, Share
from runner import main

MODULES = (
    "cases.rosenbrock",
    "cases.mlp",
    "cases.kernels",
    "cases.perceptron",
    "cases.optimiser",
    "cases.networks",
    "cases.small",
    "cases.calls",
    "cases.attention",
)

SMALL = {
    "rosenbrock": "weft, native loop",
    "book_mlp": "weft, native loop",
    "tiny": "weft",
    "mlp_adam_64": "weft",
    "lstm": "weft",
}
"""Case -> the way to run it in weft: small programs, in which weft should be twice as fast as anybody."""

LARGE = (
    "pointwise", "pointwise_gradient", "rows", "views", "stencil", "black_scholes", "mlp_adam_512", "mlp_sizes", "adam",
    "lenet", "gpt", "hessian", "attention", "attention_gradient", "cross_entropy",
)  # fmt: skip
"""Cases in which weft should be as fast as the fastest."""

QUICK = ("pointwise", "pointwise_gradient", "views", "stencil", "tiny", "hessian")
"""Cases that are as soon compiled as by JAX; in the others twice that time is allowed."""

MEMORY = ("pointwise", "views", "stencil", "adam")
"""Cases that wait for memory only."""

COMPILED = (*LARGE, "mlp_adam_64", "lstm", "tiny")

WAYS = {**dict.fromkeys(COMPILED, "weft"), **SMALL, "call": "weft, compiled"}
"""Every case -> the way to run it in weft."""

GOALS = (
    *(Goal(case, peer, 0.5, FASTEST) for case, peer in SMALL.items()),
    *(Goal("call", "weft, compiled", 0.5, peer) for peer in ("JAX, jit", "torch.compile")),
    *(Goal(case, "weft", 1, FASTEST) for case in LARGE),
    *(Share(case, "weft", 0.8) for case in MEMORY),
    *(Goal(case, "weft", 1 if case in QUICK else 2, "JAX, jit", "first_call") for case in COMPILED),
    *(Goal(case, "weft", 1, "JAX, jit", "start") for case in COMPILED),
    *(Goal(case, peer, 0.2, "torch.compile", "first_call") for case, peer in WAYS.items()),
    *(Goal(case, peer, 0.3, figure="second_start") for case, peer in WAYS.items()),
    *(Goal(case, peer, 1, of, "memory") for case, peer in WAYS.items() for of in ("weft, eager", "torch, eager")),
    *(Goal(case, peer, 2.5, figure="slowdown") for case, peer in WAYS.items()),
)

if __name__ == "__main__":
    main(MODULES, GOALS)
