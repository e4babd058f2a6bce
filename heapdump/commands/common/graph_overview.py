"""The overview of the pointer graph, and blocks in groups, for commands about other questions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.analyses.allocated.leaks import LeakContext, Leaks
    from heapdump.analyses.graph.leak_suspects import LeakSuspect, SuspectFinder
    from heapdump.analyses.graph.overview import GraphOverview
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot


def leak_context(request: Request, snapshot: Snapshot) -> LeakContext:
    """The context in which blocks are grouped, with names from the files that the request names."""
    return snapshot.leak_context(request.image_path, request.symbol_path)


def default_key(snapshot: Snapshot) -> GroupKey:
    """The key of groups: the allocation stack where stacks are recorded, else the type."""
    from heapdump.analyses.allocated.group_key import GroupKey

    return GroupKey.STACK if snapshot.stacks.are_recorded else GroupKey.TYPE


def group_rows(
    request: Request, snapshot: Snapshot, rows: NDArray[np.int64] | None, by: GroupKey | None = None
) -> Leaks:
    """Rows of the block table in groups, None: all busy blocks of the program; `by` None: `default_key`."""
    from heapdump.analyses.allocated.leaks import LeakQuestion, find_leaks

    return find_leaks(leak_context(request, snapshot), LeakQuestion(by or default_key(snapshot), rows))


def suspect_finder(request: Request, snapshot: Snapshot) -> SuspectFinder:
    """Finds leak suspects of the dominator tree."""
    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.analyses.graph.leak_suspects import SuspectFinder

    references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
    by_default, by_type = (partial(group_rows, request, snapshot, by=by) for by in (None, GroupKey.TYPE))
    return SuspectFinder(snapshot.graph, snapshot.retained, references, by_default, by_type)


def leak_suspects(request: Request, snapshot: Snapshot) -> tuple[LeakSuspect, ...]:
    """The leak suspects of the dominator tree; from the index, unless the request names files that can change names."""

    def find() -> tuple[LeakSuspect, ...]:
        """The suspects, found now."""
        return suspect_finder(request, snapshot).suspects()

    return find() if request.image_path or request.symbol_path else snapshot.groups.leak_suspects(find)


def has_small_graph(snapshot: Snapshot, most_bytes: int) -> bool:
    """True where the pointer graph is made of at most `most_bytes` bytes of memory, blocks and roots together.

    Never depends on what the index holds: the answer would change when it is asked again.
    """
    busy = sum(count.busy_bytes for count in snapshot.walk.counts.values())
    return 0 < busy <= most_bytes and busy + sum(area.span.size for area in snapshot.roots.areas) <= most_bytes


def graph_overview(request: Request, snapshot: Snapshot, most_bytes: int) -> GraphOverview | None:
    """The overview of the pointer graph; None where a sweep of more than `most_bytes` bytes would be necessary."""
    if not has_small_graph(snapshot, most_bytes):
        return None
    from heapdump.analyses.graph.overview import overview_of
    from heapdump.commands.common.gaps import walk_gaps

    suspects = leak_suspects(request, snapshot)
    is_walked = not walk_gaps(snapshot)
    graph, reached, table = snapshot.graph, snapshot.reached, snapshot.walk.table
    return overview_of(snapshot.process, graph, reached, table, suspects, is_walked=is_walked)
