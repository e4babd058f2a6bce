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
    """A register of the thread that failed whose `value` points into a block, and where in it."""

    register: str
    value: int
    block: Block
    relation: Relation


@dataclass(frozen=True, slots=True)
class Access:
    """A failed access: `bytes` of the operand, id of the `thread`, `instruction` in words; None and "" not known."""

    kind: AccessKind
    address: int
    bytes: int | None
    thread: int | None
    instruction: str


@dataclass(frozen=True, slots=True)
class WindowsReport:
    """One report as a finding. `block`: the block at fault, None where it is not known.

    `witness`: the report in a few words; `frames`: return addresses that were recorded, innermost first; `entry`: the
    entry that ntdll names, 0 for none; `is_likely`: the bug is inferred from the pointers that were used; `beside`:
    addresses of damage that a register of the thread that failed points at; `used`: pointers that the failed access
    went through; `sentence`: the bug alone, "" where
    the message of the finding says no more; `text`: lines that a runtime wrote.
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
