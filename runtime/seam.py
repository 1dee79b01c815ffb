"""The one place from which the runtime loads what is heavy, when it is first needed: the compiler (llvmlite), the
loader of object code, BLAS (SciPy). `import weft` loads none of them."""
from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from . import before_fork


@functools.cache
def compiler() -> Any:
    """`weft.backends.native.compiler`: kernels to object code. Loads llvmlite's binding."""
    return importlib.import_module("..backends.native.compiler", __package__)


@functools.cache
def codegen() -> Any:
    """`weft.backends.native.codegen`: LLVM text to object code. Loads llvmlite's binding."""
    return importlib.import_module("..backends.native.codegen", __package__)


@functools.cache
def loader() -> Any:
    """What puts object code into memory: `native.loader`; on machines that it does not know, `native.engine_loader`."""
    name = "loader" if cpu().MAPS_OBJECTS else "engine_loader"
    return importlib.import_module(f"..backends.native.{name}", __package__)


@functools.cache
def cpu() -> Any:
    """`weft.backends.native.cpu`: what the machine is."""
    return importlib.import_module("..backends.native.cpu", __package__)


@functools.cache
def target() -> Any:
    """`weft.backends.native.target`: what code is generated for. Loads llvmlite's binding, 0.03 to 0.1 s."""
    return importlib.import_module("..backends.native.target", __package__)


@functools.cache
def version(package: str) -> str:
    """The version of an installed package, which is not imported for that: mostly by the name of the folder of its
    metadata, for the module that reads these takes long to import."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    found = [p.name for place in places or () for p in Path(place).parent.glob(f"{package}-*.dist-info")]
    if len(found) == 1:
        return found[0].removesuffix(".dist-info").split("-")[1]
    return importlib.import_module("importlib.metadata").version(package)


@functools.cache
def filelock() -> Any:
    """`filelock`, needed when something is compiled. It lets no thread take or leave a lock during a fork."""
    module = importlib.import_module("filelock")
    before_fork.wait_first()
    return module


@functools.cache
def platformdirs() -> Any:
    """`platformdirs`, needed when the user names no cache directory."""
    return importlib.import_module("platformdirs")


@functools.cache
def blas() -> Any:
    """`scipy.linalg.cython_blas`, whose `__pyx_capi__` holds the addresses of BLAS."""
    return importlib.import_module("scipy.linalg.cython_blas")
