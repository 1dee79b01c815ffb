"""What scalar work costs, in additions: rough figures from which fusion and the runtime's chunk sizes are decided.

They depend on the program alone, never on the machine: they shape the loops, and so the last bits of sums.
"""

from __future__ import annotations

from .op import Op

_CHEAP = frozenset(
    (
        "add sub mul neg abs maximum minimum select convert bitcast eq ne lt le gt ge logical_and logical_or "
        "logical_not logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not shift_left shift_right fma fmax fmin "
        "sign copysign isnan isinf isfinite signbit floor ceil trunc round"
    ).split(" ")
)
_MODERATE = frozenset("div sqrt reciprocal rsqrt remainder floor_divide fmod hypot".split(" "))

CHEAP, MODERATE, DEAR = 1, 4, 12


def op_cost(op: Op) -> int:
    """The cost of one element of an elementwise op."""
    if op.name in _CHEAP:
        return CHEAP
    return MODERATE if op.name in _MODERATE else DEAR
