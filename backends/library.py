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

from ..ir.graph import Graph, Node, Value
from ..ir.op import Trait
from ..ir.ops import OPS
from ..ir.plan import BLAS_ROUTINES, Routine
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
    words = _words(
        item, view.offset * item, row, step * item, len(outer), *(n for n, _ in outer), *(s * item for _, s in outer)
    )
    chunk = rows if target.type.size <= 2 * COPY_CHUNK else COPY_CHUNK // row
    note = f"{target.type.nbytes} bytes of {view.base.type}: {why}"
    return KernelCall(Routine("copy_view", note), (view.base, target, words), rows, max(chunk, 1))


def _words(*numbers: int) -> bytes:
    return np.array(numbers, np.int64).tobytes()


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a product as batches of matrices: (size, stride) of its batches, rows and columns."""

    view: Strided
    batch: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def orientation(self) -> tuple[int, int] | None:
        """How BLAS can read the matrices: (whether transposed, leading dimension), the unit stride along rows first;
        None if it cannot."""
        (rows, down), (columns, along) = self.rows, self.columns
        if (along == 1 or columns == 1) and (rows == 1 or down >= columns):
            return 0, max(1, columns) if rows == 1 else down
        if (down == 1 or rows == 1) and (columns == 1 or along >= rows):
            return 1, max(1, rows) if columns == 1 else along
        return None


def operand_of(view: Strided, groups: Sequence[Sequence[int]]) -> Operand | None:
    """A view as batches of matrices by groups of axes; None when strides cannot say it."""
    runs = [merged(view, axes) for axes in groups]
    if any(run is None for run in runs):
        return None
    return Operand(view, *runs)  # type: ignore[arg-type]


def product_calls(node: Node, x: Strided, y: Strided) -> tuple[KernelCall, ...]:
    """The calls of one product: copies of operands that BLAS cannot read, then the product."""
    a = node.attrs
    left = a["lhs_batch"], _others(x, a["lhs_batch"], a["lhs_contract"]), a["lhs_contract"]
    right = a["rhs_batch"], a["rhs_contract"], _others(y, a["rhs_batch"], a["rhs_contract"])
    calls: list[KernelCall] = []
    if node.output.type.size == 0:
        return ()
    if prod(x.shape[k] for k in a["lhs_contract"]) == 0:
        return (
            KernelCall(
                Routine("fill_zero", "a product over no elements"),
                (node.output,),
                node.output.type.nbytes,
                node.output.type.nbytes,
            ),
        )
    operands = [_readable(view, groups, calls) for view, groups in ((x, left), (y, right))]
    return (*calls, _product(node, *operands))


def _others(view: Strided, *used: Sequence[int]) -> tuple[int, ...]:
    taken = {k for axes in used for k in axes}
    return tuple(k for k in range(len(view.shape)) if k not in taken)


def _readable(view: Strided, groups: Sequence[Sequence[int]], calls: list[KernelCall]) -> Operand:
    """The operand as it stands, or a copy of it when BLAS cannot read it."""
    operand = operand_of(view, groups)
    if operand is not None and operand.orientation() is not None:
        return operand
    order = [k for axes in groups for k in axes]
    arranged = Strided(
        view.base, tuple(view.shape[k] for k in order), tuple(view.strides[k] for k in order), view.offset
    )
    copy = Value(TensorType(arranged.shape, view.base.dtype))
    calls.append(copy_call(arranged, copy, "BLAS cannot read the strides of this operand"))
    ends = np.cumsum([0, *map(len, groups)])
    made = operand_of(whole(copy), [range(ends[i], ends[i + 1]) for i in range(3)])
    assert made is not None
    return made


def _product(node: Node, x: Operand, y: Operand) -> KernelCall:
    """The call of the product itself."""
    batch, (rows, down), (columns, along), inner = x.batch[0], x.rows, y.columns, x.columns[0]
    work, item = rows * columns * inner, node.output.dtype.itemsize
    letter = "s" if node.output.dtype is float32 else "d"
    if 1 in (rows, columns):
        return _vector_product(node, letter, *((x, y) if columns == 1 else (y, x)), columns == 1)
    by_columns = columns > rows
    panels, size = cut(columns if by_columns else rows, work, batch)
    words = _words(
        BLAS_ROUTINES.index(letter + "gemm"),
        item,
        rows,
        columns,
        inner,
        *x.orientation(),
        *y.orientation(),  # type: ignore[misc]
        x.view.offset * item,
        y.view.offset * item,
        x.batch[1] * item,
        y.batch[1] * item,
        rows * columns * item,
        by_columns,
        panels,
        size,
        down * item,
        along * item,
    )
    note = f"{letter}gemm {rows} x {inner} x {columns}" + (f", {batch} times" if batch > 1 else "")
    return KernelCall(
        Routine("gemm", note),
        (x.view.base, y.view.base, node.output, words),
        batch * panels,
        chunk_of(batch * panels, work // panels),
    )


def _vector_product(node: Node, letter: str, matrix: Operand, vector: Operand, rows_first: bool) -> KernelCall:
    """A product of matrices with vectors; `rows_first` says that the matrix is the left operand."""
    batch, item, orientation = matrix.batch[0], node.output.dtype.itemsize, matrix.orientation()
    assert orientation is not None
    (length, step), (inner, _) = (matrix.rows, matrix.columns) if rows_first else (matrix.columns, matrix.rows)
    stride = vector.rows[1] if rows_first else vector.columns[1]
    panels, size = cut(length, length * inner * VECTOR_WEIGHT, batch)
    words = _words(
        BLAS_ROUTINES.index(letter + "gemv"),
        item,
        length,
        inner,
        (orientation[0] == 0) == rows_first,
        orientation[1],
        max(1, stride),
        matrix.view.offset * item,
        vector.view.offset * item,
        matrix.batch[1] * item,
        vector.batch[1] * item,
        length * item,
        panels,
        size,
        step * item,
    )
    note = f"{letter}gemv {length} x {inner}" + (f", {batch} times" if batch > 1 else "")
    return KernelCall(
        Routine("gemv", note),
        (matrix.view.base, vector.view.base, node.output, words),
        batch * panels,
        chunk_of(batch * panels, length * inner * VECTOR_WEIGHT // panels),
    )


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
