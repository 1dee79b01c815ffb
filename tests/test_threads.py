"""The thread pool: every chunk runs once, whoever claims it, from any number of callers and threads, and after a
fork."""

from __future__ import annotations

import ctypes
import os
import random
import threading

import numpy as np
import pytest

import weft
from weft.runtime import layout, seam, threads, threads_native
from weft.runtime.lowlevel import translate
from weft.runtime.memory import load, store
from weft.runtime.native import native

SIZE = 4096


def count(start, stop, buffers):
    """One more for each of its elements; a chunk that ran twice, or beside another, shows."""
    out = load(buffers, 1)
    for i in range(start, stop):
        store(out, i, load(out, i) + 1)


@pytest.fixture(scope="module")
def kernel():
    code = seam.loader().load_object(seam.codegen().emit_runtime(translate([count])))
    yield code.address("count")
    threads.set_num_threads(threads.available_threads())
    code.free()


def use_threads(n: int) -> None:
    threads.set_num_threads(n)
    threads.ensure_workers()


def run(kernel: int, out: np.ndarray, extent: int, chunk: int) -> None:
    """`run_parallel` on the current pool."""
    process = native().table
    table = np.array([0, out.ctypes.data], np.int64)
    native().run_parallel(int(process[layout.POOL]), process.ctypes.data, kernel, table.ctypes.data, extent, chunk)


def hammer(kernel: int, seed: int, jobs: int, failures: list[str]) -> None:
    """Jobs of changing sizes and chunk counts, each checked element by element."""
    choice, out, expected = random.Random(seed), np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
    for job in range(jobs):
        extent, chunk = choice.randrange(SIZE), choice.choice([1, 3, 16, 100, 1000, SIZE])
        run(kernel, out, extent, chunk)
        expected[:extent] += 1
        if not np.array_equal(out, expected):
            failures.append(f"job {job}: extent {extent}, chunk {chunk}")
            return


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_chunk_runs_once(kernel, workers):
    """One caller, and then three at once, of which two find the pool taken."""
    use_threads(workers)
    failures: list[str] = []
    hammer(kernel, 0, 2000, failures)
    callers = [threading.Thread(target=hammer, args=(kernel, seed, 1000, failures)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_the_number_of_threads_changes_under_running_calls(kernel):
    use_threads(2)
    failures: list[str] = []
    caller = threading.Thread(target=hammer, args=(kernel, 1, 3000, failures))
    caller.start()
    while caller.is_alive():
        for n in (3, 1, 2):
            use_threads(n)
    caller.join()
    assert not failures and threads.get_num_threads() == 2


def test_sleeping_workers_are_woken(kernel):
    """After a pause all workers sleep; the next job still has its chunks run, by whom it may be."""
    use_threads(4)
    pool = threads.State.pool
    out = np.zeros(SIZE, np.int64)
    for _ in range(3):
        threading.Event().wait(0.02)
        run(kernel, out, SIZE, 64)
    assert pool.words[layout.WORKERS] == 3 and (out == 3).all()


def test_workers_without_futex_take_naps(kernel):
    """Where there is no futex a sleeping worker looks again every millisecond."""
    table = native().table
    before = table[layout.WAIT], table[layout.FUTEX]
    nap = ctypes.CDLL(None).usleep
    table[layout.WAIT], table[layout.FUTEX] = ctypes.cast(nap, ctypes.c_void_p).value, 0
    try:
        use_threads(1)
        use_threads(3)
        failures: list[str] = []
        hammer(kernel, 5, 300, failures)
        threading.Event().wait(0.02)
        hammer(kernel, 6, 300, failures)
        assert not failures
        use_threads(1)
    finally:
        table[layout.WAIT], table[layout.FUTEX] = before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_starts_its_own_workers(kernel):
    """Also when the parent forks while another of its threads uses the pool."""
    use_threads(3)
    failures: list[str] = []
    caller = threading.Thread(target=hammer, args=(kernel, 2, 2000, failures))
    caller.start()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            hammer(kernel, 3, 20, failures)  # on the parent's pool, which has nobody in it here
            old = threads.State.pool
            threads.ensure_workers()
            hammer(kernel, 4, 200, failures)
            os._exit(1 if failures or old is not None or len(threads.State.pool.workers) != 2 else 0)
        assert os.waitpid(child, 0)[1] == 0
    caller.join()
    assert not failures


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_wrong_numbers_of_threads(wrong):
    with pytest.raises(RuntimeError, match="set_num_threads takes a whole number of at least 1"):
        threads.set_num_threads(wrong)


def test_pool_runs_as_plain_python(monkeypatch):
    """The native source is also Python: chunks, boundaries and generations without a compiler or a second thread."""
    ran = []
    monkeypatch.setattr(threads_native, "call", lambda address, *arguments: ran.append((address, *arguments)))
    times = iter([0, 10, 30, 100])
    monkeypatch.setattr(threads_native, "clock", lambda process: next(times))
    words = (ctypes.c_int64 * layout.POOL_WORDS)()
    words[layout.WORKERS] = 1
    pool = ctypes.addressof(words)
    for generation in (1, 2):
        ran.clear()
        threads_native.run_parallel(pool, 0, 7, 9, 10, 4)
        assert ran == [(7, 0, 4, 9), (7, 4, 8, 9), (7, 8, 10, 9)]
        assert words[layout.JOB] >> layout.CHUNK_BITS == generation and words[layout.OWNER] == 0
    assert not threads_native.has_chunks(pool)
    assert threads_native.claim_and_run(pool) == 0


def test_workers_that_are_no_help_are_spared():
    """A job that took longer than alone keeps the next one to itself, more after each failure, none after successes."""
    words = (ctypes.c_int64 * layout.POOL_WORDS)()
    pool = ctypes.addressof(words)

    def spared() -> int:
        count = 0
        while threads_native.spares(pool):
            count += 1
        return count

    counts = []
    for elapsed in (100_000, 200_000, 200_000, 100_000, 200_000, 100_000, 100_000, 100_000, 100_000):
        threads_native.judge(pool, elapsed, 100_000)
        counts.append(spared())
    assert counts == [0, 1, 3, 0, 3, 0, 0, 0, 0]
    for _ in range(20):
        threads_native.judge(pool, 200_000, 100_000)
    assert spared() == layout.REST_MOST


def test_the_number_of_threads_changes_no_bit():
    f = weft.compile(lambda x: (x.sigmoid() * x).sum(dim=1).exp().sum())
    x, before, results = weft.randn(3000, 400), weft.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            weft.set_num_threads(count)
            assert weft.get_num_threads() == count
            results.append(f(x).item())
    finally:
        weft.set_num_threads(before)
    assert results[0] == results[1] == results[2]
    with pytest.raises(weft.WeftError, match="at least 1"):
        weft.set_num_threads(0)
