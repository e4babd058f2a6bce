"""Candidates: the blocks whose overrun, underrun or use after free would explain a finding, each with the reason.

In: a finding and the block that was damaged. Out: a judgement: the bug, the culprit where the bytes decide, and the
candidates, the likeliest first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from heapdump.analyses.damage.header_write import (
    Direction,
    HeaderWrite,
    OverwrittenHeader,
    Surroundings,
    judge_header_write,
)
from heapdump.analyses.damage.near_blocks import NearBlocks
from heapdump.blocks.findings import BugKind, Finding, Protected
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block, BlockTable
from heapdump.memory.space import AddressSpace
from heapdump.wording import plural

_NEAR = 0x40
"""Bytes between the end of a block and a header up to which the block counts as its neighbour."""

_GUARD_BYTES, _WORD = 4, 8
_KNOWN_BYTES = re.compile(r"(?:\?\? )*[0-9a-f]{2}(?: (?:[0-9a-f]{2}|\?\?))*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block whose overrun, underrun or use after free would explain the damage.

    Attributes:
        block: the block; None for one that has no row in the block table: then the reason names it.
        reason: why it explains the damage, in words.
    """

    block: Block | None
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The explanation of one finding.

    Attributes:
        bug: None where several bugs explain it equally well.
        culprit: the candidate that the bytes prove; None where they prove none.
        candidates: the likeliest first.
        start: address of the first byte that the same write changed.
    """

    bug: BugKind | None
    culprit: Block | None
    candidates: tuple[Candidate, ...]
    start: int


@dataclass(frozen=True, slots=True)
class DamageContext:
    """Memory and blocks by which findings are judged. `is_pointer`: True for an address of committed memory."""

    space: AddressSpace
    table: BlockTable
    is_pointer: Callable[[int], bool]


def judge(context: DamageContext, near: NearBlocks, finding: Finding, block: Block | None) -> Judgement:
    """The judgement on a finding.

    `near`: of the addresses of several findings, this one's among them. `block`: the damaged block; None where none is
    known.

    No candidates for writes into freed memory and into lists: these may come from any code.
    """
    if finding.rule.protected is Protected.HEADER:
        return _header(context, near, finding, block)
    if finding.rule.protected is Protected.BLOCK and block is not None:
        return _beside_block(finding, block)
    return Judgement(finding.rule.bug, None, (), finding.address)


def _beside_block(finding: Finding, block: Block) -> Judgement:
    """A write beside the requested bytes of a block, in bytes that are its own."""
    offset, end = finding.address - block.address, finding.address + finding.length
    if finding.rule.bug is BugKind.UNDERFLOW and offset >= 0 and end <= block.address + block.size:
        # the bytes are another block's, which has no row because its information is overwritten
        overwritten = Candidate(
            None, f"the block at {end:#x}, whose information is overwritten: a write before its start"
        )
        return Judgement(BugKind.UNDERFLOW, None, (overwritten,), finding.address)
    where = (
        "where its bytes end"
        if offset == block.size
        else f"{plural(offset - block.size, 'byte')} past its end"
        if offset > block.size
        else f"{plural(-offset, 'byte')} before its start"
        if offset < 0
        else f"at offset {offset:+,} of it"
    )
    # guards stand on both sides of the block: the side decides
    side = BugKind.OVERFLOW if offset >= block.size - _GUARD_BYTES else BugKind.UNDERFLOW
    candidates = (Candidate(block, f"the damage begins {where}"),)
    return Judgement(finding.rule.bug or side, block, candidates, finding.address)


def _header(context: DamageContext, near: NearBlocks, finding: Finding, block: Block | None) -> Judgement:
    before = _block_before(near, finding.address, block)
    own = Candidate(block, _own_words(block))
    word = _header_word(finding, block)
    if block is not None and block.kind in (BlockKind.VIRTUAL, BlockKind.LARGE) and block.state == "busy":
        reason = Candidate(block, f"{own.reason}; no block lies before it in its reservation")
        return Judgement(BugKind.UNDERFLOW, block, (reason,), finding.address)
    if before is None:
        lead = finding.address - word
        if block is None or block.state == "free" or not _is_exact(finding) or lead < _WORD // 2:
            return Judgement(None, None, (own,) if block is not None else (), finding.address)
        return Judgement(BugKind.UNDERFLOW, block, (own,), finding.address)
    end = before.end if before.state == "free" else before.address + before.size
    damage = max(finding.address, word) if _is_exact(finding) else None
    user = block.address if block is not None else word + _WORD
    around = Surroundings(context.space, before, block, context.is_pointer)
    found = judge_header_write(around, OverwrittenHeader(min(end, word), word, damage, user))
    return _judged(found, before, block, own)


def _judged(found: HeaderWrite, before: Block, block: Block | None, own: Candidate) -> Judgement:
    freed = "freed " if before.state == "free" else ""
    end = before.address + before.size
    overrun = Candidate(before, f"{freed}{plural(before.size, 'byte')} up to {end:#x}; {found.evidence}")
    if found.direction is Direction.OVERRUN:
        bug = BugKind.USE_AFTER_FREE if before.state == "free" else BugKind.OVERFLOW
        return Judgement(bug, before, (overrun,), found.start)
    if found.direction is Direction.UNDERRUN and (block is None or block.state == "busy"):
        reason = Candidate(block, f"{own.reason}; {found.evidence}")
        return Judgement(BugKind.UNDERFLOW, block, (reason, overrun_of(before)), found.start)
    return Judgement(None, None, (own, overrun) if before.state == "free" else (overrun, own), found.start)


def overrun_of(before: Block) -> Candidate:
    """An overrun of `before`, the block before a header, as the less likely of two candidates."""
    end = before.address + before.size
    return Candidate(before, f"{before.state}, {plural(before.size, 'byte')} up to {end:#x}: less likely")


def _own_words(block: Block | None) -> str:
    if block is None:
        return "the block behind the header, lost with it: a write before its start"
    state = "it is free: " if block.state == "free" else ""
    return f"{state}the damaged header is its own, a write before its start"


def _is_exact(finding: Finding) -> bool:
    """True where the finding's address is the first changed byte: its expected bytes are known, at least one."""
    return _KNOWN_BYTES.fullmatch(finding.expected) is not None


def _header_word(finding: Finding, block: Block | None) -> int:
    """The header word that the finding is about: the 8 bytes before user data, of other headers the entry."""
    if block is None:
        return finding.address & ~(_WORD - 1)
    word = block.address - _WORD
    if word <= finding.address < block.address or (finding.address == block.entry and finding.length > _WORD):
        return word
    return max(block.entry, finding.address & ~(_WORD - 1))


def _block_before(near: NearBlocks, address: int, block: Block | None) -> Block | None:
    """The nearest block that ends before the header at `address`; None where none ends within 0x40 bytes of it.

    Blocks of the allocator itself and `block`, the owner of the header, are left out.
    """
    row = near.row_at(address)
    for i in range(row, max(-1, row - 4), -1):
        candidate = near.block(i)
        if (
            candidate.is_internal
            or (block is not None and candidate.row == block.row)
            or candidate.entry + 15 >= address
        ):
            continue
        return candidate if candidate.end + _NEAR > address else None
    return None
