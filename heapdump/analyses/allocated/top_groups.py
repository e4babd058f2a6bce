"""The groups of an allocation question with most bytes, each in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
from heapdump.blocks.heap import Heap
from heapdump.wording import plural

_MOST = 3
_ENOUGH_SHARE, _LEAST_SHARE = 0.8, 0.05
"""Groups are named until they hold the first share of the bytes together; a group below the second share is not named."""


def top_groups(leaks: Leaks, heaps: Sequence[Heap]) -> list[str]:
    """At most three sentences: number of blocks, share of the bytes, sizes, heaps, and the key of the group."""
    out: list[str] = []
    share = 0.0
    for found in leaks.groups:
        if len(out) == _MOST or share >= _ENOUGH_SHARE or found.group.share < _LEAST_SHARE:
            break
        out.append(_sentence(found, heaps))
        share += found.group.share
    return out


def _sentence(found: LeakGroup, heaps: Sequence[Heap]) -> str:
    group = found.group
    sizes = (
        f"of {group.min_size:,} bytes"
        if group.min_size == group.max_size
        else f"of {group.min_size:,} to {group.max_size:,} bytes"
    )
    each = " each" if group.min_size == group.max_size and group.count > 1 else ""
    where = ", ".join(f"{heaps[heap].address:#x}" for heap in group.heaps[:3]) + (" …" if len(group.heaps) > 3 else "")
    whose = f", allocated by {found.key}" if found.frames else f": {found.key}"
    blocks = plural(group.count, "block")
    heap_word = "heap" if len(group.heaps) == 1 else "heaps"
    return f"{group.share:.1%} of the bytes are {blocks} {sizes}{each} in {heap_word} {where}{whose}"
