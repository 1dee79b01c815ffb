"""The instance of the arithmetic whose values are LLVM registers: operators append instructions to a function's text.

Text rather than llvmlite's builder, because a definition has dozens of instructions and text costs a microsecond each.
"""
from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...ir.types import BY_SHORT
from .arithmetic import Arithmetic

TYPES = {"bool": "i1", "u8": "i8", "u32": "i32", "u64": "i64", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64",
         "f32": "float", "f64": "double"}
"""The LLVM type in which a register holds a value of each dtype."""

_INTRINSICS = {"sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "roundeven"}
_SUFFIX = {"float": "f32", "double": "f64"}


def literal(value: float | int | bool, short: str) -> str:
    """A constant as LLVM writes it; floats by their bits, so that nothing is lost."""
    dtype = BY_SHORT[short]
    if dtype.kind == "float":
        if dtype.bits == 32:
            value = struct.unpack("f", struct.pack("f", value))[0]
        return "0x" + struct.pack(">d", value).hex().upper()
    if dtype.kind == "bool":
        return "true" if value else "false"
    return str(int(value))


class Register:
    """One SSA value of a dtype; operators emit into the function that it belongs to."""

    __slots__ = ("m", "text", "short")

    def __init__(self, m: LlvmArithmetic, text: str, short: str) -> None:
        self.m, self.text, self.short = m, text, short

    def __add__(self, y: Any) -> Register:
        return self.m.binary("add", self, y)

    def __radd__(self, y: Any) -> Register:
        return self.m.binary("add", y, self)

    def __sub__(self, y: Any) -> Register:
        return self.m.binary("sub", self, y)

    def __rsub__(self, y: Any) -> Register:
        return self.m.binary("sub", y, self)

    def __mul__(self, y: Any) -> Register:
        return self.m.binary("mul", self, y)

    def __rmul__(self, y: Any) -> Register:
        return self.m.binary("mul", y, self)

    def __truediv__(self, y: Any) -> Register:
        return self.m.binary("div", self, y)

    def __rtruediv__(self, y: Any) -> Register:
        return self.m.binary("div", y, self)

    def __and__(self, y: Any) -> Register:
        return self.m.binary("and", self, y)

    def __or__(self, y: Any) -> Register:
        return self.m.binary("or", self, y)

    def __xor__(self, y: Any) -> Register:
        return self.m.binary("xor", self, y)

    def __rxor__(self, y: Any) -> Register:
        return self.m.binary("xor", y, self)

    def __lshift__(self, y: Any) -> Register:
        return self.m.binary("shl", self, y)

    def __rlshift__(self, y: Any) -> Register:
        return self.m.binary("shl", y, self)

    def __rshift__(self, y: Any) -> Register:
        return self.m.binary("shr", self, y)

    def __invert__(self) -> Register:
        return self.m.binary("xor", self, True if self.short == "bool" else -1)

    def __neg__(self) -> Register:
        return self.m.negative(self)

    def __eq__(self, y: Any) -> Register:  # type: ignore[override]
        return self.m.compare("eq", self, y)

    def __ne__(self, y: Any) -> Register:  # type: ignore[override]
        return self.m.compare("ne", self, y)

    def __lt__(self, y: Any) -> Register:
        return self.m.compare("lt", self, y)

    def __le__(self, y: Any) -> Register:
        return self.m.compare("le", self, y)

    def __gt__(self, y: Any) -> Register:
        return self.m.compare("gt", self, y)

    def __ge__(self, y: Any) -> Register:
        return self.m.compare("ge", self, y)

    __hash__ = None  # type: ignore[assignment]


class LlvmArithmetic(Arithmetic):
    """Emits the body of one LLVM function.

    Attributes:
        lanes: 0 for scalars, else the lanes of the vectors that every value is.
        lines: the instructions so far.
        declarations: the declarations of other functions that the body calls, by name.
        gates: the gates to rare paths that the body calls (see `gates.py`), by name.
    """

    def __init__(self, short: str, lanes: int = 0) -> None:
        super().__init__(short)
        self.lanes = lanes
        self.lines: list[str] = []
        self.declarations: dict[str, str] = {}
        self.gates: dict[str, Gate] = {}

    def within(self, short: str) -> LlvmArithmetic:
        """Emits into the same function."""
        other = LlvmArithmetic(short, self.lanes)
        other.lines, other.declarations, other.gates = self.lines, self.declarations, self.gates
        return other

    def type(self, short: str) -> str:
        """The LLVM type of a value of a dtype here."""
        return f"<{self.lanes} x {TYPES[short]}>" if self.lanes else TYPES[short]

    def emit(self, instruction: str, short: str) -> Register:
        """Appends an instruction; the register of its result."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return Register(self, name, short)

    def const(self, value: float | int | bool, short: str | None = None) -> Register:
        """A literal, splat over the lanes of vectors."""
        short = short or self.short
        text = literal(value, short)
        return Register(self, f"splat ({TYPES[short]} {text})" if self.lanes else text, short)

    def short_of(self, x: Register) -> str:
        """Registers know their dtype."""
        return x.short

    def _pair(self, x: Any, y: Any) -> tuple[Register, Register]:
        if not isinstance(x, Register):
            x = self.const(x, y.short)
        if not isinstance(y, Register):
            y = self.const(y, x.short)
        assert x.short == y.short, f"{x.short} meets {y.short}"
        return x, y

    def binary(self, name: str, x: Any, y: Any) -> Register:
        """One of add sub mul div and or xor shl shr."""
        x, y = self._pair(x, y)
        kind = BY_SHORT[x.short].kind
        if kind == "float":
            name = "f" + name
        elif name == "shr":
            name = "ashr" if kind == "int" else "lshr"
        return self.emit(f"{name} {self.type(x.short)} {x.text}, {y.text}", x.short)

    def negative(self, x: Register) -> Register:
        """-x."""
        if BY_SHORT[x.short].kind == "float":
            return self.emit(f"fneg {self.type(x.short)} {x.text}", x.short)
        return self.binary("sub", 0, x)

    def compare(self, name: str, x: Any, y: Any) -> Register:
        """One of eq ne lt le gt ge, as a bool."""
        x, y = self._pair(x, y)
        kind = BY_SHORT[x.short].kind
        if kind == "float":
            predicate = "fcmp " + ("une" if name == "ne" else "o" + name)
        elif name in ("eq", "ne"):
            predicate = "icmp " + name
        else:
            predicate = "icmp " + ("s" if kind == "int" else "u") + name
        return self.emit(f"{predicate} {self.type(x.short)} {x.text}, {y.text}", "bool")

    def select(self, condition: Register, x: Any, y: Any) -> Register:
        """LLVM's select."""
        x, y = self._pair(x, y)
        type_ = self.type(x.short)
        return self.emit(f"select {self.type('bool')} {condition.text}, {type_} {x.text}, {type_} {y.text}", x.short)

    def call(self, name: str, result: str, *arguments: Register) -> Register:
        """Calls a declared LLVM function."""
        text = ", ".join(f"{self.type(a.short)} {a.text}" for a in arguments)
        return self.emit(f"call {self.type(result)} @{name}({text})", result)

    def intrinsic(self, name: str, *arguments: Register) -> Register:
        """Calls an LLVM intrinsic that is overloaded on its one type."""
        short = arguments[0].short
        full = f"llvm.{name}.{self._suffix(short)}"
        types = ", ".join(self.type(short) for _ in arguments)
        self.declarations[full] = f"declare {self.type(short)} @{full}({types})"
        return self.call(full, short, *arguments)

    def _suffix(self, short: str) -> str:
        suffix = _SUFFIX.get(TYPES[short], TYPES[short])
        return f"v{self.lanes}{suffix}" if self.lanes else suffix

    def fma(self, x: Any, y: Any, z: Any) -> Register:
        """LLVM's fma intrinsic, one instruction where the CPU has it."""
        short = next(v.short for v in (x, y, z) if isinstance(v, Register))
        return self.intrinsic("fma", *(v if isinstance(v, Register) else self.const(v, short) for v in (x, y, z)))

    def unary(self, name: str, x: Register) -> Register:
        """The intrinsic of that name."""
        return self.intrinsic(_INTRINSICS[name], x)

    def copysign(self, x: Any, y: Any) -> Register:
        """The intrinsic of that name."""
        return self.intrinsic("copysign", *self._pair(x, y))

    def divide(self, x: Any, y: Any) -> Register:
        """sdiv or udiv."""
        x, y = self._pair(x, y)
        return self.emit(f"{self._sign(x)}div {self.type(x.short)} {x.text}, {y.text}", x.short)

    def modulo(self, x: Any, y: Any) -> Register:
        """srem or urem."""
        x, y = self._pair(x, y)
        return self.emit(f"{self._sign(x)}rem {self.type(x.short)} {x.text}, {y.text}", x.short)

    @staticmethod
    def _sign(x: Register) -> str:
        return "s" if BY_SHORT[x.short].kind == "int" else "u"

    def bitcast(self, x: Register, short: str) -> Register:
        """Free for integers of the same width."""
        if TYPES[x.short] == TYPES[short]:
            return Register(self, x.text, short)
        return self.emit(f"bitcast {self.type(x.short)} {x.text} to {self.type(short)}", short)

    def convert(self, x: Register, short: str) -> Register:
        """Floats to integers saturate; that is an intrinsic."""
        source, target = BY_SHORT[x.short], BY_SHORT[short]
        if source is target:
            return x
        if target.kind == "bool":
            return self.compare("ne", x, 0)
        if source.kind == "float" and target.kind != "float":
            return self._saturate(x, short)
        if source.kind != "float" and target.kind != "float":
            return self._resize(x, short)
        if source.kind == "float":
            return self._cast("fpext" if target.bits > source.bits else "fptrunc", x, short)
        return self._cast("sitofp" if source.kind == "int" else "uitofp", x, short)

    def _cast(self, name: str, x: Register, short: str) -> Register:
        return self.emit(f"{name} {self.type(x.short)} {x.text} to {self.type(short)}", short)

    def _resize(self, x: Register, short: str) -> Register:
        before = 1 if x.short == "bool" else BY_SHORT[x.short].bits
        after = BY_SHORT[short].bits
        if before == after:
            return Register(self, x.text, short)
        if after < before:
            return self._cast("trunc", x, short)
        return self._cast("sext" if BY_SHORT[x.short].kind == "int" else "zext", x, short)

    def _saturate(self, x: Register, short: str) -> Register:
        name = "fptosi" if BY_SHORT[short].kind == "int" else "fptoui"
        full = f"llvm.{name}.sat.{self._suffix(short)}.{self._suffix(x.short)}"
        self.declarations[full] = f"declare {self.type(short)} @{full}({self.type(x.short)})"
        return self.call(full, short, x)

    def library(self, name: str, *arguments: Register) -> Register:
        """A call; vectors are taken apart, lane by lane."""
        types = ", ".join("double" for _ in arguments)
        self.declarations[name] = f"declare double @{name}({types}) nounwind willreturn memory(none)"
        if not self.lanes:
            return self.call(name, "f64", *arguments)
        result = Register(self, "poison", "f64")
        for lane in range(self.lanes):
            parts = [self.emit(f"extractelement {self.type('f64')} {a.text}, i32 {lane}", "f64") for a in arguments]
            one = self.emit(f"call double @{name}({', '.join('double ' + p.text for p in parts)})", "f64")
            result = self.emit(f"insertelement {self.type('f64')} {result.text}, double {one.text}, i32 {lane}", "f64")
        return result

    def rare(self, function: Any, condition: Register, usual: Register, *arguments: Register) -> Register:
        """A call of a gate, which `gates.py` opens after optimisation."""
        name = f"{function.__name__.strip('_')}.{self.short}"
        self.gates[name] = Gate(name, function, self.short, tuple(a.short for a in arguments), usual.short)
        called = f"gate.{name}.x{self.lanes}" if self.lanes else f"gate.{name}"
        return self.call(called, usual.short, condition, usual, *arguments)


@dataclass(frozen=True)
class WordCall:
    """A word that is called as a function of its own.

    Attributes:
        word, short, lanes: the definition (`words.py`), its dtype, and 0 or the lanes of its vectors.
        operands, result: the dtypes of what it takes and gives.
    """

    word: str
    short: str
    lanes: int
    operands: tuple[str, ...]
    result: str

    @property
    def name(self) -> str:
        """The function's name."""
        return f"{self.word}.{self.short}" + (f"x{self.lanes}" if self.lanes else "")


@dataclass(frozen=True)
class Gate:
    """A rare path: `definition` on `arguments` where a condition holds. `gates.py` writes its LLVM functions."""

    name: str
    definition: Callable[..., Any]
    short: str
    arguments: tuple[str, ...]
    result: str


def define(name: str, definition: Callable[..., Any], shorts: tuple[str, ...], result: str, m: LlvmArithmetic,
           attributes: str = "alwaysinline") -> str:
    """The text of an LLVM function `name` whose body is `definition(m, *arguments)`."""
    parameters = [Register(m, f"%a{i}", short) for i, short in enumerate(shorts)]
    value = definition(m, *parameters)
    assert value.short == result, f"{name} gives {value.short}, not {result}"
    head = ", ".join(f"{m.type(p.short)} {p.text}" for p in parameters)
    body = "\n".join(m.lines)
    return (f"define internal {m.type(result)} @{name}({head}) {attributes} nounwind {{\n{body}\n"
            f"  ret {m.type(result)} {value.text}\n}}\n")
