"""The elementary functions, each defined once over the abstract arithmetic, with the error bounds that tests hold.

`ELEMENTARY[word]` is `definition(m, *values)`; `ERROR_BOUNDS[word]` says how far results may be from the true ones.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .bounds import ERROR_BOUNDS, Bound
from .error_function import erf, erfc, erfinv
from .exponential import exp, exp2, expm1, sigmoid
from .gamma import digamma, lgamma
from .hyperbolic import acosh, asinh, atanh, cosh, sinh, tanh
from .inverse_trigonometric import acos, asin, atan, atan2
from .logarithm import log, log1p, log2, log10, logaddexp
from .power import hypot, pow_, rsqrt
from .trigonometric import cos, sin, tan

ELEMENTARY: Mapping[str, Callable[..., Any]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "sigmoid": sigmoid,
    "log": log, "log2": log2, "log10": log10, "log1p": log1p, "logaddexp": logaddexp,
    "sin": sin, "cos": cos, "tan": tan, "asin": asin, "acos": acos, "atan": atan, "atan2": atan2,
    "sinh": sinh, "cosh": cosh, "tanh": tanh, "asinh": asinh, "acosh": acosh, "atanh": atanh,
    "erf": erf, "erfc": erfc, "erfinv": erfinv, "lgamma": lgamma, "digamma": digamma,
    "pow": pow_, "hypot": hypot, "rsqrt": rsqrt,
}
"""Word -> definition, for f32 and f64."""

__all__ = ["ELEMENTARY", "ERROR_BOUNDS", "Bound"]
