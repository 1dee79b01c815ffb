"""Which outputs of a kernel may be the very memory of which inputs: decided from the loop IR, for the runtime's memory
plan.

An output may share an input's memory when each element of the input is read for the last time before its place is
overwritten.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..ir.index import LONGEST_AXIS, Constant, Index, Variable, affine
from ..ir.loops import Apply, For, Kernel, Let, Load, Local, Role, Scalar, Set, Statement, Store
from ..ir.sizes import Dim, exact_quotient, is_known

MOST_ROUNDS = 16
"""Two places that may coincide in more rounds of a loop than this are taken to do so."""


@dataclass(frozen=True)
class Round:
    """The values that the variable of a loop takes: low, low + step, ..., at most high."""

    variable: Variable
    low: int
    high: int
    step: int


@dataclass(frozen=True)
class Touch:
    """A load or a store of `lanes` elements: the position of the first, the loops around it, its number in program
    order, and the body that it stands in. A store `needs` buffers, and certain elements of them."""

    index: Index
    lanes: int
    loops: tuple[Round, ...]
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

    def body(self, statements: Sequence[Statement], loops: tuple[Round, ...]) -> bool:
        """Goes through statements; False when one of them is not understood."""
        self.bodies += 1
        number = self.bodies
        for s in statements:
            self.count += 1
            match s:
                case For(body=inner):
                    if not self.body(inner, (*loops, _round(s))):
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

    def scalar(self, scalar: Scalar, loops: tuple[Round, ...], body: int) -> frozenset[str]:
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


def _round(loop: For) -> Round:
    """The values of a loop's variable, as far as they are known."""
    start = loop.start.value if isinstance(loop.start, Constant) else None
    stop = loop.stop.value if isinstance(loop.stop, Constant) else loop.variable.size
    last = (stop if isinstance(stop, int) else LONGEST_AXIS) - 1
    return Round(loop.variable, start, last, loop.step) if isinstance(start, int) else Round(loop.variable, 0, last, 1)


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
    return all(
        _read_before(source, load, store, size, chunks) for load in loads for store in _that_overwrite(load, stores)
    )


def _that_overwrite(load: Touch, stores: Sequence[Touch]) -> list[Touch]:
    """The stores that may overwrite what is loaded: of those in the same loops the one at the same place, if there is
    one, since every element is stored once."""
    same = [s for s in stores if _names(s) == _names(load)]
    there = [s for s in same if str(s.index) == str(load.index)]
    return [s for s in stores if s not in same] + there if there else list(stores)


def _names(touch: Touch) -> list[str]:
    return [r.variable.name for r in touch.loops]


def _element(buffer: str, index: Index) -> str:
    return f"{buffer}[{index}]"


def _read_before(source: str, load: Touch, store: Touch, size: Dim, chunks: bool) -> bool:
    """Whether every element is loaded here before it is overwritten there, also when a compiler that takes the two for
    different memory puts them in another order."""
    if _never_meet(load, store):
        return True
    if _names(load) == _names(store):
        same = str(load.index) == str(store.index) and _element(source, load.index) in store.needs
        return same and (load.body != store.body or load.order <= store.order)
    if load.order > store.order:
        return False
    common = [r.variable for r, s in zip(load.loops, store.loops, strict=False) if r.variable.name == s.variable.name]
    if not common:
        return not chunks  # another chunk may read what this one has overwritten
    row = common[0]
    part = exact_quotient(size, row.size)
    return len(common) == 1 and part is not None and load.index // part == row == store.index // part


def _never_meet(load: Touch, store: Touch) -> bool:
    """Whether no element that is loaded here is overwritten there, whatever the rounds."""
    here = affine(load.index, [r.variable for r in load.loops])
    there = affine(store.index, [r.variable for r in store.loops])
    if here is None or there is None or not is_known(here[0], there[0], *here[1], *there[1]):
        return False
    terms: list[tuple[int, int, int]] = []  # (coefficient, least, most) of the distance between the two places
    for r, c in zip(load.loops, here[1], strict=True):
        terms.append((c * r.step, 0, (r.high - r.low) // r.step))
    distance = here[0] - there[0] + sum(c * r.low for r, c in zip(load.loops, here[1], strict=True))
    for r, c in zip(store.loops, there[1], strict=True):
        most = (r.high - r.low) // r.step
        distance -= c * r.low
        if r in load.loops and (c * r.step, 0, most) in terms:
            terms[terms.index((c * r.step, 0, most))] = c * r.step, -most, most
        else:
            terms.append((-c * r.step, 0, most))
    terms = sorted(((abs(c), *((a, b) if c > 0 else (-b, -a))) for c, a, b in terms if c), reverse=True)
    return not _reaches(tuple(terms), -distance - load.lanes + 1, -distance + store.lanes - 1)


@functools.lru_cache(1 << 12)
def _reaches(terms: tuple[tuple[int, int, int], ...], low: int, high: int) -> bool:
    """Whether the sum of terms, each a positive coefficient times any integer between two, may lie in [low, high]."""
    if not terms:
        return low <= 0 <= high
    (c, least, most), rest = terms[0], terms[1:]
    least = max(least, -((sum(k * b for k, _, b in rest) - low) // c))
    most = min(most, (high - sum(k * a for k, a, _ in rest)) // c)
    if most - least >= MOST_ROUNDS:
        return True
    return any(_reaches(rest, low - c * t, high - c * t) for t in range(least, most + 1))
