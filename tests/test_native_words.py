"""Every elementwise word that is not an elementary function: machine code against NumPy, on the edges of each dtype."""
import numpy as np
import pytest

from weft.backends.llvm_source import llvm_source
from weft.backends.lower_builder import KernelBuilder
from weft.backends.native import compiler, loader, plain
from weft.backends.native.elementary import ELEMENTARY
from weft.backends.native.vocabulary import ALL, TABLE
from weft.backends.python_source import python_source
from weft.ir.loops import LANES, START, STOP, Apply, Load, Role, named
from weft.ir.ops import OPS
from weft.ir.types import BY_SHORT

SPECIAL = {"convert", "bitcast", "select", "fma", "threefry", "pointer", "local", "memory"}
WORDS = [w for w in TABLE if w.dtypes and w.name not in SPECIAL and w.name not in ELEMENTARY]


def edges(short):
    """Values at the edges of a dtype, and ordinary ones."""
    dtype = BY_SHORT[short]
    if dtype.kind == "bool":
        return np.array([False, True])
    if dtype.kind == "float":
        info = np.finfo(dtype.numpy)
        sizes = [0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 7.25, 1e6, 1e20, info.tiny, info.smallest_subnormal, info.max, np.inf]
        return np.array([*sizes, *(-s for s in sizes), np.nan], dtype.numpy)
    info = np.iinfo(dtype.numpy)
    ordinary = [0, 1, 2, 3, 5, 7, 31, 63, 100]
    signed = [-v for v in ordinary[1:]] if dtype.kind == "int" else []
    return np.array([*ordinary, *signed, info.max, info.max - 1, info.min, info.min + 1], dtype.numpy)


def operands(short, count):
    grid = np.meshgrid(*[edges(short)] * count, indexing="ij")
    return [np.ascontiguousarray(g.reshape(-1)) for g in grid]


def execute(kernel, n, arrays):
    """Runs a kernel compiled."""
    handle = loader.load_object(compiler.compile_kernel(llvm_source(kernel), "kernel"))
    status = loader.call_kernel(handle.address("kernel"), 0, n, arrays)
    handle.free()
    return status


def kernel_of(words, short, lanes):
    """One kernel that applies many words to the same operands, and a list of (word, dtype of the result)."""
    b, dtype = KernelBuilder(), BY_SHORT[short]
    x, y = (b.buffer(name, dtype, 1 << 20, Role.INPUT) for name in "xy")
    i, outputs = b.variable("i", 1 << 20), []
    b.open(i, START, STOP, lanes)
    for word in words:
        result = short if word.result == "same" else word.result
        operands = [Load(v, i, lanes) for v in (x, y)][:word.arguments.count(",") + 1]
        o = b.buffer("o", BY_SHORT[result], 1 << 20, Role.OUTPUT)
        b.store(o, i, Apply(word.name, tuple(operands), BY_SHORT[result], lanes))
        outputs.append((word, result))
    b.close()
    return named("words", b.buffers, b.levels[0].statements), outputs


def same(a, b):
    """Equal to the bit, but for the payload of NaN."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and np.array_equal(np.signbit(a), np.signbit(b)) \
        if a.dtype.kind == "f" and not np.isnan(a).any() else np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


@pytest.mark.parametrize("lanes", [1, LANES])
@pytest.mark.parametrize("short", ALL)
def test_words_compiled_and_plain(short, lanes):
    words = [w for w in WORDS if short in w.dtypes]
    x, y = operands(short, 2)
    n = len(x) // LANES * LANES + (LANES if lanes > 1 else 0)
    x, y = np.resize(x, n), np.resize(y, n)
    kernel, outputs = kernel_of(words, short, lanes)
    compiled = [np.zeros(n, BY_SHORT[result].numpy) for _, result in outputs]
    interpreted = [np.zeros(n, BY_SHORT[result].numpy) for _, result in outputs]
    assert execute(kernel, n, [x, y, *compiled]) == 0
    plain.run_kernel(python_source(kernel), 0, n, [x, y, *interpreted])
    wrong = [w.name for (w, _), a, b in zip(outputs, compiled, interpreted, strict=True) if not same(a, b)]
    assert not wrong
    if lanes == 1:
        with np.errstate(all="ignore"):
            arguments = {w.name: (x, y)[:w.arguments.count(",") + 1] for w, _ in outputs}
            wrong = [w.name for (w, _), a in zip(outputs, compiled, strict=True)
                     if w.name in OPS and not same(a, OPS[w.name].evaluate(*arguments[w.name]))]
        assert not wrong
