"""The pointer graph in few words: how much nobody holds any more, and which few blocks hold most of the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph import PointerGraph
from heapdump.analyses.hoards import Finder, hoards, sentence
from heapdump.analyses.lost import LEAKED, Sum, missing_evidence
from heapdump.analyses.unreachable import Reach, Reached
from heapdump.words import plural, short_size


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

    `is_whole`: the dump holds everything that could hold a block; else some of the leaked ones may be held after all.
    """

    leaked: Sum
    direct: Sum
    suspects: tuple[Suspect, ...]
    is_whole: bool

    @property
    def sentence(self) -> str:
        """What is leaked."""
        if not self.leaked.blocks:
            return "the program can still reach every block" if self.is_whole else "every block is pointed to by what this dump holds"
        seem = "can be reached by no pointer" if self.is_whole else "look unreachable, but part of what could hold them is not in this dump"
        return f"{plural(self.leaked.blocks, 'block')} with {short_size(self.leaked.bytes)} {seem}: {self.direct.blocks:,} lost directly"


def holding_of(graph: PointerGraph, reached: Reached, sizes: NDArray[np.uint64], find: Callable[[], Finder]) -> Holding:
    """`sizes`: requested bytes of every row of the block table. `find`: makes what suspects are found with."""
    leaked, direct = (_sum(graph, reached, sizes, *kinds) for kinds in (LEAKED, (Reach.DIRECT,)))
    found = find()
    suspects = tuple(
        Suspect(sentence(graph, hoard), None if hoard.node is None else int(graph.start[hoard.node]), hoard.bytes, hoard.share)
        for hoard in hoards(found)
    )
    return Holding(leaked, direct, suspects, not missing_evidence(graph))


def _sum(graph: PointerGraph, reached: Reached, sizes: NDArray[np.uint64], *kinds: Reach) -> Sum:
    rows = graph.rows[reached.nodes(*kinds)]
    return Sum(len(rows), int(sizes[rows].sum()))
