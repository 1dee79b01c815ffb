"""Which outputs of a kernel may be the very memory of which inputs: decided from the loop IR, for the runtime's memory
plan.

An output may share an input's memory when each element of the input is read for the last time before its place is
overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.index import Index, Variable
from ..ir.loops import Apply, For, Kernel, Let, Load, Local, Role, Scalar, Set, Statement, Store
from ..ir.sizes import Dim, exact_quotient


@dataclass(frozen=True)
class Touch:
    """A load or a store: its position, the loops around it, its number in program order, and the body that it stands
    in."""

    index: Index
    loops: tuple[Variable, ...]
    order: int
    body: int
    needs: frozenset[str] = frozenset()


@dataclass
class Scan:
    """All loads and stores of a kernel, by buffer; `needs` has the buffers that locals depend on."""

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
                    self.stores.setdefault(buffer.name, []).append(Touch(index, loops, self.count, number, needs))
                case _:
                    return False
        return True

    def scalar(self, scalar: Scalar, loops: tuple[Variable, ...], body: int) -> frozenset[str]:
        """The buffers that a scalar depends on."""
        match scalar:
            case Load(buffer=buffer, index=index):
                self.loads.setdefault(buffer.name, []).append(Touch(index, loops, self.count, body))
                return frozenset((buffer.name,))
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
    return all(_read_before(load, store, size, chunks) for load in loads for store in stores)


def _read_before(load: Touch, store: Touch, size: Dim, chunks: bool) -> bool:
    """Whether every element is loaded here before it is overwritten there."""
    if [v.name for v in load.loops] == [v.name for v in store.loops]:
        return str(load.index) == str(store.index) and (load.body != store.body or load.order <= store.order)
    if load.order > store.order:
        return False
    common = [v for v, w in zip(load.loops, store.loops, strict=False) if v.name == w.name]
    if not common:
        return not chunks  # another chunk may read what this one has overwritten
    row = common[0]
    part = exact_quotient(size, row.size)
    return len(common) == 1 and part is not None and load.index // part == row == store.index // part
