"""One trace in progress: tensor operations become nodes, mutation becomes values, outside state becomes hidden inputs.

Functionalisation: each storage has a current SSA value. A tensor is a path of view steps from that value; a write
through it makes a new value through the inverse of the path, and other aliases re-derive theirs when they are next
read. Storages met from outside are lifted to parameters, by identity; those that were written become results that go
back into their own memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ir.builder import Builder
from ..ir.errors import TraceError, WeftError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from ..ir.ops import OPS
from ..ir.types import DType, TensorType, float64, int64
from .capture_values import freeze, may_change
from .layout import contiguous_strides, step_geometry
from .location import error, user_location
from .loop_draft import LoopDraft, close_nodes
from .scalars import Formula, RuntimeScalar
from .slots import KEYS, MISSING
from .state import STATE
from .storage import Storage
from .tape import Edge, Record, edge_against, gradient_edge, own_attrs, step_type, update_step
from .tensor import Size, Step, Tensor
from .trace_inputs import (
    Derived,
    Lifted,
    Outsider,
    ScalarInput,
    SlotLog,
    contents_of,
    fingerprint,
    path_to,
    restore,
    run_type,
)


@dataclass(eq=False)
class StorageState:
    """What a storage holds at this point of the trace."""

    value: Value
    lifted: Lifted | None
    """Where the storage comes from, None when the trace made it."""
    reason_read_only: str = ""


class NeedsWholeStorage(Exception):
    """Two tensors of one storage met in a trace that lifted only the first one's memory: trace again with the whole
    storage."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage


@dataclass(eq=False)
class Trace:
    """Everything that one trace knows. The public face for users is `weft.trace` and `weft.compile`."""

    name: str
    whole: set[Storage] = field(default_factory=set)
    """Storages to lift entirely."""

    def __post_init__(self) -> None:
        self.builder = Builder(self.name)
        self.states: dict[Storage, StorageState] = {}
        self.lifted: list[Lifted] = []
        self.scalars: list[ScalarInput] = []
        self.slots: dict[tuple[int, Any], SlotLog] = {}
        self.paths: dict[int, tuple[Tensor, tuple[Step, ...]]] = {}
        """id of an outside tensor -> (it, kept alive; its steps from the lifted parameter)."""
        self.outsiders: dict[int, Outsider] = {}
        """id of an outside tensor that exists before the call -> its state then."""
        self.versions: dict[Storage, int] = {}
        """The versions of outside storages before the trace."""
        self.derived: dict[int, Derived] = {}
        """id of an outside tensor that the traced function made -> how."""
        self.capture: Any = None
        """What watches the function's reads of outside variables (capture.py), for compiled functions that it calls."""
        self.looked: list[tuple[Value, str]] = []
        """Numbers whose value Python code looked at, and why."""
        self.requirements: list[tuple[Formula, int]] = []
        """Numbers of iterations computed from inputs, and the least that the program is right for."""
        self.after_loops: set[Value] = set()
        """Values that captured loops give."""
        self.forward: dict[Value, LoopDraft] = {}
        """Values of a captured loop's last iteration -> the loop, which gives their value after it (see loops.py)."""
        self.dead: dict[Value, str] = {}
        """Values that no longer exist -> why."""
        self.inputs_order: list[Lifted | ScalarInput] = []
        self.in_region = False
        """Whether a branch of cond, or a condition or body of while_loop, is being recorded."""
        self.region_records = False
        """Whether the region being recorded may be differentiated, so that `detach` and `no_grad` must leave a trace in
        it."""
        self.region_edges: dict[Value, Edge] = {}
        """For regions: value that a storage holds and the region read -> where its cotangent goes."""
        self.region_untracked: set[Storage] = set()
        """For regions: the storages that were written without gradients."""
        self.region_tracked: dict[int, Tensor] = {}
        """For regions: the tensors that were written while gradients were recorded."""
        self.progress: Formula | None = None
        """The number of iterations of a loop that asked for a progress bar."""
        self.captured: list[tuple[int, int, LoopDraft]] = []
        """Captured loops, with the range of records (see `tape.next_record`) that their recorded iterations made."""
        self.value_edges: dict[Value, Edge] = {}
        """Values that were read through tensors that require grad -> where their cotangents go."""
        self.untracked: set[Value] = set()
        """Values made under no_grad."""
        self.notes: Mapping[str, Any] = {}
        """Notes of the graph: of sizes that change from call to call."""
        self.shapes: dict[int, tuple[Tensor, Size]] = {}
        """id of a tensor with memory -> (it, kept alive; its shape with symbolic sizes)."""
        self.stopped_reads: set[tuple[Node, int]] = set()
        """Inputs of nodes that were read through a detached tensor, though a gradient flows to their value."""

    # ---- values of tensors -------------------------------------------------------------------------------------------

    def resolve(self, value: Value) -> Value:
        """The value that stands for `value` now, after loops were captured."""
        draft = self.forward.get(value)
        while draft is not None:
            if draft.vanished:
                raise error(TraceError, draft.vanished)
            value, draft = draft.last(value), draft.parent
            self.after_loops.add(value)
        if value in self.dead:
            raise error(TraceError, self.dead[value])
        return value

    def locate(self, tensor: Tensor) -> tuple[StorageState, tuple[Step, ...]]:
        """The state of a tensor's storage, and the steps from there to the tensor."""
        if tensor._array is None:
            if tensor._trace is not self:
                raise tensor._no_memory()
            return self.states[tensor._storage], tensor._path
        known = self.paths.get(id(tensor))
        if known is not None and known[0] is tensor:
            return self.states[tensor._storage], known[1]
        return self._lift(tensor)

    def read(self, tensor: Tensor) -> Value:
        """The current value of a tensor."""
        state, path = self.locate(tensor)
        state.value = value = self.resolve(state.value)
        if self.region_records:
            self._note_region_edge(tensor, value)
        elif path and STATE.grad_enabled:
            self.note_storage_edge(tensor, value)
        if not path:
            return self._shown(tensor, value)
        cache = tensor._cache
        if cache is not None and cache[0] is value and cache[1] not in self.dead and cache[1] not in self.forward:
            return self._shown(tensor, cache[1])
        base = value
        for op, attrs in path:
            value = self._step(op, (value,), attrs)
        if is_detached(tensor) and not self.region_records:
            self.stopped_reads.add((self.builder.nodes[-1], 0))
        tensor._cache = (base, value)
        return self._shown(tensor, value)

    def _shown(self, tensor: Tensor, value: Value) -> Value:
        """The value as code inside a region sees it through a detached tensor: no gradient flows to it."""
        if self.region_records and is_detached(tensor):
            return self.stop_gradient(value)
        return value

    def note_storage_edge(self, tensor: Tensor, value: Value) -> None:
        """Notes where a cotangent of the value in a view's storage goes."""
        base = tensor if tensor._base is None else tensor._base
        if base._requires_grad and value.dtype.is_floating_point:
            edge = gradient_edge(base)
            edge = None if edge is None else edge_against(self.path_of(base), value.type, edge)
            if edge is not None:
                self.value_edges[value] = edge

    def _note_region_edge(self, tensor: Tensor, value: Value) -> None:
        """Notes where a cotangent of the value in a tensor's storage goes, when the tensor is read inside a region."""
        if not STATE.grad_enabled or not value.dtype.is_floating_point:
            return
        base = tensor if tensor._base is None else tensor._base
        edge = gradient_edge(base)
        if edge is None and base is not tensor:
            base, edge = tensor, gradient_edge(tensor)  # a view can be a leaf
        if edge is not None and tensor._storage in self.region_untracked:
            raise error(
                TraceError,
                "a tensor that requires grad is read after it was written without gradients (under no_grad, or through "
                "a detached tensor) in the same branch of cond: do one of the two outside of the branch",
            )
        if edge is not None and value not in self.region_edges:
            edge = edge_against(self.path_of(base), value.type, edge)
            if edge is not None:
                self.region_edges[value] = edge

    def _lift(self, tensor: Tensor) -> tuple[StorageState, tuple[Step, ...]]:
        storage = tensor._storage
        state = self.states.get(storage)
        if state is None:
            state = self.states[storage] = self._new_param(tensor, storage)
        lifted = state.lifted
        assert lifted is not None
        path = self._path_from_param(tensor, lifted, storage)
        if path is None:
            raise NeedsWholeStorage(storage)
        self.paths[id(tensor)] = (tensor, path)
        self.know(tensor)
        return state, path

    def know(self, tensor: Tensor) -> None:
        """Remembers the autograd state of an outside tensor, which is put back when the trace ends."""
        if id(tensor) in self.outsiders or id(tensor) in self.derived:
            return
        storage = tensor._storage
        if self.versions.setdefault(storage, storage.version) == storage.version:
            tensor._current_edge()
        self.outsiders[id(tensor)] = Outsider(
            tensor, tensor._edge, tensor._requires_grad, tensor._edge_version, tensor._retains_grad
        )
        if tensor._base is not None:
            self.know(tensor._base)

    def _new_param(self, tensor: Tensor, storage: Storage) -> StorageState:
        whole = storage in self.whole
        type_ = run_type(tensor, whole)
        if not whole and id(tensor) in self.shapes:
            type_ = tensor.type_
        value = self.builder.param(type_, tensor.__dict__.get("_hint", ""))
        lifted = Lifted(tensor, whole, value, len(self.inputs_order), fingerprint(tensor, whole))
        self.lifted.append(lifted)
        self.inputs_order.append(lifted)
        return StorageState(value, lifted)

    def _path_from_param(self, tensor: Tensor, lifted: Lifted, storage: Storage) -> tuple[Step, ...] | None:
        own, shape, strides = lifted.tensor, tuple(tensor.shape), tensor.stride()
        if lifted.whole:
            offset = tensor.storage_offset()
        elif tensor is own or (
            own._address() == tensor._address()
            and tuple(own.shape) == shape
            and own.stride() == strides
            and own.dtype is tensor.dtype
        ):
            offset = 0
        else:
            return None
        return path_to(lifted.param.type, shape, strides, offset)

    # ---- operations --------------------------------------------------------------------------------------------------

    def emit(self, op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any]) -> list[Tensor]:
        """Appends a node; new traced tensors for its outputs."""
        values = tuple(self.read(t) for t in inputs)
        node = self.add(op, values, attrs)
        outputs = node.outputs
        if STATE.grad_enabled:
            self._note_edges(node, inputs)
        else:
            self.untracked.update(outputs)
        if self.region_records and not STATE.grad_enabled:
            outputs = tuple(self.stop_gradient(v) for v in outputs)
        return [self.new_tensor(v) for v in outputs]

    def _note_edges(self, node: Node, inputs: Sequence[Tensor]) -> None:
        for i, (value, tensor) in enumerate(zip(node.inputs, inputs, strict=True)):
            if tensor._requires_grad or tensor._base is not None:
                edge = gradient_edge(tensor)
                if edge is not None:
                    self.value_edges[value] = edge
                    continue
            if value in self.value_edges or is_detached(tensor):
                self.stopped_reads.add((node, i))

    def note_value(self, tensor: Tensor) -> None:
        """Lets the record that an edge of a written tensor leads to know the tensor's value, for captured loops."""
        entry = tensor._edge[0] if tensor._edge is not None else None
        known = tensor._array is None or id(tensor) in self.paths
        if known and isinstance(entry, Record) and not entry.values:
            entry.values = (self.read(tensor),)

    def peek(self, tensor: Tensor) -> Value | None:
        """The value of a tensor that was just made, without adding view nodes for it."""
        state, path = self.locate(tensor)
        return None if path else state.value

    def control(
        self, op: Op, inputs: Sequence[Tensor], attrs: Mapping[str, Any], regions: Sequence[Graph]
    ) -> list[Tensor]:
        """Appends a node with regions; new traced tensors for its outputs."""
        values = tuple(self.read(t) for t in inputs)
        node = self.builder.add_node(op, values, attrs, regions=regions, loc=user_location())
        if STATE.grad_enabled:
            self._note_edges(node, inputs)
        else:
            self.untracked.update(node.outputs)
        return [self.new_tensor(v) for v in node.outputs]

    def stop_gradient(self, value: Value) -> Value:
        """Inside a region, which is differentiated as a graph: the value, through which no gradient flows."""
        return self.add(OPS.stop_gradient, (value,), {}).output if value.dtype.is_floating_point else value

    def add(self, op: Op, values: Sequence[Value], attrs: Mapping[str, Any]) -> Node:
        """Appends a node at the user's line; a type error names that line."""
        loc = user_location()
        try:
            return self.builder.add_node(op, values, attrs, loc=loc)
        except WeftError as failure:
            if loc is not None and str(loc) not in str(failure):
                raise type(failure)(f"{failure} [{loc}]") from None
            raise

    def new_tensor(self, value: Value) -> Tensor:
        """A traced tensor with a storage of its own that holds `value`."""
        tensor = Tensor()
        tensor._trace, tensor._type = self, value.type
        tensor._strides = contiguous_strides(value.type.shape)
        storage = tensor._storage_or_none = Storage(None)
        self.states[storage] = StorageState(value, None)
        return tensor

    def constant(self, value: float | int | bool, dtype: DType) -> Value:
        """A scalar constant."""
        return self.add(OPS.constant, (), {"value": value, "dtype": dtype}).output

    def view(self, op: Op, x: Tensor, attrs: Mapping[str, Any]) -> Tensor:
        """A traced view of a traced tensor."""
        assert x._type is not None
        try:
            (type_,) = op.output_types([x._type], attrs)
        except WeftError as failure:
            raise error(type(failure), str(failure)) from None
        result = Tensor()
        result._trace, result._type = self, type_
        result._strides, result._offset = step_geometry(op, attrs, x._type, x._strides, x._offset)
        result._path = (*x._path, (op, attrs))
        return result

    def part_at(self, x: Tensor, attrs: Mapping[str, Any]) -> Tensor:
        """A view of a part of a tensor that begins at traced positions: `positions` and `sizes`."""
        _, path = self.locate(x)
        result = Tensor()
        result._trace, result._type = self, step_type(OPS.dynamic_slice, attrs, x.type_)
        result._strides = x.stride()  # the offset is not known
        result._path = (*path, (OPS.dynamic_slice, attrs))
        return result

    def shape_of(self, tensor: Tensor) -> Size:
        """The shape of a tensor with memory; symbolic sizes remember what they are."""
        known = self.shapes.get(id(tensor))
        return Size(tensor._memory().shape) if known is None or known[0] is not tensor else known[1]

    def adopt_view(self, op: Op, x: Tensor, attrs: Mapping[str, Any], result: Tensor) -> None:
        """Notes how an eager view of an outside tensor, made during the trace, is derived."""
        _, path = self.locate(x)
        self.paths[id(result)] = (result, (*path, (op, attrs)))
        if id(x) in self.shapes:
            (type_,) = op.output_types([x.type_], attrs)
            self.shapes[id(result)] = (result, Size(type_.shape))
        self.derived[id(result)] = Derived(result, x, (op, attrs), STATE.grad_enabled)

    def adopt_alias(self, x: Tensor, result: Tensor) -> None:
        """Notes that `result`, made during the trace, is the outside tensor `x` detached."""
        _, path = self.locate(x)
        self.paths[id(result)] = (result, path)
        if id(x) in self.shapes:
            self.shapes[id(result)] = (result, self.shapes[id(x)][1])
        self.derived[id(result)] = Derived(result, x, None, STATE.grad_enabled)

    def write(self, target: Tensor, new: Tensor) -> None:
        """Makes the new value of the target's storage."""
        value = self.read(new)
        state, path = self.locate(target)
        if state.reason_read_only:
            raise error(TraceError, state.reason_read_only)
        base = self.resolve(state.value)
        if STATE.grad_enabled:
            self.note_storage_edge(target, base)
        state.value = self._store(base, path, value)

    def _store(self, base: Value, path: tuple[Step, ...], new: Value) -> Value:
        if not path:
            return new
        op, attrs = path[0]
        update, update_attrs, reads = update_step(path[0], base.type, step_type(op, attrs, base.type))
        if len(path) > 1:
            inner = self._step(op, (base,), attrs)
            new = self._store(inner, path[1:], new)
        return self._step(update, (base, new) if reads == 2 else (new,), update_attrs)

    def _step(self, op: Op, values: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value:
        """Appends a node for a step of a path, or for the update that reverses it."""
        positions = [self.read(t) for t in attrs.get("positions", ())]
        return self.add(op, (*values, *positions), own_attrs(attrs)).output

    def path_of(self, tensor: Tensor) -> tuple[Step, ...]:
        """The view steps from what is in a tensor's storage to the tensor, as far as the trace has met it."""
        if tensor._array is None:
            return tensor._path
        known = self.paths.get(id(tensor))
        return known[1] if known is not None and known[0] is tensor else ()

    def over(self, tensor: Tensor, value: Value) -> Tensor:
        """A tensor like another one, over a storage of its own that holds `value`."""
        fresh = self.new_tensor(value)
        fresh._path, fresh._type = self.path_of(tensor), tensor.type_
        if fresh._path:
            fresh._strides, fresh._offset = tensor.stride(), tensor.storage_offset()
        return fresh

    # ---- captured loops ----------------------------------------------------------------------------------------------

    def settled(self, value: Value) -> Value:
        """As `resolve`, as far as the results of captured loops were asked for already."""
        draft = self.forward.get(value)
        while draft is not None and not draft.vanished and (value in draft.finals or value in draft.lasts):
            value, draft = draft.last(value), draft.parent
        return value

    def forward_value(self, value: Value, draft: LoopDraft) -> None:
        """From now on, `value` means its value in the last iteration of a captured loop."""
        self.forward[value] = draft

    def captured_loop_of(self, sequence: float) -> tuple[int, LoopDraft] | None:
        """The outermost captured loop in an iteration of which a record was made, with the sequence number of its own
        record."""
        found = [(first, draft) for first, end, draft in self.captured if first <= sequence < end]
        return min(found, key=lambda pair: pair[0]) if found else None

    def require_at_least(self, trips: RuntimeScalar, least: int) -> None:
        """Notes that the program is right only when the number is at least `least`."""
        if len(trips.sources) == 1:
            (source,) = trips.sources
            if source.param is self.states[trips.tensor._storage].value:
                source.at_least = max(least, source.at_least or 0)
                return
        assert trips.formula is not None
        self.requirements.append((trips.formula, least))

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def is_loop_value(self, tensor: Tensor) -> bool:
        """Whether a captured loop computes the value of a traced number."""
        state = self.states.get(tensor._storage)
        return state is not None and (
            state.value in self.forward or state.value in self.dead or state.value in self.after_loops
        )

    def note_look(self, tensor: Tensor, why: str) -> None:
        """Notes that Python code looked at a traced number."""
        state = self.states.get(tensor._storage)
        if state is not None:
            self.looked.append((state.value, why))

    def scalar_input(self, source: Any, example: int | float, hint: str = "") -> RuntimeScalar:
        """A Python number from outside, as a run-time input."""
        dtype = float64 if isinstance(example, float) else int64
        entry = ScalarInput(source, self.builder.param(TensorType((), dtype), hint), example, len(self.inputs_order))
        self.scalars.append(entry)
        self.inputs_order.append(entry)
        return RuntimeScalar(self.new_tensor(entry.param), example, frozenset([entry]), lambda get: get(entry))

    # ---- tracked slots -----------------------------------------------------------------------------------------------

    def _log(self, container: Any, key: Any, current: Any) -> SlotLog:
        identity = (id(container), key)
        entry = self.slots.get(identity)
        if entry is None:
            entry = self.slots[identity] = SlotLog(container, key, current)
        return entry

    def note_read(self, container: Any, key: Any) -> None:
        """Logs a read of a tensor's own slot (`grad`)."""
        current = getattr(container, f"_{key}")
        entry = self._log(container, key, current)
        if not entry.written and not entry.read:
            entry.read, entry.contents = True, contents_of(current)

    def note_write(self, container: Any, key: Any, previous: Any) -> None:
        """Logs a write of a tensor's own slot."""
        self._log(container, key, previous).written = True

    def note_presence(self, container: Any, key: Any) -> None:
        """Logs a question `key in container`."""
        entry = self._log(container, key, dict.get(container, key, MISSING))
        if not entry.written and not entry.read:
            entry.read, entry.read_kind = True, "presence"

    def note_keys(self, container: Any) -> None:
        """Logs that the keys of a tracked dict were walked."""
        keys = tuple(dict.keys(container))
        entry = self._log(container, KEYS, keys)
        if not entry.read:
            entry.read, entry.contents = True, freeze(keys)

    def slot_value(self, container: Any, key: Any, value: Any) -> Any:
        """Logs a read of a tracked dict; a number becomes a run-time input."""
        entry = self._log(container, key, value)
        if entry.written:
            return value
        if not entry.read or entry.read_kind == "presence":
            entry.read, entry.read_kind, entry.contents = True, "value", contents_of(value)
            if not isinstance(value, Tensor) and may_change(value):
                self.capture.watch_slot(container, key, value)
        if type(value) not in (int, float):
            return value
        if entry.scalar is None:
            scalar = self.scalar_input(entry, value, str(key) if str(key).isidentifier() else "")
            (entry.scalar,) = scalar.sources
            return scalar
        scalar_entry = entry.scalar
        return RuntimeScalar(
            self.new_tensor(scalar_entry.param), value, frozenset([scalar_entry]), lambda get: get(scalar_entry)
        )

    def slot_write(self, container: Any, key: Any, previous: Any, value: Any) -> Any:
        """Logs a write of a tracked dict; the value to store."""
        self._log(container, key, previous).written = True
        self.capture.leave_slot(container, key)
        return value

    def graph(self, results: Sequence[Value], notes: Mapping[str, Any] | None = None) -> Graph:
        """The graph of all that was traced, loops closed."""
        nodes = close_nodes(self.builder.nodes, {})
        every = {**(notes or {}), **self.notes}
        return Graph(self.name, tuple(self.builder.params), tuple(nodes), tuple(results), every)

    def roll_back(self) -> None:
        """Puts everything outside back as it was before the trace: written slots, gradient edges, versions."""
        for entry in self.slots.values():
            if entry.written:
                restore(entry.container, entry.key, entry.initial)
        for outsider in self.outsiders.values():
            outsider.restore()
        for storage, version in self.versions.items():
            storage.version = version


def is_detached(tensor: Tensor) -> bool:
    """Whether a tensor was detached, or made under no_grad as a view: memory is shared, gradients are not."""
    base = tensor._base
    return tensor._detached or tensor._made_without_grad or base is not None and base._detached


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Runs a block eagerly in the middle of a trace: state created here exists before the compiled program runs."""
    trace, STATE.trace = STATE.trace, None
    try:
        yield
    finally:
        STATE.trace = trace
