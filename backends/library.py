"""Matrix products by BLAS, and copies of views: kernel calls whose code is a routine of the runtime
(`runtime/blas_native.py`).

A product runs on the strides that its operands have; an operand is copied only when BLAS cannot read it, and the plan
says so. Large products are cut into panels of rows or columns, by shape alone, so that results do not depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..ir import routines as at
from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.routines import BLAS_ROUTINES, Routine, numbers
from ..ir.types import TensorType, float32, float64
from .base import KernelCall
from .strided import Strided, merged, runs, view_of, whole

PANEL_WORK = 1 << 20
"""Multiplications of one panel of a large product, at least."""

PANEL_SIDE = 128
"""Rows or columns of a panel, at least, once there are `PANELS` of them: BLAS packs both operands for every panel."""

PANELS = 4
"""Panels that a product gets if their work suffices, however narrow they are: enough that threads finish together."""

PANEL_STEP = 16
"""Panels are multiples of this many rows or columns: the size of BLAS's own blocks."""

COPY_CHUNK = 1 << 16
"""Elements of one chunk of a large copy of a view."""

VECTOR_WEIGHT = 8
"""How many multiplications of a product of matrices take as long as one of a matrix with a vector, which waits for
memory."""


def library_calls(graph: Graph, taken: Iterable[Node] = ()) -> dict[Node, tuple[KernelCall, ...]]:
    """The calls of every floating-point product in `graph` and its regions that is not among `taken` (nodes with
    generated code), and of the views that have to be copied. A view without calls is read where it stands, by
    products only."""
    done = set(taken)
    calls: dict[Node, tuple[KernelCall, ...]] = {}
    nodes = [n for n in graph.nodes if n not in done]
    products = {n for n in nodes if n.op is OPS.dot_general and n.output.dtype in (float32, float64)}
    dense = _needed_dense(graph, done, products)
    views: dict[Value, Strided] = {}
    for node in nodes:
        operands = [views.get(x) or whole(x) for x in node.inputs]
        if node in products:
            calls[node] = product_calls(node, *operands)
        elif node.op.has(Trait.VIEW):
            view = view_of(node, operands[0])
            if view is None:
                calls[node] = (copy_call(operands[0], node.output, f"strides cannot say what {node.op.name} reads"),)
            elif node.output in dense and not view.is_whole:
                calls[node] = (copy_call(view, node.output, "a view that is kept or handed on"),)
            else:
                views[node.output] = view
        for region in node.regions:
            calls.update(library_calls(region, done))
    return calls


def _needed_dense(graph: Graph, taken: set[Node], products: Container[Node]) -> set[Value]:
    """The values that somebody reads as contiguous memory: whoever is neither a product nor a view that strides can
    say."""
    needed = set(graph.results)
    for node in graph.nodes:
        if node in taken or node.op is OPS.as_strided or not (node in products or node.op.has(Trait.VIEW)):
            needed.update(node.inputs)
    return needed


def copy_call(view: Strided, target: Value, why: str) -> KernelCall:
    """Copies the elements of a view, in row-major order, to contiguous memory."""
    *outer, (row, step) = runs(view) or [(1, 1)]
    item, rows = target.dtype.itemsize, prod(n for n, _ in outer) if target.type.size else 0
    words = numbers(
        {
            at.COPY_ITEM: item,
            at.COPY_OFFSET: view.offset * item,
            at.COPY_ROW: row,
            at.COPY_STEP: step * item,
            at.COPY_AXES: len(outer),
        },
        [(n, stride * item) for n, stride in outer],
    )
    chunk = rows if target.type.size <= 2 * COPY_CHUNK else COPY_CHUNK // row
    note = f"{target.type.nbytes} bytes of {view.base.type}: {why}"
    return KernelCall(Routine("copy_view", note), (view.base, target, words), rows, max(chunk, 1))


Run = tuple[int, int]
"""(size, stride) of an axis."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a product as batches of matrices."""

    view: Strided
    batch: tuple[Run, ...]
    rows: Run
    columns: Run

    @property
    def transposed(self) -> Operand:
        """The transposes of the matrices."""
        return Operand(self.view, self.batch, self.columns, self.rows)

    def orientation(self) -> tuple[bool, int] | None:
        """How BLAS can read the matrices: (whether by columns, distance of rows or columns); None if it cannot."""
        (rows, down), (columns, along) = self.rows, self.columns
        if (along == 1 or columns == 1) and (rows == 1 or down >= columns):
            return False, max(1, columns) if rows == 1 else down
        if (down == 1 or rows == 1) and (columns == 1 or along >= rows):
            return True, max(1, rows) if columns == 1 else along
        return None


def operand_of(view: Strided, groups: Sequence[Sequence[int]]) -> Operand | None:
    """A view as batches of matrices, by groups of axes; None when its rows or columns are not evenly spaced."""
    batch, rows, columns = groups
    down, along = merged(view, rows), merged(view, columns)
    if down is None or along is None:
        return None
    return Operand(view, tuple((view.shape[k], view.strides[k]) for k in batch), down, along)


def product_calls(node: Node, x: Strided, y: Strided) -> tuple[KernelCall, ...]:
    """The calls of one product: copies of operands that BLAS cannot read, then the product."""
    a, size = node.attrs, node.output.type.nbytes
    if size == 0:
        return ()
    if prod(x.shape[k] for k in a["lhs_contract"]) == 0:
        return (KernelCall(Routine("fill_zero", "a product over no elements"), (node.output,), size, size),)
    calls: list[KernelCall] = []
    left = a["lhs_batch"], _others(x, a["lhs_batch"], a["lhs_contract"]), a["lhs_contract"]
    right = a["rhs_batch"], a["rhs_contract"], _others(y, a["rhs_batch"], a["rhs_contract"])
    operands = [_readable(view, groups, calls) for view, groups in ((x, left), (y, right))]
    return (*calls, _product(node.output, *operands))


def _others(view: Strided, *used: Sequence[int]) -> tuple[int, ...]:
    taken = {k for axes in used for k in axes}
    return tuple(k for k in range(len(view.shape)) if k not in taken)


def _readable(view: Strided, groups: Sequence[Sequence[int]], calls: list[KernelCall]) -> Operand:
    """The operand as it stands, or a copy of it when BLAS cannot read it."""
    operand = operand_of(view, groups)
    if operand is not None and operand.orientation() is not None:
        return operand
    order = [k for axes in groups for k in axes]
    shape, strides = tuple(view.shape[k] for k in order), tuple(view.strides[k] for k in order)
    copy = Value(TensorType(shape, view.base.dtype))
    arranged = Strided(view.base, shape, strides, view.offset)
    calls.append(copy_call(arranged, copy, "BLAS cannot read the strides of this operand"))
    ends = np.cumsum([0, *map(len, groups)])
    made = operand_of(whole(copy), [range(ends[i], ends[i + 1]) for i in range(3)])
    assert made is not None
    return made


def _product(output: Value, x: Operand, y: Operand) -> KernelCall:
    """The call of the product itself. A product with a row vector is the transposed product with a column vector."""
    if x.rows[0] == 1 and y.columns[0] != 1:
        x, y = y.transposed, x.transposed
    vector = y.columns[0] == 1
    (rows, down), (columns, along), inner = x.rows, y.columns, x.columns[0]
    batches = _batches(x, y)
    batch, item = prod(n for n, _, _ in batches), output.dtype.itemsize
    work = rows * columns * inner * (VECTOR_WEIGHT if vector else 1)
    panels, size = cut(max(rows, columns), work, batch)
    by_columns = columns > rows
    letter, name = "s" if output.dtype is float32 else "d", "gemv" if vector else "gemm"
    (x_turned, x_leading), (y_turned, y_leading) = _orientation(x), _orientation(y)
    words = numbers(
        {
            at.BLAS_ROUTINE: BLAS_ROUTINES.index(letter + name),
            at.ITEM: item,
            at.ROWS: rows,
            at.COLUMNS: columns,
            at.INNER: inner,
            at.LEFT_OFFSET: x.view.offset * item,
            at.LEFT_TRANSPOSED: x_turned,
            at.LEFT_LEADING: x_leading,
            at.RIGHT_OFFSET: y.view.offset * item,
            at.RIGHT_TRANSPOSED: y_turned,
            at.RIGHT_LEADING: max(1, y.rows[1]) if vector else y_leading,
            at.BY_COLUMNS: by_columns,
            at.PANELS: panels,
            at.PANEL: size,
            at.LEFT_STEP: down * item,
            at.RIGHT_STEP: along * item,
            at.BATCHES: len(batches),
        },
        [(n, a * item, b * item) for n, a, b in batches],
    )
    note = f"{letter}{name} {rows} x {inner}" + ("" if vector else f" x {columns}")
    routine = Routine(name, note + (f", {batch} times" if batch > 1 else ""))
    extent = batch * panels
    return KernelCall(routine, (x.view.base, y.view.base, output, words), extent, chunk_of(extent, work // panels))


def _orientation(operand: Operand) -> tuple[bool, int]:
    orientation = operand.orientation()
    assert orientation is not None
    return orientation


def _batches(x: Operand, y: Operand) -> list[tuple[int, int, int]]:
    """The batch axes of both operands, as few as possible: (size, stride in the left, stride in the right)."""
    found: list[tuple[int, int, int]] = []
    for (n, a), (_, b) in zip(x.batch, y.batch, strict=True):
        if n == 1:
            continue
        if found and found[-1][1:] == (a * n, b * n):
            found[-1] = found[-1][0] * n, a, b
        else:
            found.append((n, a, b))
    return found


def cut(side: int, work: int, batch: int) -> tuple[int, int]:
    """How many panels, of how many rows or columns, one product is cut into."""
    wanted = max(1, min(work // PANEL_WORK, max(PANELS, side // PANEL_SIDE) // batch))
    size = -(-side // wanted)
    size = side if wanted == 1 else min(side, -(-size // PANEL_STEP) * PANEL_STEP)
    return -(-side // size), size


def chunk_of(panels: int, work: int) -> int:
    """How many panels of `work` multiplications each one thread takes at once; all when sharing does not pay."""
    if panels * work < 2 * PANEL_WORK:
        return panels
    return max(1, min(panels, PANEL_WORK // max(work, 1)))
