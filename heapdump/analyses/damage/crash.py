"""The crash in terms of the heap: the block at fault, and the access or verifier stop that hit it.

Names of bugs are those of AddressSanitizer's reports (semantics.md §2.10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.analyses.damage.page_access import block_at, by_access
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.stops import explain_stop
from heapdump.blocks.findings import BugKind
from heapdump.blocks.table import Block
from heapdump.process.reports.verifier_stop import STOP, VerifierStop

if TYPE_CHECKING:
    from heapdump.process.stacks.faulting import PointerUsed

ACCESS_VIOLATION = 0xC0000005
_VERBS = {0: "reads", 1: "writes", 8: "executes"}


@dataclass(frozen=True, slots=True)
class Crash:
    """A crash that a block of a heap explains.

    Attributes:
        code: of the exception.
        bug: the bug.
        sentence: the bug, for a person.
        address: of the failed access, or of the first damaged byte; None where a stop does not name it.
        block: the block at fault.
        stop: the verifier stop that ended the process; None without one.
        is_likely: True where the bug is inferred from the pointers that the failed access went through, not from its
            address.
    """

    code: int
    bug: BugKind
    sentence: str
    address: int | None
    block: Block
    stop: VerifierStop | None
    is_likely: bool = False

    @property
    def is_free_stack(self) -> bool:
        """True where the recorded stack of the block is the one that freed it."""
        return self.block.state == "free"


def explain_crash(context: ReportContext) -> Crash | None:
    """The crash in terms of a block; None without an exception, and for a crash elsewhere."""
    raised, stop = context.process.exception, context.stop
    if raised is None:
        return None
    if stop is not None:
        found = explain_stop(context, stop)
        if found.bug is None or found.block is None:
            return None
        return Crash(STOP, found.bug, found.sentence, found.address, found.block, stop)
    if raised.code != ACCESS_VIOLATION or len(raised.parameters) < 2:
        return None
    access, address = raised.parameters[:2]
    hit = by_access(context, access, address)
    if hit is not None:
        return Crash(ACCESS_VIOLATION, hit.bug, hit.sentence, address, hit.block, None)
    return _by_pointers(context, access, address)


def _by_pointers(context: ReportContext, access: int, address: int) -> Crash | None:
    """A freed block that the failed access went through: its address is in a register or a stack slot."""
    instruction = context.instruction
    for pointer in instruction.pointers if instruction is not None else ():
        block = block_at(context, pointer.value)
        if block is not None and block.state == "free" and instruction is not None:
            from heapdump.process.symbols.namer import Namer

            where = Namer(context.process).name(instruction.address, 0)
            words = f"{where} {_verb(access, pointer)} through {pointer.holder} = {_place(block, pointer)}"
            return Crash(
                ACCESS_VIOLATION, BugKind.USE_AFTER_FREE, words, pointer.value + pointer.displacement, block, None,
                is_likely=True,
            )  # fmt: skip
    return None


def _verb(access: int, pointer: PointerUsed) -> str:
    """The access through a pointer: a pointer behind the first one was read."""
    return _VERBS.get(access, "uses memory") if pointer.steps == 0 else "reads"


def _place(block: Block, pointer: PointerUsed) -> str:
    """`+0x20 in the freed 192-byte block 0x29a31ef8390`; of what was read there its offset."""
    offset = pointer.value - block.address
    at = f", at {pointer.displacement:+#x} of it" if pointer.displacement else ""
    return f"{offset:+#x} in the freed {block.size:,}-byte block {block.address:#x}{at}"
