"""What the first `weft.compile` makes ready: a process may end, fork or call at any time after it."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

DECORATED = """
import os, sys
import weft

@weft.compile
def double(x):
    return x + x
"""


def run(program: str, folder) -> str:
    """What a new process with a cache of its own prints."""
    environment = dict(os.environ, WEFT_CACHE_DIR=str(folder))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_a_process_may_end_at_once(tmp_path):
    assert run(DECORATED, tmp_path) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_may_fork_at_once(tmp_path):
    program = DECORATED + """
child = os.fork()
assert double(weft.ones(2)).tolist() == [2, 2]
if child:
    print(os.waitpid(child, 0)[1])
else:
    os._exit(0)
"""
    assert run(program, tmp_path).split() == ["0"]


def test_what_the_cache_has_needs_no_compiler(tmp_path):
    program = DECORATED + "double(weft.ones(2)); print('llvmlite' in sys.modules)"
    first, second = run(program, tmp_path).strip(), run(program, tmp_path).strip()
    assert first == "True" and second == str(not sys.platform.startswith("linux"))


def test_what_fails_is_told_by_the_first_call(tmp_path):
    failing = """
from weft.runtime import native

def fail():
    raise OSError("no table")

native.process_table = fail
"""
    call = """
try:
    double(weft.ones(2))
except OSError as error:
    print(error)
"""
    assert run(failing + DECORATED + call, tmp_path).strip() == "no table"
