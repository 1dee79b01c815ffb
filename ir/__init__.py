"""The intermediate representation: types, op declarations, graphs, text, verifier, interpreter, loop IR and plan."""
from .compare import same_graph
from .graph import Graph, Location, Node, Value
from .interpret import interpret
from .ops import OPS
from .parse import parse
from .verify import verify

__all__ = ["OPS", "Graph", "Location", "Node", "Value", "interpret", "parse", "same_graph", "verify"]
