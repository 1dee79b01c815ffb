"""One LLVM function while it is written: its instructions, blocks and names, and index expressions as instructions."""

from __future__ import annotations

from ..ir.index import Constant, Index, Quotient, Remainder, Sum, Variable
from ..ir.loops import LANES
from ..ir.sizes import Dim, is_negative
from .native.llvm_arithmetic import TYPES, LlvmArithmetic, WordCall

LIKELY = "!prof !0"
"""The mark of a branch that goes to its first label all but always."""


class FunctionText:
    """Instructions in order. Values are called by the number of their line, so that equal kernels give equal text.

    Attributes:
        lines: the instructions and labels.
        allocations: the instructions of the entry block that reserve stack memory.
        declarations: the declarations of LLVM's intrinsics that are called, by name.
        words: the words that are called as functions.
        block: the label of the block that is being written.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allocations: list[str] = []
        self.declarations: dict[str, str] = {}
        self.words: dict[WordCall, None] = {}
        self.block = "entry"
        self._labels = 0
        self._values: dict[str, str] = {}
        self._cells: dict[str, tuple[str, str]] = {}
        self._arithmetics: dict[tuple[str, int], LlvmArithmetic] = {}

    # ---- instructions and blocks -----------------------------------------------------------------------------------

    def say(self, instruction: str) -> None:
        """Appends an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def let(self, instruction: str) -> str:
        """Appends an instruction; the name of its result."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def label(self) -> str:
        """A new label."""
        self._labels += 1
        return f"b{self._labels}"

    def mark(self, label: str) -> None:
        """Starts the block `label`."""
        self.lines.append(f"{label}:")
        self.block = label

    def allocate(self, type_: str, alignment: int = 0) -> str:
        """The address of new stack memory."""
        name = f"%m{len(self.allocations)}"
        self.allocations.append(f"  {name} = alloca {type_}" + (f", align {alignment}" if alignment else ""))
        return name

    def arithmetic(self, short: str, lanes: int) -> LlvmArithmetic:
        """The arithmetic of a dtype that writes into this function; `lanes` as the loop IR counts them."""
        key = short, lanes
        if key not in self._arithmetics:
            m = self._arithmetics[key] = LlvmArithmetic(short, lanes if lanes > 1 else 0)
            m.lines, m.declarations = self.lines, self.declarations
        return self._arithmetics[key]

    # ---- names of the kernel ---------------------------------------------------------------------------------------

    def reserve(self, name: str, type_: str) -> None:
        """Gives a name of the kernel a stack cell, because its value changes: LLVM makes registers of these."""
        if name not in self._cells:
            self._cells[name] = self.allocate(type_), type_

    def give(self, name: str, value: str) -> None:
        """Gives a name of the kernel a value."""
        if name in self._cells:
            cell, type_ = self._cells[name]
            self.say(f"store {type_} {value}, ptr {cell}")
        else:
            self._values[name] = value

    def read(self, name: str) -> str:
        """The value of a name of the kernel."""
        if name in self._cells:
            cell, type_ = self._cells[name]
            return self.let(f"load {type_}, ptr {cell}")
        return self._values[name]

    # ---- index expressions -----------------------------------------------------------------------------------------

    def index(self, index: Index) -> str:
        """An index expression, which cannot overflow."""
        match index:
            case Constant(value=value):
                return self.size(value)
            case Variable(name=name):
                return self.read(name)
            case Sum(offset=offset, terms=terms):
                return self._sum([*terms, (None, offset)])
            case Quotient(operand=operand, divisor=divisor):
                return self.let(f"udiv i64 {self.index(operand)}, {self.size(divisor)}")
            case Remainder(operand=operand, divisor=divisor):
                return self.let(f"urem i64 {self.index(operand)}, {self.size(divisor)}")
        raise TypeError(f"not an index expression: {index!r}")

    def _sum(self, terms: list[tuple[Index | None, Dim]]) -> str:
        """Atoms times coefficients, None standing for 1; what is added comes before what is subtracted."""
        signed = [(is_negative(c), atom, c) for atom, c in terms if c != 0]
        signed.sort(key=lambda term: term[0])
        total = ""
        for minus, atom, c in signed:
            value = self._product(atom, -c if minus else c)
            if total or minus:
                total = self.let(f"{'sub' if minus else 'add'} nsw i64 {total or '0'}, {value}")
            else:
                total = value
        return total

    def _product(self, atom: Index | None, size: Dim) -> str:
        if atom is None:
            return self.size(size)
        value = self.index(atom)
        return value if size == 1 else self.let(f"mul nsw i64 {value}, {self.size(size)}")

    def size(self, size: Dim) -> str:
        """A number, or a polynomial in the symbols of the kernel."""
        if isinstance(size, int):
            return str(int(size))
        total = ""
        for monomial, c in size.terms.items():
            factors = [self.read(symbol.name) for symbol in monomial]
            factors += [str(c)] if c != 1 or not factors else []
            value = factors[0]
            for factor in factors[1:]:
                value = self.let(f"mul nsw i64 {value}, {factor}")
            total = self.let(f"add nsw i64 {total}, {value}") if total else value
        return total

    def positions(self, index: Index) -> str:
        """The vector of an index and those that follow it."""
        steps = ", ".join(f"i64 {k}" for k in range(LANES))
        return self.let(f"add nsw <{LANES} x i64> {self.splat(self.index(index), 'i64')}, <{steps}>")

    def mask(self, count: Index | None) -> str | None:
        """The lanes that an access has when it has the first `count`; None for all of them."""
        return None if count is None else self.first_lanes(count)

    def first_lanes(self, count: Index) -> str:
        """The bool vector whose first `count` lanes are true."""
        numbers = range(LANES)
        if isinstance(count, Constant) and isinstance(count.value, int):
            return f"<{', '.join('i1 ' + str(k < count.value).lower() for k in numbers)}>"
        least = self.intrinsic("umin", "i64", self.index(count), str(LANES))
        lanes = ", ".join(f"i8 {k}" for k in numbers)
        return self.let(f"icmp ult <{LANES} x i8> <{lanes}>, {self.splat(self.let(f'trunc i64 {least} to i8'), 'i8')}")

    def intrinsic(self, name: str, type_: str, x: str, y: str) -> str:
        """One of LLVM's functions of two operands of one type."""
        full = f"llvm.{name}.{type_}"
        self.declarations[full] = f"declare {type_} @{full}({type_}, {type_})"
        return self.let(f"call {type_} @{full}({type_} {x}, {type_} {y})")

    # ---- vectors ---------------------------------------------------------------------------------------------------

    def splat(self, value: str, type_: str) -> str:
        """A vector with every lane `value`."""
        vector = f"<{LANES} x {type_}>"
        first = self.let(f"insertelement {vector} poison, {type_} {value}, i64 0")
        return self.let(f"shufflevector {vector} {first}, {vector} poison, <{LANES} x i32> zeroinitializer")


def type_of(short: str, lanes: int) -> str:
    """The LLVM type of a value; `lanes` as the loop IR counts them."""
    return TYPES[short] if lanes == 1 else f"<{lanes} x {TYPES[short]}>"


def stored_type(short: str, lanes: int = 1) -> str:
    """The LLVM type of elements in memory: a bool is a byte."""
    return type_of("u8" if short == "bool" else short, lanes)
