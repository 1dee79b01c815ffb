"""Data frames as tensors. pandas itself is not imported: its objects bring what is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.errors import DTypeError
from ..ir.types import DType, float32
from ..tracer.creation import tensor
from ..tracer.location import error
from ..tracer.tensor import Tensor


def from_dataframe(frame: Any, dtype: DType = float32) -> Tensor:
    """The columns of a pandas data frame as the columns of a matrix.

    Numbers stay, booleans become 0 and 1, categories their codes (from 0, in the order of the categories), dates the
    days since 1970-01-01, and missing values NaN.

    Raises:
        DTypeError: a column of strings or other objects, or missing values in a dtype without NaN.
    """
    columns = [_column(str(name), frame.iloc[:, k]) for k, name in enumerate(frame.columns)]
    if not dtype.is_floating_point:
        for name, values in zip(frame.columns, columns, strict=True):
            if np.isnan(values).any():
                raise error(
                    DTypeError,
                    f"column {str(name)!r} has missing values, which {dtype} cannot hold: "
                    "use a floating-point dtype, or fill them with `frame.fillna(...)`",
                )
    values = np.stack(columns, axis=1) if columns else np.zeros((len(frame), 0))
    return tensor(values.astype(dtype.numpy), dtype=dtype)


def _column(name: str, series: Any) -> np.ndarray:
    kind = series.dtype
    if hasattr(series, "cat"):
        codes = series.cat.codes.to_numpy().astype(np.float64)
        return np.where(codes < 0, np.nan, codes)
    if getattr(kind, "kind", "O") == "M":
        values = series.to_numpy(dtype="datetime64[D]")
        return np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))
    if getattr(kind, "kind", "O") in "biuf":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    raise error(
        DTypeError,
        f"column {name!r} holds {kind} values, which a tensor cannot: turn it into categories with "
        f"`frame[{name!r}].astype('category')` (their codes are then used), into numbers, or drop it",
    )
