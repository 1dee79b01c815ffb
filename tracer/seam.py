"""The one place from which the tracer loads the stages of compilation, when the first program is built."""
from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def driver() -> Any:
    """`weft.tracer.driver`: passes, backends and runtime."""
    return importlib.import_module(".driver", __package__)


@functools.cache
def threads() -> Any:
    """`weft.runtime.threads`: the thread pool."""
    return importlib.import_module("..runtime.threads", __package__)


@functools.cache
def native() -> Any:
    """`weft.runtime.native`: the executor's machine code."""
    return importlib.import_module("..runtime.native", __package__)


@functools.cache
def calls() -> Any:
    """`weft.runtime.calls`: builtins that take the short way into a program."""
    return importlib.import_module("..runtime.calls", __package__)
