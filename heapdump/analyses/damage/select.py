"""Explained findings that match filters, and the sentence of each kind of finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.blocks.findings import FINDING_RULES, BugKind

if TYPE_CHECKING:
    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.blocks.heap import Heap
    from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class FindingFilter:
    """A filter of findings; every member that is not None must hold.

    Attributes:
        heap: address of the heap.
        at: addresses of which one lies in the damaged bytes, the damaged block or the first candidate.
        kind: kind of the finding, or its bug.
    """

    heap: int | None = None
    at: Span | None = None
    kind: str | None = None


def rule_sentences() -> dict[str, str]:
    """Kind of finding, or bug → its sentence, for every one that is defined."""
    rules = {kind: rule.sentence for kind, rule in FINDING_RULES.items()}
    return rules | {bug.value: bug.sentence for bug in BugKind}


def select_findings(
    findings: Sequence[ExplainedFinding], heaps: Sequence[Heap], wanted: FindingFilter
) -> list[ExplainedFinding]:
    """The findings that match, in their order.

    Raises:
        WrongUsage: no heap at that address.
    """
    if wanted.heap is not None:
        from heapdump.analyses.blocks.select import heap_index

        heap_index(heaps, wanted.heap)
    return [one for one in findings if _matches(one, heaps, wanted)]


def _matches(explained: ExplainedFinding, heaps: Sequence[Heap], wanted: FindingFilter) -> bool:
    finding, block = explained.finding, explained.block
    if wanted.kind is not None and wanted.kind not in (finding.kind, explained.bug):
        return False
    if wanted.heap is not None and finding.heap != wanted.heap:
        return block is not None and heaps[block.heap].address == wanted.heap and _is_at(explained, wanted.at)
    return _is_at(explained, wanted.at)


def _is_at(explained: ExplainedFinding, at: Span | None) -> bool:
    """True where the damaged bytes or a block of the finding hold an address of the span; None matches."""
    finding = explained.finding
    spans = [(finding.address, finding.address + max(finding.length, 1))]
    spans += [(block.entry, block.end) for block in (explained.block, explained.candidate) if block is not None]
    return at is None or any(start < at.end and at.start < end for start, end in spans)
