"""Translates a tiny subset of Python (64-bit integers and raw memory, nothing else) to LLVM text.

The executor, the thread pool and the BLAS panels are written in it: they are readable, run as plain Python in tests
(`memory.py` gives the words their plain meaning), and cost milliseconds to compile where a general front end costs
most of a second.

The language: functions of integers; assignment, `if`, `while`, `for i in range(...)`, `break`, `continue`, `return`;
`+ - * // % & | ^ << >>`, comparisons, `and or not`, `a if c else b`; calls of functions translated in the same run
and of the words in `WORDS`. Names that are not local are integer constants of the function's module. `//` and `%` are
for operands that are not negative.
"""

from __future__ import annotations

import ast
import functools
import linecache
import platform
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from ..ir.errors import CompileError

_BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "sdiv",
    ast.Mod: "srem",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "ashr",
}
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge"}
_PAUSE = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "AMD64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.hint(i32 1)",
    "arm64": "call void @llvm.aarch64.hint(i32 1)",
}


def _pointer(t: Translation, address: str, index: str) -> str:
    """The pointer to word `index` from `address`."""
    offset = t.let(f"shl i64 {index}, 3")
    return t.let(f"inttoptr i64 {t.let(f'add i64 {address}, {offset}')} to ptr")


def _load(t: Translation, address: str, index: str) -> str:
    return t.let(f"load i64, ptr {_pointer(t, address, index)}, align 8")


def _store(t: Translation, address: str, index: str, value: str) -> str:
    t.say(f"store i64 {value}, ptr {_pointer(t, address, index)}, align 8")
    return "0"


def _narrow_load(bits: int) -> Callable[..., str]:
    def emit(t: Translation, address: str) -> str:
        pointer = t.let(f"inttoptr i64 {address} to ptr")
        return t.let(f"zext i{bits} {t.let(f'load i{bits}, ptr {pointer}, align {bits // 8}')} to i64")

    return emit


def _narrow_store(bits: int) -> Callable[..., str]:
    def emit(t: Translation, address: str, value: str) -> str:
        pointer, narrow = t.let(f"inttoptr i64 {address} to ptr"), t.let(f"trunc i64 {value} to i{bits}")
        t.say(f"store i{bits} {narrow}, ptr {pointer}, align {bits // 8}")
        return "0"

    return emit


def _atomic_load(t: Translation, address: str, index: str) -> str:
    return t.let(f"load atomic i64, ptr {_pointer(t, address, index)} seq_cst, align 8")


def _atomic_store(t: Translation, address: str, index: str, value: str) -> str:
    t.say(f"store atomic i64 {value}, ptr {_pointer(t, address, index)} seq_cst, align 8")
    return "0"


def _atomic_add(t: Translation, address: str, index: str, value: str) -> str:
    return t.let(f"atomicrmw add ptr {_pointer(t, address, index)}, i64 {value} seq_cst, align 8")


def _exchange_if(t: Translation, address: str, index: str, expected: str, value: str) -> str:
    pair = t.let(f"cmpxchg ptr {_pointer(t, address, index)}, i64 {expected}, i64 {value} seq_cst seq_cst, align 8")
    return t.let(f"zext i1 {t.let(f'extractvalue {{i64, i1}} {pair}, 1')} to i64")


def _call(t: Translation, address: str, *arguments: str) -> str:
    function = t.let(f"inttoptr i64 {address} to ptr")
    return t.let(f"call i64 {function}({', '.join(f'i64 {a}' for a in arguments)})")


def _pause(t: Translation) -> str:
    t.say(_PAUSE.get(platform.machine(), "fence seq_cst"))
    return "0"


def _least(t: Translation, x: str, y: str) -> str:
    return t.let(f"select i1 {t.let(f'icmp slt i64 {x}, {y}')}, i64 {x}, i64 {y}")


def _greatest(t: Translation, x: str, y: str) -> str:
    return t.let(f"select i1 {t.let(f'icmp sgt i64 {x}, {y}')}, i64 {x}, i64 {y}")


WORDS: dict[str, Callable[..., str]] = {
    "load": _load,
    "store": _store,
    "load8": _narrow_load(8),
    "load16": _narrow_load(16),
    "load32": _narrow_load(32),
    "store8": _narrow_store(8),
    "store16": _narrow_store(16),
    "store32": _narrow_store(32),
    "atomic_load": _atomic_load,
    "atomic_store": _atomic_store,
    "atomic_add": _atomic_add,
    "exchange_if": _exchange_if,
    "call": _call,
    "pause": _pause,
    "min": _least,
    "max": _greatest,
}
"""The words with a machine meaning; `memory.py` documents each and gives the plain one. `local(n)` is a word too: see
`Translation`."""


class Translation:
    """One function on its way to LLVM text: every variable is a stack cell (LLVM makes registers of them)."""

    def __init__(self, function: FunctionType, names: dict[str, FunctionType]) -> None:
        self.function, self.names = function, names
        self.definition = _definitions(function.__code__.co_filename)[function.__code__.co_firstlineno]
        self.lines: list[str] = []
        self.cells: dict[str, str] = {}
        self.allocations: list[str] = []
        self.count = 0
        self.loops: list[tuple[str, str]] = []

    def fail(self, node: ast.AST, what: str) -> CompileError:
        """The error for something outside the language; lines are counted from the function's first."""
        line = getattr(node, "lineno", self.definition.lineno) - self.definition.lineno + 1
        return CompileError(f"{self.function.__name__}, line {line}: {what}")

    def fresh(self, stem: str) -> str:
        """A new name."""
        self.count += 1
        return f"{stem}{self.count}"

    def say(self, line: str) -> None:
        """Appends one instruction."""
        self.lines.append(f"  {line}")

    def let(self, instruction: str) -> str:
        """Appends one instruction with a result; its name."""
        name = self.fresh("%t")
        self.say(f"{name} = {instruction}")
        return name

    def mark(self, label: str) -> None:
        """Starts the block `label`."""
        self.lines.append(f"{label}:")

    def cell(self, name: str) -> str:
        """The stack cell of a variable."""
        if name not in self.cells:
            self.cells[name] = f"%v.{name}"
            self.allocations.append(f"  %v.{name} = alloca i64, align 8")
        return self.cells[name]

    def text(self, exported: bool) -> str:
        """The function as LLVM text."""
        parameters = [a.arg for a in self.definition.args.args]
        for name in parameters:
            self.say(f"store i64 %p.{name}, ptr {self.cell(name)}")
        self.block(self.definition.body)
        self.say("ret i64 0")
        linkage, heading = "" if exported else "internal ", ", ".join(f"i64 %p.{p}" for p in parameters)
        body = "\n".join(["entry:", *self.allocations, *self.lines])
        return f"define {linkage}i64 @{self.function.__name__}({heading}) nounwind optsize {{\n{body}\n}}\n"

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Statements in order."""
        for statement in statements:
            self.statement(statement)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=value):
                self.value(value)
            case ast.Assign(targets=[target], value=value):
                self.assign(target, value)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                old, new = self.let(f"load i64, ptr {self.cell(name)}"), self.value(value)
                self.say(f"store i64 {self.let(f'{_BINARY[type(op)]} i64 {old}, {new}')}, ptr {self.cell(name)}")
            case ast.Return(value=value):
                self.say(f"ret i64 {self.value(value) if value else '0'}")
                self.mark(self.fresh("dead"))
            case ast.If(test=test, body=body, orelse=orelse):
                self.branch(test, body, orelse)
            case ast.While(test=test, body=body, orelse=[]):
                self.loop(test, body)
            case ast.For(
                target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args), body=body, orelse=[]
            ):
                self.count_up(name, args, body)
            case ast.Break() | ast.Continue():
                self.say(f"br label %{self.loops[-1][isinstance(s, ast.Break)]}")
                self.mark(self.fresh("dead"))
            case _:
                raise self.fail(s, f"{type(s).__name__} is not part of the language")

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        """`a = x` and `a, b = x, y`."""
        match target, value:
            case ast.Name(id=name), _:
                self.say(f"store i64 {self.value(value)}, ptr {self.cell(name)}")
            case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
                results = [self.value(v) for v in values]
                for t, result in zip(targets, results, strict=True):
                    assert isinstance(t, ast.Name)
                    self.say(f"store i64 {result}, ptr {self.cell(t.id)}")
            case _:
                raise self.fail(target, "only names are assigned to")

    def branch(self, test: ast.expr, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt]) -> None:
        then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("end")
        self.condition(test, then, other)
        for label, statements in ((then, body), (other, orelse)):
            self.mark(label)
            self.block(statements)
            self.say(f"br label %{end}")
        self.mark(end)

    def loop(self, test: ast.expr, body: Sequence[ast.stmt]) -> None:
        head, inside, end = self.fresh("head"), self.fresh("body"), self.fresh("end")
        self.say(f"br label %{head}")
        self.mark(head)
        self.condition(test, inside, end)
        self.mark(inside)
        self.loops.append((head, end))
        self.block(body)
        self.loops.pop()
        self.say(f"br label %{head}")
        self.mark(end)

    def count_up(self, name: str, args: Sequence[ast.expr], body: Sequence[ast.stmt]) -> None:
        """`for name in range(...)` with a positive step."""
        first, last, step = (["0", *map(self.value, args), "1"] if len(args) == 1 else [*map(self.value, args), "1"])[
            :3
        ]
        head, inside, onward, end = self.fresh("head"), self.fresh("body"), self.fresh("next"), self.fresh("end")
        counter = self.cell(self.fresh(f"{name}."))
        self.say(f"store i64 {first}, ptr {counter}")
        self.say(f"br label %{head}")
        self.mark(head)
        now = self.let(f"load i64, ptr {counter}")
        self.say(f"br i1 {self.let(f'icmp slt i64 {now}, {last}')}, label %{inside}, label %{end}")
        self.mark(inside)
        self.say(f"store i64 {now}, ptr {self.cell(name)}")
        self.loops.append((onward, end))
        self.block(body)
        self.loops.pop()
        self.say(f"br label %{onward}")
        self.mark(onward)
        self.say(f"store i64 {self.let(f'add i64 {now}, {step}')}, ptr {counter}")
        self.say(f"br label %{head}")
        self.mark(end)

    def condition(self, e: ast.expr, then: str, other: str) -> None:
        """Jumps to `then` or `other`; `and` and `or` stop early."""
        match e:
            case ast.BoolOp(op=op, values=values):
                for value in values[:-1]:
                    onward = self.fresh("and" if isinstance(op, ast.And) else "or")
                    self.condition(value, *((onward, other) if isinstance(op, ast.And) else (then, onward)))
                    self.mark(onward)
                self.condition(values[-1], then, other)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.condition(operand, other, then)
            case ast.Compare():
                self.say(f"br i1 {self.compare(e)}, label %{then}, label %{other}")
            case _:
                self.say(f"br i1 {self.let(f'icmp ne i64 {self.value(e)}, 0')}, label %{then}, label %{other}")

    def compare(self, e: ast.Compare) -> str:
        if len(e.ops) != 1:
            raise self.fail(e, "chained comparisons are not part of the language")
        return self.let(f"icmp {_COMPARE[type(e.ops[0])]} i64 {self.value(e.left)}, {self.value(e.comparators[0])}")

    def value(self, e: ast.expr) -> str:
        """The operand (a register or a literal) that holds an expression."""
        match e:
            case ast.Constant(value=int(number)):
                return str(int(number))
            case ast.Name(id=name):
                return (
                    self.let(f"load i64, ptr {self.cells[name]}")
                    if name in self.cells
                    else self.number(e, self.function.__globals__.get(name))
                )
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                return self.number(e, getattr(self.function.__globals__.get(module), name, None))
            case ast.BinOp(left=left, op=op, right=right):
                x, y = self.value(left), self.value(right)
                return self.let(f"{_BINARY[type(op)]} i64 {x}, {y}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.let(f"sub i64 0, {self.value(operand)}")
            case ast.Compare():
                return self.let(f"zext i1 {self.compare(e)} to i64")
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return self.choice(e, ast.Constant(1), ast.Constant(0))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.choice(test, body, orelse)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.invoke(e, name, args)
            case _:
                raise self.fail(e, f"{type(e).__name__} is not part of the language")

    def choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> str:
        then, other, end, cell = (
            self.fresh("then"),
            self.fresh("else"),
            self.fresh("end"),
            self.cell(self.fresh("choice.")),
        )
        self.condition(test, then, other)
        for label, e in ((then, body), (other, orelse)):
            self.mark(label)
            self.say(f"store i64 {self.value(e)}, ptr {cell}")
            self.say(f"br label %{end}")
        self.mark(end)
        return self.let(f"load i64, ptr {cell}")

    def number(self, e: ast.expr, found: Any) -> str:
        """A constant of the function's module, or of a module that it imports."""
        if not isinstance(found, int):
            raise self.fail(e, f"{ast.unparse(e)} is neither a variable nor an integer constant")
        return str(int(found))

    def invoke(self, e: ast.Call, name: str, args: Sequence[ast.expr]) -> str:
        if name == "local":
            memory = self.fresh("%m")
            self.allocations.append(f"  {memory} = alloca [{self.value(args[0])} x i64], align 64")
            return self.let(f"ptrtoint ptr {memory} to i64")
        values = [self.value(a) for a in args]
        if name in self.names:
            return self.let(f"call i64 @{name}({', '.join(f'i64 {v}' for v in values)})")
        if name in WORDS:
            return WORDS[name](self, *values)
        raise self.fail(e, f"no function is named {name}")


@functools.cache
def _definitions(filename: str) -> dict[int, ast.FunctionDef]:
    """The functions of a source file, by their first lines."""
    tree = ast.parse("".join(linecache.getlines(filename)))
    return {f.lineno: f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}


def translate(exported: Iterable[Any], internal: Iterable[Any] = ()) -> str:
    """LLVM text of the `exported` functions, which may call each other and the `internal` ones; all take and return
    integers."""
    exported = list(exported)
    names = {f.__name__: f for f in [*exported, *internal]}
    declarations = sorted(
        {
            f"declare {p.removeprefix('call ').replace('i32 1', 'i32')}\n"
            for p in _PAUSE.values()
            if p == _PAUSE.get(platform.machine())
        }
    )
    return "".join([*declarations, *(Translation(f, names).text(f in exported) for f in names.values())])
