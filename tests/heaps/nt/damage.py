"""Counts what damaged metadata do to the answer: blocks lost without a word, wrong sizes and false blocks called exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from heapdump.snapshot import Snapshot

NEW = (b"\0" * 8, b"\xff" * 8, b"AAAAAAAA")
"""What damaged bytes often are."""

Known = dict[int, tuple[int, str]]
"""User address → (requested bytes, trust)."""


@dataclass(frozen=True)
class Place:
    """Bytes of metadata: the first, how many there are, and what they are."""

    address: int
    length: int
    what: str


@dataclass
class Tally:
    """What damages did; `lost`: blocks missing though their own header was not touched."""

    damages: int = 0
    lost: int = 0
    silent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)

    def record(self, record_property: Callable[[str, object], None]) -> None:
        """Hands the counts to the report of the test run, which sums them up."""
        record_property("damages", self.damages)
        record_property("silent losses", len(self.silent))
        record_property("wrong sizes called exact", len(self.wrong))
        record_property("false busy blocks called exact", len(self.false))
        record_property("blocks lost beyond the damaged bytes", self.lost)

    def assert_none(self) -> None:
        """No block lost without a word, none invented, no wrong size called exact."""
        assert (self.silent, self.wrong, self.false) == ([], [], [])


def program_blocks(snapshot: Snapshot) -> Known:
    """The busy blocks of the program."""
    table = snapshot.walk.table
    rows = np.flatnonzero(table.is_busy & ~table.is_internal)
    return {block.address: (block.size, block.trust.value) for block in table.blocks(rows)}


def compare(
    tally: Tally, what: str, snapshot: Snapshot, known: Known, touched: range, *, needs_gap: bool = False
) -> None:
    """Adds what one damage did; `needs_gap`: an error alone does not say that blocks are missing."""
    found = program_blocks(snapshot)
    missing = [address for address in known if address not in found]
    tally.damages += 1
    tally.lost += sum(not touched.start - 0x40 <= address <= touched.stop + 0x40 for address in missing)
    is_said = bool(snapshot.walk.gaps) or any(heap.notes for heap in snapshot.heaps)
    if not needs_gap:
        is_said = is_said or any(explained.finding.is_error for explained in snapshot.explained_findings)
    if missing and not is_said:
        tally.silent.append(f"{what}: {len(missing)} blocks")
    for address, (size, trust) in found.items():
        if trust == "exact" and address not in known:
            tally.false.append(f"{what}: {address:#x}")
        elif trust == "exact" and size != known[address][0]:
            tally.wrong.append(f"{what}: {address:#x} {size} for {known[address][0]}")
