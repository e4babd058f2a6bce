"""The verdict on damage in one sentence: where the first bad byte lies beside the block at fault, and what it hit."""

from __future__ import annotations

from heapdump.analyses.damage.explained import ExplainedFinding
from heapdump.blocks.findings import BugKind, Protected
from heapdump.blocks.table import Block
from heapdump.trust import SIZE_IS_A_GUESS, Trust
from heapdump.wording import plural

_UNINFORMATIVE = ("not in the dump", "binary data", "the value", "the number")


def damage_sentence(bug: BugKind | None, address: int, leading: ExplainedFinding) -> str:
    """One sentence on damage that was found; the message of the finding where no block explains the damage.

    `address`: of the first bad byte; `leading`: the finding with the best evidence.
    """
    block = _block_at_fault(bug, leading)
    place = _place(bug, address, block) if block is not None else ""
    if not place:
        return leading.finding.message
    heap = f" of heap {leading.finding.heap:#x}" if leading.finding.heap else ""
    likely = "" if leading.culprit is not None or bug is BugKind.USE_AFTER_FREE else "likely "
    return f"{likely}{place}{heap}: {_damaged(leading)}"


def _block_at_fault(bug: BugKind | None, leading: ExplainedFinding) -> Block | None:
    """The culprit, else the likeliest block; of a use after free the freed block."""
    if bug is BugKind.USE_AFTER_FREE:
        block = leading.culprit or leading.block
        return block if block is not None and block.state == "free" else None
    return leading.culprit or leading.candidate


def _place(bug: BugKind | None, address: int, block: Block) -> str:
    """`3 bytes past the end of the 24-byte block 0x1000`; "" where the address does not fit the bug."""
    words = f"the {block.size:,}-byte block {block.address:#x}"
    if block.trust is Trust.GUESS:
        words += f" ({SIZE_IS_A_GUESS})"
    past, before = address - block.address - block.size, block.address - address
    if bug is BugKind.OVERFLOW and past >= 0:
        return f"{plural(past, 'byte')} past the end of {words}" if past else f"right past the end of {words}"
    if bug is BugKind.UNDERFLOW and before > 0:
        return f"{plural(before, 'byte')} before the start of {words}"
    if bug is BugKind.USE_AFTER_FREE and block.entry <= address < block.end:
        inside = f"+{-before:#x} in " if before < 0 else "at the start of " if before == 0 else "before "
        return f"written {inside}the freed {words.removeprefix('the ')}"
    return ""


def _damaged(leading: ExplainedFinding) -> str:
    """What the write hit, and with what."""
    finding = leading.finding
    meaning = leading.evidence.meaning
    written = f" with {meaning}" if not meaning.startswith(_UNINFORMATIVE) and meaning else ""
    if finding.rule.protected is Protected.HEADER:
        return f"a header is overwritten at {finding.address:#x}{written}"
    return f"{finding.at_least}{plural(max(finding.length, 1), 'byte')} overwritten{written}"
