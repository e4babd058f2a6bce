"""Candidates: the blocks whose overrun, underrun or use after free would explain a finding, each with the reason.

In: a finding and the block that was damaged. Out: candidates, the likeliest first, and the bug they make likely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.findings import BugKind, Finding, Protected
from heapdump.blocks.table import Block, BlockTable
from heapdump.memory.space import AddressSpace
from heapdump.trust import Trust
from heapdump.wording import plural

_LOOK_BACK = 64
"""Bytes before the damage that are compared with it."""

_NEAR = 0x40
"""Bytes between the end of a block and a header up to which the block counts as its neighbour."""

_GUARD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block whose code may have caused the damage, and the reason.

    `block`: None for a block that exists but has no row; then the reason names it. `is_as_likely`: as likely as the
    candidate before it, so that the kind of bug is not decided.
    """

    block: Block | None
    reason: str
    is_as_likely: bool = False


def candidates_of(space: AddressSpace, table: BlockTable, finding: Finding, block: Block | None) -> Iterator[Candidate]:
    """The candidates for a finding in `block`, likeliest first.

    None for writes into freed memory and into lists: these may come from any code.
    """
    if finding.rule.protected is Protected.BLOCK and block is not None:
        offset = finding.address - block.address
        where = (
            f"{plural(offset - block.size, 'byte')} past its end"
            if offset >= block.size
            else f"at offset {offset:+,} of it"
        )
        yield Candidate(block, f"the damage begins {where}")
    elif finding.rule.protected is Protected.HEADER:
        yield from _beside_header(space, table, finding, block)


def _beside_header(
    space: AddressSpace, table: BlockTable, finding: Finding, block: Block | None
) -> Iterator[Candidate]:
    """The block before the header (overrun) and the block of the header (underrun)."""
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
    """True where the `gap` bytes before the damage look like the damage: the same repeated byte, or both text."""
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
    """The nearest block that ends before the header at `address`; None where none ends within 0x40 bytes of it.

    Blocks of the allocator itself and `block`, the owner of the header, are left out.
    """
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


def bug_of(finding: Finding, block: Block | None, candidates: Sequence[Candidate]) -> BugKind | None:
    """The bug that explains a finding in `block`; None where several bugs explain it equally well."""
    rule = finding.rule
    if rule.protected is Protected.BLOCK and rule.bug is None and block is not None:
        # guards stand on both sides of the block: the side decides
        is_behind = finding.address >= block.address + block.size - _GUARD_BYTES
        return BugKind.OVERFLOW if is_behind else BugKind.UNDERFLOW
    if rule.protected is Protected.HEADER and candidates and not candidates[-1].is_as_likely:
        return BugKind.UNDERFLOW if candidates[0].block == block else BugKind.OVERFLOW
    return rule.bug
