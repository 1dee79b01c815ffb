"""BLAS of the process: its addresses, from SciPy, and the pin that keeps it on one thread while weft's programs run
on it."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.native.locks import ForkSafeLock
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


class Pin:
    """Keeps BLAS on one thread from the first program that enters to the last that leaves: weft's own threads share
    its work out, and two pools of threads in turn would fight for the processors."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_module().__file__)
        found = next((pair for pair in _THREAD_FUNCTIONS if hasattr(library, pair[0])), None)
        self.get = getattr(library, found[0]) if found else lambda: 1
        self.set = getattr(library, found[1]) if found else lambda threads: None
        self._lock = ForkSafeLock()
        self._inside = 0
        self._before = 1

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = self.get()
                if self._before != 1:
                    self.set(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._before != 1:
                self.set(self._before)


def pin() -> Pin:
    """The one pin of this process."""
    with _LOCK:
        return _only()


_LOCK = ForkSafeLock()
_only = functools.cache(Pin)
