"""What `import weft` costs: nothing heavy is loaded until it is needed."""
from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, sys, time
import numpy
start = time.perf_counter()
import weft
seconds = time.perf_counter() - start
names = ("llvmlite", "scipy", "pandas", "networkx", "sklearn", "torch", "filelock")
heavy = [name for name in names if name in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy}))
"""


def test_import_loads_nothing_heavy(record_property):
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    report = json.loads(result.stdout)
    record_property("import_seconds", report["seconds"])
    assert report["heavy"] == []
