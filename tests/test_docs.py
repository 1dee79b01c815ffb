"""The pages are true: their Python runs, prints what they say it prints, and the files that they name exist.

Blocks marked `python` run in order, one namespace a page, one process a page. A block marked `text` right after one is
what it prints. Set WEFT_UPDATE_GOLDEN=1 to write the printed text into the pages anew.
"""
from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w.]+(?:/[\w.]+)*\.(?:py|md|toml|csv)|(?:\w+/)+)`")


def run_blocks(path: Path) -> Iterator[tuple[int, int, str]]:
    """(start, end, printed) for every text block; (start, end) is where its content stands in the page.

    The blocks are lines of one file, named after the page, so that locations in what they print do not move with the
    prose.
    """
    page, name, line = path.read_text(encoding="utf-8"), f"{path.stem}.py", 0
    module = sys.modules[path.stem] = types.ModuleType(path.stem)
    for block in BLOCK.finditer(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block["code"], name, "exec"), vars(module))
        line += block["code"].count("\n")
        if block["output"] is not None:
            yield block.start("output"), block.end("output"), printed.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_print_what_the_page_says(name, tmp_path):
    path = ROOT / name
    result = subprocess.run([sys.executable, __file__, path], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    page = true = path.read_text(encoding="utf-8")
    for start, end, printed in reversed(json.loads(result.stdout)):
        true = true[:start] + printed + true[end:]
    if os.environ.get("WEFT_UPDATE_GOLDEN"):
        path.write_text(true, encoding="utf-8")
    else:
        difference = difflib.unified_diff(page.splitlines(), true.splitlines(), "the page", "the truth", lineterm="")
        assert page == true, "\n".join(difference)


@pytest.mark.parametrize("name", PAGES)
def test_named_files_exist(name):
    path = ROOT / name
    page = FENCED.sub("", path.read_text(encoding="utf-8"))
    links = {link for link in LINK.findall(page) if not (path.parent / link).exists()}
    files = {file for file in FILE.findall(page) if not (ROOT / file).exists()}
    assert not links | files


if __name__ == "__main__":
    print(json.dumps(list(run_blocks(Path(sys.argv[1])))))
