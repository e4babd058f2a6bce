"""The verdict on heaps as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.analyses.damage.verdict import Verdict


def verdict_line(verdict: Verdict, command: tuple[str, ...]) -> list[tuple[str, str]]:
    """The verdict, and the command that shows more."""
    return [
        (f"heap: {verdict.text}", _verdict_style(verdict)),
        (f" → heapdump {' '.join(command)}", "cyan"),
    ]


def _verdict_style(verdict: Verdict) -> str:
    if verdict.errors:
        return "red"
    return "yellow" if verdict.unchecked else "green" if verdict.heaps else "dim"
