"""Reads what `ir/text.py` prints back into an equal graph. Types are taken as written: `verify` checks them."""
from __future__ import annotations

import re
from typing import Any

from .errors import ParseError
from .graph import Graph, Location, Node, Value
from .ops import OPS
from .sizes import Dim, Symbol
from .types import BY_SHORT, DType, TensorType

TOKEN = re.compile(
    r"""\s*(?:(?P<place>\#.*)|(?P<value>%\w+)|(?P<device>@\w+(:\d+)?)|(?P<number>-?(\d+(\.\d*)?(e[+-]?\d+)?|inf\b))
              |(?P<word>\w+)|(?P<string>'[^']*'|"[^"]*")|(?P<mark>[(){}\[\],:=]))""",
    re.VERBOSE,
)
KINDS = ("place", "value", "device", "number", "word", "string", "mark")
PLACE = re.compile(r"# (.*):(\d+)$")
WORDS = {"True": True, "False": False, "nan": float("nan"), "inf": float("inf")}


def parse(text: str) -> Graph:
    """The graph written in `text`. Raises ParseError with the line that is wrong."""
    reader = _Reader(text)
    graph = _graph(reader)
    if not reader.at_end():
        raise reader.error("text after the end of the graph")
    return graph


class _Reader:
    """A cursor over the tokens of one line at a time."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.number = -1
        self.tokens: list[tuple[str, str]] = []
        self.next_line()

    def next_line(self) -> None:
        """Moves to the next line that is not blank."""
        self.number += 1
        while self.number < len(self.lines) and not self.lines[self.number].strip():
            self.number += 1
        self.tokens = self._split(self.lines[self.number]) if self.number < len(self.lines) else []

    def _split(self, line: str) -> list[tuple[str, str]]:
        tokens, position = [], 0
        line = line.rstrip()
        while position < len(line):
            match = TOKEN.match(line, position)
            if match is None or match.lastgroup is None:
                raise self.error(f"cannot read {line[position:]!r}")
            kind = next(k for k in KINDS if match[k] is not None)
            tokens.append((kind, match[kind]))
            position = match.end()
        return tokens[::-1]  # the next token is the last of the list

    def peek(self) -> str:
        """The next token of the line, an empty text at its end."""
        return self.tokens[-1][1] if self.tokens else ""

    def peek_kind(self) -> str:
        """The kind of the next token, an empty text at the line's end."""
        return self.tokens[-1][0] if self.tokens else ""

    def take(self, expected: str = "", kind: str = "") -> str:
        """The next token, which must be `expected` or of `kind` when given."""
        if not self.tokens or (expected and self.peek() != expected) or (kind and self.peek_kind() != kind):
            raise self.error(f"expected {expected or kind or 'more'}, found {self.peek() or 'the end of the line'}")
        return self.tokens.pop()[1]

    def accept(self, text: str) -> bool:
        """Takes the next token if it is `text`."""
        if self.peek() == text:
            self.tokens.pop()
            return True
        return False

    def end_line(self) -> None:
        """The line must end here."""
        if self.tokens:
            raise self.error(f"unexpected {self.peek()}")
        self.next_line()

    def at_end(self) -> bool:
        """Whether all lines are read."""
        return self.number >= len(self.lines)

    def error(self, message: str) -> ParseError:
        """A ParseError that shows the current line."""
        line = self.lines[self.number].strip() if self.number < len(self.lines) else "the end of the text"
        return ParseError(f"line {self.number + 1}: {message}\n  {line}")


def _graph(reader: _Reader) -> Graph:
    env: dict[str, Value] = {}
    reader.take("graph")
    name = reader.take(kind="word") if reader.peek_kind() == "word" else ""
    reader.take("(")
    params = []
    while not reader.accept(")"):
        params.append(_definition(reader, env))
        if reader.peek() != ")":
            reader.take(",")
    reader.take("{")
    reader.end_line()
    nodes = []
    while reader.peek() != "return":
        if reader.at_end():
            raise reader.error(f"the graph {name} has no return line")
        nodes.append(_node(reader, env))
    results, writes = _results(reader, env, params)
    reader.take("}")
    reader.end_line()
    return Graph(name, tuple(params), tuple(nodes), results, {"writes": writes} if writes else {})


def _definition(reader: _Reader, env: dict[str, Value]) -> Value:
    name = reader.take(kind="value")
    if name in env:
        raise reader.error(f"{name} is defined twice")
    reader.take(":")
    env[name] = value = Value(_type(reader), "" if name[1:].isdigit() else name[1:])
    return value


def _type(reader: _Reader) -> TensorType:
    short = reader.take(kind="word")
    if short not in BY_SHORT:
        raise reader.error(f"{short} is not an element type")
    reader.take("[")
    shape: list[Dim] = []
    while not reader.accept("]"):
        token = reader.take()
        shape.append(int(token) if token.isdigit() else Symbol(token))
        if reader.peek() != "]":
            reader.take(",")
    device = reader.take()[1:] if reader.peek_kind() == "device" else "cpu"
    return TensorType(tuple(shape), BY_SHORT[short], device)


def _node(reader: _Reader, env: dict[str, Value]) -> Node:
    defined: dict[str, Value] = dict(env)
    outputs = []
    if reader.accept("("):
        reader.take(")")
        reader.take("=")
    else:
        outputs.append(_definition(reader, defined))
        while not reader.accept("="):
            reader.take(",")
            outputs.append(_definition(reader, defined))
    name = reader.take(kind="word")
    if name not in OPS:
        raise reader.error(f"no op is named {name}")
    inputs = []
    while reader.peek_kind() == "value":
        inputs.append(_use(reader, env))
        if not reader.accept(","):
            break
    attrs = _attributes(reader)
    loc = _location(reader)
    reader.end_line()
    regions = []
    while reader.peek() == "graph":
        regions.append(_graph(reader))
    env.update(defined)
    return Node(OPS[name], tuple(inputs), attrs, tuple(outputs), loc, tuple(regions))


def _use(reader: _Reader, env: dict[str, Value]) -> Value:
    name = reader.take(kind="value")
    if name not in env:
        raise reader.error(f"{name} is not defined before it is used")
    return env[name]


def _attributes(reader: _Reader) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    if not reader.accept("{"):
        return attrs
    while not reader.accept("}"):
        name = reader.take(kind="word")
        reader.take("=")
        attrs[name] = _attribute(reader)
        if reader.peek() != "}":
            reader.take(",")
    return attrs


def _attribute(reader: _Reader) -> Any:
    if reader.accept("("):
        items = []
        while not reader.accept(")"):
            items.append(_attribute(reader))
            if reader.peek() != ")":
                reader.take(",")
        return tuple(items)
    kind, token = reader.peek_kind(), reader.take()
    if kind == "number":
        return int(token) if re.fullmatch(r"-?\d+", token) else float(token)
    if kind == "string":
        return token[1:-1]
    if kind != "word":
        raise reader.error(f"{token} is not a value of an attribute")
    return _word(token)


def _word(token: str) -> bool | float | DType | Symbol:
    if token in WORDS:
        return WORDS[token]
    return BY_SHORT[token] if token in BY_SHORT else Symbol(token)


def _location(reader: _Reader) -> Location | None:
    if reader.peek_kind() != "place":
        return None
    match = PLACE.match(reader.peek())
    if match is None:
        raise reader.error("the comment is not a file and line")
    reader.take()
    return Location(match[1], int(match[2]))


def _results(reader: _Reader, env: dict[str, Value], params: list[Value]) -> tuple[tuple[Value, ...], dict[int, int]]:
    reader.take("return")
    results: list[Value] = []
    writes: dict[int, int] = {}
    while reader.peek():
        results.append(_use(reader, env))
        if reader.accept("writes"):
            target = _use(reader, env)
            if target not in params:
                raise reader.error("only params can be written")
            writes[len(results) - 1] = params.index(target)
        if reader.peek():
            reader.take(",")
    reader.end_line()
    return tuple(results), writes
