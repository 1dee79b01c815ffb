"""Tensors as text, laid out as torch lays them out: four digits, scientific where the range asks for it, a summary over
1000 elements."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir.types import DType, bool_, float32, int64
from .dtypes import get_default_dtype
from .state import STATE
from .tape import tensor_requires_grad
from .tensor import Tensor, method


@dataclass(frozen=True)
class PrintOptions:
    """How tensors print; see `set_printoptions`."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


class _Current:
    options = PrintOptions()


def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Sets how tensors print: digits, the size above which they are summarised, elements at each edge of a summary,
    line width."""
    if profile is not None:
        profiles = {"default": PrintOptions(), "short": PrintOptions(precision=2, edgeitems=2),
                    "full": PrintOptions(threshold=math.inf)}
        _Current.options = profiles[profile]
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth,
             "sci_mode": sci_mode}
    _Current.options = replace(_Current.options, **{k: v for k, v in given.items()
                                                    if v is not None})  # type: ignore[arg-type]


def get_printoptions() -> dict[str, Any]:
    """The current print options."""
    options = _Current.options
    return {"precision": options.precision, "threshold": options.threshold, "edgeitems": options.edgeitems,
            "linewidth": options.linewidth,
            "sci_mode": options.sci_mode}


class _Formatter:
    """Chooses one format for all elements shown, and pads them to one width."""

    def __init__(self, values: np.ndarray, options: PrintOptions) -> None:
        self.options = options
        self.floating = values.dtype.kind == "f"
        self.whole, self.scientific = True, False
        flat = values.reshape(-1)
        if self.floating:
            flat = flat[np.isfinite(flat) & (flat != 0)].astype(np.float64)  # these alone choose format and width
            self._choose(flat)
        self.width = max((len(self._text(x)) for x in flat.tolist()), default=1)

    def _choose(self, finite: np.ndarray) -> None:
        """The format by the finite nonzero elements: whole numbers, decimals, or scientific."""
        if not finite.size:
            self.scientific = bool(self.options.sci_mode)
            return
        size = np.abs(finite)
        low, high = float(size.min()), float(size.max())
        self.whole = bool((finite == np.ceil(finite)).all())
        wide = high / low > 1000.0 or high > 1.0e8
        self.scientific = wide if self.whole else wide or low < 1.0e-4
        if self.options.sci_mode is not None:
            self.scientific = self.options.sci_mode

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{self.options.precision}e}"
        if self.whole:
            text = f"{value:.0f}"
            return text if math.isinf(value) or math.isnan(value) else f"{text}."
        return f"{value:.{self.options.precision}f}"

    def text(self, value: Any) -> str:
        """One element, right-aligned."""
        return self._text(value).rjust(self.width)


def _vector(values: np.ndarray, indent: int, summarise: bool, formatter: _Formatter) -> str:
    options = formatter.options
    per_line = max(1, int((options.linewidth - indent) // (formatter.width + 2)))
    edge = options.edgeitems
    if summarise and not edge:
        cells = ["..."]
    elif summarise and len(values) > 2 * edge:
        cells = [*map(formatter.text, values[:edge].tolist()), " ...", *map(formatter.text, values[-edge:].tolist())]
    else:
        cells = list(map(formatter.text, values.tolist()))
    lines = [", ".join(cells[k:k + per_line]) for k in range(0, len(cells), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _block(values: np.ndarray, indent: int, summarise: bool, formatter: _Formatter) -> str:
    if values.ndim == 0:
        return formatter.text(values.item())
    if values.ndim == 1:
        return _vector(values, indent, summarise, formatter)
    edge = formatter.options.edgeitems
    if summarise and len(values) > 2 * edge:
        rows = [_block(v, indent + 1, summarise, formatter) for v in values[:edge]] + ["..."]
        rows += [_block(v, indent + 1, summarise, formatter) for v in values[len(values) - edge:]]
    else:
        rows = [_block(v, indent + 1, summarise, formatter) for v in values]
    return "[" + ("," + "\n" * (values.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def _edges(values: np.ndarray, edge: int) -> np.ndarray:
    """The elements that a summary shows: they alone choose the format."""
    for d in range(values.ndim):
        n = values.shape[d]
        if n > 2 * edge:
            values = np.take(values, [*range(edge), *range(n - edge, n)], d)
    return values


def elements_text(array: np.ndarray, indent: int = 0) -> str:
    """The elements of an array between brackets."""
    options = _Current.options
    summarise = array.size > options.threshold
    formatter = _Formatter(_edges(array, options.edgeitems) if summarise else array, options)
    return _block(array, indent, summarise, formatter)


def _implied_by_text(dtype: DType) -> bool:
    return dtype in (get_default_dtype(), int64, bool_) or (dtype is float32 and get_default_dtype() is float32)


def tensor_text(x: Tensor, contents: str | None = None) -> str:
    """The tensor as torch prints it; in a trace, where values are not known, it shows its type."""
    head = "tensor("
    if x._array is None or STATE.trace is not None:
        return f"tensor(<traced {x.type_}>)"
    array, suffixes = x._array, []
    if array.size == 0:
        text = "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        if x.dtype is not get_default_dtype():
            suffixes.append(f"dtype={x.dtype!r}")
    else:
        text = elements_text(array, len(head)) if contents is None else contents
        if not _implied_by_text(x.dtype):
            suffixes.append(f"dtype={x.dtype!r}")
    record = x.grad_fn
    if record is not None:
        suffixes.append(f"grad_fn=<{record.name}>")
    elif tensor_requires_grad(x):
        suffixes.append("requires_grad=True")
    return _with_suffixes(head + text, suffixes, len(head))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Suffixes after the elements, on a new line where they would run over the line width."""
    parts, length = [text], len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > _Current.options.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            length = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            length += len(suffix) + 2
    return "".join(parts) + ")"


method("__repr__")(tensor_text)
