"""A finding: one damaged place in a heap structure, as a value. Walkers make them and go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "segment", "ucr", "virtual_list", "entry_header", "lfh_subsegment", "vs_chunk", "large_metadata", "free_list"
]
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`address` = first damaged byte, `length` in bytes; `expected` and `found` in words or hex."""

    kind: FindingKind
    severity: Severity
    heap: int
    address: int
    length: int
    message: str
    expected: str
    found: str
