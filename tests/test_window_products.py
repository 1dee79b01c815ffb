"""Convolutions large enough to be compiled as loops over windows where they stand: values and derivatives against
eager mode, the kernels that come of them, any number of threads, any batch size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import weft

F = weft.nn.functional


@dataclass(frozen=True)
class Conv:
    """One convolution: shapes and options, and whether its three products read windows in place."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1
    padding: int | str = 0
    dilation: int = 1
    groups: int = 1
    dtype: weft.dtype = weft.float32
    direct: tuple[bool, bool, bool] = (True, True, True)

    def __str__(self) -> str:
        return f"{self.x} {self.w} {self.stride} {self.padding} {self.dilation} {self.groups} {self.dtype}"

    def operands(self):
        weft.manual_seed(1)
        return weft.randn(*self.x, dtype=self.dtype), weft.randn(*self.w, dtype=self.dtype)

    def __call__(self, x, w):
        apply = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(self.x)]
        return apply(x, w, None, self.stride, self.padding, self.dilation, self.groups)


def derivatives(conv):
    """A function that gives the convolution and its derivatives along a fixed cotangent."""

    def run(x, w):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = conv(x, w)
        (y * weft.cos(y.detach())).sum().backward()
        return y.detach(), x.grad, w.grad

    return run


CASES = [
    Conv((4, 3, 20, 20), (5, 3, 3, 3)),  # rows of 18: two vectors that overlap
    Conv((4, 3, 12, 12), (7, 3, 5, 5)),  # rows of 8: all of an image at once
    Conv((6, 2, 9, 30), (13, 2, 3, 4), padding="same"),  # more output channels than a block, an even kernel
    Conv((3, 4, 21, 19), (6, 4, 3, 3), padding=2, dilation=2),
    Conv((2, 6, 24, 24), (8, 3, 3, 3), padding=1, groups=2),
    Conv((1, 1, 64, 64), (4, 1, 5, 5)),
    Conv((4, 8, 100), (6, 8, 5)),
    Conv((2, 2, 8, 9, 20), (3, 2, 3, 3, 3)),
    Conv((4, 3, 20, 20), (5, 3, 3, 3), dtype=weft.float64),
    Conv((4, 8, 20, 20), (8, 8, 1, 1), direct=(False, False, False)),  # no window overlaps another
    Conv((4, 8, 24, 24), (8, 8, 3, 3), stride=4, direct=(False, False, False)),
    Conv((4, 8, 33, 33), (8, 8, 3, 3), stride=2, direct=(True, False, True)),  # every second element
    Conv((4, 3, 31, 26), (8, 3, 7, 7), stride=2, padding=3, direct=(True, False, True)),
    Conv((8, 16, 8, 8), (16, 16, 7, 7), direct=(True, True, False)),  # a few places only
]


@pytest.mark.parametrize("conv", CASES, ids=str)
def test_convolutions_agree_with_eager(conv):
    run = derivatives(conv)
    x, w = conv.operands()
    tolerance = 1e-11 if conv.dtype is weft.float64 else 1e-4
    for result, expected in zip(weft.compile(run)(x, w), run(x, w), strict=True):
        scale = float(abs(expected).max())
        np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("conv", CASES, ids=str)
def test_windows_are_read_in_place_where_vectors_can(conv):
    compiled = weft.compile(derivatives(conv))
    compiled(*conv.operands())
    lines = [line for line in compiled.explain().splitlines() if line.startswith("windows, ")]
    assert sum("read in place" in line for line in lines) == sum(conv.direct), lines


def test_threads_change_no_bit():
    conv = Conv((16, 6, 14, 14), (16, 6, 5, 5))
    compiled, operands = weft.compile(derivatives(conv)), conv.operands()
    before, results = weft.get_num_threads(), []
    try:
        for threads in (1, 2):
            weft.set_num_threads(threads)
            results.append([t.numpy().tobytes() for t in compiled(*operands)])
    finally:
        weft.set_num_threads(before)
    assert results[0] == results[1]


def test_one_kernel_serves_every_batch_size():
    conv = Conv((16, 6, 14, 14), (16, 6, 5, 5))
    run = derivatives(conv)
    compiled, (_, w) = weft.compile(run), conv.operands()
    for batch in (16, 12, 20, 9):
        x = weft.randn(batch, *conv.x[1:])
        for result, expected in zip(compiled(x, w), run(x, w), strict=True):
            np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=1e-3, atol=1e-3)
    text = compiled.explain()
    assert "read in place" in text and "for these sizes alone" not in text and "compiled" not in text.splitlines()[-1]


def test_a_network_of_convolutions_and_layers():
    """Features of a picture are the columns of a layer: positions of their vectors are not always seen to be runs."""
    weft.manual_seed(0)
    nn = weft.nn
    pooled = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    again = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*pooled, *again, nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10))
    x, y = weft.randn(64, 1, 28, 28), weft.arange(64) % 10
    loss = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    gradients = lambda: weft.autograd.grad(loss(), list(model.parameters()))  # noqa: E731
    for found, expected in zip(weft.compile(gradients)(), gradients(), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-5)
