"""Indexing and assignment: random indices against NumPy, rules where torch differs, positions known only at run time,
errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft

SHAPE = (4, 3, 5)


def cube():
    return weft.arange(60.0).reshape(SHAPE)


# ---- random indices --------------------------------------------------------------------------------------------------


def bounds(size):
    return st.one_of(st.none(), st.integers(-size - 2, size + 2))


@st.composite
def basic_item(draw, size):
    if draw(st.booleans()):
        return draw(st.integers(-size, size - 1))
    return slice(draw(bounds(size)), draw(bounds(size)), draw(st.integers(1, 3)))


@st.composite
def basic_key(draw):
    """Ints, slices, None and an ellipsis for a tensor of SHAPE."""
    count = draw(st.integers(0, len(SHAPE)))
    front = draw(st.integers(0, count))
    items = [draw(basic_item(SHAPE[k])) for k in range(front)]
    back = [draw(basic_item(SHAPE[k])) for k in range(len(SHAPE) - (count - front), len(SHAPE))]
    if back or draw(st.booleans()):
        items += [Ellipsis, *back]
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return tuple(items)


@st.composite
def advanced_key(draw):
    """Slices and integer arrays (as NumPy arrays); ints only where torch and NumPy place axes alike."""
    shape = draw(st.sampled_from([(2,), (3,), (2, 2), (1, 2), ()]))
    items, arrays = [], 0
    for size in SHAPE:
        if draw(st.booleans()) and shape:
            items.append(
                np.array(
                    draw(st.lists(st.integers(-size, size - 1), min_size=math.prod(shape), max_size=math.prod(shape)))
                ).reshape(shape)
            )
            arrays += 1
        else:
            items.append(slice(draw(bounds(size)), draw(bounds(size)), draw(st.integers(1, 2))))
    return tuple(items[: draw(st.integers(1, 3))])


def as_tensors(key):
    return tuple(weft.tensor(item) if isinstance(item, np.ndarray) else item for item in key)


@given(basic_key())
def test_basic_reading_gives_views_as_numpy(key):
    x = cube()
    result = x[key]
    np.testing.assert_array_equal(result.numpy(), cube().numpy()[key])
    x.neg_()
    np.testing.assert_array_equal(result.numpy(), -cube().numpy()[key])


@given(advanced_key())
def test_integer_arrays_read_as_numpy(key):
    expected = cube().numpy()[key]
    np.testing.assert_array_equal(cube()[as_tensors(key)].numpy(), expected)
    as_lists = tuple(item.tolist() if isinstance(item, np.ndarray) else item for item in key)
    np.testing.assert_array_equal(cube()[as_lists].numpy(), expected)


@given(st.one_of(basic_key(), advanced_key()), st.booleans())
def test_writing_as_numpy(key, whole):
    x, array = cube(), cube().numpy().copy()
    selected = array[key]
    value = -np.arange(selected.size, dtype="f4").reshape(selected.shape) if whole else np.float32(-7)
    array[key] = value
    x[as_tensors(key)] = weft.tensor(value) if whole else float(value)
    np.testing.assert_array_equal(x.numpy(), array)


@given(basic_key())
def test_gradient_of_reading_is_where_the_elements_came_from(key):
    x = cube().requires_grad_(True)
    x[key].sum().backward()
    expected = np.zeros(SHAPE, "f4")
    expected[key] = 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@given(advanced_key())
def test_gradient_of_gathering_adds_up(key):
    x = cube().requires_grad_(True)
    x[as_tensors(key)].sum().backward()
    expected = np.zeros(SHAPE, "f4")
    np.add.at(expected, key, 1)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@given(st.integers(0, 2**12 - 1))
def test_masks(bits):
    mask = np.array([bool(bits >> k & 1) for k in range(12)]).reshape(4, 3)
    x, array = cube(), cube().numpy().copy()
    np.testing.assert_array_equal(x[weft.tensor(mask)].numpy(), array[mask])
    x[weft.tensor(mask)] = -1.0
    array[mask] = -1
    np.testing.assert_array_equal(x.numpy(), array)
    values = np.arange(mask.sum() * 5.0).reshape(-1, 5)
    x[weft.tensor(mask)] = weft.tensor(values.astype("f4"))
    array[mask] = values
    np.testing.assert_array_equal(x.numpy(), array)


# ---- rules of torch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("x[i, :, i]", (2, 3)),
        ("x[0, :, i]", (3, 2)),
        ("x[:, 0, i]", (4, 2)),
        ("x[i, None, i]", (2, 1, 5)),
        ("x[:, i, i]", (4, 2)),
        ("x[i, 0]", (2, 5)),
        ("x[True]", (1, 4, 3, 5)),
        ("x[False]", (0, 4, 3, 5)),
        ("x[weft.tensor(True)]", (1, 4, 3, 5)),
        ("x[[]]", (0, 3, 5)),
        ("x[weft.tensor(1)]", (3, 5)),
        ("x[i.to(weft.uint8)]", None),
        ("x[range(2)]", (2, 3, 5)),
        ("x[[0, 1], [0, 1]]", (2, 5)),
    ],
)
def test_shapes_of_mixed_indices(key, shape):
    x, i = cube(), weft.tensor([0, 1])
    if shape is None:  # uint8 tensors are masks
        with pytest.raises(IndexError, match="shape of the mask"):
            eval(key, {"x": x, "i": i, "weft": weft})
    else:
        assert tuple(eval(key, {"x": x, "i": i, "weft": weft}).shape) == shape


def test_an_integer_tensor_without_axes_makes_a_view():
    x = cube()
    assert x[weft.tensor(1)].data_ptr() == x[1].data_ptr()
    assert x[np.int64(-1)].data_ptr() == x[3].data_ptr()


def test_last_of_equal_indices_wins_and_accumulation():
    x = weft.zeros(3)
    x[[0, 0, 1]] = weft.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [2.0, 3.0, 0.0]
    x.index_put_((weft.tensor([0, 0]),), weft.tensor([5.0, 6.0]), accumulate=True)
    assert x.tolist() == [13.0, 3.0, 0.0]


def test_values_lose_leading_ones_and_are_converted():
    x = weft.zeros(2, 3, dtype=weft.int64)
    x[0] = weft.ones(1, 1, 3) * 1.7
    x[1, 0] = 2.9
    assert x.tolist() == [[1, 1, 1], [2, 0, 0]]


def test_writes_inside_the_graph():
    x = weft.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 2
    y[0] = x[1] * 10
    y[weft.tensor([True, False, True])] = 5.0
    y[[1]] = y[[1]] * x[2]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 6.0, 4.0]
    with pytest.raises(weft.GradientError, match="leaf Variable that requires grad"):
        x[0] = 1.0
    with weft.no_grad():
        x[0] = 9.0
    assert x.tolist() == [9.0, 2.0, 3.0]


ERRORS = [
    ("x[4]", IndexError, "index 4 is out of bounds for dimension 0 with size 4"),
    ("x[-5]", IndexError, "index -5"),
    ("x[0, 3]", IndexError, "index 3 is out of bounds for dimension 1 with size 3"),
    ("x[0, 0, 0, 0]", IndexError, "too many indices"),
    ("x[::-1]", ValueError, "step must be greater than zero.*weft.flip"),
    ("x[1.5]", IndexError, "only integers.*float"),
    ("x['a']", IndexError, "only integers.*str"),
    ("x[weft.tensor([1.0])]", IndexError, "must be long, int, byte or bool.*Float"),
    ("x[weft.tensor([4])]", IndexError, "index 4 is out of bounds for dimension 0 with size 4"),
    ("x[:, [0, -4]]", IndexError, "index -4 is out of bounds for dimension 1 with size 3"),
    ("x[weft.tensor([True, False])]", IndexError, r"shape of the mask \[2\] at index 0.*\[4, 3, 5\]"),
    ("x[[0, 1], [0, 1, 2]]", IndexError, r"could not be broadcast together with shapes \[2\], \[3\]"),
    ("x.__setitem__(0, weft.ones(2, 3, 5))", ValueError, r"shape \[2, 3, 5\] cannot be broadcast.*\[3, 5\]"),
    ("x.__setitem__([0, 1], weft.ones(7))", ValueError, r"shape \[7\].*\[2, 3, 5\]"),
    ("x.__setitem__([0], weft.ones(3, 5, dtype=weft.int64))", TypeError, "Long for the source"),
    ("weft.tensor(1)[0]", IndexError, "0-dim tensor"),
    ("x.index_select(0, weft.tensor([9]))", IndexError, "index 9"),
    ("x.gather(0, weft.tensor([0]))", ValueError, "same number of dimensions"),
]


@pytest.mark.parametrize(("text", "kind", "pattern"), ERRORS, ids=[e[0] for e in ERRORS])
def test_errors(text, kind, pattern):
    with pytest.raises(kind, match=pattern):
        eval(text, {"x": cube(), "weft": weft})


# ---- compiled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("i", [0, 2, -1])
def test_run_time_positions(i):
    def read(x, i):
        return x[i], x[i, 1], x[:, 1, i], x[i, [0, 2]], x.select(0, i), x.narrow(0, (i + 4) % 4 // 2, 2)

    compiled = weft.compile(read)
    for a, b in zip(compiled(cube(), i), read(cube(), i), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_run_time_positions_are_checked():
    compiled = weft.compile(lambda x, i: x[i] * 2)
    compiled(cube(), 1)
    with pytest.raises(IndexError):
        compiled(cube(), 4)


def test_writes_at_loop_indices():
    def fill(x, n):
        out = weft.zeros(6, 3)
        for i in weft.range(n):
            out[i] = x * i
            out[i - 1, 0] = 7.0
            out[i, [1, 2]] = out[i, [1, 2]] + weft.tensor([1.0, 2.0])
            x = x + out[i]
        return out, x

    for a, b in zip(weft.compile(fill)(weft.ones(3), 6), fill(weft.ones(3), 6), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_slice_with_run_time_bounds_says_what_to_use():
    @weft.compile
    def windows(x):
        total = weft.zeros(2)
        for i in weft.range(3):
            total = total + x[i : i + 2]
        return total

    with pytest.raises(weft.TraceError, match=r"x.narrow\(dim, start, length\)"):
        windows(weft.ones(6))


def test_masked_assignment_compiles_to_a_choice():
    def clean(x, mask, row):
        x[x < 2] = 0.0
        x[mask] = row
        return x

    arguments = [cube(), weft.tensor([True, False, False, True]), weft.ones(3, 5) * 9]
    expected = clean(*[a.clone() for a in arguments])
    np.testing.assert_array_equal(weft.compile(clean)(*arguments).numpy(), expected.numpy())
