"""What tests share: a kernel cache of this run's own, graphs verified after each pass, repeatable random programs."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

if "WEFT_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="weft-test-cache-")
    os.environ["WEFT_CACHE_DIR"] = _cache.name

os.environ.setdefault("WEFT_VERIFY", "1")

settings.register_profile("weft", deadline=None, derandomize=True, database=None)
settings.load_profile("weft")


class RootIsNoTestPackage:
    """The root has an __init__.py: pytest would import weft a second time, under the name of the root's folder."""

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoTestPackage())


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository, which is the package."""
    return ROOT


@pytest.fixture(scope="session")
def source_files(root: Path) -> list[Path]:
    """Every Python file of the package, relative to the root."""
    outside = {"tests", "benchmarks", "examples", "docs", "build", "dist"}
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(f for f in files if f.parts[0] not in outside and not f.parts[0].startswith("."))
