"""The code cache: found by content, never stale, safe against broken files, threads, forks and other processes."""
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from weft.backends.llvm_source import llvm_source
from weft.backends.lower_builder import KernelBuilder, apply
from weft.ir.errors import CacheWarning, CompileError
from weft.ir.loops import START, STOP, Literal, Load, Role, named
from weft.ir.types import float32
from weft.runtime import cache, seam


def source(factor, name="x", word="mul"):
    """A kernel that multiplies by `factor`; `name` is that of its buffer."""
    b = KernelBuilder()
    x, o = b.buffer(name, float32, 5, Role.INPUT), b.buffer("o", float32, 5, Role.OUTPUT)
    i = b.variable("i", 5)
    b.open(i, START, STOP)
    b.store(o, i, apply(word, (Load(x, i), Literal(float(factor), float32)), float32))
    b.close()
    return llvm_source(named("scaled", b.buffers, b.levels[0].statements))


def works(code, factor):
    """Whether the code multiplies by `factor`."""
    x, o = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    seam.loader().call_kernel(code.address, 0, 5, [x, o])
    return np.array_equal(o, x * np.float32(factor))


def fetch(folder, factor, name="x"):
    """One kernel through a cache that knows nothing yet, as in a new process."""
    code, = cache.CodeCache(folder).kernels([source(factor, name)])
    assert works(code, factor)
    return code


def entries(folder):
    return sorted(folder.rglob("*.o"))


def test_memory_then_disk_then_compiler(tmp_path):
    codes = cache.CodeCache(tmp_path)
    first = codes.kernels([source(2), source(3), source(2)])
    assert [c.origin for c in first] == ["compiled", "compiled", "memory"]
    assert first[0].address == first[2].address and works(first[0], 2) and works(first[1], 3)
    assert codes.kernels([source(3)])[0].origin == "memory"
    assert fetch(tmp_path, 2).origin == "disk"
    assert fetch(tmp_path, 4).reason == "not compiled before"
    assert codes.statistics == cache.Statistics(memory=2, compiled=2, reasons={"not compiled before": 2})


def test_names_of_kernels_do_not_matter(tmp_path):
    fetch(tmp_path, 2, "one_name")
    assert fetch(tmp_path, 2, "another_name").origin == "disk"
    assert len(entries(tmp_path)) == 1


def test_file_times_do_not_matter(tmp_path):
    fetch(tmp_path, 2)
    for entry in entries(tmp_path):
        os.utime(entry, (0, 0))
    assert fetch(tmp_path, 2).origin == "disk"


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1], lambda content: content[:200] + b"?" + content[201:],
    lambda content: b"something else", lambda content: content + b"more",
])
def test_corrupt_entries_are_replaced(tmp_path, damage):
    fetch(tmp_path, 2)
    entry, = entries(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    with pytest.warns(CacheWarning, match="corrupt"):
        assert fetch(tmp_path, 2).reason == "the cache entry was corrupt"
    assert fetch(tmp_path, 2).origin == "disk"


def test_a_folder_that_cannot_be_used_costs_one_warning(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    codes = cache.CodeCache(tmp_path / "file")
    with pytest.warns(CacheWarning, match="goes on without") as caught:
        results = codes.kernels([source(2), source(3)]) + codes.kernels([source(4)])
    assert len(caught) == 1
    assert all(works(code, factor) for code, factor in zip(results, (2, 3, 4), strict=True))


def test_memory_only(monkeypatch):
    monkeypatch.setenv("WEFT_CACHE_DIR", "")
    assert cache.default_folder() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch(None, 2).reason == "the disk cache is off"


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path))
    assert cache.default_folder() == tmp_path / "code"
    monkeypatch.delenv("WEFT_CACHE_DIR")
    assert "weft" in str(cache.default_folder())


def test_another_toolchain_misses_and_says_so(monkeypatch, tmp_path):
    fetch(tmp_path, 2)
    other = dict(cache.environment(), llvmlite="0.0.1")
    monkeypatch.setattr(cache, "environment", lambda: other)
    cache._environment_digest.cache_clear()
    try:
        assert "llvmlite" in fetch(tmp_path, 2).reason and len(entries(tmp_path)) == 2
    finally:
        cache._environment_digest.cache_clear()


def test_a_failed_compilation_leaves_no_entry(tmp_path):
    codes = cache.CodeCache(tmp_path)
    with pytest.raises(CompileError, match="no_such_word"):
        codes.kernels([source(2, word="no_such_word")])
    assert not entries(tmp_path)
    assert works(codes.kernels([source(2)])[0], 2)


def test_threads_share_one_compilation(tmp_path):
    codes, results = cache.CodeCache(tmp_path), []
    threads = [threading.Thread(target=lambda: results.extend(codes.kernels([source(2), source(3)]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len({code.address for code in results}) == 2
    assert codes.statistics.compiled == 2 and codes.statistics.memory == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_and_extends_the_cache(tmp_path):
    codes = cache.CodeCache(tmp_path)
    codes.kernels([source(2)])
    held = threading.Event()
    release = threading.Event()

    def hold():
        with codes._lock:
            held.set()
            release.wait()

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)         # forking with threads is the point
        child = os.fork()
    if not child:
        known, new = codes.kernels([source(2), source(5)])
        os._exit(0 if works(known, 2) and works(new, 5) and known.origin == "memory" else 1)
    release.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fetch(tmp_path, 5).origin == "disk"


CHILD = """
import pathlib, sys
from weft.backends.llvm_source import LlvmSource
from weft.runtime.cache import CodeCache
texts = sys.stdin.read().split("=====")
codes = CodeCache(pathlib.Path(sys.argv[1])).kernels([LlvmSource(text, ()) for text in texts])
print(*(code.origin for code in codes), *("llvmlite" in sys.modules, "scipy" in sys.modules))
"""


PROGRAM = """
import weft
from weft import nn
from weft.runtime.cache import code_cache

weft.manual_seed(0)
model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 1))

@weft.compile
def step(x):
    loss = model(x).square().mean()
    loss.backward()
    with weft.no_grad():
        for p in model.parameters():
            p.sub_(0.1 * p.grad)
            p.grad.zero_()
    return loss

for rows in (4, 4, 6, 8):
    step(weft.ones(rows, 7))
print(code_cache().statistics.compiled > 0)
"""


def start_process(folder, program=CHILD):
    package = seam.__spec__.parent.split(".")[0]
    where = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules[package].__file__)))
    path = os.pathsep.join([where, os.environ.get("PYTHONPATH", "")])
    environment = dict(os.environ, PYTHONPATH=path, WEFT_CACHE_DIR=str(folder))
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env=environment)


def test_a_warm_process_loads_no_compiler(tmp_path):
    fetch(tmp_path, 2)
    fetch(tmp_path, 3)
    output, _ = start_process(tmp_path).communicate(source(2).text + "=====" + source(3).text)
    assert output.split() == ["disk", "disk", str(not seam.cpu().MAPS_OBJECTS), "False"]


def test_a_program_is_the_same_in_every_process(tmp_path):
    outputs = [start_process(tmp_path, PROGRAM).communicate()[0].split() for _ in range(3)]
    assert outputs == [["True"], ["False"], ["False"]]


def test_processes_compile_once_between_them(tmp_path):
    processes = [start_process(tmp_path) for _ in range(2)]
    for process in processes:
        process.stdin.write(source(2).text)
        process.stdin.close()
    origins = [process.stdout.read().split()[0] for process in processes]
    for process in processes:
        process.wait()
    assert sorted(origins) == ["compiled", "disk"] and len(entries(tmp_path)) == 1
