"""An access at or beside a page-heap block: before, inside or behind it, or after its free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.analyses.blocks.locate import guard_page
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.blocks.findings import BugKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block, BlockTable
from heapdump.wording import a_size, plural

VERBS = {0: "read", 1: "write", 8: "execution"}
"""ExceptionInformation[0] of an access violation → the access."""


@dataclass(frozen=True, slots=True)
class PageAccess:
    """An access at or beside a page-heap block.

    Attributes:
        bug: the bug that it shows.
        block: the block.
        address: of the access.
        sentence: place of the access, in words.
    """

    bug: BugKind
    block: Block
    address: int
    sentence: str


def by_access(context: ReportContext, access: int | None, address: int) -> PageAccess | None:
    """The page-heap block at or beside an address; None where there is none. `access`: None where it is not known."""
    for heap in context.heaps:
        nodes = context.nodes(heap)
        i = nodes.covering(address) if nodes is not None else None
        block = page_block_of(context.table, int(nodes.user[i])) if nodes is not None and i is not None else None
        if block is not None:
            return _accessed(heap, block, VERBS.get(-1 if access is None else access, "access"), address)
    return None


def _accessed(heap: Heap, block: Block, verb: str, address: int) -> PageAccess:
    """The bug by the place of the access: before, inside or behind the requested bytes [address, address + size)."""
    span = f"[{block.address:#x},{block.address + block.size:#x})"
    words = f"{a_size(block.size, 'block')} {span} of page heap {heap.address:#x}"
    offset = address - block.address
    in_guard = guard_page(block).start <= address < guard_page(block).end
    place = " (guard page)" if in_guard else ""
    if block.state == "free":
        bug, sentence = BugKind.USE_AFTER_FREE, f"{verb} at offset {offset:+,} of {words} that was freed"
    elif offset < 0:
        bug, sentence = BugKind.UNDERFLOW, f"{verb} {plural(-offset, 'byte')} before {words}{place}"
    elif offset < block.size:
        bug, sentence = BugKind.USE_AFTER_FREE, f"{verb} at offset {offset:+,} of {words}, which is not accessible"
    else:
        past = plural(offset - block.size, "byte")
        bug, sentence = BugKind.OVERFLOW, f"{verb} {past} past the end of {words}{place}"
    return PageAccess(bug, block, address, sentence)


def page_block_of(table: BlockTable, user: int) -> Block | None:
    """The page-heap block whose user data begin at `user`; None without one."""
    last = int(np.searchsorted(table.entry, np.uint64(user), side="right")) - 1
    for row in range(last, max(-1, last - 4), -1):
        block = table.block(row)
        if block.address == user and block.kind in (BlockKind.PAGE, BlockKind.LIGHT):
            return block
    return None


def block_at(context: ReportContext, address: int) -> Block | None:
    """The program's block that holds an address, header included; None without one."""
    block = context.locate(address).block
    return block if block is not None and not block.is_internal else None
