"""Dumps of one comparison, asked one after the other, so that the blocks of one dump at a time are in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.graph_overview import has_small_graph, leak_context
from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.allocated.suppressions import Suppressions
    from heapdump.analyses.compare.code_names import CodeNames
    from heapdump.analyses.compare.difference import Difference
    from heapdump.analyses.compare.facts import CrtRequests, DumpFacts
    from heapdump.analyses.compare.heaps import HeapKey
    from heapdump.analyses.graph.unreachable_report import BlockSum
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class Comparison:
    """The question of a comparison.

    Attributes:
        by: key of the groups.
        heap: address of a heap in one of the dumps, which is matched in the others; None for all heaps.
        size: requested bytes of the blocks, [low, high); None for all.
        focus: only stacks with a frame that matches.
        ignore: only stacks without a frame that matches.
        skip: modules that only pass allocations on.
        suppressions: rules that leave out stacks.
        least_bytes: groups whose bytes change by less are left out.
        unreachable: True to make the pointer graph of each dump and count unreachable blocks.
    """

    by: GroupKey
    heap: int | None
    size: Span | None
    focus: re.Pattern[str] | None
    ignore: re.Pattern[str] | None
    skip: tuple[str, ...]
    suppressions: Suppressions
    least_bytes: int
    unreachable: bool

    @property
    def is_filtered(self) -> bool:
        """True where options choose blocks or change their keys."""
        options = (self.heap, self.size, self.focus, self.ignore, self.skip or None, self.suppressions.rules or None)
        return any(option is not None for option in options)


def compare_dumps(request: Request, snapshots: Sequence[Snapshot], asked: Comparison) -> Difference:
    """The comparison of the dumps, which are walked one after the other. The blocks of the last one stay in memory.

    Raises:
        WrongUsage: no dump has a heap at the address asked for.
    """
    from heapdump.analyses.compare.code_names import CodeNames
    from heapdump.analyses.compare.difference import compare
    from heapdump.analyses.compare.heaps import heap_keys
    from heapdump.analyses.compare.identity import comparability

    found = comparability([one.process for one in snapshots])
    names = CodeNames([one.process for one in snapshots], is_same_process=found.is_same_process)
    keys = [heap_keys(one.heaps, is_same_process=found.is_same_process) for one in snapshots]
    wanted = None if asked.heap is None else _heap_key(snapshots, keys, asked.heap)
    facts: list[DumpFacts] = []
    for one, own in zip(snapshots, keys, strict=True):
        first = facts[0].crt if facts and found.is_same_process else None
        facts.append(_Taker(request, one, asked, names, own).facts(wanted, first.last if first else None))
        if one is not snapshots[-1]:
            one.forget_blocks()
    return compare(facts, found, asked.least_bytes, snapshots[-1].stores(request.image_path))


def _heap_key(snapshots: Sequence[Snapshot], keys: Sequence[list[HeapKey]], address: int) -> HeapKey:
    """The key of the heap at an address, in the last dump that has one there."""
    for snapshot, own in zip(reversed(snapshots), reversed(keys), strict=True):
        for heap, key in zip(snapshot.heaps, own, strict=True):
            if heap.address == address:
                return key
    raise WrongUsage(f"no dump has a heap at {address:#x}")


@dataclass(frozen=True, slots=True)
class _Taker:
    """Takes the facts of one dump. `keys`: of its heaps in their order."""

    request: Request
    snapshot: Snapshot
    asked: Comparison
    names: CodeNames
    keys: Sequence[HeapKey]

    def facts(self, heap: HeapKey | None, last_request: int | None) -> DumpFacts:
        """The facts; `heap`: the key of the only heap whose blocks are grouped, None for all.

        `last_request`: the highest allocation number of the CRT's debug heap in the first dump of the process.
        """
        from heapdump.analyses.compare.facts import Extras, WalkedDump, facts_of
        from heapdump.analyses.compare.groups import GroupedDump, take_groups
        from heapdump.analyses.memory.address_limit import address_limit

        snapshot, asked = self.snapshot, self.asked
        grouped = GroupedDump(snapshot.process, asked.by, self._groups(heap), self.keys)
        groups = take_groups(grouped, self.names)
        limit = address_limit(snapshot.process, snapshot.stores(self.request.image_path))
        dump = WalkedDump(
            snapshot.process, snapshot.dump.directory.header.timestamp or None, snapshot.usage, snapshot.heaps,
            snapshot.walk, snapshot.dump.handle_count, limit,
        )  # fmt: skip
        crt = self._crt(heap, last_request) if asked.by is GroupKey.SOURCE else None
        return facts_of(dump, self.keys, groups, Extras(self._unreachable(), crt, walk_gaps(snapshot)))

    def _crt(self, heap: HeapKey | None, last_request: int | None) -> CrtRequests | None:
        """The allocation numbers of the CRT's debug heap."""
        from heapdump.analyses.compare.facts import crt_requests

        return crt_requests(self.snapshot.crt.blocks(self._rows(heap)), last_request)

    def _groups(self, heap: HeapKey | None) -> Sequence[LeakGroup]:
        """The groups of one heap, or of all."""
        from heapdump.analyses.allocated.leaks import LeakQuestion, find_leaks

        asked = self.asked
        rows = None if heap is None and asked.size is None else self._rows(heap)
        question = LeakQuestion(asked.by, rows, 0, asked.focus, asked.ignore, asked.skip)
        return find_leaks(leak_context(self.request, self.snapshot), question, asked.suppressions).groups

    def _rows(self, heap: HeapKey | None) -> NDArray[np.int64]:
        """Rows of the busy blocks that are grouped."""
        import numpy as np

        from heapdump.analyses.blocks.select import Filter, select

        address = None
        if heap is not None:
            if heap not in self.keys:
                return np.empty(0, np.int64)
            address = self.snapshot.heaps[self.keys.index(heap)].address
        return select(self.snapshot.walk.table, self.snapshot.heaps, Filter(heap=address, size=self.asked.size))

    def _unreachable(self) -> BlockSum | None:
        """The blocks that can no longer be reached; None where that is not asked for."""
        if not self.asked.unreachable:
            return None
        from heapdump.analyses.graph.overview import leaked_sum

        return leaked_sum(self.snapshot.graph, self.snapshot.reached, self.snapshot.walk.table)


_CHEAP = 4 << 20
"""Bytes that are swept for pointers without being asked to."""


def holder_of(request: Request, snapshot: Snapshot, address: int, *, follow: bool) -> str:
    """The root that holds a block, in words; "" where none does, or pointers are not followed.

    Pointers are followed where `follow` is True, or the sweep reads 4 MiB or less.
    """
    if not follow and not has_small_graph(snapshot, _CHEAP):
        return ""
    references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
    rows = snapshot.walk.table.at(address)
    node = references.node_of(rows[0]) if rows else None
    paths = references.paths(node) if node is not None else []
    return paths[0].root.root if paths else ""
