"""Loads networkx when a pass first needs it: most programs never do."""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def networkx() -> Any:
    """The module `networkx`."""
    return importlib.import_module("networkx")
