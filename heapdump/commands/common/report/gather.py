"""The content of the report: its sections in order, each with the answers of commands and the figure beside them.

Text of the dump enters by two doors: the answers (`asking`), and the names in figures (`memory`, `groups`, `holders`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.redaction import redaction_of
from heapdump.commands.common.report.asking import Asked, Asker
from heapdump.commands.common.report.flow import flow_of
from heapdump.commands.common.report.holders import HolderTree
from heapdump.commands.common.report.memory import (
    Side,
    address_strips,
    heap_pictures,
    legend,
    memory_boxes,
    reconciliation,
    side_of,
)
from heapdump.commands.common.report.row_commands import row_command
from heapdump.commands.common.types import typing_for
from heapdump.render import text
from heapdump.render.report.content import GroupChange, Part, ReportContent, ReportSection, Tile
from heapdump.render.view import Lines, Table

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_MOST_CHANGES = 12
_MOST_ROWS, _GROUP_ROWS, _FEW_ROWS = 100, 50, 30
"""Rows of a table; the page says how many more there are."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The content of the report, and a line for each reason why some of it is missing."""

    report: ReportContent
    gaps: tuple[str, ...]


def gather(request: Request, snapshots: Sequence[Snapshot]) -> Gathered:
    """The content about the first dump; of two dumps also what changed since the second one."""
    report = _Gatherer(request, snapshots).report()
    lines = (gap for section in report.sections for part in section.answers for gap in part.gaps)
    return Gathered(report, tuple(dict.fromkeys(lines)))


class _Gatherer:
    """Asks for everything about one dump."""

    def __init__(self, request: Request, snapshots: Sequence[Snapshot]) -> None:
        self._request, self._snapshots, self._snapshot = request, snapshots, snapshots[0]
        self._asker = Asker(request, snapshots)

    @cached_property
    def _sides(self) -> tuple[Side, Side | None]:
        """The memory of the dump, and of the older one. The older one first: `diff` drops its blocks at the end."""
        from heapdump.analyses.compare.identity import comparability

        found = comparability([one.process for one in self._snapshots[::-1]])
        sides = [side_of(self._request, one, is_same_process=found.is_same_process) for one in self._snapshots[::-1]]
        return sides[-1], sides[0] if len(sides) > 1 else None

    def report(self) -> ReportContent:
        """The content of the page."""
        from heapdump import __version__
        from heapdump.analyses.memory.address_rows import address_rows

        snapshot = self._snapshot
        process = snapshot.process
        name = (process.image or snapshot.dump.path.name).replace("/", "\\").rpartition("\\")[2]
        names = [str(one.dump.path) for one in self._snapshots]
        has_blocks = len(snapshot.walk.table) > 0
        new, old = self._sides
        memory, graph = memory_boxes(new, old), new.groups.graph(old.groups if old else None) if has_blocks else None
        return ReportContent(
            title=name,
            subtitle=f"{snapshot.dump.path.name}, {process.arch}, {process.windows.name}",
            dump=command_text(snapshot, ("x",)).removeprefix("heapdump x "),
            command=command_text(snapshot, ("report", *names[1:], "-o", "report.html")),
            version=__version__,
            tiles=list(self._tiles(new)),
            sections=list(self._sections()),
            memory=memory,
            legend=legend(new, old),
            items=reconciliation(new),
            strips=address_strips(snapshot, address_rows(snapshot.usage)),
            heaps=list(heap_pictures(snapshot)),
            graph=graph,
            graph_by=new.groups.words if has_blocks else "",
            holders=HolderTree(snapshot, typing_for(self._request, snapshot)).holders() if has_blocks else (),
            retained=snapshot.retained.total if has_blocks else 0,
            flow=flow_of(self._request, snapshot) if has_blocks else None,
            changes=self._changes() if old else (),
            is_whole=process.regions.is_complete_map,
            old=names[1] if len(names) > 1 else "",
        )

    def _tiles(self, side: Side) -> Iterator[Tile]:
        """The numbers at the top."""
        snapshot = self._snapshot
        used = [node for node in side.tree if node.kind.is_used]
        committed = sum(node.committed_bytes for node in used)
        is_complete = snapshot.process.regions.is_complete_map
        line = partial(command_text, snapshot)
        yield _size_tile("committed" if is_complete else "memory in the dump", committed, line(("summary",)))
        counts = snapshot.walk.counts.values()
        if counts:
            busy, blocks = sum(c.busy_bytes for c in counts), sum(c.busy_blocks for c in counts)
            yield _size_tile("busy in heaps", busy, line(("heaps",)))
            yield _count_tile(blocks, "busy block", line(("heaps",)))
        yield _count_tile(len(snapshot.heaps), "heap", line(("heaps",)))
        yield _count_tile(len(snapshot.process.threads), "thread", line(("threads",)))
        yield _count_tile(len(snapshot.process.modules), "module", line(("modules",)))
        errors = sum(incident.is_error for incident in snapshot.incidents)
        if errors or counts:
            label = "error found" if errors == 1 else "errors found"
            yield Tile(label, f"{errors:,}", text.plural(errors, "error"), line(("check",)), is_bad=errors > 0)
        else:
            yield Tile("no heap checked", "–", "no heap could be checked", line(("check",)))

    @cached_property
    def _diff(self) -> Part:
        return self._part("", "diff", folds_stacks=True)

    def _changes(self) -> list[GroupChange]:
        """The groups of blocks that changed most, as `diff` lists them."""
        from heapdump.analyses.compare.groups import ComparedGroup

        rows = (row for item in self._diff.items if isinstance(item, Table) for row in item.rows)
        found = [row for row in rows if isinstance(row, ComparedGroup)]
        return [GroupChange(row.label, row.old.bytes, row.new.bytes) for row in found[:_MOST_CHANGES]]

    def _sections(self) -> Iterator[ReportSection]:
        if len(self._snapshots) > 1:
            before, after = _divided(self._diff)
            lead = "Since the older dump, in groups of blocks."
            yield ReportSection("changes", "What changed", lead, "changes", after, before)
        yield ReportSection("triage", "What happened", "", "", [self._part("", "triage")])
        yield ReportSection(
            "damage", "Damage", "One report for each bug, with its bytes.", "", [self._part("", "check")]
        )
        lead = "Every byte once, in the classes of VMMap. Click a box to go in, the path above it to go out."
        yield ReportSection("memory", "Memory", lead, "memory", [self._part("Summary", "summary", is_folded=True)])
        lead = "One strip for each neighbourhood of allocations; free runs between them are left out and said."
        yield ReportSection(
            "space", "Address space", lead, "space", [self._part("Free runs", "gaps", is_folded=True, limit=_FEW_ROWS)]
        )
        lead = "How full each segment is, and the blocks by size." if self._snapshot.walk.counts else ""
        yield ReportSection("heaps", "Heaps", lead, "heaps", [self._part("", "heaps")])
        title = "Groups" if len(self._snapshot.walk.table) else ""
        before, after = _divided(self._part(title, "leaks", folds_stacks=True, limit=_GROUP_ROWS))
        yield ReportSection("groups", "Who allocated", "", "groups", after, before)
        if len(self._snapshot.walk.table):
            lead = "The blocks that keep others alive, and by whom blocks are held."
            before, after = _divided(replace(self._part("The blocks that retain most", "retained"), is_folded=True))
            yield ReportSection("holders", "Who holds it", lead, "holders", after, before)
        if self._snapshot.runtimes:
            yield ReportSection("managed", "Managed memory", "", "", [self._part("", "managed", limit=_FEW_ROWS)])
        yield ReportSection("threads", "Threads", "", "", [self._part("", "threads"), self._stacks()])
        yield ReportSection("modules", "Modules", "", "", [self._part("", "modules")])
        yield ReportSection(
            "dump", "This dump", "What it can answer, and what it cannot.", "", [self._part("", "info")]
        )

    def _stacks(self) -> Part:
        return self._part("Call stacks", "threads", "--frames", is_folded=True)

    def _part(self, title: str, name: str, *arguments: str, **looks: Any) -> Part:
        """The answer of a command as a part of the page.

        `looks`: fields of the part; `limit`, the most rows of a table.
        """
        asked: Asked = self._asker.ask(name, *arguments, limit=looks.pop("limit", _MOST_ROWS))
        items = list(asked.answer.page()) if asked.answer else []
        return Part(title, asked.line, items, asked.gaps, self._row_command(name), **looks)

    def _row_command(self, name: str) -> Any:
        redacted = redaction_of(self._snapshots).text if self._request.redact else str

        def line(row: Any) -> str:
            """The command about a row."""
            words = row_command(name, row, self._snapshot)
            return redacted(command_text(self._snapshot, words)) if words else ""

        return line


def _divided(part: Part) -> tuple[list[Part], list[Part]]:
    """(the sentences at the beginning of an answer, the rest of it)."""
    items = list(part.items)
    count = next((i for i, item in enumerate(items) if not isinstance(item, Lines)), len(items))
    if not count:
        return [], [part]
    return [replace(part, title="", command="", items=items[:count], gaps=(), is_folded=False)], [
        replace(part, items=items[count:])
    ]


def _count_tile(count: int, name: str, command: str) -> Tile:
    words = text.plural(count, name)
    return Tile(words.partition(" ")[2], f"{count:,}", words, command)


def _size_tile(label: str, size: int, command: str) -> Tile:
    return Tile(label, text.short_size(size), f"{size:,} bytes", command)
