"""Kernels written in loop IR, compiled and as plain Python: memory, control flow, vectors, failing indices,
conversions, random bits, errors."""
import platform

import numpy as np
import pytest

from weft.backends.llvm_source import llvm_source
from weft.backends.lower_builder import KernelBuilder, apply, integer
from weft.backends.native import codegen, compiler, cpu, engine_loader, loader, plain
from weft.backends.native.vocabulary import ALL, CONSTANTS, NUMBERS, WORDS
from weft.backends.python_source import python_source
from weft.ir.errors import CompileError
from weft.ir.index import Constant
from weft.ir.loops import LANES, START, STOP, Apply, Literal, Load, Position, Role, While, named
from weft.ir.ops import OPS
from weft.ir.sizes import Symbol
from weft.ir.types import BY_NUMPY, BY_SHORT, bool_, float32, float64, int64, uint32, uint64

SIZE = 1 << 20


class Writing(KernelBuilder):
    """A kernel over [start, stop) whose buffers are numbered x1, x2, ..."""

    def __init__(self, *dtypes, symbols=()):
        super().__init__(symbols)
        self.x = [self.buffer(f"x{k}", dtype, SIZE, Role.OUTPUT) for k, dtype in enumerate(dtypes, 1)]
        self.i = self.variable("i", SIZE)

    def loop(self, step=1):
        """Opens the loop over the kernel's range."""
        self.open(self.i, START, STOP, step)
        return self.i

    def kernel(self):
        while self.level:
            self.close()
        return named("kernel", self.buffers, self.levels[0].statements, self.sites, self.symbols)


def machine_code(kernel):
    return loader.load_object(compiler.compile_kernel(llvm_source(kernel), "kernel"))


def run(kernel, stop, *arrays, start=0):
    """The status word and the arrays after a kernel ran as machine code; the plain meaning must agree."""
    compiled, interpreted = [a.copy() for a in arrays], [a.copy() for a in arrays]
    handle = machine_code(kernel)
    status = loader.call_kernel(handle.address("kernel"), start, stop, compiled)
    handle.free()
    assert plain.run_kernel(python_source(kernel), start, stop, interpreted) == status
    for a, b in zip(compiled, interpreted, strict=True):
        np.testing.assert_array_equal(a, b)
    return status, compiled


def test_control_flow_and_scratch():
    b = Writing(int64, int64)
    x, o = b.x
    scratch, i = b.buffer("scratch", int64, 8, Role.LOCAL), b.loop()
    k = b.variable("k", 8)
    b.open(k, 0, 8)
    b.store(scratch, k, apply("add", (Load(x, i), Position(k)), int64))
    b.close()
    total, rounds = b.accumulator("total", integer(0)), b.accumulator("rounds", integer(0))
    k = b.variable("k", 8)
    b.open(k, 1, 8, 3)
    b.set(total, apply("add", (total, Load(scratch, k)), int64))
    b.close()
    b.open_branch()
    b.set(total, apply("sub", (total, integer(7)), int64))
    b.set(rounds, apply("add", (rounds, integer(1)), int64))
    b.emit(While((), apply("gt", (total, integer(100)), bool_), b.close_branch()))
    part = apply("mul", (apply("minimum", (rounds, integer(50)), int64), Position((i * 3 + 2) // 5 - i % 7)), int64)
    b.store(o, i, apply("add", (part, total), int64))
    x = np.arange(-40, 200, 7)
    _, (_, result) = run(b.kernel(), x.size, x, np.zeros_like(x))
    totals, rounds = 3 * x + 12, 0 * x
    while (totals > 100).any():
        rounds += totals > 100
        totals -= 7 * (totals > 100)
    i = np.arange(x.size)
    np.testing.assert_array_equal(result, rounds.clip(max=50) * ((i * 3 + 2) // 5 - i % 7) + totals)


def test_only_the_given_range_is_touched():
    b = Writing(float32)
    b.store(b.x[0], b.loop(), Literal(1.5, float32))
    _, (result,) = run(b.kernel(), 20, np.zeros(32, np.float32), start=7)
    np.testing.assert_array_equal(result, np.where((np.arange(32) >= 7) & (np.arange(32) < 20), 1.5, 0).astype("f4"))


def test_symbolic_sizes_are_read_from_the_last_argument():
    n, m = Symbol("n", least=1), Symbol("m", least=1)
    b = Writing(int64, symbols=(n, m))
    b.buffer("sizes", int64, 2, Role.INPUT)
    i = b.loop()
    k = b.variable("k", m)
    b.open(k, 0, m)
    b.store(b.x[0], i * m + k, Position((i * (n * m + 1) + k) // n - k % n + 2 * n - 7))
    _, (result, _) = run(b.kernel(), 4, np.zeros(20, np.int64), np.array([3, 5]))
    i, k = np.arange(4)[:, None], np.arange(5)
    np.testing.assert_array_equal(result, ((i * 16 + k) // 3 - k % 3 - 1).reshape(-1))


def test_a_buffer_may_be_the_memory_of_another():
    b = Writing(float32)
    o, i = b.buffer("o", float32, SIZE, Role.OUTPUT, same_as=b.x[0].name), b.loop()
    b.store(o, i + 1, apply("add", (Load(b.x[0], i), Literal(1.0, float32)), float32))
    memory = np.zeros(100, np.float32)
    code = machine_code(b.kernel())
    loader.call_kernel(code.address("kernel"), 0, 99, [memory, memory])
    np.testing.assert_array_equal(memory, np.arange(100, dtype=np.float32))


def test_vectors_of_sixteen_lanes():
    b = Writing(float32, float32, bool_)
    x, o, flags = b.x
    zero = Literal(0.0, float32)
    total = b.accumulator("total", Literal(0.0, float32, LANES))
    largest = b.accumulator("largest", Literal(-np.inf, float32, LANES))
    i = b.loop(LANES)
    v = b.let("v", Load(x, i, LANES), 1)
    b.set(total, apply("add", (total, apply("mul", (v, v), float32)), float32))
    b.set(largest, apply("maximum", (largest, v), float32))
    positive = b.let("positive", apply("gt", (v, zero), bool_), 1)
    b.store(flags, i, positive)
    b.store(o, i, apply("select", (positive, apply("convert", (Position(i, LANES),), float32), v), float32))
    b.close()
    many = apply("gt", (total, Literal(2.0, float32)), bool_)
    folds = ("fold_add", total), ("fold_maximum", largest), ("fold_minimum", largest), ("fold_mul", total)
    for k, (word, vector) in enumerate(folds):
        b.store(o, Constant(k), Apply(word, (vector,), float32))
    b.store(o, Constant(4), Apply("lane", (total, integer(3)), float32))
    for k, word in enumerate(("fold_or", "fold_and")):
        b.store(flags, Constant(k), Apply(word, (many,), bool_))
    x = np.random.default_rng(0).standard_normal(160).astype(np.float32)
    _, (_, o, flags) = run(b.kernel(), x.size, x, np.zeros_like(x), np.zeros(x.size, bool))
    lanes = np.zeros(16, np.float32)
    for row in x.reshape(10, 16):
        lanes += row * row
    halves = lanes
    while halves.size > 1:
        halves = halves[:halves.size // 2] + halves[halves.size // 2:]
    assert o[0] == halves[0] and o[1] == x.max() and o[4] == lanes[3]
    assert flags[0] == (lanes > 2).any() and flags[1] == (lanes > 2).all()


def test_indices_are_checked():
    b = Writing(float32, int64, float32)
    x, places, o = b.x
    i = b.loop()
    place = b.let("place", Load(places, i), b.level)
    at = b.data_index("at", Apply("check_index", (place, integer(10), integer(3)), int64), 10)
    b.store(o, i, Load(x, at))
    x, o = np.arange(10, dtype=np.float32), np.zeros(6, np.float32)
    kernel = b.kernel()
    assert run(kernel, 6, x, np.array([0, 9, 5, 3, 2, 1]), o)[0] == 0
    for wrong in (-1, 10, 2**62, -2**63):
        status, (_, _, result) = run(kernel, 6, x, np.array([0, 9, wrong, 3, 2, 1]), o)
        assert status == 3 and result[2] == x[0] and result[1] == 9


@pytest.mark.parametrize("target", ALL)
def test_conversions(target):
    """From every dtype: as C where C defines it, saturating where it does not."""
    values = [0, 1, 2, -1, -2, 100, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, -2**31, 2**53, -2**63, 2**63 - 1]
    sources = []
    for short in ALL:
        dtype = BY_SHORT[short]
        if dtype.kind == "float":
            extra = [0.5, -0.5, 2.5, -2.5, 1e10, -1e10, 1e30, -1e30, np.inf, -np.inf, np.nan]
            sources.append(np.array([*values, *extra], dtype.numpy))
        else:
            sources.append(np.array([v % 2**64 for v in values], np.uint64).astype(dtype.numpy))
    dtype, n = BY_SHORT[target], max(v.size for v in sources)
    b = Writing(*(d for x in sources for d in (BY_NUMPY[x.dtype], dtype)))
    i = b.loop()
    for x, o in zip(b.x[::2], b.x[1::2], strict=True):
        b.store(o, i, apply("convert", (Load(x, i),), dtype))
    arrays = [a for x in sources for a in (np.resize(x, n), np.zeros(n, dtype.numpy))]
    _, results = run(b.kernel(), n, *arrays)
    for x, result in zip(results[::2], results[1::2], strict=True):
        limits = np.iinfo(result.dtype) if result.dtype.kind in "iu" else None
        if x.dtype.kind == "f" and limits:
            defined = (x > np.longdouble(limits.min) - 1) & (x < np.longdouble(limits.max) + 1)
            np.testing.assert_array_equal(result[defined], x[defined].astype(result.dtype))
            np.testing.assert_array_equal(result[x >= np.longdouble(limits.max) + 1], limits.max)
            np.testing.assert_array_equal(result[np.isnan(x)], 0)
        else:
            np.testing.assert_array_equal(result, x.astype(result.dtype))


def test_bitcasts_and_literals():
    b = Writing(float32, uint32, float64)
    x, o, p = b.x
    i = b.loop()
    bits = apply("shift_left", (apply("bitcast", (Load(x, i),), uint32), Literal(1, uint32)), uint32)
    b.store(o, i, apply("bitwise_xor", (bits, Literal(0xFFFFFFFF, uint32)), uint32))
    infinite = apply("bitcast", (Literal(0x7FF0000000000000, uint64),), float64)
    large = apply("gt", (Load(x, i), Literal(0.1, float32)), bool_)
    b.store(p, i, apply("select", (large, infinite, Literal(-np.inf, float64)), float64))
    x = np.array([0.1, 0.2, -1, 3e38, 1e-45], np.float32)
    _, (_, o, p) = run(b.kernel(), x.size, x, np.zeros(x.size, np.uint32), np.zeros(x.size))
    np.testing.assert_array_equal(o, ~(x.view(np.uint32) << np.uint32(1)))
    np.testing.assert_array_equal(p, np.where(x > np.float32(0.1), np.inf, -np.inf))


def test_random_bits_are_those_of_the_op():
    b = Writing(uint64, uint32, uint64)
    state, narrow, wide = b.x
    i = b.loop()
    for o in (narrow, wide):
        operands = Load(state, Constant(0)), Load(state, Constant(1)), Position(i)
        b.store(o, i, Apply("threefry", operands, o.dtype))
    state = np.array([0x1234567_89ABCDEF, 3 << 33 | 7], np.uint64)
    _, (_, narrow, wide) = run(b.kernel(), 100, state, np.zeros(100, np.uint32), np.zeros(100, np.uint64))
    np.testing.assert_array_equal(narrow, OPS.random_bits.evaluate(state, shape=(100,), dtype=uint32))
    np.testing.assert_array_equal(wide, OPS.random_bits.evaluate(state, shape=(100,), dtype=uint64))


def test_arithmetic_is_not_contracted_but_fma_is():
    b = Writing(float64, float64, float64)
    x, o, p = b.x
    i, minus_one = b.loop(), Literal(-1.0, float64)
    v = b.let("v", Load(x, i), 1)
    b.store(o, i, apply("add", (apply("mul", (v, v), float64), minus_one), float64))
    b.store(p, i, apply("fma", (v, v, minus_one), float64))
    code = machine_code(b.kernel())
    x = 1 + np.arange(1, 50) * 2.0**-30
    o, p = np.zeros_like(x), np.zeros_like(x)
    loader.call_kernel(code.address("kernel"), 0, x.size, [x, o, p])
    np.testing.assert_array_equal(o, x * x - 1)
    exact = (x.astype(np.longdouble) - 1) * (x.astype(np.longdouble) + 1)
    np.testing.assert_array_equal(p, exact.astype(np.float64))
    assert (o != p).any()


def test_loops_are_vectorised_without_checks_for_overlap():
    if platform.machine() != "x86_64":
        pytest.skip("reads x86 assembly")
    b = Writing(*[float32] * 12)
    i = b.loop()
    for k in range(8, 12):
        e = apply("exp", (Load(b.x[k - 8], i),), float32)
        b.store(b.x[k], i, apply("add", (e, Load(b.x[k - 4], i)), float32))
    assembly = compiler.kernel_assembly(llvm_source(b.kernel()))
    assert "addps" in assembly and "call" not in assembly
    assert assembly.count("cmp") < 12               # twelve pointers, checked in pairs, would need more


@pytest.mark.parametrize("value, message", [
    (lambda x: Literal(1, int64), "integer constant must have integer type"),
    (lambda x: apply("exq", (x,), float32), "exq"),
])
def test_errors_show_the_text(value, message):
    b = Writing(float32)
    i = b.loop()
    b.store(b.x[0], i, value(Load(b.x[0], i)))
    with pytest.raises(CompileError, match=f"(?s){message}.*define void @kernel"):
        compiler.compile_kernel(llvm_source(b.kernel()), "kernel")


def test_code_that_needs_anything_but_the_c_library_is_refused():
    text = "declare i64 @getpid()\ndefine i64 @kernel() {\n  %r = call i64 @getpid()\n  ret i64 %r\n}\n"
    with pytest.raises(CompileError, match="getpid"):
        codegen.emit_object(text)


@pytest.mark.parametrize("how", [loader, engine_loader] if cpu.MAPS_OBJECTS else [engine_loader])
def test_code_is_loaded_and_freed(how):
    """Two objects at once, with constants, calls between functions and of the C library."""
    b = Writing(float64)
    sine = apply("sin", (Load(b.x[0], Constant(0)),), float64)
    b.store(b.x[0], START, apply("add", (sine, apply("convert", (Position(STOP),), float64)), float64))
    source = llvm_source(b.kernel())
    handle = how.load_objects([compiler.compile_kernel(source, "first"), compiler.compile_kernel(source, "second")])
    memory = np.array([1e15, 0, 0])
    loader.call_kernel(handle.address("second"), 1, 5, [memory])
    loader.call_kernel(handle.address("first"), 2, 6, [memory])
    np.testing.assert_allclose(memory, [1e15, np.sin(1e15) + 5, np.sin(1e15) + 6], rtol=1e-15)
    with pytest.raises(CompileError, match="third"):
        handle.address("third")
    handle.free()
    handle.free()
    with pytest.raises(CompileError, match="freed"):
        handle.address("first")


def test_every_word_has_a_plain_meaning():
    assert set(plain.NAMESPACE) == set(WORDS) | set(CONSTANTS)
    assert all(f"bitcast_{short}" in WORDS for short in NUMBERS)


@pytest.mark.parametrize("short", ["f32", "bool", "i16", "f64"])
def test_vectors_of_which_not_all_lanes_count(short):
    dtype = BY_SHORT[short]
    b = Writing(dtype, dtype, int64)
    x, o, sums = b.x
    i = b.loop(LANES)
    v = b.let("v", Load(x, i, LANES, Constant(40) - i), 1)
    b.store(o, i, v, count=Constant(40) - i)
    mask = Apply("first_lanes", (Position(Constant(40) - i),), bool_, LANES)
    counted = apply("select", (mask, Literal(1, int64, LANES), Literal(0, int64, LANES)), int64)
    b.store(sums, i // LANES, Apply("fold_add", (counted,), int64))
    b.close()
    five = b.let("five", Load(x, Constant(0), LANES, Constant(5)), 0)
    b.store(o, Constant(48), five, count=Constant(16))
    x = np.ones(40, dtype.numpy)
    _, (_, o, sums) = run(b.kernel(), 48, x, np.zeros(64, dtype.numpy), np.zeros(3, np.int64))
    expected = np.concatenate([np.ones(40), np.zeros(8), np.ones(5), np.zeros(11)])
    np.testing.assert_array_equal(o, expected.astype(o.dtype))
    np.testing.assert_array_equal(sums, [16, 16, 8])
