"""What a traced function reads besides its arguments: globals, closure cells, attributes of modules and plain objects.

The function is run as a clone whose globals and cells are watched. Numbers read there become run-time inputs; other
values become guards, compared before every later call. Functions of the user that the clone calls by a global or a cell
are cloned too; those reached in other ways (methods) are seen by a profile hook, and the simple globals they name
become guards.
"""
from __future__ import annotations

import sys
import sysconfig
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ir.errors import TraceError
from .capture_values import SIMPLE, expectation, same_value
from .location import error, is_own_file
from .slots import MISSING
from .tensor import Tensor

if TYPE_CHECKING:
    from .trace import Trace

_LIBRARY = tuple(
    p for p in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")} if p
)


class Guard:
    """A place outside the function whose value the trace relied on: `get()` now must match `expected`.

    `scalar` tells that the value is a number that arrives as a run-time input, so that only its type matters.
    """

    __slots__ = ("read", "label", "expected", "scalar")

    def __init__(self, read: Callable[[], Any], label: str, expected: Any, scalar: bool = False) -> None:
        self.read, self.label, self.expected, self.scalar = read, label, expected, scalar

    def current(self) -> Any:
        """The value now, MISSING when the place is gone."""
        try:
            return self.read()
        except (KeyError, ValueError, AttributeError):
            return MISSING

    def holds(self) -> bool:
        """Whether the trace is still right as far as this place goes."""
        now = self.current()
        return type(now) is type(self.expected) if self.scalar else same_value(now, self.expected)


def is_user_function(value: Any) -> bool:
    """Whether `value` is a Python function that neither weft nor a library brought."""
    return type(value) is types.FunctionType and is_user_file(value.__code__.co_filename)


def is_user_file(file: str) -> bool:
    """Whether a source file is the user's."""
    return not (is_own_file(file) or file.startswith(_LIBRARY) or file.startswith("<frozen"))


class WatchedGlobals(dict):
    """Stands for a function's globals during a trace; LOAD_GLOBAL goes through `__getitem__` for a dict subclass."""

    def __init__(self, real: dict[str, Any], capture: Capture) -> None:
        super().__init__(real)
        self.real, self.capture = real, capture

    def __getitem__(self, name: str) -> Any:
        return self.capture.value_of(("global", id(self.real), name), f"the global `{name}`", lambda: self.real[name])


class WatchedModule(types.ModuleType):
    """Stands for one of the user's modules (`config.LR`) during a trace."""

    def __init__(self, module: types.ModuleType, capture: Capture) -> None:
        super().__init__(module.__name__)
        object.__setattr__(self, "_watched", (module, capture))

    def __getattribute__(self, name: str) -> Any:
        module, capture = object.__getattribute__(self, "_watched")
        value = getattr(module, name)
        if name.startswith("__"):
            return value
        return capture.value_of(
            ("global", id(vars(module)), name), f"`{module.__name__}.{name}`", lambda: getattr(module, name)
        )


class Capture:
    """The outside reads of one trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.guards: dict[tuple[Any, ...], Guard] = {}
        self._values: dict[tuple[Any, ...], Any] = {}
        self._clones: dict[int, tuple[Any, Any]] = {}
        self._globals: dict[int, WatchedGlobals] = {}
        self._cells: list[tuple[types.CellType, types.CellType, Any, str]] = []

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls the function with all its reads watched."""
        clone = self.clone(function) if type(function) is types.FunctionType else function
        previous = sys.getprofile()
        sys.setprofile(self._profile if previous is None else previous)
        try:
            result = clone(*args, **kwargs)
        finally:
            sys.setprofile(previous)
        self._check_cells()
        return result

    def value_of(self, key: tuple[Any, ...], label: str, read: Callable[[], Any]) -> Any:
        """The value at an outside place as the trace sees it, guarded from now on."""
        if key in self._values:
            return self._values[key]
        value = read()                              # a KeyError here is LOAD_GLOBAL's cue to look among the builtins
        number = type(value) in (int, float)
        guard = self.guards[key] = Guard(read, label, value if number else expectation(value), scalar=number)
        self._values[key] = seen = self._seen(value, guard, str(key[-1]))
        return seen

    def _seen(self, value: Any, guard: Guard, name: str) -> Any:
        if guard.scalar:
            return self.trace.scalar_input(guard, value, name)
        if isinstance(value, Tensor) and value._trace is None:
            value.__dict__.setdefault("_hint", name)
        if is_user_function(value):
            return self.clone(value)
        if type(value) is types.ModuleType and is_user_file(getattr(value, "__file__", None) or sys.__file__):
            return WatchedModule(value, self)
        return value

    def clone(self, function: types.FunctionType) -> types.FunctionType:
        """The function with watched globals and cells."""
        known = self._clones.get(id(function))
        if known is not None:
            return known[1]
        real = function.__globals__
        watched = self._globals.get(id(real)) or self._globals.setdefault(id(real), WatchedGlobals(real, self))
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(function.__code__, watched, function.__name__, function.__defaults__, cells or None)
        copy.__kwdefaults__, copy.__dict__ = function.__kwdefaults__, dict(function.__dict__)
        copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
        self._clones[id(function)] = (function, copy)
        for fresh, cell, name in zip(cells, function.__closure__ or (), function.__code__.co_freevars, strict=True):
            self._fill(fresh, cell, name)
        return copy

    def _fill(self, fresh: types.CellType, cell: types.CellType, name: str) -> None:
        try:
            value = self.value_of(
                ("cell", id(cell), name), f"the variable `{name}` of the enclosing function", lambda: cell.cell_contents
            )
        except ValueError:
            return
        fresh.cell_contents = value
        self._cells.append((fresh, cell, value, name))

    def _check_cells(self) -> None:
        for watched in self._globals.values():
            for name, value in dict.items(watched):
                if name not in watched.real or watched.real[name] is not value:
                    raise error(
                        TraceError,
                        f"the compiled function assigns the global `{name}`: it would happen in the first call only. "
                        "Return "
                        "the value, or keep it in a tensor",
                    )
        for fresh, _, value, name in self._cells:
            if fresh.cell_contents is not value:
                raise error(
                    TraceError,
                    f"the compiled function assigns `{name}` of the enclosing function: it would happen in the first "
                    "call "
                    "only. Return the value, or keep it in a tensor",
                )

    def _profile(self, frame: types.FrameType, event: str, _: Any) -> None:
        """Guards the simple globals that functions reached in other ways than by name (methods) may read."""
        if event != "call" or isinstance(frame.f_globals, WatchedGlobals) or not is_user_file(frame.f_code.co_filename):
            return
        real = frame.f_globals
        for name in frame.f_code.co_names:
            value = real.get(name, MISSING)
            key = ("global", id(real), name)
            if isinstance(value, SIMPLE) and key not in self.guards:
                self.guards[key] = Guard(lambda real=real, name=name: real[name], f"the global `{name}`", value)
