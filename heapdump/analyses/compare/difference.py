"""The comparison of dumps: one row of numbers for each thing that they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.analyses.compare.facts import DumpFacts
from heapdump.analyses.compare.filled_gaps import FilledGap, filled_gaps
from heapdump.analyses.compare.groups import ComparedGroup, match_groups
from heapdump.analyses.compare.heaps import ComparedHeap, match_heaps
from heapdump.analyses.compare.identity import Comparability, Relation
from heapdump.analyses.compare.large_blocks import ComparedLargeBlocks, compare_large_blocks
from heapdump.analyses.compare.modules import ModuleChange, explained_changes
from heapdump.analyses.compare.trend import Shape, Trend, hours_of, trend_of
from heapdump.analyses.memory.free_runs import SIZE_CLASSES
from heapdump.process.symbols.store import SymbolStores


@dataclass(frozen=True, slots=True)
class Row:
    """One number in every dump, in their order; None in a dump that does not tell."""

    name: str
    values: tuple[int | None, ...]

    @property
    def delta(self) -> int | None:
        """Last minus first; None where one is not known."""
        first, last = self.values[0], self.values[-1]
        return None if first is None or last is None else last - first


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The change of all busy bytes beside the change of the groups.

    Attributes:
        old_bytes: requested bytes of all busy blocks in the first dump, by the walk.
        new_bytes: the same in the last dump.
        groups_delta: bytes by which the groups that are shown change, all together.
    """

    old_bytes: int
    new_bytes: int
    groups_delta: int

    @property
    def busy_delta(self) -> int:
        """Busy bytes of the last dump minus those of the first."""
        return self.new_bytes - self.old_bytes

    @property
    def omitted_delta(self) -> int:
        """The part of `busy_delta` in no group."""
        return self.busy_delta - self.groups_delta


@dataclass(frozen=True, slots=True)
class RowTrend:
    """The trend of a counter over three dumps or more."""

    row: Row
    trend: Trend


@dataclass(frozen=True, slots=True)
class Outlook:
    """The time until the largest free run is used up.

    Attributes:
        bytes_left: bytes of the largest free run in the last dump.
        bytes_per_hour: slope of private memory.
        hours: time from the last dump on: bytes_left / bytes_per_hour.
    """

    bytes_left: int
    bytes_per_hour: float
    hours: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The comparison of dumps. Numbers of rows stand in the order of `dumps`.

    Attributes:
        dumps: facts of each dump.
        comparability: whether they show one process.
        counters: counters of Windows and of the walk, in bytes or numbers.
        usage: committed and reserved bytes by usage.
        items: committed bytes by item of the reconciliation.
        address_space: free runs, in bytes and numbers.
        gaps: the largest free runs of the first dump in which something lies in the last one.
        modules: modules that differ between the first and the last dump.
        heaps: numbers of each heap.
        large_blocks: large blocks by heap and size.
        groups: groups of busy blocks, in the order of `match_groups`.
        reconciliation: change of the groups beside that of all busy bytes.
        trends: of counters; () for two dumps.
        outlook: None unless private memory of a 32-bit process grows steadily.
    """

    dumps: tuple[DumpFacts, ...]
    comparability: Comparability
    counters: tuple[Row, ...]
    usage: tuple[Row, ...]
    items: tuple[Row, ...]
    address_space: tuple[Row, ...]
    gaps: tuple[FilledGap, ...]
    modules: tuple[ModuleChange, ...]
    heaps: tuple[ComparedHeap, ...]
    large_blocks: tuple[ComparedLargeBlocks, ...]
    groups: tuple[ComparedGroup, ...]
    reconciliation: Reconciliation
    trends: tuple[RowTrend, ...]
    outlook: Outlook | None

    @property
    def seconds(self) -> int | None:
        """Seconds from the first to the last dump; None where a time is not known or the last dump is older."""
        first, last = self.dumps[0].time, self.dumps[-1].time
        return last - first if first is not None and last is not None and last >= first else None


def compare(
    dumps: Sequence[DumpFacts],
    comparability: Comparability,
    least_bytes: int = 0,
    images: SymbolStores | None = None,
) -> Difference:
    """The comparison of the dumps. Groups whose bytes change by less than `least_bytes` are left out.

    `images`: stores of image files, for imports of new modules.
    """
    first, last = dumps[0], dumps[-1]
    is_comparable = comparability.relation is not Relation.DIFFERENT_PROGRAMS
    hours = hours_of([dump.time for dump in dumps])
    groups = match_groups([dump.groups for dump in dumps], hours)
    if least_bytes:
        groups = tuple(group for group in groups if abs(group.delta_bytes) >= least_bytes)
    counters = tuple(Row(name, tuple(dump.counters[name] for dump in dumps)) for name in first.counters)
    trends = tuple(_row_trends(counters, hours)) if len(dumps) > 2 else ()
    heaps = match_heaps([dump.heaps for dump in dumps])
    return Difference(
        tuple(dumps),
        comparability,
        counters,
        _by_change([dump.usage for dump in dumps]),
        _by_change([dump.items for dump in dumps]),
        _address_space(dumps),
        filled_gaps(first, last),
        explained_changes(first.process, last.usage_map, images, is_address_comparable=is_comparable),
        heaps,
        compare_large_blocks(heaps),
        groups,
        Reconciliation(first.busy_bytes, last.busy_bytes, sum(group.delta_bytes for group in groups)),
        trends,
        _outlook(trends, last),
    )


def _row_trends(rows: Sequence[Row], hours: Sequence[float] | None) -> Iterator[RowTrend]:
    """The trends of rows that every dump knows and that change."""
    for row in rows:
        values = [value for value in row.values if value is not None]
        if len(values) == len(row.values) and len(set(values)) > 1:
            yield RowTrend(row, trend_of(values, hours))


def _outlook(trends: Sequence[RowTrend], last: DumpFacts) -> Outlook | None:
    """The largest free run of the last dump, divided by the slope of private memory."""
    private = next((one.trend for one in trends if one.row.name == "private_bytes"), None)
    if private is None or private.shape is not Shape.STEADY_GROWTH or not private.is_per_hour:
        return None
    if not last.limit.is_32bit or last.free is None or private.slope <= 0:
        return None
    left = last.free.largest_bytes
    return Outlook(left, private.slope, left / private.slope)


def _by_change(dumps: Sequence[dict[str, int]]) -> tuple[Row, ...]:
    """A row for each name, the largest change first; a name that a dump lacks has 0 bytes there."""
    names = dict.fromkeys(name for dump in dumps for name in dump)
    rows = [Row(name, tuple(dump.get(name, 0) for dump in dumps)) for name in names]
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta or 0), -(row.values[-1] or 0), row.name)))


def _address_space(dumps: Sequence[DumpFacts]) -> tuple[Row, ...]:
    """Free runs in numbers; all None in a dump without a complete map."""
    free = [dump.free for dump in dumps]
    rows = [
        Row("limit_bytes", tuple(dump.limit.end for dump in dumps)),
        Row("largest_free_bytes", tuple(one.largest_bytes if one else None for one in free)),
        Row("free_bytes", tuple(one.free_bytes if one else None for one in free)),
        Row("free_runs", tuple(one.runs if one else None for one in free)),
    ]
    for i, least in enumerate(SIZE_CLASSES):
        name = f"free_runs_{least >> 20}_mb"
        rows.append(Row(name, tuple(one.counts[i] if one else None for one in free)))
    return tuple(rows)
