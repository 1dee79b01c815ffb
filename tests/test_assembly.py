"""The hot loops of every family of kernels are vector code: in LLVM's text after optimisation, and in the assembly."""
import platform
import re

import pytest

import weft
from weft.backends.llvm_source import llvm_source
from weft.backends.native import codegen, compiler
from weft.ir.loops import Kernel

functional = weft.nn.functional
PACKED = {
    "x86_64": r"\bv?\w+(p[sd]|(?<!s)[bwdq])\s.*%[xyz]mm",
    "aarch64": r"\b[vz]\d+\.\d*[bhsd]\b",
}
"""Machine -> what shows an instruction on vectors."""

VECTOR = re.compile(r"<\d+ x (float|double|i\d+)>")
SCALAR_WORK = re.compile(r"= (fadd|fsub|fmul|fdiv|fneg) (float|double)|@llvm\.(fma|sqrt|fabs)\.f(32|64)")


def kernels_of(function, *arguments):
    """The kernels of a compiled function."""
    compiled = weft.compile(function)
    compiled(*arguments)
    calls = compiled._program().build.kernels()
    return [call.kernel for call in calls if isinstance(call.kernel, Kernel)]


def innermost_loops(module):
    """The blocks of the kernel that go back to themselves, each as its instructions."""
    for function in module.functions:
        for block in function.blocks:
            *body, last = [str(instruction).strip() for instruction in block.instructions]
            label = re.search(rf"label %{re.escape(block.name)}\b", last) if block.name else None
            if label:
                yield body


def optimized(kernel):
    return codegen.optimize(*compiler.complete(llvm_source(kernel), "kernel"))


def check(function, *arguments):
    """All innermost loops of a function's kernels work on vectors, and there is vector code at all."""
    kernels, vectors = kernels_of(function, *arguments), 0
    assert kernels
    for kernel in kernels:
        module = optimized(kernel)
        vectors += len(VECTOR.findall(str(module)))
        for body in innermost_loops(module):
            text = "\n".join(body)
            assert VECTOR.search(text) or not SCALAR_WORK.search(text), f"a scalar loop of {kernel.name}:\n{text}"
    assert vectors > 2
    machine = platform.machine()
    if machine not in PACKED:
        pytest.skip(f"the instructions of {machine} are not known to this test")
    text = "\n".join(compiler.kernel_assembly(llvm_source(kernel)) for kernel in kernels)
    assert len(re.findall(PACKED[machine], text)) > 2


def adam_step():
    """The update of Adam, over parameters of several sizes."""
    parameters = [weft.randn(n).requires_grad_() for n in (10, 37, 500)]
    for p in parameters:
        p.grad = weft.randn(*p.shape)
    optimizer = weft.optim.Adam(parameters)
    return optimizer.step


FAMILIES = {
    "elementwise": (lambda x, y: weft.sigmoid(weft.tanh(x * y) + weft.exp(-x * x)), (5000,), (5000,)),
    "elementwise, short": (lambda x, y: weft.exp(x) + y, (37,), (37,)),
    "elementwise of doubles": (lambda x: weft.erf(x.double()) * 2, (5000,)),
    "rows of views": (lambda x: weft.exp(x[1:-1, 2:] - x[:-2, :-2]), (50, 61)),
    "comparisons": (lambda x, y: weft.where((x > y) & (x < 1.0), x, y), (5000,), (5000,)),
    "conversions": (lambda x: (x * 100).int().float() * 0.5, (5000,)),
    "trailing sum": (lambda x: (x * x).sum(-1), (64, 300)),
    "trailing sum of short rows": (lambda x: (x * x).sum(-1), (640, 13)),
    "long row": (lambda x: (x * x).sum(-1), (2, 50000)),
    "leading sum": (lambda x: (x * x).sum(0), (64, 300)),
    "any of a row": (lambda x: (x > 3).any(-1), (64, 300)),
    "mixed sum": (lambda x: (x * x).sum((0, 2)), (16, 20, 40)),
    "sum of all": (lambda x: (x * x).sum(), (640, 300)),
    "largest": (lambda x: weft.amax(x, -1), (64, 300)),
    "softmax": (lambda x: weft.softmax(x, -1), (64, 300)),
    "softmax over 10 classes": (lambda x: weft.softmax(x, -1), (640, 10)),
    "layer norm": (lambda x: functional.layer_norm(x, (300,)), (64, 300)),
    "layer norm of odd width": (lambda x: functional.layer_norm(x, (77,)), (64, 77)),
    "small product": (lambda x, y: weft.tanh(x @ y), (8, 24), (24, 32)),
    "gradient": (weft.grad(lambda x, y: (weft.tanh(x * y) + weft.exp(-x * x)).sum(), (0, 1)), (5000,), (5000,)),
}
"""Name -> function, shapes of its arguments."""


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name):
    function, *shapes = FAMILIES[name]
    check(function, *(weft.randn(*shape) for shape in shapes))


def test_cross_entropy_and_its_gradient():
    labels = weft.randint(0, 20, (64,))
    check(weft.grad(lambda x: functional.cross_entropy(x, labels)), weft.randn(64, 20))


def test_rows_gathered_and_scattered():
    table, rows = weft.randn(50, 64), weft.randint(0, 50, (200,))
    check(lambda table: weft.tanh(table[rows]), table)
    check(weft.grad(lambda table: (table[rows] ** 2).sum()), table)


def test_windows():
    images, weight = weft.randn(4, 8, 32, 32), weft.randn(8, 8, 3, 3)
    check(lambda x: functional.avg_pool2d(x, 2), images)
    check(lambda x: functional.max_pool2d(x, 2), images)
    check(lambda x: weft.relu(functional.conv2d(x, weight)), images)


def test_updates_of_parameters():
    check(adam_step())


def test_random_numbers():
    check(lambda: weft.rand(5000) * 2)


def test_that_a_scalar_loop_is_seen():
    with pytest.raises(AssertionError, match="a scalar loop"):
        check(lambda x: weft.cumsum(x, -1), weft.randn(64, 300))
