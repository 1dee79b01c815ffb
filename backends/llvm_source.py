"""Loop IR to LLVM text: what is compiled, and by which machine code is found in the cache.

The text holds nothing of the user's program but what the kernel does: no names, no lines. Words that are more than an
instruction or two stand in it as calls; the compiler adds their definitions (`native/compiler.py`), a warm start never
sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..ir.index import Constant
from ..ir.loops import For, Kernel, Let, Local, Set, Statement, Store, While
from .llvm_function import LIKELY, FunctionText, type_of
from .llvm_memory import Memory
from .llvm_scalars import scalar_text
from .native.llvm_arithmetic import WordCall

_UNLIKELY = '!0 = !{!"branch_weights", i32 2000, i32 1}'
_UNROLL = 1 << 16
"""The number of the metadata that has a loop unrolled whole; larger ones are loops'."""
UNROLLED_LINES = 300
"""Loops of so many lines in all their rounds are unrolled whole, as by LLVM at its highest level. No other ones are:
unrolling by parts is half of the compile time, and code of 16 lanes gains nothing that could be measured."""


@dataclass(frozen=True)
class LlvmSource:
    """A kernel as LLVM text.

    Attributes:
        text: the function `@kernel(i64 %start, i64 %stop, ptr %buffers)`, with what it refers to but the words.
        words: the words that it calls.
    """

    text: str
    words: tuple[WordCall, ...]


def llvm_source(kernel: Kernel) -> LlvmSource:
    """The LLVM text of a kernel."""
    f = FunctionText()
    writer = _Writer(f, kernel)
    writer.statements(kernel.body)
    f.say("ret void")
    lines = [
        *f.declarations.values(),
        "define void @kernel(i64 %start, i64 %stop, ptr noalias %buffers) nounwind {",
        "entry:",
        *f.allocations,
        *f.lines,
        "}",
        *([_UNLIKELY] if any(LIKELY in line for line in f.lines) else []),
        *writer.memory.metadata(),
        *([f'!{_UNROLL} = !{{!"llvm.loop.unroll.full"}}'] if writer.unrolled else []),
        *writer.unrolled,
    ]
    return LlvmSource("\n".join(lines) + "\n", tuple(f.words))


class _Writer:
    """Writes the statements of one kernel.

    Attributes:
        unrolled: the metadata of the loops that LLVM is to unroll.
        repeated: the lines that come in addition when all of these are unrolled.
    """

    def __init__(self, f: FunctionText, kernel: Kernel) -> None:
        self.f = f
        self.unrolled: list[str] = []
        self.repeated = 0
        f.give("start", "%start")
        f.give("stop", "%stop")
        self.memory = Memory(f, kernel)
        for k, symbol in enumerate(kernel.symbols):
            f.give(symbol.name, self.memory.load(kernel.arguments[-1], str(k), 1))
        for target in _changing(kernel.body):
            f.reserve(target.name, type_of(target.dtype.short, target.lanes))

    def statements(self, body: Sequence[Statement]) -> None:
        """Statements in order."""
        f = self.f
        for s in body:
            match s:
                case Let(target=target, value=value) | Set(target=target, value=value):
                    f.give(target.name, scalar_text(f, self.memory, value))
                case Store(buffer=buffer, index=index, value=value, count=count):
                    text = scalar_text(f, self.memory, value)
                    self.memory.store(buffer, f.index(index), text, value.lanes, f.mask(count))
                case For():
                    if _rounds(s) != 0:
                        self.loop(s)
                case While():
                    self.while_loop(s)

    def loop(self, s: For) -> None:
        """A loop that is entered when there is something to do, and tests at its end."""
        f, before, inside, end = self.f, self.f.block, self.f.label(), self.f.label()
        start, stop = f.index(s.start), f.index(s.stop)
        if _rounds(s):
            f.say(f"br label %{inside}")
        else:
            f.say(f"br i1 {f.let(f'icmp slt i64 {start}, {stop}')}, label %{inside}, label %{end}")
        f.mark(inside)
        f.give(s.variable.name, f.let("phi"))
        phi, before_body = len(f.lines) - 1, self.repeated
        self.statements(s.body)
        following = f.let(f"add nsw i64 %v{phi}, {s.step}")
        again = f.let(f"icmp slt i64 {following}, {stop}")
        hint = self.unrolling(s, len(f.lines) - phi + self.repeated - before_body)
        f.say(f"br i1 {again}, label %{inside}, label %{end}{hint}")
        f.lines[phi] += f" i64 [{start}, %{before}], [{following}, %{f.block}]"
        f.mark(end)

    def unrolling(self, s: For, lines: int) -> str:
        """The metadata of a loop whose body has `lines` lines, when it is to be unrolled."""
        rounds = _rounds(s)
        if rounds is None or rounds * lines > UNROLLED_LINES:
            return ""
        self.repeated += (rounds - 1) * lines
        number = _UNROLL + 1 + len(self.unrolled)
        self.unrolled.append(f"!{number} = distinct !{{!{number}, !{_UNROLL}}}")
        return f", !llvm.loop !{number}"

    def while_loop(self, s: While) -> None:
        """A loop that tests before each round."""
        f, head, inside, end = self.f, self.f.label(), self.f.label(), self.f.label()
        f.say(f"br label %{head}")
        f.mark(head)
        self.statements(s.before)
        f.say(f"br i1 {scalar_text(f, self.memory, s.condition)}, label %{inside}, label %{end}")
        f.mark(inside)
        self.statements(s.body)
        f.say(f"br label %{head}")
        f.mark(end)


def _rounds(s: For) -> int | None:
    """How many rounds a loop has, if that is known now."""
    match s.start, s.stop:
        case Constant(value=int(start)), Constant(value=int(stop)):
            return max(0, -(-(stop - start) // s.step))
    return None


def _changing(body: Sequence[Statement]) -> Iterator[Local]:
    """The locals that change."""
    for s in body:
        match s:
            case Set(target=target):
                yield target
            case For(body=inner):
                yield from _changing(inner)
            case While(before=before, body=inner):
                yield from _changing(before)
                yield from _changing(inner)
