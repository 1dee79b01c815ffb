"""The error bounds of the elementary functions: measured, rounded up, and checked by tests."""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Bound(NamedTuple):
    """How far a result may be from the true value, in units of the last place of the true value.

    Attributes:
        f32: the bound for f32.
        f64: the bound for f64.
        note: where the bound holds or what it counts, when that is not simply everywhere.
    """

    f32: float
    f64: float
    note: str = ""


ERROR_BOUNDS: Mapping[str, Bound] = {
    "exp": Bound(1.0, 1.0),
    "exp2": Bound(1.0, 1.0),
    "expm1": Bound(1.75, 1.75),
    "sigmoid": Bound(2.0, 2.0),
    "log": Bound(1.0, 1.0),
    "log2": Bound(1.25, 1.0),
    "log10": Bound(1.0, 1.0),
    "log1p": Bound(1.75, 1.25),
    "logaddexp": Bound(0.75, 3.5, "in units of the larger of |result| and |operands|: the result may cancel"),
    "sin": Bound(1.0, 1.0, "beyond 1e5 (f32) and 1e9 (f64) the C library's"),
    "cos": Bound(1.0, 1.0, "beyond 1e5 (f32) and 1e9 (f64) the C library's"),
    "tan": Bound(2.0, 2.25, "beyond 1e5 (f32) and 1e9 (f64) the C library's"),
    "asin": Bound(1.25, 1.25),
    "acos": Bound(1.25, 1.25),
    "atan": Bound(2.0, 1.75),
    "atan2": Bound(0.75, 2.5),
    "sinh": Bound(1.75, 2.5),
    "cosh": Bound(1.75, 1.75),
    "tanh": Bound(2.0, 2.0),
    "asinh": Bound(2.0, 1.75),
    "acosh": Bound(0.75, 2.25),
    "atanh": Bound(0.75, 1.75),
    "erf": Bound(1.75, 1.75),
    "erfc": Bound(0.75, 3.5),
    "erfinv": Bound(1.0, 3.0),
    "lgamma": Bound(0.75, 4.0, "for x > 0; for negative x in units of the larger of |result| and 1"),
    "digamma": Bound(0.75, 4.0, "for x > 0; for negative x in units of the larger of |result|, |pi / tan(pi x)| and 1"),
    "pow": Bound(0.75, 1.25),
    "hypot": Bound(0.75, 0.75),
    "rsqrt": Bound(1.75, 1.75),
}
"""Word -> bound."""
