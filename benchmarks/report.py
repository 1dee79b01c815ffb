"""The tables, the goals, and the page that holds them."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Case
from results import Measured, Results, Timing

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
FASTEST = "the fastest peer"
"""In a goal: whichever library other than weft is fastest; programs written by hand do not count."""
NOISE = 1 << 20
"""Fewer bytes of memory are not told apart."""


@dataclass(frozen=True)
class Goal:
    """A figure of `peer` is at most `most` times that of `of` in the same run; at most `most` when there is no `of`."""

    case: str
    peer: str
    most: float
    of: str = ""
    figure: str = "best"

    def row(self, measured: Measured, case: Case) -> str:
        """A line of the table of goals, "" when one of the two was not measured."""
        name, value, text = FIGURES[self.figure]
        timings = {peer: t for peer, t in measured.good().items() if value(t)}
        others = [peer for peer in timings if not peer.startswith(("weft", "by hand"))]
        of = min(others, key=lambda peer: timings[peer].best, default="") if self.of == FASTEST else self.of
        if self.peer not in timings or (self.of and of not in timings):
            return ""
        found = value(timings[self.peer])
        what = f"{self.case}: {self.peer}{name}"
        if not of:
            return goal_row(what, text(self.most), text(found), found <= self.most)
        ratio = found / value(timings[of])
        return goal_row(what, f"{self.most:.3g} x {of}", f"{ratio:.3g} x", ratio <= self.most)


@dataclass(frozen=True)
class Share:
    """A step of `peer` reaches at least the share `least` of what the machine can do."""

    case: str
    peer: str
    least: float

    def row(self, measured: Measured, case: Case) -> str:
        """A line of the table of goals, "" when the peer was not measured."""
        if self.peer not in measured.good():
            return ""
        share = measured.limits.share(case, measured.peers[self.peer].best)
        what = f"{self.case}: {self.peer}"
        return goal_row(what, f"at least {self.least:.0%} of the limit", f"{share:.0%}", share >= self.least)


def report(results: Results, cases: Mapping[str, Case], goals: Sequence[Goal | Share]) -> str:
    """All that was measured of these cases."""
    shown = [case for name, case in cases.items() if name in results.cases]
    tables = [table(case, results.cases[case.name]) for case in shown]
    return "\n".join([results.heading + "\n", *tables, goals_of(results, cases, goals)])


def goals_of(results: Results, cases: Mapping[str, Case], goals: Sequence[Goal | Share]) -> str:
    """The table of goals, as far as they were measured."""
    known = [goal for goal in goals if goal.case in results.cases and goal.case in cases]
    rows = [row for goal in known if (row := goal.row(results.cases[goal.case], cases[goal.case]))]
    heading = ["### Goals", "", row_of("what", "at most", "measured", "reached"), row_of(*["---"] * 4)]
    return "\n".join([*heading, *rows, ""])


def table(case: Case, measured: Measured) -> str:
    """The case as a Markdown table, fastest first."""
    ranked = sorted(measured.good().items(), key=lambda item: item[1].best)
    least = ranked[0][1].best if ranked else 0.0
    columns: dict[str, Callable[[Timing], str]] = {
        "a step": lambda t: time_of(t.best),
        "times the fastest": lambda t: f"{t.best / least:.2f}",
        "of the limit": lambda t: f"{measured.limits.share(case, t.best):.0%}",
        "beside a busy process": lambda t: f"{t.slowdown:.2f} x" if t.busy else "",
        "import": lambda t: time_of(t.loading),
        "first call": lambda t: time_of(t.first_call),
        "second process": lambda t: time_of(t.second_start) if t.second_start else "",
        "arrays": lambda t: bytes_of(t.memory),
        "process": lambda t: bytes_of(t.grown),
        "the second": lambda t: bytes_of(t.grown_again) if t.second_start else "",
    }
    empty = {"of the limit"} if not case.bytes + case.flops else set()
    empty |= {name for name in columns if all(not columns[name](t) for _, t in ranked)}
    kept = [column for name, column in columns.items() if name not in empty]
    lines = [f"### {case.name}", "", case.what, "", row_of("peer", *(n for n in columns if n not in empty))]
    lines.append(row_of(*["---"] * (1 + len(kept))))
    lines += [row_of(name, *(column(t) for column in kept)) for name, t in ranked]
    lines += [row_of(name, t.problem, *[""] * (len(kept) - 1)) for name, t in measured.peers.items() if t.problem]
    return "\n".join(lines) + "\n"


def replace_section(page: Path, text: str) -> None:
    """Puts `text` between the two markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}", encoding="utf-8")


# Cells ----------------------------------------------------------------------------------------------------------------


def time_of(value: float) -> str:
    """A time with a fitting unit, three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def bytes_of(value: float) -> str:
    """Megabytes."""
    return f"{value / 2**20:.{1 if value < 10 * 2**20 else 0}f} MiB"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.3g} x"


def row_of(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def goal_row(what: str, wanted: str, found: str, reached: bool) -> str:
    """A line of the table of goals."""
    return row_of(what, wanted, found, "yes" if reached else "no")


FIGURES: Mapping[str, tuple[str, Callable[[Timing], float], Callable[[float], str]]] = {
    "best": ("", lambda t: t.best, time_of),
    "first_call": (", first call", lambda t: t.first_call, time_of),
    "start": (", import and first call", lambda t: t.start, time_of),
    "second_start": (", second process", lambda t: t.second_start, time_of),
    "slowdown": (", beside a busy process", lambda t: t.slowdown, times),
    "memory": (", arrays", lambda t: max(t.memory, NOISE), bytes_of),
}
"""Figure -> (its name in the table, the value, the text of a value)."""
