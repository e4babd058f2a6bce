"""What ended the process, as far as the heap is concerned: which block, how, and who allocated and freed it.

Names are those of AddressSanitizer's reports (semantics.md §2.10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from heapdump.analyses.blocks.select import guard_page
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import Block, BlockTable
from heapdump.process.model import Process
from heapdump.process.reports.verifier_stop import STOP, VerifierStop, find_stop
from heapdump.wording import plural

Bug = Literal["heap-buffer-overflow", "heap-buffer-underflow", "heap-use-after-free", "double-free", "bad-free"]
ACCESS_VIOLATION = 0xC0000005
_VERBS = {0: "read", 1: "write", 8: "execution"}
_SUFFIX = 0xF  # the one heap stop whose fourth parameter is the first damaged byte
_STOP_BUGS: dict[int, Bug] = {
    0x6: "bad-free", 0x7: "double-free", 0xD: "heap-use-after-free", 0xE: "heap-use-after-free",
    0xF: "heap-buffer-overflow", 0x10: "heap-buffer-underflow", 0x11: "heap-buffer-underflow",
    0x12: "heap-buffer-underflow",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash that the heap explains. `address`: of the failed access, or of the first damaged byte where it is known.

    `code` of the exception; `sentence`: what happened, in words.
    """

    code: int
    bug: Bug
    sentence: str
    address: int | None
    block: Block
    stop: VerifierStop | None

    @property
    def is_free_stack(self) -> bool:
        """True where the recorded stack is the one that freed the block."""
        return self.block.state == "free"


@dataclass(frozen=True, slots=True)
class PageHeaps:
    """The page heaps of a process: for each, its own records."""

    heaps: Sequence[Heap]
    nodes: Callable[[Heap], PageNodes | None]


def explain_crash(process: Process, table: BlockTable, pages: PageHeaps) -> Crash | None:
    """The crash in terms of a page heap block; None where there is no exception, or another one."""
    raised = process.exception
    if raised is None:
        return None
    stop = find_stop(process)
    if stop is not None:
        return _by_stop(table, pages, stop)
    if raised.code == ACCESS_VIOLATION and len(raised.parameters) >= 2:
        return _by_access(table, pages, raised.parameters[0], raised.parameters[1])
    return None


def _by_access(table: BlockTable, pages: PageHeaps, how: int, address: int) -> Crash | None:
    for heap in pages.heaps:
        nodes = pages.nodes(heap)
        i = nodes.holding(address) if nodes is not None else None
        if nodes is not None and i is not None and (block := _block_at(table, int(nodes.user[i]))) is not None:
            return _accessed(heap, block, _VERBS.get(how, "access"), address)
    return None


def _accessed(heap: Heap, block: Block, verb: str, address: int) -> Crash:
    whole = f"a {block.size:,}-byte block [{block.address:#x},{block.address + block.size:#x}) of page heap {heap.address:#x}"
    offset = address - block.address
    in_guard = guard_page(block).start <= address < guard_page(block).end
    place = " (guard page)" if in_guard else ""
    if block.state == "free":
        sentence = f"{verb} at offset {offset:+,} of {whole} that was freed"
        return Crash(ACCESS_VIOLATION, "heap-use-after-free", sentence, address, block, None)
    if offset < 0:
        sentence = f"{verb} {plural(-offset, 'byte')} before {whole}{place}"
        return Crash(ACCESS_VIOLATION, "heap-buffer-underflow", sentence, address, block, None)
    if offset < block.size:
        sentence = f"{verb} at offset {offset:+,} of {whole}, which is not accessible"
        return Crash(ACCESS_VIOLATION, "heap-use-after-free", sentence, address, block, None)
    sentence = f"{verb} {plural(offset - block.size, 'byte')} past the end of {whole}{place}"
    return Crash(ACCESS_VIOLATION, "heap-buffer-overflow", sentence, address, block, None)


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
            bug = _STOP_BUGS[stop.code]
            sentence = (
                f"Application Verifier stop {stop.code:#x} ({stop.words}): {plural(block.size, 'byte')} at {block.address:#x} "
                f"of page heap {heap.address:#x}"
            )
            return Crash(STOP, bug, sentence, stop.parameters[3] if stop.code == _SUFFIX else None, block, stop)
    return None


def _block_at(table: BlockTable, user: int) -> Block | None:
    """The page heap block that the program got at this address."""
    last = int(np.searchsorted(table.entry, np.uint64(user), side="right")) - 1
    for row in range(last, max(-1, last - 4), -1):
        block = table.block(row)
        if block.address == user and block.kind in (BlockKind.PAGE, BlockKind.LIGHT):
            return block
    return None
