"""Checks that a graph obeys the IR's rules. A failure shows the line, its neighbours and the user's source line."""
from __future__ import annotations

from typing import Any

from .errors import VerifyError, WeftError
from .graph import Graph, Node, Value
from .op import Trait
from .ops import OPS
from .sizes import Polynomial, Symbol, SymbolicSize
from .text import print_node, print_results, value_names
from .types import DType, TensorType


def verify(graph: Graph) -> None:
    """Raises VerifyError unless every value is defined once and before its uses, every type is the inferred one,
    attributes fit their schema, regions are closed, and the notes speak of what exists."""
    defined: set[Value] = set()
    for param in graph.params:
        if param in defined:
            raise VerifyError(f"graph {graph.name}: the param {param.hint or '?'} stands twice in its list")
        _check_type(graph, None, param)
        defined.add(param)
    for position, node in enumerate(graph.nodes):
        _check_node(graph, position, node, defined)
        defined.update(node.outputs)
    for number, result in enumerate(graph.results):
        if result not in defined:
            raise _results_error(graph, f"result {number} is not a value of the graph")
    _check_writes(graph)


def _check_node(graph: Graph, position: int, node: Node, defined: set[Value]) -> None:
    name = node.op.name
    if name not in OPS or OPS[name] is not node.op:
        raise _error(graph, position, f"{name} is not a declared op")
    for number, value in enumerate(node.inputs):
        if value not in defined:
            raise _error(graph, position, f"input {number} of {name} is not defined before this node")
    for value in node.outputs:
        if value in defined:
            raise _error(graph, position, f"an output of {name} is defined twice")
        _check_type(graph, position, value)
    if len(set(node.outputs)) != len(node.outputs):
        raise _error(graph, position, f"an output of {name} is defined twice")
    if node.op.arity is not None and len(node.inputs) != node.op.arity:
        raise _error(graph, position, f"{name} takes {node.op.arity} inputs, not {len(node.inputs)}")
    _check_attrs(graph, position, node)
    if node.regions and not node.op.has(Trait.CONTROL):
        raise _error(graph, position, f"{name} takes no regions")
    for region in node.regions:
        _check_region(graph, position, region)
    _check_inferred(graph, position, node)


def _check_attrs(graph: Graph, position: int, node: Node) -> None:
    schema = node.op.attrs
    if set(node.attrs) != set(schema):
        raise _error(graph, position, f"{node.op.name} has the attributes {sorted(schema)}, not {sorted(node.attrs)}")
    for name, expected in schema.items():
        kinds = expected if isinstance(expected, tuple) else (expected,)
        value = node.attrs[name]
        if (int if isinstance(value, _SIZES) else type(value)) not in kinds or not _is_plain(value):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise _error(graph, position, f"attribute {name} of {node.op.name} must be {wanted}, not {value!r}")


def _is_plain(value: Any) -> bool:
    """Attributes are exactly Python's own immutable types, so that they print, hash and compare."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


_SIZES = (SymbolicSize, Symbol, Polynomial)
_PLAIN = frozenset((bool, int, float, str, DType, *_SIZES))


def _is_size(dim: Any) -> bool:
    return type(dim) in (Symbol, Polynomial) or (type(dim) in (int, SymbolicSize) and dim >= 0)


def _check_region(graph: Graph, position: int, region: Graph) -> None:
    try:
        verify(region)
    except VerifyError as error:
        raise _error(graph, position, f"in the region {region.name}: {error}") from error


def _check_inferred(graph: Graph, position: int, node: Node) -> None:
    attrs = {**node.attrs, "regions": node.regions} if node.regions else node.attrs
    try:
        inferred = node.op.output_types([v.type for v in node.inputs], attrs)
    except WeftError as error:
        raise _error(graph, position, str(error)) from error
    written = tuple(v.type for v in node.outputs)
    if inferred != written:
        raise _error(graph, position, f"{node.op.name} gives {_listed(inferred)}, written down as {_listed(written)}")


def _check_type(graph: Graph, position: int | None, value: Value) -> None:
    sound = type(value.type) is TensorType and type(value.type.dtype) is DType and type(value.type.shape) is tuple
    if not sound or not all(map(_is_size, value.type.shape)):
        message = f"{value.type!r} is not a type"
        raise VerifyError(f"graph {graph.name}: {message}") if position is None else _error(graph, position, message)


def _check_writes(graph: Graph) -> None:
    writes = graph.notes.get("writes", {})
    if len(set(writes.values())) != len(writes):
        raise _results_error(graph, f"two results write one param: {dict(writes)}")
    for result, param in writes.items():
        if not (0 <= result < len(graph.results) and 0 <= param < len(graph.params)):
            raise _results_error(graph, f"result {result} writes param {param}, but they do not both exist")
        new, old = graph.results[result].type, graph.params[param].type
        if new != old:
            raise _results_error(graph, f"result {result} of type {new} writes a param of type {old}")


def _results_error(graph: Graph, message: str) -> VerifyError:
    """An error that shows the return line."""
    known = {r: p for r, p in graph.notes.get("writes", {}).items() if 0 <= p < len(graph.params)}
    shown = Graph(graph.name, graph.params, graph.nodes, graph.results, {"writes": known})
    return VerifyError(f"graph {graph.name}: {message}\n  > return {print_results(shown, value_names(shown))}")


def _listed(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _error(graph: Graph, position: int, message: str) -> VerifyError:
    """An error that shows the node between its neighbours and the user's line."""
    names, lines = value_names(graph), []
    for k in range(max(0, position - 2), min(len(graph.nodes), position + 3)):
        lines.append(f"  {'>' if k == position else ' '} {print_node(graph.nodes[k], names)}")
    loc = graph.nodes[position].loc
    source = f"\nfrom {loc}" if loc else ""
    return VerifyError(f"graph {graph.name}: {message}\n" + "\n".join(lines) + source)
