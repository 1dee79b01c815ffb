"""Runs cases side by side: every (case, peer) in a process of its own, rounds interleaved, the least of the rounds'
medians.

A case is a table of peers. A peer is the name of a library and a function that gets the imported library and returns a
`Work`. A peer whose library is not installed is left out; one whose answer differs from the case's expectation is an
error, not a figure.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES, SAMPLE_SECONDS = 7, 0.02
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
LONG, SIDE = 1 << 24, 1024
"""Elements of the vectors, rows of the matrices by which the machine's limits are measured."""
CACHES = ("WEFT_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
PAUSE = 0.3
"""Between two processes' turns, so that threads of the last one have gone to sleep."""


@dataclass(frozen=True)
class Work:
    """What is timed: `run` does `steps` steps. `answer` computes, from a fresh start, numbers that every peer must
    agree on."""

    run: Callable[[], Any]
    steps: int
    answer: Callable[[], Any]
    reports: bool = False
    """`run` returns the seconds that count (it starts a process, say)."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    what: str
    peers: Mapping[str, tuple[str, Callable[[Any], Work]]]
    """Peer's name -> (library, function from the library to the work)."""
    expected: Callable[[], Any]
    """The answer, by NumPy."""
    tolerance: float = 1e-4
    """Relative, of the answers."""
    scale: float = 0.0
    """What the tolerance is relative to for answers near zero."""
    busy: bool = False
    """Timed a second time beside a foreign process that keeps a core busy."""
    bytes: float = 0.0
    """The least traffic to memory of a step, for the share of the machine's limit that is reached."""
    flops: float = 0.0
    """The least number of multiplications and additions of a step's matrix products."""


@dataclass(frozen=True)
class Limits:
    """What the machine can do: bytes a second of a sum of two long vectors, flops of a product of large matrices."""

    bandwidth: float
    gemm: float

    def least(self, case: Case) -> float:
        """The seconds that a step takes at least, as far as the case says what it needs."""
        return max(case.bytes / self.bandwidth, case.flops / self.gemm)

    def share(self, case: Case, seconds: float) -> str:
        """The part of the limit that such a step reaches, "" where the case does not say what it needs."""
        return f"{self.least(case) / seconds:.0%}" if self.least(case) else ""


@dataclass
class Timing:
    """What one peer did in one case."""

    first_call: float = 0.0
    """Seconds from the imported library to the first answer, with empty caches: tracing and compiling."""
    second_start: float = 0.0
    """The same in a second process, with the caches that the first one filled."""
    memory: float = 0.0
    """How far the process grew beyond what it was with the library imported, in bytes."""
    medians: list[float] = field(default_factory=list)
    """Seconds a step, a median for each round."""
    busy: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def best(self) -> float:
        """Seconds a step: the least median."""
        return min(self.medians)


FASTEST = "the fastest peer"
"""In a goal: whichever library other than weft is fastest; programs written by hand do not count."""


@dataclass(frozen=True)
class Goal:
    """A figure of `peer` is at most `most` times that of `of` in the same run; at most `most` seconds when there is no
    `of`. The figure is the time of a step, of the first call, or of the start of a second process."""

    case: str
    peer: str
    most: float
    of: str = ""
    figure: str = "best"

    def row(self, results: Mapping[str, Mapping[str, Timing]], limits: Limits, cases: Mapping[str, Case]) -> str:
        """A line of the table of goals, "" when one of the two was not measured."""
        timings = {name: t for name, t in results.get(self.case, {}).items() if t.medians and getattr(t, self.figure)}
        others = [name for name in timings if not name.startswith(("weft", "by hand"))]
        of = min(others, key=lambda name: timings[name].best, default="") if self.of == FASTEST else self.of
        if self.peer not in timings or (self.of and of not in timings):
            return ""
        figure = getattr(timings[self.peer], self.figure)
        if not of:
            return self._text(text_of(self.most), text_of(figure), figure <= self.most)
        ratio = figure / getattr(timings[of], self.figure)
        return self._text(f"{self.most:.3g} x {of}", f"{ratio:.3g} x", ratio <= self.most)

    def _text(self, wanted: str, found: str, reached: bool) -> str:
        what = {"best": "", "first_call": ", first call", "second_start": ", second process"}[self.figure]
        return row_of(f"{self.case}: {self.peer}{what}", wanted, found, "yes" if reached else "no")


@dataclass(frozen=True)
class Share:
    """A step of `peer` reaches at least the share `least` of what the machine can do."""

    case: str
    peer: str
    least: float

    def row(self, results: Mapping[str, Mapping[str, Timing]], limits: Limits, cases: Mapping[str, Case]) -> str:
        """A line of the table of goals, "" when the peer was not measured."""
        timing = results.get(self.case, {}).get(self.peer)
        if timing is None or not timing.medians:
            return ""
        share = limits.least(cases[self.case]) / timing.best
        wanted, found = f"at least {self.least:.0%} of the limit", f"{share:.0%}"
        return row_of(f"{self.case}: {self.peer}", wanted, found, "yes" if share >= self.least else "no")


# The measuring process ------------------------------------------------------------------------------------------------


def worker(module: str, case_name: str, peer: str) -> None:
    """Prepares one peer, prints its answer, then one median a line for every line that it reads."""
    case = next(c for c in importlib.import_module(module).CASES if c.name == case_name)
    library, prepare = case.peers[peer]
    imported = importlib.import_module(library)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    work = prepare(imported)
    answer = np.asarray(work.answer(), np.float64)
    first_call = time.perf_counter() - start
    work.run()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    np.testing.assert_allclose(answer, case.expected(), rtol=case.tolerance, atol=case.tolerance * case.scale)
    once = max(seconds(work, 1), 1e-9)
    repeats, count = max(1, round(SAMPLE_SECONDS / once)), SAMPLES if once < 0.2 else 1
    print(json.dumps({"first_call": first_call, "memory": grown}), flush=True)
    for _ in sys.stdin:
        samples = [seconds(work, repeats) / repeats / work.steps for _ in range(count)]
        print(json.dumps({"median": statistics.median(samples)}), flush=True)


def seconds(work: Work, repeats: int) -> float:
    """The time of `repeats` runs."""
    if work.reports:
        return sum(work.run() for _ in range(repeats))
    start = time.perf_counter()
    for _ in range(repeats):
        work.run()
    return time.perf_counter() - start


class Worker:
    """The other end: a process that measures one peer when told to."""

    def __init__(self, module: str, case: Case, peer: str, second: bool = False) -> None:
        self.timing = Timing()
        self.caches = tempfile.TemporaryDirectory(prefix="weft-bench-")
        self.command = [sys.executable, __file__, "--worker", module, case.name, peer]
        self._open()
        answer = self._read()
        self.timing.first_call, self.timing.memory = answer.get("first_call", 0.0), answer.get("memory", 0.0)
        if second and answer:
            self.close()
            self._open()
            self.timing.second_start = self._read().get("first_call", 0.0)

    def _open(self) -> None:
        """A process whose compilers keep what they made in this worker's folder."""
        variables = {
            **untuned(),
            **dict.fromkeys(CACHES, self.caches.name),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
        )

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        for line in self.process.stdout:
            if line.startswith("{"):                                        # libraries may print, too
                return json.loads(line)
        self.timing.problem = self.process.stderr.read().strip().rsplit("\n", 1)[-1][:300] or "no answer"
        return {}

    def round(self, medians: list[float]) -> None:
        """One more round, into `medians`."""
        if self.timing.problem:
            return
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._read()
        if answer:
            medians.append(answer["median"])
        time.sleep(PAUSE)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.stderr.close()  # type: ignore[union-attr]


def measure(module: str, case: Case, wanted: Sequence[str], rounds: int, second: bool = False) -> dict[str, Timing]:
    """All installed peers of a case."""
    names = [
        n for n, (library, _) in case.peers.items() if importlib.util.find_spec(library) and (not wanted or n in wanted)
    ]
    workers = {}
    for name in names:
        print(f"{case.name}: {name}", file=sys.stderr, flush=True)
        workers[name] = Worker(module, case, name, second)
    for _ in range(rounds):
        for each in workers.values():
            each.round(each.timing.medians)
    if case.busy:
        with busy_neighbour():
            for _ in range(rounds):
                for each in workers.values():
                    each.round(each.timing.busy)
    for each in workers.values():
        each.close()
    return {name: each.timing for name, each in workers.items()}


def untuned() -> dict[str, str]:
    """The environment without variables that tune BLAS and thread libraries: every peer is measured as installed."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS_", "MKL_", "OMP_", "BLIS_"))}


def limits_of_machine() -> Limits:
    """The limits, measured in a process of their own."""
    command = [sys.executable, __file__, "--limits"]
    result = subprocess.run(command, env=untuned(), capture_output=True, text=True, check=True)
    return Limits(**json.loads(result.stdout))


def print_limits() -> None:
    """What NumPy reaches, in this process: one thread a core adds long vectors, and BLAS multiplies large matrices."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    a, b, c = (np.ones((threads, LONG // threads), np.float32) for _ in range(3))
    with ThreadPoolExecutor(threads) as pool:
        adding = best_of(lambda: [*pool.map(lambda k: np.add(a[k], b[k], out=c[k]), range(threads))])
    x, y = (np.ones((SIDE, SIDE), np.float32) for _ in range(2))
    multiplying = best_of(lambda: x @ y)
    print(json.dumps({"bandwidth": 12 * a.size / adding, "gemm": 2 * SIDE**3 / multiplying}))


def best_of(run: Callable[[], Any]) -> float:
    """The shortest of a few runs, in seconds."""
    times = []
    for _ in range(40):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """A foreign process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# The report -----------------------------------------------------------------------------------------------------------


def text_of(value: float) -> str:
    """A time with a fitting unit, three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def table(case: Case, timings: Mapping[str, Timing], limits: Limits) -> str:
    """The case as a Markdown table, fastest first."""
    good = {name: t for name, t in timings.items() if not t.problem and t.medians}
    ranked = sorted(good.items(), key=lambda item: item[1].best)
    least = ranked[0][1].best if ranked else 0.0
    columns: dict[str, Callable[[Timing], str]] = {
        "a step": lambda t: text_of(t.best),
        "times the fastest": lambda t: f"{t.best / least:.2f}",
        "first call": lambda t: text_of(t.first_call),
    }
    if any(t.second_start for t in good.values()):
        columns["second process"] = lambda t: text_of(t.second_start)
    if any(t.memory for t in good.values()):
        columns["memory"] = lambda t: f"{t.memory / 2**20:.0f} MiB"
    if case.bytes or case.flops:
        columns["of the limit"] = lambda t: limits.share(case, t.best)
    if case.busy:
        columns["beside a busy process"] = lambda t: text_of(min(t.busy))
    lines = [f"### {case.name}", "", case.what, "", row_of("peer", *columns), row_of(*["---"] * (1 + len(columns)))]
    lines += [row_of(name, *(column(t) for column in columns.values())) for name, t in ranked]
    lines += [f"| {name} | {t.problem} |" for name, t in timings.items() if t.problem]
    return "\n".join(lines) + "\n"


def row_of(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """The machine and the versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = []
    for name in ("numpy", "scipy", "numba", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}; Python {platform.python_version()}, {', '.join(versions)}"


def replace_section(page: Path, text: str) -> None:
    """Puts `text` between the two markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}", encoding="utf-8")


def main(modules: Sequence[str], goals: Sequence[Goal | Share], arguments: Sequence[str] | None = None) -> None:
    """The command line: measures the cases of `modules` and prints their tables and the goals."""
    parser = argparse.ArgumentParser(description="weft beside its peers")
    parser.add_argument("--case", action="append", default=[], help="only this case (may be repeated)")
    parser.add_argument("--peer", action="append", default=[], help="only this peer (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--second", action="store_true", help="also time the start of a second process of each peer")
    parser.add_argument("--json", type=Path, help="also write all medians there")
    parser.add_argument("--page", type=Path, help="also put the tables between the markers of this page")
    options = parser.parse_args(arguments)
    limits = limits_of_machine()
    sections = [
        f"{time.strftime('%Y-%m-%d')}, {machine()}. {options.rounds} rounds, the least of their medians. The machine's "
        f"limits, in the same run: {limits.bandwidth / 1e9:.0f} GB/s, {limits.gemm / 1e9:.0f} GFLOP/s.\n"
    ]
    print(sections[0], flush=True)
    results: dict[str, dict[str, Timing]] = {}
    cases: dict[str, Case] = {}
    for module in modules:
        for case in importlib.import_module(module).CASES:
            if options.case and case.name not in options.case:
                continue
            cases[case.name] = case
            results[case.name] = measure(module, case, options.peer, options.rounds, options.second)
            sections.append(table(case, results[case.name], limits))
            print(sections[-1], flush=True)
    rows = [row for goal in goals if (row := goal.row(results, limits, cases))]
    sections.append(
        "\n".join(["### Goals", "", "| what | at most | measured | reached |", "| --- | --- | --- | --- |", *rows])
        + "\n"
    )
    print(sections[-1])
    if options.json:
        plain = {name: {peer: vars(t) for peer, t in timings.items()} for name, timings in results.items()}
        options.json.write_text(json.dumps({"machine": machine(), "results": plain}, indent=1))
    if options.page:
        replace_section(options.page, "\n".join(sections))


if __name__ == "__main__" and sys.argv[1:2] == ["--limits"]:
    print_limits()
if __name__ == "__main__" and sys.argv[1:2] == ["--worker"]:
    try:
        worker(*sys.argv[2:5])
    except Exception:
        traceback.print_exc()
        sys.exit(1)
