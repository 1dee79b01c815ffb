"""Printing and reading graphs: golden texts, names, attributes, errors of the parser, structural equality.

Set WEFT_UPDATE_GOLDEN=1 to write the golden files anew.
"""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from weft.ir import OPS, Graph, Location, Node, Value, parse, same_graph, verify
from weft.ir.builder import Builder
from weft.ir.compare import difference
from weft.ir.errors import ParseError
from weft.ir.types import Symbol, TensorType, float32, float64, int64, uint64

GOLDEN = Path(__file__).parent / "golden" / "ir"


def check_golden(name: str, graph: Graph) -> None:
    """The text of `graph` is the golden one, and reads back into an equal graph with the same text."""
    verify(graph)
    text, path = f"{graph}\n", GOLDEN / f"{name}.txt"
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"no golden file {path.name}: run with WEFT_UPDATE_GOLDEN=1"
    assert text == path.read_text()
    again = parse(text)
    assert difference(graph, again) is None and f"{again}\n" == text


def scalar(dtype=float32) -> TensorType:
    return TensorType((), dtype)


def network() -> Graph:
    """A small step: a hidden layer, a loss, a parameter that is written back."""
    b = Builder("step")
    x, w = b.param(TensorType((100, 3), float32), "x"), b.param(TensorType((3, 32), float32), "w")
    rate = b.param(scalar())
    b.loc = Location("/home/someone/book_mlp.py", 14)
    product = b.dot_general(x, w, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,))
    h = b.add_node(OPS.maximum, [product, b.full_like(product, 0.0)], hints=["h"]).output
    b.loc = Location("C:\\work\\book mlp.py", 15)
    loss = b.sum(h, dims=(0, 1))
    b.loc = None
    values, order = b.add_node(OPS.sort, [h], {"dim": 0, "descending": True}, hints=["h", "h"]).outputs
    new = b.sub(w, b.mul(w, b.expand(rate, w.shape)))
    return b.finish([loss, new, order, values], {"writes": {1: 1}})


def attributes() -> Graph:
    """Every kind of attribute: numbers of all sorts, dtypes, tuples, words; and a symbolic size and another device."""
    b = Builder("<lambda>")
    x = b.param(TensorType((Symbol("N"), 2), float64), "x-1")
    b.param(TensorType((3,), float32, "cuda:0"), "x 1")
    u = b.param(scalar(), "2nd")
    numbers = [
        b.scalar(v, float32)
        for v in (float("nan"), float("inf"), -float("inf"), -0.0, 1, 0.1, 1e-30, 12345678901234567890.0)
    ]
    literal = b.literal(values=(1, 2), shape=(2,), dtype=uint64)
    bits = b.random_bits(literal, shape=(), dtype=uint64)
    sums = b.sum(x, dims=())
    table = b.literal(values=(1.5, float("nan")), shape=(2,), dtype=float32)
    new = b.scatter(table, u, b.scalar(1, int64), dims=(0,), mode="set")
    return b.finish([*numbers, bits, sums, new, new])


def regions() -> Graph:
    """A loop in a branch."""
    body = Builder("body")
    i, x = body.param(scalar(int64), "i"), body.param(scalar(), "x")
    body.loc = Location("loops.py", 3)
    inner = body.finish([body.add(x, body.cast(i, float32))])
    then = Builder("then")
    y = then.param(scalar(), "y")
    then.loc = Location("loops.py", 2)
    final = then.control(OPS.loop, [then.index_scalar(0), then.index_scalar(10), y], {"carried": 1}, [inner])
    otherwise = Builder("otherwise")
    z = otherwise.param(scalar(), "y")
    b = Builder("f")
    y = b.param(scalar(), "y")
    b.loc = Location("loops.py", 1)
    positive = b.gt(y, b.full_like(y, 0.0))
    result = b.control(OPS.cond, [positive, y], {}, [then.finish(final), otherwise.finish([z])])
    nothing = b.control(OPS.fusion, [y], {}, [Graph("body", (Value(scalar()),), (), ())])
    assert nothing == ()
    return b.finish(result)


@pytest.mark.parametrize("make", [network, attributes, regions], ids=lambda make: make.__name__)
def test_golden(make):
    check_golden(make.__name__, make())
    assert str(make()) == str(make())


def test_names_are_unique_and_hints_survive():
    t = scalar()
    params = [Value(t, h) for h in ("x", "x", "x_1", "", "p3", "7", "ü")]
    graph = Graph("names", tuple(params), (), tuple(params))
    assert str(graph).splitlines()[1] == "  return %x, %x_1, %x_1_1, %p3, %p3_1, %_7, %_"
    assert str(parse(str(graph))) == str(graph)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected graph, found the end of the line\n  the end of the text"),
        ("graph f(%x: f32[2]) {\n  return %x", "line 3: expected }"),
        ("graph f(%x: f32[2]) {\n", "has no return line"),
        ("graph f(%x: q7[2]) {\n  return %x\n}", "line 1: q7 is not an element type"),
        ("graph f(%x: f32[2], %x: f32[2]) {\n  return %x\n}", "%x is defined twice"),
        ("graph f(%x: f32[2]) {\n  %0: f32[2] = frobnicate %x\n  return %x\n}", "line 2: no op is named frobnicate"),
        (
            "graph f(%x: f32[2]) {\n  %0: f32[2] = neg %y\n  return %x\n}",
            "%y is not defined before it is used\n  %0: f32",
        ),
        ("graph f(%x: f32[2]) {\n  %0: f32[2] = neg %0\n  return %x\n}", "%0 is not defined before it is used"),
        ("graph f(%x: f32[2]) {\n  %0: f32[2] = neg %x %x\n  return %x\n}", "unexpected %x"),
        ("graph f(%x: f32[2]) {\n  %0: f32[] = sum %x {dims=(0,}\n  return %x\n}", "} is not a value of an attribute"),
        (
            "graph f(%x: f32[2]) {\n  %0: f32[2] = neg %x  # nowhere\n  return %x\n}",
            "the comment is not a file and line",
        ),
        ("graph f(%x: f32[2]) {\n  %0: f32[2] = neg %x\n  return %0 writes %0\n}", "only params can be written"),
        ("graph f(%x: f32[2]) {\n  return %x\n}\nmore", "line 4: text after the end"),
        ("graph f(%x: f32[2]) {\n  %0: f32[2] = neg %x ?\n  return %x\n}", "line 2: cannot read"),
    ],
)
def test_parse_errors_show_the_line(text, message):
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_same_graph_sees_every_difference():
    head = "graph f(%x: f32[2], %y: f32[2]) {{\n"
    base = head + "  %0: f32[2] = {op} {a}, {b}  # {place}\n  %1: f32[] = {sum}\n  return {result}\n}}"
    plain = {"op": "add", "a": "%x", "b": "%y", "place": "f.py:1", "sum": "sum %0 {dims=(0,)}", "result": "%0, %1"}
    changed = [
        {"op": "mul"},
        {"a": "%y"},
        {"place": "f.py:2"},
        {"place": "g.py:1"},
        {"sum": "amax %0 {dims=(0,)}"},
        {"result": "%1, %0"},
        {"result": "%0 writes %x, %1"},
        {"sum": "sum %0 {dims=(1,)}"},
    ]
    graph = parse(base.format(**plain))
    assert same_graph(graph, parse(base.format(**plain).replace("%0", "%named")))
    for change in changed:
        assert not same_graph(graph, parse(base.format(**{**plain, **change}))), change
    assert not same_graph(graph, parse(str(graph).replace("%y: f32[2]", "%y: f32[3]")))


def test_same_graph_compares_numbers_by_text_and_files_by_name():
    def constant(value, file="a/f.py"):
        out = Value(scalar())
        return Graph(
            "c", (), (Node(OPS.constant, (), {"value": value, "dtype": float32}, (out,), Location(file, 1)),), (out,)
        )

    assert same_graph(constant(float("nan")), constant(float("nan"), "b/f.py"))
    for a, b in ((0.0, -0.0), (1, 1.0), (1, True)):
        assert not same_graph(constant(a), constant(b))


def test_same_graph_looks_into_regions():
    assert same_graph(regions(), regions())
    other = parse(str(regions()).replace("= add %x", "= sub %x"))
    assert "cond, region 0: node 2: loop, region 0: node 1: add and sub" in difference(regions(), other)
