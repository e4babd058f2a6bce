"""Blocks in groups: the answers about all blocks of one snapshot, kept in the index.

Part of the wiring of `snapshot.py`, which would be too long with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.analyses.allocated.group_key import GroupKey
    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.graph.leak_suspects import LeakSuspect
    from heapdump.analyses.graph.retained_top import RetainedTop
    from heapdump.analyses.graph.unreachable_report import UnreachableReport
    from heapdump.analyses.types.declared_shapes import DeclaredShapes
    from heapdump.snapshot import Snapshot


class GroupAnswers:
    """Groups and leak suspects of one snapshot, from the index where they are stored there."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Reads nothing yet."""
        self._snapshot = snapshot

    def leak_suspects(self, make: Callable[[], tuple[LeakSuspect, ...]]) -> tuple[LeakSuspect, ...]:
        """The leak suspects of the dominator tree, from the index where there is one; `make` finds them."""
        from heapdump.analyses.graph.leak_suspects import from_record, to_record
        from heapdump.cache.answers import json_answer

        one = self._snapshot
        return one.answer(
            json_answer("leak-suspects", lambda record: from_record(record, len(one.graph)), to_record), make
        )

    def retained_top(self, make: Callable[[], RetainedTop]) -> RetainedTop:
        """The blocks that retain most, from the index where they are; `make` finds them."""
        from heapdump.analyses.graph.retained_top import top_from_record, top_to_record
        from heapdump.cache.answers import json_answer

        return self._snapshot.answer(json_answer("retained-top", top_from_record, top_to_record), make)

    def leak_groups(
        self, by: GroupKey, make: Callable[[], Sequence[LeakGroup]], *, has_own_names: bool,
        shapes: Callable[[], DeclaredShapes | None],
    ) -> Sequence[LeakGroup]:  # fmt: skip
        """All busy blocks of the program in groups by `by`: from the index, else made by `make`.

        Without `has_own_names` files beside the dump name code: groups whose keys have such names are not stored.
        `shapes`: what PDBs declare, which changes types.
        """
        from heapdump.analyses.allocated.stored_groups import columns_of, from_columns
        from heapdump.cache.answers import StoredAnswer

        if not has_own_names and (by.has_code_names or (by.has_type_names and shapes() is not None)):
            return make()
        one = self._snapshot
        stored: StoredAnswer[Sequence[LeakGroup]] = StoredAnswer(
            f"groups-{by}", lambda columns: from_columns(columns, len(one.heaps)), columns_of
        )
        return one.answer(stored, make)

    def unreachable_report(
        self,
        by: GroupKey,
        make: Callable[[], UnreachableReport],
        *,
        has_own_names: bool,
        shapes: Callable[[], DeclaredShapes | None],
    ) -> UnreachableReport:
        """The report on all unreachable blocks in groups by `by`; see `leak_groups`."""
        from heapdump.analyses.graph.stored_unreachable import columns_of, from_columns
        from heapdump.cache.answers import StoredAnswer

        if not has_own_names and (by.has_code_names or (by.has_type_names and shapes() is not None)):
            return make()
        one = self._snapshot
        stored = StoredAnswer(
            f"unreachable-{by}",
            lambda columns: from_columns(columns, len(one.heaps), lambda: len(one.walk.table)),
            columns_of,
        )
        return one.answer(stored, make)
