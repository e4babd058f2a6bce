"""A finding: one damaged place in a heap structure, as a value. Walkers make them and go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "entry_header", "size_chain", "segment", "ucr", "free_list", "virtual_list", "lfh_subsegment", "vs_chunk",
    "large_metadata", "tail_fill", "free_fill", "page_header", "page_suffix", "page_freed_fill", "crt_guard",
    "failure_record", "exception", "verifier_stop",
]  # fmt: skip
"""What can be damaged, or have been reported, in the words of the JSON."""

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
