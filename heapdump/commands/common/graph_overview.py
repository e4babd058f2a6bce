"""What the pointer graph says in few words, for commands that ask something else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.leaks import By, Leaks
    from heapdump.analyses.graph.leak_suspects import Finder, LeakSuspect
    from heapdump.analyses.graph.overview import Holding
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot


def group_rows(request: Request, snapshot: Snapshot, rows: NDArray[np.int64], by: By | None = None) -> Leaks:
    """Rows of the block table in groups; None: by allocation stack where stacks are recorded, else by type."""
    from heapdump.analyses.allocated.leaks import Question, find_leaks
    from heapdump.analyses.allocated.suppressions import Suppressions

    question = Question(by or ("stack" if snapshot.stacks.are_recorded else "type"), rows)
    namer = partial(snapshot.namer, request.image_path, request.symbol_path)
    return find_leaks(
        snapshot.process,
        snapshot.heaps,
        snapshot.walk.table,
        snapshot.stacks,
        namer,
        question,
        Suppressions(),
        snapshot.crt.blocks,
    )


def finder_of(request: Request, snapshot: Snapshot) -> Finder:
    """What leak suspects of the dominator tree are found with."""
    from heapdump.analyses.graph.leak_suspects import Finder

    references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
    return Finder(
        snapshot.graph, snapshot.retained, references,
        lambda rows: group_rows(request, snapshot, rows), lambda rows: group_rows(request, snapshot, rows, "type"),
    )  # fmt: skip


def hoards_of(request: Request, snapshot: Snapshot) -> tuple[LeakSuspect, ...]:
    """The leak suspects of the dominator tree. Kept with the index, but where files named by the user could name them."""
    from heapdump.analyses.graph.leak_suspects import hoards

    if request.image_path or request.symbol_path:
        return hoards(finder_of(request, snapshot))
    return snapshot.leak_suspects(lambda: hoards(finder_of(request, snapshot)))


def holding(request: Request, snapshot: Snapshot, most_bytes: int) -> Holding | None:
    """What is held and what is not; None where that would mean to sweep more than `most_bytes` of memory now."""
    from heapdump.analyses.graph.overview import holding_of
    from heapdump.commands.common.block_rows import walk_gaps

    if not snapshot.has_graph(most_bytes):
        return None
    return holding_of(
        snapshot.graph,
        snapshot.reached,
        snapshot.walk.table,
        hoards_of(request, snapshot),
        is_walked=not walk_gaps(snapshot),
    )
