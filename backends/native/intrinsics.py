"""The machine meaning of every word: how Numba types a call of it, and the LLVM instructions that it becomes.

Most elementwise words become a call of an LLVM function whose body `words.py` defines; the module that
`frontend.py` writes holds those that are used, and LLVM inlines them. The simplest become one instruction at once,
which keeps the text short."""
from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.ir as llvm
from numba.core import types
from numba.core.types.misc import unliteral

from ...ir.types import BY_SHORT
from .numba_types import (
    BUFFERS,
    BYTES,
    ELEMENTS,
    LLVM,
    PAIR,
    RANGE,
    RANGE_STATE,
    VECTORS,
    Buffers,
    Intrinsic,
    Pointer,
    Vector,
    integers,
    short_of,
    type_of,
)
from .vocabulary import LANES, WORDS, Word

I1, I8, I32, I64 = (llvm.IntType(bits) for bits in (1, 8, 32, 64))
_SUFFIX = f"x{LANES}"


def _scalar(short: str) -> str:
    """`f32` of `f32x16`."""
    return short.removesuffix(_SUFFIX)


def _kind(short: str) -> str:
    return BY_SHORT[_scalar(short)].kind


def _same(name: str, short: str) -> str:
    """The dtype `short`, in vectors when `name`'s is a vector."""
    return short + _SUFFIX if name.endswith(_SUFFIX) else short


# --- elementwise words -----------------------------------------------------------------------------------------------


def _operands(word: Word, short: str) -> tuple[str, ...]:
    """The dtypes of a word's operands."""
    match word.name:
        case "select":
            return (_same(short, "bool"), short, short)
        case "threefry":
            return tuple(_same(short, s) for s in ("u64", "u64", "i64"))
        case _:
            return (short,) * (word.arguments.count(",") + 1)


def _result(word: Word, short: str) -> str:
    return short if word.result == "same" else _same(short, word.result)


def call_definition(builder: Any, word: str, short: str, operands: tuple[str, ...], result: str, args: Any) -> Any:
    """Calls the LLVM function of a word, and notes on the module that it is used."""
    name = f"{word}.{short}" if word not in ("convert", "bitcast") else f"{word}.{short}.{operands[0]}"
    module = builder.module
    if name not in module.globals:
        shape = llvm.FunctionType(_llvm(result), [_llvm(s) for s in operands])
        llvm.Function(module, shape, name)
        module.words[name] = (word, short, operands, result)
    return builder.call(module.globals[name], args)


def _llvm(short: str) -> llvm.Type:
    element = LLVM[_scalar(short)]
    return llvm.VectorType(element, LANES) if short.endswith(_SUFFIX) else element


def _elementwise(name: str, word: Word, short: str) -> Intrinsic:
    expected, result = _operands(word, short), _result(word, short)

    def typed(*arguments: types.Type) -> Any:
        shorts = tuple(short_of(a) for a in arguments)
        return (type_of(result), tuple(type_of(s) for s in shorts)) if shorts == expected else None

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        quick = _instruction(word.name, short)
        return quick(builder, *args) if quick else call_definition(builder, word.name, short, expected, result, args)

    return Intrinsic(name, typed, emit)


def _changing(name: str, word: Word, short: str) -> Intrinsic:
    """convert and bitcast: the operand's dtype is its own."""

    def typed(*arguments: types.Type) -> Any:
        shorts = tuple(short_of(a) for a in arguments)
        if len(shorts) != 1 or not shorts[0] or shorts[0].endswith(_SUFFIX) != short.endswith(_SUFFIX):
            return None
        if word.name == "bitcast" and BY_SHORT[_scalar(shorts[0])].bits != BY_SHORT[_scalar(short)].bits:
            return None
        return type_of(short), (type_of(shorts[0]),)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = short_of(signature.args[0])
        if source == short:
            return args[0]
        if isinstance(args[0], llvm.Constant) and word.name == "convert" and source in ("i64", "f64"):
            return _constant(args[0].constant, short)
        return call_definition(builder, word.name, short, (source,), short, args)

    return Intrinsic(name, typed, emit)


def _constant(value: float | int, short: str) -> llvm.Constant:
    """A literal in another dtype."""
    dtype = BY_SHORT[short]
    match dtype.kind:
        case "float":
            rounded = struct.unpack("f", struct.pack("f", value))[0] if dtype.bits == 32 else float(value)
            return llvm.Constant(LLVM[short], rounded)
        case "bool":
            return llvm.Constant(I1, int(value != 0))
        case _:
            whole, modulus = int(value), 2**dtype.bits
            return llvm.Constant(LLVM[short], (whole + modulus // 2) % modulus - modulus // 2)


_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "neg": "fneg"}
_INTEGER = {"add": "add", "sub": "sub", "mul": "mul", "neg": "neg", "bitwise_not": "not_"}
_BOOL = {"logical_not": "not_", "bitwise_not": "not_", "add": "or_", "mul": "and_"}
_BITS = {"bitwise_and": "and_", "bitwise_or": "or_", "bitwise_xor": "xor", "logical_and": "and_", "logical_or": "or_",
         "logical_xor": "xor"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@functools.cache
def _instruction(word: str, short: str) -> Callable[..., Any] | None:
    """The builder call for a word that is one LLVM instruction."""
    kind = _kind(short)
    if word == "select":
        return lambda builder, c, x, y: builder.select(c, x, y)
    if word in _COMPARE:
        sign = _COMPARE[word]
        if kind == "float":
            compare = "fcmp_unordered" if sign == "!=" else "fcmp_ordered"
        else:
            compare = "icmp_signed" if kind == "int" else "icmp_unsigned"
        return lambda builder, x, y: getattr(builder, compare)(sign, x, y)
    table = _FLOAT if kind == "float" else _BOOL if kind == "bool" else _INTEGER
    method = table.get(word) or _BITS.get(word)
    return (lambda builder, *args: getattr(builder, method)(*args)) if method else None


# --- memory ----------------------------------------------------------------------------------------------------------


def _pointer(short: str) -> Intrinsic:
    def typed(buffers: types.Type, k: types.Type, scope: types.Type | None = None) -> Any:
        known = scope or k
        if not isinstance(buffers, Buffers) or not isinstance(known, types.IntegerLiteral):
            return None
        arguments = (buffers, types.int64) + ((types.int64,) if scope else ())
        return Pointer(short, known.literal_value), arguments

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slot = builder.gep(builder.bitcast(args[0], BYTES.as_pointer()), [args[1]])
        return builder.load(slot, align=8)

    return Intrinsic(f"pointer_{short}", typed, emit)


def _local(short: str) -> Intrinsic:
    def typed(count: types.Type) -> Any:
        return (Pointer(short, None), (types.int64,)) if isinstance(count, types.IntegerLiteral) else None

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            memory = builder.alloca(llvm.ArrayType(_stored(short), args[0].constant))
            memory.align = 64
        return builder.bitcast(memory, BYTES)

    return Intrinsic(f"local_{short}", typed, emit)


def _stored(short: str) -> llvm.Type:
    """The LLVM type of an element in memory: a bool is a byte."""
    return I8 if short == "bool" else LLVM[short]


def _address(builder: Any, pointer: Any, index: Any, short: str) -> Any:
    return builder.gep(builder.bitcast(pointer, _stored(short).as_pointer()), [index])


def _mark(instruction: Any, scope: int | None) -> None:
    """Says which buffer an access touches, so that LLVM need not ask at run time whether buffers overlap."""
    if scope is not None:
        own, others = instruction.function.module.scopes.metadata(scope)
        instruction.set_metadata("alias.scope", own)
        instruction.set_metadata("noalias", others)


def _emit_load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    pointer = signature.args[0]
    value = builder.load(_address(builder, args[0], args[1], pointer.short), align=BY_SHORT[pointer.short].itemsize)
    _mark(value, pointer.scope)
    return builder.trunc(value, I1) if pointer.short == "bool" else value


def _emit_store(context: Any, builder: Any, signature: Any, args: Any) -> None:
    pointer, value = signature.args[0], args[2]
    if pointer.short == "bool":
        value = builder.zext(value, I8)
    address = _address(builder, args[0], args[1], pointer.short)
    _mark(builder.store(value, address, align=BY_SHORT[pointer.short].itemsize), pointer.scope)


def _typed_load(pointer: types.Type, index: types.Type) -> Any:
    if isinstance(pointer, Pointer) and short_of(index) == "i64":
        return ELEMENTS[pointer.short], (pointer, types.int64)
    return None


def _typed_store(pointer: types.Type, index: types.Type, value: types.Type) -> Any:
    if isinstance(pointer, Pointer) and short_of(index) == "i64" and short_of(value) == pointer.short:
        return types.none, (pointer, types.int64, ELEMENTS[pointer.short])
    return None


# --- vectors ---------------------------------------------------------------------------------------------------------


def _vector_address(builder: Any, args: Any, short: str) -> Any:
    address = _address(builder, args[0], args[1], short)
    return builder.bitcast(address, llvm.VectorType(_stored(short), LANES).as_pointer())


def _typed_load_vector(pointer: types.Type, index: types.Type) -> Any:
    if isinstance(pointer, Pointer) and short_of(index) == "i64":
        return VECTORS[pointer.short], (pointer, types.int64)
    return None


def _emit_load_vector(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    pointer = signature.args[0]
    address = _vector_address(builder, args, pointer.short)
    value = builder.load(address, align=BY_SHORT[pointer.short].itemsize)
    _mark(value, pointer.scope)
    return builder.trunc(value, llvm.VectorType(I1, LANES)) if pointer.short == "bool" else value


def _typed_store_vector(pointer: types.Type, index: types.Type, value: types.Type) -> Any:
    if isinstance(pointer, Pointer) and short_of(index) == "i64" and value == VECTORS[pointer.short]:
        return types.none, (pointer, types.int64, value)
    return None


def _emit_store_vector(context: Any, builder: Any, signature: Any, args: Any) -> None:
    pointer, value = signature.args[0], args[2]
    if pointer.short == "bool":
        value = builder.zext(value, llvm.VectorType(I8, LANES))
    address = _vector_address(builder, args, pointer.short)
    _mark(builder.store(value, address, align=BY_SHORT[pointer.short].itemsize), pointer.scope)


def _typed_splat(x: types.Type) -> Any:
    short = short_of(x)
    return (VECTORS[short], (ELEMENTS[short],)) if short in ELEMENTS else None


def _emit_splat(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    vector = context.get_value_type(signature.return_type)
    first = builder.insert_element(llvm.Constant(vector, llvm.Undefined), args[0], llvm.Constant(I32, 0))
    mask = llvm.Constant(llvm.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, llvm.Constant(vector, llvm.Undefined), mask)


def _emit_iota(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    steps = llvm.Constant(llvm.VectorType(I64, LANES), list(range(LANES)))
    return builder.add(_emit_splat(context, builder, signature, args), steps)


def _typed_iota(i: types.Type) -> Any:
    return (VECTORS["i64"], (types.int64,)) if short_of(i) == "i64" else None


def _typed_lane(vector: types.Type, k: types.Type) -> Any:
    if isinstance(vector, Vector) and short_of(k) == "i64":
        return ELEMENTS[vector.short], (vector, types.int64)
    return None


def _fold(name: str, word: str) -> Intrinsic:
    def typed(vector: types.Type) -> Any:
        if not isinstance(vector, Vector) or (word.startswith("logical") and vector.short != "bool"):
            return None
        return ELEMENTS[vector.short], (vector,)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, short, count = args[0], signature.args[0].short, LANES
        quick = _instruction(word, short)
        while count > 1:
            count //= 2                     # lanes beyond count are of no interest from here on
            mask = llvm.Constant(llvm.VectorType(I32, LANES), [(lane + count) % LANES for lane in range(LANES)])
            pair = vector, builder.shuffle_vector(vector, vector, mask)
            full = short + _SUFFIX
            vector = quick(builder, *pair) if quick else call_definition(builder, word, full, (full, full), full, pair)
        return builder.extract_element(vector, llvm.Constant(I32, 0))

    return Intrinsic(name, typed, emit)


# --- indices and failures --------------------------------------------------------------------------------------------


def _emit_fail(context: Any, builder: Any, signature: Any, args: Any) -> None:
    header = builder.load(builder.bitcast(args[0], I64.as_pointer().as_pointer()), align=8)
    builder.store(args[1], header, align=8)


def _emit_check_index(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    buffers, index, size, site = args
    inside = builder.icmp_unsigned("<", index, size)
    with builder.if_then(builder.not_(inside), likely=False):
        _emit_fail(context, builder, signature, (buffers, site))
    return builder.select(inside, index, llvm.Constant(I64, 0))


def _emit_floor_divide(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    index, n = args
    negative = builder.icmp_signed("<", index, llvm.Constant(I64, 0))
    shift = builder.select(negative, builder.sub(n, llvm.Constant(I64, 1)), llvm.Constant(I64, 0))
    return builder.sdiv(builder.sub(index, shift), n)


def _emit_modulus(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    quotient = _emit_floor_divide(context, builder, signature, args)
    return builder.sub(args[0], builder.mul(quotient, args[1]))


def _plain(method: str) -> Callable[..., Any]:
    return lambda context, builder, signature, args: getattr(builder, method)(*args)


# --- what Python spells without a word -------------------------------------------------------------------------------


def _operator(word: str) -> Intrinsic:
    """A Python operator: the word of its operands' dtype."""

    def typed(*arguments: types.Type) -> Any:
        short = short_of(arguments[0])
        full = f"{word}_{short}"
        if full not in WORDS or len({short_of(a) for a in arguments}) != 1:
            return None
        return NAMESPACE[full].type(*arguments)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return NAMESPACE[f"{word}_{short_of(signature.args[0])}"].emit(context, builder, signature, args)

    return Intrinsic(word, typed, emit)


def _truth() -> Intrinsic:
    def typed(x: types.Type) -> Any:
        return (types.boolean, (unliteral(x),)) if short_of(x) in ("bool", "i64") else None

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0] if args[0].type == I1 else builder.icmp_signed("!=", args[0], llvm.Constant(I64, 0))

    return Intrinsic("bool", typed, emit)


def _typed_range(*arguments: types.Type) -> Any:
    fits = 1 <= len(arguments) <= 3 and all(short_of(a) == "i64" for a in arguments)
    return (RANGE, (types.int64,) * len(arguments)) if fits else None


def _emit_range(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    start = args[0] if len(args) > 1 else llvm.Constant(I64, 0)
    stop = args[1] if len(args) > 1 else args[0]
    step = args[2] if len(args) > 2 else llvm.Constant(I64, 1)
    with builder.goto_entry_block():
        state = builder.alloca(RANGE_STATE)
    for k, value in enumerate((start, stop, step)):
        builder.store(value, _slot(builder, state, k))
    return state


def _slot(builder: Any, state: Any, k: int) -> Any:
    return builder.gep(state, [llvm.Constant(I64, 0), llvm.Constant(I64, k)])


def _emit_next(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Steps are positive: a kernel that counts down computes its index from one that counts up."""
    index, stop, step = (builder.load(_slot(builder, args[0], k)) for k in range(3))
    builder.store(builder.add(index, step, flags=["nsw"]), _slot(builder, args[0], 0))
    pair = llvm.Constant(context.get_value_type(PAIR), llvm.Undefined)
    pair = builder.insert_value(pair, index, 0)
    return builder.insert_value(pair, builder.icmp_signed("<", index, stop), 1)


OPERATORS: Mapping[Any, Intrinsic] = {
    operator.add: _operator("add"), operator.sub: _operator("sub"), operator.mul: _operator("mul"),
    operator.truediv: _operator("div"), operator.neg: _operator("neg"), operator.invert: _operator("bitwise_not"),
    operator.not_: _operator("logical_not"), operator.and_: _operator("bitwise_and"),
    operator.or_: _operator("bitwise_or"), operator.xor: _operator("bitwise_xor"),
    operator.lshift: _operator("shift_left"), operator.rshift: _operator("shift_right"),
    operator.eq: _operator("eq"), operator.ne: _operator("ne"), operator.lt: _operator("lt"),
    operator.le: _operator("le"), operator.gt: _operator("gt"), operator.ge: _operator("ge"),
    operator.iadd: _operator("add"), operator.isub: _operator("sub"), operator.imul: _operator("mul"),
    operator.iand: _operator("bitwise_and"), operator.ior: _operator("bitwise_or"),
    operator.ixor: _operator("bitwise_xor"),
    operator.floordiv: Intrinsic("//", integers(2, types.int64), _emit_floor_divide),
    operator.mod: Intrinsic("%", integers(2, types.int64), _emit_modulus),
    operator.getitem: Intrinsic("getitem", _typed_load, _emit_load),
    operator.setitem: Intrinsic("setitem", _typed_store, _emit_store),
    min: _operator("minimum"), max: _operator("maximum"), bool: _truth(),
    range: Intrinsic("range", _typed_range, _emit_range),
    "getiter": Intrinsic("getiter", lambda x: (RANGE, (RANGE,)) if x is RANGE else None, lambda c, b, s, args: args[0]),
    "iternext": Intrinsic("iternext", lambda x: (PAIR, (RANGE,)) if x is RANGE else None, _emit_next),
}
"""What kernels spell without a word, by the object that Numba looks up."""


def _special() -> dict[str, Intrinsic]:
    table = {
        "load_x16": Intrinsic("load_x16", _typed_load_vector, _emit_load_vector),
        "store_x16": Intrinsic("store_x16", _typed_store_vector, _emit_store_vector),
        "splat_x16": Intrinsic("splat_x16", _typed_splat, _emit_splat),
        "iota_x16": Intrinsic("iota_x16", _typed_iota, _emit_iota),
        "lane": Intrinsic("lane", _typed_lane, _plain("extract_element")),
        "fold_and": _fold("fold_and", "logical_and"), "fold_or": _fold("fold_or", "logical_or"),
        "fail": Intrinsic("fail", integers(1, types.none, BUFFERS), _emit_fail),
        "check_index": Intrinsic("check_index", integers(3, types.int64, BUFFERS), _emit_check_index),
        "quotient": Intrinsic("quotient", integers(2, types.int64), _plain("udiv")),
        "modulus": Intrinsic("modulus", integers(2, types.int64), _plain("urem")),
    }
    for word in ("add", "mul", "maximum", "minimum"):
        table[f"fold_{word}"] = _fold(f"fold_{word}", word)
    for short in ELEMENTS:
        for intrinsic in (_pointer(short), _local(short)):
            table[intrinsic.name] = intrinsic
    return table


def _namespace() -> dict[str, Intrinsic]:
    table = _special()
    for name, (word, short) in WORDS.items():
        if name not in table:
            table[name] = (_changing if word.name in ("convert", "bitcast") else _elementwise)(name, word, short)
    return table


NAMESPACE: Mapping[str, Intrinsic] = _namespace()
"""Every word's intrinsic, by its full name."""
