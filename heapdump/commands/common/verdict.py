"""The verdict on heaps as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.next_command import arrow

if TYPE_CHECKING:
    from heapdump.analyses.damage.verdict import Verdict
    from heapdump.snapshot import Snapshot


def verdict_line(snapshot: Snapshot, verdict: Verdict, command: tuple[str, ...]) -> list[tuple[str, str]]:
    """The verdict, and the command that shows more."""
    return [(f"heap: {verdict.text}", verdict_style(verdict)), arrow(snapshot, command)]


def verdict_words(verdict: Verdict, *, is_more: bool) -> str:
    """The verdict in words. `is_more`: below incidents that a runtime or Windows reported, it is on *other* damage."""
    return verdict.text.replace("no damage found", "no other damage found", 1) if is_more else verdict.text


def verdict_style(verdict: Verdict) -> str:
    """Style of a verdict: red for damage, green for none."""
    if verdict.errors:
        return "red"
    return "yellow" if verdict.unchecked else "green" if verdict.heaps else "dim"
