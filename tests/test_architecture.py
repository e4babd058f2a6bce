"""The house rules that a machine can check: who imports whom, which package is used where, file and function sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "heapdump"
FILES = sorted(ROOT.rglob("*.py"))

ALLOWED = {
    "spans": set(),
    "errors": set(),
    "trust": set(),
    "wording": set(),
    "system": set(),
    "page_guard": set(),
    "available_memory": set(),
    "large_arrays": set(),
    "memory_plan": {"available_memory", "large_arrays"},
    "dump": {"available_memory", "page_guard", "spans", "errors"},
    "memory": {"spans", "errors"},
    "layouts": {"spans", "errors"},
    "process": {"dump", "memory", "layouts", "spans", "trust"},
    "runtimes": {"process", "memory", "layouts", "kernels", "spans", "trust"},
    "blocks": {"spans", "errors", "trust", "kernels", "large_arrays"},
    "kernels": {"available_memory"},
    "heaps": {"memory_plan", "process", "memory", "layouts", "blocks", "kernels", "spans", "trust"},
    "analyses": {
        "large_arrays",
        "memory_plan",
        "process",
        "runtimes",
        "memory",
        "blocks",
        "kernels",
        "spans",
        "errors",
        "trust",
    },
    "render": {"spans", "errors"},
    "fleet": set(),
    "cache": {"blocks", "errors"},
    "snapshot": {
        "dump",
        "memory",
        "process",
        "runtimes",
        "heaps",
        "blocks",
        "analyses",
        "cache",
        "type_answers",
        "damage_answers",
        "group_answers",
        "kernels",
    },
    "group_answers": {"snapshot", "analyses", "cache"},
    "damage_answers": {"snapshot", "heaps", "blocks", "analyses", "cache"},
    "type_answers": {"snapshot", "analyses", "cache"},
    "commands": {
        "available_memory",
        "memory_plan",
        "snapshot",
        "analyses",
        "render",
        "cache",
        "fleet",
        "kernels",
        "errors",
        "trust",
    },
    "cli": {"available_memory", "cache", "commands", "kernels", "render", "errors"},
}
"""Room → rooms it may import at run time. `snapshot` wires the ladder up to the usage map that several commands share."""

PACKAGES = {
    "minidump": {"dump/small.py"},
    "cabarchive": set(),
    "zstandard": {"dump/unpack.py"},
    "rich": {"render/folding.py", "render/table.py"},
    "jinja2": {"render/report/__init__.py"},
    "squarify": {"render/report/squares.py"},
    "numba": {"kernels/compiler.py", "kernels/pipeline.py"},
    "pefile": {"process/symbols/images.py"},
    "llvmlite": {"kernels/code_files.py"},
    "capstone": {"process/stacks/disassembly.py"},
}


NETWORK = {"urllib.request", "http", "http.client", "socket", "ssl", "ftplib", "smtplib", "socketserver", "telnetlib"}
"""Modules of the standard library that open connections."""


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of modules imported at run time; imports under `if TYPE_CHECKING` are annotations only."""
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ROOMS = sorted({room(path) for path in FILES})
every_room = pytest.mark.parametrize("name", ROOMS)


NO_NAMES = {
    "wounds", "marks", "parts", "whole", "heads", "hoards", "kept", "lost", "holding", "told", "mine", "odd", "sure",
    "some", "every",
}  # fmt: skip
"""Names that say nothing of what they hold."""


@cache
def imports(path: Path) -> frozenset[str]:
    """Names of modules that the file imports at run time."""
    return frozenset(imported(ast.parse(path.read_text())))


def offenders(name: str, fault: Callable[[Path], object]) -> dict[str, object]:
    """The files of a room that have a fault, each with it."""
    found = {str(path.relative_to(ROOT)): fault(path) for path in FILES if room(path) == name}
    return {path: what for path, what in found.items() if what}


@every_room
def test_imports_only_go_down(name: str) -> None:
    if name in ("__init__", "__main__"):
        return

    def fault(path: Path) -> set[str]:
        rooms = {module.split(".")[1] for module in imports(path) if module.startswith("heapdump.")}
        # wording: sizes and plurals; system: what differs on Windows
        return rooms - {name, "__version__", "wording", "system"} - ALLOWED[name]

    assert offenders(name, fault) == {}


@pytest.mark.parametrize("path", sorted((ROOT / "runtimes").glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_packages_of_runtimes_do_not_import_each_other(path: Path) -> None:
    names = {name for name in imported(ast.parse(path.read_text())) if name.startswith("heapdump.runtimes.")}
    packages = {name.split(".")[2] for name in names}
    assert packages <= {path.parent.name, "runtime"}


@pytest.mark.parametrize("path", sorted((ROOT / "blocks").glob("*.py")), ids=lambda p: p.name)
def test_blocks_know_the_row_of_the_kernels_only(path: Path) -> None:
    names = {name for name in imported(ast.parse(path.read_text())) if name.startswith("heapdump.kernels")}
    assert all(name.startswith("heapdump.kernels.row") for name in names)


@every_room
def test_packages_are_used_in_their_place_only(name: str) -> None:
    def fault(path: Path) -> list[str]:
        tops = {module.split(".")[0] for module in imports(path)}
        return [one for one, places in PACKAGES.items() if one in tops and str(path.relative_to(ROOT)) not in places]

    assert offenders(name, fault) == {}


@every_room
def test_one_file_opens_connections(name: str) -> None:
    found = offenders(name, lambda path: imports(path) & NETWORK)
    assert set(found) <= {"process/symbols/symbol_server.py"}


@every_room
def test_files_and_functions_are_short(name: str) -> None:
    def fault(path: Path) -> list[str]:
        text = path.read_text()
        lines = sum(1 for line in text.splitlines() if line.strip())
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        too_long = [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= 60]
        return [*too_long, *([f"{lines} lines"] if lines > 300 else [])]

    assert offenders(name, fault) == {}


def test_no_class_name_stands_for_two_classes() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):  # _Names and Names are one name for a reader
                places.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@every_room
def test_names_say_what_they_hold(name: str) -> None:
    """Words that could stand for anything are no names."""

    def fault(path: Path) -> list[str]:
        found = {one for node in ast.walk(ast.parse(path.read_text())) for one in _bound(node)}
        return sorted(one for one in found if one.strip("_").lower() in NO_NAMES)

    assert offenders(name, fault) == {}


def _bound(node: ast.AST) -> list[str]:
    """The names of variables, arguments and members that a node of a syntax tree gives a value."""
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.id if isinstance(node, ast.Name) else node.attr]
    return []


@every_room
def test_docstrings_explain_members_that_exist(name: str) -> None:
    def fault(path: Path) -> list[str]:
        nodes = ast.walk(ast.parse(path.read_text()))
        found = [(one.name, _explained(one) - _members(one)) for one in nodes if isinstance(one, _DOCUMENTED)]
        return [f"{owner}: {', '.join(sorted(names))}" for owner, names in found if names]

    assert offenders(name, fault) == {}


_DOCUMENTED = (ast.ClassDef, ast.FunctionDef)


def _explained(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """Names under `Attributes:` and `Args:` of a docstring; of a class also those in backticks before a colon."""
    text = ast.get_docstring(node) or ""
    part = re.search(r"^(?:Attributes|Args):\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    found = set(re.findall(r"^    (\w+): ", part[1], re.MULTILINE)) if part else set()
    return found | set(re.findall(r"`([a-z_0-9]+)`:", text)) if isinstance(node, ast.ClassDef) else found


def _members(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """Names of a function's parameters; of a class those of everything in it."""
    found = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    if isinstance(node, ast.ClassDef):
        found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        found |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        found |= {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found
