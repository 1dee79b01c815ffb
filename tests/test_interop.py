"""NumPy, DLPack, copy and pickle: what is shared, what is copied, what is refused."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

import weft


def test_numpy_shares_memory_both_ways():
    array = np.arange(6.0).reshape(2, 3)
    x = weft.from_numpy(array)
    assert x.dtype is weft.float64 and x.data_ptr() == array.ctypes.data
    array[0, 0] = 7
    x[1, 1] = 9.0
    assert x[0, 0].item() == 7 and array[1, 1] == 9
    assert x.numpy() is x.numpy() or np.shares_memory(x.numpy(), array)
    assert np.shares_memory(x.t()[1:].numpy(), array)


@pytest.mark.parametrize(
    "make",
    [lambda a: a.T, lambda a: a[:, ::2], lambda a: a[1:], lambda a: np.asfortranarray(a), lambda a: a[0, 0, None]],
)
def test_layouts_are_kept(make):
    array = make(np.arange(12.0).reshape(3, 4))
    x = weft.from_numpy(array)
    assert x.stride() == tuple(s // 8 for s in array.strides) and x.tolist() == array.tolist()


def test_two_tensors_over_one_array_alias_in_compiled_functions():
    array = np.zeros(4, "f4")
    x, y = weft.from_numpy(array), weft.from_numpy(array[1:])

    @weft.compile
    def f(x, y):
        x.add_(1)
        y.mul_(2)
        return x.sum()

    assert f(x, y).item() == 7 and array.tolist() == [1, 2, 2, 2]
    z = weft.from_numpy(x.numpy()[2:])
    assert z._storage is x._storage


def test_what_numpy_cannot_share():
    with pytest.raises(TypeError, match="negative"):
        weft.from_numpy(np.arange(3.0)[::-1])
    with pytest.raises(TypeError, match="complex128.*astype"):
        weft.from_numpy(np.zeros(2, complex))
    with pytest.raises(TypeError, match="expected np.ndarray"):
        weft.from_numpy([1.0])
    with pytest.raises(RuntimeError, match=r"Use tensor.detach\(\).numpy\(\) instead"):
        weft.ones(2, requires_grad=True).numpy()
    assert weft.ones(2, requires_grad=True).numpy(force=True).tolist() == [1, 1]


def test_read_only_arrays_may_be_read():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = weft.from_numpy(array)
    assert (x + 1).tolist() == [1, 2, 3]
    compiled = weft.compile(lambda x: x.add_(1))
    for write in (
        lambda: x.add_(1),
        lambda: x.zero_(),
        lambda: x.__setitem__(0, 1.0),
        lambda: x[0].fill_(2),
        lambda: compiled(x),
    ):
        with pytest.raises(RuntimeError, match="read-only"):
            write()


def test_numpy_functions_take_tensors():
    x = weft.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.sum(np.asarray(x)) == 10 and np.array(x, dtype="f8").dtype == np.float64
    assert np.asarray(x.t()).tolist() == [[1, 3], [2, 4]]
    np.testing.assert_array_equal(np.stack([x, x]), np.stack([x.numpy()] * 2))


def test_dlpack():
    array = np.arange(4.0)
    x = weft.from_dlpack(array)
    x[0] = 5.0
    assert array[0] == 5 and np.from_dlpack(x)[0] == 5 and x.__dlpack_device__() == (1, 0)
    with pytest.raises(RuntimeError, match="detach"):
        weft.ones(2, requires_grad=True).__dlpack__()


def test_dlpack_with_torch():
    torch = pytest.importorskip("torch")
    x = weft.arange(6.0).reshape(2, 3).t()
    y = torch.from_dlpack(x)
    assert y.stride() == x.stride() and y.data_ptr() == x.data_ptr()
    z = weft.from_dlpack(y * 2)
    assert z.tolist() == (x * 2).tolist() and z.dtype is weft.float32


def test_copy_and_pickle():
    x = weft.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    assert (
        twin.tolist() == x.tolist()
        and twin.requires_grad
        and twin.grad.tolist() == [2.0, 4.0]
        and twin.data_ptr() != x.data_ptr()
    )
    shared = copy.deepcopy({"a": x, "b": x})
    assert shared["a"] is shared["b"]
    back = pickle.loads(pickle.dumps(x))
    assert back.tolist() == x.tolist() and back.requires_grad and back.dtype is x.dtype
    stream = io.BytesIO()
    pickle.dump(weft.int8, stream)
    stream.seek(0)
    assert pickle.load(stream) is weft.int8
    assert copy.copy(x).data_ptr() == x.data_ptr() and copy.copy(x).requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(x * 2)


def test_pandas_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.5], "n": [1, 2], "s": ["x", "y"]})
    assert weft.tensor(frame["a"]).dtype is weft.float64 and weft.tensor(frame["n"]).tolist() == [1, 2]
    with pytest.raises(TypeError, match="tensor: "):
        weft.tensor(frame["s"])
    assert weft.from_dataframe(frame[["a", "n"]]).tolist() == [[1.5, 1.0], [2.5, 2.0]]
