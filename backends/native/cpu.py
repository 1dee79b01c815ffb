"""What machine this is, for the choice of the loader and for the key of the code cache; imports nothing heavy."""
from __future__ import annotations

import functools
import platform
import sys
from pathlib import Path

MAPS_OBJECTS = sys.platform == "linux" and platform.machine() == "x86_64"
"""Whether `loader.py` can load this machine's object code."""

_FACTS = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features")


@functools.cache
def identity() -> str:
    """Machines with the same identity can exchange machine code; "" where the system does not tell."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return ""
    facts = dict(line.split(":", 1) for line in first.replace("\t", "").splitlines() if ":" in line)
    return " ".join([platform.system(), platform.machine(), *(facts[name].strip() for name in _FACTS if name in facts)])
