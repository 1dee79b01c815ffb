"""Runs a fused graph kernel call by kernel call, in the simplest way: what the runtime's plans and native loops must
agree with.

Kernels run through a function that the caller chooses, as plain Python or as machine code; everything else is
interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..ir.errors import IndexRangeError
from ..ir.graph import Graph, Node, Value
from ..ir.interpret import run_node
from ..ir.loops import Kernel
from ..ir.ops import OPS
from .base import KernelCall

RunKernel = Callable[[Kernel, int, int, Sequence[np.ndarray]], int]
"""(kernel, start, stop, one flat array per argument) -> the status code."""

Calls = Mapping[Node, tuple[KernelCall, ...]]


def run_fused(
    graph: Graph, calls: Calls, arrays: Sequence[np.ndarray], run_kernel: RunKernel, in_place: bool = False
) -> list[np.ndarray]:
    """The results of `graph`, with the kernels of `calls` run by `run_kernel`.

    With `in_place`, outputs are put into the memory of inputs wherever a call allows it.
    """
    env: dict[Value, np.ndarray] = {p: np.array(a).reshape(-1) for p, a in zip(graph.params, arrays, strict=True)}
    for node in graph.nodes:
        if node in calls:
            for call in calls[node]:
                _run_call(call, node, env, run_kernel, in_place)
            continue
        operands = [env[v].reshape(v.type.sizes) for v in node.inputs]
        outputs = (
            _run_control(node, operands, calls, run_kernel, in_place) if node.regions else run_node(node, operands)
        )
        env.update((v, np.array(a).reshape(-1)) for v, a in zip(node.outputs, outputs, strict=True))
    return [env[r].reshape(r.type.sizes) for r in graph.results]


def _run_call(
    call: KernelCall, node: Node, env: dict[Value, np.ndarray], run_kernel: RunKernel, in_place: bool
) -> None:
    """One call; outputs are added to `env`."""
    kernel, shared = call.kernel, dict(call.shared)
    assert isinstance(kernel, Kernel), "routines are the runtime's own"
    lent = dict(call.in_place) if in_place else {}
    buffers: list[np.ndarray] = []
    for buffer, argument in zip(kernel.arguments, call.arguments, strict=True):
        if isinstance(argument, bytes):
            buffers.append(np.frombuffer(argument, buffer.dtype.numpy))
        elif isinstance(argument, Value) and argument in env and argument not in node.outputs:
            buffers.append(env[argument])
        else:
            type = argument.type if isinstance(argument, Value) else argument
            buffers.append(np.zeros(type.size, buffer.dtype.numpy))
    for output, source in shared.items():
        buffers[output] = buffers[source] = buffers[source].copy()
    for output, source in lent.items():
        if buffers[output].dtype.itemsize == buffers[source].dtype.itemsize:
            buffers[source] = buffers[source].copy()
            buffers[output] = buffers[source].view(buffers[output].dtype)
    for start, stop in _slices(call, node, env):
        code = run_kernel(kernel, start, stop, buffers)
        if code:
            raise IndexRangeError(str(kernel.sites[code - 1]))
    for argument, array in zip(call.arguments, buffers, strict=True):
        if isinstance(argument, Value) and (argument in node.outputs or argument not in env):
            env[argument] = array


def _slices(call: KernelCall, node: Node, env: Mapping[Value, np.ndarray]) -> list[tuple[int, int]]:
    """The ranges that a kernel is called with; that of a loop is cut in two, as an interrupt would."""
    if node.op is OPS.loop:
        start, stop = int(env[node.inputs[0]][0]), int(env[node.inputs[1]][0])
        middle = (start + stop) // 2
        return [(a, b) for a, b in ((start, middle), (middle, stop)) if a < b]
    extent = call.extent if isinstance(call.extent, int) else int(env[call.extent][0])
    return [(start, min(start + call.chunk, extent)) for start in range(0, extent, call.chunk)]


def _run_control(
    node: Node, operands: list[np.ndarray], calls: Calls, run_kernel: RunKernel, in_place: bool
) -> list[np.ndarray]:
    """A loop, cond or while_loop whose regions have kernels."""

    def run(region: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return run_fused(region, calls, arrays, run_kernel, in_place)

    if node.op is OPS.cond:
        return run(node.regions[0 if operands[0] else 1], operands[1:])
    carried = node.attrs["carried"]
    first = 2 if node.op is OPS.loop else 0
    state, invariant = operands[first : first + carried], operands[first + carried :]
    outputs = state
    if node.op is OPS.loop:
        for i in range(int(operands[0]), int(operands[1])):
            outputs = run(node.regions[0], [np.array(i, np.int64), *state, *invariant])
            state = outputs[:carried]
        return outputs
    while run(node.regions[0], [*state, *invariant])[0]:
        state = run(node.regions[1], [*state, *invariant])
    return state
