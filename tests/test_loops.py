"""weft.range in compiled functions: one native loop with the meaning of the plain loop, or an error that says why
not.
"""

import collections
import itertools
import os
import signal
import threading
import types

import numpy as np
import pytest

import weft
from weft import GradientError, TraceError, nn, optim


def vector(*values):
    return weft.tensor(values or (1.0, 2.0, 3.0), dtype=weft.float64)


def same(a, b):
    if isinstance(a, weft.Tensor):
        assert (a.dtype, tuple(a.shape), a.requires_grad) == (b.dtype, tuple(b.shape), b.requires_grad)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-300)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == pytest.approx(b)


def agree(function, make=lambda: (vector(),), trips=(5,), traces=1, loops=1):
    """Calls the function eager and compiled with each number of trips after its other arguments; results and arguments
    must agree."""
    compiled = weft.compile(function)
    for n in trips:
        eager_args, args = make(), make()
        same(compiled(*args, n), function(*eager_args, n))
        same(args, eager_args)
        for a, b in zip(args, eager_args, strict=True):
            same(getattr(a, "grad", None), getattr(b, "grad", None))
    assert compiled.traces == traces
    if loops is not None:
        assert compiled.ir("traced").count("= loop ") == loops
    return compiled


# ---- state that an iteration hands to the next -----------------------------------------------------------------------


def mutate(x, n):
    for _ in weft.range(n):
        x.mul_(0.5).add_(1)
    return x


def rebind(x, n):
    for _ in weft.range(n):
        x = x * 0.5 + 1
    return x


def both(x, n):
    total = weft.zeros_like(x)
    y = x * 2
    for _ in weft.range(n):
        total += y
        y = y * 0.5 + total[0]
        x[1:] = y[:-1]
    return total, y


def fibonacci(x, n):
    a, b = x, x * 2
    for _ in weft.range(n):
        a, b = b, a + b
    return a, b


def swap(x, n):
    a, b = x, x * 2
    for _ in weft.range(n):
        a, b = b * 0.5, a
    return a, b


def delayed(x, n):
    a = b = c = x
    for _ in weft.range(n):
        c = b
        b = a
        a = a * 1.5
    return a, b, c


def cycle_with_work(x, n):
    a, b, c = x, x * 2, x * 3
    for _ in weft.range(n):
        a, b, c = b + 1, c, a
    return a, b, c


def pure_swap(x, n):
    a, b = x, x * 2
    for _ in weft.range(n):
        a, b = b, a
    return a, b


def cycle(x, n):
    a, b, c = x, x * 2, x * 3
    for _ in weft.range(n):
        a, b, c = b, c, a
    return a, b, c


def in_a_tuple(x, n):
    state = (x, x * 2)
    for _ in weft.range(n):
        h, c = state
        state = (c * 0.5, h + c)
    return state


def swap_in_a_tuple(x, n):
    state = (x, x * 2)
    for _ in weft.range(n):
        state = (state[1], state[0] + state[1])
    return state


def in_a_list(x, n):
    state = [x, x * 2]
    for _ in weft.range(n):
        state[0], state[1] = state[1], state[0] + state[1]
    return state


def in_a_dict(x, n):
    state = {"h": x, "c": x * 2}
    for _ in weft.range(n):
        state = {"h": state["c"] * 0.5, "c": state["h"]}
    return state["h"], state["c"]


def in_an_object(x, n):
    state = types.SimpleNamespace(h=x, previous=x * 3)
    for _ in weft.range(n):
        state.previous = state.h
        state.h = state.h * 0.5 + 1
    return state.h, state.previous


def through_a_cell(x, n):
    def step():
        nonlocal x, y
        x, y = y * 0.5, x

    y = x * 2
    for _ in weft.range(n):
        step()
    return x, y


def parameters_as_a_list(x, n):
    params = [x, x * 2]
    for _ in weft.range(n):
        params = [p - 0.1 * p for p in params]
    return params


def numbers(x, n):
    lr, kept = n * 0.5, n * 0.25
    for _ in weft.range(n):
        x = x * lr
        lr, kept = lr * 0.9, lr
    return x, x * lr * kept


def double_buffer(x, n):
    current, following = x, weft.zeros_like(x)
    for _ in weft.range(n):
        following.copy_(current * 0.5 + 1)
        current, following = following, current
    return current, following


def changes_dtype(x, n):
    total = weft.arange(3)
    for _ in weft.range(n):
        total = total * 0.5 if total.dtype == weft.int64 else (total * 4).long()
    return total.double()


def views_of_state(x, n):
    row = x[0:2]
    for _ in weft.range(n):
        row.mul_(2)
        x[1:] += row
    return row, x.flip(0)


def view_made_inside(x, n):
    for _ in weft.range(n):
        v = x[1:]
        v.mul_(2)
        x[:2].sub_(v)
    return v


def made_inside(x, n):
    for i in weft.range(n):
        buffer = weft.zeros(2, 3, dtype=weft.float64)
        buffer[0] = x
        buffer[1] += i
        x = buffer.sum(0) * 0.5
    return x, buffer


def unchanged_names(x, n):
    constant = x * 2
    for _ in weft.range(n):
        y = constant + 1
        z = y
    return y, z, constant


def empty(x, n):
    for _ in weft.range(n):
        pass
    return x


CARRIES = [
    mutate,
    rebind,
    both,
    fibonacci,
    swap,
    delayed,
    cycle_with_work,
    in_a_tuple,
    swap_in_a_tuple,
    in_a_list,
    in_a_dict,
    in_an_object,
    through_a_cell,
    parameters_as_a_list,
    numbers,
    views_of_state,
    view_made_inside,
    made_inside,
    unchanged_names,
]


@pytest.mark.parametrize("program", CARRIES, ids=lambda p: p.__name__)
def test_state(program):
    agree(program, trips=(5, 9, 4, 3, 6))


@pytest.mark.parametrize("program", [pure_swap, cycle, double_buffer, empty, changes_dtype], ids=lambda p: p.__name__)
@pytest.mark.parametrize("trips", [1, 2, 3, 4, 5, 6, 7, 12, 13, 14])
def test_state_that_needs_care(program, trips):
    agree(program, trips=(trips,), loops=None)


@pytest.mark.parametrize("program", [double_buffer, cycle, pure_swap], ids=lambda p: p.__name__)
def test_state_that_needs_care_with_changing_trips(program):
    agree(program, trips=(9, 10, 11, 12, 13, 9), traces=pytest.approx(3, abs=3), loops=None)


@pytest.mark.parametrize("program", [mutate, rebind, both, fibonacci, delayed], ids=lambda p: p.__name__)
def test_few_trips(program):
    compiled = weft.compile(program)
    for n in (0, 1, 2, 3, 0, 1, 7, 2):
        a, b = vector(), vector()
        same(compiled(a, n), program(b, n))
        same(a, b)
    assert compiled.traces <= 5


def test_a_constant_number_of_trips():
    for n in (0, 1, 2, 3, 8, 9, 100):
        agree(lambda x, _, n=n: rebind(x, n), trips=(0,), loops=int(n > 1))


def test_trips_from_a_shape_and_from_arithmetic():
    def f(x, n):
        for _ in weft.range(x.shape[0]):
            x = x * 2
        for _ in weft.range(n * 2 + 1):
            x = x - 1
        return x

    agree(f, trips=(4, 7), loops=2)


@pytest.mark.parametrize(
    "bounds", [(0, 9, 1), (2, 9, 1), (2, 9, 3), (9, 1, -2), (-3, 4, 2), (5, 5, 1), (0, -4, 1), (0, 7, 7)]
)
def test_start_and_step(bounds):
    def f(x, start, stop, step):
        seen = weft.zeros(20, dtype=weft.float64)
        for i in weft.range(start, stop, step):
            x = x + i
            seen[i] = x[0]
        return x, seen

    compiled = weft.compile(f)
    same(compiled(vector(), *bounds), f(vector(), *bounds))
    fixed = weft.compile(lambda x: f(x, *bounds))
    same(fixed(vector()), f(vector(), *bounds))


def test_bounds_that_change_need_no_trace():
    def f(x, start, stop):
        for i in weft.range(start, stop, 2):
            x = x + i
        return x

    compiled = weft.compile(f)
    for start, stop in [(0, 10), (3, 20), (-5, 9), (1, 12)]:
        same(compiled(vector(), start, stop), f(vector(), start, stop))
    assert compiled.traces == 1


def test_bad_bounds():
    for bounds, kind in [
        ((), TraceError),
        ((1, 2, 3, 4), TraceError),
        ((0.5,), TypeError),
        (("3",), TypeError),
        ((0, 5, 0), ValueError),
    ]:
        for call in (
            lambda b: list(weft.range(*b)),
            lambda b: weft.compile(lambda x: [x for _ in weft.range(*b)])(vector()),
        ):
            with pytest.raises(kind):
                call(bounds)


# ---- the index -------------------------------------------------------------------------------------------------------


def test_the_index_in_arithmetic():
    def f(x, n):
        for i in weft.range(n):
            x = (
                x
                + i * 2
                - (i // 2) * 0.5
                + i % 3
                + (i + 1) ** 2
                - 1 / (i + 1)
                + x[i % 3]
                + weft.tensor(1.0) * i
                + abs(-i)
            )
        return x, i, i * 2

    agree(f, trips=(4, 6))


def test_recording():
    def f(x, n):
        losses, rows = weft.zeros(20, dtype=weft.float64), weft.zeros(20, 3, dtype=weft.float64)
        for i in weft.range(n):
            x = x * 0.9
            losses[i] = x.sum()
            rows[i] = x
            rows[i, 1] = -1.0
            rows[i + 1][0:2] = x[1:]
            losses[-i - 1] = i
        return losses, rows

    agree(f, trips=(5, 8))


def test_recording_costs_what_it_writes():
    def f(x, n):
        out = weft.zeros(4000, 50)
        for i in weft.range(n):
            out[i] = x * i
        return out

    compiled = weft.compile(f)
    x = weft.ones(50)
    same(compiled(x, 30).double(), f(x, 30).double())
    loop = compiled.ir("kernels")
    loop = loop[loop.index("for iteration") :] if "for iteration" in loop else loop
    assert "0..200000" not in loop and "0..4000" not in loop  # nothing in the body runs over the whole table


def test_reading_by_the_index():
    def f(x, n):
        table = weft.arange(40.0, dtype=weft.float64).view(20, 2)
        total = x.sum() * 0
        for i in weft.range(n):
            total = (
                total + table[i].sum() + table[i, 1] + table[i : i + 1].sum() * 0
                if False
                else total + table[i].sum() + table[i, 1]
            )
            total = total + table.index_select(0, weft.arange(2) + i).sum() + table.narrow(0, 3, 2)[0, 0]
        return total

    agree(f, trips=(5, 7))


def test_an_index_out_of_range():
    def f(x, n):
        out = weft.zeros(4)
        for i in weft.range(n):
            out[i] = 1.0
        return out

    compiled = weft.compile(f)
    same(compiled(vector(), 4).double(), f(vector(), 4).double())
    with pytest.raises(IndexError):
        compiled(vector(), 6)
    same(compiled(vector(), 3).double(), f(vector(), 3).double())


@pytest.mark.parametrize(
    "use",
    [
        lambda i: 1 if i > 2 else 2,
        lambda i: int(i),
        lambda i: [1, 2, 3][i],
        lambda i: float(i),
        lambda i: f"{i}",
        lambda i: range(i),
        lambda i: weft.zeros(i),
        lambda i: i == 0 and 1,
        lambda i: {0: 1}.get(i),
        lambda i: max(i, 1),
        lambda i: print(i),
        lambda i: bool(i),
        lambda i: round(i),
        lambda i: i.bit_length(),
        lambda i: 2**i,
        lambda i: 1 << i,
        lambda i: list(weft.range(i)),
    ],
    ids=range(17),
)
def test_the_index_is_no_python_number(use):
    def f(x, n):
        for i in weft.range(n):
            use(i)
            x = x + 1
        return x

    with pytest.raises(TraceError, match=r"loop index|index of an outer loop"):
        weft.compile(f)(vector(), 5)


# ---- values after the loop -------------------------------------------------------------------------------------------


def test_values_read_after_the_loop():
    def f(x, n):
        for i in weft.range(n):
            y = x * i
            z = y + 1
            x = x + z
        return x, y, z, y.sum() + z[0], i

    agree(f, trips=(3, 6, 4))


def test_values_of_the_last_iteration_with_zero_trips():
    def f(x, n):
        y = x * 7
        for _ in weft.range(n):
            y = x * 2
            x = x + y
        return x, y

    agree(f, trips=(4, 0, 1, 5), traces=2, loops=None)


def test_code_after_the_loop_continues_from_its_state():
    def f(x, n):
        for _ in weft.range(n):
            x.mul_(0.5)
            y = x + 1
        x.add_(y)
        y.mul_(3)
        for _ in weft.range(n):
            x.sub_(y * 0.1)
            y = y * 0.5
        return x[1:], y

    agree(f, trips=(4, 7), loops=2)


# ---- lazy state ------------------------------------------------------------------------------------------------------


def test_a_first_iteration_that_differs_is_peeled():
    def f(x, n):
        best, history = None, []
        for _ in weft.range(n):
            x = x * 0.5
            if best is None:
                best = x.clone()
            else:
                best = weft.maximum(best, x)
        return best, history

    compiled = agree(f, trips=(4, 9, 3))
    assert compiled.ir("traced").count("clone") <= 1


def test_gradients_that_begin_as_none():
    def f(x, n):
        for _ in weft.range(n):
            (x * x).sum().backward()
        return x.grad * 1

    agree(f, make=lambda: (vector().requires_grad_(),), trips=(5, 3))


# ---- nesting ---------------------------------------------------------------------------------------------------------


def nested(x, n):
    total = x * 0
    for i in weft.range(n):
        y = x + i
        for j in weft.range(3):
            y = y * 0.5 + j
            total[0] += y.sum() * i
        total = total + y
    return total, y


def nested_runtime(x, n):
    for i in weft.range(n):
        for j in weft.range(n + 1):
            x = x * 0.9 + i * j
    return x, j


def three_levels(x, n):
    out = weft.zeros(20, dtype=weft.float64)
    for i in weft.range(n):
        for j in weft.range(4):
            for k in weft.range(n):
                x = x * 0.5 + k * j
            out[i + j] = x.sum()
        x = x + out[i]
    return x, out


def siblings(x, n):
    for _ in weft.range(n):
        for i in weft.range(4):
            x = x + i
        y = x.sum()
        for _ in weft.range(5):
            x = x * 0.5 + y
            y = y * 0.1
    return x, y


def state_across_levels(x, n):
    a, b = x, x * 2
    for _ in weft.range(n):
        a, b = b, a
        for _ in weft.range(3):
            a, b = b, a + b * 0.5
    return a, b


def inner_last_values(x, n):
    for i in weft.range(n):
        for j in weft.range(3):
            y = x * j + i
        x = x + y
    return x, y, j


@pytest.mark.parametrize(
    "program",
    [nested, nested_runtime, three_levels, siblings, state_across_levels, inner_last_values],
    ids=lambda p: p.__name__,
)
def test_nested_loops(program):
    agree(program, trips=(3, 5, 4), loops=None)


def test_an_inner_loop_over_the_outer_index_is_refused():
    def f(x, n):
        for i in weft.range(n):
            for _ in weft.range(i):
                x = x + 1
        return x

    with pytest.raises(TraceError, match="index of an outer loop"):
        weft.compile(f)(vector(), 5)


# ---- control flow in the body ----------------------------------------------------------------------------------------


def test_break_continue_else_return():
    flag = True

    def breaks(x, n):
        for _ in weft.range(n):
            x = x * 2
            if flag:
                break
        else:
            x = x * 100
        return x

    def continues(x, n):
        for _ in weft.range(n):
            x = x * 2
            if flag:
                continue
            x = x * 100
        return x

    def otherwise(x, n):
        for _ in weft.range(n):
            x = x * 2
        else:
            x = x + 7
        return x

    def returns(x, n):
        for _ in weft.range(n):
            x = x * 2
            if flag:
                return x
        return x * 100

    for program in (breaks, continues, otherwise, returns):
        compiled = weft.compile(program)
        for n in (4, 0, 1, 5):
            same(compiled(vector(), n), program(vector(), n))


def test_break_after_some_iterations():
    def f(x, n):
        count = 0
        for _ in weft.range(n):
            x = x * 2
            count += 1
            if count == 2:
                break
        return x

    compiled = weft.compile(f)
    for n in (4, 1, 2, 0, 6):
        try:
            same(compiled(vector(), n), f(vector(), n))
        except TraceError as error:
            assert "`count`" in str(error)


def test_exceptions_in_the_body():
    def f(x, n):
        for i in weft.range(n):
            x = x * 2
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        weft.compile(f)(vector(), 4)
    assert weft.tracer.state.STATE.trace is None


def test_conds_and_loops_inside_each_other():
    def loop_of_cond(x, n):
        for i in weft.range(n):
            x = weft.cond(x.sum() > 5, lambda v: v * 0.5, lambda v: v + 1, (x,))
            x = weft.cond(x[0] > i, lambda v: v - x, lambda v: v + x * 2, (x,))
        return x

    def cond_of_loop(x, n):
        def looped(v):
            for i in weft.range(n):
                v = v * 0.5 + i
            return v

        return weft.cond(x.sum() > 5, looped, lambda v: v + 1, (x,)), weft.cond(
            x.sum() < 5, looped, lambda v: v + 1, (x,)
        )

    def mutating(x, n):
        y = x * 2
        for _ in weft.range(n):
            weft.cond(y.sum() > 3, lambda: y.mul_(0.5), lambda: y.add_(x))
            x.add_(y)
        return y

    for program in (loop_of_cond, cond_of_loop, mutating):
        agree(program, trips=(4, 7), loops=None)


def test_while_inside_a_loop():
    def f(x, n):
        for _ in weft.range(n):
            (x,) = weft.while_loop(lambda v: v.sum() > 1, lambda v: (v * 0.5,), (x,))
            x = x + 3
        return x

    agree(f, trips=(3, 5))


# ---- training --------------------------------------------------------------------------------------------------------


def rosenbrock(x, n):
    for _ in weft.range(n):
        value = (1 - x[0]) ** 2 + 5 * (x[1] - x[0] ** 2) ** 2
        value.backward()
        with weft.no_grad():
            x.sub_(0.01 * x.grad)
            x.grad.zero_()
    return value


def functional(x, n):
    for _ in weft.range(n):
        w = x.detach().requires_grad_()
        (g,) = weft.autograd.grad((w**3).sum(), w)
        x = x - 0.01 * g
    return x


def hessian(x, n):
    for _ in weft.range(n):
        (g,) = weft.autograd.grad((x**4).sum(), x, create_graph=True)
        (h,) = weft.autograd.grad(g.sum(), x)
        with weft.no_grad():
            x.sub_(g / h * 0.1)
    return g.detach(), h


def set_to_none(x, n):
    for _ in weft.range(n):
        x.grad = None
        (x * x).sum().backward()
        with weft.no_grad():
            x.sub_(0.1 * x.grad)
    return x.grad


def a_view_that_is_a_row(x, n):
    table = weft.zeros(12, 3, dtype=weft.float64)
    for i in weft.range(n):
        row = table[i + 1]
        row[0:2] = x[1:]
        table[i].add_(1)
        previous = table[i]
        table[i, 1] = 7.0
        x = x * 0.5 + previous
    return table, x, row


def test_a_row_at_the_index_is_a_view():
    agree(a_view_that_is_a_row, trips=(4, 8))


@pytest.mark.parametrize("program", [rosenbrock, functional, hessian, set_to_none], ids=lambda p: p.__name__)
def test_gradients_in_the_body(program):
    agree(program, make=lambda: (vector(-1.0, 1.0).requires_grad_(program is not functional),), trips=(6, 9))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.05),
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
        lambda p: optim.Adam(p, lr=0.05),
        lambda p: optim.AdamW(p, lr=0.05, amsgrad=True),
    ],
    ids=range(5),
)
@pytest.mark.parametrize("to_none", [True, False])
def test_optimizers(make, to_none):
    def run(compiled):
        weft.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 1)).double()
        optimizer = make(net.parameters())
        x, y = weft.randn(6, 3, dtype=weft.float64), weft.randn(6, 1, dtype=weft.float64)

        def train(n):
            losses = weft.zeros(20, dtype=weft.float64)
            for i in weft.range(n):
                optimizer.zero_grad(set_to_none=to_none)
                loss = nn.functional.mse_loss(net(x), y)
                loss.backward()
                optimizer.step()
                losses[i] = loss.detach()
            return losses

        train = weft.compile(train) if compiled else train
        found = [train(5), train(7)]
        if compiled:
            assert train.traces <= 2
        return [
            *found,
            *[p.detach() for p in net.parameters()],
            *[p.grad for p in net.parameters()],
            *optimizer.state[net[0].weight].values(),
            weft.rand(2),
        ]

    for a, b in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9)


def test_random_numbers_in_the_body():
    def f(x, n):
        for _ in weft.range(n):
            x = x + weft.rand(3, dtype=weft.float64)
            order = weft.randperm(3)
            x = x[order]
        return x

    compiled = weft.compile(f)
    for n in (3, 6):
        weft.manual_seed(5)
        a = compiled(vector(), n), weft.rand(2).double()
        weft.manual_seed(5)
        b = f(vector(), n), weft.rand(2).double()
        same(a, b)


def test_a_learning_rate_that_decays_in_the_loop():
    def run(compiled):
        p = nn.Parameter(vector())
        optimizer = optim.SGD([p], lr=0.1)

        def train(n):
            for _ in weft.range(n):
                optimizer.zero_grad()
                (p * p).sum().backward()
                optimizer.step()
                optimizer.param_groups[0]["lr"] *= 0.5

        (weft.compile(train) if compiled else train)(6)
        return p.detach(), optimizer.param_groups[0]["lr"]

    same(run(True), run(False))


def chain(x):
    h = x
    for i in weft.range(6):
        h = (h * x).sin() + i * 0.1
    return h


def swapped(x):
    a, b = x, x * 2
    for _ in weft.range(5):
        a, b = b, (a * b).sin()
    return a * 3 + b


def through_views(x):
    w = x * 2
    for i in weft.range(6):
        w[i % 3] = w[(i + 1) % 3].clone() * x[0]
        v = w[i % 3]
        v.mul_(x[1])
        w[1:].add_(w[:-1].clone() * x[2])
    return w * v


def through_storage(x):
    w, total = x * 2, weft.zeros(3, dtype=weft.float64)
    for _ in weft.range(5):
        w.mul_(x).add_(1)
        total += w
    return total * w


def recorded(x):
    h, out = x, weft.zeros(6, 3, dtype=weft.float64)
    for i in weft.range(6):
        h = (h * x).cos()
        out[i] = h
    return out[1:] * out[:-1]


def detached(x):
    h, log = x * 1, x.detach() * 0
    for _ in weft.range(5):
        with weft.no_grad():
            scale = h.abs().max() + 1
            log.add_(h)
        frozen = h.detach()
        h = (h / scale).tanh() * x + frozen * 0.1 + frozen[:1] * h
    return h + log


def nested_loops(x):
    h = x
    for i in weft.range(4):
        for _ in weft.range(3):
            h = (h * x).sin()
        h = h + x * i
    return h


def with_cond(x):
    h, w = x, x.cos()
    for _ in weft.range(5):
        h = weft.cond(h.sum() > 0, lambda v: v * w, lambda v: v.exp() * x, (h,)) - 0.3
    return h


def pairs(x):
    h, flag = x, False
    for i in weft.range(6):
        flag = not flag
        h = (h * x).sin() + i if flag else h.tanh() * x
    return h


def value_of_the_last_iteration(x):
    h = x
    for _ in weft.range(5):
        y = h * x
        h = y.sin()
    return y * h


def rotated_with_what_needs_no_gradient(x):
    a, b, c = x * 1, x.detach().cos(), x.detach().sin()
    for i in weft.range(4):
        a = (b + i).cos() * a.sin()
        a, b, c = b, c, a
    return a * 3 + b * 2 + c


def swapped_unread(x):
    a, b = x * 1, x.detach() * 2
    for _ in weft.range(5):
        a, b = b, a
    return a * 3 + b * b


@pytest.mark.parametrize(
    "program",
    [
        chain,
        swapped,
        rotated_with_what_needs_no_gradient,
        swapped_unread,
        through_views,
        through_storage,
        recorded,
        detached,
        nested_loops,
        with_cond,
        pairs,
        value_of_the_last_iteration,
    ],
    ids=lambda p: p.__name__,
)
def test_gradients_through_a_loop(program):
    def inside(x, n):
        y = program(x)
        (y * y).sum().backward()
        return y.detach()

    make = lambda: (vector(0.3, 0.6, -0.2).requires_grad_(),)  # noqa: E731
    agree(inside, make=make, trips=(0,), loops=None)
    compiled = weft.compile(program)
    assert compiled(*make()).requires_grad and "= loop " in compiled.ir("traced")
    for y, x in ((f(x), x) for f in (compiled, program) for x in make()):
        y.sum().backward()
        program.gradient = getattr(program, "gradient", x.grad)
        same(x.grad, program.gradient)


def test_a_loop_that_starts_from_rows_begins_with_the_first_iteration():
    def f(x, n):
        h, c = x.reshape(3, 1)[1], x[1:]
        for _ in weft.range(n):
            h, c = h * 0.5 + c.sum(), c.sin() * h
        return h, c

    assert "loop %c0, %n" in agree(f).ir("traced")


def test_second_derivatives_through_a_loop():
    def f(x, n):
        (g,) = weft.autograd.grad(chain(x).sum(), x, create_graph=True)
        return weft.autograd.grad((g * g).sum(), x)[0]

    agree(f, make=lambda: (vector(0.3, 0.6, -0.2).requires_grad_(),), trips=(0,), loops=None)


def test_gradients_through_a_loop_of_unknown_length_are_refused():
    def f(x, n):
        h = x
        for _ in weft.range(n):
            h = h * x
        h.sum().backward()

    with pytest.raises(GradientError, match="number of iterations"):
        weft.compile(f)(vector().requires_grad_(), 5)


def test_scan():
    def f(x, n):
        carry, ys = weft.scan(lambda c, v: (c * 0.5 + v, {"sum": c + v, "v": v * 2}), x.sum(), x)
        return carry, ys["sum"], ys["v"]

    agree(f, trips=(0,))
    carry, none = weft.scan(lambda c, _: (c * 2, None), vector(), None, length=3)
    same((carry, none), (vector() * 8, None))
    with pytest.raises(weft.ShapeError, match="lengths along axis 0 differ"):
        weft.scan(lambda c, v: (c, v[0]), vector(), (weft.ones(2), weft.ones(3)))


# ---- what cannot be a loop -------------------------------------------------------------------------------------------


class Counter:
    def __init__(self):
        self.t, self.flag = 0, False


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.t = 0

    def forward(self, x):
        self.t += 1
        return x * self.t


OUTSIDE = Counter()


def counting(kind):
    def f(x, n):
        rate = 1.0
        counter, t, flag, log, table, seen, numbers_ = Counter(), 0, False, [], {}, set(), itertools.count()
        words, queue = "", collections.deque()
        for i in weft.range(n):
            match kind:
                case "int":
                    t += 1
                    x = x + 1
                case "bool":
                    flag = not flag
                    x = x + 1
                case "string":
                    words = words + "a"
                    x = x + 1
                case "attribute":
                    counter.t += 1
                    x = x + 1
                case "attribute flag":
                    counter.flag = not counter.flag
                    x = x + 1
                case "branch":
                    t += 1
                    x = x * 2 if t % 10 == 0 else x + 1
                case "float":
                    rate = rate * 0.9
                    x = x * rate
                case "used":
                    t += 1
                    x = x + t
                case "list":
                    x = x + 1
                    log.append(x.sum())
                case "dict":
                    x = x + 1
                    table[len(table)] = x
                case "set":
                    x = x + 1
                    seen.add(len(seen))
                case "deque":
                    x = x + 1
                    queue.append(1)
                case "nested list":
                    x = x + 1
                    table.setdefault("log", []).append(1)
                case "iterator":
                    x = x + next(numbers_)
                case "alternating":
                    flag = not flag
                    x = x * 0.5 + i if flag else x + 1
                case "element":
                    log[:] = [1, 2] if not log or log[0] != 1 else [2, 1]
                    x = x + 1
                case "outside":
                    OUTSIDE.t += 1
                    x = x + 1
        return x

    return f


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("int", "`t`"),
        ("string", "`words`"),
        ("attribute", "counter.t"),
        ("branch", "`t`"),
        ("float", "`rate`"),
        ("used", "`t`"),
        ("list", "list `log` grows.*`log\\[i\\] = value`"),
        ("dict", "dict `table` grows"),
        ("set", "`seen`"),
        ("deque", "`queue`"),
        ("nested list", "table\\['log'\\]"),
        ("iterator", "uniform"),
        ("outside", "OUTSIDE"),
    ],
)
def test_python_state_that_changes(kind, word):
    with pytest.raises(TraceError, match=word):
        weft.compile(counting(kind))(vector(), 50)


@pytest.mark.parametrize("kind", ["bool", "attribute flag", "element", "alternating"])
@pytest.mark.parametrize("trips", [7, 8, 50, 51])
def test_python_state_that_alternates_gives_a_loop_over_pairs(kind, trips):
    agree(counting(kind), trips=(trips,))


def test_a_counter_of_a_module_counts():
    def run(compiled):
        layer = Layer()

        def f(x, n):
            for _ in weft.range(n):
                x = layer(x) * 0.5
            return x

        f = weft.compile(f) if compiled else f
        return f(vector(), 6), layer.t, f(vector(), 4), layer.t

    same(run(True), run(False))


def test_looking_at_a_number_that_changes():
    def f(x, n):
        lr = 1.0 * n
        for _ in weft.range(n):
            lr = lr * 0.5
            x = x * lr if lr > 0.01 else x
        return x

    with pytest.raises(TraceError, match="changes from one iteration to the next|index|uniform"):
        weft.compile(f)(vector(), 30)

    def after(x, n):
        lr = 1.0 * n
        for _ in weft.range(n):
            lr = lr * 0.5
        return x if lr < 1e-6 else -x

    with pytest.raises(TraceError, match="loop"):
        weft.compile(after)(vector(), 30)


def test_bodies_that_are_not_uniform():
    data = [vector(float(k), 1.0, 2.0) for k in range(20)]
    items = iter(data)

    def reads_others(x, n):
        for _ in weft.range(n):
            x = x + next(items)
        return x

    def grows(x, n):
        for _ in weft.range(n):
            x = weft.cat([x, x])
        return x

    for program in (reads_others, grows):
        with pytest.raises(TraceError, match=r"test_loops.py:\d+ does not become uniform.*plain `range`"):
            weft.compile(program)(vector(), 12)


def test_a_comprehension_of_values_is_refused_when_used():
    def f(x, n):
        return [x * i for i in weft.range(n)]

    with pytest.raises(TraceError, match="earlier iteration.*out\\[i\\] = value|grows"):
        weft.compile(f)(vector(), 5)


def test_a_value_of_a_vanished_iteration():
    first = []

    def f(x, n):
        kept = None
        for _ in weft.range(n):
            x = x * 2
            if kept is None:
                kept = {"first": x}
        return x, kept["first"] * 1

    agree(f, trips=(5, 8))

    def hidden(x, n):
        for _ in weft.range(n):
            x = x * 2
            first.append(x) if not first else None
        return x + first[0]

    with pytest.raises(TraceError):
        weft.compile(hidden)(vector(), 5)


# ---- running ---------------------------------------------------------------------------------------------------------


def test_progress_bar(capsys):
    def f(x, n):
        for _ in weft.range(n, progress=True):
            x = x * 0.5
        return x

    for function in (f, weft.compile(f)):
        same(function(vector(), 2000), vector() * 0)
        text = capsys.readouterr().err
        assert "2000/2000" in text and text.endswith("\n")


def test_progress_outside_the_last_call(capsys):
    list(weft.range(3, progress=True))
    assert "3/3" in capsys.readouterr().err


def test_interrupt_leaves_a_completed_iteration():
    a, b, count = weft.zeros(4, dtype=weft.float64), weft.zeros(4, dtype=weft.float64), weft.zeros((), dtype=weft.int64)

    @weft.compile
    def f(n):
        for _ in weft.range(n):
            a.add_(1)
            b.copy_(a * 2)
            count.add_(1)

    f(10)
    main, stop = threading.main_thread(), threading.Event()

    def interrupt():
        while not stop.wait(0.3):
            signal.pthread_kill(main.ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            f(10**12)
    finally:
        stop.set()
        thread.join()
    done = count.item()
    assert done > 10 and a.tolist() == [float(done)] * 4 and b.tolist() == [2.0 * done] * 4
    f(5)
    assert count.item() == done + 5 and a[0].item() == done + 5


def test_interrupt_of_nested_loops_and_reuse_by_others():
    total = weft.zeros((), dtype=weft.float64)

    @weft.compile
    def f(n, m):
        for i in weft.range(n):
            for j in weft.range(m):
                total.add_(1)
            total.sub_(m)

    f(3, 4)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        f(10**12, 5)
    timer.join()
    total.zero_()
    f(4, 3)
    assert total.item() == 0


def test_threads_run_loops_at_once():
    f, results = weft.compile(rebind), {}

    def work(k):
        for n in (5, 9, 30):
            results[k, n] = f(vector() + k, n)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for (k, n), found in results.items():
        same(found, rebind(vector() + k, n))


def test_eager_range_is_a_plain_range():
    assert (
        list(weft.range(4)) == [0, 1, 2, 3] and list(weft.range(5, 1, -2)) == [5, 3] and len(weft.range(3, 9, 2)) == 3
    )
    assert all(type(i) is int for i in weft.range(3))


def test_what_an_inner_loop_detaches_stays_detached():
    @weft.compile
    def record(w, losses):
        for i in weft.range(3):
            for j in weft.range(4):
                losses[i, j] = (w * w).sum().detach()

    w, losses = weft.ones(3, requires_grad=True), weft.zeros(3, 4)
    record(w, losses)
    assert not losses.requires_grad and losses.tolist() == [[3] * 4] * 3
