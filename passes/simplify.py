"""Simplification: all rewrite rules of `passes/rules_*.py`, applied to a fixpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.graph import Graph
from . import rules_arithmetic, rules_control, rules_one_hot, rules_reductions, rules_updates, rules_views
from .options import Options
from .rewrite import Rule, RuleTable, rewrite

RULES: tuple[Rule, ...] = (
    *rules_arithmetic.RULES,
    *rules_views.RULES,
    *rules_updates.RULES,
    *rules_reductions.RULES,
    *rules_one_hot.RULES,
    *rules_control.RULES,
)


@dataclass(frozen=True)
class Simplify:
    """Applies the rewrite rules, in regions too. Unchanged to the bit, but for rules that state a number of ulp."""

    name: str = field(default="simplify", init=False)
    rules: tuple[Rule, ...] = RULES

    def __call__(self, graph: Graph, options: Options) -> Graph:
        """The simplified graph; the same object when no rule fits."""
        return rewrite(graph, RuleTable(self.rules, options.disabled))
