"""Which groups hold most of the memory, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
from heapdump.blocks.heap import Heap
from heapdump.wording import plural

_MOST = 3
_ENOUGH, _LEAST = 0.8, 0.05
"""Groups are named until they hold this share of the bytes together; one below the second share is none."""


def suspects(leaks: Leaks, heaps: Sequence[Heap]) -> list[str]:
    """At most three sentences: what, how much, how regular in size, in which heap, allocated by whom."""
    out: list[str] = []
    held = 0.0
    for found in leaks.groups:
        if len(out) == _MOST or held >= _ENOUGH or found.group.share < _LEAST:
            break
        out.append(_sentence(found, heaps))
        held += found.group.share
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
