"""The kernel language compiled: memory, control flow, vectors, failing indices, conversions, random bits, errors."""
import platform

import numpy as np
import pytest

from weft.backends.native import codegen, compiler, cpu, engine_loader, loader, plain
from weft.backends.native.vocabulary import ALL, CONSTANTS, NUMBERS, WORDS
from weft.ir.errors import CompileError
from weft.ir.ops import OPS
from weft.ir.types import BY_SHORT, uint32, uint64


def run(source, stop, *arrays, start=0):
    """The status word and the arrays after a kernel ran as machine code; the plain meaning must agree."""
    compiled, interpreted = [a.copy() for a in arrays], [a.copy() for a in arrays]
    handle = loader.load_object(compiler.compile_kernel(source, "kernel"))
    status = loader.call_kernel(handle.address("kernel"), start, stop, compiled)
    handle.free()
    assert plain.run_kernel(source, start, stop, interpreted) == status
    for a, b in zip(compiled, interpreted, strict=True):
        np.testing.assert_array_equal(a, b)
    return status, compiled


def test_control_flow_and_scratch():
    source = """
def kernel(start, stop, buffers):
    x = pointer_i64(buffers, 1)
    o = pointer_i64(buffers, 2)
    scratch = local_i64(8)
    for i in range(start, stop):
        for k in range(8):
            scratch[k] = x[i] + k
        total = 0
        for k in range(1, 8, 3):
            total += scratch[k]
        n = 0
        while True:
            if not total > 100:
                break
            total = total - 7
            n = n + 1
        if (n & 1) == 0 and total != 3:
            n = -n
        o[i] = min(n, 50) + max(total, -50) + (x[i] // 3) * 1000 + x[i] % 3 + quotient(i, 2) + modulus(i, 2)
"""
    x = np.arange(-40, 200, 7)
    _, (_, result) = run(source, x.size, x, np.zeros_like(x))
    assert len(set(result)) > 10


def test_only_the_given_range_is_touched():
    source = """
def kernel(start, stop, buffers):
    o = pointer_f32(buffers, 1)
    for i in range(start, stop):
        o[i] = f32(1.5)
"""
    _, (result,) = run(source, 20, np.zeros(32, np.float32), start=7)
    np.testing.assert_array_equal(result, np.where((np.arange(32) >= 7) & (np.arange(32) < 20), 1.5, 0).astype("f4"))


def test_buffers_that_share_a_scope_may_be_one():
    source = """
def kernel(start, stop, buffers):
    x = pointer_f32(buffers, 1)
    o = pointer_f32(buffers, 2, 1)
    for i in range(start, stop):
        o[i + 1] = x[i] + f32(1.0)
"""
    handle = loader.load_object(compiler.compile_kernel(source, "kernel"))
    memory = np.zeros(100, np.float32)
    loader.call_kernel(handle.address("kernel"), 0, 99, [memory, memory])
    np.testing.assert_array_equal(memory, np.arange(100, dtype=np.float32))


def test_vectors_of_sixteen_lanes():
    source = """
def kernel(start, stop, buffers):
    x = pointer_f32(buffers, 1)
    o = pointer_f32(buffers, 2)
    flags = pointer_bool(buffers, 3)
    total = splat_x16(f32(0.0))
    largest = splat_x16(-f32(inf))
    for i in range(start, stop, 16):
        v = load_x16(x, i)
        total = total + v * v
        largest = maximum_f32x16(largest, v)
        positive = v > splat_x16(f32(0.0))
        store_x16(flags, i, positive)
        store_x16(o, i, select_f32x16(positive, convert_f32x16(iota_x16(i)), v))
    o[0] = fold_add(total)
    o[1] = fold_maximum(largest)
    o[2] = lane(total, 3)
    flags[0] = fold_or(total > splat_x16(f32(2.0)))
    flags[1] = fold_and(total > splat_x16(f32(2.0)))
"""
    x = np.random.default_rng(0).standard_normal(160).astype(np.float32)
    _, (_, o, _) = run(source, x.size, x, np.zeros_like(x), np.zeros(x.size, bool))
    lanes = np.zeros(16, np.float32)
    for row in x.reshape(10, 16):
        lanes += row * row
    halves = lanes
    while halves.size > 1:
        halves = halves[:halves.size // 2] + halves[halves.size // 2:]
    assert o[0] == halves[0] and o[1] == x.max()


def test_indices_are_checked():
    source = """
def kernel(start, stop, buffers):
    x = pointer_f32(buffers, 1)
    places = pointer_i64(buffers, 2)
    o = pointer_f32(buffers, 3)
    for i in range(start, stop):
        o[i] = x[check_index(buffers, places[i], 10, 3)]
"""
    x, o = np.arange(10, dtype=np.float32), np.zeros(6, np.float32)
    assert run(source, 6, x, np.array([0, 9, 5, 3, 2, 1]), o)[0] == 0
    for wrong in (-1, 10, 2**62, -2**63):
        status, (_, _, result) = run(source, 6, x, np.array([0, 9, wrong, 3, 2, 1]), o)
        assert status == 3 and result[2] == x[0] and result[1] == 9


@pytest.mark.parametrize("target", ALL)
def test_conversions(target):
    """From every dtype: as C where C defines it, saturating where it does not."""
    values = [0, 1, 2, -1, -2, 100, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, -2**31, 2**53, -2**63, 2**63 - 1]
    sources = {}
    for short in ALL:
        dtype = BY_SHORT[short]
        if dtype.kind == "float":
            extra = [0.5, -0.5, 2.5, -2.5, 1e10, -1e10, 1e30, -1e30, np.inf, -np.inf, np.nan]
            sources[short] = np.array([*values, *extra], dtype.numpy)
        else:
            sources[short] = np.array([v % 2**64 for v in values], np.uint64).astype(dtype.numpy)
    lines, n = ["def kernel(start, stop, buffers):"], max(v.size for v in sources.values())
    body = []
    for k, short in enumerate(sources):
        lines += [f"    x{k} = pointer_{short}(buffers, {2 * k + 1})",
                  f"    o{k} = pointer_{target}(buffers, {2 * k + 2})"]
        body.append(f"        o{k}[i] = convert_{target}(x{k}[i])")
    source = "\n".join([*lines, "    for i in range(start, stop):", *body]) + "\n"
    arrays = []
    for x in sources.values():
        arrays += [np.resize(x, n), np.zeros(n, BY_SHORT[target].numpy)]
    _, results = run(source, n, *arrays)
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
    source = """
def kernel(start, stop, buffers):
    x = pointer_f32(buffers, 1)
    o = pointer_u32(buffers, 2)
    p = pointer_f64(buffers, 3)
    for i in range(start, stop):
        o[i] = (bitcast_u32(x[i]) << u32(1)) ^ u32(0xFFFFFFFF)
        p[i] = select_f64(x[i] > f32(0.1), bitcast_f64(u64(0x7FF0000000000000)), -inf)
"""
    x = np.array([0.1, 0.2, -1, 3e38, 1e-45], np.float32)
    _, (_, o, p) = run(source, x.size, x, np.zeros(x.size, np.uint32), np.zeros(x.size))
    np.testing.assert_array_equal(o, ~(x.view(np.uint32) << np.uint32(1)))
    np.testing.assert_array_equal(p, np.where(x > np.float32(0.1), np.inf, -np.inf))


def test_random_bits_are_those_of_the_op():
    source = """
def kernel(start, stop, buffers):
    state = pointer_u64(buffers, 1)
    narrow = pointer_u32(buffers, 2)
    wide = pointer_u64(buffers, 3)
    for i in range(start, stop):
        narrow[i] = threefry_u32(state[0], state[1], i)
        wide[i] = threefry_u64(state[0], state[1], i)
"""
    state = np.array([0x1234567_89ABCDEF, 3 << 33 | 7], np.uint64)
    _, (_, narrow, wide) = run(source, 100, state, np.zeros(100, np.uint32), np.zeros(100, np.uint64))
    np.testing.assert_array_equal(narrow, OPS.random_bits.evaluate(state, shape=(100,), dtype=uint32))
    np.testing.assert_array_equal(wide, OPS.random_bits.evaluate(state, shape=(100,), dtype=uint64))


def test_arithmetic_is_not_contracted_but_fma_is():
    source = """
def kernel(start, stop, buffers):
    x = pointer_f64(buffers, 1)
    o = pointer_f64(buffers, 2)
    p = pointer_f64(buffers, 3)
    for i in range(start, stop):
        o[i] = x[i] * x[i] - 1.0
        p[i] = fma_f64(x[i], x[i], -1.0)
"""
    x = 1 + np.arange(1, 50) * 2.0**-30
    handle = loader.load_object(compiler.compile_kernel(source, "kernel"))
    o, p = np.zeros_like(x), np.zeros_like(x)
    loader.call_kernel(handle.address("kernel"), 0, x.size, [x, o, p])
    np.testing.assert_array_equal(o, x * x - 1)
    exact = (x.astype(np.longdouble) - 1) * (x.astype(np.longdouble) + 1)
    np.testing.assert_array_equal(p, exact.astype(np.float64))
    assert (o != p).any()


def test_loops_are_vectorised_without_checks_for_overlap():
    if platform.machine() != "x86_64":
        pytest.skip("reads x86 assembly")
    lines = ["def kernel(start, stop, buffers):", *(f"    x{k} = pointer_f32(buffers, {k})" for k in range(1, 13)),
             "    for i in range(start, stop):",
             *(f"        x{k}[i] = exp_f32(x{k - 8}[i]) + x{k - 4}[i]" for k in range(9, 13))]
    assembly = compiler.kernel_assembly("\n".join(lines) + "\n")
    assert "addps" in assembly and "call" not in assembly
    assert assembly.count("cmp") < 12               # twelve pointers, checked in pairs, would need more


@pytest.mark.parametrize("line, message", [
    ("o[i] = o[i] * 2.0", "float64"), ("o[i] = o[i] + 1", "int"), ("o[i] = exq_f32(o[i])", "exq_f32"),
    ("o[i] = 1", "o"), ("o[i] = exp_f64(o[i])", "exp_f64"), ("o[i] = f32([1][0])", ""),
    ("y = o[i]\n        y = 1", "y"),
])
def test_errors_show_the_source(line, message):
    source = ("def kernel(start, stop, buffers):\n    o = pointer_f32(buffers, 1)\n"
              f"    for i in range(start, stop):\n        {line}\n")
    with pytest.raises(CompileError, match=f"(?s){message}.*def kernel"):
        compiler.compile_kernel(source, "kernel")


def test_code_that_needs_anything_but_the_c_library_is_refused():
    text = "declare i64 @getpid()\ndefine i64 @kernel() {\n  %r = call i64 @getpid()\n  ret i64 %r\n}\n"
    with pytest.raises(CompileError, match="getpid"):
        codegen.emit_object(text)


@pytest.mark.parametrize("how", [loader, engine_loader] if cpu.MAPS_OBJECTS else [engine_loader])
def test_code_is_loaded_and_freed(how):
    """Two objects at once, with constants, calls between functions and of the C library."""
    source = ("def kernel(start, stop, buffers):\n    p = pointer_f64(buffers, 1)\n"
              "    p[start] = sin_f64(p[0]) + f64(stop)\n")
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
