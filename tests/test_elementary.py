"""The elementary functions: errors within their bounds, right special values, and machine code as its definition."""
import math

import numpy as np
import pytest
import scipy.special

from weft.backends.llvm_source import llvm_source
from weft.backends.lower_builder import KernelBuilder, apply
from weft.backends.native import compiler, loader
from weft.backends.native.elementary import ELEMENTARY, ERROR_BOUNDS
from weft.backends.native.plain import NumpyArithmetic
from weft.backends.native.vocabulary import describe
from weft.ir.loops import START, STOP, Load, Role, named
from weft.ir.types import BY_SHORT

DTYPES = {"f32": np.float32, "f64": np.float64}
PAIRS = {"pow", "atan2", "hypot", "logaddexp"}
NUMPY_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
               "atanh": "arctanh", "atan2": "arctan2", "pow": "power"}
SCIPY_NAMES = {"sigmoid": "expit", "erf": "erf", "erfc": "erfc", "erfinv": "erfinv", "lgamma": "gammaln",
               "digamma": "psi"}
RANGES = {"asin": (-1, 1), "acos": (-1, 1), "atanh": (-1, 1), "erfinv": (-1, 1), "acosh": (1, 1e3), "log1p": (-1, 1e3),
          "lgamma": (0, 60), "digamma": (0, 60), "log": (0, 1e3), "log2": (0, 1e3), "log10": (0, 1e3),
          "rsqrt": (0, 1e3), "erfc": (-6, 26), "tanh": (-20, 20), "erf": (-6, 6), "sin": (-1e5, 1e5),
          "cos": (-1e5, 1e5), "tan": (-1e5, 1e5)}


def numpy_reference(name, *arguments):
    """NumPy's or SciPy's function, in f64."""
    wide = [a.astype(np.float64) for a in arguments]
    with np.errstate(all="ignore"):
        if name == "rsqrt":
            return 1 / np.sqrt(*wide)
        if name in SCIPY_NAMES:
            return getattr(scipy.special, SCIPY_NAMES[name])(*wide)
        return getattr(np, NUMPY_NAMES.get(name, name))(*wide)


def exact_reference(mpmath, name):
    """mpmath's function."""
    special = {
        "exp2": lambda x: mpmath.mpf(2) ** x, "log2": lambda x: mpmath.log(x, 2), "pow": mpmath.power,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))),
        "logaddexp": lambda x, y: mpmath.log(mpmath.exp(x) + mpmath.exp(y)),
    }
    return special.get(name) or getattr(mpmath, name)


def samples(name, short, count):
    """Operands over the whole range of a function, dense near zero, near one and at the ends of its domain."""
    random, dtype = np.random.default_rng(len(name)), DTYPES[short]
    if name == "pow":
        x, power = 10 ** random.uniform(-3, 3, count), random.uniform(-80, 80, count)
        return [x.astype(dtype), (power / np.maximum(np.abs(np.log(x)), 1e-3)).astype(dtype)]
    if name in PAIRS:
        x = random.standard_normal(count) * 10 ** random.uniform(-3, 1, count)
        return [x.astype(dtype), (x * random.uniform(-3, 3, count)).astype(dtype)]
    low, high = RANGES.get(name, (-80, 80))
    tiny = 10.0 ** random.uniform(-9, 0, count) * random.choice([-1, 1], count)
    parts = [random.uniform(low, high, count), random.uniform(-3, 3, count), tiny, 1 + tiny / 4, low + abs(tiny)]
    if name in ("sin", "cos", "tan"):
        parts.append(random.integers(-10**4, 10**4, count) * np.float64(math.pi / 2))
    x = np.concatenate(parts).astype(dtype)
    return [x[(x > low) & (x < high)]]


def evaluate(name, short, *arguments):
    with np.errstate(all="ignore"):
        return ELEMENTARY[name](NumpyArithmetic(short), *arguments)


def last_place(name, true, arguments, dtype):
    """The unit in which an error is counted."""
    sizes = [abs(true), *map(abs, arguments)] if name == "logaddexp" else [abs(true)]
    return np.spacing(np.maximum.reduce([np.asarray(s, dtype) for s in sizes])).astype(np.float64)


def test_every_function_has_bounds_as_promised():
    assert ERROR_BOUNDS.keys() == ELEMENTARY.keys()
    assert all(bound.f32 <= 2 and bound.f64 <= 4 for bound in ERROR_BOUNDS.values())
    assert all(f"{name}_[" in describe() for name in ELEMENTARY)


@pytest.mark.parametrize("name", ELEMENTARY)
def test_error_in_single_precision(name):
    arguments = samples(name, "f32", 20000)
    true = numpy_reference(name, *arguments)
    errors = np.abs(evaluate(name, "f32", *arguments) - true) / last_place(name, true, arguments, np.float32)
    errors = errors[np.isfinite(true.astype(np.float32))]
    assert errors.size > 10000 and errors.max() <= ERROR_BOUNDS[name].f32


@pytest.mark.parametrize("name", ELEMENTARY)
def test_error_in_double_precision(name):
    mpmath = pytest.importorskip("mpmath")
    arguments = samples(name, "f64", 40)
    results, reference = evaluate(name, "f64", *arguments), exact_reference(mpmath, name)
    with mpmath.workprec(140):
        for result, *operands in zip(results, *arguments, strict=True):
            true = reference(*(mpmath.mpf(float(v)) for v in operands))
            unit = last_place(name, float(true), operands, np.float64)
            assert abs(mpmath.mpf(float(result)) - true) <= ERROR_BOUNDS[name].f64 * unit, operands


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_negative_arguments_of_the_gamma_family(name):
    x = -(10 ** np.random.default_rng(0).uniform(-8, 1.5, 3000))
    true = numpy_reference(name, x)
    cotangent = math.pi / np.tan(math.pi * (x - np.rint(x)))
    scale = np.maximum(np.maximum(np.abs(true), 1), np.abs(cotangent) if name == "digamma" else 1)
    assert np.max(np.abs(evaluate(name, "f64", x) - true) / scale) < 2e-13       # SciPy's own error, mostly
    assert np.max(np.abs(evaluate(name, "f32", x.astype(np.float32)) - numpy_reference(name, x.astype(np.float32)))
                  / scale) < 1e-6


def special_values(dtype):
    info = np.finfo(dtype)
    sizes = [0, info.smallest_subnormal, info.tiny / 3, info.tiny, 1e-20, 0.25, 0.5, 1, 1.5, 2, 3, 10, 88.7, 89.2,
             104, 150, 709.5, 710.4, 746, 1e6, 1e10, 1e30, info.max, np.inf]
    return np.array(sizes + [-s for s in sizes] + [np.nan], dtype)


@pytest.mark.parametrize("short", DTYPES)
@pytest.mark.parametrize("name", ELEMENTARY)
def test_special_values(name, short):
    values = special_values(DTYPES[short])
    arguments = [g.reshape(-1) for g in np.meshgrid(values, values)] if name in PAIRS else [values]
    true = numpy_reference(name, *arguments)
    if name == "lgamma":
        true[arguments[0] == -np.inf] = np.inf              # SciPy alone says -inf
        true[np.abs(arguments[0]) < 1e-300] = np.inf        # and inf for tiny ones, whose logarithm is about 744
    with np.errstate(over="ignore"):
        expected = true.astype(DTYPES[short])
    result = evaluate(name, short, *arguments)
    if name == "lgamma":
        result[(np.abs(arguments[0]) < 1e-300) & (result > 700)] = np.inf
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isinf(result[known]), np.isinf(expected[known]))
    np.testing.assert_array_equal(np.signbit(result[known]), np.signbit(expected[known]))
    tolerance = {"f32": 4e-7, "f64": 4e-15}[short]
    smallest = np.finfo(DTYPES[short]).tiny                 # SciPy's denormal results may be zero
    cancels = tolerance * {"logaddexp": 1e-4, "digamma": 1}.get(name, 0)
    np.testing.assert_allclose(result[known], expected[known], rtol=tolerance, atol=cancels + smallest)


def kernel_of(name, short):
    """A kernel (x, y, result) that applies one function."""
    b, dtype = KernelBuilder(), BY_SHORT[short]
    x, y = (b.buffer(name, dtype, 1 << 20, Role.INPUT) for name in "xy")
    o, i = b.buffer("o", dtype, 1 << 20, Role.OUTPUT), b.variable("i", 1 << 20)
    b.open(i, START, STOP)
    b.store(o, i, apply(name, (Load(x, i), Load(y, i))[:2 if name in PAIRS else 1], dtype))
    b.close()
    return named(name, b.buffers, b.levels[0].statements)


@pytest.fixture(scope="module")
def machine_code():
    """Every function compiled: name, dtype -> address."""
    objects = [compiler.compile_kernel(llvm_source(kernel_of(name, short)), f"{name}_{short}")
               for name in ELEMENTARY for short in DTYPES]
    handle = loader.load_objects(objects)
    yield lambda name, short: handle.address(f"{name}_{short}")
    handle.free()


@pytest.mark.parametrize("short", DTYPES)
@pytest.mark.parametrize("name", ELEMENTARY)
def test_machine_code_is_its_definition(machine_code, name, short):
    ordinary = samples(name, short, 400)
    values = special_values(DTYPES[short])
    pairs = [g.reshape(-1) for g in np.meshgrid(values, values)] if name in PAIRS else [values]
    arguments = [np.concatenate(p) for p in zip(ordinary, pairs, strict=True)]
    expected, result = evaluate(name, short, *arguments), np.empty_like(arguments[0])
    loader.call_kernel(machine_code(name, short), 0, result.size, [arguments[0], arguments[-1], result])
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    finite = np.isfinite(expected) & np.isfinite(result)
    np.testing.assert_array_equal(result[~finite], expected[~finite])
    units = np.abs(result[finite] - expected[finite]) / np.spacing(np.abs(expected[finite]))
    assert units.max() <= 2         # NumPy has no fma: the plain definition rounds a little differently


@pytest.mark.parametrize("short", DTYPES)
def test_huge_angles_among_ordinary_ones(machine_code, short):
    random = np.random.default_rng(3)
    x = (random.standard_normal(1000) * 10).astype(DTYPES[short])
    x[::37] = (10.0 ** random.uniform(5, 37, x[::37].size)).astype(DTYPES[short])
    for name in ("sin", "cos", "tan"):
        result = np.empty_like(x)
        loader.call_kernel(machine_code(name, short), 0, x.size, [x, x, result])
        true = numpy_reference(name, x)
        assert np.max(np.abs(result - true) / np.spacing(np.abs(true.astype(x.dtype)))) <= 4
