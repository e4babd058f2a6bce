"""The groups of an allocation question with most bytes, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
from heapdump.blocks.heap import Heap
from heapdump.wording import plural, short_size

_MOST = 3
_ENOUGH_SHARE, _LEAST_SHARE = 0.8, 0.05
"""Groups are named until together they hold the first share of the bytes; groups below the second share are not."""


def top_groups(groups: Iterable[LeakGroup], of: float = 1.0) -> list[LeakGroup]:
    """At most three of groups that are sorted by bytes, the largest first; none where no group stands out.

    `of`: the share of the bytes that all of `groups` hold.
    """
    out: list[LeakGroup] = []
    share = 0.0
    for found in groups:
        if len(out) == _MOST or share >= _ENOUGH_SHARE * of or found.group.share < _LEAST_SHARE * of:
            break
        out.append(found)
        share += found.group.share
    return out


def group_sentence(leaks: Leaks, found: LeakGroup, heaps: Sequence[Heap]) -> str:
    """A group in words: its share and the total, number of blocks, sizes, heaps, and its key."""
    group = found.group
    sizes = (
        f"of {plural(group.min_size, 'byte')}"
        if group.min_size == group.max_size
        else f"of {group.min_size:,} to {plural(group.max_size, 'byte')}"
    )
    each = " each" if group.min_size == group.max_size and group.count > 1 else ""
    where = ", ".join(f"{heaps[heap].address:#x}" for heap in group.heaps[:2]) + (" …" if len(group.heaps) > 2 else "")
    whose = f", allocated by {found.key}" if found.frames else f": {found.key}"
    total = f"{group.share:.1%} of the {short_size(leaks.bytes)} in heap blocks"
    heap_word = "heap" if len(group.heaps) == 1 else "heaps"
    return f"{total}: {plural(group.count, 'block')} {sizes}{each} in {heap_word} {where}{whose}"
