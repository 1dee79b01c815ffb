"""The tape: what an operation records about itself so that its derivative can be taken later.

A record is one executed IR op. Tensors point to records (`_edge`: record and output number) and records to the edges of
their inputs, so the tape of a computation is exactly what its live tensors reach; nothing else is kept. A record saves
only the values that the op's vjp rule reads, which is found out once per op by running the rules on a probe graph.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.errors import GradientError, WeftError
from ..ir.graph import Graph, Location, Node, Value
from ..ir.op import GradientRule, Op
from ..ir.ops import OPS
from ..ir.types import BY_NUMPY, DType, Shape, TensorType
from .location import error, user_location
from .state import STATE
from .storage import Storage
from .tensor import Step, Tensor

Edge = tuple["Record | Accumulate", int]
"""An output of a record, or the end of the tape at a leaf."""
_sequence = itertools.count()


def next_record() -> int:
    """A number between those of the records made before now and those made later."""
    return next(_sequence)


class Placeholder:
    """An input or output that no vjp rule reads: only its type is kept."""

    __slots__ = ("shape", "dtype")

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape, self.dtype = shape, dtype


class Saved:
    """A value that a vjp rule reads: an alias of the tensor, and the version that its storage had."""

    __slots__ = ("tensor", "version", "storage")
    tensor: Tensor
    storage: Storage
    version: int

    def own(self) -> None:
        """Copies the value, before an operation that saved its own target overwrites it."""
        old = self.tensor
        new = Tensor()
        if STATE.trace is not None:
            new = STATE.trace.new_tensor(STATE.trace.read(old))
        else:
            new._array = old._memory().copy()
        new._edge, new._requires_grad, new._accumulator = old._edge, old._requires_grad, old._accumulator
        self.tensor, self.storage, self.version = new, new._storage, 0

    def __init__(self, tensor: Tensor, keep_edge: bool) -> None:
        self.tensor = alias = alias_of(tensor)
        if keep_edge and tensor_requires_grad(tensor):
            alias._edge, alias._requires_grad = tensor._current_edge(), True
            alias._accumulator = tensor._accumulator
        self.storage = storage = alias._storage
        self.version = storage.version

    def placeholder(self) -> Placeholder:
        """Its type alone."""
        return Placeholder(tuple(self.tensor.shape), self.tensor.dtype)

    def unpack(self, record: Record) -> Tensor:
        """The value, or torch's error when it was overwritten meanwhile."""
        if self.storage.version != self.version:
            raise error(
                GradientError,
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{self.tensor.type_}], which {record.name}{_at(record.loc)} saved, is at version "
                f"{self.storage.version}; expected version {self.version} instead. Hint: use an out-of-place "
                "operation, or `clone()` the tensor before it is changed",
            )
        return self.tensor


def _at(loc: Location | None) -> str:
    return f" at {loc}" if loc is not None else ""


def alias_of(tensor: Tensor) -> Tensor:
    """Another tensor over the same memory (or trace value), without autograd state."""
    alias = Tensor()
    alias._storage_or_none = tensor._storage_or_none or tensor._storage
    alias._array = tensor._array
    if tensor._array is None:
        alias._trace, alias._type = tensor._trace, tensor._type
        alias._strides, alias._offset, alias._path = tensor._strides, tensor._offset, tensor._path
        alias._cache = tensor._cache
    elif STATE.trace is not None:
        STATE.trace.adopt_alias(tensor, alias)
    return alias


class Record:
    """One executed op: what `backpropagate` needs to know of it."""

    __slots__ = (
        "op",
        "attrs",
        "edges",
        "saved_inputs",
        "saved_outputs",
        "sequence",
        "name",
        "loc",
        "trace",
        "retained",
        "hooks",
        "regions",
        "values",
        "refusal",
        "section",
        "__weakref__",
    )

    def __init__(self, op: Op, attrs: Mapping[str, Any], edges: tuple[Edge | None, ...], name: str) -> None:
        self.op, self.attrs, self.edges, self.name = op, attrs, edges, name
        self.saved_inputs: tuple[Saved | Placeholder, ...] | None = ()
        self.saved_outputs: tuple[Saved | Placeholder, ...] = ()
        self.sequence: float = next(_sequence)
        self.loc: Location | None = None
        self.trace = STATE.trace
        self.retained: dict[int, Any] | None = None
        self.values: tuple[Value | None, ...] = ()
        """In a trace: the values of the outputs."""
        self.refusal = ""
        """Why no gradient can flow through, for whoever tries."""
        self.hooks: dict[int, Mapping[int, Any]] | None = None
        self.regions: tuple[Graph, ...] = ()
        self.section: Any = None
        """In a trace: the checkpointed call that the record is part of, when it forgot values."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The inputs as handles: tensors where a rule may read the value, else placeholders."""
        if self.saved_inputs is None:
            raise freed_error()
        return _Unpacked(self, self.saved_inputs, None)

    @property
    def outputs(self) -> Sequence[Any]:
        """The outputs as handles."""
        return _Unpacked(self, self.saved_outputs, self)

    def free(self) -> None:
        """Drops the saved values; a second backward is then an error."""
        if any([type(s) is not Placeholder for s in (*(self.saved_inputs or ()), *self.saved_outputs)]):
            self.saved_inputs = None
            self.saved_outputs = tuple(s if isinstance(s, Placeholder) else s.placeholder() for s in self.saved_outputs)

    @property
    def freed(self) -> bool:
        """Whether a backward has dropped the saved values."""
        return self.saved_inputs is None

    def __repr__(self) -> str:
        return f"<{self.name}>"


def freed_error() -> WeftError:
    """torch's error for a second backward."""
    return error(
        GradientError,
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
        "been freed). Specify retain_graph=True if you need to backward through the graph a second time or if you need "
        "to access saved tensors after calling backward",
    )


class _Unpacked(Sequence):
    """The saved values of a record, version-checked at the moment a rule reads one."""

    def __init__(self, record: Record, saved: Sequence[Saved | Placeholder], producer: Record | None) -> None:
        self.record, self.saved, self.producer = record, saved, producer

    def __len__(self) -> int:
        return len(self.saved)

    def __iter__(self) -> Iterator[Any]:
        """Outputs are iterated over for their types: nothing is computed again for that."""
        if self.producer is None:
            return iter([self[k] for k in range(len(self.saved))])
        return iter([item.tensor if type(item) is Saved else item for item in self.saved])

    def __getitem__(self, k: Any) -> Any:
        item = self.saved[k]
        if type(item) is Placeholder:
            if self.record.saved_inputs is None:
                raise freed_error()
            return item
        tensor = item.unpack(self.record)
        if self.producer is not None and tensor._edge is None:
            tensor = alias_of(tensor)  # the edge is attached only now: a record must not own itself
            tensor._edge, tensor._requires_grad = (self.producer, k), True
        return tensor


class Accumulate:
    """The end of the tape at a leaf: what arrives here is added to the leaf's `.grad`. Records own it, the leaf does
    not."""

    __slots__ = ("leaf", "name", "__weakref__")

    def __init__(self, leaf: Tensor) -> None:
        self.leaf, self.name = leaf, "AccumulateGrad"

    def __repr__(self) -> str:
        return "<AccumulateGrad>"


# ---- which values a rule reads ---------------------------------------------------------------------------------------

_reads: dict[tuple[Op, int, int, Any], tuple[frozenset[int], frozenset[int]]] = {}


def values_read(
    op: Op, i: int, inputs: Sequence[TensorType], attrs: Mapping[str, Any]
) -> tuple[frozenset[int], frozenset[int]]:
    """The inputs and the outputs whose values the rule of input `i` reads: found by running it on a probe, once per op
    (and mode)."""
    key = (op, i, len(inputs), attrs.get("mode"))
    known = _reads.get(key)
    if known is None:
        known = _reads[key] = _probe(op, i, inputs, attrs)
    return known


def _probe(
    op: Op, i: int, inputs: Sequence[TensorType], attrs: Mapping[str, Any]
) -> tuple[frozenset[int], frozenset[int]]:
    rule = op.input_rule(i)
    if isinstance(rule, GradientRule):
        return frozenset(), frozenset()
    b = Builder("probe")
    values = [b.param(t) for t in inputs]
    outputs = [Value(t) for t in op.output_types(inputs, attrs)]
    cotangents = [b.param(v.type) for v in outputs]
    node = Node(op, tuple(values), attrs, tuple(outputs))
    result = rule(b, node, cotangents[0] if len(outputs) == 1 else tuple(cotangents))
    read = {v for n in b.nodes for v in n.inputs} | ({result} if isinstance(result, Value) else set())
    return (
        frozenset(k for k, v in enumerate(values) if v in read),
        frozenset(k for k, v in enumerate(outputs) if v in read),
    )


# ---- recording -------------------------------------------------------------------------------------------------------


def tensor_requires_grad(tensor: Tensor) -> bool:
    """Whether gradients flow to this tensor; a view follows its base."""
    if tensor._base is not None and tensor._storage.version != tensor._edge_version:
        tensor._current_edge()
    return tensor._requires_grad


def gradient_edge(tensor: Tensor) -> Edge | None:
    """Where a cotangent of this tensor goes: to the op that made it, to the leaf's accumulator, or nowhere."""
    edge = tensor._edge if tensor._base is None else derived_edge(tensor)
    if edge is not None:
        return edge
    return (accumulator_of(tensor), 0) if tensor._requires_grad else None


def accumulator_of(leaf: Tensor) -> Accumulate:
    """The one accumulator of a leaf, for as long as a record needs it."""
    known = leaf._accumulator
    accumulator = None if known is None else known()
    if accumulator is None:
        accumulator = Accumulate(leaf)
        leaf._accumulator = weakref.ref(accumulator)
    return accumulator


def record(
    op: Op,
    inputs: Sequence[Tensor],
    attrs: Mapping[str, Any],
    outputs: Sequence[Tensor],
    regions: tuple[Graph, ...] = (),
) -> None:
    """Lets the differentiable outputs point to a new record of `op` when an input requires grad."""
    trace = STATE.trace
    if trace is not None and trace.in_region:
        return  # the region as a whole is recorded, by whoever records regions
    edges = tuple([gradient_edge(t) for t in inputs])
    if op.vjp is GradientRule.ZERO_GRAD or edges.count(None) == len(edges):
        return
    floating = [o.dtype.is_floating_point for o in outputs]
    if True not in floating:
        return
    entry = Record(op, attrs, edges, op.record_name)
    entry.regions = regions
    _save(entry, inputs, outputs)
    if trace is not None:
        entry.loc = user_location()
        entry.values = tuple(trace.peek(o) for o in outputs)
    for k, output in enumerate(outputs):
        if floating[k]:
            output._edge, output._requires_grad = (entry, k), True
            output._edge_version = output._storage.version if output._base is not None else 0


def _keep(entry: Record, tensor: Tensor, keep_edge: bool) -> Saved:
    return Saved(tensor, keep_edge)


def _save(entry: Record, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    read_inputs, read_outputs = _read_by(entry, inputs)
    keep = _keep if STATE.checkpoint is None else STATE.checkpoint.keep
    entry.saved_inputs = tuple(
        [keep(entry, t, True) if k in read_inputs else _placeholder(entry, t) for k, t in enumerate(inputs)]
    )
    entry.saved_outputs = tuple(
        [keep(entry, t, False) if k in read_outputs else _placeholder(entry, t) for k, t in enumerate(outputs)]
    )


def _read_by(entry: Record, inputs: Sequence[Tensor]) -> tuple[frozenset[int], frozenset[int]]:
    """The inputs and the outputs that the rules of the inputs with an edge read."""
    op, attrs = entry.op, entry.attrs
    if op.is_control:
        return frozenset(range(len(inputs))), frozenset()  # the reverse of a region runs it again
    wanted = tuple([edge is not None for edge in entry.edges])
    key = (op, wanted, attrs.get("mode"))
    known = _read.get(key)
    if known is None:
        types = [t.type_ for t in inputs]
        read = [values_read(op, i, types, attrs) for i, is_wanted in enumerate(wanted) if is_wanted]
        known = frozenset().union(*(r for r, _ in read)), frozenset().union(*(r for _, r in read))
        _read[key] = known
    return known


_read: dict[tuple[Op, tuple[bool, ...], Any], tuple[frozenset[int], frozenset[int]]] = {}


def _placeholder(entry: Record, tensor: Tensor) -> Placeholder:
    array = tensor._array
    if array is None or entry.trace is not None:
        return Placeholder(tuple(tensor.shape), tensor.dtype)
    return Placeholder(array.shape, BY_NUMPY[array.dtype])


# ---- views and writes ------------------------------------------------------------------------------------------------


def preserve(value: Tensor, target: Tensor, since: int) -> None:
    """Before `value` is written into `target`: the records made since then that saved the target keep a copy of what it
    held.

    So `y.mul_(x)` may read the old `y` in its derivative; torch does the same for the first operand of its in-place
    operations.
    """
    storage, waiting = target._storage, [value._edge]
    while waiting:
        edge = waiting.pop()
        if edge is None or not isinstance(edge[0], Record) or edge[0].sequence < since:
            continue
        for saved in edge[0].saved_inputs or ():
            if isinstance(saved, Saved) and saved.storage is storage and saved.version == storage.version:
                saved.own()
        waiting += edge[0].edges


def own_attrs(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes of a view step that are its op's; `positions` holds traced tensors, further inputs of the op."""
    return {k: v for k, v in attrs.items() if k != "positions"} if "positions" in attrs else attrs


def step_type(op: Op, attrs: Mapping[str, Any], type_: TensorType) -> TensorType:
    """The type of a view."""
    positions = [t.type_ for t in attrs.get("positions", ())]
    return op.output_types([type_, *positions], own_attrs(attrs))[0]


def derived_edge(tensor: Tensor) -> Edge | None:
    """The edge of a tensor now. A view whose storage was written since re-derives it from its base."""
    base = tensor._base
    if base is not None:
        storage = tensor._storage
        if storage.version != tensor._edge_version:
            _rederive(tensor, base)
            tensor._edge_version = storage.version
    return tensor._edge


def _rederive(tensor: Tensor, base: Tensor) -> None:
    edge = gradient_edge(base)
    if edge is None:
        if tensor._edge is not None:
            tensor._edge, tensor._requires_grad = None, False
        return  # a view of a plain tensor may be a leaf that requires grad
    types = [base.type_]
    for op, attrs in tensor._steps:
        types.append(step_type(op, attrs, types[-1]))
        edge = (shape_record(op, attrs, (edge,), (types[-2],), types[-1]), 0)
    tensor._edge, tensor._requires_grad = edge, True


def shape_record(
    op: Op, attrs: Mapping[str, Any], edges: tuple[Edge | None, ...], inputs: Sequence[TensorType], output: TensorType
) -> Record:
    """A record of an op whose rule reads shapes only (views and updates), and the positions of a part."""
    positions = tuple(Saved(t, False) for t in attrs.get("positions", ()))
    edges = (*edges, *[None for _ in positions])
    entry = Record(op, own_attrs(attrs), edges, op.record_name)
    entry.saved_inputs = (*[Placeholder(t.shape, t.dtype) for t in inputs], *positions)
    entry.saved_outputs = (Placeholder(output.shape, output.dtype),)
    return entry


def rebase(view: Tensor, edge: Edge | None) -> None:
    """After a write through `view` of a value with `edge`: the base's new edge is an update of its old one."""
    base = view._base
    assert base is not None
    steps, types = view._steps, [base.type_]
    for op, attrs in steps:
        types.append(step_type(op, attrs, types[-1]))
    edges: list[Edge | None] = [gradient_edge(base)]
    for k, (op, attrs) in enumerate(steps[:-1]):
        outer = edges[-1]
        edges.append(None if outer is None else (shape_record(op, attrs, (outer,), (types[k],), types[k + 1]), 0))
    for k in reversed(range(len(steps))):
        edge = _update_edge(steps[k], edges[k], edge, types[k], types[k + 1])
    base._edge, base._requires_grad = edge, edge is not None


def move_retained(tensor: Tensor, old: Edge | None) -> None:
    """After a write: `retain_grad` of a tensor is about the value that it holds now."""
    if not tensor._retains_grad or old is None or old == tensor._edge:
        return
    entry, k = old
    if isinstance(entry, Record) and entry.retained:
        entry.retained.pop(k, None)
    retain(tensor)


def retain(tensor: Tensor) -> None:
    """Asks `backward` to fill `.grad` of a tensor that is no leaf."""
    assert tensor._edge is not None
    entry, k = tensor._edge
    assert isinstance(entry, Record)
    if entry.retained is None:
        entry.retained = {}
    entry.retained[k] = weakref.ref(tensor)


def constant_edge(edge: Edge, type_: TensorType, name: str) -> Edge:
    """The edge of a tracked value that was overwritten with a constant: it leads on, and zeros flow along it."""
    attrs = {"starts": (0,) * type_.rank, "steps": (1,) * type_.rank}
    entry = shape_record(OPS.slice_update, attrs, (edge, None), (type_, type_), type_)
    entry.name = f"{name.strip('_').title().replace('_', '')}Backward0"
    return entry, 0


def edge_along(path: tuple[Step, ...], type_: TensorType, edge: Edge | None) -> Edge | None:
    """The edge of a view, at the end of `path`, of a value of `type_` with this edge."""
    for op, attrs in path:
        view_type = step_type(op, attrs, type_)
        edge = None if edge is None else (shape_record(op, attrs, (edge,), (type_,), view_type), 0)
        type_ = view_type
    return edge


def edge_against(path: tuple[Step, ...], type_: TensorType, edge: Edge) -> Edge | None:
    """The edge of a value of `type_` of which the view at the end of `path` has this edge, and the rest none."""
    types = [type_]
    for op, attrs in path:
        types.append(step_type(op, attrs, types[-1]))
    found: Edge | None = edge
    for k in reversed(range(len(path))):
        found = _update_edge(path[k], None, found, types[k], types[k + 1])
    return found


def _update_edge(
    step: Step, base: Edge | None, new: Edge | None, base_type: TensorType, view_type: TensorType
) -> Edge | None:
    if base is None and new is None:
        return None
    op, attrs, inputs = update_step(step, base_type, view_type)
    edges = (base, new) if inputs == 2 else (new,)
    if all(e is None for e in edges):
        return None
    types = (base_type, view_type) if inputs == 2 else (view_type,)
    return shape_record(op, attrs, edges, types, base_type), 0


def update_step(step: Step, base: TensorType, view: TensorType) -> tuple[Op, Mapping[str, Any], int]:
    """The op that writes a new value of a view back into its base: (op, attributes, 2 when it also reads the old base,
    else 1)."""
    op, attrs = step
    match op.name:
        case "reshape":
            return OPS.reshape, {"shape": tuple(base.shape)}, 1
        case "permute":
            inverse = sorted(range(base.rank), key=lambda i: attrs["dims"][i])
            return OPS.permute, {"dims": tuple(inverse)}, 1
        case "flip":
            return OPS.flip, attrs, 1
        case "slice":
            return OPS.slice_update, {"starts": attrs["starts"], "steps": attrs["steps"]}, 2
        case "as_strided":
            return OPS.as_strided_update, {"strides": attrs["strides"], "offset": attrs["offset"]}, 2
        case "dynamic_slice":
            return OPS.dynamic_update, {"positions": attrs["positions"]}, 2
        case "broadcast" if base.size == view.size:
            return OPS.reshape, {"shape": tuple(base.shape)}, 1
        case "broadcast":
            raise error(
                GradientError,
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                f"location ({base} expanded to {view}). Please clone() the tensor before performing the operation.",
            )
    raise error(GradientError, f"a write through a view made by {op.name} has no inverse")


Tensor._current_edge = derived_edge
