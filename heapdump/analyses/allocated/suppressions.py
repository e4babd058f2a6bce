"""Suppressions in LeakSanitizer's syntax: `leak:pattern` lines, matched against module, function and file of a frame.

A pattern matches anywhere in the name; `*` stands for any text, `^` and `$` bind it to the ends (LLVM,
sanitizer_common, `TemplateMatch`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Frame


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One line of a suppression file; two equal lines are two rules."""

    text: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class RuleCount:
    """The blocks that a rule suppresses, and their requested bytes."""

    rule: Rule
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Suppressions:
    """The rules of a file, in its order; the first rule that matches a stack suppresses it."""

    rules: tuple[Rule, ...] = ()

    def matches(self, frames: Sequence[Frame]) -> list[Rule]:
        """All rules that match one of the frames, in the order of the file."""
        names = [name for frame in frames for name in _names(frame)]
        return [rule for rule in self.rules if any(rule.pattern.search(name) for name in names)]


def parse(lines: Iterable[str]) -> Suppressions:
    """The rules of a suppression file; empty lines and `#` comments are skipped.

    Raises:
        WrongUsage: a line is no rule; the message has its number.
    """
    rules = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        kind, colon, pattern = text.partition(":")
        if not colon or kind != "leak" or not pattern:
            raise WrongUsage(f"line {number} of the suppressions is no rule: {text!r}; write leak:pattern")
        rules.append(Rule(text, _compiled(pattern)))
    return Suppressions(tuple(rules))


def _compiled(pattern: str) -> re.Pattern[str]:
    start, end = pattern.startswith("^"), pattern.endswith("$")
    literals = pattern[start : len(pattern) - end].split("*")
    body = ".*".join(map(re.escape, literals))
    return re.compile(f"{'^' if start else ''}{body}{'$' if end else ''}", re.DOTALL)


def _names(frame: Frame) -> Iterable[str]:
    return (name for name in (frame.module, frame.symbol, frame.file) if name)
