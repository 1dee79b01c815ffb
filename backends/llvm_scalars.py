"""Scalar expressions of the loop IR as LLVM instructions.

A word with a definition of one or two instructions is written in place, any other is called as a function, which LLVM
inlines: `native/words.py` defines both kinds, by the same arithmetic. A word with a meaning of its own, because it
touches the kernel's context or takes vectors apart, is a function of this module, listed in `SPECIAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir.loops import LANES, Apply, Literal, Load, Local, Position, Scalar
from .llvm_function import LIKELY, FunctionText, type_of
from .llvm_memory import Memory
from .native.llvm_arithmetic import Register, WordCall
from .native.words import definition_of

IN_PLACE = frozenset(
    "neg abs sqrt reciprocal add sub mul div fma copysign select convert bitcast bitwise_and bitwise_or bitwise_xor "
    "bitwise_not logical_and logical_or logical_xor logical_not eq ne lt le gt ge minimum maximum fmin fmax isnan "
    "isinf isfinite signbit ceil floor round trunc".split()
)
"""The words whose definition is written where they stand."""

_BY_RESULT = frozenset({"convert", "bitcast", "select", "threefry"})
"""The words that are named by the dtype of their result, and not of their operands."""


def scalar_text(f: FunctionText, memory: Memory, scalar: Scalar) -> str:
    """The register or constant that holds a scalar."""
    match scalar:
        case Local(name=name):
            return f.read(name)
        case Literal(value=value, dtype=dtype, lanes=lanes):
            return f.arithmetic(dtype.short, lanes).const(value).text
        case Load(buffer=buffer, index=index, lanes=lanes, count=count):
            return memory.load(buffer, f.index(index), lanes, f.mask(count))
        case Position(index=index, lanes=lanes):
            return f.index(index) if lanes == 1 else f.positions(index)
        case Apply(word=word, operands=operands):
            special = SPECIAL.get(word)
            values = [scalar_text(f, memory, o) for o in operands]
            return special(f, scalar, values) if special else _elementwise(f, scalar, values)
    raise TypeError(f"not a scalar: {scalar!r}")


def _elementwise(f: FunctionText, call: Apply, values: list[str]) -> str:
    short = (call if call.word in _BY_RESULT else call.operands[0]).dtype.short
    shorts = tuple(o.dtype.short for o in call.operands)
    m = f.arithmetic(short, call.lanes)
    registers = [Register(m, value, short) for value, short in zip(values, shorts, strict=True)]
    if call.word in IN_PLACE:
        return definition_of(call.word, short)(m, *registers).text
    word = WordCall(call.word, short, m.lanes, shorts, call.dtype.short)
    f.words[word] = None
    return m.call(word.name, word.result, *registers).text


def _splat(f: FunctionText, call: Apply, values: list[str]) -> str:
    return f.splat(values[0], type_of(call.dtype.short, 1))


def _lane(f: FunctionText, call: Apply, values: list[str]) -> str:
    vector, k = values
    return f.let(f"extractelement {type_of(call.dtype.short, LANES)} {vector}, i64 {k}")


def _first_lanes(f: FunctionText, call: Apply, values: list[str]) -> str:
    (count,) = call.operands
    assert isinstance(count, Position)
    return f.first_lanes(count.index)


def _fold(word: str) -> Callable[[FunctionText, Apply, list[str]], str]:
    """Joins the upper half of the lanes with the lower one until one lane is left."""

    def fold(f: FunctionText, call: Apply, values: list[str]) -> str:
        short, (vector,), count = call.dtype.short, values, LANES
        m, type_ = f.arithmetic(short, LANES), type_of(short, LANES)
        while count > 1:
            count //= 2  # lanes beyond count are of no interest from here on
            mask = ", ".join(f"i32 {(lane + count) % LANES}" for lane in range(LANES))
            upper = f.let(f"shufflevector {type_} {vector}, {type_} poison, <{LANES} x i32> <{mask}>")
            vector = definition_of(word, short)(m, Register(m, vector, short), Register(m, upper, short)).text
        return f.let(f"extractelement {type_} {vector}, i64 0")

    return fold


def _blocks(odd: bool) -> Callable[[FunctionText, Apply, list[str]], str]:
    """Every other block of lanes of two vectors, in turn."""

    def blocks(f: FunctionText, call: Apply, values: list[str]) -> str:
        left, right, size = values[0], values[1], int(values[2])
        type_ = type_of(call.dtype.short, LANES)
        sources = [lane ^ size if bool(lane & size) != odd else lane for lane in range(LANES)]
        mask = ", ".join(f"i32 {k + LANES if lane & size else k}" for lane, k in enumerate(sources))
        return f.let(f"shufflevector {type_} {left}, {type_} {right}, <{LANES} x i32> <{mask}>")

    return blocks


def _check_index(f: FunctionText, call: Apply, values: list[str]) -> str:
    """The index where it is inside, else 0, after the site's code went to the status word."""
    index, size, site = values
    inside, outside, onward = f.let(f"icmp ult i64 {index}, {size}"), f.label(), f.label()
    f.say(f"br i1 {inside}, label %{onward}, label %{outside}, {LIKELY}")
    f.mark(outside)
    f.say(f"store i64 {site}, ptr {f.let('load ptr, ptr %buffers')}")
    f.say(f"br label %{onward}")
    f.mark(onward)
    return f.let(f"select i1 {inside}, i64 {index}, i64 0")


def _shuffle(step: int = 1, repeat: int = 1) -> Callable[[FunctionText, Apply, list[str]], str]:
    """Takes every `step`-th of the operands' lanes, which are numbered one operand after another, `repeat` times."""

    def shuffle(f: FunctionText, call: Apply, values: list[str]) -> str:
        type_ = type_of(call.dtype.short, LANES)
        places = [divmod(lane * step // repeat, LANES) for lane in range(LANES)]
        result = ""
        for k in range(0, len(values), 2):
            pair = values[k], values[k + 1] if k + 1 < len(values) else "poison"
            mask = ", ".join(
                f"i32 {(part - k) * LANES + place}" if k <= part < k + 2 else "i32 poison" for part, place in places
            )
            taken = f.let(f"shufflevector {type_} {pair[0]}, {type_} {pair[1]}, <{LANES} x i32> <{mask}>")
            if result:
                chosen = ", ".join(f"i32 {LANES * (part >= k) + lane}" for lane, (part, _) in enumerate(places))
                taken = f.let(f"shufflevector {type_} {result}, {type_} {taken}, <{LANES} x i32> <{chosen}>")
            result = taken
        return result

    return shuffle


SPECIAL: Mapping[str, Callable[[FunctionText, Apply, list[str]], str]] = {
    "splat": _splat,
    "lane": _lane,
    "first_lanes": _first_lanes,
    "even_blocks": _blocks(odd=False),
    "odd_blocks": _blocks(odd=True),
    "check_index": _check_index,
    "fold_add": _fold("add"),
    "fold_mul": _fold("mul"),
    "fold_maximum": _fold("maximum"),
    "fold_minimum": _fold("minimum"),
    "fold_and": _fold("logical_and"),
    "fold_or": _fold("logical_or"),
    **{f"every_{n}": _shuffle(step=n) for n in (2, 3, 4)},
    **{f"repeat_{n}": _shuffle(repeat=n) for n in (2, 4)},
}
"""Words with a meaning of their own: (function, call, its operands' values) -> value."""
