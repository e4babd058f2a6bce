"""Suppressions in LeakSanitizer's syntax."""

from __future__ import annotations

import pytest

from heapdump.analyses.allocated.suppressions import parse
from heapdump.errors import WrongUsage
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust


def frame(module: str, symbol: str | None, file: str | None = None) -> Frame:
    return Frame(0x1000, module, symbol, 4, file, 3 if file else None, Trust.EXACT)


STACK = (frame("ntdll.dll", None), frame("vision.dll", "ImageTask::run", r"c:\src\task.cpp"), frame("app.exe", "main"))


@pytest.mark.parametrize(
    "pattern",
    [
        "ImageTask",
        "vision",
        "vision.dll",
        "^vision.dll$",
        "Image*run",
        "^Image*::run$",
        "task.cpp",
        "^main$",
        "*main*",
        "mai*",
    ],
)
def test_a_pattern_matches_part_of_module_function_or_file(pattern):
    rules = parse([f"leak:{pattern}"])
    assert rules.matches(STACK) == [rules.rules[0]]


@pytest.mark.parametrize("pattern", ["^mage", "run$x", "^dll$", "Vision", "Image?ask", "main.", "task[.]cpp"])
def test_a_pattern_that_is_not_there_matches_nothing(pattern):
    assert parse([f"leak:{pattern}"]).matches(STACK) == []


def test_comments_and_empty_lines_are_no_rules():
    rules = parse(["# known", "", "  leak:nothing ", "leak:app", "leak:main"])
    assert [rule.text for rule in rules.rules] == ["leak:nothing", "leak:app", "leak:main"]
    assert rules.matches(STACK) == list(rules.rules[1:])
    assert rules.matches(()) == []


@pytest.mark.parametrize("line", ["main", "race:main", "leak:", "leak main"])
def test_a_line_that_is_no_rule_is_named_with_its_number(line):
    with pytest.raises(WrongUsage, match="line 2"):
        parse(["# first", line])
