"""The damage of the heaps: the answers of one snapshot, each computed once and kept in the index.

Part of the wiring of `snapshot.py`, which would be too long with it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.analyses.damage.incidents import Incident
    from heapdump.analyses.damage.report_context import ReportContext
    from heapdump.blocks.damage import Damage
    from heapdump.blocks.findings import Finding
    from heapdump.snapshot import Snapshot


class DamageAnswers:
    """Damage and incidents of one snapshot, from the index where they are stored there."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Reads nothing yet."""
        self._snapshot = snapshot

    @cached_property
    def damage(self) -> Damage:
        """All findings in the heaps, and the gaps of the checks. From the index where they are."""
        from heapdump.blocks.stored_damage import from_record, to_record
        from heapdump.cache.answers import json_answer
        from heapdump.heaps.check import check_heaps

        one = self._snapshot
        stored = json_answer("damage", lambda record: from_record(record, len(one.heaps)), to_record)
        return one.answer(stored, lambda: check_heaps(one.process, one.heaps, one.walk))

    @cached_property
    def guards(self) -> tuple[Finding, ...]:
        """Changed guards of the CRT's debug heap. From the index where they are."""
        from heapdump.analyses.damage.crt_guards import changed_guards
        from heapdump.blocks.stored_damage import findings_from_record, findings_to_record
        from heapdump.cache.answers import json_answer

        one, guarded = self._snapshot, self.damage.guarded

        def search() -> tuple[Finding, ...]:
            """The guards, found now."""
            return tuple(changed_guards(one.process.space, one.heaps, one.walk.table, guarded, one.crt.blocks))

        return one.answer(json_answer("guards", findings_from_record, findings_to_record), search) if guarded else ()

    @cached_property
    def report_context(self) -> ReportContext:
        """The context in which reports of Windows are explained."""
        from heapdump.analyses.damage.report_context import report_context
        from heapdump.heaps.nt.cross_heap import is_checked_by

        one = self._snapshot
        return report_context(
            one.process, one.heaps, one.walk, one.page_nodes, one.crt.blocks,
            lambda entry, own, other: is_checked_by(one.view_of(own), entry, own, other),
        )  # fmt: skip

    @cached_property
    def incidents(self) -> tuple[Incident, ...]:
        """Every finding and every report of Windows, joined by bug; errors first."""
        from heapdump.analyses.damage.incidents import find_incidents

        one = self._snapshot
        return find_incidents(self.report_context, one.crash, self.damage, self.guards, one.stacks.numbers)
