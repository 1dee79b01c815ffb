"""What was measured, and the file that keeps it, so that a long run can be made piece by piece."""
from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import machine
from machine import Limits


@dataclass
class Timing:
    """What one peer did in one case."""

    loading: float = 0.0
    """Seconds that importing the library took."""
    first_call: float = 0.0
    """Seconds of the first call, with empty caches: making the library ready, tracing and compiling."""
    second_start: float = 0.0
    """The same in a second process, with the caches that the first one filled."""
    grown: int = 0
    """How far the process grew beyond what it was with the library imported, in bytes: code, compilers, arrays."""
    grown_again: int = 0
    """The same in a second process, which need not load compilers."""
    memory: int = 0
    """The most bytes in memory during later steps beyond what is left when all arrays are dropped."""
    medians: list[float] = field(default_factory=list)
    """Seconds a step, a median for each round."""
    busy: list[float] = field(default_factory=list)
    """Seconds a step beside a process that keeps a core busy, a mean for each round: lost slices of time count."""
    problem: str = ""

    @property
    def start(self) -> float:
        """Seconds from the import to the first answer: what one library loads when imported, another loads later."""
        return self.loading + self.first_call

    @property
    def best(self) -> float:
        """Seconds a step: the least median."""
        return min(self.medians, default=0.0)

    @property
    def beside_busy(self) -> float:
        """Seconds a step beside a busy process; 0 when that was not measured."""
        return min(self.busy, default=0.0)

    @property
    def slowdown(self) -> float:
        """How many times longer steps take beside a busy process."""
        return self.beside_busy / self.best if self.medians else 0.0


@dataclass
class Measured:
    """One case: its peers, and the machine's limits in the same run."""

    limits: Limits
    peers: dict[str, Timing] = field(default_factory=dict)

    def good(self) -> dict[str, Timing]:
        """The peers that were timed and had no problem."""
        return {name: t for name, t in self.peers.items() if t.medians and not t.problem}


@dataclass
class Results:
    """Cases by name. With a path, what is there already is kept, and whatever is new written at once."""

    path: Path | None = None
    cases: dict[str, Measured] = field(default_factory=dict)
    heading: str = ""

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            kept = json.loads(self.path.read_text())
            self.heading = kept["heading"]
            for name, each in kept["cases"].items():
                peers = {peer: Timing(**t) for peer, t in each["peers"].items()}
                self.cases[name] = Measured(Limits(**each["limits"]), peers)

    def add(self, case: str, limits: Limits, timings: Mapping[str, Timing], rounds: int) -> None:
        """Replaces what was known of these peers."""
        known = self.cases.get(case)
        self.cases[case] = Measured(limits, {**(known.peers if known else {}), **timings})
        self.heading = (
            f"{time.strftime('%Y-%m-%d')}, {machine.description()}. {rounds} round{'s' * (rounds != 1)}, the least of "
            f"their medians. The machine's limits, in the same run: {limits.bandwidth / 1e9:.0f} GB/s, "
            f"{limits.gemm / 1e9:.0f} GFLOP/s."
        )
        if self.path is not None:
            plain = {"heading": self.heading, "cases": {name: asdict(each) for name, each in self.cases.items()}}
            self.path.write_text(json.dumps(plain, indent=1))
