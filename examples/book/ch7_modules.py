"""Chapter 7: modules. A built-in layer, a model as a sequence of layers, a module of one's own.

Run: python examples/book/ch7_modules.py
"""

from __future__ import annotations

from typing import Any

import weft
from weft import nn


class MyLinear(nn.Module):
    """The chapter's own linear layer: w is in x out, as one would write it on paper."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.w = nn.Parameter(weft.randn(in_features, out_features))
        self.b = nn.Parameter(weft.zeros(out_features))

    def forward(self, x: Any) -> Any:
        """x w + b."""
        return x.mm(self.w) + self.b


def built_in_layer() -> dict[str, Any]:
    """7.1: `Linear` and what it holds."""
    layer = nn.Linear(5, 16)
    print(layer, layer.summary(), sep="\n")
    output = layer(weft.randn(50, 5))
    print("output:", output.shape, output.grad_fn)
    return {
        "parameters": sum(p.numel() for p in layer.parameters()),
        "weight": tuple(layer.weight.shape),
        "bias": tuple(layer.bias.shape),
        "output": tuple(output.shape),
        "grad_fn": output.grad_fn.name,
        "weight has grad_fn": layer.weight.grad_fn is not None,
    }


def sequence_of_layers() -> dict[str, Any]:
    """7.2.1: one call runs all layers forwards, one `backward` all of them backwards."""
    mlp = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    print(mlp)
    output = mlp(weft.randn(5, 10))
    output.mean().backward()
    return {
        "output": tuple(output.shape),
        "grad_fn": output.grad_fn.name,
        "all have gradients": all(p.grad is not None for p in mlp.parameters()),
    }


def module_of_ones_own() -> dict[str, Any]:
    """7.2.2: parameters register themselves when they are assigned."""
    layer = MyLinear(7, 1)
    print(layer, layer.summary(), sep="\n")
    output = layer(weft.randn(5, 7))
    return {
        "parameters": sum(p.numel() for p in layer.parameters()),
        "names": [name for name, _ in layer.named_parameters()],
        "output": tuple(output.shape),
        "grad_fn": output.grad_fn.name,
    }


def main() -> dict[str, dict[str, Any]]:
    """Runs every section; what each one found."""
    weft.manual_seed(1)
    return {section.__name__: section() for section in (built_in_layer, sequence_of_layers, module_of_ones_own)}


if __name__ == "__main__":
    main()
