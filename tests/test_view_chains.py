"""Chains of views cost nothing: what reads through them is one kernel without copies, what writes through them writes
the memory that is meant, and products read their operands where they stand."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft.nn import functional as F

READS = {
    "reshape": (lambda x: x.reshape(32, 96).exp(), (64, 48)),
    "permute": (lambda x: x.permute(2, 0, 1) * 2, (20, 30, 40)),
    "slice": (lambda x: x[1:, ::2] + x[:-1, 1::2], (64, 48)),
    "flip": (lambda x: x.flip(0, 1) * x, (64, 48)),
    "expand": (lambda x: x[:, None].expand(64, 20, 48) * 2, (64, 48)),
    "diagonal": (lambda x: x.diagonal(1) * 2 + x.diagonal(-1), (64, 64)),
    "as_strided": (lambda x: x.as_strided((62, 3), (1, 1)).sum(1), (64,)),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 4), value=1.0).exp(), (64, 48)),
    "cat": (lambda x: weft.cat([x * 2, x.t()], 1).sum(1), (64, 64)),
    "stack": (lambda x: weft.stack([x, x * 2, x.flip(0)], 1).amax(1), (64, 48)),
    "roll": (lambda x: x.roll((3, 5), (0, 1)) - x, (64, 48)),
    "unfold": (lambda x: x.unfold(0, 4, 2).sum(-1), (64, 48)),
    "windows": (lambda x: F.unfold(x, 3, padding=1).sum(1), (2, 3, 16, 16)),
    "average pool": (lambda x: F.avg_pool2d(x, 2), (2, 3, 16, 16)),
    "maximum pool": (lambda x: F.max_pool2d(x, 3, 2, 1), (2, 3, 16, 16)),
    "contiguous": (lambda x: x.t().contiguous().view(-1) * 2, (64, 48)),
    "chunk": (lambda x: sum(c.t() for c in x.chunk(4, 1)), (64, 48)),
    "split": (lambda x: weft.cat(x.split(16, 1)[::-1], 1) + 1, (64, 48)),
    "repeat": (lambda x: x.repeat(2, 3) + 1, (64, 48)),
    "triangles": (lambda x: x.tril() + x.triu(1).t(), (64, 64)),
    "chain": (lambda x: x.transpose(0, 1)[1:, ::2].flip(0).reshape(-1)[3:].roll(3) * 2, (64, 48)),
    "heads": (lambda x: x.permute(0, 2, 1, 3).reshape(8 * 16, -1).sum(0), (8, 4, 16, 12)),
}

WRITES = {
    "slice": (lambda x: x[1:-1].mul_(2), (64, 48)),
    "columns": (lambda x: x[:, 1:].add_(1), (64, 48)),
    "steps": (lambda x: x[::2, 1::3].mul_(2), (64, 48)),
    "transpose": (lambda x: x.t()[2:].add_(1), (64, 48)),
    "permute": (lambda x: x.view(8, 8, 48).permute(2, 1, 0)[1:, 2:].mul_(3), (64, 48)),
    "diagonal": (lambda x: x.diagonal().mul_(2), (64, 64)),
    "flat": (lambda x: x.view(-1)[::3].mul_(2), (64, 48)),
    "unfold": (lambda x: x.unfold(0, 4, 4).mul_(2), (64, 48)),
    "as_strided": (lambda x: x.as_strided((10, 4), (96, 2), 5).mul_(2), (64, 48)),
    "other rows": (lambda x: x[2:5, ::2].copy_(x[7:10, :24]), (64, 48)),
    "other columns": (lambda x: x[:, :24].add_(x[:, 24:]), (64, 48)),
    "red and black": (lambda x: x[1:-1:2].copy_(x[:-2:2] + x[2::2]), (65, 48)),
    "a border": (lambda x: [p.copy_(q) for p, q in ((x[0], x[1]), (x[-1], x[-2]), (x[:, 0], x[:, 1]))], (64, 48)),
    "one row after the other": (lambda x: (x[0].add_(1), x[1].mul_(2), x[2:4].sub_(x[4:6])), (64, 48)),
    "chunks": (lambda x: [c.mul_(k) for k, c in enumerate(x.chunk(4, 1))], (64, 48)),
    "rows": (lambda x: x.copy_(x.softmax(1)), (64, 48)),
    "mask": (lambda x: x.masked_fill_(x > 0, 0.0), (64, 48)),
}

Y, Z = (weft.linspace(-1, 1, 256 * 128).sin().view(256, 128), weft.linspace(-1, 1, 32 * 16).cos().view(32, 16))

PRODUCTS = {
    "transposed right": (lambda x: x @ Y.t(), (256, 128)),
    "transposed left": (lambda x: x.t() @ Y, (256, 128)),
    "columns": (lambda x: x[:, :64] @ Y[:, 64:].t(), (256, 128)),
    "every other row": (lambda x: x[::2] @ Y.t(), (256, 128)),
    "reshaped": (lambda x: x.reshape(64, 512) @ Y.reshape(64, 512).t(), (256, 128)),
    "batched": (lambda x: x @ x.transpose(1, 2), (8, 64, 32)),
    "heads": (lambda x: (lambda q: q @ q.transpose(-1, -2))(x.view(8, 64, 4, 8).transpose(1, 2)), (8, 64, 32)),
    "one matrix": (lambda x: x @ Z, (8, 64, 32)),
    "einsum": (lambda x: weft.einsum("bij,bkj->ikb", x, x), (8, 64, 32)),
    "convolution of points": (lambda x: F.conv2d(x, Z[:, :3, None, None]), (4, 3, 32, 32)),
}


def waves(shape, shift=0.0):
    x = weft.arange(int(np.prod(shape))).float()
    return (x * 0.7 + shift).sin().view(*shape)


def explained(f, call):
    """What is told of the kernels, and of the copies and the arena."""
    compiled = weft.compile(f)
    call(compiled)
    lines = compiled.explain().splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("copies"))
    return lines[:at], lines[at:-1]


@pytest.mark.parametrize("name", READS)
def test_reads(name):
    f, shape = READS[name]
    x = waves(shape)
    expected = f(x).numpy()
    kernels, rest = explained(f, lambda g: np.testing.assert_allclose(g(x).numpy(), expected, rtol=1e-4, atol=1e-5))
    assert "1 kernel(s):" in kernels and rest == ["copies: none", "arena: 0 bytes"]


@pytest.mark.parametrize("name", WRITES)
def test_writes(name):
    f, shape = WRITES[name]
    expected = waves(shape)
    f(expected)

    def call(g):
        x = waves(shape)
        g(x)
        np.testing.assert_allclose(x.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)

    _, rest = explained(lambda x: (f(x), None)[1], call)
    assert rest == ["copies: none", "arena: 0 bytes"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    f, shape = PRODUCTS[name]
    x = waves(shape)
    expected = f(x).numpy()
    _, rest = explained(f, lambda g: np.testing.assert_allclose(g(x).numpy(), expected, rtol=1e-3, atol=1e-4))
    copies = rest[1:-1] if rest[0] == "copies:" else []
    assert all("a product reads its rows in vectors" in line for line in copies)


REPEATED = {
    "shifted": lambda x: x[1:].copy_(x[:-1] + 1),
    "shifted back": lambda x: x[:-1].mul_(x[1:]),
    "flat and rows": lambda x: x.view(-1)[48:].copy_(x[:-1].reshape(-1) + 1),
    "transposed": lambda x: x[:48].copy_(x[:48].t()),
    "the diagonal into a row": lambda x: x[0].copy_(x.diagonal()),
    "a row into the diagonal": lambda x: x.diagonal().add_(x[0]),
    "less its mean": lambda x: x[3:].sub_(x[3:].mean(1, keepdim=True)),
    "less the mean of all": lambda x: x[1:].sub_(x.mean(0)),
    "swapped": lambda x: (lambda a: (x[:2].copy_(x[2:4]), x[2:4].copy_(a)))(x[:2].clone()),
    "one after the other": lambda x: [c.mul_(k).add_(x[:1, :12]) for k, c in enumerate(x.chunk(4, 1))],
    "windows": lambda x: x.unfold(0, 2, 2).add_(x[: len(x) // 2].unsqueeze(-1)),
    "kept": lambda x: (lambda y: (y[1:-1].mul_(2), y)[1])(x.clone()),
    "read again": lambda x: (x[1:].mul_(2), x.sum(0))[1],
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("rows", [64, 4000])
def test_elements_are_read_before_they_are_overwritten(name, rows):
    f = REPEATED[name]
    found, expected = waves((rows, 48)), waves((rows, 48))
    results = weft.compile(f)(found), f(expected)
    for a, b in ((found, expected), results):
        if isinstance(a, weft.Tensor):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-5)


COPIES = {
    "a product's operand": (lambda x: x[:, ::2] @ x[:, ::2].t(), ["a product reads its rows in vectors"]),
    "padded for a product": (lambda x: F.pad(x, (0, 0, 1, 1)) @ x.t(), ["a product reads its rows in vectors"]),
    "a result": (lambda x: weft.cat([x, x.t()]), ["moved by a kernel: it is a result"]),
    "a shift": (lambda x: (x[1:].copy_(x[:-1] + 1), None)[1], ["cannot be computed in the memory where it must end"]),
    "a turn": (lambda x: x.clone().copy_(x.t()), ["a view that is kept or handed on"]),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_that_remain_are_named(name):
    f, reasons = COPIES[name]
    _, (heading, *copies, _) = explained(f, lambda g: g(waves((128, 128))))
    assert heading == "copies:" and len(copies) == len(reasons)
    for line, reason in zip(copies, reasons, strict=True):
        assert reason in line and " bytes" in line
