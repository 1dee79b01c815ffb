"""Random numbers: generators, and draws from them.

A generator's state is a tensor of two numbers, the seed and the number of the next draw. A draw reads counter-based
random bits (`random_bits`, Threefry-2x32) for its own number and adds one to it, by ordinary operations on the state:
eager and compiled programs draw the same numbers. The recipes, for bits b of an element:

- uniform on [0, 1): the top 24 of 32 bits times 2**-24 (float32), the top 53 of 64 bits times 2**-53 (float64);
- normal (Box and Muller): sqrt(-2 log u) * cos(2 pi v). float32: of 64 bits, u = high word * 2**-32 + 2**-33 and v =
the top 24 bits of
  the low word * 2**-24. float64: two draws of 64 bits, u = (top 53 bits + 1) * 2**-53, v = top 53 bits * 2**-53;
- integers below n: 64 bits modulo n; permutations: the order of 64 random bits per element.
"""
from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.errors import DTypeError, ShapeError
from ..ir.ops import OPS
from ..ir.types import DType, float32, float64, int64, uint32, uint64
from .arithmetic import add, div, mul
from .axes import check_sizes, sizes
from .comparison import select_by
from .creation import finished
from .device import as_device
from .dispatch import EMIT, apply, write
from .dtypes import as_dtype, get_default_dtype
from .grad_mode import no_grad
from .inplace import assign
from .location import error
from .promotion import Operand, as_tensor_of, broadcast_all, operand
from .scalars import RuntimeScalar
from .scans import searchsorted, topk
from .state import STATE
from .tensor import Tensor, method, wrap

_DEFAULT_SEED = 67280421310721
_DRAWING = threading.Lock()


class Generator:
    """A stream of random numbers: `weft.Generator().manual_seed(0)`, given to functions as `generator=`."""

    def __init__(self, device: Any = None) -> None:
        as_device(device)
        self._state = wrap(np.array([_DEFAULT_SEED, 0], np.uint64))

    def manual_seed(self, seed: Any) -> Generator:
        """Starts the stream of `seed` from its beginning."""
        if STATE.trace is None and type(seed) is not RuntimeScalar:
            self._state._memory()[:] = (_seed_bits(seed), 0)
            self._state._storage.version += 1
            return self
        word = EMIT.view_as(EMIT.cast(as_tensor_of(seed, int64), uint64), (1,)) if type(seed) is RuntimeScalar else \
            EMIT.literal(values=(_seed_bits(seed),), shape=(1,), dtype=uint64)
        with no_grad():
            write(self._state, EMIT.concatenate(word, EMIT.full((1,), 0, uint64), dim=0), "manual_seed")
        return self

    def seed(self) -> int:
        """Starts an unpredictable stream; its seed."""
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return int(self._state._memory()[0])

    def get_state(self) -> Tensor:
        """A copy of the state: seed and number of draws."""
        return self._state.clone()

    def set_state(self, state: Tensor) -> Generator:
        """Continues from a state that `get_state` gave."""
        if state.dtype is not uint64 or tuple(state.shape) != (2,):
            raise error(DTypeError, f"set_state: a state is a uint64 tensor of two numbers, got {state.dtype} "
                                    f"{list(state.shape)}")
        with no_grad():
            write(self._state, state, "set_state")
        return self

    @property
    def device(self) -> Any:
        """The device of the stream."""
        return self._state.device

    def bits(self, shape: Sequence[int], dtype: DType) -> Tensor:
        """One draw of random bits, uint32 or uint64."""
        state, attrs = self._state, {"shape": tuple(shape), "dtype": dtype}
        if STATE.checkpoint is not None:
            STATE.checkpoint.drawing(self)
        if STATE.trace is None:
            with _DRAWING:
                array = state._memory()
                result = wrap(OPS.random_bits.evaluate(array, **attrs))
                array[1] += np.uint64(1)
                state._storage.version += 1
            return result
        with no_grad():
            result = apply(OPS.random_bits, (state,), attrs)
            write(state, apply(OPS.add, (state, EMIT.literal(values=(0, 1), shape=(2,), dtype=uint64))), "random")
        return result


default_generator = Generator()


def _seed_bits(seed: int) -> int:
    value = int(seed)
    if not -(1 << 63) <= value < 1 << 64:
        raise error(DTypeError, f"manual_seed: the seed {seed} does not fit in 64 bits")
    return value % (1 << 64)


def manual_seed(seed: Any) -> Generator:
    """Starts the default stream of random numbers from `seed`."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Starts an unpredictable default stream; its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """A copy of the default stream's state."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continues the default stream from a state."""
    default_generator.set_state(new_state)


# ---- recipes ---------------------------------------------------------------------------------------------------------

def _shifted(bits: Tensor, by: int) -> Tensor:
    return EMIT.shift_right(bits, EMIT.full_like(bits, by))


def _fraction(bits: Tensor, dtype: DType) -> Tensor:
    """Uniform on [0, 1) from 32 bits (float32) or 64 (float64)."""
    drop, scale = (8, 2.0 ** -24) if dtype is float32 else (11, 2.0 ** -53)
    return EMIT.scale(EMIT.cast(_shifted(bits, drop), dtype), scale)


def uniform_values(shape: Sequence[int], dtype: DType, generator: Generator | None = None) -> Tensor:
    """Uniform on [0, 1)."""
    source = generator or default_generator
    return _fraction(source.bits(shape, uint32 if dtype is float32 else uint64), dtype)


def normal_values(shape: Sequence[int], dtype: DType, generator: Generator | None = None) -> Tensor:
    """Standard normal."""
    source, shape = generator or default_generator, tuple(shape)
    if dtype is float32:
        bits = source.bits(shape, uint64)
        high, low = EMIT.cast(_shifted(bits, 32), uint32), EMIT.cast(bits, uint32)
        u = EMIT.scale(EMIT.cast(high, float32), 2.0 ** -32)
        u = EMIT.add(u, EMIT.full_like(u, 2.0 ** -33))
        v = _fraction(low, float32)
    else:
        u = _fraction(source.bits(shape, uint64), float64)
        u = EMIT.add(u, EMIT.full_like(u, 2.0 ** -53))
        v = _fraction(source.bits(shape, uint64), float64)
    radius = EMIT.sqrt(EMIT.scale(EMIT.log(u), -2.0))
    return EMIT.mul(radius, EMIT.cos(EMIT.scale(v, 2 * math.pi)))


def integer_values(shape: Sequence[int], low: int, high: int, generator: Generator | None = None) -> Tensor:
    """int64 in [low, high)."""
    bits = (generator or default_generator).bits(shape, uint64)
    if high - low == 1 << 64:
        return EMIT.bitcast(bits, dtype=int64)
    place = EMIT.cast(EMIT.remainder(bits, EMIT.full_like(bits, high - low)), int64)
    return EMIT.add(place, EMIT.full_like(place, low))


def _float_type(name: str, dtype: DType | None) -> DType:
    chosen = get_default_dtype() if dtype is None else as_dtype(dtype)
    if not chosen.is_floating_point:
        raise error(DTypeError, f"{name}: random numbers of {chosen} are not defined: use a floating-point dtype, or "
                                "randint")
    return chosen


# ---- new tensors -----------------------------------------------------------------------------------------------------

def rand(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """Uniform on [0, 1)."""
    as_device(device)
    return finished(uniform_values(check_sizes("rand", sizes(size)), _float_type("rand", dtype), generator),
                    requires_grad)


def randn(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
    """Standard normal."""
    as_device(device)
    return finished(normal_values(check_sizes("randn", sizes(size)), _float_type("randn", dtype), generator),
                    requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
              generator: Generator | None = None) -> Tensor:
    """Uniform on [0, 1), in the shape and dtype of a tensor."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad,
                generator=generator)


def randn_like(input: Tensor, *, dtype: DType | None = None, device: Any = None, requires_grad: bool = False,
               generator: Generator | None = None) -> Tensor:
    """Standard normal, in the shape and dtype of a tensor."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad,
                 generator=generator)


def randint(low: int, high: Any = None, size: Any = None, *, generator: Generator | None = None,
            dtype: DType | None = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """Integers in [low, high), int64 unless `dtype` is given: `randint(high, size)` or `randint(low, high, size)`."""
    as_device(device)
    if size is None:
        low, high, size = 0, low, high
    low, high = operator.index(low), operator.index(high)
    if not low < high:
        raise error(ShapeError, f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    shape = check_sizes("randint", sizes([size]))
    return finished(EMIT.cast(integer_values(shape, low, high, generator), as_dtype(dtype or int64)), requires_grad)


def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: DType | None = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
    """Integers in [low, high), in the shape and dtype of a tensor."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input.shape), dtype=dtype or input.dtype, device=device,
                   requires_grad=requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: DType = int64, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The numbers 0 to n - 1 in random order."""
    as_device(device)
    keys = (generator or default_generator).bits(check_sizes("randperm", (n,)), uint64)
    _, order = apply(OPS.sort, (keys,), {"dim": 0, "descending": False})
    return finished(EMIT.cast(order, as_dtype(dtype)), requires_grad)


def normal(mean: Operand = 0.0, std: Operand = 1.0, size: Any = None, *, generator: Generator | None = None,
           dtype: DType | None = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal with the given means and standard deviations: numbers (with `size`) or tensors."""
    as_device(device)
    if size is not None:
        chosen = _float_type("normal", dtype)
        return finished(add(mul(normal_values(sizes([size]), chosen, generator), std), mean), requires_grad)
    chosen = next((x.dtype for x in (mean, std) if isinstance(x, Tensor)), get_default_dtype())
    center, spread = broadcast_all("normal", [as_tensor_of(operand("normal", x), chosen) for x in (mean, std)])
    return finished(add(mul(normal_values(tuple(center.shape), chosen, generator), spread), center), requires_grad)


@method()
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element says (or `p`), else 0."""
    if not input.dtype.is_floating_point:
        raise error(DTypeError, f"bernoulli: the probabilities must be floating point, got {input.dtype}")
    draw = uniform_values(tuple(input.shape), input.dtype, generator)
    return EMIT.cast(draw < (input.detach() if p is None else p), input.dtype)


@method()
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn in proportion to the weights in each row."""
    if input.ndim not in (1, 2) or not input.dtype.is_floating_point:
        raise error(DTypeError, f"multinomial: weights are a floating-point vector or matrix, got {input.dtype} of "
                                f"shape {list(input.shape)}")
    weights, n = input.detach(), input.shape[-1]
    if not replacement and num_samples > n:
        raise error(ShapeError, "cannot sample n_sample > prob_dist.size(-1) samples without replacement: "
                                f"{num_samples} > {n}")
    if replacement:
        edges = weights.cumsum(-1)
        draw = uniform_values((*input.shape[:-1], num_samples), input.dtype, generator)
        return searchsorted(edges, mul(draw, edges[..., -1:]), right=True).clamp(0, n - 1)
    clock = div(uniform_values(tuple(input.shape), input.dtype, generator).log(), weights)
    # the largest log(u) / w are a draw without replacement
    clock = select_by(weights > 0, clock, -math.inf, clock.dtype)
    return topk(clock, num_samples).indices


# ---- in place --------------------------------------------------------------------------------------------------------

def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


@method()
def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with uniform numbers on [a, b)."""
    u = uniform_values(_shape(self), _float_type("uniform_", self.dtype), generator)
    return assign(self, add(mul(u, b - a), a), "uniform_")


@method()
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with normal numbers."""
    z = normal_values(_shape(self), _float_type("normal_", self.dtype), generator)
    return assign(self, add(mul(z, std), mean), "normal_")


@method()
def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with numbers whose logarithm is normal."""
    z = normal_values(_shape(self), _float_type("log_normal_", self.dtype), generator)
    return assign(self, add(mul(z, std), mean).exp(), "log_normal_")


@method()
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with exponential numbers of rate `lambd`."""
    u = uniform_values(_shape(self), _float_type("exponential_", self.dtype), generator)
    return assign(self, div(u.neg().log1p(), -lambd), "exponential_")


@method()
def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with Cauchy numbers."""
    u = uniform_values(_shape(self), _float_type("cauchy_", self.dtype), generator)
    return assign(self, add(mul(mul(add(u, -0.5), math.pi).tan(), sigma), median), "cauchy_")


@method()
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with numbers of trials up to the first success of probability p."""
    u = uniform_values(_shape(self), self.dtype if self.dtype.is_floating_point else float64, generator)
    trials = div(u.neg().log1p(), math.log1p(-p)).ceil().clamp(1)
    return assign(self, EMIT.cast(trials, self.dtype), "geometric_")


@method()
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with 1 of probability p, else 0."""
    work = float32 if self.dtype is not float64 else float64
    draw = uniform_values(_shape(self), work, generator)
    return assign(self, EMIT.cast(draw < p, self.dtype), "bernoulli_")


@method()
def random_(self: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with integers in [from_, to), or below `from_` when it stands alone; all exact values of the
    dtype by default."""
    low, high = (from_, to) if to is not None else (0, from_ or _span(self.dtype))
    low, high = operator.index(low), operator.index(high)
    if not low < high:
        raise error(ShapeError, f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    return assign(self, EMIT.cast(integer_values(_shape(self), low, high, generator), self.dtype), "random_")


def _span(dtype: DType) -> int:
    if dtype.kind == "float":
        return 1 << (24 if dtype is float32 else 53)
    return 2 if dtype.kind == "bool" else 1 << (dtype.bits - dtype.is_signed)
