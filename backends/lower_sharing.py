"""Which outputs of a kernel may be the very memory of which inputs: decided from the loop IR, for the runtime's memory
plan.

An output may share an input's memory when each element of the input is read for the last time before its place is
overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.index import Constant, Index, Variable
from ..ir.loops import Apply, For, Kernel, Let, Load, Local, Role, Scalar, Set, Statement, Store
from ..ir.sizes import Dim, exact_quotient


@dataclass(frozen=True)
class Touch:
    """A load or a store of `lanes` elements: the position of the first, the loops around it, its number in program
    order, and the body that it stands in. A store `needs` buffers, and certain elements of them."""

    index: Index
    lanes: int
    loops: tuple[Variable, ...]
    order: int
    body: int
    needs: frozenset[str] = frozenset()


@dataclass
class Scan:
    """All loads and stores of a kernel, by buffer; `needs` has the buffers and elements that locals depend on."""

    loads: dict[str, list[Touch]] = field(default_factory=dict)
    stores: dict[str, list[Touch]] = field(default_factory=dict)
    needs: dict[str, frozenset[str]] = field(default_factory=dict)
    count: int = 0
    bodies: int = 0

    def body(self, statements: Sequence[Statement], loops: tuple[Variable, ...]) -> bool:
        """Goes through statements; False when one of them is not understood."""
        self.bodies += 1
        number = self.bodies
        for s in statements:
            self.count += 1
            match s:
                case For(variable=variable, body=inner):
                    if not self.body(inner, (*loops, variable)):
                        return False
                case Let(target=target, value=value) | Set(target=target, value=value):
                    self.needs[target.name] = self.scalar(value, loops, number) | self.needs.get(
                        target.name, frozenset()
                    )
                case Store(buffer=buffer, index=index, value=value):
                    needs = self.scalar(value, loops, number)
                    touch = Touch(index, value.lanes, loops, self.count, number, needs)
                    self.stores.setdefault(buffer.name, []).append(touch)
                case _:
                    return False
        return True

    def scalar(self, scalar: Scalar, loops: tuple[Variable, ...], body: int) -> frozenset[str]:
        """The buffers and elements that a scalar depends on."""
        match scalar:
            case Load(buffer=buffer, index=index, lanes=lanes):
                self.loads.setdefault(buffer.name, []).append(Touch(index, lanes, loops, self.count, body))
                return frozenset((buffer.name, _element(buffer.name, index)))
            case Local(name=name):
                return self.needs.get(name, frozenset())
            case Apply(operands=operands):
                return frozenset().union(*(self.scalar(o, loops, body) for o in operands))
        return frozenset()


def in_place_pairs(kernel: Kernel, chunks: bool) -> tuple[tuple[int, int], ...]:
    """(argument of an output, argument of an input) that may be one memory; `chunks`: the kernel is called for parts
    of its range."""
    scan = Scan()
    if not scan.body(kernel.body, ()):
        return ()
    pairs = []
    for out_number, out in enumerate(kernel.arguments):
        if out.role is not Role.OUTPUT or out.same_as:
            continue
        for number, source in enumerate(kernel.arguments):
            same = source.role is Role.INPUT and source.size == out.size and source.dtype.itemsize == out.dtype.itemsize
            if same and _may_share(scan, source.name, out.name, source.size, chunks):
                pairs.append((out_number, number))
    return tuple(pairs)


def _may_share(scan: Scan, source: str, out: str, size: Dim, chunks: bool) -> bool:
    stores, loads = scan.stores.get(out, []), scan.loads.get(source, [])
    if not stores or not loads or out in scan.loads or any(source not in s.needs for s in stores):
        return False
    return all(_read_before(source, load, store, size, chunks) for load in loads for store in stores)


def _element(buffer: str, index: Index) -> str:
    return f"{buffer}[{index}]"


def _apart(a: Touch, b: Touch) -> bool:
    """Whether two touches surely have no element in common."""
    if not isinstance(a.index, Constant) or not isinstance(b.index, Constant):
        return False
    return a.index.value + a.lanes <= b.index.value or b.index.value + b.lanes <= a.index.value


def _read_before(source: str, load: Touch, store: Touch, size: Dim, chunks: bool) -> bool:
    """Whether every element is loaded here before it is overwritten there, also when a compiler that takes the two for
    different memory puts them in another order."""
    if [v.name for v in load.loops] == [v.name for v in store.loops]:
        same = str(load.index) == str(store.index) and _element(source, load.index) in store.needs
        return same and (load.body != store.body or load.order <= store.order) or _apart(load, store)
    if load.order > store.order:
        return False
    common = [v for v, w in zip(load.loops, store.loops, strict=False) if v.name == w.name]
    if not common:
        return not chunks  # another chunk may read what this one has overwritten
    row = common[0]
    part = exact_quotient(size, row.size)
    return len(common) == 1 and part is not None and load.index // part == row == store.index // part
