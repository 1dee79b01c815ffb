"""Axes whose size changes from call to call: one more compile serves all further sizes."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft import nn
from weft.ir.sizes import SymbolicSize
from weft.nn import functional as F
from weft.runtime.cache import CodeCache
from weft.tracer import driver

SIZES = (32, 48, 17, 100, 64)


@pytest.fixture
def compiled(monkeypatch):
    """How many kernels were compiled so far; nothing is known at the start."""
    cache = CodeCache(None)
    monkeypatch.setattr(driver, "code_cache", lambda: cache)
    return lambda: cache.statistics.compiled


def counts(call, sizes, compiled):
    """How many kernels each call compiles; `call(size)` checks its own result."""
    found = []
    for size in sizes:
        before = compiled()
        call(size)
        found.append(compiled() - before)
    return found


def close(a, b, tolerance=2e-4):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


def perceptron():
    weft.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 40), nn.Tanh(), nn.Linear(40, 5))


def trainer(model, optimizer):
    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def batch(size):
    return weft.randn(size, 12), weft.randint(0, 5, (size,))


def test_a_training_step_is_compiled_twice_for_all_batch_sizes(compiled):
    models = perceptron(), perceptron()
    steps = [trainer(m, weft.optim.Adam(m.parameters(), lr=1e-2)) for m in models]
    steps[0] = weft.compile(steps[0])
    batch_of = {size: batch(size) for size in SIZES}
    for step in steps:  # both have their optimiser's state and gradients afterwards
        step(*batch_of[32])
        step(*batch_of[32])

    def call(size):
        close(steps[0](*batch_of[size]), steps[1](*batch_of[size]))
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            close(p, q)

    first, second, *others = counts(call, SIZES, compiled)
    assert first == 0 and second > 0 and others == [0, 0, 0]
    text = steps[0].explain()
    assert "argument x: axis 0 was 32 and is 48: symbolic from now on" in text
    assert "symbolic size x_0, here 64: axis 0 of x, axis 0 of y" in text and "for these sizes alone" not in text
    assert "and 3 trace(s) for other sizes of symbolic axes" in text


def test_inference(compiled):
    model = perceptron().eval()
    predict = weft.compile(lambda x: F.softmax(model(x), dim=-1))

    def call(size):
        x = weft.randn(size, 12)
        with weft.no_grad():
            close(predict(x), F.softmax(model(x), dim=-1))

    first, second, *others = counts(call, SIZES, compiled)
    assert first > 0 and second > 0 and others == [0, 0, 0]


def test_named_axes_are_symbolic_from_the_first_call(compiled):
    scale = weft.compile(lambda x, w: (x * w).exp().sum(1), dynamic={"x": 0})

    def call(size):
        x, w = weft.randn(size, 40), weft.randn(40)
        close(scale(x, w), (x * w).exp().sum(1))

    first, *others = counts(call, SIZES, compiled)
    assert first > 0 and others == [0, 0, 0, 0]
    assert "axis 0 of x" in scale.explain() and "axis 0 of w" not in scale.explain()


def test_all_axes(compiled):
    f = weft.compile(lambda x: F.layer_norm(x, x.shape[-1:]) + x.mean(), dynamic=True)
    pairs = iter([(6, 20), (20, 6), (33, 33), (2, 100), (100, 2)])

    def call(_):
        x = weft.randn(*next(pairs))
        close(f(x), F.layer_norm(x, x.shape[-1:]) + x.mean())

    first, *others = counts(call, range(5), compiled)
    assert first > 0 and others == [0, 0, 0, 0]


def test_loops_over_elements_serve_every_size_anyway(compiled):
    f = weft.compile(lambda x: (x * 2).exp(), dynamic=False)
    assert counts(lambda size: f(weft.ones(size, 33)), (5, 60, 700), compiled)[1:] == [0, 0]


def test_no_axes(compiled):
    f = weft.compile(lambda x: (x * 2).exp().sum(0), dynamic=False)

    def call(size):
        f(weft.ones(size, 33))

    assert all(n > 0 for n in counts(call, (5, 6, 7), compiled)) and "symbolic" not in f.explain()


def test_python_code_that_looks_at_sizes_is_right(compiled):
    @weft.compile
    def f(x):
        rows, total = x.shape[0], 0
        for k in range(rows % 3):
            total = total + x[k].sum()
        return x[: rows // 2].sum(0) + (x[1:] - x[:-1]).abs().sum(0) / (rows - 1) + total * (
            1 if rows > 50 else 2
        ), rows

    def eager(x):
        rows = x.shape[0]
        total = sum(x[k].sum() for k in range(rows % 3))
        differences = (x[1:] - x[:-1]).abs().sum(0) / (rows - 1)
        return x[: rows // 2].sum(0) + differences + total * (1 if rows > 50 else 2)

    for size in (9, 12, 30, 31, 60, 2, 1, 200):
        x = weft.randn(size, 7)
        if size > 1:
            result, rows = f(x)
            close(result, eager(x))
            assert rows == size and type(rows) is int


def test_sizes_0_and_1_are_programs_of_their_own(compiled):
    f = weft.compile(lambda x, y: (x + y).sum(0))

    def call(size):
        x, y = weft.randn(size, 30), weft.randn(9, 30) if size == 1 else weft.randn(size, 30)
        close(f(x, y), (x + y).sum(0))

    counts(call, (8, 9), compiled)
    special = counts(call, (0, 1), compiled)
    assert counts(call, (0, 1, 10, 11, 300), compiled) == [0] * 5
    assert max(special) > 0


def test_axes_of_equal_sizes_may_part(compiled):
    f = weft.compile(lambda x, y: (x.exp().sum(0), y.exp().sum(0)))
    for n, m in [(8, 8), (9, 9), (10, 20), (20, 10)]:
        x, y = weft.randn(n, 30), weft.randn(m, 30)
        for got, right in zip(f(x, y), (x.exp().sum(0), y.exp().sum(0)), strict=True):
            close(got, right)
    before = compiled()
    f(weft.randn(33, 30), weft.randn(44, 30))
    assert compiled() == before


def test_equal_to_another_size_by_chance(compiled):
    w = weft.randn(40, 16)
    f = weft.compile(lambda x: weft.relu(x @ w).sum(1))

    def call(size):
        x = weft.randn(size, 40)
        close(f(x), weft.relu(x @ w).sum(1))

    assert counts(call, (30, 31, 40, 16, 32), compiled)[2:] == [0, 0, 0]


def test_sizes_far_from_those_that_decided_get_kernels_of_their_own(compiled):
    f = weft.compile(lambda x: (x.exp() + 1).sum())

    def call(size):
        x = weft.ones(size, 50)
        close(f(x) / x.numel(), (x.exp() + 1).sum() / x.numel())

    small, large = counts(call, (8, 9, 3, 100), compiled), counts(call, (20_000, 30_000, 10_000), compiled)
    assert small[2:] == [0, 0] and large[0] > 0 and large[1:] == [0, 0]
    assert counts(call, (10, 20_001), compiled) == [0, 0]


def test_numbers_that_remember_a_size_of_another_call_are_harmless():
    kept = {}

    class Keeper(nn.Module):
        def forward(self, x):
            kept["rows"] = x.shape[0]
            return x * 2

    keep = weft.compile(lambda x: (x * 2, x.shape))
    shapes = [keep(weft.ones(n, 3))[1] for n in (4, 5, 6)]
    f = weft.compile(lambda x, n: x.sum() + weft.ones(n).sum())
    for shape in shapes:
        assert f(weft.ones(7, 3), shape[0]).item() == 21 + shape[0]


def test_gradients_from_outside(compiled):
    f = weft.compile(lambda x, w: (x @ w).tanh().mean(0))

    def call(size):
        x, w = weft.randn(size, 20), weft.randn(20, 30)
        grads = []
        for function in (f, lambda x, w: (x @ w).tanh().mean(0)):
            a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
            function(a, b).sum().backward()
            grads.append((a.grad, b.grad))
        for got, right in zip(*grads, strict=True):
            close(got, right)

    assert counts(call, SIZES, compiled)[2:] == [0, 0, 0]


def test_loops(compiled):
    def run(x, steps):
        total = weft.zeros(x.shape[1])
        for _ in weft.range(steps):
            x = x - 0.1 * x.tanh()
            total = total + x.mean(0)
        return total

    f = weft.compile(run)

    def call(size):
        x = weft.randn(size, 12)
        close(f(x, 20), run(x, 20))

    assert counts(call, SIZES, compiled)[2:] == [0, 0, 0]


def test_many_sizes_are_no_error():
    f = weft.compile(lambda x: x * 2)
    for n in range(2, 90):
        assert f(weft.ones(n)).sum().item() == 2 * n
    assert f.traces == 88


class Block(nn.Module):
    """A transformer's block and its head, with causal attention."""

    def __init__(self, width, heads, words):
        super().__init__()
        self.heads, self.words = heads, words
        self.token, self.place = nn.Embedding(words, width), nn.Embedding(64, width)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, words)

    def forward(self, tokens):
        x = self.token(tokens) + self.place(weft.arange(tokens.shape[1]))
        batch, length, width = x.shape
        q, k, v = (
            part.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.attend(self.before(x)).chunk(3, dim=-1)
        )
        scores = (q @ k.transpose(-2, -1)) / (width // self.heads) ** 0.5
        later = weft.ones(length, length).tril() == 0
        mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, width))
        return self.head(x + self.down(F.gelu(self.up(self.after(x)))))


def test_a_transformer_block_over_sequence_lengths(compiled):
    weft.manual_seed(1)
    models = [Block(32, 2, 11), Block(32, 2, 11)]
    models[1].load_state_dict(models[0].state_dict())

    def stepping(model):
        optimizer = weft.optim.SGD(model.parameters(), lr=0.1)

        def step(tokens, targets):
            loss = F.cross_entropy(model(tokens).reshape(-1, model.words), targets.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    steps = [weft.compile(stepping(models[0])), stepping(models[1])]

    def call(length):
        tokens, targets = weft.randint(0, 11, (3, length)), weft.randint(0, 11, (3, length))
        close(steps[0](tokens, targets), steps[1](tokens, targets))

    counts(call, (12, 12), compiled)
    second, *others = counts(call, (20, 9, 33), compiled)
    assert second > 0 and others == [0, 0]
    assert "for these sizes alone" not in steps[0].explain()


def test_what_the_code_takes_for_granted_is_checked(compiled):
    """Rows are held on the stack while they are short enough for it."""
    f = weft.compile(lambda x: F.softmax(x, dim=-1))

    def call(size):
        x = weft.randn(3, size)
        close(f(x), F.softmax(x, dim=-1))

    assert counts(call, (1000, 2000, 3000, 20_000, 4000), compiled)[2] == 0
    call(20_001)
    assert "for these sizes alone" in f.explain()


def test_sizes_are_remembered_by_the_surface():
    @weft.compile
    def f(x):
        n = x.shape[0]
        views = x.T, x[1:], x[: n - 2], x[:, None], x.flatten(), x.reshape(n, -1), x.unsqueeze(0), x.expand(2, -1, -1)
        joined = weft.cat([x, x]), weft.stack([x, x]), x.repeat(2, 1), x.flip(0), x.roll(1, 0), F.pad(x, (0, 0, 1, 1))
        made = weft.arange(n), weft.ones(n, 2), weft.zeros_like(x), weft.randn(n), weft.full((n,), 2.0), weft.eye(n)
        folded = x.sum(1), x.mean(1), x.max(1)[0], x.argmax(1), x.cumsum(0), x.sort(0)[0], x.softmax(0), x @ x.T
        return [any(isinstance(m, SymbolicSize) for m in t.shape) for t in (*views, *joined, *made, *folded)]

    assert not any(f(weft.ones(7, 3))) and all(f(weft.ones(9, 3)))


def test_explain_tells_where_the_time_went(compiled):
    f = weft.compile(lambda x: (x * 3).exp().sum())
    f(weft.ones(5, 31))
    line = f.explain().splitlines()[-1]
    stages = ["trace", "optimize", "fuse", "lower", "emit", "compile", "plan"]
    told = [part.split()[0] for part in line.removeprefix("seconds: ").split(";")[0].split(", ")]
    assert [stage for stage in told if stage not in ("find", "keep")] == stages  # those two need a cache on the disk
    assert line.endswith("for kernels that were 1 compiled")


def test_bad_indices_are_found(compiled):
    f = weft.compile(lambda x, i: x[i] * 2)
    for n in (10, 20, 30):
        close(f(weft.arange(n).float(), weft.tensor([1, n - 1])), weft.tensor([2.0, 2.0 * n - 2]))
        with pytest.raises(IndexError, match=f"size {n}"):
            f(weft.arange(n).float(), weft.tensor([1, n]))


LAYERS = {
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 9, 9)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (3, 5, 5)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1), (3, 9, 9)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (3, 9, 9)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (3, 5, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (3, 5, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(1, 3), (3, 5, 5)),
    "LayerNorm": (lambda: nn.LayerNorm(7), (4, 7)),
    "LSTM": (lambda: nn.LSTM(3, 4, batch_first=True), (6, 3)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), (6, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, compiled):
    """Outputs and gradients, by the input and the parameters, are those of eager mode."""
    make, shape = LAYERS[name]
    weft.manual_seed(2)
    layer = make()

    def slopes(x):
        result = layer(x)
        result = result if isinstance(result, weft.Tensor) else result[0]
        layer.zero_grad()
        (result * result).sum().backward()
        return result, x.grad, *(p.grad for p in layer.parameters())

    f = weft.compile(slopes)

    def call(size):
        x = weft.randn(size, *shape)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = [r.detach().clone() for r in f(a)]
        for one, other in zip(found, slopes(b), strict=True):
            close(one, other, 2e-3)

    assert counts(call, (20, 24, 28, 37), compiled)[2:] == [0, 0]
