"""The special functions: sigmoid, the error functions and the gamma family."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..lazy import special
from .unary import unary

SHIFT = 8
"""By so much `trigamma` moves its argument up, to where the series below is exact in float64."""
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    decay = np.exp(-np.abs(x))  # at most 1: never overflows, and keeps full precision in the lower tail
    return np.where(x >= 0, decay.dtype.type(1), decay) / (1 + decay)


def _erf(x: np.ndarray) -> np.ndarray:
    return special().erf(x)


def _erfc(x: np.ndarray) -> np.ndarray:
    return special().erfc(x)


def _erfinv(x: np.ndarray) -> np.ndarray:
    return special().erfinv(x)


def _lgamma(x: np.ndarray) -> np.ndarray:
    return special().gammaln(x)


def _digamma(x: np.ndarray) -> np.ndarray:
    return special().psi(x)


def _gauss(b: Any, x: Any, factor: float, sign: int = -1) -> Any:
    """factor exp(sign x^2)."""
    square = b.mul(x, x)
    return b.scale(b.exp(b.neg(square) if sign < 0 else square), factor)


def _sigmoid_rule(b: Any, node: Any, g: Any) -> Any:
    y = node.outputs[0]
    return b.mul(g, b.mul(y, b.sub(b.full_like(y, 1), y)))


def trigamma(b: Any, x: Any) -> Any:
    """The derivative of digamma from elementary ops, so that it can be differentiated again.

    Below 1/2 by the reflection psi'(x) + psi'(1 - x) = (pi / sin(pi x))^2; above, psi'(z) = sum of 1/(z + k)^2 for
    k < 8, plus the asymptotic series at z + 8.
    """
    one = b.full_like(x, 1)
    low = b.lt(x, b.full_like(x, 0.5))
    z = b.select(low, b.sub(one, x), x)
    total = b.full_like(x, 0)
    for k in range(SHIFT):
        total = b.add(total, b.reciprocal(_squared(b, b.add(z, b.full_like(x, k)))))
    inverse = b.reciprocal(b.add(z, b.full_like(x, SHIFT)))
    square = _squared(b, inverse)
    series = b.full_like(x, BERNOULLI[-1])
    for term in reversed(BERNOULLI[:-1]):
        series = b.add(b.mul(series, square), b.full_like(x, term))
    series = b.add(b.add(inverse, b.scale(square, 0.5)), b.mul(b.mul(inverse, square), series))
    above = b.add(total, series)
    sine = b.sin(b.scale(x, math.pi))
    return b.select(low, b.sub(b.div(b.full_like(x, math.pi**2), _squared(b, sine)), above), above)


def _squared(b: Any, x: Any) -> Any:
    return b.mul(x, x)


unary("sigmoid", _sigmoid, _sigmoid_rule, "Sigmoid")
unary("erf", _erf, lambda b, node, g: b.mul(g, _gauss(b, node.inputs[0], 2 / math.sqrt(math.pi))), "Erf")
unary("erfc", _erfc, lambda b, node, g: b.mul(g, _gauss(b, node.inputs[0], -2 / math.sqrt(math.pi))), "Erfc")
unary("erfinv", _erfinv, lambda b, node, g: b.mul(g, _gauss(b, node.outputs[0], math.sqrt(math.pi) / 2, +1)), "Erfinv")
unary("lgamma", _lgamma, lambda b, node, g: b.mul(g, b.digamma(node.inputs[0])), "Lgamma")
unary("digamma", _digamma, lambda b, node, g: b.mul(g, trigamma(b, node.inputs[0])), "Digamma")
