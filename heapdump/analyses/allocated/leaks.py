"""Busy blocks in groups, by the stack that allocated them or by their content.

In: rows of the block table and a key. Out: `Leaks`, a few groups out of millions of blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.allocated.groups import BlockGroup, dense, group
from heapdump.analyses.allocated.stacks import Stacks
from heapdump.analyses.allocated.suppressions import Rule, RuleCount, Suppressions
from heapdump.analyses.blocks.select import Filter, select
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Walk
from heapdump.large_arrays import batches, empty
from heapdump.process.model import Process
from heapdump.trust import Trust

if TYPE_CHECKING:  # imported where stacks are named, and where blocks are typed
    from heapdump.analyses.types.block_starts import BlockData
    from heapdump.analyses.types.declared_shapes import DeclaredShapes
    from heapdump.analyses.types.typing import BlockTyping
    from heapdump.process.symbols.namer import Frame, Namer

Rows = NDArray[np.int64]
HOW_TO_RECORD = (
    "no allocation stacks are recorded in this dump; to have them: gflags /i {image} +ust (as administrator), "
    "start the program again, take the dump again"
)


_SAMPLE = 1 << 12
"""Blocks of which one has a header of the debug CRT where any has."""


@dataclass(frozen=True, slots=True)
class LeakContext:
    """The facts of the dump whose blocks are grouped.

    Attributes:
        process: the process.
        heaps: its heaps.
        walk: the walk of the heaps.
        stacks: the recorded allocation stacks.
        namer: makes the names of frames; called only for keys made of stacks.
        crt: rows of the block table → the CRT debug blocks among them.
        typing: gives the types of all blocks, by the pointer graph.
        owners: gives the owners of all blocks, by the pointer graph.
        shapes: gives what PDBs declare; None without one.
        stored: `stored(by, make)` gives all busy blocks of the program in groups: from the index, or by `make()`.
    """

    process: Process
    heaps: Sequence[Heap]
    walk: Walk
    stacks: Stacks
    namer: Callable[[], Namer]
    crt: Callable[[Rows], CrtBlocks]
    typing: Callable[[], BlockTyping]
    owners: Callable[[], BlockTyping]
    shapes: Callable[[], DeclaredShapes | None]
    stored: Callable[[GroupKey, Callable[[], Sequence[LeakGroup]]], Sequence[LeakGroup]]

    @property
    def table(self) -> BlockTable:
        """All blocks."""
        return self.walk.table


@dataclass(frozen=True, slots=True)
class LeakQuestion:
    """The blocks to group, and the key.

    Attributes:
        by: the key.
        rows: (n,) int64 rows of the blocks, ascending; None for all busy blocks of the program.
        min_bytes: groups with fewer bytes are left out.
        focus: for keys made of stacks: only stacks with a frame that matches.
        ignore: for keys made of stacks: only stacks without a frame that matches.
        skip: for keys made of stacks: names of modules that only pass allocations on, besides those of Windows and the
            C runtime.
    """

    by: GroupKey
    rows: Rows | None
    min_bytes: int = 0
    focus: re.Pattern[str] | None = None
    ignore: re.Pattern[str] | None = None
    skip: tuple[str, ...] = ()

    @property
    def is_about_all(self) -> bool:
        """True where the groups, small ones included, depend on nothing but the dump, the key, and names."""
        return self.rows is None and self.focus is None and self.ignore is None and not self.skip


@dataclass(frozen=True, slots=True)
class LeakGroup:
    """The blocks with one key.

    Attributes:
        key: the key, in words.
        group: their sums.
        frames: the frames that their stacks have in common, innermost first.
        trust: of the key; one made of the content of blocks is a guess.
        identity: the part of the key that is the same in other dumps of the program; "" where all of it is.
    """

    key: str
    group: BlockGroup
    frames: tuple[Frame, ...]
    trust: Trust = Trust.EXACT
    identity: str = ""


@runtime_checkable
class HasSums(Protocol):
    """Groups that give their sums without reading each group."""

    def sums(self) -> tuple[int, int]:
        """(blocks, bytes) of all groups together."""


@dataclass(frozen=True)
class Leaks:
    """The answer to a `LeakQuestion`.

    Attributes:
        by: the key that was used.
        groups: most bytes first.
        missing: the reason why this is not the key that was asked for, in words; "" where it is.
        blocks: number of blocks of `groups`.
        bytes: requested bytes of `groups`.
        omitted_blocks: number of blocks of small and suppressed groups.
        omitted_bytes: requested bytes of small and suppressed groups.
        place: gives all groups of the question, with the rows of their blocks.
        suppressed: rules, each with the blocks that it suppresses.
        unused: rules that match no stack.
    """

    by: GroupKey
    groups: Sequence[LeakGroup]
    missing: str
    blocks: int
    bytes: int
    omitted_blocks: int
    omitted_bytes: int
    place: Callable[[], Grouping]
    suppressed: tuple[RuleCount, ...]
    unused: tuple[Rule, ...]

    @property
    def rows(self) -> Rows:
        """The blocks of these groups, ascending; (n,) int64."""
        return self._placed[0]

    @property
    def values(self) -> NDArray[np.integer]:
        """`BlockGroup.value` of each of `rows`; (n,)."""
        return self._placed[1]

    @cached_property
    def _placed(self) -> tuple[Rows, NDArray[np.integer]]:
        grouping = self.place()
        if len(self.groups) == len(grouping.groups):
            return grouping.rows, grouping.values
        is_reported = np.isin(grouping.values, np.array(sorted(one.group.value for one in self.groups), np.int64))
        return grouping.rows[is_reported], grouping.values[is_reported]


@dataclass(frozen=True, slots=True)
class Grouping:
    """All groups of a question, and the blocks in them.

    Attributes:
        groups: most bytes first.
        rows: (n,) int64 rows of the blocks of these groups, ascending.
        values: (n,) `BlockGroup.value` of the group of each row.
    """

    groups: list[LeakGroup]
    rows: Rows
    values: NDArray[np.integer]


def find_leaks(context: LeakContext, question: LeakQuestion, suppressions: Suppressions | None = None) -> Leaks:
    """The groups of the blocks. Without recorded stacks, keys made of stacks become types, or modules of owners."""
    by, missing = question.by, ""
    if by.needs_stacks and not context.stacks.are_recorded:
        by, missing = GroupKey.OWNER_MODULE if by is GroupKey.MODULE else GroupKey.TYPE, how_to_record(context.process)
    place = cache(partial(_place, context, question, by))

    def make() -> Sequence[LeakGroup]:
        """The groups, made now."""
        return place().groups

    groups = context.stored(by, make) if question.is_about_all else make()
    suppressed = _suppress(groups, suppressions or Suppressions(), question.min_bytes)
    (blocks, size), (all_blocks, all_bytes) = _sums(suppressed.reported), _sums(groups)
    unused = suppressed.unused if by.needs_stacks else ()
    return Leaks(
        by, suppressed.reported, missing, blocks, size, all_blocks - blocks, all_bytes - size, place, suppressed.counts,
        unused,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _SuppressedGroups:
    """The result of suppressions.

    Attributes:
        reported: the groups that no rule suppresses.
        counts: rules, each with the blocks that it suppresses.
        unused: rules that match no stack.
    """

    reported: Sequence[LeakGroup]
    counts: tuple[RuleCount, ...]
    unused: tuple[Rule, ...]


def _suppress(groups: Sequence[LeakGroup], suppressions: Suppressions, least_bytes: int) -> _SuppressedGroups:
    """The groups without those of suppressed stacks, and without those of less than `least_bytes` bytes."""
    if not suppressions.rules and not least_bytes:
        return _SuppressedGroups(groups, (), ())
    reported: list[LeakGroup] = []
    matched: set[Rule] = set()
    suppressed: dict[Rule, list[LeakGroup]] = {}
    for found in groups:
        rules = suppressions.matches(found.frames)
        matched.update(rules)
        if rules:
            suppressed.setdefault(rules[0], []).append(found)
        elif found.group.bytes >= least_bytes:
            reported.append(found)
    counts = (RuleCount(rule, *_sums(suppressed[rule])) for rule in suppressions.rules if rule in suppressed)
    unused = (rule for rule in suppressions.rules if rule not in matched)
    return _SuppressedGroups(tuple(reported), tuple(counts), tuple(unused))


def _place(context: LeakContext, question: LeakQuestion, by: GroupKey) -> Grouping:
    """All groups of the question, and the group of each block."""
    rows = select(context.table, context.heaps, Filter()) if question.rows is None else question.rows
    if not by.needs_stacks:
        return _by_data(context, rows, by)
    from heapdump.analyses.allocated.by_stack import StackGrouper

    return StackGrouper(context, question, rows, by).grouping()


def how_to_record(process: Process) -> str:
    """Why no stack is known, and the command that makes Windows record them."""
    image = (process.image or "app.exe").replace("/", "\\").rpartition("\\")[2]
    return HOW_TO_RECORD.format(image=image)


def _sums(groups: Sequence[LeakGroup]) -> tuple[int, int]:
    """(blocks, bytes) of some groups together."""
    if isinstance(groups, HasSums):
        return groups.sums()
    return sum(one.group.count for one in groups), sum(one.group.bytes for one in groups)


def _by_data(context: LeakContext, rows: Rows, by: GroupKey) -> Grouping:
    """Groups by size, heap, source line, class or content."""
    table = context.table
    if by is GroupKey.SIZE:
        sizes = empty(len(rows), np.uint64)
        for part in batches(len(rows)):
            sizes[part] = table.sizes(rows[part])
        numbers, values = dense(sizes)
        return _labelled(context, rows, numbers, [f"{value:,} bytes" for value in values])
    if by is GroupKey.HEAP:
        labels = [f"heap #{heap.index} {heap.address:#x}" for heap in context.heaps]
        return _labelled(context, rows, table.heap[rows].astype(np.int64), labels)
    if by is GroupKey.SOURCE:
        from heapdump.analyses.allocated.crt import by_source

        return _labelled(context, rows, *by_source(context.process.space, rows, context.crt(rows)))
    if by is GroupKey.STRUCTURE:
        return _by_label(context, rows, context.typing(), str(ContentKind.OTHER))
    if by is GroupKey.OWNER:
        return _by_label(context, rows, context.owners(), "no owner known")
    if by is GroupKey.OWNER_MODULE:
        return _by_label(context, rows, context.owners().by_module(), "no module")
    return _by_first_bytes(context, rows, by)


def _by_first_bytes(context: LeakContext, rows: Rows, by: GroupKey) -> Grouping:
    """Groups by class or content; by the types that PDBs declare, where there is one."""
    from heapdump.analyses.types.block_types import NO_VTABLES, types_of, view_by_heap

    views = view_by_heap(context.process, tuple(context.heaps))
    shapes = context.shapes() if by is GroupKey.TYPE else None
    vtables = NO_VTABLES if shapes is None else shapes.vtables
    data = _data_of(context, rows)
    found = types_of(context.process, views, data, rows, by_class=by is GroupKey.TYPE, vtables=vtables)
    if shapes is None:
        return _labelled(context, rows, found.numbers, found.labels, found.trusts)
    typing = context.typing()
    declared = typing.of_rows(rows)
    is_declared = np.array([*(one.module != "" for one in typing.labels), False])[declared]
    both = np.where(is_declared, len(found.labels) + declared, found.numbers)
    numbers, values = dense(both.astype(np.uint64))
    names = [*zip(found.labels, found.trusts, strict=True), *((one.label, one.trust) for one in typing.labels)]
    chosen = [names[value] for value in values]
    return _labelled(context, rows, numbers, [label for label, _ in chosen], [trust for _, trust in chosen])


def _data_of(context: LeakContext, rows: Rows) -> BlockData:
    """The data of the rows; without a header of the debug CRT in a sample of them none is looked for."""
    from heapdump.analyses.types.block_starts import BlockData

    sample = np.asarray(rows)[:: max(1, len(rows) // _SAMPLE)].astype(np.int64)
    if not len(context.crt(sample)):
        return BlockData(context.table)
    found = context.crt(np.sort(rows).astype(np.int64))
    return BlockData(context.table, found.row, found.user, found.size.astype(np.uint64))


def _by_label(context: LeakContext, rows: Rows, typing: BlockTyping, unknown: str) -> Grouping:
    """Groups by the type or the owner of each block. `unknown`: of blocks that are in no pointer graph."""
    labels = typing.labels
    texts, trusts = [one.label for one in labels], [one.trust for one in labels]
    found = _labelled(context, rows, typing.of_rows(rows), [*texts, unknown], [*trusts, Trust.GUESS])
    identities = [*(one.identity for one in labels), ""]
    groups = [replace(one, identity=identities[one.group.value]) for one in found.groups]
    return Grouping(groups, found.rows, found.values)


def _labelled(
    context: LeakContext, rows: Rows, numbers: NDArray[np.integer], labels: list[str], trusts: Sequence[Trust] = ()
) -> Grouping:
    """Groups by dense numbers. `labels`, `trusts` by number; no trusts: all labels are exact."""
    groups = group(context.table, rows, numbers, range(len(labels)))
    by_number = trusts or [Trust.EXACT] * len(labels)
    out = [LeakGroup(labels[found.value], found, (), by_number[found.value]) for found in groups]
    return Grouping(out, rows, numbers)
