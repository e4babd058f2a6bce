"""Verifier stops in terms of the heap: the bug that each code stands for, and the block that it is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.analyses.damage.page_access import block_at, by_access, page_block_of
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.blocks.findings import BugKind
from heapdump.blocks.table import Block
from heapdump.process.reports.stop_codes import ACCESS_STOPS, LEAK_STOPS, LEAKED_BLOCK
from heapdump.process.reports.verifier_stop import VerifierStop
from heapdump.wording import plural

_SUFFIX, _START_STAMP, _WRONG_HEAP, _DOUBLE_FREE = 0xF, 0x10, 0x6, 0x7
_FREED_STAMPS = (0xABCDBBBA, 0xABCDAAA9)
"""Start stamps of freed blocks, full and light page heap (heap-structures.md §5)."""

_BUGS = {
    0x3: BugKind.LOCK, 0x5: BugKind.HANDLE, 0x6: BugKind.MISMATCH, 0x7: BugKind.DOUBLE_FREE, 0x8: BugKind.CORRUPTION,
    0xA: BugKind.CORRUPTION, 0xB: BugKind.BAD_FREE, 0xC: BugKind.BAD_FREE, 0xD: BugKind.USE_AFTER_FREE,
    0xE: BugKind.USE_AFTER_FREE, 0xF: BugKind.OVERFLOW, 0x10: BugKind.UNDERFLOW, 0x11: BugKind.UNDERFLOW,
    0x12: BugKind.UNDERFLOW, 0x14: BugKind.CORRUPTION, 0x600: BugKind.DOUBLE_FREE, 0x604: BugKind.DOUBLE_FREE,
    0x602: BugKind.BAD_FREE, 0x60A: BugKind.BAD_FREE, 0x60C: BugKind.BAD_FREE,
}  # fmt: skip
"""Stop code → bug (heap-structures.md §7.2)."""

_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class ExplainedStop:
    """A verifier stop in terms of the heap.

    Attributes:
        bug: the bug that its code stands for; None where it stands for none.
        block: the block at fault; None where none is known.
        address: of the first damaged byte or of the access; None where the stop does not say it.
        sentence: the stop, for a person.
    """

    bug: BugKind | None
    block: Block | None
    address: int | None
    sentence: str


def bug_of_stop(code: int) -> BugKind | None:
    """The bug that a stop code stands for; None where it stands for none (heap-structures.md §7.2)."""
    if code in LEAK_STOPS:
        return BugKind.LEAK
    layers = {0x2: BugKind.LOCK, 0x3: BugKind.HANDLE}
    return _BUGS.get(code, layers.get(code >> 8))


def explain_stop(context: ReportContext, stop: VerifierStop) -> ExplainedStop:
    """The stop with its block."""
    title = stop.sentence
    if stop.code in ACCESS_STOPS:
        found = by_access(context, None, stop.parameters[0])
        if found is None:
            return ExplainedStop(None, None, stop.parameters[0], f"{title}: at {stop.parameters[0]:#x}")
        return ExplainedStop(found.bug, found.block, found.address, f"{title}: {found.sentence}")
    bug, block = bug_of_stop(stop.code), _block(context, stop)
    if block is None:
        return ExplainedStop(bug, None, stop.block, title + _pointer_words(stop))
    heap = context.heaps[block.heap]
    place = f"{plural(block.size, 'byte')} at {block.address:#x} of {heap.kind} heap {heap.address:#x}"
    if stop.code == LEAKED_BLOCK:
        return ExplainedStop(bug, block, block.address, f"{title}: {place}{_dll(context, stop)}")
    if stop.code == _WRONG_HEAP:
        given, own = stop.parameters[0], stop.parameters[3]
        return ExplainedStop(bug, block, None, f"{title}: {place}; freed to heap {given:#x}, allocated from {own:#x}")
    if stop.code == _START_STAMP and stop.parameters[3] & 0xFFFFFFFF in _FREED_STAMPS:
        stamp = stop.parameters[3] & 0xFFFFFFFF
        return ExplainedStop(
            BugKind.DOUBLE_FREE, block, block.address,
            f"{title}: {place}; the stamp {stamp:#x} is that of a freed block: used or freed after its free",
        )  # fmt: skip
    address = stop.parameters[3] if stop.code == _SUFFIX and block.entry <= stop.parameters[3] else None
    return ExplainedStop(bug, block, address, f"{title}: {place}")


def _block(context: ReportContext, stop: VerifierStop) -> Block | None:
    """The block that a stop names: by its address, or by its page-heap node (a double free)."""
    if stop.block is None:
        return None
    for heap in context.heaps:
        nodes = context.nodes(heap)
        at = np.flatnonzero(nodes.node == stop.block) if nodes is not None else np.empty(0, np.int64)
        user = int(nodes.user[at[0]]) if nodes is not None and len(at) else stop.block
        block = page_block_of(context.table, user)
        if block is not None and block.heap == heap.index:
            return block
    found = block_at(context, stop.block)
    return found if found is not None and found.address == stop.block else None


def _pointer_words(stop: VerifierStop) -> str:
    return f": {stop.block:#x}" if stop.block else ""


def _dll(context: ReportContext, stop: VerifierStop) -> str:
    """The DLL that leaked: its name is the third parameter, its base the fourth."""
    data = b""
    for size in range(_LONGEST_NAME, 0, -2):
        data = context.process.space.try_read(stop.parameters[2], size) or b""
        if data:
            break
    name = data.decode("utf-16-le", "replace").partition("\0")[0] if data else ""
    unloaded = next((m.name for m in context.process.unloaded if stop.parameters[3] in m.span), "")
    named = name if name.isprintable() and name else unloaded
    return f", left behind by {named or f'the DLL at {stop.parameters[3]:#x}'}"
