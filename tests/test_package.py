"""What is installed: every folder of the package and nothing else, from wheel and source distribution alike."""
from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

DESCRIBING = {
    "pyproject.toml",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "setup.cfg",
}

BUILD = "import setuptools.build_meta as b, sys; print(b.build_wheel('out')); print(b.build_sdist('out'))"


@pytest.fixture(scope="module")
def packages(root) -> list[str]:
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


@pytest.fixture(scope="module")
def package_files(root, source_files) -> set[str]:
    """The files that a user must get, as paths under `weft/`."""
    return {f"weft/{file.as_posix()}" for file in source_files} | {"weft/py.typed", "weft/tracer/tensor_methods.pyi"}


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> Path:
    """A folder with a wheel and a source distribution, built from a copy of the repository."""
    copy = tmp_path_factory.mktemp("package") / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    return copy / "out"


def test_every_folder_is_listed(packages, source_files):
    folders = {".".join(("weft", *f.parts[:-1])) for f in source_files if f.name == "__init__.py"}
    assert sorted(packages) == sorted(folders)
    loose = {f.parts[:-1] for f in source_files} - {tuple(p.split(".")[1:]) for p in packages}
    assert not loose, "folders with modules but without __init__.py"


def test_wheel_holds_the_package(built, package_files):
    (wheel,) = built.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert names == package_files


def test_source_distribution_holds_the_package(built, package_files):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        members = {m.name.split("/", 1)[1] for m in opened.getmembers() if m.isfile()}
    names = {m for m in members if not m.startswith("weft.egg-info/")}
    assert names == {n.removeprefix("weft/") for n in package_files} | DESCRIBING
