"""The shape of the package: who may import whom, and what may not be written anywhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mixcli"
LAYERS = [
    {"errors"}, {"settings", "catalogue", "files", "toml"}, {"own_code", "recipe"}, {"fields"}, {"runs", "options"},
    {"flags"}, {"mix", "sampling", "pictures", "archive"}, {"mixing", "nets", "data", "corruptions"},
    {"methods"}, {"engine"}, {"report"}, {"studies"}, {"commands"}, {"cli"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.stat().st_size and p != PACKAGE / "__init__.py")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module of the package that `path` imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {module(p) for p in FILES}
            found |= {name if name in known else node.module for name in names}
    return {name for name in found if name.startswith("mixcli.")}


def part(name: str) -> str:
    return name.split(".")[1]


@each_file
def test_a_package_imports_only_from_rows_above_its_own(path):
    mine = part(module(path))
    for name in imports(path):
        theirs = part(name)
        assert (
            theirs == mine
            or LEVEL[theirs] < LEVEL[mine]
            or {theirs, mine} == {"runs", "options"}
            or (LEVEL[theirs] == LEVEL[mine] == LEVEL["mix"])
        ), f"{module(path)} imports {name}"


def test_imports_are_acyclic():
    graph = {module(path): imports(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for inner in graph.get(name, ()):
                visit(inner, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@each_file
def test_rows_above_mix_import_neither_torch_nor_numpy(path):
    if LEVEL[part(module(path))] >= LEVEL["mix"]:
        return
    top = {
        (node.names[0].name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not top & {"torch", "numpy"}


@each_file
def test_no_file_is_named_for_nothing(path):
    assert path.stem not in {"utils", "util", "common", "helpers", "misc"}


@each_file
def test_a_docstring_opens_with_the_files_own_name(path):
    assert (ast.get_docstring(ast.parse(path.read_text())) or "").startswith(f"{path.name}: ")


@each_file
def test_no_pickle_is_loaded_freely_and_no_generator_is_global(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"pickle.load", "pickle.loads", "np.random.seed", "random.seed", "numpy.random.seed"}
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                assert not (keyword.arg == "weights_only" and value is not True)
                assert not (keyword.arg == "allow_pickle" and value is not False)


@each_file
def test_loop_data_and_studies_know_no_methods_name(path):
    if part(module(path)) not in {"engine", "data", "studies"} or path.name == "benchmark.py":
        return
    words = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
    assert not words & {"mixup", "cutmix", "manifold", "synermix", "synermix-intra", "regmixup"}
