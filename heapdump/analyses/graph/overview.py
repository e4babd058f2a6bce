"""The pointer graph in few words: how much nobody holds any more, and which few blocks hold most of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.graph.leak_suspects import LeakSuspect, sentence
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.unreachable import Reach, Reached
from heapdump.analyses.graph.unreachable_report import LEAKED, Sum, missing_evidence
from heapdump.blocks.table import BlockTable
from heapdump.wording import plural, short_size


@dataclass(frozen=True)
class Suspect:
    """A sentence on a block, or a group of blocks, that keeps much alive; the retained bytes and their share."""

    sentence: str
    address: int | None
    bytes: int
    share: float


@dataclass(frozen=True)
class Holding:
    """`leaked`: blocks that nothing reachable points to, `direct` of them no pointer at all; `suspects`, largest first.

    `is_whole`: everything that could hold a block is known; else some of the leaked ones may be held after all.
    """

    leaked: Sum
    direct: Sum
    suspects: tuple[Suspect, ...]
    is_whole: bool

    @property
    def sentence(self) -> str:
        """What is leaked."""
        if not self.leaked.blocks:
            return (
                "the program can still reach every block"
                if self.is_whole
                else "every block is pointed to by what is known of this process"
            )
        seem = (
            "can be reached by no pointer"
            if self.is_whole
            else "look unreachable, but part of what could hold them is missing or damaged"
        )
        return f"{plural(self.leaked.blocks, 'block')} with {short_size(self.leaked.bytes)} {seem}: {self.direct.blocks:,} lost directly"


def holding_of(
    graph: PointerGraph, reached: Reached, table: BlockTable, hoards: Sequence[LeakSuspect], *, is_walked: bool
) -> Holding:
    """`table`: of all blocks; `hoards`: the suspects, largest first; `is_walked`: every block of every heap is known."""
    leaked, direct = (_sum(graph, reached, table, *kinds) for kinds in (LEAKED, (Reach.DIRECT,)))
    suspects = tuple(
        Suspect(
            sentence(graph, hoard),
            None if hoard.node is None else int(graph.start[hoard.node]),
            hoard.bytes,
            hoard.share,
        )
        for hoard in hoards
    )
    return Holding(leaked, direct, suspects, is_walked and not missing_evidence(graph))


def _sum(graph: PointerGraph, reached: Reached, table: BlockTable, *kinds: Reach) -> Sum:
    rows = graph.rows[reached.nodes(*kinds)]
    return Sum(len(rows), int(table.size8[rows].sum(dtype=np.int64)) * 8 - int(table.unused[rows].sum(dtype=np.int64)))
