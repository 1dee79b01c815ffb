"""Modules that hold others: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..tracer.tensor import Tensor
from .describe import structure
from .module import Module
from .parameter import Parameter
from .tables import NamedTable


def _position(index: int, length: int) -> int:
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"index {index} is out of range")
    return index % length


def _refill(table: NamedTable, entries: Iterable[Any]) -> None:
    """Registers `entries` under 0, 1, 2, ... in place of what the table held."""
    fresh = list(entries)
    for name in table.keys():
        del table[name]
    for k, entry in enumerate(fresh):
        table[str(k)] = entry


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: children named 0, 1, 2, ... with a list's operations."""

    def _at(self, index: int) -> str:
        names = self._modules.keys()
        return names[_position(index, len(names))]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._like(list(self._modules.items())[index])
        return self._modules[self._at(index)]

    def _like(self, items: list[tuple[str, Module]]) -> Any:
        """A container of the same class with these children."""
        result = type(self)()
        for name, module in items:
            result.add_module(name, module)
        return result

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        kept = list(self._modules.values())
        del kept[index]
        _refill(self._modules, kept)

    def __len__(self) -> int:
        return len(self._modules.keys())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __contains__(self, module: Module) -> bool:
        return any(m is module for m in self._modules.values())

    def append(self, module: Module) -> Any:
        """Adds a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Inserts a module before position `index`."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        modules = list(self._modules.values())
        modules.insert(index, module)
        _refill(self._modules, modules)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Adds all modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Module:
        """Removes and returns the module at `index`."""
        module = self[index]
        del self[index]
        return module


class Sequential(_ModuleSequence):
    """Calls its modules one after the other: `Sequential(Linear(3, 8), ReLU())`, or an OrderedDict of named ones."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], OrderedDict):
            named: Iterable[tuple[str, Module]] = modules[0].items()
        else:
            named = ((str(k), module) for k, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        """The last module's output."""
        for module in self._modules.values():
            input = module(input)
        return input

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *other)


class ModuleList(_ModuleSequence):
    """A list of modules that are registered."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _like(self, items: list[tuple[str, Module]]) -> ModuleList:
        return ModuleList(module for _, module in items)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def child_lines(self) -> list[str]:
        """As torch: neighbours that print alike share a line, `(0-2): 3 x Linear(...)`."""
        texts = [structure(module) for module in self]
        lines, start = [], 0
        for end in range(1, len(texts) + 1):
            if end < len(texts) and texts[end] == texts[start]:
                continue
            many = end > start + 1
            line = f"({start}-{end - 1}): {end - start} x {texts[start]}" if many else f"({start}): {texts[start]}"
            lines.append(line.replace("\n", "\n  "))
            start = end
        return lines


class ModuleDict(Module):
    """A dictionary of modules that are registered."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        if key not in self._modules:
            self.add_module(key, module)
        else:
            self._modules[key] = module

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules.keys())

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Any:
        """The names."""
        return self._modules.keys()

    def values(self) -> Any:
        """The modules."""
        return self._modules.values()

    def items(self) -> Any:
        """(name, module) pairs."""
        return self._modules.items()

    def pop(self, key: str) -> Module:
        """Removes and returns a module."""
        module = self._modules[key]
        del self._modules[key]
        return module

    def clear(self) -> None:
        """Removes all modules."""
        for key in self.keys():
            del self._modules[key]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds all modules of a mapping or of (name, module) pairs."""
        for key, module in modules.items() if isinstance(modules, Mapping | ModuleDict) else modules:
            self[key] = module


def _as_parameter(value: Any) -> Any:
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _parameter_line(name: str, value: Any) -> str:
    kind = "Parameter containing" if isinstance(value, Parameter) else type(value).__name__
    return f"({name}): {kind}: [{value.dtype} of size {'x'.join(map(str, value.shape))}]"


class ParameterList(Module):
    """A list of parameters that are registered; a plain tensor becomes a Parameter."""

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ParameterList(list(self)[index])
        names = self._parameters.keys()
        return self._parameters[names[_position(index, len(names))]]

    def __setitem__(self, index: int, value: Tensor) -> None:
        self.register_parameter(str(_position(index, len(self))), _as_parameter(value))

    def __len__(self) -> int:
        return len(self._parameters.keys())

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters.values())

    def append(self, value: Tensor) -> ParameterList:
        """Adds a parameter at the end."""
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Tensor]) -> ParameterList:
        """Adds all parameters at the end."""
        for value in list(values):
            self.append(value)
        return self

    def child_lines(self) -> list[str]:
        """One line per parameter."""
        return [_parameter_line(name, p) for name, p in self._parameters.items()]


class ParameterDict(Module):
    """A dictionary of parameters that are registered; a plain tensor becomes a Parameter."""

    def __init__(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Parameter:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self.register_parameter(key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters.keys())

    def __contains__(self, key: str) -> bool:
        return key in self._parameters

    def keys(self) -> Any:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Any:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Any:
        """(name, parameter) pairs."""
        return self._parameters.items()

    def update(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
        """Adds all parameters of a mapping or of (name, tensor) pairs."""
        for key, value in parameters.items() if isinstance(parameters, Mapping | ParameterDict) else parameters:
            self[key] = value

    def child_lines(self) -> list[str]:
        """One line per parameter."""
        return [_parameter_line(name, p) for name, p in self._parameters.items()]
