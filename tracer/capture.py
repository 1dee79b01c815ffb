"""What a traced function reads besides its arguments: globals, closure cells, attributes of modules and plain objects.

The function is run as a clone whose globals and cells are watched. Numbers read there become run-time inputs; other
values become guards, compared before every later call. Functions of the user that the clone calls by a global or a cell
are cloned too; those reached in other ways (methods) are seen by a profile hook, and the globals and cells that they
name become guards.
"""

from __future__ import annotations

import dis
import functools
import gc
import sys
import types
from collections.abc import Callable, Iterator
from operator import is_
from typing import TYPE_CHECKING, Any, TypeGuard

from ..ir.errors import TraceError
from .capture_values import freeze, is_immutable, may_change, same_value
from .location import error, is_user_file
from .slots import MISSING
from .tensor import Tensor

if TYPE_CHECKING:
    from .trace import Trace

Read = functools.partial[Any]
"""Reads a place again."""


class Guard:
    """A place outside the function whose value the trace relied on: `read()` now must match `expected`.

    `read` is a partial of a getter of dicts or attributes: the short way into a program takes it apart.
    `scalar` tells that the value is a number that arrives as a run-time input, so that only its type matters.
    """

    __slots__ = ("read", "label", "expected", "scalar", "constant", "elements")

    def __init__(self, read: Read, label: str, value: Any, scalar: bool = False) -> None:
        self.read, self.label, self.scalar = read, label, scalar
        self.expected = value if scalar else freeze(value)
        self.constant = value if is_immutable(value) else MISSING
        """An object that cannot change: finding it again is enough."""
        self.elements = tuple(value) if type(value) is list and not any(map(may_change, value)) else None
        """What a list holds, when finding the same elements again is enough."""

    def current(self) -> Any:
        """The value now, MISSING when the place is gone."""
        try:
            return self.read()
        except (KeyError, ValueError, AttributeError):
            return MISSING

    def holds(self) -> bool:
        """Whether the trace is still right as far as this place goes."""
        now = self.current()
        if now is self.constant and now is not MISSING:
            return True
        elements = self.elements
        if elements is not None and type(now) is list and len(now) == len(elements) and all(map(is_, now, elements)):
            return True
        return type(now) is type(self.expected) if self.scalar else same_value(now, self.expected)


def is_user_function(value: Any) -> TypeGuard[types.FunctionType]:
    """Whether `value` is a Python function that neither weft nor a library brought."""
    return type(value) is types.FunctionType and is_user_file(value.__code__.co_filename)


class WatchedGlobals(dict):
    """Stands for a function's globals during a trace; LOAD_GLOBAL goes through `__getitem__` for a dict subclass."""

    def __init__(self, real: dict[str, Any], capture: Capture) -> None:
        super().__init__(real)
        self.real, self.capture, self.initial = real, capture, dict(real)

    def __getitem__(self, name: str) -> Any:
        read = functools.partial(dict.__getitem__, self.real, name)
        return self.capture.value_of(("global", id(self.real), name), f"the global `{name}`", read)

    def assigned(self) -> str | None:
        """A global that the function assigned."""
        return next((name for name, value in dict.items(self) if self.initial.get(name, MISSING) is not value), None)


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
        read = functools.partial(getattr, module, name)
        return capture.value_of(("global", id(vars(module)), name), f"`{module.__name__}.{name}`", read)


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
        watched = self.watched(function)
        if sys.getprofile() is not None:  # a profiler stays on: it might be one that cannot be set again
            result = watched(*args, **kwargs)
        else:
            sys.setprofile(self._profile)
            try:
                result = watched(*args, **kwargs)
            finally:
                sys.setprofile(None)
        self._check_assignments()
        return result

    def watched(self, function: Any) -> Any:
        """What stands for a function, method or partial of the user during the trace; anything else itself."""
        if is_user_function(function):
            return self.clone(function)
        if type(function) is types.MethodType and is_user_function(function.__func__):
            return types.MethodType(self.clone(function.__func__), function.__self__)
        if type(function) is functools.partial:
            return functools.partial(self.watched(function.func), *function.args, **function.keywords)
        return function

    def value_of(self, key: tuple[Any, ...], label: str, read: Read) -> Any:
        """The value at an outside place as the trace sees it, guarded from now on."""
        if key in self._values:
            return self._values[key]
        value = read()  # a KeyError here is LOAD_GLOBAL's cue to look among the builtins
        guard = self.guards[key] = Guard(read, label, value, scalar=type(value) in (int, float))
        self._values[key] = seen = self._seen(value, guard, str(key[-1]))
        return seen

    def _seen(self, value: Any, guard: Guard, name: str) -> Any:
        if guard.scalar:
            return self.trace.scalar_input(guard, value, name)
        if isinstance(value, Tensor) and value._trace is None:
            value.__dict__.setdefault("_hint", name)
        if type(value) is types.ModuleType and is_user_file(getattr(value, "__file__", None) or "<frozen"):
            return WatchedModule(value, self)
        return self.watched(value)

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
        for part in ("__defaults__", "__kwdefaults__"):
            if getattr(function, part):
                read = functools.partial(getattr, function, part)
                self._guard((part, id(function)), f"a default of `{function.__name__}`", read)
        for fresh, cell, name in zip(cells, function.__closure__ or (), function.__code__.co_freevars, strict=True):
            self._fill(fresh, cell, name)
        return copy

    def _fill(self, fresh: types.CellType, cell: types.CellType, name: str) -> None:
        try:
            read = functools.partial(getattr, cell, "cell_contents")
            value = self.value_of(("cell", id(cell), name), f"the variable `{name}` of the enclosing function", read)
        except ValueError:
            return
        fresh.cell_contents = value
        self._cells.append((fresh, cell, value, name))

    def _check_assignments(self) -> None:
        for watched in self._globals.values():
            name = watched.assigned()
            if name is not None:
                raise error(
                    TraceError,
                    f"the compiled function assigns the global `{name}`: it would happen in the first call only. "
                    "Return the value, or keep it in a tensor",
                )
        for fresh, _, value, name in self._cells:
            if fresh.cell_contents is not value:
                raise error(
                    TraceError,
                    f"the compiled function assigns `{name}` of the enclosing function: it would happen in the first "
                    "call only. Return the value, or keep it in a tensor",
                )
        for guard in self.guards.values():
            if not guard.scalar and not guard.holds():
                raise error(
                    TraceError,
                    f"the compiled function changes {guard.label}, a Python object that exists outside: it would "
                    "happen in the first call only. Return the value, or keep it in a tensor",
                )

    # ---- functions that are reached in other ways --------------------------------------------------------------------

    def _profile(self, frame: types.FrameType, event: str, _: Any) -> None:
        """Guards the globals and cells that a function which was not cloned may read."""
        if event != "call" or isinstance(frame.f_globals, WatchedGlobals) or not is_user_file(frame.f_code.co_filename):
            return
        real = frame.f_globals
        file = real.get("__file__")
        if file is not None and not is_user_file(file):
            return  # code that a library generated: the methods of its dataclasses
        for name in _global_names(frame.f_code):
            if name in real:
                read = functools.partial(dict.__getitem__, real, name)
                self._guard(("global", id(real), name), f"the global `{name}`", read)
        if frame.f_code.co_freevars:
            for name, cell in _cells_of(frame):
                self._guard(
                    ("cell", id(cell), name),
                    f"the variable `{name}` of an enclosing function",
                    functools.partial(getattr, cell, "cell_contents"),
                )

    def watch_slot(self, container: Any, key: Any, value: Any) -> None:
        """Guards a list, dict or plain object in a slot of tracked state: no epoch tells when it changes."""
        read = functools.partial(dict.__getitem__, container, key)
        self.guards["slot", id(container), key] = Guard(read, f"`{key}`", value)

    def leave_slot(self, container: Any, key: Any) -> None:
        """Forgets the guard of a slot that the function itself sets."""
        self.guards.pop(("slot", id(container), key), None)

    def _guard(self, key: tuple[Any, ...], label: str, read: Read) -> None:
        if key not in self.guards:
            try:
                self.guards[key] = Guard(read, label, read())
            except ValueError:
                pass  # an empty cell: assigned by the function itself


@functools.lru_cache(maxsize=4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    )


def _cells_of(frame: types.FrameType) -> Iterator[tuple[str, types.CellType]]:
    """The cells of the function that a frame runs, unless the trace made them itself."""
    function = _function_of(frame)
    if function is not None and not isinstance(function.__globals__, WatchedGlobals):
        yield from zip(frame.f_code.co_freevars, function.__closure__ or (), strict=True)


def _function_of(frame: types.FrameType) -> types.FunctionType | None:
    """The function object behind a frame: a method of its first argument, or whoever else holds the code."""
    code, variables = frame.f_code, frame.f_locals
    if code.co_argcount and code.co_varnames[0] in variables:
        owner = variables[code.co_varnames[0]]
        for cls in (owner if isinstance(owner, type) else type(owner)).__mro__:
            found = vars(cls).get(code.co_name)
            found = getattr(found, "__func__", getattr(found, "fget", found))
            if type(found) is types.FunctionType and found.__code__ is code:
                return found
    for candidate in gc.get_referrers(code):
        if type(candidate) is types.FunctionType and candidate.__code__ is code and _runs(candidate, variables):
            return candidate
    return None


def _runs(function: types.FunctionType, variables: dict[str, Any]) -> bool:
    """Whether the function's cells hold what the frame's variables hold."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            if variables.get(name, MISSING) is not cell.cell_contents:
                return False
        except ValueError:
            if name in variables:
                return False
    return True
