"""Where the coefficients of `backends/native/elementary/` come from: minimax polynomials by Remez exchange.

Needs mpmath. Run `python benchmarks/fit_elementary.py [name ...]`; prints each polynomial with the base-2 logarithm of
its greatest weighted error, before and after rounding to the format. A change of degree or range is made here first.
"""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np

mp.mp.dps = 50
Real = Callable[[mp.mpf], mp.mpf]


@dataclass(frozen=True)
class Fit:
    """One polynomial: the function, the weight of its error, the interval, the degree, the format of the coefficients.

    `exact` leading coefficients are rounded first, one by one, and the rest is fitted again.
    """

    function: Real
    weight: Real
    low: mp.mpf
    high: mp.mpf
    degree: int
    short: str
    exact: int = 0


def remez(function: Real, weight: Real, low: mp.mpf, high: mp.mpf, powers: list[int]) -> list[mp.mpf]:
    """Coefficients of `powers` that minimise the greatest weighted error."""
    n, points = len(powers), 500
    middle, half = (low + high) / 2, (high - low) / 2
    xs = [x for x in (middle - half * mp.cos(mp.pi * k / points) for k in range(points + 1)) if x != 0]
    values, weights = [function(x) for x in xs], [weight(x) for x in xs]
    nodes = [round((1 - mp.cos(mp.pi * (k + 0.5) / (n + 1))) / 2 * (len(xs) - 1)) for k in range(n + 1)]
    for _ in range(20):
        system, right = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for i, k in enumerate(nodes):
            for j, power in enumerate(powers):
                system[i, j] = xs[k] ** power
            system[i, n], right[i] = (-1) ** i / weights[k], values[k]
        solution = list(mp.lu_solve(system, right))
        errors = [w * (mp.fsum(c * x**p for c, p in zip(solution[:n], powers, strict=True)) - v)
                  for x, v, w in zip(xs, values, weights, strict=True)]
        extremes = _extremes(errors)
        if len(extremes) < n + 1 or max(map(abs, errors)) < abs(solution[n]) * 1.02:
            break
        while len(extremes) > n + 1:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        nodes = extremes
    return solution[:n]


def _extremes(errors: list[mp.mpf]) -> list[int]:
    """The greatest error of every run of one sign."""
    runs: list[list[int]] = []
    for k, error in enumerate(errors):
        if runs and (error > 0) == (errors[runs[-1][0]] > 0):
            runs[-1].append(k)
        else:
            runs.append([k])
    return [max(run, key=lambda k: abs(errors[k])) for run in runs]


def rounded(value: mp.mpf, short: str) -> mp.mpf:
    """To the nearest number of the format."""
    return mp.mpf(float(np.float32(float(value)))) if short == "f32" else mp.mpf(float(value))


def coefficients(fit: Fit) -> tuple[list[float], float, float]:
    """Rounded coefficients, and log2 of the greatest weighted error before and after rounding."""
    powers = list(range(fit.degree + 1))
    best = dict(zip(powers, remez(fit.function, fit.weight, fit.low, fit.high, powers), strict=True))
    before, fixed = _error(fit, best), {}
    for power in powers[:fit.exact]:
        fixed[power] = rounded(best[power], fit.short)
        free = [p for p in powers if p not in fixed]
        rest = remez(functools.partial(_rest, fit, dict(fixed)), fit.weight, fit.low, fit.high, free)
        best = fixed | dict(zip(free, rest, strict=True))
    best = {p: rounded(c, fit.short) for p, c in best.items()}
    return [float(best[p]) for p in powers], before, _error(fit, best)


def _rest(fit: Fit, polynomial: dict[int, mp.mpf], x: mp.mpf) -> mp.mpf:
    """What a polynomial leaves of the function."""
    return fit.function(x) - sum(c * x**p for p, c in polynomial.items())


def _error(fit: Fit, polynomial: dict[int, mp.mpf]) -> float:
    xs = [fit.low + (fit.high - fit.low) * k / 300 for k in range(301)]
    return float(mp.log(max(abs(fit.weight(x) * _rest(fit, polynomial, x)) for x in xs if x != 0), 2))


# --- the functions ---------------------------------------------------------------------------------------------------


def odd(function: Real, limit: mp.mpf) -> Real:
    """(f(t) / t - 1) / t**2 in z = t**2, whose value at 0 is `limit`."""
    return lambda z: (function(mp.sqrt(z)) / mp.sqrt(z) - 1) / z if z > 1e-12 else limit


def near_zero(z: mp.mpf) -> mp.mpf:
    """The weight z, but not 0 at 0."""
    return z + mp.mpf("1e-4")


def inverse(function: Real) -> Real:
    """The weight for errors relative to the function."""
    return lambda x: 1 / function(x)


def series_of_log(z: mp.mpf, terms: int) -> mp.mpf:
    """(2 artanh(s) / s - its first terms) / z**terms in z = s**2."""
    if z < 1e-10:
        return mp.mpf(2) / (2 * terms + 1) + 2 * z / (2 * terms + 3)
    return (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - sum(2 * z**k / (2 * k + 1) for k in range(terms))) / z**terms


def scaled_erfc(centre: int) -> Real:
    """e**x**2 erfc(x) (1 + 2 x) in q = (x - centre) / (x + centre)."""
    @functools.cache
    def function(q: mp.mpf) -> mp.mpf:
        x = centre * (1 + q) / (1 - q)
        return mp.exp(x * x) * mp.erfc(x) * (1 + 2 * x)
    return function


@functools.cache
def inverse_erf(w: mp.mpf) -> mp.mpf:
    """erfinv(x) / x for w = -log(1 - x**2), by Newton's method on erfc, which keeps its precision in the tail."""
    if w < mp.mpf("1e-15"):
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(-mp.expm1(-w))
    tail = mp.exp(-w) / (1 + x)
    y = mp.erfinv(x) if w < 6 else mp.sqrt(w) * mp.mpf("0.95")
    for _ in range(30):
        y += (mp.erfc(y) - tail) / (2 / mp.sqrt(mp.pi) * mp.exp(-y * y))
    return y / x


def erfinv_fit(short: str, degree: int, low: float, high: float, centre: float, root: bool) -> Fit:
    """A piece of erfinv, in w or sqrt(w) about `centre`."""
    def function(t: mp.mpf) -> mp.mpf:
        return inverse_erf((t + centre) ** 2 if root else t + centre)
    return Fit(function, inverse(function), mp.mpf(low) - centre, mp.mpf(high) - centre, degree, short)


def lgamma_quotient(t: mp.mpf) -> mp.mpf:
    """lgamma(x) / ((x - 1) (x - 2)) in t = x - 1.6875."""
    x = t + mp.mpf("1.6875")
    if abs((x - 1) * (x - 2)) < 1e-20:
        x += mp.mpf("1e-20")
    return mp.loggamma(x) / ((x - 1) * (x - 2))


DIGAMMA_ZERO = mp.findroot(mp.digamma, 1.46)


def digamma_quotient(t: mp.mpf) -> mp.mpf:
    """digamma(x) / (x - x0) in t = x - 1.5."""
    x = t + mp.mpf("1.5")
    return mp.digamma(x) / (x - DIGAMMA_ZERO) if abs(x - DIGAMMA_ZERO) > 1e-15 else mp.polygamma(1, DIGAMMA_ZERO)


def exponential(r: mp.mpf) -> mp.mpf:
    """(e**r - 1 - r) / r**2."""
    return (mp.expm1(r) - r) / r**2 if abs(r) > 1e-12 else mp.mpf(1) / 2 + r / 6


def logarithm(f: mp.mpf) -> mp.mpf:
    """(log(1 + f) - f + f**2 / 2) / f**3."""
    return (mp.log1p(f) - f + f * f / 2) / f**3 if abs(f) > 1e-10 else mp.mpf(1) / 3 - f / 4


def cosine(z: mp.mpf) -> mp.mpf:
    """(cos(r) - 1 + r**2 / 2) / r**4 in z = r**2."""
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2 if z > 1e-8 else mp.mpf(1) / 24 - z / 720


def error_function(z: mp.mpf) -> mp.mpf:
    """erf(x) / x - 1 in z = x**2."""
    return mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1 if z > 1e-20 else 2 / mp.sqrt(mp.pi) - 1


def erf_rate(x: mp.mpf) -> mp.mpf:
    """-log(erfc(x)) / x - 1."""
    return -mp.log(mp.erfc(x)) / x - 1 if x > 1e-20 else 2 / mp.sqrt(mp.pi) - 1


def erf_weight(x: mp.mpf) -> mp.mpf:
    """How much erf(x) changes, relative to itself, with `erf_rate`."""
    return x * mp.erfc(x) / mp.erf(x) if x > 1e-20 else mp.sqrt(mp.pi) / 2


HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.01")
ANGLE = (mp.pi / 4 * mp.mpf("1.02")) ** 2
SLOPE = (mp.sqrt(2) - 1) ** 2 * mp.mpf("1.01")
LOG_LOW, LOG_HIGH = (mp.sqrt(mp.mpf(1) / 2) - 1) * 1.001, (mp.sqrt(2) - 1) * 1.001
LOG_SQUARE = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * 1.001) ** 2
SIN, TAN, ASIN = odd(mp.sin, -mp.mpf(1) / 6), odd(mp.tan, mp.mpf(1) / 3), odd(mp.asin, mp.mpf(1) / 6)
ATAN, SINH = odd(mp.atan, -mp.mpf(1) / 3), odd(mp.sinh, mp.mpf(1) / 6)
ZERO = mp.mpf(0)

FITS: dict[str, Fit] = {
    "exp f32": Fit(exponential, lambda r: near_zero(r**2 / mp.exp(r)), -HALF_LN2, HALF_LN2, 4, "f32", 4),
    "expm1 f32": Fit(exponential, lambda r: near_zero(r**2 / abs(mp.expm1(r))), -HALF_LN2, HALF_LN2, 5, "f32", 4),
    "exp f64": Fit(exponential, lambda r: near_zero(r**2 / abs(mp.expm1(r))), -HALF_LN2, HALF_LN2, 10, "f64", 4),
    "log f32": Fit(logarithm, lambda f: near_zero(abs(f**3 / mp.log1p(f))), LOG_LOW, LOG_HIGH, 7, "f32", 4),
    "log f64": Fit(lambda z: series_of_log(z, 1), near_zero, ZERO, LOG_SQUARE, 6, "f64", 4),
    "pow": Fit(lambda z: series_of_log(z, 2), lambda z: z * z + mp.mpf("1e-5"), ZERO, LOG_SQUARE, 7, "f64", 4),
    "sin f32": Fit(SIN, near_zero, ZERO, ANGLE, 3, "f32", 4),
    "sin f64": Fit(SIN, near_zero, ZERO, ANGLE, 5, "f64", 4),
    "cos f32": Fit(cosine, lambda z: near_zero(z * z), ZERO, ANGLE, 2, "f32", 2),
    "cos f64": Fit(cosine, lambda z: near_zero(z * z), ZERO, ANGLE, 5, "f64", 4),
    "tan f32": Fit(TAN, lambda z: near_zero(z * mp.sqrt(z) / mp.tan(mp.sqrt(z))), ZERO, ANGLE, 6, "f32", 4),
    "atan f32": Fit(ATAN, near_zero, ZERO, SLOPE, 4, "f32", 4),
    "atan f64": Fit(ATAN, near_zero, ZERO, SLOPE, 10, "f64", 4),
    "asin f32": Fit(ASIN, near_zero, ZERO, mp.mpf("0.2501"), 5, "f32", 4),
    "asin f64": Fit(ASIN, near_zero, ZERO, mp.mpf("0.2501"), 12, "f64", 4),
    "sinh f32": Fit(SINH, near_zero, ZERO, mp.mpf(1), 3, "f32", 3),
    "erf f32": Fit(error_function, lambda z: mp.mpf(1), ZERO, mp.mpf(1), 6, "f32", 4),
    "erf f64": Fit(error_function, lambda z: mp.mpf(1), ZERO, mp.mpf(1), 12, "f64", 4),
    "erf rate f32": Fit(erf_rate, erf_weight, ZERO, mp.mpf(4), 8, "f32", 3),
    "erf rate f64": Fit(erf_rate, erf_weight, ZERO, mp.mpf(6), 24, "f64", 3),
    "erfc f32": Fit(scaled_erfc(2), inverse(scaled_erfc(2)), mp.mpf(-1), mp.mpf("8.2") / mp.mpf("12.2"), 10, "f64"),
    "erfc f64": Fit(scaled_erfc(4), inverse(scaled_erfc(4)), mp.mpf(-1), mp.mpf("23.5") / mp.mpf("31.5"), 23, "f64"),
    "erfinv f32": erfinv_fit("f64", 9, 0, 5.01, 2.5, False),
    "erfinv tail f32": erfinv_fit("f64", 9, 2.23, 4.2, 3.1875, True),
    "erfinv f64": erfinv_fit("f64", 25, 0, 6.26, 3.125, False),
    "erfinv middle f64": erfinv_fit("f64", 18, 2.49, 4.01, 3.25, True),
    "erfinv tail f64": erfinv_fit("f64", 17, 3.99, 6.1, 5.0625, True),
    "lgamma f32": Fit(lgamma_quotient, inverse(lgamma_quotient), mp.mpf("-0.7885"), mp.mpf("0.8135"), 13, "f64"),
    "lgamma f64": Fit(lgamma_quotient, inverse(lgamma_quotient), mp.mpf("-0.7885"), mp.mpf("0.8135"), 28, "f64"),
    "digamma f32": Fit(digamma_quotient, inverse(digamma_quotient), mp.mpf("-0.501"), mp.mpf("0.501"), 11, "f64"),
    "digamma f64": Fit(digamma_quotient, inverse(digamma_quotient), mp.mpf("-0.501"), mp.mpf("0.501"), 22, "f64"),
}
"""Every polynomial of `elementary/`; those of f32 functions that work in f64 inside have f64 coefficients."""


def main(names: list[str]) -> None:
    for name in names or FITS:
        values, before, after = coefficients(FITS[name])
        print(f"{name}: 2^{before:.1f}, rounded 2^{after:.1f}\n    ({', '.join(map(repr, values))})", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
