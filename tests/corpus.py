"""Programs that the tests of the whole pipeline run: each makes its own arguments and returns what is compared.

`python tests/corpus.py` prints a digest of every stage of every program: two processes must print the same.
"""

from __future__ import annotations

import hashlib
import sys

import weft
from weft import nn, optim
from weft.nn import functional as F

PROGRAMS = {}


def program(make):
    """Registers a function that gives (function to compile, its arguments, what to compare besides the result)."""
    PROGRAMS[make.__name__] = make
    return make


def leaf(*shape, dtype=weft.float32):
    return weft.randn(*shape, dtype=dtype).requires_grad_()


@program
def chain():
    def f(a, b):
        return (a * b + 2.0) / (b * b + 1.0) - (a - b).abs().sqrt()

    return f, (weft.randn(7, 5), weft.randn(7, 5)), ()


@program
def elementary():
    def f(x):
        return x.exp(), x.tanh(), x.sigmoid(), (x * x + 1).log(), x.sin() * x.cos(), weft.erf(x), F.gelu(x)

    return f, (weft.randn(300),), ()


@program
def integers():
    def f(a, b):
        return a + b, a // b, a % b, a & b, a << 2, (a > b).sum(), a.to(weft.float32) / b

    return f, (weft.arange(-20, 20), weft.arange(1, 41)), ()


@program
def reductions():
    def f(x):
        return x.sum(0), x.mean((1, 2)), x.var(-1), x.amax(1), x.argmin(2), x.prod(0), x.cumsum(1), x.logsumexp(2)

    return f, (weft.randn(3, 8, 17),), ()


@program
def sorting():
    def f(x):
        values, order = x.sort(dim=1, descending=True)
        return values, order, x.topk(3)[0], x.median(dim=0)[0]

    return f, (weft.randn(6, 20),), ()


@program
def views():
    def f(x):
        y = x.transpose(0, 1)[1:, ::2].flip(0)
        z = weft.cat([y, y * 2], 1).reshape(-1)
        return z.roll(3), z.unfold(0, 4, 2).sum(1), x.diagonal(), x[None, :, 0].expand(3, 6)

    return f, (weft.randn(6, 6),), ()


@program
def writes_through_views():
    def f(x):
        y = x.clone()
        y[1:-1].mul_(2.0)
        y.t()[0] += x[0]
        y.diagonal().zero_()
        x[:, 0] = y.sum(1)
        return y

    x = weft.randn(5, 5)
    return f, (x,), (x,)


@program
def indexing():
    def f(x, i):
        y = x[i]
        x[i] = y * 2
        x[x > 1] = 0.5
        return y, x.gather(1, i[:, None] % 3), x.index_select(0, i.abs()).sum(), x[[0, 2], 1]

    x = weft.randn(6, 4)
    return f, (x, weft.tensor([4, 0, 2, -1, 1, 3])), (x,)


@program
def gradients_through_writes():
    def f(x):
        y = x * 2
        v = y.view(2, 3)
        v.t()[1].mul_(x[:2])
        y.add_(1.0)
        (y * y).sum().backward()
        return y.detach()

    x = leaf(6)
    return f, (x,), (x, lambda: x.grad)


@program
def second_derivatives():
    def f(x):
        (g,) = weft.autograd.grad((x**3 + x.sin()).sum(), x, create_graph=True)
        (h,) = weft.autograd.grad((g * g).sum(), x)
        return g.detach(), h

    return f, (leaf(9, dtype=weft.float64),), ()


@program
def products():
    def f(a, b, v):
        return a @ b, a @ v, b.t() @ a.t(), weft.einsum("ij,kj->ik", a, a), weft.bmm(a[None], b[None])

    return f, (weft.randn(12, 7), weft.randn(7, 9), weft.randn(7)), ()


@program
def rosenbrock_loop():
    def f(x, lr, steps):
        for _ in weft.range(steps):
            value = (1.0 - x[0]) ** 2 + 5.0 * (x[1] - x[0] ** 2) ** 2
            value.backward()
            with weft.no_grad():
                x.sub_(lr * x.grad)
                x.grad.zero_()
        return value.detach()

    x = weft.tensor([-1.0, 1.0], requires_grad=True)
    return f, (x, 0.01, 40), (x,)


@program
def rebinding_loop():
    def f(a, b, n):
        for i in weft.range(n):
            a, b = b, a * 0.5 + b * 0.25 + i
        return a, b

    return f, (weft.randn(3), weft.randn(3), 9), ()


@program
def nested_loops():
    def f(x, out):
        for i in weft.range(5):
            for j in weft.range(4):
                x = x * 0.9 + 0.1
                out[i, j] = x.sum()
        return x

    out = weft.zeros(5, 4)
    return f, (weft.randn(6), out), (out,)


@program
def gradient_through_a_loop():
    def f(h, w):
        for _ in weft.range(6):
            h = (h @ w).tanh()
        h.square().sum().backward()
        return h.detach()

    h, w = leaf(2, 4, dtype=weft.float64), leaf(4, 4, dtype=weft.float64)
    return f, (h, w), (lambda: h.grad, lambda: w.grad)


@program
def branches():
    def f(x):
        y = weft.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
        (z,) = weft.while_loop(lambda v: v.abs().sum() < 50, lambda v: (v * 1.5 + 0.1,), (y,))
        return y, z

    return f, (weft.randn(5),), ()


@program
def random_numbers():
    def f(n):
        total = weft.zeros(4)
        for _ in weft.range(n):
            total += weft.rand(4) + weft.randint(0, 9, (4,))
        return total, weft.randperm(30), weft.bernoulli(weft.full((9,), 0.5))

    return f, (5,), ()


def training(model, loss_of, optimizer, *data, steps=3):
    def f(*inputs):
        for _ in weft.range(steps):
            loss = loss_of(model, *inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach()

    return f, data, tuple(model.parameters())


@program
def perceptron_with_sgd():
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    steps = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    return training(model, lambda m, x, y: F.mse_loss(m(x), y), steps, weft.randn(20, 5), weft.randn(20, 1))


@program
def classifier_with_adam():
    model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 4))
    steps = optim.Adam(model.parameters(), lr=0.01)
    x, y = weft.randn(15, 6), weft.randint(0, 4, (15,))
    return training(model, lambda m, x, y: F.cross_entropy(m(x), y), steps, x, y)


@program
def embedding_with_adamw():
    model = nn.Sequential(nn.Embedding(10, 8), nn.Dropout(0.25), nn.Tanh(), nn.Linear(8, 2), nn.Sigmoid())
    steps = optim.AdamW(model.parameters(), lr=0.01)
    tokens, target = weft.randint(0, 10, (12,)), weft.rand(12, 2)
    return training(model, lambda m, x, y: F.l1_loss(m(x), y) + F.binary_cross_entropy(m(x), y), steps, tokens, target)


@program
def convolution():
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 2))
    steps = optim.SGD(model.parameters(), lr=0.1)
    return training(model, lambda m, x: m(x).square().mean(), steps, weft.randn(2, 1, 8, 8))


@program
def batch_norm():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Softmax(dim=1))
    steps = optim.SGD(model.parameters(), lr=0.1)
    f, data, state = training(model, lambda m, x: m(x)[:, 0].sum(), steps, weft.randn(9, 4))
    return f, data, (*state, *model.buffers())


@program
def softmax_of_layer_norm():
    def f(x, w):
        F.softmax(F.layer_norm(x, (16,)) @ w, dim=1)[:, 0].sum().backward()
        return ()

    x, w = leaf(10, 16), leaf(16, 5)
    return f, (x, w), (lambda: x.grad, lambda: w.grad)


@program
def black_scholes():
    def f(s, k, t):
        d = ((s / k).log() + (0.05 + 0.02) * t) / (0.2 * t.sqrt())
        price = s * (0.5 + 0.5 * weft.erf(d / 1.4142135)) - k * (-0.05 * t).exp() * (0.5 + 0.5 * weft.erf(d / 1.5))
        return price, *weft.autograd.grad(price.sum(), (s, t))

    s, t = (weft.rand(50).mul_(2).add_(1).requires_grad_() for _ in range(2))
    return f, (s, weft.rand(50) + 1, t), ()


@program
def stencil():
    def f(u, n):
        for _ in weft.range(n):
            u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
        return u.sum()

    u = weft.randn(9, 9)
    return f, (u, 6), (u,)


@program
def empty_and_single():
    def f(e, s):
        joined = weft.cat([e, s.view(1, 1).expand(1, 4)]), weft.stack([e, e], 1), F.pad(e, (1, 1)).t().softmax(1)
        return e * 2, e.sum(), e.softmax(0), *joined, e.t() @ e, s.sum(), (s * s).view(1, 1) @ s.view(1, 1)

    return f, (weft.zeros(0, 4), weft.randn(1)), ()


@program
def selections():
    def f(x):
        m = x > 0
        return (
            weft.where(m, x, -x * 2),
            weft.maximum(x, x.flip(0)),
            x.masked_fill(m, 3.0),
            weft.nan_to_num(x / (x * 0)),
            weft.tril(x) - weft.triu(x, 1),
            x.sign() * x.trunc(),
        )

    return f, (weft.randn(4, 4) * 3,), ()


@program
def arguments_of_one_memory():
    def f(a, b):
        a.add_(b)
        b[1:].mul_(a[:-1])
        return a * b

    s = weft.randn(12, dtype=weft.float64)
    return f, (s[:8], s[4:]), (s,)


@program
def two_buffers():
    def f(x, y, n):
        current, following = x, y
        for i in weft.range(n):
            following.copy_(current * 0.5 + i)
            current, following = following, current
        return current.clone()

    x, y = weft.randn(4), weft.zeros(4)
    return f, (x, y, 9), (x, y)


@program
def delays_and_rows():
    def f(x, n):
        out, a, b = weft.zeros(12, 4), x, x * 0.5
        for i in weft.range(n):
            row = out[i]
            row += a
            row[1:].mul_(b[1:] * i)
            a, b = b, a * 0.25 + row
        return out, a, b

    return f, (weft.randn(4), 7), ()


@program
def writes_of_branches():
    def f(x):
        total = x.detach() * 0

        def yes(v):
            total.add_(v.detach())
            return v.sin() * x

        y = weft.cond(x.sum() > 0, yes, lambda v: v.exp() * x, (x * 2,))
        z = weft.cond(x.sum() < 0, yes, lambda v: v.exp() * x, (x * 2,))
        (y * z).sum().backward()
        return y.detach(), z.detach(), total

    x = leaf(5, dtype=weft.float64)
    return f, (x,), (lambda: x.grad,)


@program
def scan():
    def f(x):
        carry, ys = weft.scan(lambda c, v: ((c * v).tanh(), c + v), x[0], x)
        (carry.sum() + (ys * ys).sum()).backward()
        return ys.detach()

    x = leaf(4, 3, dtype=weft.float64)
    return f, (x,), (lambda: x.grad,)


@program
def rows_of_a_recurrence():
    def f(x):
        h, out = x, weft.zeros(6, 3, dtype=weft.float64)
        for i in weft.range(6):
            h = (h * x).cos() + i
            out[i] = h
        (out * out).sum().backward()
        return out.detach()

    x = leaf(3, dtype=weft.float64)
    return f, (x,), (lambda: x.grad,)


@program
def function_transforms():
    def loss(w, x):
        return ((x @ w["a"]).tanh() @ w["b"]).square().mean()

    def f(w, x):
        value, g = weft.value_and_grad(loss)(w, x)
        return value, *(w[k] - 0.1 * g[k] for k in w)

    return f, ({"a": weft.randn(3, 4), "b": weft.randn(4, 2)}, weft.randn(5, 3)), ()


@program
def losses():
    def f(x, y):
        values = [
            F.mse_loss(x, y),
            F.smooth_l1_loss(x, y),
            F.binary_cross_entropy_with_logits(x, y.sigmoid()),
            F.cross_entropy(x, weft.tensor([0, 3, 1]), label_smoothing=0.1),
            F.log_softmax(x, 1).exp().sum(),
        ]
        sum(values).backward()
        return [v.detach() for v in values]

    x = leaf(3, 4)
    return f, (x, weft.randn(3, 4)), (lambda: x.grad,)


@program
def attention():
    def f(x, w):
        q, k, v = (x @ w).chunk(3, -1)
        scores = (q @ k.transpose(-2, -1)) / 2.0
        y = scores.masked_fill(weft.ones(5, 5).triu(1) > 0, float("-inf")).softmax(-1) @ v
        y.square().mean().backward()
        return y.detach()

    w = leaf(4, 12)
    return f, (weft.randn(2, 5, 4), w), (lambda: w.grad,)


@program
def writes_of_gradients():
    """Gradient descent with a momentum kept by the program, clipped by a norm."""

    def f(x, velocity, n):
        for _ in weft.range(n):
            ((1.0 - x[0]) ** 2 + 5.0 * (x[1] - x[0] ** 2) ** 2).backward()
            with weft.no_grad():
                g = x.grad * weft.minimum(1.0 / x.grad.norm(), weft.ones(()))
                velocity.mul_(0.9).add_(g)
                x.sub_(0.01 * velocity)
            x.grad = None
        return ()

    x, velocity = weft.tensor([-1.0, 1.0], dtype=weft.float64, requires_grad=True), weft.zeros(2, dtype=weft.float64)
    return f, (x, velocity, 20), (x, velocity)


def digest():
    """One line a program: its name and a hash of its texts at every stage."""
    for name, make in PROGRAMS.items():
        weft.manual_seed(0)
        function, arguments, _ = make()
        compiled = weft.compile(function)
        compiled(*arguments)
        texts = "\n".join(compiled.ir(stage) for stage in ("traced", "optimized", "fused", "kernels", "plan"))
        print(name, hashlib.sha256(f"{texts}\n{compiled.source()}".encode()).hexdigest())


if __name__ == "__main__":
    digest()
    sys.exit()
