"""weft.checkpoint: what a function computes on the way forward is not kept for the backward but computed again.

While the function runs, records do not save values but `Forgotten` ones, which know how to come back. Eager: the
backward runs the function again, and takes from that run what the records would have saved. Traced: the backward gets
a copy of the nodes, behind barriers that keep it apart from the original and in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..ir.errors import GradientError
from ..ir.graph import Node, Value
from ..ir.ops import OPS
from .grad_mode import enable_grad
from .location import error
from .state import STATE
from .storage import Storage
from .structure import flatten
from .tape import Edge, Placeholder, Record, Saved, alias_of, tensor_requires_grad
from .tensor import Tensor
from .trace import Trace


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, whose intermediate values are not kept for the backward but computed again there
    (torch.utils.checkpoint.checkpoint).

    Memory for time: only what goes in stays. The function must do the same when it is called again; random numbers
    are drawn again as they were (with `preserve_rng_state=False`, anew). In eager mode its side effects happen twice,
    as in torch; in a compiled function they happen once. A checkpoint inside of another is part of that one, and so
    are captured loops, whose values are kept.

    Args:
        use_reentrant: torch's two implementations; there is one here, and the value is ignored.

    Raises:
        GradientError: at the backward, when an argument was overwritten meanwhile, or the second run differs.
    """
    if not STATE.grad_enabled or STATE.checkpoint is not None or (STATE.trace is not None and STATE.trace.in_region):
        return function(*args, **kwargs)
    if STATE.trace is not None:
        section = TracedSection(STATE.trace)
        with running(section):
            result = function(*args, **kwargs)
        section.close()
        return result
    with running(EagerSection(function, args, kwargs, preserve_rng_state)):
        return function(*args, **kwargs)


@contextmanager
def running(section: Any) -> Iterator[None]:
    """What is recorded in the block belongs to `section`."""
    before, STATE.checkpoint = STATE.checkpoint, section
    try:
        yield
    finally:
        STATE.checkpoint = before


class Forgotten:
    """Stands in a record for a value that the section knows to bring back."""

    __slots__ = ("section", "key", "shape", "dtype", "edge", "requires_grad", "accumulator")

    def __init__(self, section: Any, key: Any, tensor: Tensor, keep_edge: bool) -> None:
        self.section, self.key = section, key
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype
        self.edge: Edge | None = tensor._current_edge() if keep_edge else None
        self.requires_grad = keep_edge and tensor_requires_grad(tensor)
        self.accumulator = tensor._accumulator if keep_edge else None

    def unpack(self, record: Record) -> Tensor:
        """The value, computed again, in the place on the tape where the forgotten one was."""
        tensor = self.section.again(self.key, record)
        tensor._edge, tensor._requires_grad, tensor._accumulator = self.edge, self.requires_grad, self.accumulator
        return tensor

    def placeholder(self) -> Placeholder:
        """Its type alone."""
        return Placeholder(self.shape, self.dtype)


# Eager


class EagerSection:
    """One checkpointed call in eager mode: how to run it again."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, preserve_rng_state: bool) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.owners: list[float] = []  # for each value: the sequence number of its record
        self.streams: dict[int, tuple[Any, Any]] | None = {} if preserve_rng_state else None
        leaves: list[Any] = []
        flatten((args, kwargs), leaves)
        self.versions: list[tuple[Storage, int]] = [
            (leaf._storage, leaf._storage.version) for leaf in leaves if isinstance(leaf, Tensor)
        ]
        self.values: list[Saved] = []

    def keep(self, entry: Record, tensor: Tensor, keep_edge: bool) -> Forgotten:
        """What the record keeps instead of the value."""
        self.owners.append(entry.sequence)
        return Forgotten(self, len(self.owners) - 1, tensor, keep_edge)

    def drawing(self, generator: Any) -> None:
        """A random stream is about to be used: notes where it stands the first time."""
        if self.streams is not None and id(generator) not in self.streams:
            self.streams[id(generator)] = (generator, generator._state._memory().copy())

    def again(self, key: int, record: Record) -> Tensor:
        """A value of the second run. Records are asked from the last to the first: what later ones saved is let go."""
        if key >= len(self.values):
            self.values = self.run_again()
        while self.owners[len(self.values) - 1] > self.owners[key]:
            self.values.pop()
        return alias_of(self.values[key].unpack(record))

    def run_again(self) -> list[Saved]:
        """What the records of a second run save."""
        if any(storage.version != version for storage, version in self.versions):
            raise error(
                GradientError,
                "checkpoint: an argument of the function has been modified by an inplace operation since the call, and "
                "the function has to run again: call backward before the change, or clone() the argument",
            )
        second = SecondRun()
        with running(second), enable_grad(), rewound(self.streams or {}):
            self.function(*self.args, **self.kwargs)
        if len(second.saved) != len(self.owners):
            raise error(
                GradientError,
                f"checkpoint: the function saved {len(self.owners)} values for the backward when it was called, and "
                f"{len(second.saved)} when it ran again: it must do the same every time",
            )
        return second.saved


class SecondRun:
    """Collects what is saved while a section runs again."""

    def __init__(self) -> None:
        self.saved: list[Saved] = []

    def keep(self, entry: Record, tensor: Tensor, keep_edge: bool) -> Saved:
        """The value itself."""
        self.saved.append(Saved(tensor, False))
        return self.saved[-1]

    def drawing(self, generator: Any) -> None:
        """Streams stand where they stood."""


@contextmanager
def rewound(streams: dict[int, tuple[Any, Any]]) -> Iterator[None]:
    """Random streams start where they stood, and are put back afterwards."""
    before = [(generator, generator._state._memory().copy()) for generator, _ in streams.values()]
    for generator, state in streams.values():
        generator._state._memory()[:] = state
    try:
        yield
    finally:
        for generator, state in before:
            generator._state._memory()[:] = state


# Traced


class TracedSection:
    """One checkpointed call in a trace: its nodes, and their copy for the backward."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.first = trace, len(trace.builder.nodes)
        self.producers: dict[Value, Node] = {}
        self.after: Value | None = None
        """The first cotangent that arrives: the copy waits for it."""
        self.copies: dict[Value, Value] = {}

    def close(self) -> None:
        """The function is done; what it added to the trace is what can be computed again."""
        nodes = [n for n in self.trace.builder.nodes[self.first :] if isinstance(n, Node) and not n.regions]
        self.producers = {v: n for n in nodes for v in n.outputs}

    def keep(self, entry: Record, tensor: Tensor, keep_edge: bool) -> Forgotten:
        """What the record keeps instead of the value."""
        entry.section = self
        return Forgotten(self, self.trace.read(tensor), tensor, keep_edge)

    def drawing(self, generator: Any) -> None:
        """The state of a stream is a value like others here."""

    def arrived(self, cotangent: Tensor) -> None:
        """A cotangent reaches the section."""
        if self.after is None:
            self.after = self.trace.read(cotangent)

    def again(self, key: Value, record: Record) -> Tensor:
        """The value of the copy."""
        return self.trace.new_tensor(self.copy(self.trace.resolve(key)))

    def copy(self, value: Value) -> Value:
        """The copy of a value of the section, and of all that it is computed from there."""
        pending = [value]
        while pending:
            node = self.producers.get(pending[-1])
            missing = [v for v in node.inputs if v not in self.copies] if node is not None else []
            if missing:
                pending += missing
                continue
            current = pending.pop()
            if current not in self.copies:
                self.copies.update(self._fenced(current) if node is None else self._copied(node))
        return self.copies[value]

    def _copied(self, node: Node) -> dict[Value, Value]:
        loc = node.loc and replace(node.loc, backward=True)
        outputs = tuple(Value(v.type, v.hint) for v in node.outputs)
        self.trace.builder.append(Node(node.op, tuple(self.copies[v] for v in node.inputs), node.attrs, outputs, loc))
        if not STATE.grad_enabled:
            self.trace.untracked.update(outputs)
        return dict(zip(node.outputs, outputs, strict=True))

    def _fenced(self, value: Value) -> dict[Value, Value]:
        """A value from outside of the section; single numbers may be kept."""
        if self.after is None or value.type.size == 1:
            return {value: value}
        return {value: self.trace.add(OPS.barrier, (value, self.after), {}).output}
