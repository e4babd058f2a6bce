"""The pointer graph in few words: the unreachable blocks, and the blocks that retain most of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.graph.leak_suspects import LeakSuspect, sentence
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.unreachable import LEAKED, Reach, Reachability
from heapdump.analyses.graph.unreachable_report import BlockSum, missing_evidence
from heapdump.analyses.graph.way_in import NO_WAY_IN, has_way_in
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import UNIT
from heapdump.process.model import Process
from heapdump.wording import plural, short_size


@dataclass(frozen=True, slots=True)
class SuspectLine:
    """A leak suspect in one sentence. `address`: of a single block, None for a group; `bytes`, `share`: retained."""

    sentence: str
    address: int | None
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class GraphOverview:
    """`leaked`: direct and indirect leaks; `direct`: the direct ones of them; `suspects`: the largest first.

    `is_complete`: all memory that can hold a pointer is known; else some leaked blocks may be reachable. `has_way_in`:
    roots of the program lead into the heaps.
    """

    leaked: BlockSum
    direct: BlockSum
    suspects: tuple[SuspectLine, ...]
    is_complete: bool
    has_way_in: bool = True

    @property
    def sentence(self) -> str:
        """The leaked blocks in one sentence."""
        if not self.leaked.blocks:
            return (
                "the program can still reach every block"
                if self.is_complete
                else "every block is pointed to by what is known of this process"
            )
        if not self.has_way_in:
            return NO_WAY_IN
        blocks = f"{plural(self.leaked.blocks, 'block')} ({short_size(self.leaked.bytes)})"
        if self.is_complete:
            return f"{blocks} are unreachable, {self.direct.blocks:,} of them directly leaked"
        doubt = "part of what could hold them is missing or damaged"
        return f"{blocks} look unreachable, {self.direct.blocks:,} of them directly leaked; but {doubt}"


def overview_of(
    process: Process,
    graph: PointerGraph,
    reached: Reachability,
    table: BlockTable,
    suspects: Sequence[LeakSuspect],
    *,
    is_walked: bool,
) -> GraphOverview:
    """`table`: of all blocks; `suspects`: the largest first; `is_walked`: the walk of every heap has no gap."""
    leaked, direct = leaked_sum(graph, reached, table), _sum(graph, reached, table, Reach.DIRECT)
    lines = tuple(
        SuspectLine(
            sentence(graph, suspect),
            None if suspect.node is None else graph.span(suspect.node).start,
            suspect.bytes,
            suspect.share,
        )
        for suspect in suspects
    )
    way_in = has_way_in(process, graph)
    is_complete = is_walked and way_in and not missing_evidence(graph)
    return GraphOverview(leaked, direct, lines, is_complete, way_in)


def leaked_sum(graph: PointerGraph, reached: Reachability, table: BlockTable) -> BlockSum:
    """The direct and indirect leaks."""
    return _sum(graph, reached, table, *LEAKED)


def _sum(graph: PointerGraph, reached: Reachability, table: BlockTable, *states: Reach) -> BlockSum:
    """Blocks and requested bytes, size8 * UNIT - unused, of nodes of these states."""
    rows = graph.rows[reached.nodes(*states)]
    requested = int(table.size8[rows].sum(dtype=np.int64)) * UNIT - int(table.unused[rows].sum(dtype=np.int64))
    return BlockSum(len(rows), requested)
