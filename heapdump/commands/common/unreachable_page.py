"""`leaks --unreachable`: the report as tables and as records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.commands.common.holders import holders_page, holders_record
from heapdump.commands.common.leak_groups import (
    group_columns,
    group_record,
    sort_record,
    stack_lines,
    suppressed_lines,
    unused_lines,
    unused_notes,
)
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.graph.managed_holders import ManagedHolders
    from heapdump.analyses.graph.unreachable_report import (
        BlockSum,
        UnreachableBlocks,
        UnreachableGroup,
        UnreachableQuestion,
    )
    from heapdump.blocks.heap import Heap
    from heapdump.commands.common.request import Request
    from heapdump.commands.common.unreachable import UnreachableOptions
    from heapdump.snapshot import Snapshot

_MOST_MEMBERS = 8
_MEANINGS = {
    "direct": "nothing points to them, leaked cycles apart", "indirect": "only leaked blocks point to them",
    "possible": "only interior pointers, or weak roots",
    "reachable": "still held by the program", "suppressed": "of suppressed stacks, or held by them",
}  # fmt: skip
_STYLES = {"direct": "red", "indirect": "yellow"}


@dataclass(frozen=True)
class UnreachablePage:
    """A report and how it is shown. `full_stacks`: with the frames of allocator modules.

    `managed`: what only objects of managed heaps hold; None without such a heap.
    """

    request: Request
    snapshot: Snapshot
    found: UnreachableBlocks
    options: UnreachableOptions
    question: UnreachableQuestion
    full_stacks: bool
    managed: ManagedHolders | None = None

    def answer(self, gaps: tuple[str, ...]) -> Answer:
        """The answer of the command; `gaps`: of the walk and of the evidence."""
        from heapdump.analyses.graph.unreachable_report import CAVEATS

        found, report = self.found, self.found.report
        missing = (f"{report.missing}; grouped by {report.by} instead",) if report.missing else ()
        return Answer(
            "leaks",
            data=self._data,
            records=lambda: self._objects() if self.options.report_objects else self._groups(),
            page=self._page,
            gaps=(*gaps, *missing),
            notes=(*unused_notes(found.unused), *self._no_root_warnings, *CAVEATS),
            question="leaks --unreachable" + (" --report-objects" if self.options.report_objects else ""),
        )

    @property
    def _no_root_warnings(self) -> tuple[str, ...]:
        """The sentence for a process whose roots lead into no heap; none for others."""
        from heapdump.analyses.graph.way_in import NO_WAY_IN

        return () if self.found.report.has_way_in else (NO_WAY_IN,)

    @cached_property
    def _top(self) -> list[UnreachableGroup]:
        most = self.options.max_leaks or len(self.found.groups)
        return self.request.rows(
            self.found.groups[:most], lambda one: {"kind": one.state.word} | sort_record(one.found)
        )

    def _groups(self) -> list[Record]:
        return [{"kind": one.state.word} | group_record(self.snapshot, one.found) for one in self._top]

    def _data(self) -> Record:
        from heapdump.analyses.graph.unreachable import REPORTED, Reach

        found, table = self.found, self.snapshot.walk.table
        data: Record = {state.word: _sum(found.sums[state]) for state in (*REPORTED, Reach.REACHABLE)}
        if self.managed is not None:
            data["managed"] = holders_record(self.managed)
        data["groups"] = self._groups()
        data["cycles"] = [
            {"blocks": len(rows), "bytes": int(table.size[rows].sum()), "members": self._addresses(rows)}
            for rows in found.report.cycles
        ]
        data["suppressed"] = [
            {"rule": used.rule.text, "count": used.count, "bytes": used.bytes} for used in found.suppressed
        ]
        data["suppressed_total"] = _sum(found.sums[Reach.IGNORED])
        if self.options.report_objects:
            data["objects"] = list(self._objects())
        return data

    def _objects(self) -> Iterator[Record]:
        from heapdump.analyses.graph.unreachable import Reach

        rows, states = self.found.blocks()
        for block, state in zip(self.snapshot.walk.table.blocks(rows), states.tolist(), strict=True):
            yield {"address": hex(block.address), "size": block.size, "kind": Reach(state).word}

    def _addresses(self, rows: NDArray[np.int64]) -> list[str]:
        return [hex(block.address) for block in self.snapshot.walk.table.blocks(rows)]

    def _page(self) -> Iterator[PageItem]:
        from heapdump.analyses.graph.unreachable import Reach
        from heapdump.analyses.graph.unreachable_report import CAVEATS

        found, top = self.found, self._top
        if not any(found.sums[state].blocks for state in Reach):
            yield Lines([[("no busy block of the program is in this dump", "yellow")]])
            return
        yield _sums(found)
        if self._no_root_warnings:
            yield Lines([[(doubt, "yellow")] for doubt in self._no_root_warnings])
        shown, hidden = self.request.shown(top)
        nothing = (
            "no matching groups of leaked blocks" if found.omitted.blocks else "every block is held by the program"
        )
        yield Table(
            _columns(shown, found.report.by, self.snapshot.heaps), shown, hidden=hidden + len(found.groups) - len(top),
            empty=nothing, numbered=found.report.by is GroupKey.STACK,
        )  # fmt: skip
        if found.omitted.blocks:
            amount = f"{text.plural(found.omitted.blocks, 'block')} with {text.size(found.omitted.bytes)}"
            yield Lines([[(f"left out: {amount} in groups that are smaller, or not asked for", "dim")]])
        yield from self._stacks(shown)
        if self.managed is not None and self.managed.blocks:
            yield from holders_page(self.managed)
        if found.report.cycles:
            yield Lines(list(self._cycles()))
        if self.options.report_objects:
            yield self._object_table()
        yield from suppressed_lines(found.suppressed)
        yield from unused_lines(found.unused)
        yield Lines([[(caveat, "dim")] for caveat in CAVEATS])

    def _stacks(self, shown: Sequence[UnreachableGroup]) -> Iterator[Lines]:
        from heapdump.analyses.allocated.stack_keys import passes_on

        if self.found.report.by is GroupKey.STACK:
            folds = None if self.full_stacks else passes_on(self.question.grouping.skip)
            yield from stack_lines([one.found for one in shown], folds)

    def _cycles(self) -> Iterator[list[tuple[str, str]]]:
        shown, hidden = self.request.shown(self.found.report.cycles)
        for rows in shown:
            names = self._addresses(rows[:_MOST_MEMBERS])
            more = f" … {len(rows) - len(names)} more" if len(rows) > len(names) else ""
            blocks = text.plural(len(rows), "block")
            yield [(f"reference cycle of {blocks}: {', '.join(names)}{more}", "")]
        if hidden:
            yield [(f"… {text.plural(hidden, 'more cycle')}", "dim")]

    def _object_table(self) -> Table[Any]:
        shown, hidden = self.request.shown(list(self._objects()))
        columns: tuple[Column[Any], ...] = (
            Column("Address", lambda row: row["address"], "what the program got", right=True),
            Column("Size", lambda row: text.count(row["size"]), "bytes it asked for", right=True),
            Column("Kind", lambda row: row["kind"], "how it can be reached"),
        )
        return Table(columns, shown, hidden=hidden, title="Objects")


def _sum(found: BlockSum) -> Record:
    return {"blocks": found.blocks, "bytes": found.bytes}


def _sums(found: UnreachableBlocks) -> Table[Any]:
    """Blocks and bytes of each state."""
    from heapdump.analyses.graph.unreachable import REPORTED, Reach

    rows = [(state.word, found.sums[state]) for state in (*REPORTED, Reach.REACHABLE)]
    if found.sums[Reach.IGNORED].blocks:
        rows.append(("suppressed", found.sums[Reach.IGNORED]))
    columns: tuple[Column[tuple[str, BlockSum]], ...] = (
        Column(
            "Kind",
            lambda row: row[0],
            "by chains of pointers from registers, stacks, module data, TEBs and PEBs",
            style=lambda row: _STYLES.get(row[0], ""),
        ),
        Column("Blocks", lambda row: text.count(row[1].blocks), "busy blocks of the program", right=True),
        size_column("Size", lambda row: row[1].bytes, "that it asked for in them"),
        Column("Meaning", lambda row: _MEANINGS[row[0]], "in words", flexible=24),
    )
    return Table(columns, rows)


def _columns(
    groups: Sequence[UnreachableGroup], by: GroupKey, heaps: Sequence[Heap]
) -> tuple[Column[UnreachableGroup], ...]:
    def of_group(column: Column[LeakGroup]) -> Column[UnreachableGroup]:
        """The column of `leaks`, for a group with a state."""
        explain = "of the bytes of all blocks of its kind" if column.title == "Share" else column.explain
        return Column(
            column.title,
            lambda one: column.text(one.found),
            explain,
            right=column.right,
            rank=column.rank,
            flexible=column.flexible,
            wraps=column.wraps,
            folds=column.folds,
            bytes=None if column.bytes is None else partial(_bytes, column.bytes),
        )

    kind = Column[Any](
        "Kind",
        lambda one: one.state.word,
        "how its blocks can be reached: see the table above",
        style=lambda one: _STYLES.get(one.state.word, ""),
    )
    return (kind, *map(of_group, group_columns([one.found for one in groups], by, heaps)))


def _bytes(of: Callable[[LeakGroup], int | None], one: UnreachableGroup) -> int | None:
    return of(one.found)
