"""The house: who may import whom, and who may speak."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mario_rl

PACKAGE = Path(mario_rl.__file__).parent
# Lowest first. A module imports from its own layer and from lower ones.
LAYERS = ("root", "games", "replay", "storage", "evaluation", "agent", "training", "reports")
# These stand above all: the outside sees them.
OUTSIDE = {"mario_rl"} | {
    f"mario_rl.{name}" for name in ("api", "export", "hub", "search", "sweep")
}
# What may print.
SPEAKERS = {"mario_rl.console"}


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def layer_of(name):
    if name in OUTSIDE:
        return len(LAYERS)
    parts = name.split(".")
    wing = parts[1] if (PACKAGE / parts[1]).is_dir() else "root"
    return LAYERS.index(wing)


def imports_of(name):
    """The package's modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (modules & SOURCES.keys()) or {node.module}
    return {module for module in found if module.partition(".")[0] == "mario_rl"} - {name}


def test_there_are_at_most_seven_wings():
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert wings == set(LAYERS) - {"root"} and len(wings) <= 7


def test_wings_hand_nothing_on():
    for path in PACKAGE.glob("*/__init__.py"):
        assert path.read_text() == "", path


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_only_from_its_layer_and_lower_ones(name):
    upward = {module for module in imports_of(name) if layer_of(module) > layer_of(name)}
    assert not upward, f"{name} imports {upward}"


def test_no_import_is_circular():
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for module in imports_of(name):
                visit(module, (*path, name))
            done.add(name)

    for name in SOURCES:
        visit(name, ())


SCRIPTS = {path.name: ast.parse(path.read_text()) for path in PACKAGE.parent.glob("*.py")}
SILENT = {name: tree for name, tree in (TREES | SCRIPTS).items() if name not in SPEAKERS}


@pytest.mark.parametrize("name", SILENT)
def test_only_the_console_prints(name):
    for node in ast.walk(SILENT[name]):
        words = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        assert words not in ("print", "sys.stdout", "sys.stderr"), f"{name}:{node.lineno}"


def test_workers_import_neither_torch_nor_pandas():
    script = (
        "import sys, mario_rl.games.workers as w\n"
        "import mario_rl.games.views, mario_rl.games.rewards, mario_rl.games.serial\n"
        "print(*sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert result.stdout.strip() == ""
