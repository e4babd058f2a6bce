"""What examining all heaps gives."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import Finding


@dataclass(frozen=True, slots=True)
class Damage:
    """`findings`: everything that is damaged; `gaps`: what could not be examined, and why.

    `guarded`: indices of the heaps that may hold blocks of the CRT's debug heap; `unchecked`: indices of the heaps that
    were not walked, or whose kind brings no check.
    """

    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]
    guarded: tuple[int, ...]
    unchecked: tuple[int, ...] = ()
