"""The figures of the report on memory: the treemap with its legend, the strips of the address space, maps of heaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.report.groups import GroupedBlocks
from heapdump.render import text
from heapdump.render.report.content import Bar, Box, HeapPicture, LegendRow, ReportItem, Run, Strip

if TYPE_CHECKING:
    from heapdump.analyses.memory.address_rows import AddressRow
    from heapdump.analyses.memory.heap_maps import HeapMap, SegmentMap, SizeBin
    from heapdump.analyses.memory.memory_classes import MemoryClass
    from heapdump.analyses.memory.memory_tree import MemoryNode
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_MOST_HEAPS, _MOST_PARTS, _MOST_GROUPS = 12, 60, 30
_REASONS = {
    "Page Table": "kernel memory: no user-mode dump counts it",
    "Mapped File": "no file name is in a dump: see Mapped File or Shareable",
    "Shareable": "no section name is in a dump: see Mapped File or Shareable",
}


def css_of(kind: MemoryClass) -> str:
    """The CSS class that colours a class of memory: `c3`."""
    return f"c{kind.number}"


@dataclass(frozen=True)
class Side:
    """The memory of one dump. `keys`: of its heaps, the same in another dump."""

    snapshot: Snapshot
    groups: GroupedBlocks
    tree: tuple[MemoryNode, ...]
    keys: tuple[str, ...]


def side_of(request: Request, snapshot: Snapshot, *, is_same_process: bool) -> Side:
    """The memory of a dump. `is_same_process`: heaps of the other dump have the same addresses."""
    from heapdump.analyses.compare.heaps import heap_keys
    from heapdump.analyses.memory.memory_tree import memory_tree

    keys = tuple(map(str, heap_keys(snapshot.heaps, is_same_process=is_same_process)))
    tree = memory_tree(snapshot.usage, snapshot.heaps)
    return Side(snapshot, GroupedBlocks(request, snapshot), tree, keys)


def memory_boxes(new: Side, old: Side | None) -> Box:
    """The treemap: everything that is used, class by class; heaps divided into groups of busy blocks."""
    used = [[node for node in one.tree if node.kind.is_used] for one in (new, *((old,) if old else ()))]
    classes = _BoxMaker(new, old).boxes(used[0], used[1] if old else ())
    delta = sum(box.delta or 0 for box in classes) if old else None
    sizes = sum(box.committed for box in classes), sum(box.size for box in classes)
    return Box("all memory", "", *sizes, ("summary",), classes, delta)


class _BoxMaker:
    """Makes boxes of two dumps, or of one, part by part."""

    def __init__(self, new: Side, old: Side | None) -> None:
        self._new, self._old = new, old

    def boxes(self, new: Sequence[MemoryNode], old: Sequence[MemoryNode]) -> tuple[Box, ...]:
        """The boxes of some parts, those that are gone with nothing in them."""
        before = {self._key(self._old, node): node for node in old}
        out = [self._box(node, before.pop(self._key(self._new, node), None)) for node in new]
        gone = [
            Box(node.name, css_of(node.kind), 0, 0, ("summary",), (), -node.committed_bytes) for node in before.values()
        ]
        return _fewer([*out, *gone], _MOST_PARTS)

    def _key(self, side: Side | None, node: MemoryNode) -> str:
        return node.key if node.heap is None or side is None else side.keys[node.heap]

    def _box(self, node: MemoryNode, old: MemoryNode | None) -> Box:
        css = css_of(node.kind)
        children = () if node.heap is None else self._groups(node, old, css)
        if not children:
            children = self.boxes(node.children, old.children if old else ())
        command = _command(self._new.snapshot, node)
        return Box(node.name, css, node.committed_bytes, node.bytes, command, children, self._delta(node, old))

    def _delta(self, node: MemoryNode, old: MemoryNode | None) -> int | None:
        return None if self._old is None else node.committed_bytes - (old.committed_bytes if old else 0)

    def _groups(self, node: MemoryNode, old: MemoryNode | None, css: str) -> tuple[Box, ...]:
        groups = self._new.groups.of_heap(node)
        before = self._old.groups.of_heap(old) if self._old and old else {}
        boxes = [
            Box(
                name, part.css or css, part.committed, part.size, part.command, (),
                part.committed - (before[name].committed if name in before else 0) if self._old else None,
            )
            for name, part in groups.items()
        ]  # fmt: skip
        if not groups:
            return ()
        gone = [Box(name, css, 0, 0, ("leaks",), (), -before[name].committed) for name in before if name not in groups]
        return _fewer([*boxes, *gone], _MOST_GROUPS)


def _fewer(boxes: Sequence[Box], most: int) -> tuple[Box, ...]:
    """The largest boxes, and the sum of the others as one."""
    ordered = sorted(boxes, key=lambda box: (-box.committed, -box.size, box.name))
    if len(ordered) <= most:
        return tuple(ordered)
    shown, rest = ordered[: most - 1], ordered[most - 1 :]
    committed, size = sum(box.committed for box in rest), sum(box.size for box in rest)
    delta = None if rest[0].delta is None else sum(box.delta or 0 for box in rest)
    return (*shown, Box(f"{len(rest):,} smaller", rest[0].css, committed, size, rest[0].command[:1], (), delta))


def _command(snapshot: Snapshot, node: MemoryNode) -> tuple[str, ...]:
    if node.heap is not None:
        return "heap", f"{snapshot.heaps[node.heap].address:#x}"
    return ("summary",) if node.address is None or node.name == node.kind else ("regions", "--at", f"{node.address:#x}")


def reconciliation(side: Side) -> list[ReportItem]:
    """The lines of the reconciliation, most bytes first."""
    from heapdump.analyses.memory.reconciliation import reconcile

    lines = reconcile(side.snapshot.usage, side.snapshot.heaps, side.snapshot.walk)
    total = sum(line.bytes for line in lines) or 1
    ordered = sorted(lines, key=lambda line: -line.bytes)
    return [ReportItem(line.words, line.bytes, 100 * line.bytes / total) for line in ordered]


def legend(new: Side, old: Side | None) -> list[LegendRow]:
    """A row for each class of VMMap, and the sum of those that are used."""
    from heapdump.analyses.memory.memory_classes import MemoryClass

    by_kind = {node.kind: node for node in new.tree}
    before = {node.kind: node.committed_bytes for node in old.tree} if old else {}
    extra = (MemoryClass.MAPPED, MemoryClass.UNKNOWN)
    classes = [kind for kind in MemoryClass if kind not in extra or kind in by_kind or kind in before]
    rows = [_row(new, kind, by_kind.get(kind), before.get(kind, 0) if old else None) for kind in classes]
    used = [node for node in new.tree if node.kind.is_used]
    is_complete = new.snapshot.process.regions.is_complete_map
    total = LegendRow(
        "Total used", "", sum(n.bytes for n in used), sum(n.committed_bytes for n in used),
        sum(n.private_bytes for n in used) if is_complete else None, sum(n.regions for n in used),
        max((n.largest_bytes for n in used), default=0), command_text(new.snapshot, ("summary",)), "",
        sum(row.delta or 0 for row in rows) if old else None,
    )  # fmt: skip
    return [*rows, total]


def _row(side: Side, kind: MemoryClass, node: MemoryNode | None, before: int | None) -> LegendRow:
    """A class; `before`: its committed bytes in the older dump, None without one."""
    from heapdump.analyses.memory.memory_classes import MemoryClass

    command = command_text(side.snapshot, ("summary",))
    if node is None:
        reason = _REASONS.get(kind.value, "")
        if not side.snapshot.process.regions.is_complete_map:
            reason = reason or "nothing of it is known: the dump has no memory map"
        if kind is MemoryClass.HEAP and any(not heap.extents for heap in side.snapshot.heaps):
            reason = "no heap could be located in this dump"
        number, delta = (None, None) if reason else (0, None if before is None else -before)
        return LegendRow(kind.value, css_of(kind), number, number, number, number, number, command, reason, delta)
    committed = node.committed_bytes if kind.is_used else 0
    is_complete = side.snapshot.process.regions.is_complete_map
    private = None if not is_complete else node.private_bytes if kind.is_used else 0
    delta = None if before is None or not kind.is_used else committed - before
    return LegendRow(
        kind.value, css_of(kind), node.bytes, committed, private, node.regions, node.largest_bytes, command, "", delta
    )


def address_strips(snapshot: Snapshot, rows: Sequence[AddressRow]) -> list[Strip]:
    """The address space as strips."""
    from heapdump.analyses.memory.address_rows import CELLS

    out = []
    for row in rows:
        cell = row.span.size / CELLS
        runs = tuple(
            Run(
                run.first, run.count, f"{css_of(run.kind)}{' reserved' if run.is_reserved else ''}",
                f"{int(row.span.start + run.first * cell):#x} {run.kind.value}"
                f"{', reserved' if run.is_reserved else ''}, {text.short_size(int(run.count * cell))}",
            )
            for run in row.runs
        )  # fmt: skip
        before = f"{text.short_size(row.gap_bytes)} free" if row.gap_bytes else ""
        out.append(Strip(f"{row.span.start:#x}", text.short_size(row.span.size), before, CELLS, runs))
    return out


def heap_pictures(snapshot: Snapshot) -> Iterator[HeapPicture]:
    """The heaps with most committed bytes that were walked, the largest first."""
    from heapdump.analyses.memory.heap_maps import heap_map

    walk = snapshot.walk
    walked = [heap for heap in snapshot.heaps if heap.index in walk.counts]
    for heap in sorted(walked, key=lambda h: -((h.committed_bytes or 0) + (h.large_committed_bytes or 0)))[
        :_MOST_HEAPS
    ]:
        yield _picture(snapshot, heap_map(walk.table, heap))


def _picture(snapshot: Snapshot, found: HeapMap) -> HeapPicture:
    heap = found.heap
    count = snapshot.walk.counts[heap.index]
    free = f"{text.short_size(count.free_bytes + count.lfh_free_bytes)} free"
    detail = f"{heap.kind}, {heap.role}: {text.short_size(count.busy_bytes)} busy, {free}"
    hidden = f"{text.plural(found.hidden, 'smaller segment')} not shown" if found.hidden else ""
    return HeapPicture(
        f"#{heap.index} {heap.address:#x}", detail, command_text(snapshot, ("heap", f"{heap.address:#x}")),
        tuple(map(_segment_strip, found.segments)), hidden, tuple(_bars(found.sizes)),
    )  # fmt: skip


def _segment_strip(segment: SegmentMap) -> Strip:
    from heapdump.analyses.memory.heap_maps import LEVELS, UNCOMMITTED

    runs: list[Run] = []
    for i, level in enumerate(segment.levels):
        css = "lu" if level == UNCOMMITTED else f"l{level}"
        if runs and runs[-1].css == css:
            runs[-1] = Run(runs[-1].x, runs[-1].width + 1, css, runs[-1].title)
        else:
            words = "not committed" if level == UNCOMMITTED else f"{level / LEVELS:.0%} busy"
            runs.append(Run(i, 1, css, f"{segment.span.start + i * segment.cell_bytes:#x}: {words}"))
    label, size = f"{segment.span.start:#x}", text.short_size(segment.span.size)
    return Strip(label, size, text.short_size(segment.cell_bytes), len(segment.levels), tuple(runs))


def _bars(sizes: Sequence[SizeBin]) -> Iterator[Bar]:
    top = max([1, *(max(one.busy_bytes, one.free_bytes) for one in sizes)])
    for one in sizes:
        label = text.short_size(one.low).replace(" bytes", " B").replace(" byte", " B").replace(".0 ", " ")
        title = (
            f"{label} and more: {text.plural(one.busy_blocks, 'busy block')} with {one.busy_bytes:,} bytes, "
            f"{text.plural(one.free_blocks, 'free block')} with {one.free_bytes:,} bytes"
        )
        yield Bar(label, 100 * one.busy_bytes / top, 100 * one.free_bytes / top, title)
