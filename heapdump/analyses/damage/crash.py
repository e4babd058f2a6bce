"""The crash in terms of the heap: the page-heap block at fault, and the access or verifier stop that hit it.

Names of bugs are those of AddressSanitizer's reports (semantics.md §2.10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.blocks.locate import guard_page
from heapdump.blocks.findings import BugKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import Block, BlockTable
from heapdump.process.model import Process
from heapdump.process.reports.verifier_stop import STOP, VerifierStop, find_stop
from heapdump.wording import plural

ACCESS_VIOLATION = 0xC0000005
_VERBS = {0: "read", 1: "write", 8: "execution"}
"""ExceptionInformation[0] of an access violation → the access."""

_SUFFIX = 0xF
"""The one stop of the heap layer whose fourth parameter is the address of the first damaged byte."""

_STOP_BUGS = {
    0x6: BugKind.BAD_FREE, 0x7: BugKind.DOUBLE_FREE, 0xD: BugKind.USE_AFTER_FREE, 0xE: BugKind.USE_AFTER_FREE,
    0xF: BugKind.OVERFLOW, 0x10: BugKind.UNDERFLOW, 0x11: BugKind.UNDERFLOW, 0x12: BugKind.UNDERFLOW,
}  # fmt: skip
"""Stop code → bug (heap-structures.md §7.2)."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash that the heap explains. `code`: of the exception; `sentence`: the bug for a person.

    `address`: of the failed access, or of the first damaged byte; None where a stop does not name it.
    """

    code: int
    bug: BugKind
    sentence: str
    address: int | None
    block: Block
    stop: VerifierStop | None

    @property
    def is_free_stack(self) -> bool:
        """True where the recorded stack of the block is the one that freed it."""
        return self.block.state == "free"


@dataclass(frozen=True, slots=True)
class PageHeaps:
    """The heaps of a process, and the nodes of each; `nodes` gives None for heaps that are no page heaps."""

    heaps: Sequence[Heap]
    nodes: Callable[[Heap], PageNodes | None]


def explain_crash(process: Process, table: BlockTable, pages: PageHeaps) -> Crash | None:
    """The crash in terms of a page-heap block; None without an exception, and for a crash elsewhere."""
    raised = process.exception
    if raised is None:
        return None
    stop = find_stop(process)
    if stop is not None:
        return _by_stop(table, pages, stop)
    if raised.code == ACCESS_VIOLATION and len(raised.parameters) >= 2:
        return _by_access(table, pages, raised.parameters[0], raised.parameters[1])
    return None


def _by_access(table: BlockTable, pages: PageHeaps, access: int, address: int) -> Crash | None:
    for heap in pages.heaps:
        nodes = pages.nodes(heap)
        i = nodes.covering(address) if nodes is not None else None
        if nodes is not None and i is not None and (block := _block_at(table, int(nodes.user[i]))) is not None:
            return _accessed(heap, block, _VERBS.get(access, "access"), address)
    return None


def _accessed(heap: Heap, block: Block, verb: str, address: int) -> Crash:
    """The bug by the place of the access: before, inside or behind the requested bytes [address, address + size)."""
    span = f"[{block.address:#x},{block.address + block.size:#x})"
    words = f"a {block.size:,}-byte block {span} of page heap {heap.address:#x}"
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
    return Crash(ACCESS_VIOLATION, bug, sentence, address, block, None)


def _by_stop(table: BlockTable, pages: PageHeaps, stop: VerifierStop) -> Crash | None:
    """The block that a verifier stop names: by its address, or by its node (a double free)."""
    if stop.block is None or stop.code not in _STOP_BUGS:
        return None
    for heap in pages.heaps:
        nodes = pages.nodes(heap)
        at = np.flatnonzero(nodes.node == stop.block) if nodes is not None else np.empty(0, np.int64)
        user = int(nodes.user[at[0]]) if nodes is not None and len(at) else stop.block
        block = _block_at(table, user)
        if block is not None and block.heap == heap.index:
            place = f"{plural(block.size, 'byte')} at {block.address:#x} of page heap {heap.address:#x}"
            sentence = f"Application Verifier stop {stop.code:#x} ({stop.words}): {place}"
            address = stop.parameters[3] if stop.code == _SUFFIX else None
            return Crash(STOP, _STOP_BUGS[stop.code], sentence, address, block, stop)
    return None


def _block_at(table: BlockTable, user: int) -> Block | None:
    """The page-heap block whose user data begin at `user`."""
    last = int(np.searchsorted(table.entry, np.uint64(user), side="right")) - 1
    for row in range(last, max(-1, last - 4), -1):
        block = table.block(row)
        if block.address == user and block.kind in (BlockKind.PAGE, BlockKind.LIGHT):
            return block
    return None
