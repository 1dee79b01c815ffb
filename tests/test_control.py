"""cond, while_loop and scan: eager and compiled agree, with gradients, writes and detached values."""

import numpy as np
import pytest

import weft
from weft import GradientError, ShapeError, TraceError, nn


def vector(*values, requires_grad=False):
    return weft.tensor(values or (1.0, -2.0, 3.0), dtype=weft.float64, requires_grad=requires_grad)


def same(a, b):
    if isinstance(a, weft.Tensor):
        assert (a.dtype, tuple(a.shape)) == (b.dtype, tuple(b.shape))
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        same(list(a.values()), list(b.values()))
    else:
        assert a == b


def agree(function, *signs, requires_grad=True):
    """Runs the function eager and compiled on a vector whose first element decides: values, gradients and writes must
    agree.
    """
    compiled = weft.compile(function)
    for sign in signs or (1.0, -1.0):
        found = []
        for f in (function, compiled):
            x = vector(sign, 0.5, -0.25, requires_grad=requires_grad)
            y = f(x)
            found.append((y, x, x.grad))
        same(found[1], found[0])
    assert compiled.traces == 1
    return compiled


# ---- cond ----------------------------------------------------------------------------------------------------------


def test_values_and_structures():
    def f(x):
        return weft.cond(
            x[0] > 0,
            lambda v: {"a": (v * 2, [v.sum()]), "b": v > 0},
            lambda v: {"a": (v - 1, [v.mean()]), "b": v < 0},
            (x,),
        )

    agree(f, requires_grad=False)


def test_a_python_predicate_chooses_at_once():
    f = weft.compile(lambda x, flag: weft.cond(flag, lambda: x + 1, lambda: 1 / 0))
    same(f(vector(), True), vector() + 1)


def test_gradients():
    def f(x):
        w = x * 2
        y = weft.cond(x[0] > 0, lambda v: (v * w).sin(), lambda v: v.exp() * x, (x * 3,))
        y.sum().backward()
        return y.detach()

    agree(f)


def test_gradients_from_outside():
    def f(x):
        return weft.cond(x[0] > 0, lambda v: v * v, lambda v: v * 3, (x,)).sum()

    compiled = weft.compile(f)
    for sign in (1.0, -1.0):
        grads = []
        for function in (f, compiled):
            x = vector(sign, 2.0, requires_grad=True)
            function(x).backward()
            grads.append(x.grad)
        same(*grads)


def test_second_derivatives():
    def f(x):
        y = weft.cond(x[0] > 0, lambda v: v**3, lambda v: v**2, (x,))
        (g,) = weft.autograd.grad(y.sum(), x, create_graph=True)
        (h,) = weft.autograd.grad((g * g).sum(), x)
        return g.detach(), h

    agree(f)


def test_a_branch_that_ignores_a_value_gives_zeros():
    def f(x):
        y = weft.cond(x[0] > 0, lambda: x * 2, lambda: weft.ones(3, dtype=weft.float64))
        return weft.autograd.grad(y.sum() + x.sum(), x)[0]

    agree(f)


def test_writes_in_branches():
    def f(x):
        y, z, n = x * 1, weft.zeros(3, dtype=weft.float64), weft.zeros((), dtype=weft.int64)
        view = y[1:]

        def yes():
            y.mul_(x)
            z[0] = y[1]
            n.add_(1)
            return view * 2

        def no():
            view.add_(5)
            return view.clone()

        r = weft.cond(x[0] > 0, yes, no)
        (y * y).sum().backward()
        return r.detach(), y.detach(), z.detach(), view.detach(), n, z.requires_grad, n.requires_grad

    compiled = weft.compile(f)
    for sign in (1.0, -1.0):
        found = []
        for function in (f, compiled):
            x = vector(sign, 0.5, 2.0, requires_grad=True)
            found.append((function(x)[:5], x.grad))
        same(found[1], found[0])


def test_writes_into_arguments_and_captured_tensors():
    counters = [weft.zeros((), dtype=weft.float64), weft.zeros((), dtype=weft.float64)]

    def make(count):
        def f(x):
            weft.cond(x[0] > 0, lambda: (count.add_(1), x.add_(1)) and None, lambda: None)
            return count + x

        return f

    f, g = make(counters[0]), weft.compile(make(counters[1]))
    for sign in (1.0, -1.0, 2.0):
        a, b = vector(sign), vector(sign)
        same(g(b), f(a))
        same(a, b)
    same(*counters)


def test_a_tensor_first_met_in_a_branch():
    weights = [vector(2.0, 3.0, 4.0, requires_grad=True), vector(2.0, 3.0, 4.0, requires_grad=True)]

    def make(w, buffer):
        def f(x):
            def yes():
                with weft.no_grad():
                    buffer.add_(1)
                return x * w

            return weft.cond(x[0] > 0, lambda: x * 1, yes).sum() + buffer.sum()

        return f

    f = make(weights[0], vector())
    g = weft.compile(make(weights[1], vector()))
    for sign in (1.0, -1.0):
        grads = []
        for function, w in ((f, weights[0]), (g, weights[1])):
            w.grad = None
            value = function(vector(sign, 1.0, 1.0))
            if value.requires_grad:
                value.backward()
            grads.append((value.detach(), w.grad if w.grad is not None else weft.zeros(3, dtype=weft.float64)))
        same(*grads)


def test_a_leaf_that_is_not_contiguous():
    def run(f):
        w = weft.tensor(np.asfortranarray(np.arange(6.0).reshape(2, 3))).t().clone().t().requires_grad_()
        f(vector(), w).sum().backward()
        return w.grad

    def f(x, w):
        return weft.cond(x[0] > 0, lambda: w * x, lambda: w.sum(0).expand(2, 3) * 1)

    same(run(weft.compile(f)), run(f))


@pytest.mark.parametrize("kind", ["detach", "no_grad", "outside", "both", "write"])
def test_detached_values_in_branches(kind):
    def f(x):
        h = x * 2
        outside = h.detach()

        def yes(v):
            match kind:
                case "detach":
                    return v * v.detach()
                case "no_grad":
                    with weft.no_grad():
                        scale = v.sum() * 3
                    return v * scale
                case "outside":
                    return outside * v
                case "both":
                    return h * outside + outside * outside
                case "write":
                    outside.add_(1)
                    return outside * 3

        y = weft.cond(x[0] > 0, yes, lambda v: v * 1, (h,))
        return weft.autograd.grad(y.sum() + h.sum(), x)[0], h.detach(), y.detach()

    agree(f)


def test_writes_without_gradients_in_branches():
    def f(x):
        w = x.detach() * 2

        def yes():
            with weft.no_grad():
                w.sub_(1)
            return w * x

        y = weft.cond(x[0] > 0, yes, lambda: x * 3)
        (y * w).sum().backward()
        return y.detach(), w

    agree(f)

    def g(x):
        h = x * 2

        def yes():
            h.detach().add_(1)
            return h * 2

        return weft.cond(x[0] > 0, yes, lambda: h)

    with pytest.raises(TraceError, match="written without gradients"):
        weft.compile(g)(vector(requires_grad=True))


def test_under_no_grad():
    def f(x):
        with weft.no_grad():
            y = weft.cond(x[0] > 0, lambda v: v * 2, lambda v: v * 1, (x,))
        return y, y.requires_grad

    agree(f)


def test_conds_inside_conds():
    def f(x):
        total = weft.zeros(3, dtype=weft.float64)

        def yes(v):
            return weft.cond(v.sum() > 1, lambda u: u * x, lambda u: (total.add_(u), u.exp())[1], (v,))

        y = weft.cond(x[0] > 0, yes, lambda v: v - x, (x * 2,))
        y.sum().backward()
        return y.detach(), total.detach()

    agree(f, 1.0, -1.0, 0.1)


def test_what_requires_grad_after_a_cond():
    seen, x = weft.zeros(3, dtype=weft.float64), vector(requires_grad=True)

    @weft.compile
    def f(x):
        a, b = weft.cond(
            x[0] > 0, lambda: (x * 2, (seen.add_(1), seen * 1)[1]), lambda: (x, weft.ones(3, dtype=weft.float64))
        )
        return a, b

    a, b = f(x)
    assert (a.requires_grad, b.requires_grad, seen.requires_grad) == (True, False, False)


def test_random_numbers_in_branches():
    def f(x):
        return weft.cond(x[0] > 0, lambda: weft.rand(3), lambda: weft.zeros(3)), weft.rand(2)

    compiled = weft.compile(f)
    for sign in (1.0, -1.0):
        found = []
        for function in (f, compiled):
            weft.manual_seed(7)
            found.append((function(vector(sign)), weft.rand(2)))
        same(found[1], found[0])


def test_branches_must_agree():
    for yes, no in [
        (lambda v: v, lambda v: v[:2] * 1),
        (lambda v: v, lambda v: v.float()),
        (lambda v: v, lambda v: (v,)),
        (lambda v: v, lambda v: None),
    ]:
        with pytest.raises(ShapeError, match="true_fn returns .* and false_fn .*must be equal"):
            weft.compile(lambda x, a=yes, b=no: weft.cond(x[0] > 0, a, b, (x,)))(vector())
    with pytest.raises(TraceError, match="must return tensors"):
        weft.compile(lambda x: weft.cond(x[0] > 0, lambda: 3, lambda: 4))(vector())


def test_results_that_are_tensors_from_outside():
    def f(x):
        y = weft.cond(x[0] > 0, lambda: x, lambda: x * 2)
        return y * 1

    agree(f, requires_grad=False)

    def g(x):
        weft.cond(x[0] > 0, lambda: x, lambda: x * 2).add_(1)

    with pytest.raises(TraceError, match=r"clone\(\)"):
        weft.compile(g)(vector())


def test_python_effects_of_branches_are_refused():
    net = nn.Linear(3, 3)
    net.count = 0
    items = []

    def sets_attribute(x):
        def yes():
            net.count = 5
            return x

        return weft.cond(x[0] > 0, yes, lambda: x)

    def appends(x):
        inner = []
        return weft.cond(x[0] > 0, lambda: (inner.append(1), x)[1], lambda: x)

    def rebinds(x):
        y = x

        def yes():
            nonlocal y
            y = x * 2
            return x

        return weft.cond(x[0] > 0, yes, lambda: x)

    def appends_outside(x):
        return weft.cond(x[0] > 0, lambda: (items.append(1), x)[1], lambda: x)

    for function, word in [(sets_attribute, "count"), (appends, "inner"), (rebinds, "`y`"), (appends_outside, "items")]:
        with pytest.raises(TraceError, match=word):
            weft.compile(function)(vector())
    assert net.count == 0


def test_values_of_a_branch_used_outside():
    class Box:
        pass

    def f(x):
        box = Box()

        def yes():
            y = x * 2
            holder.append(y)
            return y

        holder = nn.Module()
        holder.append = lambda v: object.__setattr__(box, "v", v)
        z = weft.cond(x[0] > 0, yes, lambda: x)
        return z + box.v

    with pytest.raises(TraceError, match="made in cond: true_fn is used outside of it"):
        weft.compile(f)(vector())


def test_gradients_cannot_be_taken_inside():
    with pytest.raises(TraceError, match="inside a branch of cond"):
        weft.compile(lambda x: weft.cond(x[0] > 0, lambda: (x.sum().backward(), x * 1)[1], lambda: x * 2))(
            vector(requires_grad=True)
        )


def test_a_failing_branch_leaves_the_trace_usable():
    def f(x):
        y = x * 1
        try:
            weft.cond(x[0] > 0, lambda: (y.add_(1), 1 / 0), lambda: x)
        except ZeroDivisionError:
            pass
        return y * 2

    same(weft.compile(f)(vector()), vector() * 2)


# ---- while_loop ----------------------------------------------------------------------------------------------------


def newton(x):
    (root, n) = weft.while_loop(
        lambda r, n: ((r * r - x.abs()).abs() > 1e-9).any(),
        lambda r, n: ((r + x.abs() / r) / 2, n + 1),
        (x.abs() + 1, weft.zeros((), dtype=weft.int64)),
    )
    return root, n


def with_writes(x):
    total, steps = weft.zeros(3, dtype=weft.float64), weft.zeros((), dtype=weft.int64)

    def body(v):
        total.add_(v)
        steps.add_(1)
        v.mul_(0.5)
        return (v + 0.1,)

    (v,) = weft.while_loop(lambda v: v.abs().sum() > 1, body, (x,))
    return v, total, steps


def zero_trips(x):
    return weft.while_loop(lambda v: v.sum() > 1e9, lambda v: (v * 2,), (x,))


def nested(x):
    def body(v, k):
        (v,) = weft.while_loop(lambda u: u.sum() < 10, lambda u: (u * 2 + 1,), (v,))
        return v * 0.1, k + 1

    return weft.while_loop(lambda v, k: k < 3, body, (x.abs(), weft.zeros((), dtype=weft.int64)))


def with_cond_and_range(x):
    def body(v, k):
        for i in weft.range(3):
            v = v * 0.9 + i
        return weft.cond(v.sum() > 5, lambda: v * 0.5, lambda: v + x), k + 1

    return weft.while_loop(lambda v, k: k < 4, body, (x * 1, weft.zeros((), dtype=weft.int64)))


def swapping(x):
    return weft.while_loop(
        lambda a, b, k: k < 5, lambda a, b, k: (b, a + b, k + 1), (x, x * 2, weft.zeros((), dtype=weft.int64))
    )


@pytest.mark.parametrize(
    "program", [newton, with_writes, zero_trips, nested, with_cond_and_range, swapping], ids=lambda p: p.__name__
)
def test_while_loops(program):
    agree(program, 1.0, -2.0, 5.0, requires_grad=False)


def test_while_loop_leaves_its_arguments_alone():
    for wrap in (lambda f: f, weft.compile):
        x = vector()
        wrap(lambda v: weft.while_loop(lambda u: u.sum() > 1, lambda u: (u.mul_(0.5),), (v,)))(x)
        same(x, vector())


def test_while_loop_errors():
    with pytest.raises(ShapeError, match="they must be equal"):
        weft.compile(lambda x: weft.while_loop(lambda v: v.sum() > 1, lambda v: (v[:2],), (x,)))(vector())
    with pytest.raises(ShapeError, match="one bool"):
        weft.compile(lambda x: weft.while_loop(lambda v: v, lambda v: (v,), (x,)))(vector())
    with pytest.raises(TraceError, match="cond_fn writes"):
        weft.compile(lambda x: weft.while_loop(lambda v: x.add_(1).sum() > 1, lambda v: (v,), (x * 1,)))(vector())
    with pytest.raises(GradientError, match="no derivative.*weft.range"):
        weft.compile(lambda x: weft.while_loop(lambda v: v.sum() > 1, lambda v: (v * x,), (x,))[0].sum().backward())(
            vector(requires_grad=True)
        )


# ---- scan ----------------------------------------------------------------------------------------------------------


def test_scan_with_gradients():
    def f(x):
        carry, ys = weft.scan(lambda c, v: ((c * v).tanh(), {"s": c + v, "p": v * v}), x.sum(), x)
        (carry + ys["s"].sum() * 2 + ys["p"].sum()).backward()
        return carry.detach(), ys["s"].detach(), ys["p"].detach()

    agree(f)


def test_scan_over_rows_of_several_tensors():
    def f(x):
        rows = weft.stack([x, x * 2, x * 3, x * 4])
        return weft.scan(lambda c, row: (c * 0.5 + row[0], c + row[1].sum()), x * 0, (rows, rows[:, :2]))

    agree(f, requires_grad=False)
