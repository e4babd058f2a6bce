"""Damaged bytes, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import FindingKind


@dataclass(frozen=True, slots=True)
class ByteDamage:
    """Damaged bytes [address, address + len(found)); `expected` has the same length."""

    kind: FindingKind
    what: str
    address: int
    expected: bytes
    found: bytes
