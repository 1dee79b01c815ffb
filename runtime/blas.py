"""BLAS of the process: its addresses, from SciPy, and how its threads are counted.

While weft's programs run on it BLAS is kept on one thread (`entry_native.pin_blas`): weft's own threads share its work
out, and two pools of threads in turn would fight for the processors.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..ir.errors import WeftError
from ..ir.routines import BLAS_ROUTINES
from . import layout, seam

_MODULE = "scipy.linalg.cython_blas"
_THREAD_FUNCTIONS = [
    (f"{prefix}openblas_get_num_threads{suffix}", f"{prefix}openblas_set_num_threads{suffix}")
    for prefix in ("", "scipy_")
    for suffix in ("", "64_", "_64")
] + [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")]
"""How the number of threads is read and set, by the names that the libraries give it; a BLAS with none of them has no
threads."""


def load_blas(table: np.ndarray) -> None:
    """Fills in the BLAS part of the process table."""
    exported = _module().__pyx_capi__
    for number, name in enumerate(BLAS_ROUTINES):
        table[layout.BLAS + number] = _pointer(exported[name])
    for word, function in zip((layout.PIN_GET, layout.PIN_SET), thread_functions() or (), strict=False):
        table[word] = ctypes.cast(function, ctypes.c_void_p).value
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(_after_fork, table))


def _module() -> ModuleType:
    """SciPy's table of BLAS functions. The extension alone loads in a tenth of the time of the package around it."""
    loaded, scipy = sys.modules.get(_MODULE), importlib.util.find_spec("scipy")
    if loaded is not None:
        return loaded
    if scipy is None or not scipy.submodule_search_locations:
        raise WeftError("matrix products need SciPy, whose BLAS they call: install scipy")
    folder = Path(scipy.submodule_search_locations[0]) / "linalg"
    finder = importlib.machinery.FileFinder(
        str(folder), (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    )
    found = finder.find_spec("cython_blas")
    spec = found and importlib.util.spec_from_file_location(_MODULE, found.origin)
    if spec is None or spec.loader is None:
        return seam.blas()
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules.setdefault(_MODULE, module)


def _pointer(capsule: Any) -> int:
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.argtypes, name.restype = [ctypes.py_object], ctypes.c_char_p
    pointer.argtypes, pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return pointer(capsule, name(capsule))


@functools.cache
def thread_functions() -> tuple[Any, Any] | None:
    """How the number of threads of BLAS is read and set; None where it has none."""
    library = ctypes.CDLL(_module().__file__)
    found = next((pair for pair in _THREAD_FUNCTIONS if hasattr(library, pair[0])), None)
    return None if found is None else (getattr(library, found[0]), getattr(library, found[1]))


def _after_fork(table: np.ndarray) -> None:
    """The programs in which other threads were do not run in the child: BLAS has its own threads back."""
    functions = thread_functions()
    if table[layout.PIN_INSIDE] and functions is not None:
        table[layout.PIN_INSIDE] = 0
        functions[1](int(table[layout.PIN_BEFORE]))
