"""One line on whether the heap is damaged, for commands that ask something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.wording import plural

_QUICK_HEADERS = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`errors` that were found in so many heaps; `is_thorough`: everything was examined, not just walked."""

    errors: int
    heaps: int
    is_thorough: bool

    @property
    def text(self) -> str:
        """The line."""
        if not self.heaps:
            return "no heap could be examined"
        found = plural(self.errors, "damaged place") if self.errors else "no damage"
        how = "found" if self.is_thorough else "found while walking, which does not look at everything"
        return f"{found} {how} in {plural(self.heaps, 'heap')}"


def verdict(heaps: Sequence[Heap], walk: Walk, examine: Callable[[], Sequence[Finding]]) -> Verdict:
    """Examines everything where that is quick (`examine`), else says what the walk saw."""
    mine = [heap for heap in heaps if heap.index in walk.counts]
    is_quick = sum(count.headers for count in walk.counts.values()) <= _QUICK_HEADERS
    known = examine() if is_quick else [*(f for heap in mine for f in heap.findings), *walk.findings]
    addresses = {heap.address for heap in mine}
    errors = sum(finding.severity == "error" and finding.heap in addresses for finding in known)
    return Verdict(errors, len(mine), is_quick)
