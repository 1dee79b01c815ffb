"""Gates: how a vectorised loop takes a slow path for the few elements that need one.

A word with a rare path (`sin` of a huge argument) calls `gate.<path>(condition, usual, *arguments)`. While LLVM
optimises, the gate is only declared, pure, with vector variants that it may use when it vectorises the caller.
Afterwards the gates' definitions are linked in and inlined: one test of the whole vector and a branch, never taken
in practice, to a loop over the lanes outside the hot code."""
from __future__ import annotations

from collections.abc import Iterable

from .llvm_arithmetic import Gate, LlvmArithmetic, define

VECTORS = (2, 4, 8, 16)
"""The vector lengths for which gates have variants; an LLVM that picks another keeps the loop scalar."""

_PURE = "nounwind willreturn memory(none)"
_UNLIKELY = '!0 = !{!"branch_weights", i32 1, i32 100000}\n'


def _signature(gate: Gate, lanes: int) -> str:
    m = LlvmArithmetic(gate.short, lanes)
    return ", ".join(m.type(short) for short in ("bool", gate.result, *gate.arguments))


def _type(gate: Gate, lanes: int, short: str | None = None) -> str:
    return LlvmArithmetic(gate.short, lanes).type(short or gate.result)


def declarations(gates: Iterable[Gate]) -> str:
    """What a module that calls the gates holds while it is optimised."""
    lines, vectors = [], []
    for gate in gates:
        parameters = "v" * (2 + len(gate.arguments))
        variants = ",".join(f"_ZGV_LLVM_N{n}{parameters}_gate.{gate.name}(gate.{gate.name}.x{n})" for n in VECTORS)
        lines.append(f"declare {gate_type(gate)} @gate.{gate.name}({_signature(gate, 0)}) {_PURE} "
                     f'"vector-function-abi-variant"="{variants}"')
        for n in VECTORS:
            lines.append(f"declare {_type(gate, n)} @gate.{gate.name}.x{n}({_signature(gate, n)}) {_PURE}")
            vectors.append(f"ptr @gate.{gate.name}.x{n}")
    if vectors:                             # LLVM drops declarations that nothing uses yet
        lines.append(f"@llvm.compiler.used = appending global [{len(vectors)} x ptr] [{', '.join(vectors)}], "
                     'section "llvm.metadata"')
    return "\n".join(lines) + "\n"


def gate_type(gate: Gate) -> str:
    """The LLVM type of a gate's scalar result."""
    return _type(gate, 0)


def definitions(gates: Iterable[Gate]) -> str:
    """The module that is linked in after optimisation."""
    text, needed = [], {}
    for gate in gates:
        m = LlvmArithmetic(gate.short)
        text.append(define(f"rare.{gate.name}", gate.definition, gate.arguments, gate.result, m, "noinline cold"))
        needed.update(m.declarations)
        assert not m.gates, "a rare path has no gates of its own"
        text.append(_scalar_gate(gate))
        for n in VECTORS:
            text += [_vector_gate(gate, n), _loop(gate, n)]
            needed[f"or.{n}"] = f"declare i1 @llvm.vector.reduce.or.v{n}i1(<{n} x i1>)"
    return "\n".join([*needed.values(), *text, _UNLIKELY])


def _arguments(gate: Gate, lanes: int) -> str:
    shorts = ("bool", gate.result, *gate.arguments)
    names = ("%c", "%u", *(f"%a{i}" for i in range(len(gate.arguments))))
    return ", ".join(f"{_type(gate, lanes, short)} {name}" for short, name in zip(shorts, names, strict=True))


def _scalar_gate(gate: Gate) -> str:
    passed = ", ".join(f"{_type(gate, 0, short)} %a{i}" for i, short in enumerate(gate.arguments))
    type_ = _type(gate, 0)
    return (f"define linkonce_odr {type_} @gate.{gate.name}({_arguments(gate, 0)}) alwaysinline nounwind {{\n"
            f"  br i1 %c, label %some, label %none, !prof !0\n"
            f"some:\n  %r = call {type_} @rare.{gate.name}({passed})\n  ret {type_} %r\n"
            f"none:\n  ret {type_} %u\n}}\n")


def _vector_gate(gate: Gate, lanes: int) -> str:
    type_, arguments = _type(gate, lanes), _arguments(gate, lanes)
    return (f"define linkonce_odr {type_} @gate.{gate.name}.x{lanes}({arguments}) alwaysinline nounwind {{\n"
            f"  %any = call i1 @llvm.vector.reduce.or.v{lanes}i1(<{lanes} x i1> %c)\n"
            f"  br i1 %any, label %some, label %none, !prof !0\n"
            f"some:\n  %r = call {type_} @rare.{gate.name}.x{lanes}({arguments})\n  ret {type_} %r\n"
            f"none:\n  ret {type_} %u\n}}\n")


def _loop(gate: Gate, lanes: int) -> str:
    """The rare path over the lanes of a vector, in memory: small rather than fast."""
    names = ["u", *(f"a{i}" for i in range(len(gate.arguments)))]
    shorts = (gate.result, *gate.arguments)
    lines = [f"  %mask = zext <{lanes} x i1> %c to <{lanes} x i8>", f"  %pc = alloca <{lanes} x i8>",
             f"  store <{lanes} x i8> %mask, ptr %pc"]
    for name, short in zip(names, shorts, strict=True):
        lines += [f"  %p{name} = alloca {_type(gate, lanes, short)}",
                  f"  store {_type(gate, lanes, short)} %{name}, ptr %p{name}"]
    lines += ["  br label %head", "head:", "  %i = phi i64 [0, %entry], [%next, %tail]",
              "  %bit = getelementptr i8, ptr %pc, i64 %i", "  %byte = load i8, ptr %bit",
              "  %on = icmp ne i8 %byte, 0", "  br i1 %on, label %body, label %tail", "body:"]
    for name, short in list(zip(names, shorts, strict=True))[1:]:
        lines += [f"  %e{name} = getelementptr {_type(gate, 0, short)}, ptr %p{name}, i64 %i",
                  f"  %v{name} = load {_type(gate, 0, short)}, ptr %e{name}"]
    passed = ", ".join(f"{_type(gate, 0, short)} %v{name}" for name, short in list(zip(names, shorts, strict=True))[1:])
    scalar, vector = _type(gate, 0), _type(gate, lanes)
    lines += [f"  %r = call {scalar} @rare.{gate.name}({passed})",
              f"  %eu = getelementptr {scalar}, ptr %pu, i64 %i", f"  store {scalar} %r, ptr %eu", "  br label %tail",
              "tail:", "  %next = add i64 %i, 1", f"  %more = icmp ult i64 %next, {lanes}",
              "  br i1 %more, label %head, label %done", "done:",
              f"  %all = load {vector}, ptr %pu", f"  ret {vector} %all"]
    head = f"define internal {vector} @rare.{gate.name}.x{lanes}({_arguments(gate, lanes)}) noinline cold nounwind {{\n"
    return head + "entry:\n" + "\n".join(lines) + "\n}\n"
