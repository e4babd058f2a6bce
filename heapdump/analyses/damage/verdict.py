"""One line on whether heaps are damaged, for commands whose question is another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heapdump.blocks.damage import Damage, UncheckedHeap, may_lack_some, why_not_walked
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.memory import limits
from heapdump.wording import plural

_QUICK_HEADERS = 20_000
"""Walked headers up to which a check is made for the sake of one line."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether heaps are damaged.

    Attributes:
        errors: number of findings of severity `error`; at least as many where `is_cut`.
        heaps: number of heaps that were examined.
        is_thorough: True after a check, False after a walk alone.
        unchecked: the heaps that were not examined, and why.
        is_cut: True where there may be more errors.
    """

    errors: int
    heaps: int
    is_thorough: bool
    unchecked: tuple[UncheckedHeap, ...]
    is_cut: bool = False

    @property
    def text(self) -> str:
        """The verdict in one line."""
        sentences = []
        how = "found" if self.is_thorough else "found while walking, which does not look at everything"
        if self.heaps or self.errors:
            least = "at least " if self.is_cut else ""
            found = f"{least}{plural(self.errors, 'damaged place')}" if self.errors else "no damage"
            sentences.append(f"{found} {how} in {plural(self.heaps, 'heap')}" if self.heaps else f"{found} {how}")
        if self.unchecked:
            sentences.append(f"{plural(len(self.unchecked), 'heap')} not checked")
        return "; ".join(sentences) or "no heap could be examined"


def verdict(heaps: Sequence[Heap], walk: Walk, examine: Callable[[], Damage], *, thorough: bool = False) -> Verdict:
    """The verdict on these heaps: by a check (`examine`) where that is quick or asked for, else by the walk's findings.

    `thorough`: a check is made whatever it costs.
    """
    is_thorough = thorough or is_quickly_checked(walk)
    known = examine() if is_thorough else damage_of_walk(heaps, walk)
    indices, addresses = {heap.index for heap in heaps}, {heap.address for heap in heaps}
    unchecked = tuple(one for one in known.unchecked if one.heap in indices)
    errors = sum(finding.is_error and finding.heap in addresses for finding in known.findings)
    return Verdict(errors, len(heaps) - len(unchecked), is_thorough, unchecked, not addresses.isdisjoint(known.cut))


def is_quickly_checked(walk: Walk) -> bool:
    """True where a check costs so little that every command makes it."""
    return sum(count.headers for count in walk.counts.values()) <= _QUICK_HEADERS


def damage_of_walk(heaps: Sequence[Heap], walk: Walk) -> Damage:
    """The damage that discovery and walk found."""
    reasons = ((heap.index, why_not_walked(heap, walk.counts.get(heap.index))) for heap in heaps)
    unchecked = tuple(UncheckedHeap(index, why) for index, why in reasons if why is not None)
    findings = (*(finding for heap in heaps for finding in heap.findings), *walk.findings)
    cut = tuple(sorted(may_lack_some(walk.findings, limits.MAX_FINDINGS)))
    return Damage(findings, walk.gaps, guarded=(), unchecked=unchecked, cut=cut)
