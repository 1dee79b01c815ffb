"""The main example: a 64-128-10 network learns scikit-learn's handwritten digits as one native loop.

Once it is compiled, `train` is one program: shuffling, drawing mini-batches, forward, backward, Adam, bookkeeping, and
both loops. Run: python examples/digits.py (or `make demo`). Read on in docs/architecture.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import weft
from weft import nn, optim

BATCH, EPOCHS, LEARNING_RATE = 64, 40, 1e-3


@dataclass(frozen=True)
class Data:
    """Images (n x 64, from 0 to 1) and their digits, in a part to learn from and a part held out."""

    x: Any
    y: Any
    x_held_out: Any
    y_held_out: Any


def load() -> Data:
    """The 1,797 digits, split 80 to 20 by a fixed permutation."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = weft.tensor((digits.data[order] / 16).astype(np.float32))
    y = weft.tensor(digits.target[order].astype(np.int64))
    cut = len(order) * 4 // 5
    return Data(x[:cut].clone(), y[:cut].clone(), x[cut:].clone(), y[cut:].clone())


def network() -> nn.Sequential:
    """64 pixels, 128 hidden units, 10 digits."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def train(model: nn.Module, optimizer: optim.Optimizer, x: Any, y: Any, epochs: int, losses: Any) -> None:
    """Trains for `epochs`; `losses` (epochs x batches) receives the loss of every step.

    A last partial batch is left out.
    """
    batches = losses.shape[1]
    for epoch in weft.range(epochs, progress=True):
        order = weft.randperm(len(x))[: batches * BATCH].reshape(batches, BATCH)
        for batch in weft.range(batches):
            chosen = order[batch]
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[epoch, batch] = loss.detach()


def accuracy(model: nn.Module, x: Any, y: Any) -> float:
    """The share of digits that the model names rightly."""
    with weft.no_grad():
        return (model(x).argmax(dim=1) == y).to(weft.float32).mean().item()


@dataclass(frozen=True)
class Result:
    """What one training run gave."""

    losses: Any
    accuracy: float
    seconds: float
    model: nn.Module
    optimizer: optim.Optimizer

    @property
    def seconds_per_step(self) -> float:
        """The mean time of one step."""
        return self.seconds / self.losses.numel()


def run(data: Data, trainer: Any, seed: int, epochs: int = EPOCHS) -> Result:
    """Trains a new network from `seed` with `trainer`, which is `train` or the compiled `train`."""
    weft.manual_seed(seed)
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    return go_on(data, trainer, model, optimizer, epochs)


def go_on(data: Data, trainer: Any, model: nn.Module, optimizer: optim.Optimizer, epochs: int) -> Result:
    """Trains `model` for some (more) epochs."""
    losses = weft.zeros(epochs, len(data.x) // BATCH)
    started = time.perf_counter()
    trainer(model, optimizer, data.x, data.y, epochs, losses)
    seconds = time.perf_counter() - started
    return Result(losses, accuracy(model, data.x_held_out, data.y_held_out), seconds, model, optimizer)


def report(result: Result) -> None:
    """Prints the mean loss of some epochs, and the accuracy."""
    means = result.losses.mean(dim=1).tolist()
    for epoch in sorted({0, 1, 3, 7, 15, len(means) - 1} & set(range(len(means)))):
        print(f"  epoch {epoch + 1:3d}: loss {means[epoch]:.4f}")
    print(f"  held-out accuracy {result.accuracy:.4f}")


def show_program(compiled: Any, lines: int = 12) -> None:
    """Prints the beginning of the program at every stage, and what became of it."""
    for stage in ("traced", "optimized", "fused", "kernels", "plan"):
        text = compiled.ir(stage).splitlines()
        print(f"\n--- ir({stage!r}), {len(text)} lines")
        print("\n".join(line[:140] for line in text[:lines]))
    print(f"\n--- explain()\n{compiled.explain()}")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Trains compiled and for a few epochs eager; prints losses, accuracy, the program and the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    data, compiled = load(), weft.compile(train)
    print(network().summary())
    print(f"{len(data.x)} digits to learn from, {len(data.x_held_out)} held out")
    print(f"Adam, batches of {BATCH}, {options.epochs} epochs")
    first = run(data, compiled, options.seed, options.epochs)
    report(first)
    show_program(compiled)
    again = run(data, compiled, options.seed, options.epochs)
    steady = go_on(data, compiled, again.model, again.optimizer, options.epochs)
    eager = run(data, train, options.seed, min(2, options.epochs))
    print(f"\nfirst call, compiling included: {first.seconds:.2f} s")
    print(f"a step, compiled: {steady.seconds_per_step * 1e6:.0f} us; eager: {eager.seconds_per_step * 1e6:.0f} us")
    print("The path of one line of code through all stages: docs/architecture.md; the same by chapters: examples/book/")
    return {
        "accuracy": first.accuracy,
        "again": again.accuracy,
        "compiled": steady.seconds_per_step,
        "eager": eager.seconds_per_step,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
