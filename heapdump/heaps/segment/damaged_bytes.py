"""Damaged bytes of a structure of a segment heap, before they become a finding."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import Finding, FindingKind, Severity


@dataclass(frozen=True, slots=True)
class DamagedBytes:
    """Bytes [address, address + length) that break a rule; `expected` and `found` describe them in words or in hex."""

    kind: FindingKind
    address: int
    length: int
    expected: str
    found: str
    severity: Severity = "error"

    def finding(self, heap: int, message: str) -> Finding:
        """The finding on the heap at address `heap`."""
        return Finding(self.kind, self.severity, heap, self.address, self.length, message, self.expected, self.found)
