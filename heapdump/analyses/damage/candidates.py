"""Who may have damaged a place: the blocks around it, with the reason for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.damage.crash import Bug
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Trust
from heapdump.blocks.table import Block, BlockTable
from heapdump.memory.space import AddressSpace
from heapdump.wording import plural

HEADER_KINDS = ("entry_header", "size_chain", "lfh_subsegment", "vs_chunk")
_OWN_KINDS = ("tail_fill", "page_suffix", "page_header", "crt_guard")
_FREED_KINDS = ("free_fill", "free_list", "page_freed_fill")
_LOOK_BACK = 64
_NEAR = 0x40


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block whose code may have done it, and why. `block`: None where the block is not known, the reason tells which.

    `is_as_likely`: as the one before it; then nothing tells what kind of bug it was.
    """

    block: Block | None
    reason: str
    is_as_likely: bool = False


def suspects_of(space: AddressSpace, table: BlockTable, finding: Finding, block: Block | None) -> Iterator[Candidate]:
    """Likeliest first; none for writes into freed or foreign memory, which may come from anywhere."""
    if finding.kind in _OWN_KINDS and block is not None:
        offset = finding.address - block.address
        where = (
            f"{plural(offset - block.size, 'byte')} past its end"
            if offset >= block.size
            else f"at offset {offset:+,} of it"
        )
        yield Candidate(block, f"the damage begins {where}")
    elif finding.kind in HEADER_KINDS:
        yield from _beside_header(space, table, finding, block)


def _beside_header(
    space: AddressSpace, table: BlockTable, finding: Finding, block: Block | None
) -> Iterator[Candidate]:
    before = block_before(table, finding.address, block)
    if before is None:
        return
    end = before.address + before.size
    gap = finding.address - end
    overrun = Candidate(before, _overrun_reason(space, before, finding, gap))
    underrun = Candidate(block, "the damaged header is its own: a write before its start")
    if is_lost := block is None or block.trust is Trust.GUESS:
        who = "the damaged header is its own" if block else "the block behind the header, lost with it"
        underrun = Candidate(block, f"{who}: a write before its start is as likely", is_as_likely=True)
    if before.state == "free":
        overrun = Candidate(before, "the block before it, which is free now")
    is_overrun = gap <= 0 or (before.state == "busy" and _continues(space, finding, gap))
    if is_overrun and is_lost:
        yield overrun
    else:
        yield from (overrun, underrun) if is_overrun or is_lost else (underrun, overrun)


def _overrun_reason(space: AddressSpace, before: Block, finding: Finding, gap: int) -> str:
    end = before.address + before.size
    if gap <= 0:
        return f"{plural(before.size, 'byte')} up to {end:#x}, where the damage begins"
    reason = f"{plural(before.size, 'byte')} up to {end:#x}, {plural(gap, 'byte')} before the damage"
    return reason + (", filled in the same way" if _continues(space, finding, gap) else "")


def _continues(space: AddressSpace, finding: Finding, gap: int) -> bool:
    """True when the bytes before the damage look like the damage itself: the same byte, or text as it is."""
    size = min(gap, _LOOK_BACK)
    ahead, found = space.try_read(finding.address - size, size), space.try_read(finding.address, max(finding.length, 4))
    if not ahead or not found:
        return False
    if len(set(found)) == 1:
        return ahead[-1] == found[0] and found[0] != 0
    return _is_text(found) and _is_text(ahead)


def _is_text(data: bytes) -> bool:
    return all(0x20 <= byte < 0x7F or byte in b"\r\n\t" for byte in data)


def block_before(table: BlockTable, address: int, block: Block | None) -> Block | None:
    """The nearest block that lies before a header, of the program or free, in the same heap where that is known."""
    row = int(np.searchsorted(table.entry, np.uint64(address), side="right")) - 1
    for i in range(row, max(-1, row - 4), -1):
        candidate = table.block(i)
        if (
            candidate.is_internal
            or (block is not None and candidate.row == block.row)
            or candidate.entry + 15 >= address
        ):
            continue
        return candidate if candidate.end + _NEAR > address else None
    return None


def bug_of(finding: Finding, block: Block | None, candidates: Sequence[Candidate]) -> Bug | None:
    """AddressSanitizer's name for it; None where it tells nothing of how it came about."""
    if finding.kind in _FREED_KINDS:
        return "heap-use-after-free"
    if finding.kind in ("tail_fill", "page_suffix"):
        return "heap-buffer-overflow"
    if finding.kind == "page_header":
        return "heap-buffer-underflow"
    if finding.kind == "crt_guard" and block is not None:
        return "heap-buffer-overflow" if finding.address >= block.address + block.size - 4 else "heap-buffer-underflow"
    if finding.kind in HEADER_KINDS and candidates and not candidates[-1].is_as_likely:
        return "heap-buffer-underflow" if candidates[0].block == block else "heap-buffer-overflow"
    return None
