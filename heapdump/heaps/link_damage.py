"""Broken links of a list of a heap, as findings."""

from __future__ import annotations

from collections.abc import Callable

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.heaps.allocator import is_missing
from heapdump.heaps.linked_list import LinkedList
from heapdump.process.model import Process


def link_damage(
    process: Process,
    kind: FindingKind,
    heap: int,
    linked: LinkedList,
    name: str,
    is_unknown: Callable[[int], bool] = lambda node: False,
) -> tuple[list[Finding], list[str]]:
    """The findings and gaps that follow from the breaks of a list.

    Args:
        process: the process.
        kind: of the findings.
        heap: address of the heap.
        linked: the list.
        name: of the list, for messages.
        is_unknown: True for a node of which the dump lacks bytes that decide whether it is one.

    Returns:
        (a finding for each damaged link, a gap where nodes may be missing). A link to memory that the dump lacks, or to
        a node that `is_unknown`, is no damage.
    """
    findings: list[Finding] = []
    for broken in linked.breaks:
        if broken.found is None or is_missing(process, broken.found) or is_unknown(broken.found):
            continue
        expected = "a node of the list" if broken.expected is None else f"{broken.expected:#x}"
        found = f"{broken.found:#x}"
        message = f"the {name} of heap {heap:#x} is broken: the link at {broken.address:#x} is {found}"
        findings.append(Finding(kind, "error", heap, broken.address, broken.length, message, expected, found))
    if linked.is_closed:
        return findings, []
    places = ", ".join(f"{broken.address:#x}" for broken in linked.breaks[:4])
    reached = f"{len(linked.nodes)} found from its two ends, more may lie between"
    return findings, [f"the {name} of heap {heap:#x} cannot be followed at {places}: {reached}"]
