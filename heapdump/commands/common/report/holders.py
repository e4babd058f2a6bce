"""The dominator tree of the report: the blocks that retain most, and the blocks below them, as far as there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.report.content import ReportHolder

if TYPE_CHECKING:
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.snapshot import Snapshot

_TOP, _CHILDREN, _MOST = 40, 12, 1200
"""Blocks at the top of the tree, below one of them, and in all."""

_LEAST_SHARE = 5000
_DEEPEST = 12


class HolderTree:
    """The upper part of the dominator tree of one dump."""

    def __init__(self, snapshot: Snapshot, typing: BlockTyping) -> None:
        """Chooses the nodes that are shown."""
        self._typing = typing
        self._tree, self._graph = snapshot.retained, snapshot.graph
        self._least = max(1, self._tree.total // _LEAST_SHARE)
        self._children: dict[int, list[int]] = {}
        self._hidden: dict[int, int] = {}
        self._tops = self._tree.top(_TOP).tolist()
        self._choose()

    def _choose(self) -> None:
        """Level by level, so that a deep list does not take the room of its neighbours."""
        level, room = self._tops, _MOST
        for _ in range(_DEEPEST):
            following: list[int] = []
            for node in level:
                size, _ = self._tree.of(node)
                if room <= 0 or size <= self._graph.span(node).size:
                    continue
                found, total = self._tree.largest_below(node, _CHILDREN)
                shown = [one for one in found.tolist() if self._tree.of(one)[0] >= self._least][:room]
                self._children[node], self._hidden[node] = shown, total - len(shown)
                room -= len(shown)
                following += shown
            level = following

    def _type(self, node: int) -> str:
        label = self._typing.label_of(int(self._graph.rows[node]))
        return label.label if label else ""

    def holders(self) -> tuple[ReportHolder, ...]:
        """The blocks at the top, the one that retains most first."""
        return tuple(map(self._holder, self._tops))

    def _holder(self, node: int) -> ReportHolder:
        size, blocks = self._tree.of(node)
        return ReportHolder(
            f"{self._graph.span(node).start:#x}", self._type(node), self._graph.span(node).size, size, blocks,
            tuple(map(self._holder, self._children.get(node, ()))), self._hidden.get(node, 0),
        )  # fmt: skip
