"""Imports run one way. The package's files are read, not run: which folder imports which, where what is heavy may be
loaded."""
from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

MAY_IMPORT = {
    "ir": (),
    "passes": ("ir",),
    "backends": ("ir",),
    "runtime": ("ir", "backends.base", "backends.native.locks"),
    "tracer": ("ir", "passes", "backends", "runtime"),
    "nn": ("ir", "tracer"),
    "optim": ("ir", "tracer", "nn"),
    "data": ("ir", "tracer"),
    "weft": ("ir", "passes", "backends", "runtime", "tracer", "nn", "optim", "data"),
}
"""Folder (`weft` is the root) -> the folders or modules that its files may import; its own files always."""

HEAVY = {
    "numba": None,
    "llvmlite": "backends/native/",
    "scipy": None,
    "networkx": None,
    "pandas": None,
    "sklearn": None,
}
"""Packages that take long to import -> the folder whose modules may import them; everybody else asks a seam."""

SEAMS = {"runtime/seam.py", "ir/lazy.py", "tracer/seam.py"}
"""The modules that load others by name when first needed."""


@dataclass(frozen=True)
class Import:
    """One imported module, absolute inside the package (`ir.graph`) or foreign (`llvmlite.binding`)."""

    file: Path
    line: int
    target: str
    inside: bool
    """Of weft itself."""
    local: bool
    """In a function."""
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.target}"


def imports_of(root: Path, file: Path) -> Iterator[Import]:
    """Every import statement of a file."""
    package = file.parts[:-1]

    def visit(node: ast.AST, local: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (
                    Import(file, child.lineno, a.name, a.name.split(".")[0] == "weft", local, typing_only)
                    for a in child.names
                )
            elif isinstance(child, ast.ImportFrom):
                for target in targets(child):
                    yield Import(file, child.lineno, target, child.level > 0, local, typing_only)
            checking = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from visit(
                child, local or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)), typing_only or checking
            )

    def targets(node: ast.ImportFrom) -> list[str]:
        """The modules that a from-import loads: a name that is a module of its own, or else the module that has the
        name."""
        if not node.level:
            return [node.module or ""]
        base = (*package[:len(package) - (node.level - 1)], *(node.module.split(".") if node.module else ()))
        names = [(*base, a.name) for a in node.names]
        return [".".join(n if module_file(root, n) else base) for n in names]

    yield from visit(ast.parse((root / file).read_text(encoding="utf-8")), False, False)


def module_file(root: Path, name: tuple[str, ...]) -> Path | None:
    """The file of a module of the package."""
    path = root.joinpath(*name)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@pytest.fixture(scope="module")
def imports(root, source_files) -> list[Import]:
    return [i for file in source_files for i in imports_of(root, file)]


def test_folders_import_one_way(imports):
    def allowed(entry: Import) -> bool:
        folder = entry.file.parts[0] if len(entry.file.parts) > 1 else "weft"
        return any(entry.target == m or entry.target.startswith(f"{m}.") for m in (folder, *MAY_IMPORT[folder]))

    assert not [str(i) for i in imports if i.inside and not allowed(i)]


def test_modules_form_no_cycle(root, source_files, imports):
    graph: dict[Path, set[Path]] = {root / file: set() for file in source_files}
    for entry in imports:
        target = module_file(root, tuple(entry.target.split("."))) if entry.inside else None
        if target and not entry.typing_only:
            graph[root / entry.file].add(target)
    assert list(TopologicalSorter(graph).static_order())        # raises CycleError, which names the cycle


def test_no_import_hides_in_a_function(imports):
    assert not [str(i) for i in imports if i.local]


def test_heavy_packages_have_their_place(imports):
    def misplaced(entry: Import) -> bool:
        package = entry.target.split(".")[0]
        return not entry.inside and package in HEAVY and not str(entry.file).startswith(HEAVY[package] or "nowhere")

    assert not [str(i) for i in imports if misplaced(i)]


def test_only_seams_import_by_name(root, source_files):
    users = {str(f) for f in source_files if "import_module(" in (root / f).read_text(encoding="utf-8")}
    assert users <= SEAMS


def test_every_file_says_what_lives_in_it(root, source_files):
    silent = [str(f) for f in source_files if not ast.get_docstring(ast.parse((root / f).read_text(encoding="utf-8")))]
    assert not silent
