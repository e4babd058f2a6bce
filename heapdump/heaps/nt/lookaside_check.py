"""Checks the lookaside lists of XP and Server 2003: lengths, nodes, and the headers of the blocks on them."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.findings import Finding
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.header_word import BUSY_FLAG
from heapdump.heaps.nt.lookaside_lists import LookasideLink, lookaside_links
from heapdump.heaps.nt.windows import committed_runs


def check_lookaside_lists(job: CheckJob, context: HeapContext) -> Iterator[Finding]:
    """A finding for the first wrong link of each list. A link to memory that is not in the dump is not wrong."""
    wrong: set[int] = set()
    for link in lookaside_links(context):
        why = "" if link.number in wrong else _what_is_wrong(job, context, link)
        if not why:
            continue
        wrong.add(link.number)
        bytes_ = link.number * context.entry_format.granule
        expected = f"a busy block of {bytes_} bytes" if link.remaining > 0 else "0, the end of the list"
        message = f"{context.name}: lookaside list {link.number} is broken at {link.place:#x}: {why}"
        pointer, found = context.view.pointer_bytes, f"{link.node:#x}"
        yield Finding("free_list", "error", context.address, link.place, pointer, message, expected, found)


def _what_is_wrong(job: CheckJob, context: HeapContext, link: LookasideLink) -> str:
    """The fault of a link, in words; "" where it holds.

    The header of the block is compared only where the walk found no damage; else the header itself may be damaged.
    """
    node, granule, bits = link.node, context.entry_format.granule, context.entry_format.bits
    if (node == 0) != (link.remaining <= 0):
        early = f"it ends {link.remaining:,} blocks early"
        return early if node == 0 else "it goes on beyond the count in its head"
    if node == 0:
        return ""
    if link.is_repeated:
        return "it leads back to a block that is on it already"
    entry = node - granule
    if not context.heap.is_fully_walked and not node % granule:
        return ""
    if node % granule or not any(entry in run for segment in context.heap.segments for run in committed_runs(segment)):
        return "it leads to no block of this heap"
    word = None if job.has_damage else context.header_word(entry)
    if word is None:
        return ""
    is_busy = word >> bits.flags & BUSY_FLAG
    return "" if word & 0xFFFF == link.number and is_busy else "it leads to no block of its size"
