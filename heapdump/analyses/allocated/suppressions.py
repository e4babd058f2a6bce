"""Suppressions in LeakSanitizer's syntax: `leak:pattern` lines, matched against module, function and file of a frame.

A pattern matches anywhere; `*` stands for any text, `^` and `$` bind it to the ends (sanitizer_common, TemplateMatch).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Frame


@dataclass
class Rule:
    """One line; `count` blocks of `bytes` were suppressed by it. `matched`: a stack fits it, perhaps an earlier rule's."""

    text: str
    pattern: re.Pattern[str]
    count: int = 0
    bytes: int = 0
    matched: bool = False


@dataclass
class Suppressions:
    """The rules of a file, in its order; the first that matches a stack counts."""

    rules: list[Rule] = field(default_factory=list)

    def match(self, frames: Sequence[Frame]) -> Rule | None:
        """The first rule that one of the frames matches."""
        texts = [text for frame in frames for text in _texts(frame)]
        found = [rule for rule in self.rules if any(rule.pattern.search(text) for text in texts)]
        for rule in found:
            rule.matched = True
        return found[0] if found else None


def parse(lines: Iterable[str]) -> Suppressions:
    """The rules of a suppression file; empty lines and `#` comments are skipped.

    Raises:
        WrongUsage: a line that is none, with its number.
    """
    out = Suppressions()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        kind, colon, pattern = text.partition(":")
        if not colon or kind != "leak" or not pattern:
            raise WrongUsage(f"line {number} of the suppressions is no rule: {text!r}; write leak:pattern")
        out.rules.append(Rule(text, _compiled(pattern)))
    return out


def _compiled(pattern: str) -> re.Pattern[str]:
    start, end = pattern.startswith("^"), pattern.endswith("$")
    middle = pattern[start : len(pattern) - end]
    body = ".*".join(re.escape(part) for part in middle.split("*"))
    return re.compile(f"{'^' if start else ''}{body}{'$' if end else ''}", re.DOTALL)


def _texts(frame: Frame) -> Iterable[str]:
    return (text for text in (frame.module, frame.symbol, frame.file) if text)
