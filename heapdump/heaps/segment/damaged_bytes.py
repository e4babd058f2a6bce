"""Damaged bytes of a structure of a segment heap, before they become a finding."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import Finding, FindingKind, Severity


@dataclass(frozen=True, slots=True)
class DamagedBytes:
    """The bytes [address, address + length) of a structure that break a rule.

    Attributes:
        kind: kind of the finding.
        address: of the first damaged byte.
        length: number of bytes.
        expected: the right bytes or value, in words or hex.
        found: the bytes or value in the dump, likewise.
        severity: of the finding.
    """

    kind: FindingKind
    address: int
    length: int
    expected: str
    found: str
    severity: Severity = "error"

    def finding(self, heap: int, message: str) -> Finding:
        """The finding about these bytes in the heap at address `heap`."""
        return Finding(self.kind, self.severity, heap, self.address, self.length, message, self.expected, self.found)
