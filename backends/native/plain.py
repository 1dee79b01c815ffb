"""The plain meaning of the kernel language: every word as a NumPy function, so that kernel sources run without a
compiler.

`run_kernel(source, start, stop, arrays)` is the oracle for generated code: slow, and the same results up to the
last bits of elementary functions."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.types import BY_NUMPY, BY_SHORT
from .arithmetic import Arithmetic
from .vocabulary import ALL, CONSTANTS, LANES, WORDS, Word
from .words import definition_of

_C_LIBRARY: Mapping[str, Callable[..., Any]] = {"fmod": np.fmod, "sin": np.sin, "cos": np.cos, "tan": np.tan}


class NumpyArithmetic(Arithmetic):
    """Values are NumPy arrays or scalars of their dtype."""

    def within(self, short: str) -> NumpyArithmetic:
        """Values carry their dtype: a new instance is enough."""
        return NumpyArithmetic(short)

    def const(self, value: float | int | bool, short: str | None = None) -> Any:
        """A NumPy scalar; integers wrap."""
        dtype = BY_SHORT[short or self.short]
        if dtype.is_integer:
            value = int(value) % 2**dtype.bits
            if dtype.kind == "int" and value >= 2 ** (dtype.bits - 1):
                value -= 2**dtype.bits
        return dtype.numpy.type(value)

    def short_of(self, x: Any) -> str:
        """By the NumPy dtype."""
        return BY_NUMPY[x.dtype].short

    def _pair(self, x: Any, y: Any) -> tuple[Any, Any]:
        if not isinstance(x, (np.ndarray, np.generic)):
            x = self.const(x, self.short_of(y))
        if not isinstance(y, (np.ndarray, np.generic)):
            y = self.const(y, self.short_of(x))
        return x, y

    def select(self, condition: Any, x: Any, y: Any) -> Any:
        """np.where."""
        return np.where(condition, *self._pair(x, y))[()]

    def convert(self, x: Any, short: str) -> Any:
        """astype, saturating from floats to integers."""
        target = BY_SHORT[short]
        if target.kind == "bool":
            return x != 0
        if BY_NUMPY[x.dtype].kind == "float" and target.kind != "float":
            return self._saturate(x, short)
        return x.astype(target.numpy)

    def _saturate(self, x: Any, short: str) -> Any:
        limits = np.iinfo(BY_SHORT[short].numpy)
        wide = np.trunc(np.where(np.isnan(x), 0, x).astype(np.longdouble))
        return np.clip(wide, limits.min, limits.max).astype(BY_SHORT[short].numpy)[()]

    def bitcast(self, x: Any, short: str) -> Any:
        """A view."""
        return np.asarray(x).view(BY_SHORT[short].numpy)[()]

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """f32 through f64, f64 through error-free products and sums."""
        short = next(self.short_of(v) for v in (x, y, z) if isinstance(v, (np.ndarray, np.generic)))
        x, y, z = (np.asarray(v, BY_SHORT[short].numpy) for v in (x, y, z))
        if short == "f32":
            return (x.astype(np.float64) * y + z).astype(np.float32)[()]
        return _exact_fma(x, y, z)

    def unary(self, name: str, x: Any) -> Any:
        """NumPy's function of that name."""
        return getattr(np, name)(x)

    def copysign(self, x: Any, y: Any) -> Any:
        """np.copysign."""
        return np.copysign(*self._pair(x, y))

    def divide(self, x: Any, y: Any) -> Any:
        """NumPy's floor division, moved toward zero."""
        x, y = self._pair(x, y)
        quotient = x // y
        if BY_NUMPY[quotient.dtype].kind == "uint":
            return quotient
        one = self.const(1, self.short_of(x))
        return self.select((quotient * y != x) & ((x < 0) ^ (y < 0)), quotient + one, quotient)

    def modulo(self, x: Any, y: Any) -> Any:
        """From `divide`."""
        return x - self.divide(x, y) * y

    def library(self, name: str, *arguments: Any) -> Any:
        """NumPy's function of that name."""
        return _C_LIBRARY[name](*arguments)

    def rare(self, function: Any, condition: Any, usual: Any, *arguments: Any) -> Any:
        """Computed only when some element needs it."""
        return self.select(condition, function(self, *arguments), usual) if np.any(condition) else usual


def _exact_fma(x: Any, y: Any, z: Any) -> Any:
    """x * y + z in f64, rounded once but for rare ties: error-free product and sum, added up in extended precision."""
    high = x.astype(np.longdouble) * y
    total = (high + z).astype(np.float64)
    product = x * y
    split = 134217729.0
    x1, y1 = x * split - (x * split - x), y * split - (y * split - y)
    low = ((x1 * y1 - product) + x1 * (y - y1) + (x - x1) * y1) + (x - x1) * (y - y1)
    rounded = product + z
    back = rounded - product
    error = (product - (rounded - back)) + (z - back)
    result = (rounded.astype(np.longdouble) + (error.astype(np.longdouble) + low)).astype(np.float64)
    return np.where(np.isfinite(result), result, total)[()]


# --- the namespace ---------------------------------------------------------------------------------------------------


class _Pointer:
    """A pointer into a flat array; loads and stores keep the dtype."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __getitem__(self, i: int) -> Any:
        return self.array[self._inside(i)]

    def __setitem__(self, i: int, value: Any) -> None:
        assert np.asarray(value).dtype == self.array.dtype, f"{np.asarray(value).dtype} stored in {self.array.dtype}"
        self.array[self._inside(i)] = value

    def _inside(self, i: int) -> int:
        assert 0 <= i < self.array.size, f"element {i} of a buffer of {self.array.size}"
        return i


class _Buffers:
    """The arguments of a kernel, with the status word before them."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays, self.status = arrays, 0

    def pointer(self, short: str, k: int) -> _Pointer:
        array = self.arrays[k - 1]
        assert array.dtype == BY_SHORT[short].numpy, f"buffer {k} holds {array.dtype}, not {short}"
        return _Pointer(array.reshape(-1))


def _elementwise(word: Word, short: str) -> Callable[..., Any]:
    m = NumpyArithmetic(short.removesuffix(f"x{LANES}"))

    def call(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return definition_of(word.name, m.short)(m, *(_value(a) for a in arguments))

    return call


def _value(x: Any) -> Any:
    """Python's own numbers are i64, f64 and bool."""
    match x:
        case bool():
            return np.bool_(x)
        case int():
            return np.int64((x + 2**63) % 2**64 - 2**63)
        case float():
            return np.float64(x)
    return x


def _fold(word: str) -> Callable[[np.ndarray], Any]:
    def fold(vector: np.ndarray) -> Any:
        definition = definition_of(word, BY_NUMPY[vector.dtype].short)
        m = NumpyArithmetic(BY_NUMPY[vector.dtype].short)
        while vector.size > 1:
            half = vector.size // 2
            vector = definition(m, vector[:half], vector[half:])
        return vector[0]
    return fold


def _blocks(odd: int) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    def blocks(x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
        return np.stack([v.reshape(-1, 2, n)[:, odd] for v in (x, y)], axis=1).reshape(-1)
    return blocks


def _check_index(buffers: _Buffers, i: int, size: int, site: int) -> int:
    if 0 <= i < size:
        return i
    buffers.status = site
    return 0


def _load_vector(pointer: _Pointer, i: int, count: int = LANES) -> np.ndarray:
    vector = np.zeros(LANES, pointer.array.dtype)
    vector[:count] = pointer.array[i:i + min(count, LANES)]
    return vector


def _store_vector(pointer: _Pointer, i: int, vector: np.ndarray, count: int = LANES) -> None:
    pointer.array[i:i + min(count, LANES)] = np.broadcast_to(vector, LANES)[:count]


def _memory(short: str) -> dict[str, Any]:
    return {
        f"pointer_{short}": lambda buffers, k: buffers.pointer(short, k),
        f"local_{short}": lambda count: _Pointer(np.empty(count, BY_SHORT[short].numpy)),
    }


_SPECIAL: dict[str, Any] = {
    "load_x16": _load_vector, "store_x16": _store_vector, "first_lanes": lambda count: np.arange(LANES) < count,
    "splat_x16": lambda x: np.full(LANES, _value(x)), "iota_x16": lambda i: i + np.arange(LANES),
    "lane": lambda vector, k: vector[k], "even_blocks": _blocks(0), "odd_blocks": _blocks(1),
    "check_index": _check_index,
    "quotient": lambda i, n: i // n, "modulus": lambda i, n: i % n,
    **{f"every_{n}": lambda *parts, n=n: np.concatenate(parts)[::n] for n in (2, 3, 4)},
    **{f"repeat_{n}": lambda x, n=n: np.repeat(x[: LANES // n], n) for n in (2, 4)},
    "fold_and": _fold("logical_and"), "fold_or": _fold("logical_or"), "fold_add": _fold("add"),
    "fold_mul": _fold("mul"), "fold_maximum": _fold("maximum"), "fold_minimum": _fold("minimum"), **CONSTANTS,
}
for _short in ALL:
    _SPECIAL.update(_memory(_short))

NAMESPACE: Mapping[str, Any] = {
    name: _SPECIAL[name] if name in _SPECIAL else _elementwise(word, short) for name, (word, short) in WORDS.items()
} | CONSTANTS
"""Every word's plain meaning, by its full name."""


def run_kernel(source: str, start: int, stop: int, arrays: Sequence[np.ndarray]) -> int:
    """Runs a kernel over contiguous arrays, which it writes in place; the status word."""
    namespace: dict[str, Any] = dict(NAMESPACE)
    before = set(namespace)
    exec(compile(source, "<kernel>", "exec"), namespace)
    kernel = next(value for name, value in namespace.items() if name not in before and name != "__builtins__")
    buffers = _Buffers(arrays)
    with np.errstate(all="ignore"):
        kernel(start, stop, buffers)
    return buffers.status
