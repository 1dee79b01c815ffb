"""Module: an object with parameters, buffers and child modules.

Its attributes are tracked state, which compiled programs watch. Saving and loading is in saving.py, printing in
describe.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..ir.errors import DTypeError
from ..ir.types import DType
from ..tracer.grad_mode import no_grad
from ..tracer.location import error
from ..tracer.slots import TrackedDict
from ..tracer.state import STATE
from ..tracer.tensor import Tensor
from . import describe, saving
from .parameter import Parameter
from .tables import NamedTable

M = TypeVar("M", bound="Module")

_TABLES = ("_parameters", "_buffers", "_modules", "_slots")
_OWN = frozenset((*_TABLES, "_transient", "_hooks"))


class ClassDefault:
    """A plain value in a class body, turned into a descriptor so that instances read and write it as tracked state."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self._entry = name, TrackedDict(value=value)

    def __get__(self, module: Module | None, owner: type) -> Any:
        if module is not None:
            for table in _TABLES:
                if self.name in module.__dict__[table]:  # asked through the tracked dict: a trace depends on the answer
                    return module.__dict__[table][self.name]
        return self._entry["value"]

    def __set__(self, module: Module, value: Any) -> None:
        module._slots[self.name] = value

    def __delete__(self, module: Module) -> None:
        del module._slots[self.name]


def _is_plain(name: str, value: Any) -> bool:
    return not (name.startswith("__") or callable(value) or hasattr(value, "__get__"))


def _adopt_default(kind: type, name: str) -> None:
    """Turns a plain class attribute that was set after the class was made into a ClassDefault."""
    owner = next(k for k in kind.__mro__ if name in vars(k))
    value = vars(owner)[name]
    if _is_plain(name, value):
        setattr(owner, name, ClassDefault(name, value))


class HookHandle:
    """Removes a hook."""

    def __init__(self, hooks: TrackedDict, kind: str, hook: Callable[..., Any]) -> None:
        self._hooks, self._kind, self._hook = hooks, kind, hook

    def remove(self) -> None:
        """Removes the hook; a second call does nothing."""
        self._hooks[self._kind] = tuple(h for h in self._hooks[self._kind] if h is not self._hook)


class Module:
    """Base of all layers and models: assign parameters and modules to attributes, define `forward`, call the object.

    Example:
        >>> class Scale(weft.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.factor = weft.nn.Parameter(weft.ones(1))
        ...     def forward(self, x):
        ...         return x * self.factor
    """

    _parameters: NamedTable
    _buffers: NamedTable
    _modules: NamedTable
    _slots: TrackedDict
    """Every other attribute."""
    _transient: set[str]
    """Names of buffers that `state_dict` leaves out."""
    _hooks: TrackedDict

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if _is_plain(name, value):
                setattr(cls, name, ClassDefault(name, value))

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        own = self.__dict__
        own["_parameters"], own["_buffers"], own["_modules"] = NamedTable(), NamedTable(), NamedTable()
        own["_slots"] = TrackedDict(training=True)
        own["_transient"] = set()
        own["_hooks"] = TrackedDict(before=(), after=())
        return self

    def __init__(self) -> None:
        """Nothing to prepare: `__new__` made the tables, so a forgotten `super().__init__()` does no harm."""

    # ---- calling -----------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the hooks and `forward`."""
        hooks = self._hooks
        for hook in hooks["before"]:
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        forward = self.forward
        if STATE.trace is not None and "forward" in self._slots:  # its own, and the trace depends on which
            forward = self._slots["forward"]
        result = forward(*args, **kwargs)
        for hook in hooks["after"]:
            changed = hook(self, args, result)
            result = result if changed is None else changed
        return result

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Calls `hook(module, args)` before `forward`; a result that is not None replaces the arguments."""
        return self._register_hook("before", hook)

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Calls `hook(module, args, output)` after `forward`; a result that is not None replaces the output."""
        return self._register_hook("after", hook)

    def _register_hook(self, kind: str, hook: Callable[..., Any]) -> HookHandle:
        self._hooks[kind] = (*self._hooks[kind], hook)
        return HookHandle(self._hooks, kind, hook)

    # ---- attributes --------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for table in _TABLES:
            entries = own.get(table)
            if entries is not None and dict.__contains__(entries, name):
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._register("_modules", name, value)
        elif not self._set_registered(name, value):
            self._set_plain(name, value)

    def _set_registered(self, name: str, value: Any) -> bool:
        """Assigns to a name that is already a parameter, buffer or module; False when it is none of them."""
        for table, word, kind in (
            ("_parameters", "parameter", None),
            ("_modules", "child module", None),
            ("_buffers", "buffer", Tensor),
        ):
            entries = self.__dict__[table]
            if not dict.__contains__(entries, name):
                continue
            if value is not None and not (kind is not None and isinstance(value, kind)):
                wanted = {"_parameters": "weft.nn.Parameter", "_modules": "weft.nn.Module", "_buffers": "weft.Tensor"}[
                    table
                ]
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as {word} '{name}' ({wanted} or None expected)"
                )
            entries[name] = value
            return True
        return False

    def _set_plain(self, name: str, value: Any) -> None:
        if name in _OWN or name.startswith("__"):
            object.__setattr__(self, name, value)
        elif hasattr(type(self), name):  # a property, a ClassDefault, or a method that this instance replaces
            _adopt_default(type(self), name)
            object.__setattr__(self, name, value)
            if name in self.__dict__:
                self._slots[name] = value
        else:
            self._slots[name] = value

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            entries = self.__dict__[table]
            if dict.__contains__(entries, name):
                del entries[name]
                self._transient.discard(name)
                self.__dict__.pop(name, None)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = set(super().__dir__())
        for table in _TABLES:
            names |= set(dict.keys(self.__dict__[table]))
        return sorted(names)

    def _register(self, table: str, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a name must be a string, not {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f"the name {name!r} must not be empty or contain '.'")
        for other in _TABLES:
            if other != table and dict.__contains__(self.__dict__[other], name):
                del self.__dict__[other][name]
        self.__dict__[table][name] = value

    def _check_free(self, name: str, table: str) -> None:
        if hasattr(self, name) and name not in self.__dict__[table]:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Registers `param` under `name`; None keeps the name for a parameter that is absent."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(weft.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly"
            )
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Registers a tensor that is state but no parameter; `state_dict` holds it when `persistent`."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (weft.Tensor or None required)"
            )
        self._check_free(name, "_buffers")
        self._register("_buffers", name, tensor)
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Registers a child module under `name`."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_free(name, "_modules")
        self._register("_modules", name, module)

    register_module = add_module

    # ---- walking -----------------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children, each module once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[int] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module and all below it; the own name is `prefix`."""
        memo = set() if memo is None else memo
        if id(self) in memo:
            return
        if remove_duplicate:
            memo.add(id(self))
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        owners = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for owner_name, owner in owners:
            for name, value in owner.__dict__[table].items():
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield f"{owner_name}.{name}" if owner_name else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter); a shared parameter comes once unless `remove_duplicate` is False."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, for an optimiser."""
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(dotted name, buffer)."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers."""
        return (value for _, value in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module with the dotted name `target`; this one for the empty name."""
        module: Module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = child
        return module

    def _get_member(self, target: str, table: str, word: str) -> Any:
        owner_name, _, name = target.rpartition(".")
        owner = self.get_submodule(owner_name)
        value = owner.__dict__[table].get(name)
        if value is None:
            raise AttributeError(f"{type(owner).__name__} has no {word} `{name}`")
        return value

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with the dotted name `target`."""
        return self._get_member(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with the dotted name `target`."""
        return self._get_member(target, "_buffers", "buffer")

    # ---- changing all at once ----------------------------------------------------------------------------------------

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Calls `function` on every module below and then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switches this module and all below to training mode (dropout acts) or, with False, to evaluation mode."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: M) -> M:
        """Switches to evaluation mode."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Sets `requires_grad` of every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of all parameters, or fills them with zeros when `set_to_none` is False."""
        clear_gradients(self.parameters(), set_to_none)

    def _convert(self: M, function: Callable[[Tensor], Tensor]) -> M:
        with no_grad():
            for module in self.modules():
                for parameter in module._parameters.values():
                    if parameter is not None:
                        gradient = parameter.grad
                        parameter.data = function(parameter.data)
                        if gradient is not None:
                            parameter.grad = function(gradient)
                for name, buffer in list(module._buffers.items()):
                    if buffer is not None:
                        module._buffers[name] = function(buffer)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Moves parameters and buffers to a device, and converts the floating-point ones to a dtype, in place.

        `to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`.
        """
        dtype = next((a for a in (*args, kwargs.get("dtype")) if isinstance(a, DType)), None)
        if dtype is not None and not dtype.is_floating_point:
            raise error(
                DTypeError, f"weft.nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype}"
            )
        places = [a for a in args if not isinstance(a, DType)]
        keywords = {k: v for k, v in kwargs.items() if k != "dtype"}

        def convert(tensor: Tensor) -> Tensor:
            if places or keywords:
                keep = tensor.dtype
                tensor = tensor.to(*places, **keywords)
                tensor = tensor if keep.is_floating_point else tensor.to(keep)
            return tensor.to(dtype) if dtype is not None and tensor.dtype.is_floating_point else tensor

        return self._convert(convert)

    def float(self: M) -> M:
        """Converts floating-point parameters and buffers to float32."""
        return self._convert(lambda t: t.float() if t.dtype.is_floating_point else t)

    def double(self: M) -> M:
        """Converts floating-point parameters and buffers to float64."""
        return self._convert(lambda t: t.double() if t.dtype.is_floating_point else t)

    def cpu(self: M) -> M:
        """Moves everything to the CPU."""
        return self.to("cpu")

    # ---- saving, printing: the algorithms are in their own files -----------------------------------------------------

    state_dict = saving.state_dict
    load_state_dict = saving.load_state_dict

    def extra_repr(self) -> str:
        """What stands between the parentheses when the module is printed; for subclasses."""
        return ""

    __repr__ = describe.module_repr
    child_lines = describe.child_lines
    summary = describe.summary


def clear_gradients(parameters: Iterator[Tensor], set_to_none: bool) -> None:
    """Sets `.grad` to None, or fills it with zeros; for modules and optimisers."""
    for parameter in parameters:
        if set_to_none:
            parameter.grad = None           # unread: a program that forgets gradients serves calls with or without
            continue
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.grad_fn is not None:
            gradient.detach_()
        with no_grad():
            gradient.zero_()
