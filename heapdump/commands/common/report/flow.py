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
    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.analyses.allocated.pairs import bytes_of_pairs
    from heapdump.analyses.blocks.select import Filter, select

    rows = select(snapshot.walk.table, snapshot.heaps, Filter())
    found = group_rows(request, snapshot, rows, GroupKey.OWNER)
    if found.missing or not len(found.rows):
        return None
    holders, left = _ends(found, "other holder", len(snapshot.walk.table))
    found = group_rows(request, snapshot, rows, GroupKey.STRUCTURE)
    if found.missing:
        return None
    kinds, right = _ends(found, "other type", len(snapshot.walk.table))
    totals = bytes_of_pairs(snapshot.walk.table, left, right)
    bands = tuple(
        Band(i, k, int(totals[i, k])) for i, k in zip(*(found.tolist() for found in np.nonzero(totals)), strict=True)
    )
    line = partial(command_text, snapshot)
    return Flow(
        holders, kinds, bands, line(("leaks", "--group-by", "owner")), line(("leaks", "--group-by", "structure"))
    )


def _ends(leaks: Leaks, others: str, rows: int) -> tuple[tuple[FlowEnd, ...], NDArray[np.uint8]]:
    """(the largest groups and one for the rest, the place among them of each of all rows)."""
    from heapdump.analyses.allocated.pairs import places_of_rows

    shown = leaks.groups[:_MOST] if len(leaks.groups) > _MOST + 1 else leaks.groups
    ends = [FlowEnd(found.key.removeprefix("held by "), found.group.bytes) for found in shown]
    rest = leaks.groups[len(shown) :]
    if rest:
        ends.append(FlowEnd(plural(len(rest), others), sum(found.group.bytes for found in rest)))
    return tuple(ends), places_of_rows(leaks, [found.group.value for found in shown], rows)
