"""Kinds of findings: each has a rule, and every kind that the code makes is defined."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from heapdump.analyses.damage.select import rule_sentences
from heapdump.blocks.findings import FINDING_RULES, BugKind, Finding, Protected, define

SOURCES = Path(__file__).parents[2] / "heapdump"


def finding(kind: str, severity: str = "error") -> Finding:
    return Finding(kind, severity, 0x1000, 0x2000, 1, "m", "", "")  # type: ignore[arg-type]


def test_every_kind_that_the_code_names_is_defined() -> None:
    calls = (
        node
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Finding", "ByteDamage")
    )
    named = {call.args[0].value for call in calls if call.args and isinstance(call.args[0], ast.Constant)}
    assert named
    assert named <= FINDING_RULES.keys()


def test_a_kind_that_a_package_defines_is_known_to_check_and_sarif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heapdump.blocks.findings.FINDING_RULES", rules := dict(FINDING_RULES))
    monkeypatch.setattr("heapdump.analyses.damage.select.FINDING_RULES", rules)
    define("toy_magic", "The magic word of a toy heap is damaged", Protected.BLOCK, BugKind.UNDERFLOW)
    define("toy_magic", "The magic word of a toy heap is damaged", Protected.BLOCK, BugKind.UNDERFLOW)
    assert finding("toy_magic").rule.bug is BugKind.UNDERFLOW
    assert rule_sentences()["toy_magic"] == "The magic word of a toy heap is damaged"
    with pytest.raises(ValueError, match="toy_magic: the word is taken"):
        define("toy_magic", "Something else", Protected.LIST)


def test_reports_and_severity() -> None:
    assert finding("exception").is_report and not finding("tail_fill").is_report
    assert finding("tail_fill").is_error and not finding("tail_fill", "warning").is_error
    assert f"{BugKind.OVERFLOW}" == "heap-buffer-overflow"
