"""Each pass on small graphs: what it removes, moves or merges, and what it must leave alone."""

import math

import numpy as np
import pytest

from weft.ir import OPS, interpret, verify
from weft.ir.builder import Builder, inline
from weft.ir.errors import GradientError
from weft.ir.graph import Location
from weft.ir.samples import samples
from weft.ir.types import Symbol, TensorType, bool_, float32, float64, int64
from weft.passes.cse import CommonSubexpressions
from weft.passes.dce import DeadCode
from weft.passes.fold import emit_array
from weft.passes.invariant import InvariantMotion
from weft.passes.loops import RepeatedLoops
from weft.passes.options import Options
from weft.passes.pipeline import PIPELINE, optimize
from weft.passes.reroll import RolledLoops
from weft.passes.reverse import backpropagate, gradient
from weft.passes.rewrite import Rewriter, RuleTable

INDEX, SCALAR, VECTOR, MATRIX = (
    TensorType(shape, dtype) for shape, dtype in (((), int64), ((), float64), ((3,), float64), ((3, 3), float64))
)
OFF = Options()


def build(*types, results):
    """The graph of `results(b, *params)`."""
    b = Builder("test")
    return b.finish(results(b, *(b.param(t) for t in types)))


def names(graph):
    """The ops in order, those of regions in brackets after theirs."""
    found = []
    for node in graph.nodes:
        found.append(node.op.name)
        found += [f"[{name}]" for region in node.regions for name in names(region)]
    return found


def node_of(graph, name):
    return next(node for node in graph.nodes if node.op.name == name)


def loop(b, count, *operands, carried, step):
    types = [v.type for v in operands]
    bounds = b.index_scalar(0), b.index_scalar(count) if isinstance(count, int) else count
    return b.control(OPS.loop, (*bounds, *operands), {"carried": carried}, (build(INDEX, *types, results=step),))


def matvec(b, w, x):
    return b.dot_general(w, x, lhs_batch=(), rhs_batch=(), lhs_contract=(1,), rhs_contract=(0,))


def same_meaning(old, new):
    verify(new)
    arrays = [np.random.default_rng(k).uniform(-1, 1, p.shape).astype(p.dtype.numpy) for k, p in enumerate(old.params)]
    for a, z in zip(interpret(old, arrays), interpret(new, arrays), strict=True):
        np.testing.assert_array_equal(a, z)


# every op -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", list(OPS), ids=lambda op: op.name)
def test_samples_of_every_op_are_optimized_without_change_of_meaning(op):
    """Once with operands that are params, once with operands that are constants as far as these exist."""
    rng = np.random.default_rng(0)
    for sample in samples(op):
        arrays, graph = sample.arrays(rng), sample.graph()
        expected = interpret(graph, arrays)
        for known in (False, True):
            b = Rewriter(graph, RuleTable(()))
            b.params = []
            inputs = [
                emit_array(b, a) if known and 0 < a.size <= 16 else b.param(p.type)
                for a, p in zip(arrays, graph.params, strict=True)
            ]
            given = [a for a, v in zip(arrays, inputs, strict=True) if v in b.params]
            program = b.finish(b.append(b.make_node(op, inputs, sample.attrs, regions=sample.regions)).outputs)
            optimized = optimize(program, Options(verify=True))
            for a, z in zip(expected, interpret(optimized, given), strict=True):
                np.testing.assert_array_max_ulp(
                    a, z, 2
                ) if op is OPS.pow and a.dtype.kind == "f" else np.testing.assert_array_equal(a, z)


# cse ------------------------------------------------------------------------------------------------------------------


def test_cse_merges_what_is_equal_to_the_bit_only():
    def results(b, x, y):
        sums = [b.add(x, y), b.add(y, x), b.sub(x, y), b.sub(y, x)]
        zeros = [b.pad(x, low=(1,), high=(0,), value=v) for v in (0.0, -0.0, 0.0)]
        return [
            *sums,
            *zeros,
            b.scalar(1, float64),
            b.scalar(1.0, float64),
            b.scalar(math.nan, float64),
            b.scalar(math.nan, float64),
        ]

    graph = build(VECTOR, VECTOR, results=results)
    merged = CommonSubexpressions()(graph, OFF)
    assert [merged.results.index(r) for r in merged.results] == [0, 0, 2, 3, 4, 5, 4, 7, 7, 9, 9]
    same_meaning(graph, merged)
    assert CommonSubexpressions()(merged, OFF) is merged


def test_cse_works_in_regions_and_on_equal_regions():
    def branch(b, x):
        return [b.add(b.sin(x), b.sin(x))]

    def results(b, p, x):
        return [
            b.control(OPS.cond, (p, x), {}, (build(VECTOR, results=branch), build(VECTOR, results=branch)))[0]
            for _ in range(2)
        ]

    merged = CommonSubexpressions()(build(TensorType((), bool_), VECTOR, results=results), OFF)
    assert names(merged) == ["cond", "[sin]", "[add]", "[sin]", "[add]"]


# dce ------------------------------------------------------------------------------------------------------------------


def test_dce_keeps_params_and_drops_the_rest():
    graph = build(VECTOR, VECTOR, results=lambda b, x, y: [b.neg(x), b.sin(y)][:1])
    assert names(DeadCode()(graph, OFF)) == ["neg"] and len(DeadCode()(graph, OFF).params) == 2
    assert DeadCode()(DeadCode()(graph, OFF), OFF).nodes == DeadCode()(graph, OFF).nodes


def test_dce_drops_slots_that_only_feed_themselves():
    def step(b, i, x, y, z, w, unused):
        return [b.add(x, y), b.mul(y, w), b.sin(z), b.cos(x), b.sin(w)]

    def results(b, x, y, z, w, u):
        return loop(b, 4, x, y, z, w, u, carried=3, step=step)[:1]

    graph = build(VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, results=results)
    trimmed = DeadCode()(graph, OFF)
    node = node_of(trimmed, "loop")
    assert node.attrs == {"carried": 2} and len(node.inputs) == 5 and len(node.outputs) == 2
    assert [n.op.name for n in node.regions[0].nodes] == ["add", "mul"]
    same_meaning(graph, trimmed)


def test_dce_trims_conds_and_while_loops():
    def results(b, p, x, n):
        branches = [
            build(VECTOR, VECTOR, results=lambda r, u, v, f=f: [getattr(r, f)(u), r.tanh(v)]) for f in ("sin", "cos")
        ]
        chosen = b.control(OPS.cond, (p, x, x), {}, branches)[0]
        condition = build(INDEX, VECTOR, VECTOR, results=lambda r, k, u, v: [r.lt(k, r.index_scalar(3))])
        body = build(
            INDEX, VECTOR, VECTOR, results=lambda r, k, u, v: [r.add(k, r.index_scalar(1)), r.sin(u), r.cos(v)]
        )
        return [chosen, b.control(OPS.while_loop, (n, x, x), {"carried": 3}, (condition, body))[2]]

    graph = build(TensorType((), bool_), VECTOR, INDEX, results=results)
    trimmed = DeadCode()(graph, OFF)
    assert len(node_of(trimmed, "cond").inputs) == 2 and len(node_of(trimmed, "while_loop").outputs) == 2
    assert "[tanh]" not in names(trimmed)
    same_meaning(graph, trimmed)


# invariant motion -----------------------------------------------------------------------------------------------------


def invariant_program(
    count=None,
    body=lambda r, i, x, w, k: [r.add(x, matvec(r, r.permute(w, dims=(1, 0)), r.sin(r.full((3,), 2.0, float64))))],
):
    def results(b, x, w, k):
        return loop(b, k if count is None else count, x, w, k, carried=1, step=body)

    return build(VECTOR, MATRIX, INDEX, results=results)


def test_invariant_work_moves_out_of_loops_with_the_views_it_needs():
    graph = invariant_program()
    moved = InvariantMotion()(graph, OFF)
    assert names(DeadCode()(moved, OFF))[-2:] == ["loop", "[add]"]
    same_meaning(graph, moved)
    assert InvariantMotion()(moved, OFF) is moved


def test_what_can_fail_moves_only_out_of_loops_that_run():
    def body(r, i, x, w, k):
        row = r.dynamic_slice(w, k, r.index_scalar(0), sizes=(1, 3))
        return [r.add(x, r.view_as(row, (3,)))]

    assert InvariantMotion()(invariant_program(body=body), OFF).nodes[-1].op is OPS.loop
    assert "[dynamic_slice]" in names(InvariantMotion()(invariant_program(body=body), OFF))
    assert "[dynamic_slice]" not in names(InvariantMotion()(invariant_program(4, body), OFF))
    assert interpret(InvariantMotion()(invariant_program(0, body), OFF), [np.ones(3), np.ones((3, 3)), 7])[
        0
    ].tolist() == [1, 1, 1]


def test_constants_views_and_large_elementwise_results_stay():
    def step(r, i, x, s):
        wide = r.sin(r.add(r.expand(s, (2000,)), r.iota(shape=(2000,), dim=0, dtype=float64)))
        return [r.add(x, wide)]

    graph = build(TensorType((2000,), float64), SCALAR, results=lambda b, x, s: loop(b, 3, x, s, carried=1, step=step))
    assert InvariantMotion()(graph, OFF) is graph


def test_invariant_work_leaves_nested_loops_one_by_one():
    def outer(r, i, x, w):
        return loop(r, 3, x, w, carried=1, step=lambda q, j, y, v: [q.add(y, matvec(q, v, q.full((3,), 1.5, float64)))])

    graph = build(VECTOR, MATRIX, results=lambda b, x, w: loop(b, 2, x, w, carried=1, step=outer))
    moved = InvariantMotion()(graph, OFF)
    assert names(moved)[:6] == ["constant", "constant", "constant", "broadcast", "dot_general", "loop"]
    same_meaning(graph, moved)


# loops and derivatives ------------------------------------------------------------------------------------------------


def power_iteration(count):
    def step(r, i, x, w):
        new = r.tanh(matvec(r, w, x))
        return [new, r.sum(new, dims=(0,))]

    def results(b, x, w):
        final, last = loop(b, count, x, w, carried=1, step=step)
        return [b.add(b.sum(b.mul(final, final), dims=(0,)), last)]

    return build(VECTOR, MATRIX, results=results)


def test_the_forward_loop_runs_once_after_optimization():
    graph = gradient(power_iteration(4), (0, 1))
    assert names(graph).count("loop") == 3
    merged = RepeatedLoops()(graph, OFF)
    assert names(merged).count("loop") == 2
    same_meaning(graph, merged)
    assert RepeatedLoops()(merged, OFF) is merged
    optimized = optimize(graph, OFF)
    assert names(optimized).count("[tanh]") == 1
    same_meaning(graph, optimized)


def test_loops_that_differ_are_not_merged():
    def results(b, x, y):
        first = loop(b, 3, x, carried=1, step=lambda r, i, u: [r.sin(u)])
        other = loop(b, 3, x, carried=1, step=lambda r, i, u: [r.cos(u)])
        third = loop(b, 3, x, first[0], carried=1, step=lambda r, i, u, v: [r.add(r.sin(u), r.mul(v, v))])
        return [first[0], other[0], third[0]]

    graph = build(VECTOR, VECTOR, results=results)
    assert RepeatedLoops()(graph, OFF) is graph


def test_a_loop_that_needs_the_earlier_one_does_not_take_its_place():
    def results(b, x):
        (first,) = loop(b, 3, x, carried=1, step=lambda r, i, u: [r.sin(u)])
        return [first, *loop(b, 3, x, first, carried=2, step=lambda r, i, u, v: [r.sin(u), r.mul(v, u)])]

    graph = build(VECTOR, results=results)
    assert RepeatedLoops()(graph, OFF) is graph


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_loops_have_derivatives(count):
    graph = build(
        VECTOR,
        results=lambda b, x: [b.sum(loop(b, count, x, carried=1, step=lambda r, i, u: [r.mul(u, u)])[0], dims=(0,))],
    )
    x = np.array([0.5, -2.0, 3.0])
    np.testing.assert_allclose(interpret(gradient(graph), [x])[1], 2**count * x ** (2**count - 1))


def test_the_last_iteration_alone_sees_its_cotangent():
    """log of an intermediate zero has an infinite slope, which must not meet a zero cotangent of the earlier
    iterations."""
    graph = build(
        SCALAR,
        results=lambda b, x: loop(b, 2, x, carried=1, step=lambda r, i, u: [r.add(u, r.full_like(u, 1)), r.log(u)])[1:],
    )
    value, slope = interpret(gradient(graph), [0.0])
    assert value == 0 and slope == 1


def test_no_derivative_says_what_to_do():
    b = Builder("runtime")
    x, n = b.param(VECTOR), b.param(INDEX)
    b.loc = Location("train.py", 12)
    (y,) = loop(b, n, x, carried=1, step=lambda r, i, u: [r.sin(u)])
    with pytest.raises(GradientError, match=r"loop has no derivative \(at train.py:12\).*weft.range"):
        gradient(b.finish([b.sum(y, dims=(0,))]))

    def halving(b, x):
        condition = build(SCALAR, results=lambda r, u: [r.gt(u, r.scalar(1.0, float64))])
        return b.control(
            OPS.while_loop, (x,), {"carried": 1}, (condition, build(SCALAR, results=lambda r, u: [r.scale(u, 0.5)]))
        )

    with pytest.raises(GradientError, match="while_loop has no derivative.*fixed number"):
        gradient(build(SCALAR, results=halving))
    with pytest.raises(GradientError, match="nextafter has no derivative.*detach"):
        gradient(build(SCALAR, results=lambda b, x: [b.nextafter(x, x)]))
    with pytest.raises(GradientError, match="floating-point scalar"):
        gradient(build(VECTOR, results=lambda b, x: [x]))


def test_backpropagate_serves_intermediate_values_and_other_keys():
    b = Builder("keys")
    x = b.param(VECTOR)
    y = b.sin(x)
    z = b.mul(y, y)
    keys = {x: "x", y: "y", z: "z"}
    seen = []
    found = backpropagate(
        tuple(b.nodes),
        {"z": b.full_like(z, 1.0)},
        ["y", "x"],
        b,
        input_keys=lambda n: [keys[v] for v in n.inputs],
        output_keys=lambda n: [keys[v] for v in n.outputs],
        on_node=lambda n: seen.append(n.op.name),
    )
    assert list(found) == ["y", "x"] and seen == ["mul", "sin"]
    point = np.array([0.1, 0.2, 0.3])
    at_y, at_x = interpret(b.finish([found["y"], found["x"]]), [point])
    np.testing.assert_allclose(at_y, 2 * np.sin(point))
    np.testing.assert_allclose(at_x, 2 * np.sin(point) * np.cos(point))


def test_the_reverse_of_reading_rows_costs_a_row_an_iteration():
    """Recurrence over rows of `x`, storing into `y`; nothing in the reverse loop computes with all 40 rows."""

    def step(r, i, h, y, x):
        row = r.view_as(r.dynamic_slice(x, i, r.index_scalar(0), sizes=(1, 3)), (3,))
        new = r.tanh(r.add(h, row))
        return [new, r.dynamic_update(y, r.view_as(new, (1, 3)), i, r.index_scalar(0))]

    def results(b, h, x):
        _, y = loop(b, 40, h, b.full((40, 3), 0, float64), x, carried=2, step=step)
        return [b.sum(b.mul(y, y), dims=(0, 1))]

    graph = gradient(build(VECTOR, TensorType((40, 3), float64), results=results), (0, 1))
    optimized = optimize(graph, Options(verify=True))
    same_meaning(graph, optimized)
    (reverse,) = [n.regions[0] for n in optimized.nodes if n.op is OPS.loop and n.regions[0].name.endswith("_vjp")]
    whole = {n.op.name for n in reverse.nodes if n.output.shape == (40, 3)}
    assert whole == {"dynamic_update"}


@pytest.mark.parametrize("kind", ["dynamic", "strided", "padded", "stepped", "gathered"])
def test_cotangents_of_small_parts_are_added_in_place(kind):
    def read(b, x, k):
        match kind:
            case "dynamic":
                return b.dynamic_slice(x, b.index_scalar(k), sizes=(3,))
            case "strided":
                return b.as_strided(x, shape=(3,), strides=(7,), offset=k)
            case "padded":
                return b.slice(x, starts=(k,), stops=(k + 3,), steps=(1,))
            case "stepped":
                return b.slice(x, starts=(k,), stops=(k + 7,), steps=(3,))
        return b.gather(x, b.literal(values=(k, k + 5, k), shape=(3,), dtype=int64), dims=(0,))

    def results(b, x):
        parts = [read(b, x, k) for k in (0, 1, 2)]
        return [b.sum(b.mul(b.mul(parts[0], parts[1]), parts[2]), dims=(0,))]

    graph = build(TensorType((100,), float64), results=results)
    derived = gradient(graph)
    assert not any(n.op is OPS.add and n.output.shape == (100,) for n in derived.nodes)
    x = np.random.default_rng(0).uniform(-1, 1, 100)
    slope = [(interpret(graph, [x + h])[0] - interpret(graph, [x - h])[0]) / 2e-6 for h in 1e-6 * np.eye(100)]
    np.testing.assert_allclose(interpret(derived, [x])[1], slope, atol=1e-8)


def test_integers_and_zero_gradients_stop_the_flow():
    def results(b, x):
        truncated = b.cast(b.cast(x, int64), float64)
        return [b.add(b.sum(b.mul(x, truncated), dims=(0,)), b.sum(b.floor(x), dims=(0,)))]

    value, slope = interpret(gradient(build(VECTOR, results=results)), [np.array([1.5, 2.5, -3.5])])
    assert slope.tolist() == [1, 2, -3]


# the pipeline ---------------------------------------------------------------------------------------------------------


def test_options_verify_dump_and_switch_off(tmp_path):
    graph = gradient(power_iteration(3), (0,))
    seen = []
    optimized = optimize(graph, Options(verify=True, dump_ir=str(tmp_path)), lambda name, g: seen.append(name))
    assert seen == [step.name for step in PIPELINE]
    files = sorted(tmp_path.iterdir())
    assert (
        len(files) == len(PIPELINE) + 1
        and files[0].read_text() == f"{graph}\n"
        and files[-1].read_text() == f"{optimized}\n"
    )
    assert optimize(graph, Options(disabled=frozenset(seen))) is graph


def test_the_notes_survive():
    b = Builder("notes")
    x = b.param(TensorType((3,), float32))
    graph = b.finish([b.mul(x, b.full_like(x, 1)), b.neg(b.neg(x))], {"writes": {0: 0}})
    optimized = optimize(graph, Options(verify=True))
    assert not optimized.nodes and optimized.notes == graph.notes and optimized.params == graph.params


def test_symbolic_sizes_pass_through():
    n = Symbol("n")
    rows = TensorType((n, 3), float64)

    def step(r, i, h, w, s):
        return [r.add(r.mul(h, r.exp(r.add(w, r.full_like(w, 1.0)))), r.expand(r.sin(s), (n, 3)))]

    def results(b, x, w, s):
        (h,) = loop(b, 3, x, w, s, carried=1, step=step)
        joined = b.concatenate(h, h, dim=1)
        part = b.slice(
            b.slice(joined, starts=(0, 1), stops=(n, 4), steps=(1, 1)), starts=(0, 0), stops=(n, 2), steps=(1, 1)
        )
        widest = b.amax(b.expand(h, (2, n, 3)), dims=(0,))
        return [b.add(b.sum(part, dims=(0, 1)), b.sum(widest, dims=(0, 1)))]

    graph = build(rows, rows, SCALAR, results=results)
    assert "exp" in names(optimize(graph, Options(verify=True)))


# peeled iterations ----------------------------------------------------------------------------------------------------


def peeled(
    stop, first=lambda b, x, w, i: b.tanh(b.mul(x, b.add(w, b.expand(b.cast(i, float64), (3,))))), also=lambda b, y: []
):
    """An iteration with index 2, then a loop from 3 to `stop` with the same body, or to a param when that is None."""

    def body(r, i, x, w):
        new = r.tanh(r.mul(x, r.add(w, r.expand(r.cast(i, float64), (3,)))))
        return [new, r.sin(x)]

    def results(b, x, w, end):
        y = first(b, x, w, b.index_scalar(2))
        bounds = b.index_scalar(3), end if stop is None else b.index_scalar(stop)
        region = build(INDEX, VECTOR, VECTOR, results=body)
        return [*b.control(OPS.loop, (*bounds, y, w), {"carried": 1}, (region,)), *also(b, y)]

    return build(VECTOR, VECTOR, INDEX, results=results)


def test_a_peeled_iteration_is_rolled_back_into_its_loop():
    rolled = DeadCode()(RolledLoops()(peeled(9), OFF), OFF)
    assert names(rolled)[:3] == ["constant", "constant", "loop"] and rolled.nodes[1].attrs["value"] == 2
    same_meaning(peeled(9), rolled)
    assert RolledLoops()(rolled, OFF) is rolled


def test_several_peeled_iterations_are_rolled_back():
    def twice(b, x, w, i):
        for index in (b.index_scalar(1), i):
            x = b.tanh(b.mul(x, b.add(w, b.expand(b.cast(index, float64), (3,)))))
        return x

    rolled = DeadCode()(RolledLoops()(peeled(9, first=twice), OFF), OFF)
    assert (
        names(rolled)[:3] == ["constant", "constant", "loop"]
        and node_of(rolled, "loop").inputs[0] is rolled.nodes[1].output
    )
    assert rolled.nodes[1].attrs["value"] == 1
    same_meaning(peeled(9, first=twice), rolled)


def test_rolling_back_before_a_runtime_count_keeps_the_iteration():
    graph = build(VECTOR, VECTOR, INDEX, results=lambda b, *xs: inline(b, peeled(None), xs)[:1])
    rolled = RolledLoops()(graph, OFF)
    assert "maximum" in names(rolled)
    for end in (-4, 2, 3, 4, 7):
        arrays = [np.full(3, 0.5), np.full(3, 0.25), np.int64(end)]
        np.testing.assert_array_equal(
            interpret(DeadCode()(rolled, OFF), arrays)[0], interpret(DeadCode()(graph, OFF), arrays)[0]
        )


@pytest.mark.parametrize(
    "graph",
    [
        peeled(9, also=lambda b, y: [b.exp(y)]),
        peeled(9, also=lambda b, y: [y]),
        peeled(
            9, first=lambda b, x, w, i: b.tanh(b.mul(x, b.add(w, b.expand(b.cast(b.index_scalar(1), float64), (3,)))))
        ),
        peeled(9, first=lambda b, x, w, i: b.tanh(b.mul(x, b.add(x, b.expand(b.cast(i, float64), (3,)))))),
        peeled(9, first=lambda b, x, w, i: b.sin(x)),
        peeled(9, first=lambda b, x, w, i: x),
        peeled(2),
    ],
)
def test_what_is_no_peeled_iteration_stays(graph):
    assert RolledLoops()(graph, OFF) is graph
