"""Parameter: a tensor that a module registers when it is assigned to an attribute."""

from __future__ import annotations

from typing import Any

from ..ir.errors import DTypeError
from ..tracer.location import error
from ..tracer.tape import alias_of
from ..tracer.tensor import Tensor, wrap


class Parameter(Tensor):
    """A leaf tensor over the memory of `data` that belongs to a module and, unless told otherwise, requires grad."""

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            data = wrap([])
        if not isinstance(data, Tensor):
            raise error(
                DTypeError,
                f"a Parameter is made from a tensor, not from {type(data).__name__}: "
                "use weft.nn.Parameter(weft.tensor(...))",
            )
        self.__dict__.update(alias_of(data).__dict__)
        if requires_grad:
            self.requires_grad_(True)

    def __repr__(self, contents: str | None = None) -> str:
        return f"Parameter containing:\n{super().__repr__(contents)}"

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.detach(), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        known = memo.get(id(self))
        if known is None:
            known = memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        return known


def _rebuild(kind: type[Parameter], data: Tensor, requires_grad: bool) -> Parameter:
    return kind(data, requires_grad)
