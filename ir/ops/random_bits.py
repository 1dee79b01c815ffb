"""random_bits and threefry: the counter-based generator Threefry-2x32 with 20 rounds (Salmon and others, 2011).

Every element is a pure function of the stream's seed, the number of the draw and the element's row-major position, so
that eager and compiled programs, in any number of threads, draw the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import ZERO_GRAD, Trait
from ..types import Axes, DType, TensorType, int64, uint32, uint64
from .infer import check_shape
from .registry import OPS

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 20

Word = Any
"""An array, or one number, of uint32."""


def threefry2x32(key: tuple[Word, Word], counter: tuple[Word, Word]) -> tuple[np.ndarray, np.ndarray]:
    """Two random 32-bit words for each counter. All words are uint32 arrays of shapes that broadcast."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(PARITY))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for r in range(ROUNDS):
        turn = ROTATIONS[r % 8]
        first = first + second
        second = ((second << np.uint32(turn)) | (second >> np.uint32(32 - turn))) ^ first
        if r % 4 == 3:
            step = r // 4 + 1
            first = first + keys[step % 3]
            second = second + (keys[(step + 1) % 3] + np.uint32(step))
    return first, second


def _low(word: np.ndarray) -> np.ndarray:
    return (word & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _high(word: np.ndarray) -> np.ndarray:
    return (word >> np.uint64(32)).astype(np.uint32)


def _infer(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    (state,), shape, dtype = types, attrs["shape"], attrs["dtype"]
    if state.dtype is not uint64 or state.shape != (2,):
        raise DTypeError(f"random_bits: the state must be u64[2], got {state}")
    if dtype is not uint32 and dtype is not uint64:
        raise DTypeError(f"random_bits: bits are uint32 or uint64, not {dtype.name}")
    check_shape("random_bits", shape)
    return TensorType(shape, dtype, state.device)


def _random_bits(state: np.ndarray, shape: Axes, dtype: DType) -> np.ndarray:
    return _threefry(state[:1], state[1:], np.arange(math.prod(shape)), dtype).reshape(shape)


def _infer_threefry(types: Sequence[TensorType], attrs: Mapping[str, Any]) -> TensorType:
    seed, draw, element = types
    if (seed.dtype, draw.dtype, element.dtype) != (uint64, uint64, int64):
        raise DTypeError(f"threefry: takes u64, u64 and i64, got {seed}, {draw} and {element}")
    if not seed.shape == draw.shape == element.shape:
        raise ShapeError(f"threefry: the operands have different shapes, {seed}, {draw} and {element}")
    return element.with_dtype(attrs["dtype"])


def _threefry(seed: np.ndarray, draw: np.ndarray, element: np.ndarray, dtype: DType) -> np.ndarray:
    shape = np.shape(element)
    seed, draw = np.atleast_1d(seed, draw)  # arrays, not scalars: uint32 arithmetic then wraps silently
    element = np.atleast_1d(element).astype(np.uint64)
    key = (_low(seed) ^ _high(draw), _high(seed) ^ _high(element))
    first, second = threefry2x32(key, (_low(element), _low(draw)))
    if dtype is uint32:
        return first.reshape(shape)
    return (first.astype(np.uint64) | (second.astype(np.uint64) << np.uint64(32))).reshape(shape)


OPS.declare(
    "random_bits",
    infer=_infer,
    evaluate=_random_bits,
    vjp=ZERO_GRAD,
    attrs={"dtype": DType, "shape": tuple},
    traits=[Trait.RANDOM],
    torch_name="Random",
)
OPS.declare(
    "threefry",  # random_bits, element by element: of a seed, a draw, a number of an element
    infer=_infer_threefry,
    evaluate=_threefry,
    vjp=ZERO_GRAD,
    attrs={"dtype": DType},
    traits=[Trait.ELEMENTWISE],
    arity=3,
    torch_name="Random",
)
