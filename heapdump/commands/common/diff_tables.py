"""The tables of `diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.leak_groups import short_key
from heapdump.render import text
from heapdump.render.view import Column, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from heapdump.analyses.compare.difference import Row
    from heapdump.analyses.compare.groups import ComparedGroup
    from heapdump.analyses.compare.heaps import ComparedHeap, HeapNumbers
    from heapdump.analyses.compare.large_blocks import ComparedLargeBlocks
    from heapdump.analyses.compare.modules import ModuleChange
    from heapdump.process.model import Module

_LEVEL_SHARE = 0.02
GROWTH_STYLE, SHRINKAGE_STYLE = "red", "green"


def signed_count(value: int | None) -> str:
    """`+12,345`, `-7`, `0`; `-` for None."""
    return "-" if value is None else f"{value:+,}" if value else "0"


def signed_size(value: int | None) -> str:
    """`+1.011 MB`; `0` for no change, `-` for None."""
    return "-" if value is None else f"{'+' if value > 0 else ''}{text.size(value)}" if value else "0"


def change_style(value: int | None) -> str:
    """The colour of growth and of shrinkage."""
    return "" if not value else GROWTH_STYLE if value > 0 else SHRINKAGE_STYLE


def _sizes(group: ComparedGroup) -> str:
    low, high = group.min_size, group.max_size
    return text.count(low) if low == high else f"{low:,}..{high:,}"


GROUPS: tuple[Column[ComparedGroup], ...] = (
    Column("Delta", lambda g: signed_size(g.delta_bytes), "requested bytes of the group's busy blocks, new minus old", right=True, style=lambda g: change_style(g.delta_bytes), bytes=lambda g: g.delta_bytes),
    Column("Blocks", lambda g: signed_count(g.delta_count), "busy blocks, new minus old", right=True),
    size_column("Old size", lambda g: g.old.bytes, "requested bytes in the old dump", rank=1),
    size_column("New size", lambda g: g.new.bytes, "requested bytes in the new dump"),
    Column("Old", lambda g: text.count(g.old.count), "busy blocks in the old dump", right=True, rank=2),
    Column("New", lambda g: text.count(g.new.count), "busy blocks in the new dump", right=True, rank=2),
    Column("Sizes", _sizes, "smallest and largest requested size in the last dump that has the group", right=True, rank=4),
    Column("Key", lambda g: short_key(g.label, ""), "what the blocks have in common; of a stack the first frames outside allocator modules", flexible=24, wraps=True),
)  # fmt: skip


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[int]) -> str:
    """A bar for each value, from the smallest to the largest; all in the middle where they differ by less than 2 %."""
    low, high = min(values), max(values)
    if high - low <= _LEVEL_SHARE * abs(high):
        return _BARS[3] * len(values) if high else _BARS[0] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def p_words(p_value: float) -> str:
    """`0.042`, `<0.001`."""
    return f"{p_value:.3f}" if p_value >= 0.001 else "<0.001"


def _slope(group: ComparedGroup) -> str:
    return signed_size(round(group.trend.bytes.slope)) if group.trend else "-"


def _shape(group: ComparedGroup) -> str:
    return group.trend.bytes.shape.words if group.trend and group.trend.bytes.shape else "-"


def trend_columns(*, is_per_hour: bool) -> tuple[Column[ComparedGroup], ...]:
    """The columns of groups in three dumps or more."""
    per = "/h" if is_per_hour else "/dump"
    unit = "hour" if is_per_hour else "dump"
    return (
        Column("Bytes", lambda g: sparkline([value.bytes for value in g.values]), "requested bytes in each dump, from the least to the most", rank=1),
        size_column("First", lambda g: g.old.bytes, "requested bytes in the first dump", rank=3),
        size_column("Last", lambda g: g.new.bytes, "requested bytes in the last dump", rank=2),
        Column("Delta", lambda g: signed_size(g.delta_bytes), "last minus first", right=True, style=lambda g: change_style(g.delta_bytes)),
        Column("Blocks", lambda g: signed_count(g.delta_count), "busy blocks, last minus first", right=True, rank=2),
        Column(f"Slope{per}", _slope, f"bytes per {unit}: Theil-Sen, the median slope of all pairs of dumps", right=True),
        Column(f"Blocks{per}", lambda g: f"{g.trend.slope_count:+,.1f}" if g.trend else "-", f"blocks per {unit}, likewise", right=True, rank=5),
        Column("Up", lambda g: f"{g.trend.bytes.share_up:.0%}" if g.trend else "-", "steps from one dump to the next that rise", right=True, rank=4),
        Column("p", lambda g: p_words(g.trend.bytes.p_value) if g.trend else "-", "Kendall's test: the chance of this much order without a trend", right=True, rank=4),
        Column("Shape", _shape, "steady growth, step, plateau, sawtooth, shrinking, flat or no trend; - with fewer than four dumps"),
        Column("Key", lambda g: short_key(g.label, ""), "what the blocks have in common", flexible=20, wraps=True),
    )  # fmt: skip


COUNTER_WORDS = {
    "private_bytes": "private memory, committed",
    "committed_bytes": "committed memory",
    "reserved_bytes": "reserved, not committed",
    "busy_bytes": "busy blocks: requested bytes",
    "busy_blocks": "busy blocks",
    "heaps": "heaps",
    "threads": "threads",
    "modules": "modules",
    "handles": "handles",
    "working_set_bytes": "working set",
    "limit_bytes": "end of the address space",
    "largest_free_bytes": "largest free run (64 kB aligned)",
    "free_bytes": "free in all runs",
    "free_runs": "free runs",
    "free_runs_1_mb": "  of 1 MB and more",
    "free_runs_16_mb": "  of 16 MB and more",
    "free_runs_64_mb": "  of 64 MB and more",
    "free_runs_256_mb": "  of 256 MB and more",
}
"""Names of rows in words."""


def rows_table(title: str, rows: Sequence[Row], *, are_bytes: bool) -> Table[Row]:
    """Rows with the values of every dump; rows that no dump knows are left out.

    `are_bytes`: True where all values are bytes; else those are whose names end in `_bytes`.
    """
    rows = [row for row in rows if any(value is not None for value in row.values)]
    dumps = len(rows[0].values) if rows else 2

    def shown(row: Row, value: int | None, *, signed: bool = False) -> str:
        """The value in the row's unit."""
        if are_bytes or row.name.endswith("_bytes"):
            return signed_size(value) if signed else text.size(value)
        return signed_count(value) if signed else text.count(value)

    def column(i: int, title: str) -> Column[Row]:
        """The values of one dump."""
        rank = 0 if i == dumps - 1 else 1 if i == 0 else 2
        return Column(title, lambda row: shown(row, row.values[i]), f"in dump {i + 1}", right=True, rank=rank)

    titles = ["Old", "New"] if dumps == 2 else [f"#{i}" for i in range(1, dumps + 1)]
    columns: tuple[Column[Row], ...] = (
        Column(title, lambda row: COUNTER_WORDS.get(row.name, row.name), "what is counted", flexible=16 if dumps == 2 else 0, wraps=dumps == 2),
        *(column(i, name) for i, name in enumerate(titles)),
        Column("Delta", lambda row: shown(row, row.delta, signed=True), "last minus first", right=True, style=lambda row: change_style(row.delta)),
    )  # fmt: skip
    return Table(columns, rows)


def _of(numbers: HeapNumbers | None, words: Callable[[HeapNumbers], str]) -> str:
    return "-" if numbers is None else words(numbers)


def _heap_change(heap: ComparedHeap) -> str:
    first, last = heap.values[0], heap.values[-1]
    if first is None or last is None:
        return "new" if first is None else "gone"
    return f"was {first.address:#x}" if first.address != last.address else ""


def _difference(heap: ComparedHeap, value: Callable[[HeapNumbers], int | None]) -> int | None:
    """Last minus first; a dump that lacks the heap counts as 0."""
    first, last = ((value(numbers) if numbers else 0) for numbers in (heap.values[0], heap.values[-1]))
    return None if first is None or last is None else last - first


HEAPS: tuple[Column[ComparedHeap], ...] = (
    Column("Heap", lambda h: f"{h.last.address:#x}", "its handle in the last dump that has it", right=True),
    Column("Role", lambda h: h.last.role, "process, private …", rank=3),
    Column("Old busy", lambda h: _of(h.values[0], lambda n: text.size(n.busy_bytes)), "requested bytes of its busy blocks", right=True, rank=1),
    Column("New busy", lambda h: _of(h.values[-1], lambda n: text.size(n.busy_bytes)), "requested bytes of its busy blocks", right=True),
    Column("Delta", lambda h: signed_size(h.delta_bytes), "new minus old", right=True, style=lambda h: change_style(h.delta_bytes)),
    Column("Blocks", lambda h: signed_count(_difference(h, lambda n: n.busy_blocks)), "busy blocks, new minus old", right=True),
    Column("Committed", lambda h: signed_size(_difference(h, lambda n: n.committed_bytes)), "committed bytes of its segments, new minus old", right=True),
    Column("Free", lambda h: signed_size(_difference(h, lambda n: n.free_bytes)), "free bytes of the back end, new minus old", right=True, rank=2),
    Column("Large", lambda h: signed_count(_difference(h, lambda n: n.large_blocks)), "large blocks, new minus old", right=True, rank=2),
    Column("Change", _heap_change, "new, gone, or its old handle"),
)  # fmt: skip


LARGE_BLOCKS: tuple[Column[ComparedLargeBlocks], ...] = (
    size_column("Large blocks of", lambda row: row.bytes, "committed bytes of each"),
    Column("Old", lambda row: text.count(row.counts[0]), "how many the first dump has", right=True, rank=1),
    Column("New", lambda row: text.count(row.counts[-1]), "how many the last dump has", right=True),
    Column("Delta", lambda row: signed_size(row.delta_bytes), "committed bytes of all, new minus old", right=True, style=lambda row: change_style(row.delta_bytes)),
    Column("Heap", lambda row: f"{row.heap:#x}", "its handle in the last dump that has it", right=True),
)  # fmt: skip


def _place(module: Module | None) -> str:
    return "-" if module is None else f"{module.span.start:#x}"


def _versions(change: ModuleChange) -> str:
    """`10.0.1.2`, or both where they differ."""
    found = [".".join(map(str, m.version)) if m.version else "-" for m in (change.old, change.new) if m is not None]
    return " → ".join(dict.fromkeys(found))


def _size(change: ModuleChange) -> str:
    module = change.new or change.old
    return text.size(module.span.size) if module else "-"


MODULES: tuple[Column[ModuleChange], ...] = (
    Column("Change", lambda m: m.change.value, "new, gone, moved to another base, or of another version"),
    Column("Module", lambda m: m.name, "file name", style="green"),
    Column("Old base", lambda m: _place(m.old), "first address in the old dump", right=True),
    Column("New base", lambda m: _place(m.new), "first address in the new dump", right=True),
    Column("Size", _size, "SizeOfImage", right=True, rank=1),
    Column("Version", _versions, "file versions", rank=2),
)  # fmt: skip
