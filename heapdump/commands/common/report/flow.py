"""Who holds what: the bytes of busy blocks by holder and by type, for the figure that ties the two together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from heapdump.commands.common.graph_overview import group_rows
from heapdump.commands.common.next_command import command_text
from heapdump.render.report.content import Band, Flow, FlowEnd
from heapdump.render.text import plural

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.leaks import Leaks
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_MOST = 9
"""Holders and types with a place of their own; the others share one."""


def flow_of(request: Request, snapshot: Snapshot) -> Flow | None:
    """The figure of holders and types; None without busy blocks, and where no holder is known."""
    from heapdump.analyses.allocated.by import By
    from heapdump.analyses.blocks.select import Filter, select

    table = snapshot.walk.table
    rows = select(table, snapshot.heaps, Filter())
    owners, types = (group_rows(request, snapshot, rows, by) for by in (By.OWNER, By.STRUCTURE))
    if owners.missing or types.missing or not len(owners.rows):
        return None
    holders, left = _ends(owners, "other holder")
    kinds, right = _ends(types, "other type")
    both, at_left, at_right = np.intersect1d(owners.rows, types.rows, return_indices=True)
    totals = np.zeros((len(holders), len(kinds)), np.int64)
    np.add.at(totals, (left[at_left], right[at_right]), table.sizes(both).astype(np.int64))
    bands = tuple(
        Band(i, k, int(totals[i, k])) for i, k in zip(*(found.tolist() for found in np.nonzero(totals)), strict=True)
    )
    line = partial(command_text, snapshot)
    return Flow(
        holders, kinds, bands, line(("leaks", "--group-by", "owner")), line(("leaks", "--group-by", "structure"))
    )


def _ends(leaks: Leaks, others: str) -> tuple[tuple[FlowEnd, ...], NDArray[np.int64]]:
    """(the largest groups and one for the rest, the place of each row among them)."""
    shown = leaks.groups[:_MOST] if len(leaks.groups) > _MOST + 1 else leaks.groups
    ends = [FlowEnd(found.key.removeprefix("held by "), found.group.bytes) for found in shown]
    rest = leaks.groups[len(shown) :]
    if rest:
        ends.append(FlowEnd(plural(len(rest), others), sum(found.group.bytes for found in rest)))
    width = int(leaks.values.max()) + 1
    place = np.full(width, len(shown), np.int64)
    for i, found in enumerate(shown):
        place[found.group.value] = i
    return tuple(ends), place[leaks.values]
