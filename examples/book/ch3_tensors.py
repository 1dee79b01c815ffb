"""Chapter 3: tensors. Making them from values, from a specification and from data sets; operations, indexing, views,
broadcasting. Run: python examples/book/ch3_tensors.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import weft

DATA = Path(__file__).resolve().parent.parent / "data"


def show(title: str, value: Any) -> Any:
    """Prints a titled value and returns it."""
    text = str(value)
    print(f"{title}:" + (f"\n{text}" if "\n" in text else f" {text}"))
    return value


def refusal(action: Any) -> str:
    """The message of the error that `action` raises."""
    try:
        action()
    except (RuntimeError, TypeError, ValueError) as failure:
        return str(failure)
    raise AssertionError("an error was expected")


def what_a_tensor_is() -> dict[str, Any]:
    """3.1: one value, and what belongs to it."""
    t = weft.tensor(1.0)
    show("a scalar", t)
    show("dtype, device, shape", (t.dtype, t.device, t.shape))
    return {
        "dtype": t.dtype,
        "device": str(t.device),
        "shape": tuple(t.shape),
        "as int": t.to(weft.int32).dtype,
        "as matrix": tuple(t.view(1, 1).shape),
        "no such device": show("an absent device", refusal(lambda: t.to("cuda:99"))),
    }


def from_values() -> dict[str, Any]:
    """3.2.1: lists and arrays; R fills matrices by column, NumPy's order="F" is the same memory."""
    by_column = np.arange(1, 10).reshape(3, 3, order="F")
    cube = np.arange(1, 25).reshape(4, 3, 2, order="F")
    return {
        "vector": show("a vector", weft.tensor([1, 2, 3, 4, 5])).tolist(),
        "by column": show("filled by column", weft.tensor(by_column)).tolist(),
        "by row": show("filled by row", weft.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])).tolist(),
        "cube": show("three axes, filled from the first", weft.tensor(cube)).tolist(),
    }


def from_specification() -> dict[str, Any]:
    """3.2.2: random tensors, and those with a pattern."""
    weft.manual_seed(1)
    return {
        "randn": tuple(show("normal", weft.randn(3, 3)).shape),
        "rand": bool((show("uniform", weft.rand(3, 3)) >= 0).all()),
        "zeros": show("zeros", weft.zeros(2, 5)).tolist(),
        "ones": show("ones", weft.ones(2, 2)).tolist(),
        "eye": show("identity", weft.eye(5)).tolist(),
        "diag": show("diagonal", weft.diag(weft.tensor([1.0, 2.0, 3.0]))).tolist(),
    }


def from_data() -> dict[str, Any]:
    """3.2.3: a series of quarterly earnings, a table with a factor, dates, strings, missing values."""
    earnings = weft.tensor(pd.read_csv(DATA / "johnson_johnson.csv")["earnings_per_share_usd"].astype("float32"))
    show("Johnson & Johnson", earnings[:6])
    trees = pd.read_csv(DATA / "orange.csv")
    levels = pd.CategoricalDtype([3, 1, 5, 2, 4], ordered=True)
    orange = weft.data.from_dataframe(trees.assign(tree=trees["tree"].astype(levels)).drop(columns="tree_code"))
    show("orange trees: code of the tree, age, circumference", orange[:3])
    visits = pd.DataFrame(
        {"age": [22, 35], "date": pd.to_datetime(["2012-06-28", "2012-06-29"]), "location": ["oakland", "berkeley"]}
    )
    days = weft.data.from_dataframe(visits[["date"]], dtype=weft.int64)
    show("days since 1970", days[:, 0])
    missing = weft.tensor(pd.Series([1, None, 3]))
    return {
        "earnings": earnings.tolist(),
        "orange": orange.tolist(),
        "days": days[:, 0].tolist(),
        "strings": show("strings", refusal(lambda: weft.data.from_dataframe(visits))),
        "missing": [None if value != value else value for value in missing.tolist()],
        "median": show("median without the missing value", weft.nanquantile(missing, 0.5)).item(),
    }


def operations() -> dict[str, Any]:
    """3.3: functions and methods, in place and not, products."""
    a, b = weft.tensor([1, 2]), weft.tensor([3, 4])
    added, method, untouched = weft.add(a, b).tolist(), a.add(b).tolist(), a.tolist()
    a.add_(b)
    u, v = weft.tensor([1, 2, 3]), weft.tensor([4, 5, 6])
    matrix = weft.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]])
    return {
        "added": added,
        "method": method,
        "untouched": untouched,
        "in place": show("a after a.add_(b)", a).tolist(),
        "dot": show("dot", u.dot(v)).item(),
        "dot of transposed": u.t().dot(v).item(),
        "matmul": show("matmul", matrix.matmul(u)).tolist(),
        "multiply": show("elementwise", u.multiply(v)).tolist(),
    }


def aggregation() -> dict[str, Any]:
    """3.3.1: sums and means over all axes, or over the axes that `dim` names."""
    m = weft.outer(weft.arange(1, 7), weft.arange(1, 4))
    weft.manual_seed(7)
    series = weft.randn(4, 3, 2)  # persons x times x features
    return {
        "total": show("total", m.sum()).item(),
        "by row": show("sums of rows", m.sum(dim=1)).tolist(),
        "by column": show("sums of columns", m.sum(dim=0)).tolist(),
        "series": series.tolist(),
        "features": show("mean of each feature", series.mean(dim=(0, 1))).tolist(),
        "persons": show("mean over time", series.mean(dim=1)).tolist(),
    }


def indexing() -> dict[str, Any]:
    """3.4: positions, ranges with steps, negative positions, and the ellipsis that works for any number of axes."""
    t = weft.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    wide = weft.tensor([[*range(1, 11)], [*range(11, 21)]])
    cube = weft.arange(8).reshape(2, 2, 2)
    return {
        "row": show("first row", t[0]).tolist(),
        "kept": show("first row, axis kept", t[0:1]).tolist(),
        "last": weft.tensor([1, 2, 3, 4])[-1].item(),
        "steps": show("every other of eight", wide[:, 0:8:2]).tolist(),
        "first of any": [x[0, ...].tolist() for x in (t[0], t, cube)],
        "last axis": cube[..., 0].tolist(),
        "both": cube[0, ..., 0].tolist(),
    }


def reshaping() -> dict[str, Any]:
    """3.5: views read the same memory in another order; reshape copies only when it must."""
    t = weft.zeros(24)
    t2 = t.view(2, 12)
    m = weft.tensor([[*range(1, 6)], [*range(6, 11)], [*range(11, 16)]])
    column = m.view(5, 3)
    turned = m.t()
    copied = turned.reshape(15)
    vector = weft.randn(3)
    return {
        "same memory": show("view shares memory", t.data_ptr() == t2.data_ptr()),
        "strides": show("strides", m.stride()),
        "strides of view": column.stride(),
        "strides of transpose": turned.stride(),
        "transpose shares": m.data_ptr() == turned.data_ptr(),
        "unsqueezed": tuple(vector.unsqueeze(0).shape),
        "at the end": tuple(vector.unsqueeze(1).shape),
        "squeezed": tuple(vector.unsqueeze(0).squeeze(0).shape),
        "no view": show("a view that cannot be", refusal(lambda: turned.view(15))),
        "copied": copied.data_ptr() != turned.data_ptr(),
        "reshape shares": m.reshape(15).data_ptr() == m.data_ptr(),
        "values": copied.tolist(),
    }


def broadcasting() -> dict[str, Any]:
    """3.6: shapes are compared from the right; sizes must be equal, or 1."""
    m = weft.arange(1, 16).reshape(3, 5)
    row = weft.arange(1, 6)
    return {
        "scaled": (weft.ones(3, 5) * 0.5).tolist(),
        "row": show("a row added to every row", m + row.reshape(1, 5)).tolist(),
        "vector": (m + row).tolist(),
        "both sides": tuple((weft.zeros(3, 7, 1) + weft.zeros(1, 5)).shape),
        "error": show("shapes that do not fit", refusal(lambda: weft.zeros(4, 3, 2, 1).add(weft.ones(4, 3, 2)))),
    }


def main() -> dict[str, dict[str, Any]]:
    """Runs every section; what each one found."""
    found = {}
    for section in (
        what_a_tensor_is,
        from_values,
        from_specification,
        from_data,
        operations,
        aggregation,
        indexing,
        reshaping,
        broadcasting,
    ):
        print(f"\n--- {section.__name__.replace('_', ' ')}")
        found[section.__name__] = section()
    return found


if __name__ == "__main__":
    main()
