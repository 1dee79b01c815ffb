"""What the verifier refuses, and how it says it."""
from __future__ import annotations

import numpy as np
import pytest

from weft.ir import OPS, Graph, Location, Node, Value, parse, verify
from weft.ir.errors import VerifyError
from weft.ir.op import Op
from weft.ir.types import TensorType, float32, int64

VECTOR, SCALAR = TensorType((2,), float32), TensorType((), float32)


def refuse(graph: Graph, *messages: str) -> str:
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    for message in messages:
        assert message in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%0: f32[3] = neg %x", "neg gives f32[2], written down as f32[3]"),
        ("%0: f64[2] = neg %x", "neg gives f32[2], written down as f64[2]"),
        ("%0: f32[2] = add %x", "add takes 2 inputs, not 1"),
        ("%0: f32[2] = add %x, %y", "add: the operands have different shapes, (2,) and (3,)"),
        ("%0: f32[2] = sigmoid %i", "sigmoid is not defined for int64"),
        ("%0: f32[2] = sum %x", "sum has the attributes ['dims'], not []"),
        ("%0: f32[2] = neg %x {dims=(0,)}", "neg has the attributes [], not ['dims']"),
        ("%0: f32[] = sum %x {dims=0}", "attribute dims of sum must be tuple, not 0"),
        ("%0: f32[] = sum %x {dims=(1,)}", "sum: axis 1 does not exist in a tensor with 1 axes"),
        ("%0: i64[] = argmax %x {dim=True}", "attribute dim of argmax must be int, not True"),
        ("%0: f32[2], %1: i64[2] = neg %x", "neg gives f32[2], written down as f32[2], i64[2]"),
        ("%0: f32[2] = sort %x {descending=False, dim=0}", "sort gives f32[2], i64[2], written down as f32[2]"),
        ("%0: f32[2] = slice %x {starts=(1,), steps=(1,), stops=(3,)}", "slice: 1:3:1 is not within an axis of size 2"),
        ("%c0: i32[] = constant {dtype=i32, value=1.5}", "constant: 1.5 is not a value of dtype int32"),
        ("%0: f32[2] = fusion %x", "fusion takes 1 regions, got 0"),
        (
            "%0: f32[2] = as_strided %x {offset=1, shape=(2,), strides=(1,)}",
            "as_strided: shape (2,) with strides (1,) from 1 reaches element 2 of the 2 of f32[2]",
        ),
    ],
)
def test_bad_lines(line, message):
    before, after = "%a: f32[2] = exp %x", "%b: f32[2] = log %x"
    head = "graph f(%x: f32[2], %y: f32[3], %i: i64[2]) {"
    graph = parse("\n".join([head, before, f"{line}  # user.py:7", after, "return %b", "}"]))
    shown = refuse(graph, f"graph f: {message}", "from user.py:7").splitlines()
    assert shown[1:4] == [f"    {before}", f"  > {line}  # user.py:7", f"    {after}"]


def test_regions_must_fit_and_be_closed():
    outer, inner, out = Value(VECTOR, "x"), Value(VECTOR, "y"), Value(VECTOR)
    leak = Value(VECTOR)
    body = Graph("body", (inner,), (Node(OPS.neg, (outer,), {}, (leak,), Location("a.py", 1)),), (leak,))
    refuse(
        Graph("f", (outer,), (Node(OPS.fusion, (outer,), {}, (out,), None, (body,)),), (out,)),
        "in the region body: graph body: input 0 of neg is not defined before this node",
        "> %0: f32[2] = fusion %x",
    )
    empty = Graph("body", (Value(SCALAR),), (), ())
    refuse(
        Graph("f", (outer,), (Node(OPS.fusion, (outer,), {}, (), None, (empty,)),), ()),
        "fusion: the region body takes (f32[]) and is given (f32[2])",
    )
    refuse(Graph("f", (outer,), (Node(OPS.neg, (outer,), {}, (out,), None, (empty,)),), ()), "neg takes no regions")


def test_loop_carries_what_it_gives():
    index, x, wide = Value(TensorType((), int64)), Value(SCALAR), Value(VECTOR)
    start, first = Value(TensorType((), int64)), Value(SCALAR)
    body = Graph("body", (index, x, wide), (), (wide,))
    node = Node(OPS.loop, (start, start, first, Value(VECTOR)), {"carried": 1}, (Value(VECTOR),), None, (body,))
    refuse(
        Graph("f", (start, first, node.inputs[3]), (node,), ()),
        "loop: the body's next values (f32[2]) are not of the types (f32[]) carried",
    )


def test_values_are_defined_once_and_before_use():
    x, y, z = Value(VECTOR, "x"), Value(VECTOR, "y"), Value(VECTOR, "z")
    neg = Node(OPS.neg, (x,), {}, (y,))
    refuse(Graph("f", (x,), (neg, neg), (y,)), "an output of neg is defined twice")
    refuse(Graph("f", (x,), (Node(OPS.neg, (x,), {}, (x,)),), (x,)), "an output of neg is defined twice")
    refuse(Graph("f", (x, x), (), (x,)), "the param x stands twice")
    refuse(
        Graph("f", (x,), (Node(OPS.neg, (z,), {}, (y,)),), (y,)),
        "input 0 of neg is not defined",
        "> %y: f32[2] = neg %?",
    )
    refuse(Graph("f", (x,), (neg,), (y, z)), "result 1 is not a value of the graph", "> return %y, %?")


def test_values_attributes_and_ops_must_be_plain():
    x, y = Value(VECTOR, "x"), Value(SCALAR)
    for dims in ((np.int64(0),), [0]):
        refuse(
            Graph("f", (x,), (Node(OPS.sum, (x,), {"dims": dims}, (y,)),), (y,)), "attribute dims of sum must be tuple"
        )
    refuse(Graph("f", (Value(TensorType((np.int64(2),), float32)),), (), ()), "is not a type")
    stranger = Op("stranger", infer=OPS.neg.infer, evaluate=np.negative, vjp=OPS.neg.vjp)
    refuse(Graph("f", (x,), (Node(stranger, (x,), {}, (Value(VECTOR),)),), ()), "stranger is not a declared op")


@pytest.mark.parametrize(
    ("writes", "message"),
    [
        ({2: 0}, "result 2 writes param 0, but they do not both exist"),
        ({0: 2}, "result 0 writes param 2"),
        ({0: 1}, "result 0 of type f32[2] writes a param of type f32[]"),
        ({0: 0, 1: 0}, "two results write one param"),
    ],
)
def test_writes_speak_of_what_exists(writes, message):
    x, s = Value(VECTOR, "x"), Value(SCALAR, "s")
    refuse(Graph("f", (x, s), (), (x, x), {"writes": writes}), message, "> return %x")
