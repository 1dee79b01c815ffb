"""The stub `tracer/tensor_methods.pyi` lists the methods that modules attach to Tensor, so that type checkers and
editors know them.

Set WEFT_UPDATE_GOLDEN=1 to write it anew.
"""
from __future__ import annotations

import ast
import builtins
import functools
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import weft
from weft.tracer import tensor

STUB = Path(tensor.__file__).with_name("tensor_methods.pyi")
HEAD = '''"""The methods that modules attach to Tensor; written by tests/test_typing.py, from their signatures."""
# mypy: disable-error-code="override,misc,overload-overlap"
'''


def stub() -> str:
    """The whole file."""
    needed: set[str] = set()
    lines = [line for name, member in attached() for line in member_lines(name, member, needed)]
    imports = sorted(needed, key=lambda line: (line.startswith("from ."), line))
    return HEAD + "\n".join([*imports, "", "class Methods:", *(f"    {line}" for line in lines), ""])


def attached() -> Iterator[tuple[str, object]]:
    """The members of Tensor that other modules than its own brought, by name."""
    for name, member in sorted(vars(weft.Tensor).items()):
        function = member.fget if isinstance(member, property) else member
        private = name.startswith("_") and not name.endswith("__")
        if inspect.isfunction(function) and function.__module__ != tensor.__name__ and not private:
            yield name, member


def member_lines(name: str, member: object, needed: set[str]) -> list[str]:
    """The declaration of one member; imports that it needs go to `needed`."""
    if isinstance(member, property):
        lines = ["@property", f"def {name}(self) -> {result_text(member.fget, needed)}: ..."]
        if member.fset is not None:
            needed.add("from typing import Any")
            lines += [f"@{name}.setter", f"def {name}(self, value: Any) -> None: ..."]
        return lines
    return [f"def {name}({', '.join(parameters(member, needed))}) -> {result_text(member, needed)}: ..."]


def parameters(function: object, needed: set[str]) -> Iterator[str]:
    """The parameters, `self` first."""
    rest = list(inspect.signature(function).parameters.values())[1:]
    yield "self"
    starred = False
    for p in rest:
        if p.name.startswith("_") or function.__name__ == "<lambda>" and p.name != "other":
            continue                                                        # bound early by a default, no parameter
        if p.kind is p.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        starred |= p.kind is p.VAR_POSITIONAL
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else " = ..."
        yield f"{star}{p.name}: {annotation_text(p.annotation, function, needed)}{default}"


def result_text(function: object, needed: set[str]) -> str:
    """The result's type; an operator without one gives a tensor."""
    signature = inspect.signature(function)
    if "other" in signature.parameters and signature.return_annotation in (signature.empty, "Any"):
        needed.add("from .tensor import Tensor")
        return "Tensor"
    if function.__name__ in ("__int__", "__float__"):
        return f"builtins.{function.__name__.strip('_')}"
    return annotation_text(signature.return_annotation, function, needed)


def annotation_text(annotation: object, function: object, needed: set[str]) -> str:
    """An annotation as the stub writes it: builtins by full names, for `float` and `int` are methods of Tensor."""
    if annotation is inspect.Parameter.empty:
        needed.add("from typing import Any")
        return "Any"
    tree = ast.parse(str(annotation), mode="eval")
    imports = imports_of(sys.modules[inspect.unwrap(function).__module__])
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name):
            continue
        if node.id in imports:
            needed.add(imports[node.id])
        elif hasattr(builtins, node.id):
            needed.add("import builtins")
            node.id = f"builtins.{node.id}"
        else:
            needed.add(f"from .{inspect.unwrap(function).__module__.rpartition('.')[2]} import {node.id}")
    return ast.unparse(tree)


@functools.cache
def imports_of(module: object) -> dict[str, str]:
    """Name -> the import statement that brings it into a module of the tracer's folder."""
    found = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            renamed = f" as {alias.asname}" if alias.asname else ""
            source = f"from {'.' * node.level}{node.module or ''} " if isinstance(node, ast.ImportFrom) else ""
            found[alias.asname or alias.name] = f"{source}import {alias.name}{renamed}"
    return found


def test_stub_lists_what_is_attached():
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        STUB.write_text(stub())
    assert STUB.read_text() == stub()
