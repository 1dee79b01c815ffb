"""How modules print: torch's nested text with the number of parameters, and the table of `Module.summary`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .module import Module


def module_repr(module: Module) -> str:
    """Torch's text, followed by the number of parameters when there are any."""
    count = sum(p.numel() for p in module.parameters())
    plural = "" if count == 1 else "s"
    return structure(module) + (f"  # {count:,} parameter{plural}" if count else "")


def structure(module: Module | None) -> str:
    """Torch's text: the class, `extra_repr`, and the children below it."""
    if module is None:
        return "None"
    text: Callable[..., str] = type(module).__repr__
    if text is not module_repr:
        return repr(module)
    extra, children = module.extra_repr(), module.child_lines()
    lines = [*(extra.split("\n") if extra else []), *children]
    name = type(module).__name__
    if not children and len(lines) <= 1:
        return f"{name}({extra})"
    return f"{name}(" + "".join(f"\n  {line}" for line in lines) + "\n)"


def child_lines(self: Module) -> list[str]:
    """One text per child for `repr`, which may span lines."""
    return [f"({name}): {structure(child)}".replace("\n", "\n  ") for name, child in self._modules.items()]


def summary(module: Module) -> str:
    """A table with one line per parameter, and the totals above it."""
    rows: list[tuple[str, ...]] = [("name", "module", "shape", "dtype", "parameters")]
    seen: set[int] = set()
    total = trainable = nbytes = 0
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            count = parameter.numel()
            total += count
            trainable += count if parameter.requires_grad else 0
            nbytes += count * parameter.dtype.itemsize
            shape = " x ".join(map(str, parameter.shape)) or "scalar"
            rows.append(
                (
                    f"{prefix}.{name}" if prefix else name,
                    type(owner).__name__,
                    shape,
                    parameter.dtype.name,
                    f"{count:,}",
                )
            )
    head = f"{type(module).__name__}: {total:,} parameters, {trainable:,} trainable, {nbytes:,} bytes"
    return head if not total else "\n".join([head, *_table(rows)])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(w) if k == len(row) - 1 else cell.ljust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
