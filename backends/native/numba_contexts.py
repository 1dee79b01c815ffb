"""Numba's typing and lowering contexts cut down to the kernel language.

Numba's own contexts load the typing of Python's and NumPy's whole surface, a third of a second at the first kernel.
Kernels are made of words alone, so these know nothing else: type inference and lowering are Numba's, what they look
up is ours. Values never change their type implicitly."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import llvmlite.ir as llvm
from numba.core import types
from numba.core.base import BaseContext
from numba.core.callconv import BaseCallConv
from numba.core.types.misc import unliteral
from numba.core.typing.context import BaseContext as BaseTypingContext

from .numba_types import Intrinsic, WordType


class TypingContext(BaseTypingContext):
    """Types words, operators and constants.

    Attributes:
        operators: what means a word without being one: `operator.add`, `range`, `"iternext"`, ...
    """

    def __init__(self, operators: Mapping[Any, Intrinsic]) -> None:
        super().__init__()
        self.operators = {key: WordType(intrinsic) for key, intrinsic in operators.items()}

    def refresh(self) -> None:
        """Nothing can be registered later."""

    def resolve_value_type(self, value: Any) -> types.Type:
        """The type of a constant or of a global of the kernel."""
        match value:
            case Intrinsic():
                return WordType(value)
            case bool():
                return types.boolean
            case int():
                return types.int64
            case float():
                return types.float64
            case None:
                return types.none
        found = self.operators.get(value)
        if found is None:
            raise ValueError(f"{value!r} is not a word")
        return found

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of a call of a word or an operator."""
        word = func if isinstance(func, WordType) else self.operators.get(func)
        return word and word.get_call_type(self, args, kws)

    def resolve_static_getitem(self, value: Any, index: Any) -> None:
        """Constant indices are like any others."""

    def resolve_static_setitem(self, target: Any, index: Any, value: Any) -> None:
        """Constant indices are like any others."""

    def unify_pairs(self, first: Any, second: Any) -> Any:
        """One variable has one type; a literal is of its plain type."""
        if first == second or second is types.undefined:
            return first
        if first is types.undefined:
            return second
        first, second = unliteral(first), unliteral(second)
        return first if first == second else None

    def can_convert(self, fromty: Any, toty: Any) -> Any:
        """Only to the same type."""
        same = unliteral(fromty) == unliteral(toty)
        return super().can_convert(toty, toty) if same else None


class CallConvention(BaseCallConv):
    """C's: results are returned, nothing is raised."""

    def _make_call_helper(self, builder: Any) -> None:
        """No errors, no helper."""

    def get_function_type(self, restype: Any, argtypes: Any) -> llvm.FunctionType:
        """The LLVM type of a C function."""
        result = llvm.VoidType() if restype is types.none else self.context.get_value_type(restype)
        return llvm.FunctionType(result, [self.context.get_value_type(t) for t in argtypes])

    def decorate_function(self, fn: Any, args: Any, fe_argtypes: Any, noalias: bool = False) -> None:
        """Kernels do not unwind."""
        fn.attributes.add("nounwind")

    def decode_arguments(self, builder: Any, argtypes: Any, func: Any) -> list[Any]:
        """Arguments arrive as they are."""
        return list(func.args)

    def return_value(self, builder: Any, retval: Any) -> None:
        """A plain return."""
        if isinstance(builder.function.return_value.type, llvm.VoidType):
            builder.ret_void()
        else:
            builder.ret(retval)


class LoweringContext(BaseContext):
    """Lowers words by asking them, and everything else as Numba does."""

    def __init__(self, typing: TypingContext) -> None:
        super().__init__(typing, "cpu")

    def refresh(self) -> None:
        """Nothing can be registered later."""

    @property
    def call_conv(self) -> CallConvention:
        """C's convention."""
        return CallConvention(self)

    def codegen(self) -> None:
        """Numba generates no code here: the LLVM text is taken from the module."""

    def get_abi_sizeof(self, llvm_type: Any) -> int:
        """Asked for debug information alone, which kernels do not have."""
        return 8

    def declare_env_global(self, module: Any, envname: str) -> None:
        """Kernels have no Python environment."""

    def get_constant_generic(self, builder: Any, ty: Any, val: Any) -> Any:
        """A constant; integers may be written unsigned."""
        if isinstance(ty, WordType) or ty is types.none:
            return self.get_dummy_value()
        if unliteral(ty) is types.int64:
            return llvm.Constant(llvm.IntType(64), (val + 2**63) % 2**64 - 2**63)
        return llvm.Constant(self.get_value_type(unliteral(ty)), val)

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        """The code emitter of a word or an operator."""
        word = fn if isinstance(fn, WordType) else self.typing_context.operators[fn]
        emit = word.intrinsic.emit

        def implementation(builder: Any, args: Any, loc: Any = None) -> Any:
            value = emit(self, builder, sig, args)
            return self.get_dummy_value() if value is None else value

        return implementation

    def cast(self, builder: Any, val: Any, fromty: Any, toty: Any) -> Any:
        """Types never change: the typing context has seen to it."""
        return val

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Nothing is left to do."""
