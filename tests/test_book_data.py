"""Data frames as tensors."""

from __future__ import annotations

import numpy as np
import pytest

import weft

pd = pytest.importorskip("pandas")


def test_every_kind_of_column() -> None:
    frame = pd.DataFrame(
        {
            "int": [1, 2, 3],
            "float": [0.5, np.nan, 1.5],
            "bool": [True, False, True],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "category": pd.Categorical(["b", None, "a"], categories=["b", "a"]),
            "date": pd.to_datetime(["1970-01-02", None, "2012-06-28"]),
        }
    )
    found = weft.data.from_dataframe(frame)
    assert found.dtype is weft.float32
    np.testing.assert_array_equal(
        found.numpy(), [[1, 0.5, 1, 1, 0, 1], [2, np.nan, 0, np.nan, np.nan, np.nan], [3, 1.5, 1, 3, 1, 15519]]
    )


def test_dtype() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 2**24 + 1]})
    assert weft.data.from_dataframe(frame, dtype=weft.int64).tolist() == [[1, 3], [2, 2**24 + 1]]
    assert tuple(weft.data.from_dataframe(frame[[]]).shape) == (2, 0)
    with pytest.raises(TypeError, match="column 'x' has missing values"):
        weft.data.from_dataframe(pd.DataFrame({"x": [1, None]}), dtype=weft.int64)


@pytest.mark.parametrize("values", [["a", "b"], [object(), 1]])
def test_other_columns_are_refused_by_name(values) -> None:
    with pytest.raises(TypeError, match="column 'place' holds .* categories"):
        weft.data.from_dataframe(pd.DataFrame({"n": [1, 2], "place": values}))
