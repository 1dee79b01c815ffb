"""fn.memory(): the numbers against the plan, and against what the program must keep."""

from __future__ import annotations

from itertools import combinations

import pytest

import weft

ROWS, INNER, HIDDEN, OUT = 256, 64, 128, 10
WEIGHT_BYTES = 4 * (INNER * HIDDEN + HIDDEN * OUT)


@pytest.fixture
def network():
    weft.manual_seed(0)
    w1, w2 = (weft.randn(*shape, requires_grad=True) for shape in ((INNER, HIDDEN), (HIDDEN, OUT)))

    def loss_of(x):
        return ((x @ w1).tanh() @ w2).square().mean()

    def step(x, lr):
        loss = loss_of(x)
        loss.backward()
        with weft.no_grad():
            for w in (w1, w2):
                w.sub_(lr * w.grad)
                w.grad = None
        return loss

    return loss_of, step


@pytest.fixture
def x():
    return weft.ones(ROWS, INNER)


def test_the_step_saves_the_hidden_layer_and_donates_the_weights(network, x):
    step = weft.compile(network[1])
    step(x, 0.1)
    use = step.memory()
    assert use.input_bytes == 8 + x.numel() * 4 + WEIGHT_BYTES and use.output_bytes == 4
    assert [tuple(v.type.shape) for v in use.saved] == [(ROWS, HIDDEN)]
    assert use.saved_bytes == 4 * ROWS * HIDDEN
    assert (use.saved[0].loc.file, use.saved[0].loc.line) == (__file__, network[0].__code__.co_firstlineno + 1)
    assert use.donated_bytes == WEIGHT_BYTES and use.donated_copied_bytes == 0 and use.copies == ()
    assert use.in_place_bytes >= 4 * ROWS * 10  # the logits' derivative is computed over them
    assert use.kept_input_bytes == 0


@pytest.mark.parametrize("trips", [0, 7])
def test_lifetimes_tile_the_arena(network, x, trips):
    def train(x, lr):
        for _ in weft.range(trips):
            loss = network[1](x, lr)
        return loss

    run = weft.compile(train if trips else network[1])
    run(x, 0.1)
    use = run.memory()
    pieces = use.lifetimes
    assert max(p.offset + p.nbytes for p in pieces) <= use.arena_bytes
    assert all(1 <= p.first <= p.last <= use.steps for p in pieces)
    for a, b in combinations(pieces, 2):
        apart_in_time = a.last < b.first or b.last < a.first
        assert apart_in_time or a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset, (a, b)
    assert any(p.nbytes == 4 * ROWS * HIDDEN and p.last > p.first for p in pieces)
    assert [tuple(v.type.shape) for v in use.saved] == [(ROWS, HIDDEN)]


def test_what_lives_across_a_loop_lives_until_its_end():
    @weft.compile
    def settled(x, y, w):
        row = x.exp().sum(0)
        for _ in weft.range(5):
            y.copy_((w @ y).tanh() * row + 1)
        return (y * 2).sum()

    settled(weft.zeros(300, 600), weft.ones(600), weft.ones(600, 600))
    use = settled.memory()
    row, product = [p for p in use.lifetimes if p.nbytes == 4 * 600]
    assert row.first < product.first and row.last >= product.last
    assert use.donated_bytes == 4 * 600 and use.donated_copied_bytes == 0


def test_a_call_without_backward_keeps_its_inputs_for_one(network, x):
    loss = weft.compile(network[0])
    loss(x)
    use = loss.memory()
    assert use.saved == () and use.kept_input_bytes == x.numel() * 4 + WEIGHT_BYTES and use.kept_copy_bytes == 0


def test_copies_are_listed_with_their_reason():
    @weft.compile
    def swapped(a, b):
        old = a.clone()
        a.copy_(b)
        b.copy_(old)

    swapped(weft.zeros(1000), weft.ones(1000))
    use = swapped.memory()
    assert use.copies and all(c.reason and c.nbytes == 4000 for c in use.copies)
    assert use.donated_bytes == 8000 and use.donated_copied_bytes > 0


def test_the_text_names_everything(network, x):
    step = weft.compile(network[1])
    with pytest.raises(weft.TraceError):
        step.memory()
    step(x, 0.1)
    use, text = step.memory(), str(step.memory())
    for part in (f"arena {use.arena_bytes} bytes", f"saved for the backward: {use.saved_bytes} bytes",
                 "test_memory_use.py:", f"results in the memory of inputs: {WEIGHT_BYTES} bytes", "copies: none"):
        assert part in text
