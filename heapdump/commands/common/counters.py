"""Windows' counters of the process and of the system: as JSON records, and as lines of a page's header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.process.model import Process


def counters_record(process: Process) -> Record | None:
    """The memory counters of the process, in bytes; None where the dump has none."""
    found = process.counters
    if found is None:
        return None
    return {
        "private_bytes": found.private,
        "working_set": found.working_set,
        "peak_working_set": found.peak_working_set,
        "private_working_set": found.private_working_set,
        "pagefile_bytes": found.pagefile,
        "peak_pagefile_bytes": found.peak_pagefile,
        "virtual_bytes": found.virtual,
        "peak_virtual_bytes": found.peak_virtual,
        "page_faults": found.page_faults,
    }


def system_record(process: Process) -> Record | None:
    """The memory of the system, in bytes; None where the dump does not say."""
    found = process.system_memory
    if found is None:
        return None
    return {
        "physical_bytes": found.physical,
        "available_bytes": found.available,
        "committed_bytes": found.committed,
        "commit_limit": found.commit_limit,
        "peak_committed_bytes": found.peak_committed,
    }


def counter_lines(process: Process) -> list[str]:
    """`private 41.7 MB, working set 57.9 MB (peak 58.9 MB); system commit 3.8 of 6.4 GB`; none without counters."""
    counters, system = process.counters, process.system_memory
    sentences = []
    if counters is not None:
        private = f"private {text.short_size(counters.private)}, " if counters.private is not None else ""
        peak = f" (peak {text.short_size(counters.peak_working_set)})"
        sentences.append(f"{private}working set {text.short_size(counters.working_set)}{peak}")
    if system is not None and system.committed is not None and system.commit_limit is not None:
        limit = text.short_size(system.commit_limit)
        sentences.append(f"system commit {text.short_size(system.committed)} of {limit}")
    return ["; ".join(sentences)] if sentences else []
