"""Views share memory: addresses, strides, writes through them, impossible ones; random chains against torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft


def matrix(rows=3, columns=5):
    return weft.arange(float(rows * columns)).reshape(rows, columns)


def test_addresses_and_strides_of_the_book():
    x = matrix()
    assert x.stride() == (5, 1)
    y = x.view(5, 3)
    assert y.stride() == (3, 1) and y.data_ptr() == x.data_ptr()
    z = x.t()
    assert z.stride() == (1, 5) and z.data_ptr() == x.data_ptr() and z.stride(1) == 5
    assert x[1:, 2:].storage_offset() == 7 and x[1:, 2:].data_ptr() == x.data_ptr() + 7 * 4
    assert not z.is_contiguous() and z.contiguous().stride() == (3, 1) and x.contiguous() is x


def test_view_of_an_incompatible_layout():
    with pytest.raises(
        RuntimeError,
        match=r"at least one dimension spans across two contiguous subspaces.*Use .reshape\(...\) instead.",
    ):
        matrix().t().view(15)
    copied = matrix().t().reshape(15)
    assert copied.tolist() == matrix().numpy().T.reshape(-1).tolist()
    with pytest.raises(ValueError, match=r"shape '\[4\]' is invalid for input of size 15"):
        matrix().view(4)
    with pytest.raises(ValueError, match="only one dimension can be inferred"):
        matrix().view(-1, -1)


VIEWS = {
    "x.view(-1)": lambda a: a.reshape(-1),
    "x.reshape(5, 3)": lambda a: a.reshape(5, 3),
    "x.t()": lambda a: a.T,
    "x.T": lambda a: a.T,
    "x.transpose(0, 1)": lambda a: a.T,
    "x.permute(1, 0)": lambda a: a.T,
    "x.unsqueeze(1)": lambda a: a[:, None],
    "x.unsqueeze(0).squeeze(0)": lambda a: a,
    "x[1]": lambda a: a[1],
    "x[-1, 2:4]": lambda a: a[-1, 2:4],
    "x[:, ::2]": lambda a: a[:, ::2],
    "x[..., 0]": lambda a: a[..., 0],
    "x[None]": lambda a: a[None],
    "x.narrow(1, 1, 3)": lambda a: a[:, 1:4],
    "x.select(1, 2)": lambda a: a[:, 2],
    "x.unbind()[1]": lambda a: a[1],
    "x.split(2, 1)[1]": lambda a: a[:, 2:4],
    "x.chunk(2, 1)[0]": lambda a: a[:, :3],
    "x.diagonal(1)": lambda a: np.diagonal(a, 1),
    "x.t().diagonal(-1)": lambda a: np.diagonal(a.T, -1),
    "x.as_strided((2, 2), (6, 1), 3)": lambda a: np.lib.stride_tricks.as_strided(a.reshape(-1)[3:], (2, 2), (24, 4)),
    "x.unfold(1, 2, 2)": lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, 1)[:, ::2],
    "x.movedim(0, 1)": lambda a: a.T,
    "x.flatten()": lambda a: a.reshape(-1),
    "x.unflatten(1, (5, 1))": lambda a: a[..., None],
    "x.view_as(x.t().contiguous())": lambda a: a.reshape(5, 3),
    "x.swapaxes(0, 1)": lambda a: a.T,
    "x.detach()": lambda a: a,
    "x.expand(2, 3, 5)[1]": lambda a: a,
    "x.tensor_split(2, 1)[0]": lambda a: a[:, :3],
}


@pytest.mark.parametrize("text", VIEWS)
def test_views_share_memory_both_ways(text):
    x = matrix()
    view = eval(text, {"x": x})
    np.testing.assert_array_equal(view.numpy(), VIEWS[text](matrix().numpy()))
    x.add_(100)
    np.testing.assert_array_equal(view.numpy(), VIEWS[text](matrix().numpy() + np.float32(100)))
    view.mul_(-1)
    expected = matrix().numpy().reshape(-1) + np.float32(100)
    expected[VIEWS[text](matrix().numpy()).astype(int)] *= -1  # the elements of the matrix say where they are
    np.testing.assert_array_equal(x.numpy().reshape(-1), expected)


COPIES = (
    "x.clone()",
    "x.flip(0)",
    "x.roll(1, 0)",
    "x.repeat(1, 1)",
    "x[[0, 1]]",
    "x[x > 2]",
    "x.tril()",
    "x + 0",
    "x.contiguous().clone()",
    "x.t().contiguous()",
    "weft.cat([x])",
    "x.index_select(0, weft.tensor([0]))",
    "x.to(weft.float32, copy=True)",
    "x.rot90()",
    "x.diag()",
    "x.cumsum(0)",
    "x.sum(0)",
    "x.float().double().float()",
    "weft.tensor(x)",
)


@pytest.mark.parametrize("text", COPIES)
def test_copies_do_not_share(text):
    x = matrix()
    before = x.tolist()
    eval(text, {"x": x, "weft": weft}).zero_()
    assert x.tolist() == before


def test_writes_where_elements_share_memory_are_refused():
    wide = weft.zeros(3, 1).expand(3, 4)
    for write in (lambda: wide.add_(1), lambda: wide.zero_(), lambda: wide.copy_(weft.ones(3, 4))):
        with pytest.raises(RuntimeError, match="single memory location.*clone"):
            write()
    with pytest.raises(RuntimeError, match="single memory location"):
        weft.arange(4.0).unfold(0, 2, 1).add_(1)


def test_in_place_shape_changes():
    x = weft.ones(3, 5)
    assert x.t_() is x and tuple(x.shape) == (5, 3) and x.unsqueeze_(0).squeeze_().stride() == (1, 5)
    with pytest.raises(RuntimeError, match=r"write `x = x.t\(...\)`"):
        weft.ones(2, 2, requires_grad=True).t_()


@pytest.mark.parametrize(
    ("text", "kind", "pattern"),
    [
        (
            "x.expand(3, 4)",
            ValueError,
            r"expanded size of the tensor \(4\) must match the existing size \(5\).*\[3, 4\].*\[3, 5\]",
        ),
        ("x.permute(0, 0)", ValueError, "duplicate dims"),
        ("x.permute(0)", ValueError, "ordering of dimensions"),
        ("x.transpose(0, 2)", IndexError, "got 2"),
        ("x.squeeze(5)", IndexError, "got 5"),
        ("x.narrow(0, 2, 2)", IndexError, "exceeds dimension size"),
        ("x.split([1, 1], 1)", ValueError, "sum exactly to 5"),
        ("x.unflatten(1, (2, 2))", ValueError, "don't multiply up"),
        ("x.select(0, 3)", IndexError, "index 3 is out of bounds for dimension 0 with size 3"),
        ("x[None].t()", ValueError, "2 dimensions"),
        ("x.as_strided((4, 4), (5, 1))", IndexError, "reach element 18"),
        ("x.unfold(0, 4, 1)", ValueError, "maximum size"),
    ],
)
def test_impossible_views(text, kind, pattern):
    with pytest.raises(kind, match=pattern):
        eval(text, {"x": matrix()})


# ---- random chains ---------------------------------------------------------------------------------------------------


@st.composite
def step(draw, shape):
    """One view as (method, arguments), fitting a tensor of `shape`."""
    rank = len(shape)
    kinds = ["unsqueeze", "flatten"] + (["permute", "narrow", "select", "transpose", "chunk", "slice"] if rank else [])
    kinds += ["expand"] if 1 in shape else []
    kind = draw(st.sampled_from(kinds))
    dim = draw(st.integers(0, rank - 1)) if rank else 0
    match kind:
        case "unsqueeze":
            return kind, (draw(st.integers(-rank - 1, rank)),)
        case "permute":
            return kind, (draw(st.permutations(range(rank))),)
        case "transpose":
            return kind, (dim, draw(st.integers(-rank, rank - 1)))
        case "narrow":
            start = draw(st.integers(0, shape[dim]))
            return kind, (dim, start, draw(st.integers(0, shape[dim] - start)))
        case "select" if shape[dim]:
            return kind, (dim, draw(st.integers(-shape[dim], shape[dim] - 1)))
        case "expand":
            return kind, ([3 if n == 1 else -1 for n in shape],)
        case "slice":
            bounds = st.one_of(st.none(), st.integers(-6, 6))
            return kind, (dim, draw(bounds), draw(bounds), draw(st.integers(1, 3)))
        case "chunk":
            return kind, (draw(st.integers(1, 3)), dim)
    return "flatten", ()


def take(x, move):
    """The view in any library."""
    kind, arguments = move
    if kind == "slice":
        dim, *bounds = arguments
        return x[(slice(None),) * dim + (slice(*bounds),)]
    result = getattr(x, kind)(*arguments)
    return result[0] if kind == "chunk" else result


@given(st.data(), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_chains_of_views_as_torch(data, shape):
    torch = pytest.importorskip("torch")
    count = int(np.prod(shape))
    x, y = weft.arange(float(count)).reshape(shape), torch.arange(float(count)).reshape(shape)
    for _ in range(data.draw(st.integers(1, 5))):
        move = data.draw(step(tuple(x.shape)))
        x, y = take(x, move), take(y, move)
        assert tuple(x.shape) == tuple(y.shape)
        if x.numel():
            assert [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1] == [
                s for s, n in zip(y.stride(), y.shape, strict=True) if n > 1
            ]
            assert x.storage_offset() == y.storage_offset()
        np.testing.assert_array_equal(x.numpy(), y.numpy())


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_writes_through_chains_of_views_reach_the_base(data, shape):
    x = weft.arange(float(np.prod(shape))).reshape(shape)
    numbers = np.arange(x.numel()).reshape(shape)  # follows the same views: where each element of the view lies in x
    view, places = x, weft.tensor(numbers)
    for _ in range(data.draw(st.integers(1, 4))):
        move = data.draw(step(tuple(view.shape)))
        if move[0] in ("expand", "flatten"):
            continue
        view, places = take(view, move), take(places, move)
    expected = x.numpy().copy().reshape(-1)
    expected[places.numpy().reshape(-1)] += 100
    view.add_(100)
    np.testing.assert_array_equal(x.numpy().reshape(-1), expected)
