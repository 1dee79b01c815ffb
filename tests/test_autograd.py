"""Eager autograd: torch's surface, in-place writes and views under gradients, versions, and that nothing leaks."""

import gc
import weakref

import numpy as np
import pytest

import weft
from weft import GradientError

try:
    import torch
except ImportError:
    torch = None


def leaf(*values, dtype=weft.float64):
    return weft.tensor(values[0] if len(values) == 1 else list(values), dtype=dtype, requires_grad=True)


def close(a, b, rtol=1e-12):
    np.testing.assert_allclose(a.detach().numpy() if isinstance(a, weft.Tensor) else a, b, rtol=rtol, atol=1e-12)


# ---- the book's chapter 4, and the plain surface ---------------------------------------------------------------------


def test_the_numbers_of_chapter_4():
    x1, x2 = weft.tensor(2.0, requires_grad=True), weft.tensor(2.0, requires_grad=True)
    x3, x4 = x1.square(), x2.square()
    x5, x6 = x3 * 0.2, x4 * 0.2
    for x in (x3, x4, x5, x6):
        x.retain_grad()
    x7 = x5 + x6 - 5
    assert x7.item() == pytest.approx(-3.4, rel=1e-6)
    x7.backward()
    assert x1.grad.item() == pytest.approx(0.8, rel=1e-6) and x2.grad.item() == pytest.approx(0.8, rel=1e-6)
    assert [x.grad.item() for x in (x3, x4, x5, x6)] == pytest.approx([0.2, 0.2, 1, 1], rel=1e-6)
    assert [str(x.grad_fn).split()[0].strip("<>") for x in (x3, x5, x7)] == [
        "PowBackward0",
        "MulBackward0",
        "SubBackward0",
    ]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: x + x, "AddBackward0"),
        (lambda x: x - x, "SubBackward0"),
        (lambda x: x * x, "MulBackward0"),
        (lambda x: x / x, "DivBackward0"),
        (lambda x: x**3, "PowBackward0"),
        (lambda x: -x, "NegBackward0"),
        (lambda x: x.exp(), "ExpBackward0"),
        (lambda x: x.sum(), "SumBackward0"),
        (lambda x: x.sum(0), "SumBackward1"),
        (lambda x: x.mean(), "MeanBackward0"),
        (lambda x: x @ x, "MmBackward0"),
        (lambda x: x.t(), "TBackward0"),
        (lambda x: x.transpose(0, 1), "TransposeBackward0"),
        (lambda x: x.view(4), "ViewBackward0"),
        (lambda x: x[0], "SelectBackward0"),
        (lambda x: x[0:1], "SliceBackward0"),
        (lambda x: x.relu(), "ReluBackward0"),
        (lambda x: x.tanh(), "TanhBackward0"),
        (lambda x: x.sigmoid(), "SigmoidBackward0"),
        (lambda x: x.clone(), "CloneBackward0"),
        (lambda x: weft.cat([x, x]), "CatBackward0"),
        (lambda x: weft.where(x > 0, x, x), "WhereBackward0"),
        (lambda x: weft.nn.functional.linear(x, x, x[0]), "AddmmBackward0"),
    ],
)
def test_grad_fn_names(make, name):
    y = make(weft.ones(2, 2, requires_grad=True))
    assert repr(y.grad_fn).startswith(f"<{name}")


def test_gradients_accumulate_in_place():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    close(first, [2, 4])
    (x * 3).sum().backward()
    assert x.grad is first
    close(first, [5, 7])
    x.grad = None
    (x * 3).sum().backward()
    close(x.grad, [3, 3])


def test_two_leaves_never_share_their_gradient_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    assert a.grad.data_ptr() != b.grad.data_ptr()
    a.grad.zero_()
    close(b.grad, [1, 1])
    c, d = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (c + d).sum().backward(create_graph=True)
    with weft.no_grad():
        c.grad.zero_()
    close(d.grad, [1, 1])


def test_a_given_gradient_is_not_taken_over():
    x, g = leaf(1.0, 2.0), weft.tensor([1.0, 2.0], dtype=weft.float64)
    x.clone().backward(g)
    x.grad.zero_()
    close(g, [1, 2])


def test_gradient_argument():
    x = leaf(1.0, 2.0)
    y = x * x
    y.backward(weft.tensor([1.0, 10.0], dtype=weft.float64))
    close(x.grad, [2, 40])
    with pytest.raises(GradientError, match="scalar outputs"):
        (x * x).backward()
    with pytest.raises(weft.ShapeError, match=r"\[3\].*\[2\]"):
        (x * x).backward(weft.ones(3))


def test_backward_of_several_roots():
    x = leaf(1.0, 2.0)
    weft.autograd.backward([(x * x).sum(), x * 3], [None, weft.tensor([1.0, 2.0], dtype=weft.float64)])
    close(x.grad, [2 + 3, 4 + 6])


def test_the_graph_is_freed_unless_retained():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, [4, 8])
    with pytest.raises(GradientError, match="second time.*retain_graph=True"):
        y.backward()


def test_operations_that_save_nothing_can_be_walked_again():
    x = leaf(1.0, 2.0)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    close(x.grad, [2, 2])


def test_only_what_was_walked_is_freed():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a, b = x * x, w * w
    loss = (a + b).sum()
    loss.backward(inputs=[x])
    assert w.grad is None
    close(x.grad, [2, 4])
    b.sum().backward()
    close(w.grad, [6, 8])


def test_inputs_argument_with_an_intermediate_value():
    x = leaf(1.0, 2.0)
    y = x * 2
    (gradient,) = weft.autograd.grad((y * y).sum(), y)
    close(gradient, [4, 8])
    assert x.grad is None


def test_grad_of_an_intermediate_value_leaves_what_made_it_alone():
    x = leaf(1.0, 2.0)
    y = x * x
    weft.autograd.grad((y * y).sum(), y)
    y.sum().backward()
    close(x.grad, [2, 4])


def test_grad_returns_none_only_when_allowed():
    x, z = leaf(1.0, 2.0), leaf(1.0)
    y = (x * x).sum()
    with pytest.raises(GradientError, match="allow_unused"):
        weft.autograd.grad(y, [x, z], retain_graph=True)
    got = weft.autograd.grad(y, [x, z], allow_unused=True)
    close(got[0], [2, 4])
    assert got[1] is None
    assert x.grad is None


def test_third_derivative():
    x = leaf(2.0)
    y = (x**4).sum()
    expected = [4 * 8.0, 12 * 4.0, 24 * 2.0]
    for value in expected:
        (y,) = weft.autograd.grad(y, x, create_graph=True)
        close(y, [value] if y.ndim else value)
    assert y.requires_grad


def test_grad_outputs_can_be_differentiated():
    x, v = leaf(1.0, 2.0), leaf(3.0, 5.0)
    (g,) = weft.autograd.grad(x**3, x, grad_outputs=v, create_graph=True)
    g.sum().backward()
    close(v.grad, [3, 12])
    close(x.grad, [6 * 1 * 3, 6 * 2 * 5])


def test_double_backward_through_grad_slots():
    x = leaf(1.0, 2.0)
    (x**3).sum().backward(create_graph=True)
    gradient = x.grad
    x.grad = None
    gradient.sum().backward()
    close(x.grad, [6, 12])


def test_grad_without_create_graph_cannot_be_differentiated():
    x = leaf(1.0, 2.0)
    (g,) = weft.autograd.grad((x**3).sum(), x)
    assert not g.requires_grad and g.grad_fn is None


@pytest.mark.parametrize("name", ["backward", "grad"])
def test_no_gradient_recorded(name):
    y = weft.ones(2).sum()
    with pytest.raises(GradientError, match="does not require grad"):
        y.backward() if name == "backward" else weft.autograd.grad(y, weft.ones(2))


# ---- modes, flags, hooks ---------------------------------------------------------------------------------------------


def test_requires_grad_is_inherited_and_checked():
    x = leaf(1.0)
    y = x * 2
    assert y.requires_grad and not y.is_leaf and x.is_leaf
    assert not (x > 0).requires_grad
    with pytest.raises(GradientError, match="leaf variables"):
        y.requires_grad = False
    with pytest.raises(GradientError, match="floating point"):
        weft.tensor([1, 2]).requires_grad_()
    assert not weft.ones(2).requires_grad_(False).requires_grad


def test_grad_modes_nest_and_survive_exceptions():
    x = leaf(1.0)
    with pytest.raises(ValueError), weft.no_grad():
        assert not (x * 2).requires_grad
        with weft.enable_grad():
            assert (x * 2).requires_grad
        raise ValueError
    assert weft.is_grad_enabled() and (x * 2).requires_grad

    @weft.no_grad()
    def quiet(v):
        return v * 2

    assert not quiet(x).requires_grad
    with weft.set_grad_enabled(False):
        assert not weft.is_grad_enabled()
    assert weft.is_grad_enabled()


def test_grad_mode_is_restored_when_backward_fails():
    x = leaf(1.0)
    y = x * x
    y.sum().backward()
    with pytest.raises(GradientError):
        y.sum().backward()
    assert weft.is_grad_enabled()


def test_detach_shares_memory_and_cuts():
    x = leaf(1.0, 2.0)
    y = x * 2
    d = y.detach()
    assert d.data_ptr() == y.data_ptr() and not d.requires_grad and d.is_leaf
    (y * d).sum().backward()
    close(x.grad, [4, 8])
    z = x * 3
    z.detach_()
    assert z.is_leaf and not z.requires_grad
    with pytest.raises(GradientError, match="view"):
        (x * 1)[0:1].detach_()


def test_data_shares_memory_without_gradient():
    x = leaf(1.0, 2.0)
    x.data.mul_(10)
    close(x, [10, 20])
    x.data = weft.tensor([5.0, 6.0], dtype=weft.float64)
    close(x, [5, 6])
    assert x.requires_grad and x.is_leaf


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * x
    y.retain_grad()
    assert y.retains_grad
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    close(y.grad, [2, 2])
    close(x.grad, [4, 8])
    x.retain_grad()
    assert not x.retains_grad
    with pytest.raises(GradientError, match="retain_grad"):
        weft.ones(2).retain_grad()


def test_retain_grad_follows_in_place_writes():
    x = leaf(1.0, 2.0)
    y = x * 1
    y.retain_grad()
    y.mul_(3)
    (y * y).sum().backward()
    close(y.grad, [6, 12])


def test_hooks_of_leaves():
    x = leaf(0.0, 2.0)
    seen = []
    first = x.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10)
    (x * x).sum().backward()
    assert seen == [[0.0, 4.0]]
    close(x.grad, [0, 40])
    first.remove()
    first.remove()
    x.grad = None
    (x * x).sum().backward(inputs=[x])
    assert len(seen) == 1
    close(x.grad, [0, 40])


def test_hooks_of_intermediate_values():
    x = leaf(1.0, 2.0)
    y = x * x
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()) or g * 2)
    loss = (y * 3).sum() + y.sum()
    loss.backward(retain_graph=True)
    assert seen == [[4.0, 4.0]]
    close(x.grad, [16, 32])
    handle.remove()
    x.grad = None
    loss.backward()
    close(x.grad, [8, 16])


def test_requires_grad_can_be_switched_off_for_a_while():
    x = leaf(1.0, 2.0)
    x.requires_grad_(False)
    x.add_(1)
    assert not (x * 2).requires_grad
    x.requires_grad_()
    (x * x).sum().backward()
    close(x.grad, [4, 6])


# ---- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overwrite",
    [lambda y: y.zero_(), lambda y: y[0:1].fill_(3), lambda y: y.detach().add_(1), lambda y: y.view(2, 1).mul_(2)],
)
def test_overwritten_saved_value(overwrite):
    x = leaf(1.0, 2.0)
    y = x * 2
    z = (y * y).sum()
    with weft.no_grad():
        overwrite(y)
    with pytest.raises(
        GradientError,
        match=r"modified by an inplace operation.*f64\[2\].*MulBackward0.*"
        r"version 1; expected version 0.*test_autograd.py:\d+",
    ):
        z.backward()


def test_overwriting_what_nobody_saved_is_allowed():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = (y + 1).sum()
    with weft.no_grad():
        y.zero_()
    z.backward()
    close(x.grad, [2, 2])


def test_a_broadcast_operand_is_checked_too():
    x, y = leaf([[1.0, 2.0]]), leaf(3.0, 4.0)
    b = y * 1
    z = (x.expand(3, 2) * b).sum()
    with weft.no_grad():
        b.zero_()
    with pytest.raises(GradientError, match="modified by an inplace operation"):
        z.backward()


def test_saved_results_are_checked():
    x = leaf(1.0, 2.0)
    y = x.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(GradientError, match="ExpBackward0"):
        z.backward()


def test_a_value_saved_after_the_write_is_fine():
    x = leaf(1.0, 2.0)
    y = x * 1
    y.add_(1)
    (y * y).sum().backward()
    close(x.grad, [4, 6])


# ---- writes under gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x[0:1].zero_(),
        lambda x: x.view(1, 2).mul_(2),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x.t().add_(1),
    ],
)
def test_a_leaf_that_requires_grad_cannot_be_written(write):
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="leaf Variable that requires grad is being used in an in-place operation"):
        write(x)
    close(x, [1, 2])
    with weft.no_grad():
        write(x)
    assert x.is_leaf and x.requires_grad


def test_a_view_can_be_a_leaf():
    w = weft.arange(6.0).reshape(2, 3).requires_grad_()
    assert w.is_leaf and w.requires_grad
    with pytest.raises(GradientError, match="leaf Variable"):
        w.add_(1)
    for _ in range(2):
        w.grad = None
        (w * w).sum().backward()
        assert w.requires_grad and w.is_leaf
        with weft.no_grad():
            w.sub_(0.5 * w.grad)
    assert w.requires_grad and w.is_leaf
    close(w, np.zeros((2, 3)))


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize(
    "make",
    [lambda x: x[:2].expand(3, 2), lambda x: x.as_strided((2, 2), (0, 1)), lambda x: x.as_strided((2, 3), (1, 1))],
)
def test_a_write_through_overlapping_elements_is_refused(make, tracked):
    x = weft.zeros(4, requires_grad=tracked).clone()
    with pytest.raises(GradientError, match=r"single\s+memory location"):
        make(x).add_(1)
    close(x, np.zeros(4))


def test_strides_that_interleave_do_not_overlap():
    x = weft.zeros(8)
    x.as_strided((3, 2), (2, 3)).add_(1)
    close(x, [1, 0, 1, 1, 1, 1, 0, 1])


def test_an_expansion_that_repeats_nothing_can_be_written():
    x = leaf([[1.0, 2.0]])
    y = x * 1
    y.expand(1, 2).mul_(3)
    y.sum().backward()
    close(x.grad, [[3, 3]])


def test_views_made_under_no_grad():
    x = leaf(1.0, 2.0)
    y = x * 1
    with weft.no_grad():
        v = y[0:1]
    assert not v.requires_grad
    with pytest.raises(GradientError, match="created in no_grad mode"):
        v.mul_(x[0:1])
    close(y, [1, 2])


def test_overwriting_with_a_constant_keeps_requires_grad():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.zero_()
    assert y.requires_grad and not y.is_leaf
    (y + x).sum().backward()
    close(x.grad, [1, 1])


def test_writing_a_tracked_value_into_a_plain_tensor():
    x, buffer = leaf(1.0, 2.0), weft.zeros(4, dtype=weft.float64)
    view = buffer[1:3]
    assert not view.requires_grad
    buffer[0:2] = x * 3
    assert buffer.requires_grad and not buffer.is_leaf and view.requires_grad
    (view * view).sum().backward()
    close(x.grad, [0, 2 * 6 * 3])


def slices(m, x):
    y = x * 1
    y[0] = y[1] * 2
    y[:, 1] *= x[:, 0]
    return y


def chain(m, x):
    y = x * x
    v = y.t()[1:]
    v.mul_(y.t()[:-1].clone())
    v[0].add_(x[:, 0])
    return y


def through_view(m, x):
    y = x * 1
    v = y.view(-1)
    w = v[1:-1]
    w.mul_(3)
    v[0:2].add_(w[0:2].clone() * x[0, 0])
    return y * v.view(y.shape)


def base_then_view(m, x):
    y = x * 1
    v = y[1:]
    y.mul_(x)
    return v * v


def view_then_base(m, x):
    y = x * 1
    v = y.transpose(0, 1)
    v.mul_(2)
    y.add_(v.t().clone() * x)
    return v * y.t()


def diagonal(m, x):
    y = x * 1
    y.diagonal().mul_(x[0, :2])
    return y * y


def strided(m, x):
    y = x * 1
    y.as_strided((2, 2), (1, 2), 1).mul_(x.view(-1)[:4].view(2, 2))
    return y * y


def selected(m, x):
    y = x * x
    first, *rest = [y.select(1, k) for k in range(3)]
    for r in rest:
        r.mul_(first.clone())
    return y


def narrowed(m, x):
    y = x * 1
    y.narrow(1, 0, 2).copy_(x.narrow(1, 1, 2) * 5)
    y.squeeze().unsqueeze(0).add_(1)
    return y * x


def written_twice(m, x):
    y = x * 0
    y[0] = x[0] * 2
    y[0] = x[1] * 3
    return y


def masked(m, x):
    y = x * 1
    y[x > 0.5] = y[x > 0.5] * x[x > 0.5]
    y.masked_fill_(x < 0, 2.0)
    return y * y


def indexed(m, x):
    y, k = x * 1, m.tensor([2, 0])
    y[:, k] = y[:, k] * x[:, :2]
    y[0].index_add_(0, k, x[1, :2])
    return y * y


def into_fresh(m, x):
    out = m.zeros(3, 2, 3, dtype=x.dtype)
    for k in range(3):
        out[k] = x * (k + 1)
        out[k, 0] += x[1]
    return out * out


def swapped(m, x):
    y = x * 1
    a, b = y[0], y[1]
    t = a.clone()
    a.copy_(b.clone() * x[0])
    b.copy_(t * x[1])
    return y * y


def overlapping_copy(m, x):
    y = x * 1
    y.view(-1)[1:] = y.view(-1)[:-1].clone() * x.view(-1)[1:]
    return y


def of_a_view_of_a_leaf(m, x):
    y = x[:, :2]
    return (y * 2).t().reshape(-1).view(2, 2)[0].expand(2, 2) * y


def chained_functions(m, x):
    return (x * 1).mul_(2).add_(x).sin_().clamp_(0.1, 1.2).addcmul_(x, x, value=0.5).exp_()


WRITES = [
    slices,
    chain,
    through_view,
    base_then_view,
    view_then_base,
    diagonal,
    strided,
    selected,
    narrowed,
    written_twice,
    masked,
    indexed,
    into_fresh,
    swapped,
    overlapping_copy,
    of_a_view_of_a_leaf,
    chained_functions,
]
X = np.array([[0.3, -1.2, 0.7], [1.1, 0.4, -0.6]])


@pytest.mark.parametrize("program", WRITES, ids=lambda p: p.__name__)
def test_gradients_of_writes_agree_with_differences(program):
    weights = np.cos(np.arange(36.0))

    def value(array):
        y = program(weft, weft.tensor(array))
        return float((y.numpy().reshape(-1) * weights[: y.numel()]).sum())

    x = weft.tensor(X, requires_grad=True)
    y = program(weft, x)
    (y.reshape(-1) * weft.tensor(weights[: y.numel()])).sum().backward()
    numeric = np.zeros_like(X)
    for k in np.ndindex(*X.shape):
        step = np.zeros_like(X)
        step[k] = 1e-6
        numeric[k] = (value(X + step) - value(X - step)) / 2e-6
    np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("program", WRITES, ids=lambda p: p.__name__)
def test_writes_agree_with_torch(program):
    def run(m):
        x = m.tensor(X, requires_grad=True)
        y = program(m, x)
        (g,) = m.autograd.grad((y * y).sum(), x, create_graph=True)
        (h,) = m.autograd.grad((g * g).sum(), x)
        return [t.detach().numpy() for t in (y, g, h)]

    for a, b in zip(run(weft), run(torch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


# ---- life times ------------------------------------------------------------------------------------------------------


def test_a_tape_dies_with_its_tensors_without_the_collector():
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        middle = x.exp()
        y = (middle * middle).sum()
        watched = [weakref.ref(t) for t in (x, middle, y, y.grad_fn, middle.grad_fn)]
        y.backward(retain_graph=True)
        del x, middle, y
        assert [w() for w in watched] == [None] * 5
    finally:
        gc.enable()


def test_a_training_loop_leaves_nothing_behind():
    w = leaf(1.0, 2.0)

    def step():
        x = leaf(0.5, 0.5)
        loss = ((x * w) ** 2).sum()
        loss.backward()
        with weft.no_grad():
            w.sub_(0.1 * w.grad)
        w.grad = None

    step()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            step()
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()


def test_a_long_tape_can_be_walked_and_dropped():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y * 1.0
    y.sum().backward()
    close(x.grad, np.ones_like(x.detach().numpy()))
    del y
