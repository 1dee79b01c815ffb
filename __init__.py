"""weft: a tensor library that feels like torch and runs whole training loops as compiled native code.

The public names. Importing them loads neither Numba nor SciPy nor pandas: those are loaded when first needed.
"""
from . import ir
from .ir.errors import (
    CacheWarning, CompileError, DeviceError, DTypeError, GradientError, IndexRangeError, ParseError, ShapeError, TraceError, VerifyError,
    WeftError,
)
from .ir.types import DType, bool_, float32, float64, int8, int16, int32, int64, uint8, uint32, uint64
from .tracer import autograd_names as autograd
from .tracer import conversion as _conversion  # noqa: F401  (attaches methods to Tensor)
from .tracer.compile import compile
from .tracer.control import cond, scan, while_loop
from .tracer.functional import grad, trace, value_and_grad
from .tracer.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .tracer.loops import range
from .tracer.tensor import Size, Tensor
from .tracer.dtypes import finfo, get_default_dtype, iinfo, is_floating_point, set_default_dtype
from .tracer.device import Device, device
from .tracer.promotion import broadcast_shapes, can_cast, promote_types, result_type
from .tracer.creation import (
    arange, as_tensor, asarray, empty, empty_like, empty_strided, eye, fill, full, full_like, linspace, logspace,
    ones, ones_like, scalar_tensor, tensor, tril_indices, triu_indices, zeros, zeros_like,
)
from .tracer.pointwise import (
    acos, acosh, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, asin, asinh, atan, atan2, atanh, ceil,
    copysign, cos, cosh, deg2rad, digamma, erf, erfc, erfinv, exp, exp2, expit, expm1, fix, floor, frac, gcd,
    heaviside, hypot, lcm, ldexp, lerp, lgamma, log, log10, log1p, log2, log_softmax, logaddexp, logaddexp2, logit,
    nan_to_num, nextafter, rad2deg, reciprocal, round, rsqrt, sgn, sigmoid, sign, sin, sinc, sinh, softmax, sqrt,
    tan, tanh, trunc, xlogy,
)
from .tracer.arithmetic import (
    abs, absolute, add, addcdiv, addcmul, div, divide, float_power, floor_divide, fmod, mul, multiply, neg,
    negative, positive, pow, remainder, rsub, square, sub, subtract, true_divide,
)
from .tracer.comparison import (
    allclose, bitwise_and, bitwise_left_shift, bitwise_not, bitwise_or, bitwise_right_shift, bitwise_xor, clamp,
    clamp_max, clamp_min, clip, eq, equal, fmax, fmin, ge, greater, greater_equal, gt, isclose, isfinite, isinf,
    isnan, isneginf, isposinf, isreal, le, less, less_equal, logical_and, logical_not, logical_or, logical_xor, lt,
    masked_fill, maximum, minimum, ne, not_equal, relu, signbit, where,
)
from .tracer.reductions import (
    all, amax, amin, aminmax, any, argmax, argmin, corrcoef, count_nonzero, cov, dist, logsumexp, max, mean, min,
    nanmean, nansum, norm, prod, renorm, std, std_mean, sum, var, var_mean,
)
from .tracer.scans import (
    argsort, bincount, bucketize, cummax, cummin, cumprod, cumsum, cumulative_trapezoid, diff, histc, isin,
    kthvalue, logcumsumexp, median, mode, msort, nanmedian, nanquantile, quantile, searchsorted, sort, topk,
    trapezoid, trapz, unique, unique_consecutive,
)
from .tracer.shape import (
    as_strided, broadcast_to, chunk, clone, contiguous, diagonal, dsplit, expand, expand_as, flatten, hsplit, is_complex, is_signed,
    moveaxis, movedim, narrow, numel, permute, ravel, reshape, reshape_as, select, split, split_with_sizes, squeeze, swapaxes, swapdims,
    t, tensor_split, transpose, unbind, unflatten, unfold, unsqueeze, view, view_as, vsplit,
)
from .tracer.joining import (
    atleast_1d, atleast_2d, atleast_3d, block_diag, broadcast_tensors, cartesian_prod, cat, column_stack,
    combinations, concat, concatenate, diag, diag_embed, diagflat, dstack, flip, fliplr, flipud, hstack, meshgrid,
    repeat, repeat_interleave, roll, rot90, row_stack, stack, tile, tril, triu, vstack,
)
from .tracer.indexing import argwhere, index_put, index_put_, masked_select, nonzero
from .tracer.gathering import (
    diagonal_scatter, gather, index_add, index_copy, index_fill, index_reduce, index_select, masked_scatter, put,
    scatter, scatter_add, scatter_reduce, select_scatter, slice_scatter, take, take_along_dim, unravel_index,
)
from .tracer.linear import (
    addbmm, addmm, addmv, addr, baddbmm, bmm, cdist, chain_matmul, cross, dot, einsum, inner, kron, matmul, mm, mv,
    outer, tensordot, vdot,
)
from .tracer.random import (
    Generator, bernoulli, default_generator, get_rng_state, initial_seed, manual_seed, multinomial, normal, rand,
    rand_like, randint, randint_like, randn, randn_like, randperm, seed, set_rng_state,
)
from .tracer.interop import from_dlpack, from_numpy
from .tracer.printing import get_printoptions, set_printoptions
from . import data, nn, optim
from .data import from_dataframe

bool, float, double = bool_, float32, float64
short, int, long = int16, int32, int64
inf, nan, pi, e = float64.numpy.type("inf").item(), float64.numpy.type("nan").item(), 3.141592653589793, 2.718281828459045
newaxis = None
__version__ = "0.1.0"
