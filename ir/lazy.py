"""Loads SciPy, here alone in `ir`, when a special function is first evaluated: NumPy has no erf, lgamma or digamma."""
from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def special() -> Any:
    """The module `scipy.special`."""
    return importlib.import_module("scipy.special")
