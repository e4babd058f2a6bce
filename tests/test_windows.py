"""Tests on Windows: what it lacks is asked for by name in one file, and each test that needs it is skipped with a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("heapdump", "fixtures", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "select", "termios"}
NAMES = {
    "SIGALRM", "SIGBUS", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "fork", "getuid", "geteuid", "mkfifo", "openpty", "wait4",
    "O_NONBLOCK", "O_NOFOLLOW", "preexec_fn", "symlink_to", "hardlink_to",
}  # fmt: skip
WORDS = re.compile("|".join(sorted(MODULES | NAMES | {"[\"']sh[\"']"})))
"""Text of a file without a match uses none of them."""
ONE_PLACE = {"heapdump/system.py", "heapdump/page_guard.py", "tests/posix.py", "tests/bench/processes.py"}
"""Files that ask before they use such a name."""


def used(node: ast.AST) -> Iterator[str]:
    """Names that Windows lacks, in the code of a node; those that `hasattr` asks for are texts, and do not count."""
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and one.attr in NAMES:
            yield one.attr
        if isinstance(one, ast.keyword) and one.arg in NAMES:
            yield str(one.arg)
        if (
            isinstance(one, ast.List)
            and one.elts
            and isinstance(one.elts[0], ast.Constant)
            and one.elts[0].value == "sh"
        ):
            yield "sh"


def is_skipped(node: ast.stmt) -> bool:
    """True for a definition that asks for what it needs."""
    decorators = " ".join(map(ast.unparse, getattr(node, "decorator_list", [])))
    return bool(re.search(r"needs_|skipif", decorators)) or "pytest.skip(" in ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_windows_lacks_is_asked_for(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in ONE_PLACE:
        return
    text = path.read_text(encoding="utf-8")
    if not WORDS.search(text):
        return
    for node in ast.parse(text).body:
        names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
        assert not names & MODULES, f"{path.name} imports {names & MODULES} wherever it is loaded"
        found = set(used(node))
        if found and path.name.startswith("test_") and getattr(node, "name", "").startswith("test_"):
            assert is_skipped(node), f"{getattr(node, 'name', '')} uses {found}: mark it with tests/posix.py"


def test_the_workflow_runs_the_suite_on_windows() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert "windows-latest" in text and "python -m pytest" in text and "PYTHONUTF8" in text
