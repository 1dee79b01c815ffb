"""Runs cases side by side: every (case, peer) in a process of its own, rounds interleaved, the least of the rounds'
medians.
"""
from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

from harness import Case
from machine import limits_of_machine, untuned
from report import Goal, Share, goals_of, replace_section, report, table
from results import Results, Timing

CACHES = ("WEFT_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
PAUSE = 0.3
"""Between two processes' turns, so that threads of the last one have gone to sleep."""


class Worker:
    """The other end: a process that measures one peer when told to. It is ended when an answer takes too long."""

    def __init__(self, module: str, case: Case, peer: str, patience: float, second: bool) -> None:
        self.timing, self.patience = Timing(), patience
        self.caches = tempfile.TemporaryDirectory(prefix="weft-bench-", ignore_cleanup_errors=True)
        self.command = [sys.executable, str(Path(__file__).with_name("worker.py")), module, case.name, peer]
        self._open()
        answer = self._read()
        self.timing.loading = answer.get("loading", 0.0)
        self.timing.first_call, self.timing.grown = answer.get("first_call", 0.0), answer.get("grown", 0)
        if second and answer:
            self.close()
            self._open()
            answer = self._read()
            self.timing.second_start, self.timing.grown_again = answer.get("first_call", 0.0), answer.get("grown", 0)

    def _open(self) -> None:
        """A process whose compilers keep what they made in this worker's folder."""
        variables = {
            **untuned(),
            **dict.fromkeys(CACHES, self.caches.name),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=variables)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        timer = Timer(self.patience, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            if line.startswith("{"):                                        # libraries may print, too
                timer.cancel()
                return json.loads(line)
        if not timer.is_alive():
            self.timing.problem = f"no answer after {self.patience:.0f} s"
        else:
            timer.cancel()
            self.timing.problem = self.process.stderr.read().strip().rsplit("\n", 1)[-1][:300] or "no answer"
        return {}

    def ask(self, word: str) -> dict[str, Any]:
        """The answer to a word, {} once there was a problem."""
        if self.timing.problem:
            return {}
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._read()

    def round(self, times: list[float], figure: str) -> None:
        """One more round, a figure of which goes into `times`."""
        answer = self.ask("round")
        if answer:
            times.append(answer[figure])
        time.sleep(PAUSE)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.stderr.close()  # type: ignore[union-attr]


def measure(module: str, case: Case, peers: Sequence[str], options: argparse.Namespace) -> dict[str, Timing]:
    """These peers of a case."""
    workers = {}
    for name in peers:
        print(f"{case.name}: {name}", file=sys.stderr, flush=True)
        workers[name] = Worker(module, case, name, options.patience, options.second)
    for _ in range(options.rounds):
        for each in workers.values():
            each.round(each.timing.medians, "median")
    if case.busy or options.busy:
        with busy_neighbour():
            for _ in range(options.rounds):
                for each in workers.values():
                    each.round(each.timing.busy, "mean")
    for each in workers.values():
        each.timing.memory = each.ask("memory").get("memory", 0)
        each.close()
    return {name: each.timing for name, each in workers.items()}


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """A foreign process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def wanted_peers(case: Case, results: Results, options: argparse.Namespace) -> list[str]:
    """The installed peers that the command line asks for."""
    known = results.cases[case.name].peers if options.resume and case.name in results.cases else {}
    return [
        name
        for name, (library, _) in case.peers.items()
        if importlib.util.find_spec(library) and name not in known and (not options.peer or name in options.peer)
    ]


def main(modules: Sequence[str], goals: Sequence[Goal | Share], arguments: Sequence[str] | None = None) -> None:
    """The command line: measures the cases of `modules` and prints their tables and the goals."""
    options = arguments_of(arguments)
    write_bytecode()
    results = Results(options.json)
    cases: dict[str, Case] = {}
    for module in modules:
        for case in importlib.import_module(module).CASES:
            cases[case.name] = case
            peers = wanted_peers(case, results, options)
            if options.report or not peers or (options.case and case.name not in options.case):
                continue
            results.add(case.name, limits_of_machine(), measure(module, case, peers, options), options.rounds)
            print(table(case, results.cases[case.name]), flush=True)
    print(goals_of(results, cases, goals))
    if options.page:
        replace_section(options.page, report(results, cases, goals))


def write_bytecode() -> None:
    """Byte-compiles weft, as installing it does: its peers are installed, weft may be a checkout."""
    root = Path(importlib.import_module("weft").__path__[0])
    compileall.compile_dir(root, maxlevels=0, quiet=1)
    for package in root.glob("*/__init__.py"):
        compileall.compile_dir(package.parent, quiet=1)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="weft beside its peers")
    parser.add_argument("--case", action="append", default=[], help="only this case (may be repeated)")
    parser.add_argument("--peer", action="append", default=[], help="only this peer (may be repeated)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--second", action="store_true", help="also time the start of a second process of each peer")
    parser.add_argument("--busy", action="store_true", help="also time all steps beside a process that never rests")
    parser.add_argument("--patience", type=float, default=120, help="seconds for one answer of a peer")
    parser.add_argument("--json", type=Path, help="keep the figures in this file, beside those that it has")
    parser.add_argument("--resume", action="store_true", help="measure only what the file does not have")
    parser.add_argument("--report", action="store_true", help="measure nothing: report what the file has")
    parser.add_argument("--page", type=Path, help="put all tables between the markers of this page")
    return parser.parse_args(arguments)
