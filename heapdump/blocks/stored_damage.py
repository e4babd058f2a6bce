"""Damage as one JSON record and back, for the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from heapdump.blocks.damage import Damage, UncheckedHeap, WhyUnchecked
from heapdump.blocks.findings import FINDING_RULES, Finding
from heapdump.blocks.stored_checks import require_types

Record = dict[str, Any]


def to_record(damage: Damage) -> Record:
    """The damage of all heaps, which `from_record` reads."""
    return asdict(replace(damage, findings=())) | findings_to_record(damage.findings)


def from_record(record: Record, heaps: int) -> Damage:
    """The damage that `to_record` wrote, of a process with `heaps` heaps.

    Raises:
        ValueError, TypeError, LookupError: it is not what `to_record` writes.
    """
    found = Damage(
        findings_from_record(record),
        tuple(record["gaps"]),
        tuple(record["guarded"]),
        tuple(UncheckedHeap(one["heap"], WhyUnchecked(one["why"])) for one in record["unchecked"]),
        tuple(record["remarks"]),
        tuple(record["cut"]),
    )
    require_types(found)
    if not all(0 <= heap < heaps for heap in (*found.guarded, *(one.heap for one in found.unchecked))):
        raise ValueError("there is no such heap")
    return found


def findings_to_record(findings: Sequence[Finding]) -> Record:
    """Findings, which `findings_from_record` reads."""
    return {"findings": [finding.to_record() for finding in findings]}


def findings_from_record(record: Record) -> tuple[Finding, ...]:
    """The findings that `findings_to_record` wrote.

    Raises:
        ValueError, TypeError, LookupError: it is not what it writes.
    """
    found = tuple(Finding(**finding) for finding in record["findings"])
    require_types(found)
    if not all(finding.kind in FINDING_RULES for finding in found):
        raise ValueError("there is no such kind of finding")
    return found
