"""A report that Windows or a runtime left in the process, as a finding with the block at fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heapdump.analyses.blocks.locate import Relation
from heapdump.blocks.findings import BugKind, Finding
from heapdump.blocks.table import Block

AccessKind = Literal["read", "write", "execute"]


@dataclass(frozen=True, slots=True)
class RegisterBlock:
    """A register of the thread that failed, and the block that its value points into.

    Attributes:
        register: its name.
        value: its value.
        block: the block.
        relation: where in the block the value points.
    """

    register: str
    value: int
    block: Block
    relation: Relation


@dataclass(frozen=True, slots=True)
class Access:
    """A failed access.

    Attributes:
        kind: read, write or execute.
        address: that was accessed.
        bytes: bytes of the operand; None where they are not known.
        thread: id of the thread; None where it is not known.
        instruction: as text; "" where it is not known.
    """

    kind: AccessKind
    address: int
    bytes: int | None
    thread: int | None
    instruction: str


@dataclass(frozen=True, slots=True)
class WindowsReport:
    """A report of Windows or of a runtime.

    Attributes:
        finding: the report as a finding.
        bug: the bug; None where the report does not say it.
        block: the block at fault; None where it is not known.
        witness: the report in a few words.
        frames: recorded return addresses, innermost first.
        registers: registers of the thread that failed, with the blocks that they point into.
        access: the access that failed; None for other reports.
        beside: addresses of damage that a register of the thread that failed points at.
        used: pointers that the failed access went through.
        entry: address of the entry that ntdll names; 0 for none.
        is_likely: True where the bug is inferred from the pointers that were used.
        sentence: the bug alone; "" where the message of the finding says no more.
        text: lines that a runtime wrote.
    """

    finding: Finding
    bug: BugKind | None
    block: Block | None
    witness: str
    frames: tuple[int, ...] = ()
    registers: tuple[RegisterBlock, ...] = ()
    access: Access | None = None
    beside: tuple[int, ...] = ()
    used: tuple[int, ...] = ()
    entry: int = 0
    is_likely: bool = False
    sentence: str = ""
    text: tuple[str, ...] = ()
