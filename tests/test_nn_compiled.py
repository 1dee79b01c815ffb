"""Modules in compiled functions: nothing that a program read of a module can go stale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import weft
from weft import nn, optim


class Net(nn.Module):
    """Something of every kind that a trace can read: parameters, children, a buffer, a number, a flag, a default."""

    gain = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.shift = nn.Parameter(weft.ones(2))
        self.register_buffer("seen", weft.zeros(()))
        self.slope = 0.5
        self.square = False

    def forward(self, x: Any) -> Any:
        y = self.layers(x) * self.slope + self.shift * self.gain
        return y * y if self.square else y


def replace_weight(net: Net) -> None:
    net.layers[0].weight = nn.Parameter(weft.ones(4, 3))


def load(net: Net) -> None:
    net.load_state_dict({name: weft.ones_like(t) * 0.1 for name, t in net.state_dict().items()})


def new_data(net: Net) -> None:
    net.shift.data = weft.tensor([3.0, 4.0])


def drop_bias(net: Net) -> None:
    net.layers[2].bias = None


def new_forward(net: Net) -> None:
    net.forward = lambda x: net.layers(x) - 1


CHANGES = {
    "a number": (lambda net: setattr(net, "slope", 3.0), 0),
    "a class default": (lambda net: setattr(net, "gain", 7.0), 1),
    "values in place": (lambda net: net.shift.detach().add_(1), 0),
    "values loaded": (load, 0),
    "the memory of a parameter": (new_data, 0),
    "a parameter": (replace_weight, 0),
    "a flag": (lambda net: setattr(net, "square", True), 1),
    "a child module": (lambda net: setattr(net, "layers", nn.Linear(3, 2)), 1),
    "one layer of a sequence": (lambda net: net.layers.__setitem__(1, nn.ReLU()), 1),
    "a layer appended": (lambda net: net.layers.append(nn.ReLU()), 1),
    "a parameter that goes": (drop_bias, 1),
    "a hook": (lambda net: net.register_forward_hook(lambda module, args, y: y * 10), 1),
    "forward of one object": (new_forward, 1),
    "the dtype": (lambda net: net.double(), 1),
}


@pytest.mark.parametrize(("change", "traces"), list(CHANGES.values()), ids=list(CHANGES))
def test_a_change_is_seen(change: Any, traces: int) -> None:
    weft.manual_seed(0)
    net = Net()
    call = weft.compile(lambda x: net(x.to(net.shift.dtype)))
    x = weft.randn(5, 3)
    before = call(x)
    np.testing.assert_allclose(before.detach().numpy(), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    change(net)
    after = call(x)
    np.testing.assert_allclose(
        after.detach().numpy(), net(x.to(net.shift.dtype)).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert after.tolist() != before.tolist()
    assert call.traces <= 1 + traces


def test_buffers_are_written() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", weft.zeros(()))
            self.register_buffer("last", None)

        def forward(self, x: Any) -> Any:
            self.count.add_(1)
            self.last = x * self.count
            return self.last + 1

    counter = Counter()
    call = weft.compile(counter.__call__)
    for k in range(1, 4):
        assert call(weft.tensor(2.0)).item() == 2 * k + 1
        assert (counter.count.item(), counter.last.item()) == (k, 2 * k)


def test_dropout_draws_the_same_numbers_and_obeys_eval() -> None:
    net = nn.Dropout(0.5)
    call = weft.compile(lambda x: net(x))
    x = weft.ones(100)
    weft.manual_seed(4)
    eager = [net(x).tolist() for _ in range(2)]
    weft.manual_seed(4)
    assert [call(x).tolist() for _ in range(2)] == eager
    assert eager[0] != eager[1]
    net.eval()
    assert call(x).tolist() == x.tolist()


def train(model: nn.Module, optimizer: optim.Optimizer, x: Any, y: Any, losses: Any) -> None:
    for k in weft.range(len(losses)):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[k] = loss.detach()


@pytest.mark.parametrize(
    "make", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.01)], ids=["SGD", "Adam"]
)
def test_training_loop(make: Any) -> None:
    results = []
    for run in (train, weft.compile(train)):
        weft.manual_seed(2)
        net, x, losses = Net(), weft.randn(20, 3), weft.zeros(30)
        run(net, make(net.parameters()), x, x[:, :2].sin(), losses)
        results.append(
            (losses.numpy(), [p.detach().numpy() for p in net.parameters()], [p.grad.numpy() for p in net.parameters()])
        )
    (losses, params, gradients), (fast_losses, fast_params, fast_gradients) = results
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(fast_losses, losses, rtol=1e-4)
    for fast, slow in zip(fast_params + fast_gradients, params + gradients, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-3, atol=1e-5)


def test_a_parameter_group_added_later_is_updated() -> None:
    a, b = (weft.ones(2, requires_grad=True) for _ in range(2))
    optimizer = optim.SGD([a], lr=0.5)

    def step() -> None:
        optimizer.zero_grad()
        (a.sum() + b.sum()).backward()
        optimizer.step()

    compiled = weft.compile(step)
    compiled()
    optimizer.add_param_group({"params": [b], "lr": 0.25})
    compiled()
    assert (a.tolist(), b.tolist()) == ([0, 0], [0.75, 0.75])
