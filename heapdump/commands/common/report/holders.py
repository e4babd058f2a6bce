"""The dominator tree of the report: the blocks that retain most, and what they retain, as far as the page has room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heapdump.analyses.allocated.by import By
from heapdump.commands.common.graph_overview import group_rows
from heapdump.render.report.content import Holder

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_TOP, _CHILDREN, _MOST = 40, 12, 1200
"""Blocks at the top of the tree, below one of them, and in all."""

_LEAST_SHARE = 5000
_DEEPEST = 12


class HolderTree:
    """The upper part of the dominator tree of one dump."""

    def __init__(self, request: Request, snapshot: Snapshot) -> None:
        """Chooses the nodes that are shown, and finds their types together."""
        self._snapshot = snapshot
        self._tree, self._graph = snapshot.retained, snapshot.graph
        self._least = max(1, self._tree.total // _LEAST_SHARE)
        self._children: dict[int, list[int]] = {}
        self._hidden: dict[int, int] = {}
        self._tops = self._tree.top(_TOP).tolist()
        self._choose()
        nodes = sorted({*self._tops, *(child for found in self._children.values() for child in found)})
        self._types = self._type_names(request, nodes)

    def _choose(self) -> None:
        """Level by level, so that a deep list does not take the room of its neighbours."""
        level, room = self._tops, _MOST
        for _ in range(_DEEPEST):
            following: list[int] = []
            for node in level:
                size, _ = self._tree.of(node)
                if room <= 0 or size <= int(self._graph.size[node]):
                    continue
                found, total = self._tree.largest_below(node, _CHILDREN)
                shown = [one for one in found.tolist() if self._tree.of(one)[0] >= self._least][:room]
                self._children[node], self._hidden[node] = shown, total - len(shown)
                room -= len(shown)
                following += shown
            level = following

    def _type_names(self, request: Request, nodes: list[int]) -> dict[int, str]:
        rows = self._graph.rows[np.array(nodes, np.int64)].astype(np.int64)
        found = group_rows(request, self._snapshot, rows, By.TYPE)
        labels = {one.group.value: one.key for one in found.groups}
        by_row = dict(zip(found.rows.tolist(), (labels[value] for value in found.values.tolist()), strict=True))
        return {node: by_row.get(row, "") for node, row in zip(nodes, rows.tolist(), strict=True)}

    def holders(self) -> tuple[Holder, ...]:
        """The blocks at the top, the one that retains most first."""
        return tuple(map(self._holder, self._tops))

    def _holder(self, node: int) -> Holder:
        size, blocks = self._tree.of(node)
        return Holder(
            f"{int(self._graph.start[node]):#x}", self._types.get(node, ""), int(self._graph.size[node]), size, blocks,
            tuple(map(self._holder, self._children.get(node, ()))), self._hidden.get(node, 0),
        )  # fmt: skip
